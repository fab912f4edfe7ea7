"""Reading, awaiting, aborting and forgetting calls, off the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from celery._state import get_current_app
from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags

from django_app.api import problems
from django_app.api.asked import Asked, Later, as_json
from django_app.api.contract import RETRY_AFTER
from django_app.api.problems import Problem, no_call
from django_app.api.representation import etag_of, represent
from django_app.api.visitors import lacking
from django_app.conf import options
from lrp_celery.core.errors import CallPending
from lrp_celery.procedures.deeds import Deeds
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking.callstore import Payload
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.store import is_usable_id

#: A visitor's own, which no cache may hand to another, and which is asked for anew each time.
_PRIVATE: Final = {"Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization"}


def read(asked: Asked) -> HttpResponse:
    """Tell how a call stands, unless the visitor knows."""
    record = _seen(asked)
    reads = asked.visitor.reads(record)
    etag = etag_of(record, with_payload=reads)
    headers = {"ETag": etag, **_PRIVATE}
    known = parse_etags(asked.request.headers.get("If-None-Match", ""))
    if "*" in known or etag.removeprefix("W/") in {each.removeprefix("W/") for each in known}:
        return HttpResponseNotModified(headers=headers)
    return shown(*_with_result(record, reads=reads), headers=headers)


def result(asked: Asked) -> HttpResponse | Later:
    """Tell what a call has returned, or that whoever asks is to wait."""
    record = _seen(asked)
    if not asked.visitor.reads(record):
        raise lacking("lrp_celery.view_payload")
    wait = min(asked.query.get("wait", 0), options().MAX_WAIT)
    if wait and record.status.is_open and record.abort_requested_at is None:
        return Later(record, wait)
    return settled(*_with_result(record, reads=True))


def settled(record: CallRecord, payload: Payload | None) -> HttpResponse:
    """Return the answer to whoever has waited for a call."""
    if record.status.is_terminal:
        return shown(record, payload, headers=_PRIVATE)
    return shown(record, None, status=202, headers={"Retry-After": str(RETRY_AFTER), **_PRIVATE})


def shown(
    record: CallRecord, payload: Payload | None, *, status: int = 200, headers: Mapping[str, str]
) -> HttpResponse:
    """Return a call as an answer."""
    return as_json(represent(record, payload), status=status, headers=headers)


def _with_result(record: CallRecord, *, reads: bool) -> tuple[CallRecord, Payload | None]:
    if not reads or record.status.is_open:
        return record, None
    found = runtime_of(get_current_app()).callers.look_with_result(record.call_id)
    if found is None or found[0].generation != record.generation:
        raise no_call()
    return found


def _seen(asked: Asked) -> CallRecord:
    record = _look(asked)
    if record is None or not asked.visitor.sees(record):
        raise no_call()
    record = _attended(record)
    if record is None:
        raise no_call()
    return record


def _look(asked: Asked) -> CallRecord | None:
    """Return a call of the procedure that is asked for, or of any; what is only observed is not for callers."""
    call_id, procedure = asked.path["id"], asked.query.get("procedure")
    record = runtime_of(get_current_app()).callers.look(call_id) if is_usable_id(call_id) else None
    if record is None or not record.owned or procedure not in {None, record.task}:
        asked.visitor.recall()
        return None
    return record


def _attended(record: CallRecord) -> CallRecord | None:
    """Return how a call stands that the visitor may know of; None: it is gone."""
    if not record.status.is_open or not _is_overdue(record):
        return record
    # A timeout must not need a worker: whoever looks settles what is overdue.
    store = runtime_of(get_current_app()).callers
    store.attend(record.call_id)
    return store.look(record.call_id)


def _is_overdue(record: CallRecord) -> bool:
    return record.deadline_at is not None and record.deadline_at <= datetime.now(UTC)


# --- ending


def abort(asked: Asked) -> HttpResponse:
    """Ask for the end of a call; whoever may not is told so only if they see it."""
    record = _mine(asked, "abort_call")
    if record is not None:
        _deeds(asked).abort(record.call_id, reason=asked.body.get("reason"), generation=record.generation)
    return as_json({"id": asked.path["id"]}, status=202, headers={"Cache-Control": "no-store"})


def remove(asked: Asked) -> HttpResponse:
    """Forget a call; whoever may not is told so only if they see it."""
    record, when_settled = _mine(asked, "remove_call"), "when" in asked.query
    if record is not None:
        _forget(asked, record, when_settled=when_settled)
    if when_settled:
        return as_json({"id": asked.path["id"]}, status=202, headers={"Cache-Control": "no-store"})
    return HttpResponse(status=204)


def _forget(asked: Asked, record: CallRecord, *, when_settled: bool) -> None:
    """Forget just this call: its id may have passed to somebody else's meanwhile."""
    deeds, generation = _deeds(asked), record.generation
    try:
        if not asked.visitor.owns(record):
            deeds.remove(record.call_id, when_settled=when_settled, generation=generation)
            return
        # Callers remove each of their calls: that is no news for the record of who did what.
        is_gone = deeds.runtime.callers.remove(record.call_id, when_settled=when_settled, generation=generation)
        if not is_gone and not when_settled:
            raise CallPending(call_id=record.call_id)  # noqa: TRY301 - as the other branch does
    except CallPending:
        detail = "Wait for its result, abort it, or send ?when=settled to have it forgotten then."
        raise Problem(problems.PENDING, detail) from None


def _mine(asked: Asked, right: str) -> CallRecord | None:
    """Return the call if the visitor may do this to it; None: it is unknown, or is to look so."""
    record = _look(asked)
    if record is None:
        return None
    if asked.visitor.owns(record) or asked.visitor.may(right):
        return _attended(record)
    if asked.visitor.sees(record):
        raise lacking(f"lrp_celery.{right}")
    return None


def _deeds(asked: Asked) -> Deeds:
    app = get_current_app()
    return Deeds(app, runtime_of(app), asked.visitor.user)
