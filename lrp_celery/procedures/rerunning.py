"""Running a call once more, as a new one that points back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from lrp_celery.core.clock import SystemClock
from lrp_celery.core.errors import CallIdConflict, CallNotFound, LrpError, NotRerunnable, PublishFailed
from lrp_celery.core.ids import new_id as fresh_id
from lrp_celery.procedures.envelope import Envelope, capture
from lrp_celery.procedures.publishing import BrokerAway, ask_broker
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.tracking import messages, observer
from lrp_celery.tracking.callstore import Payload
from lrp_celery.tracking.holding import gathering
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.tracking import tracking_of

logger = logging.getLogger("lrp_celery.procedures")


@dataclass(frozen=True, slots=True)
class Again:
    """The call that runs in the stead of an earlier one."""

    call_id: str
    is_new: bool = True
    """False: it was made before, under the same id, for whoever asks twice."""


def rerun(app: Any, runtime: Runtime, call_id: str, new_id: str | None = None) -> Again:
    """Make the new call, in the caller's transaction. With a `new_id` that is taken by it nothing is made.

    That of a task that is no procedure goes out after the commit; if it does not, then without a
    transaction `PublishFailed` is raised, in one it is logged, and the new call shows it.
    """
    record = runtime.callers.look(call_id)
    if record is None:
        raise CallNotFound(call_id=call_id)
    envelope = _message_of(runtime, record)
    task = app.tasks.get(record.task)
    procedure = getattr(task, "lrp_procedure", None)
    if procedure is not None:
        try:
            return Again(*procedure.call_again(envelope.args, envelope.kwargs, record, new_id))
        except LrpError:
            raise
        except TypeError as error:
            raise _no_fit(record, error) from error
    if record.owned:
        raise _refused(record, f"this process knows no procedure {record.task!r}")
    if task is None:
        raise _refused(record, f"this process knows no task {record.task!r}")
    return _Plainly(task, runtime, record, new_id or fresh_id()).run(envelope)


class _Plainly:
    """A call of a task that is no procedure, made once more."""

    def __init__(self, task: Any, runtime: Runtime, earlier: CallRecord, call_id: str) -> None:
        self._task = task
        self._runtime = runtime
        self._earlier = earlier
        self._call_id = call_id
        self._error: BaseException | None = None

    def run(self, kept: Envelope) -> Again:
        """Make its row, and have its message sent."""
        stamp = messages.fresh_stamp(SystemClock().now(), rerun_of=self._earlier.call_id)
        publish = partial(
            self._task.apply_async, kept.args, kept.kwargs, task_id=self._call_id, headers={messages.HEADER: stamp}
        )
        if self._task.app.conf.task_always_eager:
            publish()
            return Again(self._call_id)
        try:
            with gathering() as reports:
                envelope = capture(lambda producer: publish(producer=producer))
        except TypeError as error:
            raise _no_fit(self._earlier, error) from error
        if not all(self._runtime.callers.report(report) for report in reports):
            return self._known()
        self._runtime.after_commit(lambda: self._send(envelope))
        if self._error is not None:
            raise PublishFailed(
                f"The broker did not take call {self._call_id!r}, which was to run {self._earlier.call_id!r} again.",
                call_id=self._call_id,
            ) from self._error
        return Again(self._call_id)

    def _known(self) -> Again:
        """Return the call that has the id if it is this one: whoever asked did so twice."""
        known = self._runtime.callers.look(self._call_id)
        if known is None or known.rerun_of != self._earlier.call_id:
            raise CallIdConflict(call_id=self._call_id)
        return Again(self._call_id, is_new=False)

    def _send(self, envelope: Envelope) -> None:
        app = self._task.app
        try:
            ask_broker(self._runtime, partial(envelope.publish, app))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the row has been made
            self._error = error
            why = "the broker is away" if isinstance(error, BrokerAway) else f"{type(error).__name__}: {error}"
            logger.warning("Call %s is not sent: %s", self._call_id, why)
            tracking = tracking_of(app)
            if tracking is not None:
                observer.publish_failed(tracking, envelope.headers, error)


def _message_of(runtime: Runtime, record: CallRecord) -> Envelope:
    if record.status.is_open:
        raise _refused(record, "it is open; abort it first, or wait for its end")
    message = (runtime.callers.payload(record.call_id) or Payload()).message
    if message is not None:
        try:
            return Envelope.from_json(message)
        except (ValueError, TypeError, KeyError) as error:
            # What a task was given may look like the form that kombu gives to values that JSON does not have.
            raise _refused(record, "its message cannot be read") from error
    if record.owned:
        raise _refused(record, "it ran inside its caller, without a message that could have been kept")
    raise _refused(record, "it was only observed, and its arguments were not kept (see the setting PAYLOAD)")


def _no_fit(record: CallRecord, error: TypeError) -> NotRerunnable:
    return _refused(record, f"its arguments do not fit any more: {error}")


def _refused(record: CallRecord, why: str) -> NotRerunnable:
    return NotRerunnable(f"Call {record.call_id!r} cannot be run again: {why}.", call_id=record.call_id)
