"""Bounded, redacted displays of what users pass to their tasks.

A value is redacted by the name of its key or parameter. What was redacted is then also
blotted out wherever it occurs in an error or a traceback.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from lrp_celery.core.patterns import compiled
from lrp_celery.core.text import clean, clean_tail

REDACTED: Final = "[redacted]"
DEFAULT_REDACT: Final = (
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*secret*",
    "*token*",
    "*api_key*",
    "*apikey*",
    "*access_key*",
    "*private_key*",
    "*authorization*",
    "*credential*",
    "*cookie*",
    "*session*",
    "*signature*",
    "auth",
    "pwd",
    "pin",
    "otp",
    "cvv",
    "cvc",
    "*card_number*",
    "*iban*",
    "ssn",
)

#: A secret shorter than this is not searched for in texts: it would blot out half of them.
_SHORTEST_SECRET: Final = 4
_DEEPEST: Final = 6
#: Bounds, so that a giant argument costs no more than a big one.
_MOST_SECRETS: Final = 100
_MOST_SHOWN: Final = 100
_LONGEST_KEY: Final = 200
#: So many keys are remembered with what was decided of them: a program has few, but data may bring any number.
_MOST_KEYS: Final = 1000
#: What shows itself soon, if it is no giant number.
_PLAIN: Final = frozenset({int, float, bool, type(None)})
_LONGEST_NUMBER: Final = 64
#: What has no parts, so that no key in it could hide one.
_PARTLESS: Final = _PLAIN | {str, bytes}
_SEQUENCES: Final = frozenset({list, tuple})
_NONE: Final[frozenset[str]] = frozenset()


class Redactor:
    """Shows values and texts without what keys matching `patterns` hold (case does not count)."""

    def __init__(self, patterns: Sequence[str] = DEFAULT_REDACT) -> None:
        self._given = tuple(patterns)
        self._extended: dict[tuple[str, ...], Redactor] = {}
        self._patterns = compiled(tuple(_bare(pattern) for pattern in patterns))
        self._in_text = _assignments(patterns)
        self._words = _words(patterns)
        self._decided: dict[str, bool] = {}
        self._display = _Display(self)

    def also(self, names: Sequence[str]) -> Redactor:
        """Return a redactor that hides these keys, too."""
        if not names:
            return self
        key = tuple(names)
        if key not in self._extended:
            self._extended[key] = Redactor((*self._given, *key))
        return self._extended[key]

    def hides(self, key: object) -> bool:
        """Whether the value under `key` is to be hidden."""
        if isinstance(key, bytes):
            key = key[:_LONGEST_KEY].decode("latin-1")
        if not isinstance(key, str):
            return False
        decided = self._decided.get(key)
        if decided is None:
            decided = self._patterns.match(_bare(key[:_LONGEST_KEY])) is not None
            if len(self._decided) < _MOST_KEYS and len(key) <= _LONGEST_KEY:
                self._decided[key] = decided
        return decided

    def arguments(self, args: Any, kwargs: Any, names: Sequence[str] = (), limit: int = 1000) -> str:
        """Show a call's arguments as Python would write them, cut to `limit` characters.

        `names` are the parameters that the positional arguments fill, where they are known.
        Never raises: a value that cannot be shown is named by its type.
        """
        show = self._display.repr
        shown = [
            REDACTED if position < len(names) and self.hides(names[position]) else show(value)
            for position, value in enumerate(_positional(args))
        ]
        shown += [f"{key}={REDACTED if self.hides(key) else show(value)}" for key, value in _named(kwargs)]
        return clean(self._without_assignments(", ".join(shown)), limit)

    def tree(self, value: Any) -> Any:
        """Return a JSON tree without what stands under hidden keys; the rest of it is as it was."""
        if isinstance(value, Mapping):
            return {key: REDACTED if self.hides(key) else self.tree(inner) for key, inner in value.items()}
        return [self.tree(inner) for inner in value] if isinstance(value, list | tuple) else value

    def tree_of_arguments(self, args: Any, kwargs: Any, names: Sequence[str] | None) -> dict[str, Any]:
        """Return a call's arguments as one JSON tree, likewise.

        `names` are the parameters that `args` fill; None: they are not known, so any of these may be a secret.
        """
        positional = args if isinstance(args, list | tuple) else ()
        shown = [
            REDACTED if names is None or self._hides_at(names, place) else self.tree(value)
            for place, value in enumerate(positional)
        ]
        return {"args": shown, "kwargs": self.tree(kwargs)}

    def secrets(self, args: Any, kwargs: Any, names: Sequence[str] = ()) -> frozenset[str]:
        """Return the texts that `arguments` would hide, to be passed to `text` and `tail`."""
        if self._has_none(args, kwargs, names):
            return _NONE
        hidden = [value for position, value in enumerate(_positional(args)) if self._hides_at(names, position)]
        found: set[str] = set()
        for value in (*hidden, *(value for key, value in _named(kwargs) if self.hides(key))):
            found.update(_leaves(value))
        for value in (*_positional(args), *(value for _, value in _named(kwargs))):
            if type(value) not in _PARTLESS:
                found.update(self._nested(value))
        return frozenset(sorted(found, key=len, reverse=True)[:_MOST_SECRETS])

    def _has_none(self, args: Any, kwargs: Any, names: Sequence[str]) -> bool:
        """Whether there is nothing to hide at first sight, as in most calls: then nothing has to be looked into."""
        if type(args) not in _SEQUENCES or type(kwargs) is not dict:
            return False
        if any(map(self.hides, names[: len(args)])) or any(map(self.hides, kwargs)):
            return False
        return _PARTLESS.issuperset(map(type, args)) and _PARTLESS.issuperset(map(type, kwargs.values()))

    def text(self, text: str, secrets: frozenset[str] = frozenset(), limit: int = 2000) -> str:
        """Return `text` without `secrets` and without what follows a hidden key, cut to `limit` from its start."""
        margin = _longest(secrets)
        if len(text) > 2 * limit + margin:
            # What was cut in two at the end of the part that is looked at must not come into view.
            return clean(self._blot(text[: 2 * limit + margin], secrets)[:-margin], limit)
        return clean(self._blot(text, secrets), limit)

    def tail(self, text: str, secrets: frozenset[str] = frozenset(), limit: int = 20_000) -> str:
        """Like `text`, but keep the end: of a traceback the last lines matter most."""
        margin = _longest(secrets)
        if len(text) > 2 * limit + margin:
            return clean_tail(self._blot(text[-2 * limit - margin :], secrets)[margin:], limit)
        return clean_tail(self._blot(text, secrets), limit)

    def _hides_at(self, names: Sequence[str], position: int) -> bool:
        return position < len(names) and self.hides(names[position])

    def _blot(self, text: str, secrets: frozenset[str]) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, REDACTED)
        return self._without_assignments(text)

    def _without_assignments(self, text: str) -> str:
        return self._in_text.sub(rf"\g<key>{REDACTED}", text) if self._may_assign(text) else text

    def _may_assign(self, text: str) -> bool:
        """Whether the search for keys, which is dear, could find any: most texts name none."""
        if "=" not in text and ":" not in text:
            return False
        if self._words is None or not text.isascii():
            return True
        bare = _bare(text)
        return any(word in bare for word in self._words)

    def _nested(self, value: object, depth: int = 0) -> Iterator[str]:
        if depth > _DEEPEST:
            return
        if isinstance(value, Mapping):
            for key, inner in itertools.islice(value.items(), _MOST_SHOWN):
                yield from _leaves(inner) if self.hides(key) else self._nested(inner, depth + 1)
        elif isinstance(value, list | tuple):
            for inner in value[:_MOST_SHOWN]:
                yield from self._nested(inner, depth + 1)


class _Display(reprlib.Repr):
    """`repr` with bounds, that hides by key and survives values whose own `repr` raises."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        self.maxlevel = _DEEPEST
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 20
        self.maxstring = self.maxother = self.maxlong = 200

    def repr1(self, x: Any, level: int) -> str:
        if type(x) in _PLAIN and (type(x) is not int or x.bit_length() <= _LONGEST_NUMBER):
            return repr(x)
        try:
            if isinstance(x, Mapping):
                return self.repr_dict(x, level)
            names = getattr(x, "_fields", None)
            if isinstance(x, tuple) and isinstance(names, tuple):
                return type(x).__name__ + self.repr_dict(dict(zip(names, x, strict=False)), level)
            return super().repr1(x, level)
        except Exception:  # noqa: BLE001 - a value's own repr may raise anything
            return f"<{type(x).__name__}>"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        shown = [
            f"{self.repr1(key, level - 1)}: {REDACTED if self._redactor.hides(key) else self.repr1(value, level - 1)}"
            for key, value in itertools.islice(x.items(), self.maxdict)
        ]
        return "{" + ", ".join(shown + ["..."] * (len(x) > self.maxdict)) + "}"


def _bare(key: str) -> str:
    """Return a key as it is compared: `X-Api-Key`, `api_key` and `apiKey` are spelled alike."""
    return key.lower().replace("-", "").replace("_", "")


def _longest(secrets: frozenset[str]) -> int:
    return max((len(secret) for secret in secrets), default=0) + _LONGEST_KEY


def _positional(args: Any) -> Sequence[Any]:
    return args[:_MOST_SHOWN] if isinstance(args, list | tuple) else ()


def _named(kwargs: Any) -> list[tuple[Any, Any]]:
    return list(itertools.islice(kwargs.items(), _MOST_SHOWN)) if isinstance(kwargs, Mapping) else []


def _leaves(value: object, depth: int = 0) -> Iterator[str]:
    """Yield every text and number in `value`, long enough to be searched for."""
    if depth > _DEEPEST:
        return
    if isinstance(value, Mapping):
        value = list(itertools.islice(value.values(), _MOST_SHOWN))
    if isinstance(value, list | tuple):
        for inner in value[:_MOST_SHOWN]:
            yield from _leaves(inner, depth + 1)
    elif isinstance(value, str | bytes | int | float | Decimal | UUID) and not isinstance(value, bool):
        yield from {form for form in _forms(value) if len(form) >= _SHORTEST_SECRET}


def _forms(value: object) -> Iterator[str]:
    """Yield how a value may stand in a text: by itself, in its `repr`, in JSON."""
    with contextlib.suppress(ValueError):
        yield str(value)
    if isinstance(value, str):
        yield repr(value)[1:-1]
        yield json.dumps(value)[1:-1]
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "ignore")
        yield repr(value)[2:-1]


def _assignments(patterns: Sequence[str]) -> re.Pattern[str]:
    """Match `key=value`, `"key": "value"` and the like in running text, for every hidden key."""
    keys = "|".join(_key_in_text(pattern) for pattern in patterns if pattern.strip("*")) or r"(?!)"
    quoted = r"""b?"(?:\\.|[^"\\])*(?:"|\Z)|b?'(?:\\.|[^'\\])*(?:'|\Z)"""
    enclosed = r"\[[^\]]*(?:\]|\Z)|\{[^}]*(?:\}|\Z)"
    plain = r"""(?:(?:bearer|basic|token|digest)\s+)?[^\s,;&'")}\]\[{]+"""
    value = rf"(?!{re.escape(REDACTED)})(?:{quoted}|{enclosed}|{plain})"
    return re.compile(rf"""(?P<key>(?:{keys})["']?\s{{0,8}}[=:]\s{{0,8}}){value}""", re.IGNORECASE | re.DOTALL)


def _words(patterns: Sequence[str]) -> tuple[str, ...] | None:
    """Return what a text in ASCII must have, spelled barely, for a key to be in it; None: that cannot be told."""
    # Regardless of case some letters of other alphabets equal one of ASCII.
    bare = {_bare(pattern.strip("*")) for pattern in patterns} - {""}
    return tuple(bare) if all(map(str.isascii, bare)) else None


def _key_in_text(pattern: str) -> str:
    before = "" if pattern.startswith("*") else r"(?<![\w-])"
    after = r"[\w-]{0,40}" if pattern.endswith("*") else ""
    return before + re.escape(pattern.strip("*")).replace("_", "[_-]?").replace(r"\-", "[_-]?") + after
