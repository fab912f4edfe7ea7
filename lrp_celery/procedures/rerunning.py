"""Running a call once more, as a new one that points back."""

from __future__ import annotations

from typing import Any

from lrp_celery.core.errors import CallNotFound, NotRerunnable
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.runtime import Runtime
from lrp_celery.tracking.callstore import Payload
from lrp_celery.tracking.record import CallRecord


def rerun(app: Any, runtime: Runtime, call_id: str, new_id: str | None = None) -> str:
    """Make the new call, in the caller's transaction; return its id. With a `new_id` that is taken by it nothing is made."""
    record = runtime.callers.look(call_id)
    if record is None:
        raise CallNotFound(call_id=call_id)
    envelope = _message_of(runtime, record)
    procedure = getattr(app.tasks.get(record.task), "lrp_procedure", None)
    if procedure is None:
        raise _refused(record, f"this process knows no procedure {record.task!r}")
    again: str = procedure.call_again(envelope.args, envelope.kwargs, record, new_id)
    return again


def _message_of(runtime: Runtime, record: CallRecord) -> Envelope:
    if record.status.is_open:
        raise _refused(record, "it is open; abort it first, or wait for its end")
    if not record.owned:
        raise _refused(record, "it was only observed, and its arguments were not kept (see the setting PAYLOAD)")
    message = (runtime.callers.payload(record.call_id) or Payload()).message
    if message is None:
        raise _refused(record, "it ran inside its caller, without a message that could have been kept")
    return Envelope.from_json(message)


def _refused(record: CallRecord, why: str) -> NotRerunnable:
    return NotRerunnable(f"Call {record.call_id!r} cannot be run again: {why}.", call_id=record.call_id)
