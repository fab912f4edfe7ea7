"""What a Celery app is tracked with, and where signal receivers find it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lrp_celery.core.clock import Clock, SystemClock
from lrp_celery.core.redaction import Redactor
from lrp_celery.core.registry import PerApp
from lrp_celery.tracking.recorder import Recorder
from lrp_celery.tracking.selection import Selection
from lrp_celery.tracking.spool.places import SpoolTerms
from lrp_celery.tracking.store import ReportStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """The parts that tracking needs. `store` is what readers ask, `recorder` what receivers feed.

    `kept`: the tasks whose arguments are kept, so that their calls can be run again.
    `spool`: where a worker's processes keep reports until its side process brings them to the store; None: they do not.
    """

    store: ReportStore
    recorder: Recorder
    selection: Selection = field(default_factory=Selection)
    kept: Selection = field(default_factory=lambda: Selection(track=()))
    redactor: Redactor = field(default_factory=Redactor)
    clock: Clock = field(default_factory=SystemClock)
    spool: SpoolTerms | None = None


_registry: PerApp[Tracking] = PerApp()

#: `install(source, app=None)`: track `app` (None: every app that has no tracking of its own) with what
#: `source` returns when asked.
install = _registry.install
#: `uninstall(app=None)`: undo `install`; nothing happens if there is nothing to undo.
uninstall = _registry.uninstall
#: `tracking_of(app)`: what `app` is tracked with; None: it is not tracked. Raises what its source raises.
tracking_of = _registry.of
