"""The part of JSON Schema in which the contract speaks, and whether a value agrees with it.

The same schemas stand in the OpenAPI document, so what is published is what is checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from lrp_celery.core.suggest import suggestion

Schema: TypeAlias = Mapping[str, Any]

#: They say something to readers, and ask for nothing.
_WORDS: Final = frozenset({"items", "title", "description", "default", "examples", "required"})


def complaint(value: Any, schema: Schema, where: str) -> str | None:
    """Return what is wrong with `value`, in a sentence that begins with `where`; None: nothing is."""
    for keyword in sorted(schema, key=lambda each: each != "type"):
        if keyword not in _WORDS and (wrong := _RULES[keyword](value, schema, where)) is not None:
            return wrong
    return None


def _type(value: Any, schema: Schema, where: str) -> str | None:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if any(_IS[kind](value) for kind in kinds):
        return None
    return f"{where} is {_shown(value)}; send {' or '.join(_CALLED[kind] for kind in kinds)}."


def _properties(value: Any, schema: Schema, where: str) -> str | None:
    known: Mapping[str, Schema] = schema["properties"]
    for name, inner in value.items():
        if name in known and (wrong := complaint(inner, known[name], repr(name))) is not None:
            return wrong
    return None


def _additional(value: Any, schema: Schema, where: str) -> str | None:
    # The contract says it only to forbid them.
    for name in value:
        if name not in schema["properties"]:
            return f"{where} has a member {name!r:.100}, which is not known. {suggestion(name, schema['properties'])}"
    return None


def _bound(is_right: Callable[[Any, Any], bool], keyword: str, words: str) -> Callable[[Any, Schema, str], str | None]:
    def rule(value: Any, schema: Schema, where: str) -> str | None:
        # Where null will do, too, there is nothing to compare.
        if value is None or is_right(value, schema[keyword]):
            return None
        return f"{where} is {_shown(value)}; it {words.format(schema[keyword])}."

    return rule


def _shown(value: Any) -> str:
    """Return a value as a sentence can bear it: whatever it holds, and however long it is."""
    if isinstance(value, dict | list):
        return _CALLED["object" if isinstance(value, dict) else "array"]
    text = (
        {None: "null", True: "true", False: "false"}.get(value)
        if value is None or value is True or value is False
        else None
    )
    return text or ascii(value)[:100]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_CALLED: Final = {"null": "null", "string": "a string", "number": "a number", "array": "a list", "object": "an object"}
_RULES: Final[Mapping[str, Callable[[Any, Schema, str], str | None]]] = {
    "type": _type,
    "properties": _properties,
    "additionalProperties": _additional,
    "enum": _bound(lambda value, known: value in known, "enum", "may be one of {}"),
    "minLength": _bound(lambda value, least: len(value) >= least, "minLength", "has {} characters at least"),
    "maxLength": _bound(lambda value, most: len(value) <= most, "maxLength", "may have {} characters"),
    "pattern": _bound(lambda value, form: re.search(form, value) is not None, "pattern", "must match {}"),
    "minimum": _bound(lambda value, least: value >= least, "minimum", "must not be less than {}"),
    "maximum": _bound(lambda value, most: value <= most, "maximum", "must not be more than {}"),
    "exclusiveMinimum": _bound(lambda value, least: value > least, "exclusiveMinimum", "must be more than {}"),
}
