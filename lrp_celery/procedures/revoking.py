"""Observed calls are not ours to stop: Celery is asked to, and asked again by every worker that starts."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from celery import signals

from lrp_celery.core.errors import LrpError
from lrp_celery.procedures.publishing import BrokerAway, ask_broker
from lrp_celery.procedures.runtime import Runtime, runtime_of

logger = logging.getLogger("lrp_celery.procedures")

#: So many ids a starting worker takes over; Celery itself forgets them after three hours, and beyond 50,000.
MOST: Final = 10_000


def connect() -> None:
    """Let every worker that this process becomes know what was revoked before. Doing it twice changes nothing."""
    signals.celeryd_after_setup.connect(_on_setup, weak=False, dispatch_uid="lrp_celery.procedures.revoked")


def revoke(app: Any, runtime: Runtime, call_id: str, *, kill: bool = False) -> bool:
    """Tell all workers not to run a call, and with `kill` to kill the process that runs it, where the pool can.

    Never raises: the request stands in the row. Returns whether the broker took the message.
    """
    options = {"terminate": True, "signal": "SIGKILL"} if kill else {}
    try:
        ask_broker(runtime, partial(app.control.revoke, call_id, **options))
    except BrokerAway:
        logger.warning("The broker is away: workers that run now do not hear that call %s was revoked.", call_id)
        return False
    except Exception:
        logger.exception("Call %s could not be revoked.", call_id)
        return False
    return True


def _on_setup(*, instance: Any, **_: Any) -> None:
    """A worker is about to start: it consumes only after this."""
    from celery.worker import state

    try:
        ids = runtime_of(instance.app).own.revoked(MOST)
    except LrpError as error:
        logger.warning("What was revoked before this worker started is not known to it: %s", error)
        return
    for call_id in ids:
        state.revoked.add(call_id)
