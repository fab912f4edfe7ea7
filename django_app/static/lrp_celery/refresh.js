/* Keeps the parts of a page that are marked with data-lrp-refresh as they are now: fetches the page again, and puts
   the new parts, found by their ids, in the place of the old ones. It rests while nobody looks at the page, and
   leaves alone what somebody is using. Without it, the page is as it was when it was asked for. */

(() => {
  "use strict";

  const button = document.querySelector("[data-lrp-every]");
  if (!button) return;
  const every = Number(button.dataset.lrpEvery) * 1000;
  let isPaused = false;
  let isAsking = false;
  let askedAt = Date.now();

  const show = () => {
    button.textContent = isPaused ? button.dataset.lrpResume : button.dataset.lrpPause;
    button.setAttribute("aria-pressed", String(isPaused));
  };

  const isInUse = (part) => {
    const chosen = document.getSelection();
    return part.contains(document.activeElement) || (chosen && !chosen.isCollapsed && chosen.containsNode(part, true));
  };

  const put = (fresh, part) => {
    for (const open of part.querySelectorAll("details[open][id]")) {
      const same = fresh.querySelector(`#${CSS.escape(open.id)}`);
      if (same) same.open = true;
    }
    const scrolled = [...part.querySelectorAll(".lrp-scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    part.replaceWith(fresh);
    fresh.querySelectorAll(".lrp-scroll").forEach((box, place) => {
      if (scrolled[place]) [box.scrollLeft, box.scrollTop] = scrolled[place];
    });
  };

  const refresh = async () => {
    isAsking = true;
    askedAt = Date.now();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      // Whoever was logged out, or may not look any more, is told so when he loads the page.
      if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-lrp-refresh][id]")) {
        const fresh = page.getElementById(part.id);
        if (fresh && !isInUse(part)) put(document.adoptNode(fresh), part);
      }
    } catch {
      const at = document.getElementById("lrp-at");
      if (at && !at.dataset.lrpStale) {
        at.dataset.lrpStale = "true";
        at.append(`, ${button.dataset.lrpFailed}`);
      }
    } finally {
      isAsking = false;
    }
  };

  const tick = () => {
    if (!isPaused && !isAsking && !document.hidden && Date.now() - askedAt >= every) refresh();
  };

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    show();
    if (!isPaused) refresh();
  });
  document.addEventListener("visibilitychange", tick);
  setInterval(tick, 1000);
  show();
  button.hidden = false;
})();
