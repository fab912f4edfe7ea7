"""The app by which every process of chaos listens to what has ended, as a project does."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig

from tests.chaos import ledger


class Listening(AppConfig):
    """Writes down whatever it is told."""

    name = "tests.chaos"
    label = "chaos"

    def ready(self) -> None:
        """Listen."""
        from django_app.signals import call_ended

        call_ended.connect(_told)


def _told(snapshot: Any, **_: Any) -> None:
    ledger.write("heard", snapshot.call_id, status=snapshot.status.value)
