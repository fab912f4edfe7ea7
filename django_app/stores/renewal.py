"""Extending the leases of many calls at once, without ever waiting for one of them."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.clock import read_clock
from django_app.models import Call
from django_app.stores import rows
from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.owned import Timing
from lrp_celery.tracking.record import CallRecord


def renew(connection: BaseDatabaseWrapper, held: dict[str, str], timing: Timing) -> dict[str, CallRecord]:
    """Extend the leases of `held` (call id -> run) inside a transaction; return the calls still held by their runs.

    A row that somebody else has locked is left out: its lease outlasts several rounds.
    """
    wanted = Call.objects.filter(pk__in=sorted(held), run__in=sorted(held.values())).order_by("pk")
    if connection.features.has_select_for_update_skip_locked:
        wanted = wanted.select_for_update(skip_locked=True)
    now = read_clock(connection)
    found = map(rows.call_record, rows.select(connection, wanted.values_list(*rows.CALL_COLUMNS)))
    kept = {}
    for record in found:
        renewed = owned.renewed(record, held[record.call_id], now, timing)
        if renewed is not None and _write(connection, record, renewed):
            kept[record.call_id] = replace(renewed, version=record.version + 1)
    return kept


def _write(connection: BaseDatabaseWrapper, record: CallRecord, renewed: CallRecord) -> bool:
    unchanged = {"call_id": record.call_id, "version": record.version}
    changed = {name: getattr(renewed, name) for name in ("lease_until", "attend_at", "updated_at")}
    values = {**changed, "version": record.version + 1}
    return rows.calls.update(connection, unchanged, values) == 1
