"""What a person may do to calls in the admin: who may, to which calls, and what comes of it. Pure: nothing is done here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from django.utils.translation import gettext_lazy as _

from django_app.models import FAILED_VALUES, Call

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as Text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is expected to become of one call: `text` says what, or why nothing is done."""

    text: Text
    is_done: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known besides the rows of the calls that are judged."""

    now: datetime
    with_message: Collection[str] = ()
    """Ids of calls whose message is kept."""
    procedures: Collection[str] = ()
    """Names of the procedures that this process knows."""
    tasks: Collection[str] = ()
    """Names of the tasks that it knows, those of procedures among them."""
    open_by_root: Mapping[str, int] = field(default_factory=dict)
    """How many open calls came of each root, without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An action on calls: its words, the right that it needs, and what it expects of a call."""

    name: str
    """As Django's admin calls the action."""
    permission: str
    """The codename of the right."""
    label: Text
    question: Text
    consequence: Text
    """What it means, in one or two sentences."""
    judge: Callable[[Call, Facts], Verdict]
    takes_reason: bool = False
    takes_force: bool = False
    is_grave: bool = False
    """Whether what is lost by it does not come back."""


def is_held(call: Call) -> bool:
    """Whether a run holds the call, as `owned.is_held` sees it."""
    return call.owned and call.lease_until is not None and has_running_run(call)


def has_running_run(call: Call) -> bool:
    """Whether a run of the present turn has begun and nobody has reported its end."""
    return call.run is not None and call.run_outcome is None and not call.is_terminal


def _skip(text: Text) -> Verdict:
    return Verdict(text, is_done=False)


_ENDED: Final = _skip(_("it has ended"))
_OPEN: Final = _skip(_("it is open"))


def _abort(call: Call, facts: Facts) -> Verdict:
    if call.is_terminal:
        return _ENDED
    if call.owned:
        return Verdict(
            _("runs: it is told to end, and interrupted after its grace") if is_held(call) else _("ends at once")
        )
    if has_running_run(call):
        return Verdict(_("is no procedure's and runs: it goes on, unless its process is killed"))
    return Verdict(_("is no procedure's: workers are told to drop it, and report when they do"))


def _abort_tree(call: Call, facts: Facts) -> Verdict:
    is_root = call.root_id in {None, call.pk}
    others = facts.open_by_root.get(call.root_id or call.pk, 0) - (not is_root and not call.is_terminal)
    if others > 0:
        # Of a tree only the root is known to be above all that is open in it.
        return Verdict(
            _("with the open calls that came of it") if is_root else _("with what came of it, if it is open")
        )
    if call.is_terminal:
        return _skip(_("it has ended, and nothing that came of it is open"))
    return _abort(call, facts)


def _rerun(call: Call, facts: Facts) -> Verdict:
    if not call.is_terminal:
        return _OPEN
    if call.pk not in facts.with_message:
        if call.owned:
            return _skip(_("it ran inside its caller, and its arguments were not kept"))
        return _skip(_("it was only observed, and its arguments were not kept"))
    if call.task not in (facts.procedures if call.owned else facts.tasks):
        return _skip(
            _("this process knows no procedure of that name")
            if call.owned
            else _("this process knows no task of that name")
        )
    if call.handled_at is not None:
        return Verdict(_("runs again, although its failure was handled before"))
    return Verdict(_("runs again, as a new call"))


def _resend(call: Call, facts: Facts) -> Verdict:
    if call.is_terminal:
        return _ENDED
    if not call.owned:
        return _skip(_("it is no procedure's, and its message was not kept"))
    if is_held(call):
        return _skip(_("a worker runs it"))
    if call.due_at is not None and call.due_at > facts.now:
        return _skip(_("it is not due yet"))
    if call.pk not in facts.with_message:
        return _skip(_("its message was not kept"))
    return Verdict(_("its message goes out once more"))


def _handle(call: Call, facts: Facts) -> Verdict:
    if call.status not in FAILED_VALUES:
        return _skip(_("it has not failed"))
    if call.handled_at is not None:
        return _skip(_("it is handled already"))
    return Verdict(_("counts as handled from now on"))


def _remove(call: Call, facts: Facts) -> Verdict:
    return Verdict(_("is forgotten, with its attempts, log and result")) if call.is_terminal else _OPEN


ABORT: Final = Offer(
    name="abort_calls",
    permission="abort_call",
    label=_("Abort"),
    question=_("Abort these calls?"),
    consequence=_(
        "A procedure's call that waits ends at once, one that runs after its grace. Other calls are revoked: "
        "one of those that runs already goes on."
    ),
    judge=_abort,
    takes_reason=True,
    takes_force=True,
)
ABORT_TREE: Final = Offer(
    name="abort_trees",
    permission="abort_tree",
    label=_("Abort with descendants"),
    question=_("Abort these calls, and all that came of them?"),
    consequence=_(
        "The open calls that these have made, and those have made, and so on, are asked to end, too: as far as they are "
        "among the first 10,000 calls of their tree."
    ),
    judge=_abort_tree,
    takes_reason=True,
    takes_force=True,
)
RERUN: Final = Offer(
    name="rerun_calls",
    permission="rerun_call",
    label=_("Run again"),
    question=_("Run these calls again?"),
    consequence=_(
        "Each becomes a new call with the same arguments, which points back to the old one. "
        "A failure counts as handled then."
    ),
    judge=_rerun,
)
RESEND: Final = Offer(
    name="resend_calls",
    permission="resend_call",
    label=_("Send again"),
    question=_("Send the messages of these calls again?"),
    consequence=_("For messages that the broker has lost. A copy too many does no harm: only one is run."),
    judge=_resend,
)
HANDLE: Final = Offer(
    name="handle_calls",
    permission="handle_call",
    label=_("Mark as handled"),
    question=_("Mark the failures of these calls as handled?"),
    consequence=_("They need no attention any more. What became of them stays as it is."),
    judge=_handle,
    takes_reason=True,
)
REMOVE: Final = Offer(
    name="remove_calls",
    permission="remove_call",
    label=_("Remove"),
    question=_("Remove these calls?"),
    consequence=_("All that is known of them is gone for good; who removed them stays on record."),
    judge=_remove,
    is_grave=True,
)
OFFERS: Final = {offer.name: offer for offer in (ABORT, ABORT_TREE, RERUN, RESEND, HANDLE, REMOVE)}
