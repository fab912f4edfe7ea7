"""The rows of many owned calls at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import NOW, read_clock
from django_app.stores import many, rows
from lrp_celery.tracking import owned
from lrp_celery.tracking.owned import Order, Timing
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.status import CallStatus
from lrp_celery.tracking.steps import Merged

#: A row to which nothing has happened since it was made, and that is due.
_AS_MADE = {"version": 0, "status": CallStatus.SUBMITTED, "runs": 0, "owned": True, "due_at": None, "removed_at": None}


def place_all(connection: BaseDatabaseWrapper, orders: Sequence[Order], timing: Timing) -> dict[str, CallRecord]:
    """Make the rows of the calls whose ids are new, and keep their messages; return these rows by their ids.

    Of orders with the same id the first one counts.
    """
    now = read_clock(connection)
    fresh: dict[str, Merged] = {}
    for order in orders:
        placed = owned.place(None, order, now, timing)
        if placed is not None:
            fresh.setdefault(order.call_id, placed)
    # In one order everywhere: two that make the same calls at once wait for each other, and not in a circle.
    ordered = [rows.call_values(fresh[call_id].record) for call_id in sorted(fresh)]
    inserted = many.insert_absent(connection, rows.calls, ordered)
    kept = [_payload(call_id, fresh[call_id].payload or {}) for call_id in fresh if call_id in inserted]
    many.insert(connection, rows.payloads, kept)
    return {call_id: each.record for call_id, each in fresh.items() if call_id in inserted}


def known(connection: BaseDatabaseWrapper, call_ids: Sequence[str]) -> dict[str, CallRecord]:
    """Return the rows that these ids have."""
    found = rows.calls.find_any(connection, sorted(set(call_ids)), rows.CALL_COLUMNS) if call_ids else ()
    return {record.call_id: record for record in map(rows.call_record, found)}


def none_sent(connection: BaseDatabaseWrapper, call_ids: Sequence[str]) -> list[str]:
    """Let the relay send these calls' messages now; return the calls that this cannot be said of: something happened."""
    news = {"published_at": None, "send_at": NOW, "attend_at": NOW, "updated_at": NOW, "version": 1}
    rows.calls.update_any(connection, call_ids, _AS_MADE, news)
    found = rows.calls.find_any(connection, call_ids, ("call_id", "published_at", "terminal_at"))
    return [call_id for call_id, published_at, terminal_at in found if published_at is not None and terminal_at is None]


def _payload(call_id: str, texts: Mapping[str, str | None]) -> dict[str, str | None]:
    return {"call_id": call_id, **texts}
