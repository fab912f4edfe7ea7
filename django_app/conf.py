"""`settings.LRP_CELERY`: one dict, typed, read when it is needed, so that `override_settings` works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.core.redaction import DEFAULT_REDACT
from lrp_celery.core.suggest import suggestion
from lrp_celery.tracking.owned import Timing
from lrp_celery.tracking.retention import DEFAULT_RETENTION, Retention
from lrp_celery.tracking.selection import DEFAULT_EXCLUDE
from lrp_celery.tracking.spool.places import LIMIT, SpoolTerms

SETTING: Final = "LRP_CELERY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keys of `LRP_CELERY` with their defaults."""

    TRACK: tuple[str, ...] = ("*",)
    """Patterns of the tasks that are tracked."""
    EXCLUDE: tuple[str, ...] = DEFAULT_EXCLUDE
    """Patterns of the tasks that are not, although TRACK has them."""
    RECORDER: str = "spool"
    """How reports reach the store: in workers through a `spool` that a side process drains, or in place (`sync`)."""
    SPOOL_DIR: str | None = None
    """The folder for the spools of this host; None: one for this user, where temporary files are kept."""
    SPOOL_MAX: int = LIMIT
    """Bytes that each process may have waiting in its spool."""
    RETENTION: Mapping[str, timedelta | None] = field(default_factory=lambda: DEFAULT_RETENTION)
    """How long ended calls are kept, by `task pattern` or `task pattern:status`; None keeps for ever."""
    ROLLUP_RETENTION: timedelta | None = timedelta(days=90)
    """How long hourly counts are kept, whatever becomes of the calls themselves; None keeps them for ever."""
    DATABASE: str = "default"
    """The alias whose database holds the calls."""
    SILENT_AFTER: float = 86_400
    """Seconds after which an open call that nobody speaks of is given up; one of a procedure is shown as silent."""
    HEARTBEAT: float = 3
    """Seconds between two signs of life of a worker, and between two renewals of its leases."""
    LEASE: float = 10
    """Seconds that a run of a procedure holds its call without renewal; a worker unheard of for three is gone."""
    RESCUE_INTERVAL: float = 2
    """Seconds between two looks for calls that somebody must look after."""
    RESEND_AFTER: float = 60
    """Seconds after which the message of a procedure's call that nobody has claimed is sent again."""
    SETTLE_WAIT: float = 30
    """Seconds for which a run tries to write its outcome while the database is away."""
    GRACE: float = 10
    """Seconds between a request to end and the interrupt, where the procedure does not say."""
    PUBLISH_WAIT: float = 1
    """Seconds that `call` waits for the broker before it leaves the message to the relay."""
    TOMBSTONE: float = 86_400
    """Seconds for which the id of a removed call is kept, against late copies of its message."""
    MAX_PAYLOAD: int = 262_144
    """Bytes of JSON that arguments or a result may have."""
    PAYLOAD: tuple[str, ...] = ()
    """Patterns of tasks whose arguments are kept, unredacted, so that their calls can be run again; at most 8 kB of JSON."""
    REDACT: tuple[str, ...] = DEFAULT_REDACT
    """Patterns of keys and parameters whose values are never shown; case does not count."""
    MAX_WAIT: float = 30
    """Seconds for which a request over HTTP may wait for a result, whatever it asks for."""
    HTTP_AUTHENTICATE: str | Callable[..., Any] | None = None
    """Who a request over HTTP comes from, `(request) -> user | None`, itself or by its dotted path; besides sessions."""

    @property
    def timing(self) -> Timing:
        """LEASE, RESEND_AFTER and TOMBSTONE, as stores take them."""
        return Timing(lease=self.LEASE, resend_after=self.RESEND_AFTER, tombstone=self.TOMBSTONE)

    @property
    def spool(self) -> SpoolTerms | None:
        """RECORDER, SPOOL_DIR and SPOOL_MAX, as a worker takes them."""
        return SpoolTerms(folder=self.SPOOL_DIR, limit=self.SPOOL_MAX) if self.RECORDER == "spool" else None

    @property
    def retention(self) -> Retention:
        """RETENTION, ready to be asked."""
        return Retention(self.RETENTION)


def read(raw: object) -> Options:
    """Return the options that `raw` (the dict from the settings) gives; `ConfigurationError` names what is wrong."""
    if not isinstance(raw, Mapping):
        raise ConfigurationError(f"{SETTING} is a dict, not {type(raw).__name__}.")
    names = [known.name for known in fields(Options)]
    for key in raw:
        if key not in names:
            raise ConfigurationError(f"{SETTING} has no key {key!r}. {suggestion(str(key), names)}")
    return Options(**{key: _KINDS[key](key, value) for key, value in raw.items()})


def _patterns(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"{SETTING}[{key!r}] is a list of patterns, not {value!r}.")
    if not all(isinstance(pattern, str) for pattern in value):
        raise ConfigurationError(f"{SETTING}[{key!r}] holds something that is not a text: {value!r}.")
    return tuple(value)


def _recorder(key: str, value: object) -> str:
    if value not in {"spool", "sync"}:
        raise ConfigurationError(f"{SETTING}[{key!r}] is {value!r}; there are 'spool' and 'sync'.")
    return str(value)


def _folder(key: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | PathLike) or not Path(value).is_absolute():
        raise ConfigurationError(f"{SETTING}[{key!r}] is an absolute path or None, not {value!r}.")
    return str(value)


def _alias(key: str, value: object) -> str:
    if not isinstance(value, str) or value not in django_settings.DATABASES:
        raise ConfigurationError(
            f"{SETTING}[{key!r}] is {value!r}, which is not in DATABASES ({', '.join(django_settings.DATABASES)})."
        )
    return value


def _seconds(key: str, value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ConfigurationError(f"{SETTING}[{key!r}] is a number of seconds above 0 or a timedelta, not {value!r}.")
    return float(value)


def _bytes(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ConfigurationError(f"{SETTING}[{key!r}] is a number of bytes above 0, not {value!r}.")
    return value


def _function(key: str, value: object) -> str | Callable[..., Any] | None:
    if value is None or callable(value) or (isinstance(value, str) and "." in value):
        return value
    raise ConfigurationError(
        f"{SETTING}[{key!r}] is a function that takes a request, its dotted path, or None, not {value!r}."
    )


def _age(key: str, value: object) -> timedelta | None:
    if value is not None and (not isinstance(value, timedelta) or value < timedelta(hours=1)):
        raise ConfigurationError(f"{SETTING}[{key!r}] is a timedelta of an hour or more, or None, not {value!r}.")
    return value


def _retention(key: str, value: object) -> Mapping[str, timedelta | None]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{SETTING}[{key!r}] is a dict of pattern and timedelta, not {value!r}.")
    try:
        Retention(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{SETTING}[{key!r}]: {error}") from None
    return {**DEFAULT_RETENTION, **value}


_KINDS: Final[dict[str, Any]] = {
    "TRACK": _patterns,
    "EXCLUDE": _patterns,
    "RECORDER": _recorder,
    "RETENTION": _retention,
    "ROLLUP_RETENTION": _age,
    "DATABASE": _alias,
    "SILENT_AFTER": _seconds,
    **dict.fromkeys(
        ["HEARTBEAT", "LEASE", "RESCUE_INTERVAL", "RESEND_AFTER", "SETTLE_WAIT", "GRACE", "PUBLISH_WAIT", "TOMBSTONE"],
        _seconds,
    ),
    "MAX_WAIT": _seconds,
    "SPOOL_DIR": _folder,
    "SPOOL_MAX": _bytes,
    "MAX_PAYLOAD": _bytes,
    "PAYLOAD": _patterns,
    "REDACT": _patterns,
    "HTTP_AUTHENTICATE": _function,
}


_read: Options | None = None


def options() -> Options:
    """Return the options of this moment; `ConfigurationError` if the setting is wrong."""
    global _read  # noqa: PLW0603 - what was read is kept until the setting changes
    if _read is None:
        _read = read(getattr(django_settings, SETTING, {}))
    return _read


def _forget(*, setting: str, **_: object) -> None:
    global _read  # noqa: PLW0603 - see options()
    if setting in {SETTING, "DATABASES"}:
        _read = None


setting_changed.connect(_forget, dispatch_uid="lrp_celery.conf")
