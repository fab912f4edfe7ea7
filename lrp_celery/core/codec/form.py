"""What all parts of the codec share: forms, misfits, and the marks that a tree may bear."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from kombu.utils.json import object_hook

from lrp_celery.core.text import dotted_name

Tree: TypeAlias = Any

#: kombu marks what JSON has no word for, and restores every object with exactly these keys.
_KOMBU: Final = frozenset({"__type__", "__value__"})
#: {ENTRIES: [[key, value], ...]}: a dict whose keys are no texts, or would be taken for a mark.
ENTRIES: Final = "__entries__"
#: {AS: [name, tree]}: says which of several forms the tree has.
AS: Final = "__as__"


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of one kind are written and read; both raise `Misfit`.

    `exact` is the type of which a value surely has this form.
    """

    encode: Callable[[Any], Tree]
    decode: Callable[[Tree], Any]
    exact: type | None = None


class Misfit(Exception):
    """Why a value has no such form, or a tree is not of it; `steps` lead to the place, innermost first."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.steps: list[str] = []

    def at(self, step: str) -> Misfit:
        """Return this misfit, seen from one level further out."""
        self.steps.append(step)
        return self

    def told(self, where: str) -> str:
        """Return the sentence for the user."""
        return f"{', '.join([where, *reversed(self.steps)])}: {self.why}."


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Apply `function` to every item; a misfit tells to which."""
    done: list[Any] = []
    try:
        for item in items:
            done.append(function(item))  # noqa: PERF401 - their number is the place of a misfit
    except Misfit as misfit:
        raise misfit.at(f"item {len(done)}") from None
    return done


def field(name: object) -> str:
    """Return the step to a field of an object."""
    return f"field {reprlib.repr(name)}" if isinstance(name, str) else f"a key of type {dotted_name(type(name))}"


def as_object(fields: Mapping[str, Tree]) -> Tree:
    """Return the JSON object with these fields, such that no reader takes it for a mark."""
    return {ENTRIES: [[key, tree] for key, tree in fields.items()]} if is_mark(fields) else dict(fields)


def is_mark(tree: Mapping[Any, Any]) -> bool:
    """Whether the keys of an object say that it stands for something else."""
    return tree.keys() == _KOMBU or (len(tree) == 1 and (ENTRIES in tree or AS in tree))


def restored(tree: Tree) -> Any:
    """Return what kombu makes of a tree, for that may have happened on its way or not."""
    if not isinstance(tree, dict) or tree.keys() != _KOMBU:
        return tree
    try:
        return object_hook(tree)
    except Exception:  # noqa: BLE001 - readers of types that users registered may raise anything
        raise Misfit("it is marked as a type that it is not") from None


def entries(tree: Tree) -> Iterator[tuple[Any, Tree]]:
    """Yield the keys and values of an object, plain or written as entries; `Misfit` if it is neither."""
    if not isinstance(tree, dict) or tree.keys() == _KOMBU or tree.keys() == {AS}:
        raise Misfit(
            f"{dotted_name(type(tree))} is no object" if not isinstance(tree, dict) else "it is no plain object"
        )
    if tree.keys() != {ENTRIES}:
        yield from tree.items()
        return
    pairs = tree[ENTRIES]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):  # noqa: PLR2004
        raise Misfit(f"{ENTRIES} holds no pairs")
    yield from pairs


def meant(tree: Tree) -> tuple[str, Tree] | None:
    """Return the name and the tree under an AS mark, None without one."""
    if not isinstance(tree, dict) or tree.keys() != {AS}:
        return None
    match tree[AS]:
        case [str(name), inner]:
            return name, inner
    raise Misfit(f"{AS} holds no name and value")


def unexpected(value: object, kind: type) -> Misfit:
    """Return the misfit of a value, or of a tree, that is not of this kind."""
    return Misfit(f"{dotted_name(type(value))} where {dotted_name(kind)} is expected")


def formless(value: object) -> Misfit:
    """Return the misfit of a value that JSON has no form for; it names the type, never the value."""
    kind = dotted_name(type(value))
    if is_dataclass(value) or isinstance(value, Enum) or hasattr(type(value), "model_dump"):
        return Misfit(f"{kind} has a JSON form only where it is annotated; annotate the parameter or result with it")
    return Misfit(
        f"{kind} has no JSON form; pass plain data instead, such as an id, or annotate with a type that has one"
    )
