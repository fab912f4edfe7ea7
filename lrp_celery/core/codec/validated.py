"""The form of whatever pydantic has a say in: it validates, writes and reads the whole of it.

pydantic is optional; it is imported when an annotation has to do with it, and so is there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from lrp_celery.core.codec import plain
from lrp_celery.core.codec.form import Form, Misfit, Tree, field
from lrp_celery.core.codec.records import annotations_of, is_record
from lrp_celery.core.text import dotted_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

#: What pydantic writes instead of a secret.
_MASK: Final = "*" * 10
_PYDANTIC: Final = frozenset({"pydantic", "pydantic_core"})
_HOOKS: Final = frozenset({"__pydantic_validator__", "__get_pydantic_core_schema__"})


def concerns(annotation: Any) -> bool:
    """Whether an annotation is of pydantic, or contains something that is."""
    return "pydantic" in sys.modules and _concerns(annotation, set())


def form_of(annotation: Any) -> Form:
    """Return the form that pydantic gives to an annotation."""
    from pydantic import TypeAdapter

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except Exception as error:  # noqa: BLE001 - annotations that pydantic does not know are refused in many ways
        return _refusal(f"pydantic cannot describe its annotation ({dotted_name(type(error))})")

    def encode(value: Any) -> Tree:
        valid = _valid(adapter.validate_python, value)
        # By its aliases if it has some: that is what it reads, unless it is told otherwise.
        for by_alias in (True, False):
            try:
                tree = plain.encode(adapter.dump_python(valid, mode="json", by_alias=by_alias, round_trip=True))
                again = decode(tree)
            except Misfit as found:
                misfit = found
            except Exception as error:  # noqa: BLE001 - users write serializers
                misfit = Misfit(f"pydantic cannot write it as JSON ({dotted_name(type(error))})")
            else:
                _require_whole(valid, again, tree)
                return tree
        raise misfit

    def decode(tree: Tree) -> Any:
        # As JSON, for pydantic reads JSON and Python by different rules.
        return _valid(adapter.validate_json, json.dumps(plain.decode(tree), default=_jsonable))

    return Form(encode, decode)


def _jsonable(value: Any) -> Any:
    """Write what kombu has restored."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def _valid(validate: Callable[[Any], Any], value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        # Its own message shows the value, and a validator's message may.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        misfit = Misfit(f"pydantic refuses it ({first['type']})")
        for step in reversed(first["loc"]):
            misfit.at(f"item {step}" if isinstance(step, int) else field(step))
        raise misfit from None


def _require_whole(value: Any, again: Any, tree: Tree) -> None:
    """Refuse what JSON would cut down: an instance of a subclass, a masked secret."""
    if type(value) is not type(again):
        raise Misfit(f"{dotted_name(type(value))} where {dotted_name(type(again))} is expected")
    if value != again and _MASK in _leaves(tree):
        raise Misfit("a secret of pydantic has no JSON form; annotate it as str, or give it a serializer")


def _leaves(tree: Tree) -> Iterator[Any]:
    if isinstance(tree, list | dict):
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(inner)
    else:
        yield tree


def _refusal(why: str) -> Form:
    def refuse(_: Any) -> Any:
        raise Misfit(why)

    return Form(refuse, refuse)


def _concerns(annotation: Any, seen: set[int]) -> bool:
    if id(annotation) in seen:
        return False
    seen.add(id(annotation))
    kind = annotation if isinstance(annotation, type) else type(annotation)
    if any(base.__module__.partition(".")[0] in _PYDANTIC for base in kind.__mro__) or _described(annotation):
        return True
    parts = [get_origin(annotation), *get_args(annotation), *getattr(annotation, "__metadata__", ())]
    parts += [getattr(annotation, name, None) for name in ("__supertype__", "__value__")]
    if isinstance(annotation, type) and is_record(annotation):
        parts += annotations_of(annotation).values()
    return any(_concerns(part, seen) for part in parts if part is not None)


def _described(annotation: Any) -> bool:
    """Whether a class is a dataclass of pydantic, or tells pydantic about itself."""
    return any(name in getattr(annotation, "__dict__", {}) for name in _HOOKS)
