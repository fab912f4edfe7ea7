"""When a broker delivers a message again whose worker is gone, as far as an app's settings tell."""

from __future__ import annotations

from typing import Any, Final

#: What kombu's Redis transport takes when nobody says otherwise, in seconds.
_VISIBILITY_TIMEOUT: Final = 3600.0
#: Redis looks for such messages only now and then; AMQP learns of it from the lost connection.
_SWEEP: Final = 300.0
_AMQP: Final = 60.0


def visibility_timeout(app: Any) -> float | None:
    """Return after how many seconds the broker delivers an unacknowledged message again; None: by no clock we know."""
    if not _broker_of(app).startswith(("redis", "rediss", "sentinel", "valkey")):
        return None
    visible = (app.conf.broker_transport_options or {}).get("visibility_timeout", _VISIBILITY_TIMEOUT)
    return visible if isinstance(visible, int | float) else None


def redelivery_window(app: Any) -> float:
    """Return within how many seconds a message comes back whose worker is gone, if it comes back at all."""
    if _broker_of(app).startswith(("amqp", "pyamqp")):
        return _AMQP
    return (visibility_timeout(app) or _VISIBILITY_TIMEOUT) + _SWEEP


def _broker_of(app: Any) -> str:
    urls = app.conf.broker_read_url or app.conf.broker_url or ""
    return str(urls[0] if isinstance(urls, list | tuple) and urls else urls)
