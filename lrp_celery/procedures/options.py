"""What may be said of a procedure at its decoration, and of a call by `using(...)`."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, Self, TypeAlias

from lrp_celery.core.clock import require_aware
from lrp_celery.core.durations import seconds
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.core.suggest import suggestion
from lrp_celery.core.text import clean
from lrp_celery.tracking.owned import Terms
from lrp_celery.tracking.store import MAX_ID, MAX_NAME, is_usable_id


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


#: Nothing was said, where None says something.
UNSET: Final = Unset.UNSET
Maybe: TypeAlias = float | Literal[Unset.UNSET] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcedureOptions:
    """The options of `@procedure`; durations in seconds, None is unlimited."""

    timeout: float | None = None
    """Counted from the call; what runs longer is aborted."""
    time_to_live: Maybe = UNSET
    """Counted from settlement. None: kept until it is removed; unset: as RETENTION says."""
    grace: float | Literal[Unset.UNSET] = UNSET
    """Between an abort and the interrupt. Unset: the setting GRACE, 10 seconds."""
    idempotent: bool = False
    """Whether it may run again when its worker was lost."""
    max_attempts: int = 3
    """Runs that may be lost with their worker before it fails."""
    keep_result: bool = True
    sensitive: tuple[str, ...] = ()
    """Parameters that are never shown."""
    permission: str | None = None
    """What a user needs to call it over HTTP."""
    store: Any = None
    """A store of its own; None: that of the app."""

    @classmethod
    def of(cls, parameters: Collection[str] | None = None, /, **given: Any) -> Self:
        """Return the options that were given, checked; `ConfigurationError` names what is wrong, and what is right.

        `parameters` are the names that the function takes, for `check_sensitive`; None: they are not known yet.
        """
        for name in given:
            if name not in _PROCEDURE:
                raise ConfigurationError(f"@procedure has no option {name!r}. {suggestion(name, _PROCEDURE)}")
        options = cls(**{name: _PROCEDURE[name](value, name) for name, value in given.items()})
        if parameters is not None:
            options.check_sensitive(parameters)
        return options

    def check_sensitive(self, parameters: Collection[str], *, any_name: bool = False) -> None:
        """Refuse a sensitive name that is no parameter; `any_name`: the function takes `**kwargs`, so all may be."""
        for name in self.sensitive:
            if name not in parameters and not any_name:
                raise ConfigurationError(
                    f"The function has no parameter {name!r}, which sensitive names. {suggestion(name, parameters)}"
                )

    def terms(self, app: Any, grace: float, call: CallOptions | None = None) -> Terms:
        """Return what a call of `app` is run under; `grace` where nobody says otherwise, `call` has the last word."""
        timeout, time_to_live = self.timeout, self.time_to_live
        if call is not None:
            timeout = timeout if call.timeout is UNSET else call.timeout
            time_to_live = time_to_live if call.time_to_live is UNSET else call.time_to_live
        return Terms(
            app=name_of(app),
            timeout=timeout,
            time_to_live=None if time_to_live is UNSET else time_to_live,
            until_removed=time_to_live is None,
            grace=grace if self.grace is UNSET else self.grace,
            idempotent=self.idempotent,
            max_attempts=self.max_attempts,
            keep_result=self.keep_result,
        )


def name_of(app: Any) -> str:
    """Return the name by which a Celery app is known in all its processes: that of its main module."""
    return clean(str(app.main or ""), MAX_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options of `using(...)`: ours, and those of Celery's `apply_async` that an owned call can have."""

    call_id: str | None = None
    """The id, which then is the idempotency key; None: a new one."""
    timeout: Maybe = UNSET
    """Unset: the procedure's."""
    time_to_live: Maybe = UNSET
    """Unset: the procedure's."""
    owner: str | None = None
    detached: bool = False
    """Whether the call is made at once, whatever becomes of the caller's transaction."""
    celery: Mapping[str, Any] = field(default_factory=dict)
    """What `apply_async` is to be given."""

    def merged(self, **given: Any) -> Self:
        """Return a copy with these changes; None takes one of Celery's options back.

        `ConfigurationError` names what is wrong, and what is right.
        """
        own, celery = {}, dict(self.celery)
        for name, value in given.items():
            if name in _REFUSED:
                raise ConfigurationError(f"using() does not take {name!r}: {_REFUSED[name]}.")
            if name in _CALL:
                own[name] = _CALL[name](value, name)
            elif name not in _CELERY:
                raise ConfigurationError(f"using() has no option {name!r}. {suggestion(name, [*_CALL, *_CELERY])}")
            elif value is None:
                celery.pop(name, None)
            else:
                celery[name] = _CELERY[name](value, name)
        if "countdown" in celery and "eta" in celery:
            raise ConfigurationError(
                "countdown and eta both say when the call is due: keep one, and pass None for the other."
            )
        # Celery's other serializers know nothing of a call's row, which holds JSON.
        celery.pop("serializer", None)
        return replace(self, **own, celery=celery)


# --- What each option accepts; each returns the value as it is kept


def _or_unset(check: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    return lambda value, name: UNSET if value is UNSET else check(value, name)


def _duration(value: object, name: str) -> float:
    found = seconds(value, name)
    if found is None:
        raise ConfigurationError(
            f"{name} is None: pass a timedelta or a number of seconds above 0; it cannot be unlimited."
        )
    return found


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, name, "True or False")
    return value


def _attempts(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise _wrong(value, name, "a whole number from 1")
    return value


def _names(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise _wrong(value, name, "a list of parameter names")
    if not all(isinstance(each, str) for each in value):
        raise ConfigurationError(f"{name} holds something that is not a text; pass a list of parameter names.")
    return tuple(value)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or clean(value) != value:
        raise _wrong(value, name, f"a text of 1 to {MAX_NAME} characters")
    return value


def _text_or_none(value: object, name: str) -> str | None:
    return None if value is None else _text(value, name)


def _anything(value: object, name: str) -> object:
    return value


def _call_id(value: object, name: str) -> str | None:
    if value is not None and not is_usable_id(value):
        raise _wrong(value, name, f"a text of 1 to {MAX_ID} characters, without NUL and lone surrogates")
    return None if value is None else str(value)


def _owner(value: object, name: str) -> str | None:
    # Not cut: two owners that begin alike are not the same.
    return _text_or_none(value, name)


def _countdown(value: object, name: str) -> float:
    # Celery's users write countdown=0 for "now".
    return 0.0 if value == timedelta(0) or (value == 0 and not isinstance(value, bool)) else _duration(value, name)


def _instant(value: object, name: str) -> datetime:
    if not isinstance(value, datetime):
        raise _wrong(value, name, "an aware datetime")
    return require_aware(value, name)


def _expiry(value: object, name: str) -> float | datetime:
    return _instant(value, name) if isinstance(value, datetime) else _duration(value, name)


def _priority(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HIGHEST_PRIORITY:
        raise _wrong(value, name, f"a whole number from 0 to {_HIGHEST_PRIORITY}")
    return value


def _limit(value: object, name: str) -> float | int:
    found = _duration(value, name)
    return int(found) if isinstance(value, numbers.Integral) else found


def _delivery_mode(value: object, name: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in _DELIVERY_MODES:
        raise _wrong(value, name, "'persistent' or 'transient'")
    return value


def _display(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong(value, name, "a text")
    return value


def _headers(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(value, name, "a dict with texts for keys")
    for key in value:
        if key in _CELERYS_HEADERS or key.startswith("lrp_"):
            raise ConfigurationError(f"headers holds {key!r}, which is not free: Celery or lrp_celery uses it.")
    return dict(value)


def _signatures(value: object, name: str) -> list[Any]:
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(each, Mapping) for each in found):
        raise _wrong(value, name, "a signature, such as task.s(), or a list of them")
    return found


def _serializer(value: object, name: str) -> str:
    if value != "json":
        raise ConfigurationError(
            f"{name} is {value!r:.100}: the message of a procedure's call is JSON, and kept as such."
        )
    return "json"


def _wrong(value: object, name: str, right: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is {value!r:.100}: pass {right}.")


_MOST: Final = 2**31 - 1
_HIGHEST_PRIORITY: Final = 255
_DELIVERY_MODES: Final = frozenset({1, 2, "transient", "persistent"})
_Checks: TypeAlias = Mapping[str, Callable[[object, str], Any]]
_PROCEDURE: Final[_Checks] = {
    "timeout": seconds,
    "time_to_live": _or_unset(seconds),
    "grace": _or_unset(_duration),
    "idempotent": _flag,
    "max_attempts": _attempts,
    "keep_result": _flag,
    "sensitive": _names,
    "permission": _text_or_none,
    "store": _anything,
}
_CALL: Final[_Checks] = {
    "call_id": _call_id,
    "timeout": _or_unset(seconds),
    "time_to_live": _or_unset(seconds),
    "owner": _owner,
    "detached": _flag,
}
_CELERY: Final[_Checks] = {
    "countdown": _countdown,
    "eta": _instant,
    "expires": _expiry,
    "queue": _text,
    "exchange": _text,
    "routing_key": _text,
    "priority": _priority,
    "delivery_mode": _delivery_mode,
    "compression": _text,
    "serializer": _serializer,
    "headers": _headers,
    "time_limit": _limit,
    "soft_time_limit": _limit,
    "link": _signatures,
    "link_error": _signatures,
    "shadow": _text,
    "argsrepr": _display,
    "kwargsrepr": _display,
}
_BY_CANVAS: Final = "Celery's canvas sets it; compose signatures, made by .s() or .si(), instead"
_BY_ROW: Final = "the row of the call counts its turns"
_BY_RELAY: Final = "another process may send the message later, and again; it has no connection of yours"
_REFUSED: Final[Mapping[str, str]] = {
    "task_id": "the id of a call is its call_id",
    "producer": _BY_RELAY,
    "publisher": _BY_RELAY,
    "connection": _BY_RELAY,
    "retry": "the message is sent until it is out; the setting PUBLISH_WAIT says how long call() waits for that",
    "retry_policy": "the message is sent until it is out; the setting PUBLISH_WAIT says how long call() waits for that",
    "add_to_parent": "call() returns an id, not a result that a parent could collect",
    "ignore_result": "the row keeps the result; see the option keep_result of @procedure",
    "result_cls": "call() returns an id",
    "retries": _BY_ROW,
    "replaced_task_nesting": _BY_ROW,
    "chain": _BY_CANVAS,
    "chord": _BY_CANVAS,
    "group_id": _BY_CANVAS,
    "group_index": _BY_CANVAS,
    "root_id": "it follows from where the call is made",
    "parent_id": "it follows from where the call is made",
    "reply_to": "nobody listens there; get_result() waits for the result",
    "expiration": "it follows from expires",
}
_CELERYS_HEADERS: Final = frozenset(
    {
        "argsrepr",
        "eta",
        "expires",
        "group",
        "group_index",
        "id",
        "ignore_result",
        "kwargsrepr",
        "lang",
        "origin",
        "parent_id",
        "replaced_task_nesting",
        "retries",
        "root_id",
        "shadow",
        "stamped_headers",
        "stamps",
        "task",
        "timelimit",
    }
)
