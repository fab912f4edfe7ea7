"""Doing what somebody has confirmed, call by call, and keeping account of each."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from django_app.admin.offers import ABORT, ABORT_TREE, HANDLE, REMOVE, RERUN, RESEND, Offer
from django_app.admin.plans import Plan
from django_app.models import Call
from lrp_celery.core.errors import LrpError, PublishFailed
from lrp_celery.core.text import clean
from lrp_celery.procedures import stopping
from lrp_celery.procedures.actions import Action
from lrp_celery.procedures.deeds import HANDLED, REMOVED, SENT, Deeds

#: How long one request goes on acting; what is left then is not done.
BUDGET: Final = timedelta(seconds=20)
_MESSAGE: Final = 200


class Level(StrEnum):
    """How sure it is that something was done."""

    CONFIRMED = "confirmed"
    ASKED = "asked"
    SKIPPED = "skipped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What whoever confirmed said besides."""

    reason: str | None = None
    force: bool = False
    key: str = ""
    """Tells one confirmation from the next: given twice, it makes no call twice."""
    until: float = math.inf
    """When to stop, by the monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one call: `words` are for the person, `entry` for the record (None: nothing was done)."""

    call: Call
    level: Level
    words: str
    entry: str | None = None
    new_id: str | None = None
    others: Sequence[Action] = ()
    """What was done to other calls with it."""


def act(plan: Plan, deeds: Deeds, wish: Wish, alias: str, budget: timedelta = BUDGET) -> Iterator[Result]:
    """Do it, and yield what came of each call; those that the plan skips come last."""
    deadline = time.monotonic() + budget.total_seconds()
    do, wish = _DOING[plan.offer.name], replace(wish, until=deadline)
    for call in plan.doable:
        if time.monotonic() >= deadline:
            yield Result(call=call, level=Level.SKIPPED, words=_("time was up: do it once more for the rest"))
            continue
        try:
            with nullcontext() if _is_at_once(plan.offer, call) else transaction.atomic(using=alias):
                result = do(call, deeds, wish)
        except PublishFailed as error:
            # It may still have been sent: the broker that is slow is not told from the one that is away.
            words = _("the broker did not say that it took the new call; whether it runs shows on its page")
            result = Result(call=call, level=Level.REFUSED, words=words, new_id=error.call_id)
        except LrpError as error:
            result = Result(call=call, level=Level.REFUSED, words=clean(str(error), _MESSAGE))
        yield result
    for call in plan.calls:
        if call.pk in plan.skips:
            yield Result(call=call, level=Level.SKIPPED, words=plan.skips[call.pk])


def _is_at_once(offer: Offer, call: Call) -> bool:
    """Whether no transaction is opened for it; all else belongs together, and goes out after the commit."""
    # An abort counts whatever becomes of a transaction. A call that is no procedure's is not sent again by anybody if the
    # broker does not take it, which in a transaction nobody would be told.
    return offer.name in {ABORT.name, ABORT_TREE.name} or (offer.name == RERUN.name and not call.owned)


def _abort(call: Call, deeds: Deeds, wish: Wish) -> Result:
    return _aborted(call, deeds.abort(call.pk, reason=wish.reason, force=wish.force, generation=call.generation))


def _abort_tree(call: Call, deeds: Deeds, wish: Wish) -> Result:
    return _aborted(call, deeds.abort(call.pk, reason=wish.reason, force=wish.force, tree=True, until=wish.until))


def _aborted(call: Call, done: Sequence[Action]) -> Result:
    outcomes = Counter(action.outcome for action in done)
    own = next((action.outcome for action in done if action.call_id == call.pk), None)
    nothing = {stopping.TOO_LATE, stopping.LEFT}
    others = [action for action in done if action.call_id != call.pk and action.outcome not in nothing]
    if own is None:
        return Result(call=call, level=Level.SKIPPED, words=_("it is gone"))
    if set(outcomes) == {stopping.TOO_LATE}:
        return Result(call=call, level=Level.SKIPPED, words=_("it had ended"))
    entry = None if own in nothing else f"Abort: {own}."
    if stopping.LEFT in outcomes:
        words = _("time was up before all that came of it was asked to end: do it once more for the rest")
        return Result(call=call, level=Level.ASKED, words=words, entry=entry, others=others)
    is_certain = not set(outcomes) & {stopping.UNDER_WAY, stopping.BEFORE}
    if is_certain:
        return Result(call=call, level=Level.CONFIRMED, words=_("ended"), entry=entry, others=others)
    words = _("asked to end; whether it does shows on its page")
    return Result(call=call, level=Level.ASKED, words=words, entry=entry, others=others)


def _rerun(call: Call, deeds: Deeds, wish: Wish) -> Result:
    again = deeds.run_again(call.pk, new_id=derived_id(wish.key, call.pk) if wish.key else None)
    if not again.is_new:
        return Result(call=call, level=Level.SKIPPED, words=_("it was called again before"), new_id=again.call_id)
    words, entry = _("called again"), f"Run again as {again.call_id}."
    return Result(call=call, level=Level.CONFIRMED, words=words, entry=entry, new_id=again.call_id)


def _resend(call: Call, deeds: Deeds, wish: Wish) -> Result:
    if not deeds.resend(call.pk):
        return Result(call=call, level=Level.SKIPPED, words=_("there was nothing to send any more"))
    words = _("sent again; whether a worker takes it shows on its page")
    return Result(call=call, level=Level.ASKED, words=words, entry=f"{SENT.capitalize()}.")


def _handle(call: Call, deeds: Deeds, wish: Wish) -> Result:
    if not deeds.handle(call.pk, reason=wish.reason):
        return Result(call=call, level=Level.SKIPPED, words=_("it is handled already"))
    return Result(call=call, level=Level.CONFIRMED, words=_("marked as handled"), entry=f"Failure {HANDLED}.")


def _remove(call: Call, deeds: Deeds, wish: Wish) -> Result:
    if not deeds.remove(call.pk, generation=call.generation):
        return Result(call=call, level=Level.SKIPPED, words=_("it is gone"))
    return Result(call=call, level=Level.CONFIRMED, words=_("removed"), entry=f"{REMOVED.capitalize()}.")


_DOING: Final[dict[str, Callable[[Call, Deeds, Wish], Result]]] = {
    ABORT.name: _abort,
    ABORT_TREE.name: _abort_tree,
    RERUN.name: _rerun,
    RESEND.name: _resend,
    HANDLE.name: _handle,
    REMOVE.name: _remove,
}


def derived_id(key: str, call_id: str) -> str:
    """Return the id of what `call_id` becomes under this key: always the same, and as new as the key."""
    value = UUID(key).int >> 80 << 80 | int.from_bytes(sha256(f"{key}/{call_id}".encode()).digest()[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def summed(results: Sequence[Result]) -> Iterator[tuple[Level, str, int]]:
    """Yield (level, words, how many calls), what is certain first."""
    counts = Counter((result.level, result.words) for result in results)
    for level in Level:
        for (found, words), count in counts.most_common():
            if found is level:
                yield level, words, count
