"""What the commands share."""

from __future__ import annotations

import getpass
import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Final

from lrp_celery.tracking.store import MAX_NAME

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_ids(parser: ArgumentParser) -> None:
    """Take one or more ids of calls."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="The id of a call, which is the Celery task id.")


def add_author(parser: ArgumentParser) -> None:
    """Take who does it; by default, the user who is logged in."""
    parser.add_argument("--by", default=_user(), help="Who does it, for the record (%(default)s).")


def age(text: str) -> timedelta:
    """Read "90s", "30m", "12h", "7d" or "4w"."""
    found = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not an age; write a number and a unit, e.g. 90s, 30m, 12h, 7d or 4w.")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise ArgumentTypeError(f"{text!r} is longer than anything has been kept.") from None


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number above 0.")
    return int(text)


def _user() -> str:
    try:
        return getpass.getuser()[:MAX_NAME]
    except (KeyError, OSError, ImportError):
        # A container may know no name for its user.
        return "manage.py"
