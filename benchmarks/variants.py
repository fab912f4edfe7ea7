"""What is measured beside each other: set-ups that differ in who keeps track of calls, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

#: Seconds that a procedure gets which heeds nothing.
GRACE = 1.0
NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Where a set-up keeps its calls, in SQL."""

    name: str
    id: str
    ended: str
    """True for a call that has its outcome."""
    succeeded: str
    started: str
    """True for a call of which it is known that it has begun."""
    running: str
    """True for a call that is shown as running."""


OURS = Table(
    name="lrp_celery_call",
    id="call_id",
    ended="terminal_at IS NOT NULL",
    succeeded="status = 'succeeded'",
    started="started_at IS NOT NULL",
    running="status = 'started'",
)
RESULTS = Table(
    name="django_celery_results_taskresult",
    id="task_id",
    ended="status IN ('SUCCESS', 'FAILURE', 'REVOKED')",
    succeeded="status = 'SUCCESS'",
    started="date_started IS NOT NULL",
    running="status = 'STARTED'",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One measured set-up."""

    title: str
    apps: tuple[str, ...] = ()
    """Django apps it needs; with None of Django: see `django`."""
    celery: Mapping[str, Any] = field(default_factory=lambda: NONE)
    lrp_celery: Mapping[str, Any] = field(default_factory=lambda: NONE)
    """The setting of that name."""
    table: Table | None = None
    django: bool = True
    backend: bool = False
    """Whether results go to Redis."""
    bulk: bool = False
    """Whether calls are enqueued many at once."""
    procedures: bool = False
    """Whether the tasks are procedures."""

    @property
    def is_ours(self) -> bool:
        """Whether our app tracks the calls."""
        return "django_app" in self.apps


#: All that django-celery-results can tell: begun, and the call's name and arguments.
_RESULTS = {
    "result_backend": "django-db",
    "task_ignore_result": False,
    "task_track_started": True,
    "result_extended": True,
}
#: Without it Celery closes Django's connections around each task, whatever CONN_MAX_AGE says.
_REUSE = {"CELERY_DB_REUSE_MAX": 10**9}


def _ours(title: str, recorder: str = "sync", **others: Any) -> Variant:
    return Variant(title=title, apps=("django_app",), lrp_celery={"RECORDER": recorder}, table=OURS, **others)


def _results(title: str, **more: Any) -> Variant:
    return Variant(title=title, apps=("django_celery_results",), celery={**_RESULTS, **more}, table=RESULTS)


VARIANTS: Mapping[str, Variant] = {
    "bare": Variant(title="bare Celery, results ignored"),
    "redis": Variant(title="Celery's Redis result backend", backend=True),
    "results": _results("django-celery-results at its best (STARTED, connections reused)", **_REUSE),
    "results-default": _results("django-celery-results (STARTED), connections as Celery leaves them"),
    "sync": _ours("lrp_celery, sync"),
    "spool": _ours("lrp_celery, spool", "spool"),
    "bulk": _ours("lrp_celery, spool, `enqueue_many`", "spool", bulk=True),
    "owned": _ours("procedures, PostgreSQL, Celery keeps no results", procedures=True),
    "procedures": _ours("procedures, PostgreSQL", procedures=True, backend=True),
    "admin": Variant(
        title="lrp_celery, and Django's admin",
        apps=("django.contrib.sessions", "django.contrib.messages", "django.contrib.admin", "django_app"),
        table=OURS,
    ),
    "redis-procedures": Variant(title="procedures, Redis", django=False, procedures=True, backend=True),
}
