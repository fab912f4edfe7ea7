"""What a task message says of its call: read by publishers from headers, by workers from requests.

The header `lrp` carries what only the publisher knows, so that a worker can make the row
where the publisher could not.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

from lrp_celery.core.text import clean
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts
from lrp_celery.tracking.store import MAX_ID, MAX_NAME

HEADER: Final = "lrp"
#: On messages of owned calls whose row exists: the generation of the call.
OWNED: Final = "lrp_owned"
_BEAT_SCHEDULE: Final = "periodic_task_name"
_HOST: Final = socket.gethostname()
#: Code that publishes on behalf of others: whoever called it is asked instead.
_INFRASTRUCTURE: Final = frozenset(
    {
        *(
            "amqp",
            "asgiref",
            "billiard",
            "celery",
            "click",
            "concurrent",
            "contextlib",
            "django",
            "django_app",
            "eventlet",
        ),
        *("gevent", "greenlet", "kombu", "lrp_celery", "threading", "vine"),
    }
)
#: Frames without a name of their own: before Python 3.12 comprehensions have them, too.
_NAMELESS: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>"})
_DEEPEST: Final = 60

#: Reads one item of a message by its header's name; None where there is none.
Get = Callable[[str], Any]


def turn_of(get: Get) -> Turn:
    """Return the turn that a message is of."""
    return Turn(_count(get("replaced_task_nesting")), _count(get("retries")))


def is_owned(get: Get) -> bool:
    """Whether the row of this message's call was made by whoever owns it, and not by watching."""
    return get(OWNED) is not None


def stamp(headers: dict[str, Any], now: datetime, schedule: str | None, shown: Mapping[str, str] | None = None) -> None:
    """Write the header `lrp`, unless an earlier publish of the same call did.

    `shown` are the texts by which the publisher wants the arguments shown: Celery forgets them at a retry.
    """
    if not isinstance(headers.get(HEADER), Mapping):
        headers[HEADER] = _stamped(headers, now, schedule)
    if shown:
        headers[HEADER] = {**headers[HEADER], "shown": dict(shown)}


def _stamped(headers: dict[str, Any], now: datetime, schedule: str | None) -> dict[str, str]:
    stamped = {"at": now.isoformat(), "host": _HOST}
    named = schedule or _text(headers.get(_BEAT_SCHEDULE))
    script = named or calling_code()
    if named is not None:
        stamped["schedule"] = named
    if script is not None:
        stamped["script"] = script
    return stamped


def facts_of(get: Get, task: str, *, queue: str | None, summary: str | None, at: datetime | None = None) -> CallFacts:
    """Return what a message says of its call. `at`: when it was asked for; None: as the header `lrp` says."""
    stamped = get(HEADER)
    lrp: Mapping[str, Any] = stamped if isinstance(stamped, Mapping) else {}
    return CallFacts(
        task=clean(task, MAX_NAME),
        target_summary=summary,
        source_instance_id=_text(lrp.get("host")),
        source_script=_text(lrp.get("script")),
        source_node=_text(get("origin")),
        queue=_text(queue),
        root_id=_id(get("root_id")),
        parent_id=_parent(get),
        group_id=_id(get("group")),
        schedule=_text(lrp.get("schedule")) or _text(get(_BEAT_SCHEDULE)),
        enqueued_at=at or instant(lrp.get("at")),
        due_at=instant(get("eta")),
        expires_at=instant(get("expires")),
    )


def instant(value: object) -> datetime | None:
    """Return a header's time in UTC; one without a zone is meant in UTC; None for what is no time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def calling_code() -> str | None:
    """Return `module:function` of the user's code that is publishing; None: Celery itself is."""
    frame = inspect.currentframe()
    for _ in range(_DEEPEST):
        if frame is None or _is_celery_command(frame):
            return None
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _INFRASTRUCTURE and frame.f_code.co_name not in _NAMELESS:
            return clean(f"{module}:{frame.f_code.co_qualname}", MAX_NAME)
        frame = frame.f_back
    return None


def _is_celery_command(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    return frame.f_globals.get("__name__") == "__main__" and filename.endswith(("/celery", "/celery/__main__.py"))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _parent(get: Get) -> str | None:
    # After a retry or a replacement Celery names a call its own parent.
    parent = _id(get("parent_id"))
    return None if parent == get("id") else parent


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= MAX_ID else None


def _text(value: object) -> str | None:
    return clean(value, MAX_NAME) if isinstance(value, str) and value else None
