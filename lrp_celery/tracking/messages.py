"""What a task message says of its call: read by publishers from headers, by workers from requests.

The header `lrp` carries what only the publisher knows, so that a worker can make the row
where the publisher could not.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import CodeType, FrameType
from typing import Any, Final

from lrp_celery.core.text import clean
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts
from lrp_celery.tracking.store import MAX_ID, MAX_NAME, MAX_SUMMARY

HEADER: Final = "lrp"
#: On messages of owned calls whose row exists: the generation of the call.
OWNED: Final = "lrp_owned"
_RERUN_OF: Final = "rerun_of"
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
#: So much code is remembered with what it is called; programs that make code as they go have more.
_MOST_CODE: Final = 10_000

_FIRST: Final = Turn()

#: Reads one item of a message by its header's name; None where there is none.
Get = Callable[[str], Any]


def turn_of(get: Get) -> Turn:
    """Return the turn that a message is of."""
    nesting, retries = get("replaced_task_nesting"), get("retries")
    return _FIRST if not nesting and not retries else Turn(_count(nesting), _count(retries))


def is_owned(get: Get) -> bool:
    """Whether the row of this message's call was made by whoever owns it, and not by watching."""
    return get(OWNED) is not None


def stamp(
    headers: dict[str, Any],
    now: datetime,
    schedule: str | None,
    shown: Mapping[str, str] | None = None,
    summary: str | None = None,
) -> None:
    """Write the header `lrp`, unless an earlier publish of the same call did.

    `shown` are the texts by which the publisher wants the arguments shown: Celery forgets them at a retry.
    `summary` is how he shows them, where he knows the task: redacted, and of this publish, for a retry may change them.
    """
    known = headers.get(HEADER)
    stamped = dict(known) if isinstance(known, Mapping) else _stamped(headers, now, schedule)
    stamped.pop("summary", None)
    if shown:
        stamped["shown"] = dict(shown)
    if summary is not None:
        stamped["summary"] = summary
    headers[HEADER] = stamped


def summary_in(get: Get) -> str | None:
    """Return how the publisher showed the arguments; None: he did not know the task, or says nothing."""
    stamped = get(HEADER)
    told = stamped.get("summary") if isinstance(stamped, Mapping) else None
    return clean(told, MAX_SUMMARY) if isinstance(told, str) else None


def fresh_stamp(now: datetime, rerun_of: str | None = None) -> dict[str, Any]:
    """Return the header `lrp` of whatever is published here and now, not by a schedule; it may run a call again."""
    stamped = _stamped({}, now, None)
    return stamped if rerun_of is None else {**stamped, _RERUN_OF: rerun_of}


def _stamped(headers: dict[str, Any], now: datetime, schedule: str | None) -> dict[str, Any]:
    stamped: dict[str, Any] = {"at": now.isoformat(), "host": _HOST}
    named = schedule or _text(headers.get(_BEAT_SCHEDULE))
    script = named or calling_code()
    if named is not None:
        stamped["schedule"] = named
    if script is not None:
        stamped["script"] = script
    return stamped


def facts_of(get: Get, task: str, *, queue: str | None, summary: str | None, is_new: bool = False) -> CallFacts:
    """Return what a message says of its call. `is_new`: it is being made, and the store's own clock says when."""
    stamped = get(HEADER)
    lrp: Mapping[str, Any] = stamped if isinstance(stamped, Mapping) else {}
    return CallFacts(
        task=clean(task, MAX_NAME),
        target_summary=summary,
        source_instance_id=_text(lrp.get("host")),
        source_script=_text(lrp.get("script")),
        source_node=_text(get("origin")),
        queue=_text(queue),
        root_id=id_of(get("root_id")),
        parent_id=_parent(get),
        group_id=id_of(get("group")),
        schedule=_text(lrp.get("schedule")) or _text(get(_BEAT_SCHEDULE)),
        rerun_of=id_of(lrp.get(_RERUN_OF)),
        enqueued_at=None if is_new else instant(lrp.get("at")),
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
        if frame is None:
            return None
        code = frame.f_code
        known = _known_code.get(id(code))
        if known is None or known[0] is not code:
            known = _known(code, frame)
        if known[1] is not _ON:
            return known[1]
        frame = frame.f_back
    return None


#: Stands for code that publishes on behalf of others.
_ON: Final = "..."
#: By its number, which is a code's own as long as it is kept here: to compare code costs more than to look at it.
_known_code: dict[int, tuple[CodeType, str | None]] = {}


def _known(code: CodeType, frame: FrameType) -> tuple[CodeType, str | None]:
    if len(_known_code) >= _MOST_CODE:
        _known_code.clear()
    known = _known_code[id(code)] = (code, _named(frame))
    return known


def _named(frame: FrameType) -> str | None:
    """Return what the code of a frame is called; None: it is Celery's command, `_ON`: it publishes for others."""
    if _is_celery_command(frame):
        return None
    module = str(frame.f_globals.get("__name__", ""))
    if module.partition(".")[0] in _INFRASTRUCTURE or frame.f_code.co_name in _NAMELESS:
        return _ON
    return clean(f"{module}:{frame.f_code.co_qualname}", MAX_NAME)


def _is_celery_command(frame: FrameType) -> bool:
    if frame.f_globals.get("__name__") != "__main__":
        return False
    return frame.f_code.co_filename.endswith(("/celery", "/celery/__main__.py"))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _parent(get: Get) -> str | None:
    # After a retry or a replacement Celery names a call its own parent.
    parent = id_of(get("parent_id"))
    return None if parent == get("id") else parent


def id_of(value: object) -> str | None:
    """Return what a message names as the id of a call or group; None: it names none, or no usable one."""
    return value if isinstance(value, str) and 1 <= len(value) <= MAX_ID else None


def _text(value: object) -> str | None:
    return clean(value, MAX_NAME) if isinstance(value, str) and value else None
