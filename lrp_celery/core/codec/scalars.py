"""The forms of single values: what JSON has itself, and what it writes as a text or a number."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from lrp_celery.core.codec.form import Form, Misfit, Tree, restored, unexpected
from lrp_celery.core.text import dotted_name

#: An int below this many bits has few enough digits for every Python.
_SHORT: Final = 2_000
_LONGEST: Final = Decimal(timedelta.max.days + 1) * 86_400


def finite(value: float) -> float:
    """Return a float that JSON has a word for."""
    if not math.isfinite(value):
        raise Misfit("a float that is infinite or not a number has no JSON form")
    return float.__float__(value)


def integer(value: int) -> int:
    """Return an int that Python is willing to write as digits."""
    if value.bit_length() > _SHORT:
        try:
            int.__repr__(value)
        except ValueError:
            raise Misfit("an int of so many digits has no JSON form") from None
    return int.__int__(value)


def _native(kind: type, write: Callable[[Any], Tree], accepts: tuple[type, ...]) -> Form:
    """Return the form of what JSON has itself; restored or not, it is the same."""

    def same(value: Any) -> Any:
        if not isinstance(value, accepts):
            raise unexpected(value, kind)
        return value

    return Form(lambda value: write(same(value)), lambda tree: same(restored(tree)), kind)


def _written(
    kind: type,
    write: Callable[[Any], Tree],
    read: Callable[[Any], Any],
    trees: tuple[type, ...] = (str,),
    without: tuple[type, ...] = (),
) -> Form:
    """Return the form of what JSON has not: `write` makes a tree of one of `trees`, `read` reads those."""

    def fits(value: Any) -> bool:
        return isinstance(value, kind) and not isinstance(value, without)

    def encode(value: Any) -> Tree:
        if not fits(value):
            raise unexpected(value, kind)
        return write(value)

    def decode(tree: Tree) -> Any:
        value = restored(tree)
        if fits(value):
            return value
        if not isinstance(value, trees) or isinstance(value, bool):
            raise unexpected(value, kind)
        try:
            return read(value)
        except Exception:  # noqa: BLE001 - each type has its own way to refuse a text
            raise Misfit(f"{dotted_name(type(value))} is not one that {dotted_name(kind)} is written as") from None

    return Form(encode, decode, kind)


def _number(value: int | float) -> int | float:  # noqa: PYI041 - whole numbers stay whole
    return integer(value) if isinstance(value, int) else finite(value)


def _write_duration(value: timedelta) -> int | float | str:
    """Return its seconds: as a text where a float would lose the microseconds."""
    total = value.total_seconds()
    if timedelta(seconds=total) == value:
        return int(total) if total.is_integer() else total
    whole, rest = divmod(value, timedelta(seconds=1))
    return str(whole + Decimal(rest.microseconds) / 10**6)


def _read_duration(tree: float | str) -> timedelta:
    if not isinstance(tree, str):
        return timedelta(seconds=tree)
    exact = Decimal(tree)
    if abs(exact) > _LONGEST:
        raise OverflowError
    return timedelta(microseconds=int(exact * 10**6))


DURATION: Final = _written(timedelta, _write_duration, _read_duration, (int, float, str))
SCALARS: Final[dict[type, Form]] = {
    type(None): _native(type(None), lambda value: value, (type(None),)),
    bool: _native(bool, lambda value: value, (bool,)),
    int: _native(int, lambda value: value if isinstance(value, bool) else integer(value), (int,)),
    float: _native(float, lambda value: value if isinstance(value, bool) else _number(value), (int, float)),
    str: _native(str, str.__str__, (str,)),
    datetime: _written(datetime, datetime.isoformat, datetime.fromisoformat),
    date: _written(date, date.isoformat, date.fromisoformat, without=(datetime,)),
    time: _written(time, time.isoformat, time.fromisoformat),
    timedelta: DURATION,
    Decimal: _written(Decimal, str, lambda tree: Decimal(str(tree)), (int, float, str)),
    UUID: _written(UUID, str, UUID),
    bytes: _written(
        bytes, lambda value: base64.b64encode(value).decode(), lambda tree: base64.b64decode(tree, validate=True)
    ),
}
