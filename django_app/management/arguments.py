"""What the commands about calls share."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser

from lrp_celery.tracking.store import MAX_NAME


def add_ids(parser: ArgumentParser) -> None:
    """Take one or more ids of calls."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="The id of a call, which is the Celery task id.")


def add_author(parser: ArgumentParser) -> None:
    """Take who does it; by default, the user who is logged in."""
    parser.add_argument("--by", default=_user(), help="Who does it, for the record (%(default)s).")


def _user() -> str:
    try:
        return getpass.getuser()[:MAX_NAME]
    except (KeyError, OSError, ImportError):
        # A container may know no name for its user.
        return "manage.py"
