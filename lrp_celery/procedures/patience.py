"""How long an app's observed calls may be silent before they are given up."""

from __future__ import annotations

from typing import Any

from lrp_celery.procedures.runtime import Runtime
from lrp_celery.tracking.redelivery import redelivery_window
from lrp_celery.tracking.rescue import Patience


def patience_of(app: Any, runtime: Runtime) -> Patience:
    """Return the patience by the settings, and by what is known of the app's broker."""
    return Patience.of(
        silent_after=runtime.limits.silent_after,
        lease=runtime.own.timing.lease,
        redelivery=redelivery_window(app),
    )
