"""The forms of what is one of several: unions, literals, enums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from lrp_celery.core.codec.form import AS, Form, Misfit, Tree, meant, restored, unexpected
from lrp_celery.core.text import dotted_name

_BY_VALUE: Final = frozenset({str, int, float, bool})


def union(members: Mapping[str, Form]) -> Form:
    """Return the form of a union; `members` by the names under which a tree knows them."""
    choice = _Union(members)
    return Form(choice.encode, choice.decode)


class _Union:
    """Written and read as the first member that fits; one of exactly the value's type comes before others.

    The tree says which member that was only where a reader could not tell.
    """

    def __init__(self, members: Mapping[str, Form]) -> None:
        self.members = members
        self.title = " | ".join(members)

    def encode(self, value: Any) -> Tree:
        name, tree = self._first(value, type(value), lambda form: form.encode)
        return tree if self._reader(tree) == name else {AS: [name, tree]}

    def decode(self, tree: Tree) -> Any:
        mark = meant(tree)
        if mark is None:
            return self._first(tree, type(restored(tree)), lambda form: form.decode)[1]
        name, inner = mark
        if name not in self.members:
            raise Misfit(f"it is marked as none of {self.title}")
        return self.members[name].decode(inner)

    def _first(self, value: Any, kind: type, direction: Callable[[Form], Callable[[Any], Any]]) -> tuple[str, Any]:
        likely = sorted(self.members.items(), key=lambda member: member[1].exact is not kind)
        misfits: dict[str, Misfit] = {}
        for name, form in likely:
            try:
                return name, direction(form)(value)
            except Misfit as misfit:
                misfits[name] = misfit
        # Say where it is wrong if it is clear which member was meant.
        clear = [name for name, form in likely if form.exact is kind] or list(self.members.keys() - {"None"})
        if len(clear) == 1 and value is not None:
            raise misfits[clear[0]]
        raise Misfit(f"{dotted_name(kind)} where {self.title} is expected")

    def _reader(self, tree: Tree) -> str | None:
        """Return the name of the member that would read a tree that bears no mark of ours."""
        try:
            return None if meant(tree) else self._first(tree, type(restored(tree)), lambda form: form.decode)[0]
        except Misfit:
            return None


def literal(choices: Sequence[tuple[Any, Form]]) -> Form:
    """Return the form of a literal: that of its value."""
    trees = [(value, form.encode(value)) for value, form in choices]

    def encode(value: Any) -> Tree:
        for choice, tree in trees:
            if type(choice) is type(value) and choice == value:
                return tree
        raise Misfit(f"{dotted_name(type(value))} that is none of the literals")

    def decode(tree: Tree) -> Any:
        value = restored(tree)
        for choice, written in trees:
            if any(type(value) is type(one) and value == one for one in (choice, written)):
                return choice
        raise Misfit(f"{dotted_name(type(value))} that is none of the literals")

    return Form(encode, decode)


def enum(kind: type[Enum]) -> Form:
    """Return the form of an enum: its value where that is plain, else its name."""
    by_value = all(type(member.value) in _BY_VALUE for member in kind.__members__.values())

    def encode(value: Any) -> Tree:
        if not isinstance(value, kind):
            raise unexpected(value, kind)
        return value.value if by_value else value.name

    def decode(tree: Tree) -> Any:
        value = restored(tree)
        if isinstance(value, kind):
            return value
        try:
            return kind(value) if by_value else kind[value]
        except Exception:  # noqa: BLE001 - _missing_ is the user's
            raise Misfit(f"{dotted_name(type(value))} that is no {dotted_name(kind)}") from None

    return Form(encode, decode, kind)
