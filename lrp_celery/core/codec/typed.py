"""From an annotation to the form that it describes; what it does not describe has the plain form."""

from __future__ import annotations

import typing
from collections import abc
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

from lrp_celery.core.codec.choices import enum, literal, union
from lrp_celery.core.codec.containers import array, mapping, row
from lrp_celery.core.codec.form import Form
from lrp_celery.core.codec.plain import PLAIN
from lrp_celery.core.codec.records import is_record, record
from lrp_celery.core.codec.scalars import SCALARS
from lrp_celery.core.text import dotted_name

#: As what each annotation of an array is read.
_ARRAYS: Final[dict[type, type]] = {
    list: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    set: set,
    abc.Set: set,
    abc.MutableSet: set,
    frozenset: frozenset,
}
_MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
#: What may stand around an annotation and says nothing of the value.
_WRAPPERS: Final = frozenset({"Annotated", "ClassVar", "Final", "NotRequired", "ReadOnly", "Required"})


def form_of(annotation: Any) -> Form:  # noqa: PLR0911 - one line for each kind of annotation
    """Return the form that an annotation describes."""
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if isinstance(origin, NewType):
        return form_of(origin.__supertype__)
    if type(origin).__name__ == "TypeAliasType":
        return _alias(origin)
    if origin is Annotated or getattr(origin, "_name", None) in _WRAPPERS:
        return form_of(args[0]) if args else PLAIN
    if origin is Literal:
        return literal([(value, form_of(type(value))) for value in args])
    if origin is Union or origin is UnionType:
        return union(_members(args))
    if origin is tuple:
        return _tuple(args, bare=annotation is tuple or annotation is typing.Tuple)  # noqa: UP006 - it may say so
    if origin is None:
        return SCALARS[type(None)]
    return _of_class(origin, args) if isinstance(origin, type) else PLAIN


def _of_class(kind: Any, args: tuple[Any, ...]) -> Form:
    if kind in SCALARS:
        return SCALARS[kind]
    if kind in _ARRAYS:
        return array(_ARRAYS[kind], *map(form_of, args))
    if kind in _MAPPINGS:
        return mapping(*map(form_of, args))
    if issubclass(kind, Enum):
        return enum(kind)
    return record(kind, form_of) if is_record(kind) else PLAIN


def _members(args: tuple[Any, ...]) -> dict[str, Form]:
    found: dict[str, Form] = {}
    for member in args:
        name = label(member)
        while name in found:
            name += "'"
        found[name] = form_of(member)
    return found


def label(annotation: Any) -> str:
    """Return the name of an annotation, the same in every process and release of Python."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return label(args[0])
    if origin is Literal or annotation is Ellipsis:
        return repr(annotation).removeprefix("typing.")
    if origin is Union or origin is UnionType:
        return " | ".join(map(label, args))
    if origin is not None:
        return f"{label(origin)}[{', '.join(map(label, args))}]"
    if isinstance(annotation, type):
        return "None" if annotation is type(None) else dotted_name(annotation)
    return str(getattr(annotation, "__name__", type(annotation).__name__))


def _tuple(args: tuple[Any, ...], *, bare: bool) -> Form:
    if bare or any(_is_unpacked(item) for item in args):
        return array(tuple)
    if len(args) == 2 and args[1] is Ellipsis:  # noqa: PLR2004 - tuple[int, ...]
        return array(tuple, form_of(args[0]))
    return row([form_of(item) for item in args])


def _is_unpacked(item: Any) -> bool:
    return get_origin(item) is typing.Unpack or bool(getattr(item, "__unpacked__", False))


@cache
def _alias(alias: Any) -> Form:
    # It may speak of itself: what it stands for is looked at when it is needed.
    form = cache(lambda: form_of(alias.__value__))
    return Form(lambda value: form().encode(value), lambda tree: form().decode(tree))
