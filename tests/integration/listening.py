"""A project that listens to `call_ended`: whoever imports this notes what it is told, and in which process."""

from __future__ import annotations

from typing import Any

from django_app.signals import call_ended
from tests.integration.truth import hold, note

#: The receiver takes its time with calls of this task, until the test lets it go on.
SLOWLY = "tests.double"


def on_call_ended(snapshot: Any, **_: Any) -> None:
    """Note that a call has ended, and how."""
    note(f"told:{snapshot.status.value}:{snapshot.reason.value if snapshot.reason else None}", snapshot.call_id)
    if snapshot.task == SLOWLY:
        hold(snapshot.call_id)


call_ended.connect(on_call_ended, dispatch_uid=__name__)
