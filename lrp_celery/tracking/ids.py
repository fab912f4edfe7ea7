"""Ids of calls that Celery makes itself: of version 7, like ours.

Celery has no setting for it. Where nobody gives an id, `send_task` and the signatures of canvas ask a
function of their module for one; here that function is exchanged. What it returns is a UUID as
before, only that later ones sort after earlier ones: with random keys, PostgreSQL writes eleven
times as much log for a row in a table of five million.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from celery import canvas
from celery.app import base
from kombu.utils.uuid import uuid as celerys

from lrp_celery.core.ids import new_id

#: Not the module of tasks, which asks for the ids of those that run at once in their caller.
_MODULES: Final[tuple[Any, ...]] = (base, canvas)


def sort_ids() -> None:
    """Let the ids that Celery makes sort by time; where somebody else has exchanged the function, leave it."""
    for module in _MODULES:
        if getattr(module, "uuid", None) is celerys:
            module.uuid = uuid


def uuid(_uuid: Callable[[], UUID] | None = None) -> str:
    """Return a new id; it stands in for kombu's function of that name."""
    return new_id() if _uuid is None else celerys(_uuid)
