"""The forms of arrays and of objects whose keys are values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lrp_celery.core.codec.form import ENTRIES, Form, Misfit, Tree, as_object, each, entries, field, unexpected
from lrp_celery.core.codec.plain import PLAIN, text_key
from lrp_celery.core.codec.scalars import SCALARS
from lrp_celery.core.text import dotted_name

#: What may be given where one kind is annotated; the rest is refused, and then sent by its own type.
_GIVEN: Final[dict[type, tuple[type, ...]]] = {
    list: (list, tuple),
    tuple: (tuple,),
    set: (set, frozenset),
    frozenset: (set, frozenset),
}


def array(kind: type, item: Form = PLAIN) -> Form:
    """Return the form of a list, set or tuple: any number of items of one form."""
    given: Any = _GIVEN[kind]

    def encode(value: Any) -> Tree:
        if not isinstance(value, given):
            raise unexpected(value, kind)
        return each(item.encode, value)

    def decode(tree: Tree) -> Any:
        if not isinstance(tree, list | tuple | set | frozenset):
            raise unexpected(tree, kind)
        items = each(item.decode, tree)
        try:
            return kind(items)
        except TypeError:
            raise Misfit(f"it holds what no {dotted_name(kind)} can hold") from None

    return Form(encode, decode, kind)


def row(forms: Sequence[Form]) -> Form:
    """Return the form of a tuple whose items each have a form of their own."""

    def walk(function: Callable[[Form, Any], Any], items: Sequence[Any]) -> list[Any]:
        if len(items) != len(forms):
            raise Misfit(f"{len(items)} items where {len(forms)} are expected")
        return each(lambda pair: function(*pair), zip(forms, items, strict=True))

    def encode(value: Any) -> Tree:
        if not isinstance(value, tuple):
            raise unexpected(value, tuple)
        return walk(lambda form, item: form.encode(item), value)

    def decode(tree: Tree) -> Any:
        if not isinstance(tree, list | tuple):
            raise unexpected(tree, tuple)
        return tuple(walk(lambda form, item: form.decode(item), tree))

    return Form(encode, decode, tuple)


def mapping(key: Form = PLAIN, item: Form = PLAIN) -> Form:
    """Return the form of a dict.

    An object where its keys can be read back from texts (`{"7": ...}` for `dict[int, ...]`),
    otherwise a list of entries.
    """
    key = Form(text_key, SCALARS[str].decode) if key is PLAIN else key

    def encode(value: Any) -> Tree:
        if not isinstance(value, Mapping):
            raise unexpected(value, dict)
        keys = [key.encode(each_key) for each_key in value]
        trees = [_placed(item.encode, inner, each_key) for each_key, inner in value.items()]
        texts = [text for one, tree in zip(value, keys, strict=True) if (text := _readable(key, one, tree)) is not None]
        if len(texts) == len(keys):
            return as_object(dict(zip(texts, trees, strict=True)))
        return {ENTRIES: [list(pair) for pair in zip(keys, trees, strict=True)]}

    def decode(tree: Tree) -> Any:
        read = key.decode if isinstance(tree, dict) and tree.keys() == {ENTRIES} else lambda text: _read_key(key, text)
        found = {}
        for written, inner in entries(tree):
            try:
                found[read(written)] = _placed(item.decode, inner, written)
            except TypeError:
                raise Misfit("a key of it cannot be the key of a dict") from None
        return found

    return Form(encode, decode, dict)


def _placed(function: Callable[[Any], Any], value: Any, key: object) -> Any:
    try:
        return function(value)
    except Misfit as misfit:
        raise misfit.at(field(key)) from None


def _readable(form: Form, key: Any, tree: Tree) -> str | None:
    """Return the text as which a key may stand in an object, None if it could not be read back."""
    if isinstance(tree, list | dict):
        return None
    text = tree if isinstance(tree, str) else json.dumps(tree)
    try:
        again = _read_key(form, text)
    except Misfit:
        return None
    return text if type(again) is type(key) and again == key else None


def _read_key(key: Form, text: Any) -> Any:
    try:
        return key.decode(text)
    except Misfit:
        if not isinstance(text, str):
            raise
        try:
            tree = json.loads(text)
        except ValueError:
            raise Misfit("a key is not what it is annotated to be") from None
        return key.decode(tree)
