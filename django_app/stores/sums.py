"""What is counted together, and what is summed up of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from django_app.clock import as_utc
from django_app.histogram import Histogram
from django_app.lengths import Ended, run_time_of, wait_of
from django_app.models import FAILED_VALUES
from django_app.rollups import hour_of


class Key(NamedTuple):
    """What calls that are counted together have in common."""

    hour: datetime
    task: str
    status: str
    error_type: str

    @classmethod
    def of(cls, call: Ended) -> Key:
        """Return it for one call."""
        error_type = call.error_type if call.status in FAILED_VALUES else None
        return cls(hour_of(as_utc(call.terminal_at)), call.task, call.status, error_type or "")

    @property
    def digest(self) -> str:
        """The primary key of its row: databases compare texts in ways of their own."""
        told = f"{self.hour.isoformat()}\0{self.task}\0{self.status}\0{self.error_type}"
        return blake2b(told.encode(), digest_size=16).hexdigest()


@dataclass(slots=True)
class Sums:
    """How many calls there were, and how long those that ran had waited and took."""

    calls: int = 0
    waits: Histogram = field(default_factory=Histogram)
    runs: Histogram = field(default_factory=Histogram)

    def add(self, call: Ended) -> None:
        """Add one more."""
        self.calls += 1
        ran, waited = run_time_of(call, call.terminal_at), wait_of(call, call.terminal_at)
        if ran is not None:
            self.runs.add(ran)
            if waited is not None:
                self.waits.add(waited)

    def update(self, other: Sums) -> None:
        """Add all of the other ones."""
        self.calls += other.calls
        self.waits.update(other.waits)
        self.runs.update(other.runs)

    def values(self) -> dict[str, Any]:
        """Return them as the row has them."""
        return {"calls": self.calls, "waits": self.waits.to_json(), "runs": self.runs.to_json()}
