"""The forms of types with fields: dataclasses, NamedTuples, TypedDicts.

Read strictly: an unknown field and a missing one do not fit. So the members of a union are
told apart by their fields, and a misspelled field is not lost in silence.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

from lrp_celery.core.codec.form import Form, Misfit, Tree, as_object, entries, field, restored, unexpected
from lrp_celery.core.text import dotted_name

FormOf: TypeAlias = Callable[[Any], Form]


def is_record(kind: type) -> bool:
    """Whether `kind` is a type with fields."""
    return dataclasses.is_dataclass(kind) or _is_typed_dict(kind) or _is_named_tuple(kind)


def annotations_of(kind: type) -> dict[str, Any]:
    """Return the annotations of a record's fields; one that cannot be resolved is Any."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation may be any text
        hints = {}
    if dataclasses.is_dataclass(kind):
        names = [each.name for each in dataclasses.fields(kind) if each.init]
    else:
        names = list(getattr(kind, "_fields", hints or kind.__annotations__))
    return {name: hints.get(name, Any) for name in names}


@cache
def record(kind: Any, form_of: FormOf) -> Form:
    """Return the form of a record: an object with its fields."""
    fields = _Fields(annotations_of(kind), form_of)
    return _typed_dict(kind, fields) if _is_typed_dict(kind) else _made(kind, fields)


class _Fields:
    """The fields of a record, each with its form; looked for when needed, for it may hold its own record."""

    def __init__(self, annotations: Mapping[str, Any], form_of: FormOf) -> None:
        self.names = annotations.keys()
        self._form_at = cache(lambda name: form_of(annotations[name]))

    def write(self, values: Mapping[str, Any]) -> Tree:
        """Return the object that holds these values; `Misfit` for a name that is no field."""
        return as_object({name: self._at(name).encode(value) for name, value in values.items()})

    def read(self, tree: Tree) -> dict[str, Any]:
        """Return the values that an object holds; `Misfit` for a name that is no field."""
        return {name: self._at(name).decode(inner) for name, inner in entries(tree)}

    def _at(self, name: Any) -> Form:
        if name not in self.names:
            raise Misfit("is no field here").at(field(name))
        form = self._form_at(name)

        def placed(function: Callable[[Any], Any], value: Any) -> Any:
            try:
                return function(value)
            except Misfit as misfit:
                raise misfit.at(field(name)) from None

        return Form(lambda value: placed(form.encode, value), lambda tree: placed(form.decode, tree))


def _made(kind: type, fields: _Fields) -> Form:
    """Return the form of a class that is made from its fields, by their names."""
    required = _required(kind)

    def encode(value: Any) -> Tree:
        # Not of a subclass, which would lose its own fields on the way.
        if type(value) is not kind:
            raise unexpected(value, kind)
        if not required <= fields.names:
            raise Misfit(f"{dotted_name(kind)} cannot be made from its fields again, and so has no JSON form")
        return fields.write({name: getattr(value, name) for name in fields.names})

    def decode(tree: Tree) -> Any:
        value = restored(tree)
        if isinstance(value, kind):
            return value
        if _is_named_tuple(kind) and isinstance(value, list | tuple):
            value = _by_name(fields, value)
        values = fields.read(value)
        _require(required, values)
        try:
            return kind(**values)
        except Exception as error:  # noqa: BLE001 - the class has its own say
            raise Misfit(f"{dotted_name(kind)} refuses these fields with {dotted_name(type(error))}") from None

    return Form(encode, decode, kind)


def _typed_dict(kind: type, fields: _Fields) -> Form:
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())

    def encode(value: Any) -> Tree:
        if not isinstance(value, dict):
            raise unexpected(value, kind)
        _require(required, value)
        return fields.write(value)

    def decode(tree: Tree) -> Any:
        values = fields.read(tree)
        _require(required, values)
        return values

    return Form(encode, decode, dict)


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _required(kind: type) -> frozenset[str]:
    """Return what the class wants to be made with."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (NameError, TypeError, ValueError):
        return frozenset()
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return frozenset(each.name for each in parameters if each.default is each.empty and each.kind not in variadic)


def _require(required: frozenset[str], values: Mapping[str, Any]) -> None:
    if missing := sorted(required - values.keys()):
        raise Misfit("is missing").at(field(missing[0]))


def _by_name(fields: _Fields, values: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    if len(values) > len(fields.names):
        raise Misfit(f"{len(values)} items where {len(fields.names)} are expected")
    return dict(zip(fields.names, values, strict=False))
