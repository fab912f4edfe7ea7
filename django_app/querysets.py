"""The questions one asks of calls; stores write, querysets only read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_app.clock import DatabaseNow
from django_app.conf import options

if TYPE_CHECKING:
    from django_app.models import Call  # noqa: F401


class CallQuerySet(models.QuerySet["Call"]):
    """Calls by what became of them."""

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

    def silent(self, now: datetime | None = None) -> CallQuerySet:
        """Open calls unheard of for `SILENT_AFTER` seconds after they were due, or past `expires` without a start."""
        instant = now or timezone.now()
        heard = instant - timedelta(seconds=options().SILENT_AFTER)
        unheard = Q(updated_at__lt=heard) & (Q(due_at__isnull=True) | Q(due_at__lt=heard))
        return self.open().filter(unheard | Q(run__isnull=True, expires_at__lt=instant))

    def overdue(self, after: timedelta = timedelta(minutes=1), now: datetime | None = None) -> CallQuerySet:
        """Open calls that should have begun more than `after` ago and have not: since they were due, or last sent."""
        latest = (now or timezone.now()) - after
        return (
            self.open().filter(run__isnull=True).annotate(_due=Coalesce("due_at", "updated_at")).filter(_due__lt=latest)
        )
