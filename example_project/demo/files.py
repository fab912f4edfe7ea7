"""A broker and a result store of plain files, for machines without any server program.

They are kombu's and Celery's own, with one difference: a file appears as a whole or not at all.
The originals write in place, and a reader that comes too early ends the worker.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery.backends.filesystem import FilesystemBackend
from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Messages in files; the tables that say which queue hears which exchange have one lock."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]  # as kombu has it
        name = f"{round(time.monotonic() * 1000)}_{uuid4()}.{queue}.msg"
        _write(Path(self.data_folder_out) / name, dumps(payload).encode())

    def get_table(self, exchange: str) -> Any:
        """Return the queues that hear the exchange."""
        with self._tables():
            return super().get_table(exchange)

    def _queue_bind(self, *args: Any) -> None:
        with self._tables():
            super()._queue_bind(*args)

    def _delete(self, *args: Any, **kwargs: Any) -> None:
        with self._tables():
            super()._delete(*args, **kwargs)

    @contextmanager
    def _tables(self) -> Iterator[None]:
        with (Path(self.control_folder) / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Transport(filesystem.Transport):
    """Kombu's transport over files, with the channel of this module."""

    Channel = Channel


class ResultBackend(FilesystemBackend):
    """Celery's results in files, each written at once."""

    def set(self, key: Any, value: Any) -> None:
        """Keep the value under the key, each of them text or bytes."""
        path = os.fsdecode(self._filename(key))  # type: ignore[attr-defined]  # missing in the stubs
        _write(Path(path), value.encode() if isinstance(value, str) else value)


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{uuid4()}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
