"""Which tasks are tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lrp_celery.core.patterns import matches

DEFAULT_EXCLUDE: Final = ("celery.chord_unlock", "celery.accumulate", "celery.backend_cleanup")


@dataclass(frozen=True, slots=True)
class Selection:
    """Tasks by name pattern. A task left out gets no row; a row that exists is kept up to date all the same."""

    track: Sequence[str] = ("*",)
    exclude: Sequence[str] = DEFAULT_EXCLUDE

    def has(self, task: str) -> bool:
        """Whether a call of `task` gets a row."""
        return matches(task, self.track) and not matches(task, self.exclude)
