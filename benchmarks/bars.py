"""What our own set-ups have promised to cost, at most or at least, beside others measured in the same rounds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound on one figure of one set-up, divided by that of another (or on the figure itself)."""

    kind: str
    figure: str
    beside: str | None
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the median keeps the bar."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    @property
    def bound(self) -> str:
        """The bound in words."""
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"


BARS = (
    Bar("spool", "total_cpu", "bare", at_most=1.25),
    Bar("spool", "total_cpu", "results", at_most=0.42),
    Bar("spool", "total_cpu", "results-default", at_most=0.2),
    Bar("spool", "worker_cpu", "bare", at_most=1.15),
    Bar("spool", "worker_cpu", "results", at_most=0.3),
    Bar("spool", "recorded_rate", "bare", at_least=0.85),
    Bar("spool", "recorded_rate", "results", at_least=2),
    Bar("spool", "publish_cpu", "bare", at_most=1.6),
    Bar("spool", "publish_rate", "bare", at_least=0.65),
    Bar("spool", "commits", None, at_most=1.1),
    Bar("spool", "wal", "results", at_most=0.75),
    Bar("bulk", "publish_rate", "bare", at_least=3),
    Bar("bulk", "total_cpu", "bare", at_most=1),
    Bar("bulk", "commits", None, at_most=0.1),
)
