"""Every procedure that was declared, and how its tasks come to run it.

A task that is declared by `shared_task` is made anew in each app, when that app is
finalised; looking at it earlier would finalise an app. So procedures are noted here, and
their tasks are changed when they exist.
"""

from __future__ import annotations

from typing import Any, Protocol

from celery import _state as _celery_state

#: Celery's own, which its type stubs do not know of.
_state: Any = _celery_state
_active_apps: Any = vars(_celery_state)["_get_active_apps"]


class Declared(Protocol):
    """A procedure, as far as its tasks are concerned."""

    def find(self, app: Any) -> Any:
        """Return its task in a finalised app; None: that app has none."""
        ...

    def is_at_home(self, app: Any) -> bool:
        """Whether it was declared in `app`, or in all apps, and does not only occur there because tasks are shared."""
        ...

    def adopt(self, task: Any) -> None:
        """Let a task run this procedure. Doing it twice changes nothing."""
        ...


_declared: list[Declared] = []


def declare(procedure: Declared) -> None:
    """Let the tasks of `procedure` run it, in the apps that are and in those that will be."""
    if not _declared:
        _state.connect_on_app_finalize(_on_finalize)
        for app in _active_apps():
            _watch(app)
    _declared.append(procedure)
    for app in _active_apps():
        if app.finalized:
            _adopt_in(app, procedure)


def in_app(app: Any) -> list[Declared]:
    """Return the procedures that have a task in `app`."""
    return [procedure for procedure in _declared if procedure.find(app) is not None]


def _on_finalize(app: Any) -> None:
    _watch(app)


def _watch(app: Any) -> None:
    # Sent when the app's tasks exist; what is connected to the announcement itself may come before them.
    app.on_after_finalize.connect(_adopt_all, weak=False, dispatch_uid="lrp_celery.procedures")


def _adopt_all(*, sender: Any, **_: Any) -> None:
    for procedure in sorted(_declared, key=lambda each: not each.is_at_home(sender)):
        _adopt_in(sender, procedure)


def _adopt_in(app: Any, procedure: Declared) -> None:
    task = procedure.find(app)
    if task is not None:
        procedure.adopt(task)
