"""Which tasks have calls, without reading the table."""

from __future__ import annotations

import time
from itertools import islice
from typing import Final

from django.db import connections

from django_app.purge import task_names

#: Seconds for which the names are remembered: finding each takes a step in an index.
REMEMBERED: Final = 15.0
#: Names that are looked for.
MOST: Final = 500

_remembered: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}


def known_tasks(alias: str) -> tuple[str, ...]:
    """Return the sorted names of the tasks that have calls, as of the last `REMEMBERED` seconds.

    Not promised: those beyond the first `MOST`.
    """
    database = alias, str(connections[alias].settings_dict["NAME"])
    found = _remembered.get(database)
    if found is None or time.monotonic() - found[0] > REMEMBERED:
        found = time.monotonic(), tuple(islice(task_names(alias), MOST))
        _remembered[database] = found
    return found[1]


def forget() -> None:
    """Look at the table again the next time."""
    _remembered.clear()
