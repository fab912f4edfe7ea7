"""The extension that makes every Celery call accountable."""

from lrp_celery import calls
from lrp_celery.core.errors import ConfigurationError, InvalidStatus, LrpError, StoreError
from lrp_celery.extension import LrpCelery
from lrp_celery.tracking.snapshot import CallSnapshot, Progress
from lrp_celery.tracking.status import CallStatus

__version__ = "0.1.0.dev0"

__all__ = [
    "CallSnapshot",
    "CallStatus",
    "ConfigurationError",
    "InvalidStatus",
    "LrpCelery",
    "LrpError",
    "Progress",
    "StoreError",
    "calls",
]
