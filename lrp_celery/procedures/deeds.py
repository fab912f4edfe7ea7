"""What people do to calls, each with its line in the record; `lrp_celery.calls` is the door to it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from lrp_celery.core.errors import CallPending, LrpError, StoreError
from lrp_celery.procedures import rerunning
from lrp_celery.procedures.actions import Action, Deed, bounded, name_of_user
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.publishing import send_or_leave
from lrp_celery.procedures.rerunning import Again
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.procedures.stopping import LEFT, Stopping
from lrp_celery.tracking.owned import AbortRequest, is_another

logger = logging.getLogger("lrp_celery.actions")

#: What came of it, for the record.
SENT, HANDLED, REMOVED = "sent again", "handled", "removed"
REMOVED_LATER = "removed once it has ended"
_AGAIN: Final = "runs again as "


def id_of_rerun(outcome: str) -> str | None:
    """Return the id of the new call that an action's outcome names; None: it names none."""
    return outcome.removeprefix(_AGAIN) if outcome.startswith(_AGAIN) else None


@dataclass(frozen=True, slots=True)
class Deeds:
    """What somebody does by one Celery app, on what its procedures stand on."""

    app: Any
    runtime: Runtime
    by: Any = None
    sees: Callable[[Collection[str]], Collection[str]] | None = None
    """Of some calls, those that this somebody may know of, and so act on; None: all."""

    def abort(
        self,
        call_id: str,
        *,
        reason: str | None = None,
        tree: bool = False,
        force: bool = False,
        generation: int | None = None,
        until: float = math.inf,
    ) -> list[Action]:
        """Ask for the end of a call, and with `tree` of its open descendants; return what came of each that is known.

        `generation`: which of the calls that have had the id is meant; None: whichever has it now.
        `until`: from then on, by the monotonic clock, the rest is left alone.
        """
        request = AbortRequest(reason=bounded(reason), by=name_of_user(self.by), force=force)
        stopping = Stopping(self.app, self.runtime, request)
        descendants = self._seen(stopping.descendants(call_id)) if tree else []
        # First of all: what cannot be done to one of them is refused before anything is done to another.
        for each in (call_id, *descendants):
            stopping.check(each)
        done = []
        for each in (call_id, *descendants):
            if time.monotonic() >= until:
                done.append(self._action(Deed.ABORT, each, LEFT))
                continue
            outcome = stopping.stop(each, generation if each == call_id else None)
            if outcome is not None:
                done.append(self._action(Deed.ABORT, each, outcome, request.reason))
                self.runtime.log(done[-1])
        return done

    def rerun(self, call_id: str, *, new_id: str | None = None) -> str:
        """Run an ended call once more; return the new id. `new_id` is the idempotency key, for whoever may ask twice."""
        return self.run_again(call_id, new_id=new_id).call_id

    def run_again(self, call_id: str, *, new_id: str | None = None) -> Again:
        """Likewise; also say whether the new call was made before, and then leave everything as it is."""
        try:
            again = rerunning.rerun(self.app, self.runtime, call_id, new_id)
        except LrpError as error:
            self.runtime.log(self._action(Deed.RERUN, call_id, f"refused: {type(error).__name__}"))
            raise
        if not again.is_new:
            return again
        try:
            self.runtime.callers.handle(call_id, name_of_user(self.by))
        except StoreError as error:
            # The new call is made, and whoever asked for it must not believe that it is not.
            logger.warning("Call %s runs again, but is not noted as handled: %s", call_id, error)
        self._log_after_commit(self._action(Deed.RERUN, call_id, f"{_AGAIN}{again.call_id}"))
        return again

    def resend(self, call_id: str) -> bool:
        """Send the message of a call that nobody has claimed once more; False: there is nothing to send."""
        sending = self.runtime.callers.resend(call_id)
        if sending is None:
            return False
        record, message = sending
        envelope = Envelope.from_json(message).of_generation(record.generation)
        if record.runs:
            envelope = envelope.without_expiry()
        self.runtime.after_commit(partial(send_or_leave, self.app, self.runtime, call_id, envelope))
        self._log_after_commit(self._action(Deed.RESEND, call_id, SENT))
        return True

    def handle(self, call_id: str, *, reason: str | None = None) -> bool:
        """Note that a failure is dealt with; False: it is none, or somebody has before."""
        if not self.runtime.callers.handle(call_id, name_of_user(self.by)):
            return False
        self._log_after_commit(self._action(Deed.HANDLE, call_id, HANDLED, bounded(reason)))
        return True

    def remove(self, call_id: str, *, when_settled: bool = False, generation: int | None = None) -> bool:
        """Forget an ended call, an open one once it has ended if `when_settled`; False: it is unknown.

        `CallPending` if it is open, without `when_settled`. `generation` as for `abort`.
        """
        record = self.runtime.callers.look(call_id)
        if record is None or is_another(record, generation):
            return False
        is_gone = self.runtime.callers.remove(call_id, when_settled=when_settled, generation=record.generation)
        if not is_gone and not when_settled:
            raise CallPending(call_id=call_id)
        outcome = REMOVED if is_gone else REMOVED_LATER
        self._log_after_commit(self._action(Deed.REMOVE, call_id, outcome))
        return True

    def _seen(self, call_ids: Iterable[str]) -> list[str]:
        found = list(call_ids)
        seen = found if self.sees is None or not found else self.sees(found)
        return [call_id for call_id in found if call_id in seen]

    def _action(self, deed: Deed, call_id: str, outcome: str, reason: str | None = None) -> Action:
        return Action(deed=deed, call_id=call_id, by=name_of_user(self.by), reason=reason, outcome=outcome)

    def _log_after_commit(self, action: Action) -> None:
        self.runtime.after_commit(partial(self.runtime.log, action))
