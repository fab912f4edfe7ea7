"""The extension that makes every Celery call accountable."""

from lrp_celery import calls
from lrp_celery.core.errors import (
    CallAborted,
    CallDiscarded,
    CalledInTask,
    CallFailed,
    CallIdConflict,
    CallNotCommitted,
    CallNotFound,
    CallPending,
    CallRejected,
    CallTimedOut,
    ConfigurationError,
    InvalidStatus,
    LrpError,
    NotAllowed,
    NotDecodable,
    NotEncodable,
    NotRerunnable,
    PublishFailed,
    ResultTimeout,
    StoreError,
)
from lrp_celery.extension import LrpCelery
from lrp_celery.procedures.callers import Caller, PollingCaller, Procedure
from lrp_celery.procedures.context import CurrentCall, current_call
from lrp_celery.procedures.http import HttpProcedure
from lrp_celery.procedures.procedure import LongRunningProcedure, procedure
from lrp_celery.procedures.signal import AbortController, AbortSignal
from lrp_celery.procedures.state import CallState
from lrp_celery.tracking.snapshot import CallSnapshot, Progress
from lrp_celery.tracking.status import CallStatus

__version__ = "0.1.0.dev0"

__all__ = [
    "AbortController",
    "AbortSignal",
    "CallAborted",
    "CallDiscarded",
    "CallFailed",
    "CallIdConflict",
    "CallNotCommitted",
    "CallNotFound",
    "CallPending",
    "CallRejected",
    "CallSnapshot",
    "CallState",
    "CallStatus",
    "CallTimedOut",
    "CalledInTask",
    "Caller",
    "ConfigurationError",
    "CurrentCall",
    "HttpProcedure",
    "InvalidStatus",
    "LongRunningProcedure",
    "LrpCelery",
    "LrpError",
    "NotAllowed",
    "NotDecodable",
    "NotEncodable",
    "NotRerunnable",
    "PollingCaller",
    "Procedure",
    "Progress",
    "PublishFailed",
    "ResultTimeout",
    "StoreError",
    "calls",
    "current_call",
    "procedure",
]
