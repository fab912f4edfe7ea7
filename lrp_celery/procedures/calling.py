"""Making a call: its row in the caller's transaction, its message after the commit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from lrp_celery.core.clock import SystemClock
from lrp_celery.core.errors import CallIdConflict, NotEncodable
from lrp_celery.core.values import replace
from lrp_celery.procedures.envelope import Envelope, capture
from lrp_celery.procedures.options import CallOptions
from lrp_celery.procedures.publishing import send_or_leave
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.tracking import messages
from lrp_celery.tracking.callstore import CallStore, holder_of
from lrp_celery.tracking.holding import StandIn
from lrp_celery.tracking.owned import Order, Terms
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.reports import CallFacts
from lrp_celery.tracking.stencils import publish_alike

_IGNORE_RESULT: Final = "ignore_result"


def refuse_another(order: Order, known: CallRecord) -> None:
    """Raise `CallIdConflict` if the call that has the id is not the one that is ordered once more."""
    if known.task != order.facts.task or known.owner != order.facts.owner:
        raise CallIdConflict(call_id=order.call_id)


class Calling:
    """One call that is being made."""

    def __init__(
        self,
        task: Any,
        runtime: Runtime,
        terms: Terms,
        options: CallOptions,
        call_id: str,
        *,
        rerun_of: str | None = None,
    ) -> None:
        self._task = task
        self._runtime = runtime
        self._terms = terms
        self._options = options
        self._call_id = call_id
        self._rerun_of = rerun_of
        self.is_new = True
        """Once it is made: False if an earlier call has the id, and this is the same call."""

    def make(self, args: list[Any], kwargs: dict[str, Any], summary: str) -> str:
        """Make the call of arguments that are JSON already; return its id."""
        if not self._options.detached:
            self._runtime.check_transaction()
        if self._task.app.conf.task_always_eager:
            return self._run_now(args, kwargs, summary)
        order, envelope = self.prepare(args, kwargs, summary)
        record = self._insert(order)
        if record is not None and record.published_at is not None:
            self._after_commit(partial(self._send, envelope, record.generation))
        return self._call_id

    def prepare(self, args: list[Any], kwargs: dict[str, Any], summary: str) -> tuple[Order, Envelope]:
        """Return what is to be written of the call, and the message that is to be sent then; nothing is done yet."""
        envelope = capture(partial(self._publish, args, kwargs))
        envelope.headers[_IGNORE_RESULT] = self._task.ignore_result
        message = envelope.to_json()
        self._check_size(message)
        facts = self._facts(envelope.headers.get, envelope.options.get("routing_key"), summary)
        return Order(call_id=self._call_id, facts=facts, terms=self._terms, message=message), envelope

    def _publish(self, args: list[Any], kwargs: dict[str, Any], stand_in: StandIn) -> None:
        celery = self._options.celery
        options = {
            **celery,
            "headers": {**(celery.get("headers") or {}), messages.OWNED: 0},
            # Else Celery's result backend would subscribe to a result for which nobody here can ever ask it.
            _IGNORE_RESULT: True,
            "serializer": "json",
        }
        publish_alike(self._task, self._call_id, args, kwargs, options, stand_in)

    def _facts(self, get: Callable[[str], Any], queue: str | None, summary: str) -> CallFacts:
        facts = messages.facts_of(get, self._task.name, queue=queue, summary=summary)
        return replace(facts, owner=self._options.owner, rerun_of=self._rerun_of)

    def _insert(self, order: Order) -> CallRecord | None:
        """Make the row; None: it is not new."""
        store = self._store()
        record = store.insert(order)
        if record is not None:
            return record
        known = holder_of(store, order.call_id)
        if self._options.call_id is None:
            # Nobody else has the id: a first try wrote the row, whose answer was lost together with its connection.
            return known
        self.is_new = False
        refuse_another(order, known)
        return None

    def _store(self) -> CallStore:
        if self._options.detached:
            return self._runtime.own
        return self._runtime.of_new_call() if self._options.call_id is None else self._runtime.callers

    def _after_commit(self, work: Callable[[], None]) -> None:
        if self._options.detached:
            work()
        else:
            self._runtime.after_commit(work)

    def _send(self, envelope: Envelope, generation: int) -> None:
        send_or_leave(self._task.app, self._runtime, self._call_id, envelope.of_generation(generation))

    def _check_size(self, message: str) -> None:
        limit = self._runtime.limits.max_payload
        if len(message) > limit:
            raise NotEncodable(
                f"The arguments of {self._task.name} have {len(message)} bytes of JSON, more than the {limit} of "
                "MAX_PAYLOAD: pass the place where they can be found."
            )

    def _run_now(self, args: list[Any], kwargs: dict[str, Any], summary: str) -> str:
        """Eagerly: the caller is the worker, and the call has settled when its id is returned."""
        headers: dict[str, Any] = {messages.OWNED: 0, "id": self._call_id, "root_id": self._call_id}
        messages.stamp(headers, SystemClock().now(), None)
        facts = self._facts(headers.get, None, summary)
        if self._insert(Order(call_id=self._call_id, facts=facts, terms=self._terms, message=None)) is not None:
            self._task.apply(args, kwargs, task_id=self._call_id, throw=False)
        return self._call_id
