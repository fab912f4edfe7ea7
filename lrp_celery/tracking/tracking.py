"""What a Celery app is tracked with, and where signal receivers find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from lrp_celery.core.clock import Clock, SystemClock
from lrp_celery.core.redaction import Redactor
from lrp_celery.tracking.recorder import Recorder
from lrp_celery.tracking.selection import Selection
from lrp_celery.tracking.store import ReportStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """The parts that tracking needs. `store` is what readers ask, `recorder` what receivers feed."""

    store: ReportStore
    recorder: Recorder
    selection: Selection = field(default_factory=Selection)
    redactor: Redactor = field(default_factory=Redactor)
    clock: Clock = field(default_factory=SystemClock)


TrackingSource = Callable[[], Tracking]

_sources: WeakKeyDictionary[Any, TrackingSource] = WeakKeyDictionary()
_for_others: list[TrackingSource] = []


def install(source: TrackingSource, app: Any = None) -> None:
    """Track `app` (None: every app that has no tracking of its own) with what `source` returns when asked."""
    if app is None:
        _for_others[:] = [source]
    else:
        _sources[_itself(app)] = source


def uninstall(app: Any = None) -> None:
    """Undo `install`; nothing happens if there is nothing to undo."""
    if app is None:
        _for_others.clear()
    else:
        _sources.pop(_itself(app), None)


def tracking_of(app: Any) -> Tracking | None:
    """Return what `app` is tracked with; None: it is not tracked. Raises what its source raises."""
    source = _sources.get(_itself(app)) or next(iter(_for_others), None)
    return None if source is None else source()


def _itself(app: Any) -> Any:
    """Return an app itself where it was given by a proxy, as `celery.current_app` is."""
    behind = getattr(app, "_get_current_object", None)
    return app if behind is None else behind()
