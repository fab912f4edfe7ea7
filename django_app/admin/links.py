"""Links from the dashboard to the list of calls, narrowed to what a number counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.urls import reverse

from django_app.models import Call
from lrp_celery.tracking.status import CallStatus


@dataclass(frozen=True, slots=True)
class Links:
    """Where calls are shown on an admin site; `path` of the list."""

    path: str
    site: str

    @classmethod
    def of(cls, site: AdminSite) -> Links:
        """Return the links of a site that has `Call`."""
        return cls(reverse("admin:lrp_celery_call_changelist", current_app=site.name), site.name)

    def to(self, **query: str | None) -> str:
        """Return the link to the list narrowed so; what is None or empty does not narrow it."""
        chosen: Mapping[str, str] = {name: value for name, value in query.items() if value}
        # What dates are made of may stand in a query.
        return f"{self.path}?{urlencode(chosen, safe=':')}" if chosen else self.path

    def between(self, begin: datetime, end: datetime) -> str:
        """Return the link to what was asked for in a stretch of time."""
        return self.to(enqueued=f"{_brief(begin)}..{_brief(end)}")

    @property
    def running(self) -> str:
        """The link to what runs."""
        return self.to(status=CallStatus.STARTED.value)

    def call(self, call: Call) -> str:
        """Return the link to the page of a call."""
        return reverse("admin:lrp_celery_call_change", args=[quote(call.pk)], current_app=self.site)


def _brief(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
