"""Which tasks are tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lrp_celery.core.patterns import matches

#: So many tasks are remembered with what was decided of them; a name may also be an attacker's.
_MOST_TASKS: Final = 10_000
DEFAULT_EXCLUDE: Final = ("celery.chord_unlock", "celery.accumulate", "celery.backend_cleanup")


@dataclass(frozen=True, slots=True)
class Selection:
    """Tasks by name pattern. A task left out gets no row; a row that exists is kept up to date all the same."""

    track: Sequence[str] = ("*",)
    exclude: Sequence[str] = DEFAULT_EXCLUDE
    _decided: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def has(self, task: str) -> bool:
        """Whether a call of `task` gets a row."""
        decided = self._decided.get(task)
        if decided is None:
            decided = matches(task, self.track) and not matches(task, self.exclude)
            if len(self._decided) < _MOST_TASKS:
                self._decided[task] = decided
        return decided
