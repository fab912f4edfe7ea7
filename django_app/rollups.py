"""The questions one asks of the hourly counts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db import models
from django.db.models import Case, F, IntegerField, Sum, Value, When

from lrp_celery.tracking.decisions import FAILURES

if TYPE_CHECKING:
    from django_app.models import HourlyRollup

HOUR: Final = timedelta(hours=1)


def hour_of(instant: datetime) -> datetime:
    """Return when the hour began: hours are those of UTC."""
    return instant.replace(minute=0, second=0, microsecond=0)


class RollupQuerySet(models.QuerySet["HourlyRollup"]):
    """Counts of some hours."""

    def since(self, hour: datetime) -> RollupQuerySet:
        """Those of this hour and later ones."""
        return self.filter(hour__gte=hour)

    def failures(self) -> RollupQuerySet:
        """Those of calls that failed or were parked."""
        return self.filter(status__in=sorted(FAILURES))

    def by_hour(self) -> models.QuerySet[HourlyRollup, tuple[datetime, str, int]]:
        """Return (hour, status, number of calls)."""
        return self.order_by().values_list("hour", "status").annotate(number=Sum("calls"))

    def by_failure(self, later: datetime, limit: int) -> models.QuerySet[HourlyRollup, tuple[str, str, str, int, int]]:
        """Return (task, error type, status, number of calls, number since the hour `later`), the most frequent first."""
        lately = Case(When(hour__gte=later, then=F("calls")), default=Value(0), output_field=IntegerField())
        found = self.order_by().values_list("task", "error_type", "status")
        return found.annotate(number=Sum("calls"), lately=Sum(lately)).order_by("-number")[:limit]

    def busiest(self, limit: int) -> models.QuerySet[HourlyRollup, tuple[str, int]]:
        """Return (task, number of calls) of the tasks that have the most."""
        found = self.order_by().values_list("task").annotate(number=Sum("calls")).order_by("-number", "task")
        return found[:limit]
