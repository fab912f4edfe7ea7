"""What a worker tells its side process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from lrp_celery.tracking.callstore import WorkerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What a side process has to know; from its worker, as JSON."""

    app: str
    """`module:attribute` of the Celery app, or `path.py:attribute` if it lives in the program that was started."""
    path: list[str]
    """The worker's `sys.path`."""
    folder: str
    """Where the processes of the worker show what they run."""
    boot_id: str
    name: str
    host: str
    parent: int
    pool: str
    spool: str | None = None
    """The folder in which the worker's processes keep their reports; None: they keep none."""
    ear: int = -1
    flag: int = -1
    """The descriptors by which they wake whoever drains it."""

    @property
    def worker(self) -> WorkerFacts:
        """The worker, as it says of itself."""
        return WorkerFacts(boot_id=self.boot_id, name=self.name, host=self.host, pid=self.parent, pool=self.pool)

    def to_json(self) -> str:
        """Return the form in which it is handed over."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Brief:
        """Return what `to_json` wrote."""
        return cls(**json.loads(text))
