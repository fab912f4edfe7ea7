"""What is kept of the messages of calls that are only watched, so that they can be run again.

Nothing, unless somebody says so of a task: arguments may be secrets, and kept they are not
redacted. What is kept is JSON, and whoever runs the call again passes on what JSON says of it.
"""

from __future__ import annotations

from typing import Any, Final

from kombu.utils.json import dumps

#: Characters of JSON that are kept at most: what is larger belongs to a procedure.
MOST_KEPT: Final = 8192


def message_of(task: str, args: Any, kwargs: Any) -> str | None:
    """Return a call's arguments as `procedures.envelope.Envelope` reads a message; None: they have no JSON form, or are large."""
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return None
    try:
        text: str = dumps({"task": task, "body": [list(args), kwargs, {}], "queues": [], "options": {"headers": {}}})
    except Exception:  # noqa: BLE001 - an argument's own code may raise anything, and watching must not harm
        return None
    return text if len(text) <= MOST_KEPT else None
