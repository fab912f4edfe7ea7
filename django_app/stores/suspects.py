"""Looking through the open calls for those of which nothing more is heard, a stretch at a time.

The stretches follow the partial index of open calls, which is there for lists, so that no
call pays for an index that only this would use. MySQL has no partial indexes: there a stretch
counts the calls that have ended, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.db.models.functions import Substr

from django_app.models import Call
from django_app.querysets import CallQuerySet
from django_app.stores import rows
from lrp_celery.tracking.record import AttemptOutcome, CallRecord
from lrp_celery.tracking.rescue import Suspicion
from lrp_celery.tracking.runs import BOOT_AT, BOOT_LENGTH

#: Rows that are looked through at once.
STRETCH: Final = 10_000


def find(
    connection: BaseDatabaseWrapper, after: datetime | None, suspicion: Suspicion
) -> tuple[Sequence[CallRecord], datetime | None]:
    """Return the calls of a stretch on which the suspicion falls, and where the next one begins (None: nowhere)."""
    rest = Call.objects.all() if after is None else Call.objects.filter(enqueued_at__gt=after)
    counted = rest.open() if connection.features.supports_partial_indexes else rest
    last = counted.order_by("enqueued_at").values_list("enqueued_at")[STRETCH - 1 : STRETCH]
    until = next((at for (at,) in rows.select(connection, last)), None)
    stretch = rest.open() if until is None else rest.open().filter(enqueued_at__lte=until)
    found = rows.select(connection, _under(stretch, suspicion).order_by().values_list(*rows.CALL_COLUMNS))
    return list(map(rows.call_record, found)), until


def _under(calls: CallQuerySet, suspicion: Suspicion) -> CallQuerySet:
    """Say `Suspicion.falls_on` in SQL."""
    unheard = Q(updated_at__lte=suspicion.silent_before) & (
        Q(due_at__isnull=True) | Q(due_at__lte=suspicion.silent_before)
    )
    expired = Q(run__isnull=True, expires_at__lte=suspicion.expired_before)
    cut = Q(run_outcome=AttemptOutcome.INTERRUPTED)
    given_up = cut & Q(updated_at__lte=suspicion.interrupted_before)
    doubts = unheard | expired | given_up
    if suspicion.gone:
        calls = calls.alias(_boot=Substr("run", BOOT_AT + 1, BOOT_LENGTH))
        under_way = Q(run_outcome__isnull=True) | (cut & Q(acks_late=False))
        doubts |= under_way & Q(_boot__in=sorted(suspicion.gone))
    return calls.filter(doubts, owned=False)
