/* Keeps the parts of a page that are marked with data-lrp-refresh as they are now: fetches the page again, and makes
   each part, found by its id, equal to the new one. It rests while nobody looks at the page, leaves alone what somebody
   is using, and ends when a page says no more how often. Without it, the page is as it was when it was asked for. */

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
    const isChosen = chosen && !chosen.isCollapsed && chosen.containsNode(part, true);
    return isChosen || part.contains(document.activeElement) || part.querySelector("input:checked");
  };

  /* Elements that stay are not replaced: whoever has unfolded or scrolled one, or listens to it, loses nothing. */
  const become = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    [...fresh.childNodes].forEach((child, place) => put(child, old, place));
    // What was in the way of new ones has been pushed to the end.
    while (old.childNodes.length > fresh.childNodes.length) old.lastChild.remove();
  };

  const put = (child, parent, place) => {
    const there = parent.childNodes[place];
    const same = child.id ? [...parent.children].find((each) => each.id === child.id) : there;
    if (!same || same.nodeName !== child.nodeName || (same.id || "") !== (child.id || "")) {
      parent.insertBefore(document.importNode(child, true), there || null);
      return;
    }
    if (same !== there) parent.insertBefore(same, there);
    become(same, child);
  };

  const refresh = async () => {
    isAsking = true;
    askedAt = Date.now();
    try {
      // The header says that nobody looks at what comes: messages wait for somebody who does.
      const headers = { "X-LRP-Refresh": "1" };
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store", headers });
      if (answer.status === 404) stop();
      // Whoever was logged out, or may not look any more, is told so when he loads the page.
      if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-lrp-refresh][id]")) {
        const fresh = page.getElementById(part.id);
        if (fresh && !isInUse(part)) become(part, fresh);
      }
      if (!page.querySelector("[data-lrp-every]")) end();
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

  const stop = () => {
    clearInterval(ticking);
    document.removeEventListener("visibilitychange", tick);
    button.hidden = true;
  };

  const end = () => {
    stop();
    button.closest(".lrp-at").remove();
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
  const ticking = setInterval(tick, 1000);
  show();
  button.hidden = false;
})();
