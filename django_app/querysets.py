"""The questions one asks of calls; stores write, querysets only read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from django_app.clock import DatabaseNow
from django_app.conf import options

if TYPE_CHECKING:
    from django_app.models import Call  # noqa: F401

#: How late a call may begin before it is called overdue.
PATIENCE: Final = timedelta(minutes=1)


class CallQuerySet(models.QuerySet["Call"]):
    """Calls by what became of them."""

    #: Whether these are only the newest of all that fit: see `window`.
    is_window = False

    def _clone(self) -> CallQuerySet:
        copy: CallQuerySet = super()._clone()  # type: ignore[misc]
        copy.is_window = self.is_window
        return copy

    def beginning_of_newest(self, count: int) -> datetime | None:
        """When the last of the newest `count` of these was asked for; None: there are not so many."""
        return self.order_by("-enqueued_at").values_list("enqueued_at", flat=True)[count - 1 : count].first()

    def window(self, since: datetime | None) -> CallQuerySet:
        """Those that were asked for since then: few enough to be looked through. None: all of them are."""
        found = self.all() if since is None else self.filter(enqueued_at__gte=since)
        found.is_window = True
        return found

    def visible(self) -> CallQuerySet:
        """Calls that readers see, as of now by the database's clock: not removed, nor past their own time to live."""
        lives = Q(purge_at__isnull=True) | Q(purge_at__gt=DatabaseNow()) | Q(terminal_at__isnull=True)
        return self.filter(lives, removed_at__isnull=True)

    def open(self) -> CallQuerySet:
        """Calls that have not ended."""
        return self.filter(terminal_at__isnull=True)

    def terminal(self) -> CallQuerySet:
        """Calls that have ended and will not change again."""
        return self.filter(terminal_at__isnull=False)

    def for_task(self, *names: str) -> CallQuerySet:
        """Calls of any of these tasks, by full name."""
        return self.filter(task__in=names)

    def unhandled(self) -> CallQuerySet:
        """Calls that have failed or were parked, and that nobody has dealt with."""
        return self.filter(status__in=("failed", "parked"), handled_at__isnull=True)

    def descending_from(self, *roots: str) -> CallQuerySet:
        """Calls that stem from any of these, without them."""
        # Said as the index says it, which serves no other words.
        return self.filter(Q(root_id__in=roots) & ~Q(root_id=F("call_id")))

    def silent(self, now: datetime | None = None) -> CallQuerySet:
        """Open calls unheard of for `SILENT_AFTER` seconds after they were due, or past `expires` without a start."""
        return self.open().filter(silent(now or timezone.now()))

    def overdue(self, after: timedelta = PATIENCE, now: datetime | None = None) -> CallQuerySet:
        """Open calls that should have begun more than `after` ago and have not: since they were due, or last sent."""
        return self.open().filter(overdue(now or timezone.now(), after))


def silent(now: datetime) -> Q:
    """Of open calls, those that `CallQuerySet.silent` has."""
    heard = now - timedelta(seconds=options().SILENT_AFTER)
    unheard = Q(updated_at__lt=heard) & (Q(due_at__isnull=True) | Q(due_at__lt=heard))
    return unheard | Q(run__isnull=True, expires_at__lt=now)


def overdue(now: datetime, after: timedelta = PATIENCE) -> Q:
    """Of open calls, those that `CallQuerySet.overdue` has."""
    latest = now - after
    return Q(run__isnull=True) & (Q(due_at__lt=latest) | Q(due_at__isnull=True, updated_at__lt=latest))
