"""Values as JSON, there and back, by annotation: `decode(encode(value, kind), kind) == value`.

A *tree* is what JSON knows: None, bool, int, float, str, list, dict with texts for keys.
Where an annotation says what a value is, its tree is plain (`date` gives "2026-10-01").
Where it says nothing, or something else than what the value is, dates, times, UUIDs,
decimals and bytes are marked as kombu's own JSON marks them, so trees may travel inside
Celery messages: `decode` takes what kombu has restored on the way, and plain trees that
were written by others. Nothing is ever unpickled or looked up by its name.

An annotation helps, it does not police: a value that does not fit its own is sent as it is,
if JSON has a form for it. `decode` is strict, for trees may come from anywhere. A value
that has to do with pydantic is validated by pydantic both ways.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from lrp_celery.core.codec import plain, validated
from lrp_celery.core.codec.form import AS, Form, Misfit, Tree, meant
from lrp_celery.core.codec.typed import form_of
from lrp_celery.core.errors import LrpError, NotDecodable, NotEncodable

__all__ = ["Codec", "Tree", "decode", "dumps", "encode", "is_untyped", "loads"]

#: Marks a value that does not fit its annotation; no member of a union is called so.
_UNTYPED = "*"


class Codec:
    """Encodes and decodes what one annotation describes (no text: the caller resolves those).

    The annotation is understood on first use, when every name that it needs is defined.
    """

    def __init__(self, annotation: Any = Any) -> None:
        self.annotation = annotation

    def __repr__(self) -> str:
        return f"Codec({self.annotation!r})"

    def encode(self, value: Any, *, where: str = "value") -> Tree:
        """Return the tree of `value`; `NotEncodable` names the place in it that has none, and shows no value."""
        try:
            return self._encode(value)
        except Misfit as misfit:
            raise NotEncodable(misfit.told(where)) from None
        except RecursionError:
            raise NotEncodable(f"{where}: nested too deeply, or it holds itself.") from None

    def decode(self, tree: Tree, *, where: str = "value") -> Any:
        """Return the value of `tree`; `NotDecodable` names the place in it that does not fit."""
        try:
            mark = meant(tree)
            return plain.decode(mark[1]) if mark and mark[0] == _UNTYPED else self._form.decode(tree)
        except Misfit as misfit:
            raise NotDecodable(misfit.told(where)) from None
        except RecursionError:
            raise NotDecodable(f"{where}: nested too deeply.") from None

    @cached_property
    def _form(self) -> Form:
        return validated.form_of(self.annotation) if self._validates else form_of(self.annotation)

    @cached_property
    def _validates(self) -> bool:
        return validated.concerns(self.annotation)

    def _encode(self, value: Any) -> Tree:
        try:
            return self._form.encode(value)
        except Misfit as misfit:
            if self._validates:
                raise
            try:
                return {AS: [_UNTYPED, plain.encode(value)]}
            except Misfit as other:
                # Whichever leads further in knows better what is wrong.
                raise max(misfit, other, key=lambda each: len(each.steps)) from None


def encode(value: Any, annotation: Any = Any, *, where: str = "value") -> Tree:
    """Return the tree of `value`; see `Codec.encode`."""
    return Codec(annotation).encode(value, where=where)


def decode(tree: Tree, annotation: Any = Any, *, where: str = "value") -> Any:
    """Return the value of `tree`; see `Codec.decode`."""
    return Codec(annotation).decode(tree, where=where)


def is_untyped(tree: Tree) -> bool:
    """Whether a tree says that it is of a value that does not fit its annotation, and would be taken for it all the same."""
    try:
        mark = meant(tree)
    except Misfit:
        return False
    return mark is not None and mark[0] == _UNTYPED


def dumps(tree: Tree) -> str:
    """Return a tree as one line of ASCII; the order of keys is kept."""
    try:
        return json.dumps(tree, allow_nan=False, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError) as error:
        raise _said(NotEncodable, "This is no tree of JSON", error) from None


def loads(text: str | bytes) -> Tree:
    """Return the tree that `dumps` wrote; marks are left to `decode`."""
    try:
        return json.loads(text)
    except (RecursionError, TypeError, ValueError) as error:
        raise _said(NotDecodable, "This text is no JSON", error) from None


def _said(kind: type[LrpError], sentence: str, error: Exception) -> LrpError:
    return kind(f"{sentence} ({type(error).__name__}).")
