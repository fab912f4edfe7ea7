"""The form of values about which no annotation says anything: by their own type.

What kombu's JSON can write is written as kombu does, types included that users have
registered there (`kombu.utils.json.register_type`), and so it does not matter whether
kombu has restored it when it is read. As everywhere in Celery, a tuple becomes a list.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from kombu.utils.json import JSONEncoder

from lrp_celery.core.codec.form import (
    AS,
    Form,
    Misfit,
    Tree,
    as_object,
    each,
    entries,
    field,
    formless,
    is_mark,
    meant,
    restored,
)
from lrp_celery.core.codec.scalars import DURATION, finite, integer
from lrp_celery.core.text import dotted_name

_kombu: Final = JSONEncoder()


def encode(value: Any) -> Tree:  # noqa: PLR0911 - one line for each type
    """Return the tree of a value, by its own type."""
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)
        case int():
            return integer(value)
        case float():
            return finite(value)
        case list() | tuple():
            return each(encode, value)
        case dict():
            return as_object(_fields(value))
        case timedelta() | set() | frozenset():
            return _marked(value)
    return _as_kombu_does(value)


def decode(tree: Tree) -> Any:
    """Return the value of a tree; what kombu has restored stays as it is."""
    match tree:
        case list():
            return each(decode, tree)
        case dict():
            return _decode_object(tree)
    return tree


def text_key(key: Any) -> str:
    """Return the key of an object about whose keys no annotation says anything."""
    if not isinstance(key, str):
        kind = dotted_name(type(key))
        raise Misfit(f"a dict with such keys has a JSON form only where it is annotated, as dict[{kind}, ...]")
    return str.__str__(key)


def _fields(value: dict[Any, Any]) -> dict[str, Tree]:
    found: dict[str, Tree] = {}
    for key, inner in value.items():
        try:
            found[text_key(key)] = encode(inner)
        except Misfit as misfit:
            raise misfit.at(field(key)) from None
    return found


def _as_kombu_does(value: Any) -> Tree:
    try:
        reduced = _kombu.default(value)
    except Exception:  # noqa: BLE001 - a value's own __json__ may raise anything
        raise formless(value) from None
    if isinstance(reduced, dict) and is_mark(reduced):
        return {key: encode(inner) for key, inner in reduced.items()}
    return encode(reduced)


def _decode_object(tree: dict[Any, Tree]) -> Any:
    if (mark := meant(tree)) is not None:
        name, inner = mark
        if name not in _MARKED:
            raise Misfit("it is marked as something unknown")
        return _MARKED[name].decode(inner)
    value = restored(tree)
    if value is not tree:
        return value
    found = {}
    for key, inner in entries(tree):
        if not isinstance(key, str):
            raise Misfit(field(key) + " where a text is expected")
        try:
            found[key] = decode(inner)
        except Misfit as misfit:
            raise misfit.at(field(key)) from None
    return found


# --- What neither JSON nor kombu has a word for, under a mark of our own


def _marked(value: Any) -> Tree:
    name, form = next((name, form) for name, form in _MARKED.items() if isinstance(value, form.exact or ()))
    return {AS: [name, form.encode(value)]}


def _encode_members(value: Iterable[Any]) -> Tree:
    # What stands in a set must come back as something that can stand in a set.
    return each(lambda member: _marked(member) if isinstance(member, tuple) else encode(member), value)


def _decode_members(kind: type) -> Any:
    def decode_members(tree: Tree) -> Any:
        try:
            return kind(each(decode, tree))
        except TypeError:
            raise Misfit(f"it is marked as a {kind.__name__}, but holds what that cannot") from None

    return decode_members


_MARKED: Final = {
    "timedelta": DURATION,
    "set": Form(_encode_members, _decode_members(set), set),
    "frozenset": Form(_encode_members, _decode_members(frozenset), frozenset),
    "tuple": Form(_encode_members, _decode_members(tuple), tuple),
}
PLAIN: Final = Form(encode, decode)
