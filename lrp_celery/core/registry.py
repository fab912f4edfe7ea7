"""What belongs to a Celery app, for code that is handed only the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class PerApp(Generic[T]):
    """One source of `T` for each app, and one for all apps that have none of their own."""

    def __init__(self) -> None:
        self._sources: WeakKeyDictionary[Any, Callable[[], T]] = WeakKeyDictionary()
        self._for_others: list[Callable[[], T]] = []

    def install(self, source: Callable[[], T], app: Any = None) -> None:
        """Let `source` answer for `app` (None: for every app that has none of its own), each time it is asked."""
        if app is None:
            self._for_others[:] = [source]
        else:
            self._sources[_itself(app)] = source

    def uninstall(self, app: Any = None) -> None:
        """Undo `install`; nothing happens if there is nothing to undo."""
        if app is None:
            self._for_others.clear()
        else:
            self._sources.pop(_itself(app), None)

    def of(self, app: Any) -> T | None:
        """Return what the source for `app` gives; None: it has none. Raises what its source raises."""
        source = self._sources.get(_itself(app)) or next(iter(self._for_others), None)
        return None if source is None else source()


def _itself(app: Any) -> Any:
    """Return an app itself where it was given by a proxy, as `celery.current_app` is."""
    behind = getattr(app, "_get_current_object", None)
    return app if behind is None else behind()
