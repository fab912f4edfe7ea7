"""What is shown of a call's arguments, and which texts must not show up in its errors.

Normally that is ours: redacted by the names of parameters and keys. Two cases differ. Whoever
publishes may say by Celery's `argsrepr` and `kwargsrepr` how the arguments are to be shown,
often because they must not be. And `.map`, `.starmap` and `.chunks` pass on the arguments of
another task, whose parameters alone say what is a secret.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery.utils.saferepr import saferepr

from lrp_celery.core.redaction import REDACTED, Redactor
from lrp_celery.core.text import clean
from lrp_celery.tracking.messages import HEADER, Get
from lrp_celery.tracking.store import MAX_SUMMARY

#: Tasks that pass each of their items on to another task, and whether as several arguments.
_PASSING_ON: Final = {"celery.map": False, "celery.starmap": True, "celery.chunks": True}
_MOST_SHOWN: Final = 20
_FEW: Final = 10
_PLAIN: Final = frozenset({float, bool, type(None)})
_LONGEST: Final = 64
_ORDERED: Final = frozenset({tuple, list})
_MOST_SEARCHED: Final = 1000


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a task is called with, in the process of `app`."""

    app: Any
    task: str
    args: Any
    kwargs: Any

    @property
    def names(self) -> Sequence[str] | None:
        """The parameters that the positional arguments fill; None: the task is not known in this process."""
        # `tasks` would finalise an app that is still being set up.
        task = self.app._tasks.get(self.task)  # noqa: SLF001 - see above
        return None if task is None else parameters(task)

    def hidden_by(self, redactor: Redactor) -> Redactor:
        """Return `redactor`, hiding besides what the task itself calls sensitive."""
        task = self.app._tasks.get(self.task)  # noqa: SLF001 - see above
        return redactor.also(getattr(task, "lrp_sensitive", ()))

    @property
    def passed_on(self) -> list[Arguments] | None:
        """What another task is called with, once for each item; None: this one passes nothing on."""
        if self.task not in _PASSING_ON:
            return None
        given = {**dict(zip(("task", "it"), self.args or (), strict=False)), **(self.kwargs or {})}
        inner, items = given.get("task"), given.get("it")
        name = str(inner.get("task") if isinstance(inner, Mapping) else inner)
        several = _PASSING_ON[self.task]
        items = items if isinstance(items, list | tuple) else ()
        return [Arguments(self.app, name, item if several else (item,), {}) for item in items]


def parameters(task: Any) -> tuple[str, ...]:
    """Return the names that a task's positional arguments fill; none where they cannot be told."""
    known: tuple[str, ...] | None = getattr(task, "_lrp_celery_parameters", None)
    if known is None:
        known = task._lrp_celery_parameters = _parameters(task)  # noqa: SLF001 - our own, kept where it is needed
    return known


def summary(redactor: Redactor, call: Arguments, given: Mapping[str, str] | None = None) -> str | None:
    """Return how a call is shown; None: nobody here knows which of its arguments is a secret.

    `given` has the texts that the publisher gave for "args" and "kwargs", if he did.
    """
    given = given or {}
    items = call.passed_on
    if items is not None and "kwargs" not in given:
        return _summary_of_items(redactor, items)
    if call.args and "args" not in given and call.names is None:
        return None
    names = call.names or ()
    if not given:
        return redactor.arguments(call.args, call.kwargs, names, MAX_SUMMARY)
    hidden = secrets(redactor, call)
    parts = (
        redactor.text(given["args"], hidden) if "args" in given else redactor.arguments(call.args, {}, names),
        redactor.text(given["kwargs"], hidden) if "kwargs" in given else redactor.arguments((), call.kwargs),
    )
    return clean(", ".join(filter(None, parts)), MAX_SUMMARY)


def secrets(redactor: Redactor, call: Arguments) -> frozenset[str]:
    """Return the texts that `summary` hides."""
    found = redactor.secrets(call.args, call.kwargs, call.names or ())
    items = call.passed_on or []
    return found.union(*(redactor.secrets(item.args, {}, item.names or ()) for item in items[:_MOST_SEARCHED]))


def given_by_publisher(call: Arguments, get: Get) -> dict[str, str]:
    """Return the texts that were given with a message: those that are not what Celery itself makes of the arguments."""
    given = {}
    for part, value in ("args", call.args or ()), ("kwargs", call.kwargs or {}):
        text = _text(get(f"{part}repr"))
        if text is not None and not _says_no_more(text, value) and text != celerys_own(call.app, part, value):
            given[part] = clean(text, MAX_SUMMARY)
    return given


def given_in_message(redactor: Redactor, call: Arguments, get: Get) -> Mapping[str, str]:
    """Return the texts that were given with a message, as its worker knows them."""
    if isinstance(get(HEADER), Mapping):
        return given_before(get)
    if not isinstance(call.args, list | tuple) or not isinstance(call.kwargs, Mapping):
        return {}
    return _given_by_stranger(redactor, call, get)


def given_before(get: Get) -> Mapping[str, str]:
    """Return the texts that were given with an earlier publish of the call."""
    stamped = get(HEADER)
    shown = stamped.get("shown") if isinstance(stamped, Mapping) else None
    return {part: _text(text) or "" for part, text in shown.items()} if isinstance(shown, Mapping) else {}


def _given_by_stranger(redactor: Redactor, call: Arguments, get: Get) -> dict[str, str]:
    """Likewise where the publisher does not track.

    What was encoded and decoded may look other than it did to him. So a text that differs is
    taken for one that was given, unless it could show what we would hide.
    """
    given = given_by_publisher(call, get)
    # His tuple of arguments is a list here.
    if given.get("args") == celerys_own(call.app, "args", tuple(call.args)):
        del given["args"]
    if "args" in given and any(map(redactor.hides, (call.names or ())[: len(call.args)])):
        given["args"] = REDACTED
    items = call.passed_on
    if "kwargs" in given and items is not None:
        given["kwargs"] = _counted(items)
    return given


def _says_no_more(text: str, value: Any) -> bool:
    """Whether a text is just what Python makes of a few plain arguments, whoever made it: Celery's way costs more."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else None
    return parts is not None and len(value) <= _FEW and all(map(_is_brief, parts)) and text == repr(value)


def _is_brief(value: Any) -> bool:
    return len(value) <= MAX_SUMMARY if type(value) is str else _is_number(value)


def _is_number(value: Any) -> bool:
    kind = type(value)
    return kind in _PLAIN or (kind is int and value.bit_length() <= _LONGEST)


def celerys_own(app: Any, part: str, value: Any) -> str:
    """Return the text that Celery makes of arguments."""
    most: int = app.amqp.argsrepr_maxsize if part == "args" else app.amqp.kwargsrepr_maxsize
    if _is_plain(value):
        text = repr(value)
        if len(text) <= most:
            return text
    # Celery 5.6 has no such setting, and goes as deep as its default says.
    levels = getattr(app.conf, "task_repr_maxlevels", 3)
    return saferepr(value, most, maxlevels=levels)


def _is_plain(value: Any) -> bool:
    """Whether Celery says of arguments just what Python does, if they are short: it takes ten times as long for it."""
    kind = type(value)
    if kind is dict:
        return len(value) <= _FEW and all(map(_is_literal, value)) and all(map(_is_literal, value.values()))
    return kind in _ORDERED and len(value) <= _FEW and all(map(_is_literal, value))


def _is_literal(value: Any) -> bool:
    if type(value) is not str:
        return _is_number(value)
    # Celery escapes nothing but the quote.
    return len(value) <= MAX_SUMMARY and value.isprintable() and "'" not in value and "\\" not in value


def _summary_of_items(redactor: Redactor, items: Sequence[Arguments]) -> str:
    names = items[0].names if items else None
    if names is None:
        return clean(_counted(items), MAX_SUMMARY)
    shown = [f"({redactor.arguments(item.args, {}, names)})" for item in items[:_MOST_SHOWN]]
    rest = ", ..." if len(items) > _MOST_SHOWN else ""
    return clean(f"{_counted(items)}: {', '.join(shown)}{rest}", MAX_SUMMARY)


def _counted(items: Sequence[Arguments]) -> str:
    if not items:
        return "0 items"
    return f"{items[0].task}, {len(items)} {'item' if len(items) == 1 else 'items'}"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else saferepr(value, MAX_SUMMARY)


def _parameters(task: Any) -> tuple[str, ...]:
    try:
        signature = inspect.signature(task.run)
    except (TypeError, ValueError):
        return ()
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return tuple(name for name, parameter in signature.parameters.items() if parameter.kind in kinds)
