"""Asking for the end of any call, procedure or not, from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from lrp_celery.core.clock import SystemClock
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.core.values import replace
from lrp_celery.procedures.aborts import board
from lrp_celery.procedures.revoking import revoke
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.owned import AbortRequest, is_another, is_held
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.rescue import is_silent
from lrp_celery.tracking.status import CallStatus, Reason

#: The pool whose processes may be killed: another one takes the place.
_PREFORK: Final = "prefork"
#: So many calls of one family are looked through.
_FAMILY: Final = 10_000
#: What came of it, for the record.
ENDED, UNDER_WAY, BEFORE, TOO_LATE = "aborted", "asked to end", "had been asked to end", "had ended"
#: Nothing: time was up. That is not on record.
LEFT = "left alone"


class Stopping:
    """One request, for one call or for several."""

    def __init__(self, app: Any, runtime: Runtime, request: AbortRequest) -> None:
        self._app = app
        self._runtime = runtime
        self._request = request

    def stop(self, call_id: str, generation: int | None = None) -> str | None:
        """Ask for the end of one call; return what came of it, None: there is no such call.

        `generation`: which of the calls that have had the id is meant; None: whichever has it now.
        """
        found = self._find(call_id)
        if found is None or is_another(found[1], generation):
            return None
        store, record = found
        if record.status.is_terminal:
            return TOO_LATE
        if self._request.force:
            self._check_force(store, record)
        asked = store.request_abort(call_id, replace(self._request, generation=record.generation))
        return self._tell(record, asked) if record.owned else self._revoke(store, record, asked)

    def check(self, call_id: str) -> None:
        """Raise what `stop` would raise for what is asked of this call; nothing is done yet."""
        found = self._find(call_id) if self._request.force else None
        if found is not None and found[1].status.is_open:
            self._check_force(*found)

    def descendants(self, call_id: str) -> Iterator[str]:
        """Yield the open calls that were made by this one, by those, and so on, as far as they are known now."""
        found = self._find(call_id)
        if found is None:
            return
        store, record = found
        family = store.family(record.root_id or call_id, _FAMILY)
        children: dict[str | None, list[str]] = {}
        for each in family:
            children.setdefault(each.parent_id, []).append(each.call_id)
        is_open = {each.call_id: each.status.is_open for each in family}
        seen, waiting = {call_id}, [call_id]
        while waiting:
            for child in children.get(waiting.pop(), []):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
                    if is_open[child]:
                        yield child

    def _find(self, call_id: str) -> tuple[CallStore, CallRecord] | None:
        """Return the call and the store to write it by: at once, unless only the caller's transaction sees it."""
        stores = (self._runtime.own, self._runtime.callers)
        for store in stores if self._runtime.may_write() else stores[1:]:
            record = store.look(call_id)
            if record is not None:
                return store, record
        return None

    def _tell(self, record: CallRecord, asked: CallRecord | None) -> str:
        if asked is None:
            return BEFORE
        if asked.status.is_terminal:
            return ENDED
        board.tell(record.call_id, asked.run, asked.abort_reason, Reason.ABORTED, force=self._request.force)
        return UNDER_WAY

    def _revoke(self, store: CallStore, record: CallRecord, asked: CallRecord | None) -> str:
        """Celery is asked to drop it; a silent one has nobody left who would say that it did."""
        is_silent = self._is_silent(record)
        if is_silent:
            store.record_terminal(record.call_id, CallStatus.ABORTED, reason=Reason.ABORTED)

        def tell_workers() -> None:
            revoke(self._app, self._runtime, record.call_id, kill=self._request.force)

        if store is self._runtime.own:
            tell_workers()
        else:
            self._runtime.after_commit(tell_workers)
        if is_silent:
            return ENDED
        return BEFORE if asked is None else UNDER_WAY

    def _is_silent(self, record: CallRecord) -> bool:
        return is_silent(record, SystemClock().now(), timedelta(seconds=self._runtime.limits.silent_after))

    def _check_force(self, store: CallStore, record: CallRecord) -> None:
        """Refuse to kill a process that runs more than this call, or that nobody would replace."""
        if record.run is None or not record.is_running:
            return
        pools = [worker.pool for worker in store.workers() if f"-{worker.boot_id}-" in record.run]
        if pools and pools[0] != _PREFORK:
            raise ConfigurationError(
                f"Call {record.call_id!r} runs in a pool of kind {pools[0]!r}, whose process cannot be killed for one "
                "call: abort it without force."
            )
        if is_held(record) and not pools:
            raise ConfigurationError(
                f"The worker that runs call {record.call_id!r} is not known, so its process cannot be killed: abort it "
                "without force."
            )
