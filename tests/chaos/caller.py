"""Calls tasks until it is killed: `python -m tests.chaos.caller SEED PAUSE`.

It writes down what it wants before it asks for it, and what it was told afterwards: between
the two it may die, and then nobody knows whether the call was made.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django

django.setup()

from django.db import connection, connections, transaction  # noqa: E402

from lrp_celery import calls  # noqa: E402
from lrp_celery.core.ids import new_id  # noqa: E402
from tests.chaos import ledger, work  # noqa: E402
from tests.chaos.courier import Courier  # noqa: E402
from tests.chaos.onlooker import RECENT, look_back  # noqa: E402
from tests.integration.app import app  # noqa: E402

RACERS = 8


class _RolledBack(Exception):
    """The caller has changed its mind."""


class Caller:
    """One caller, whose choices follow from its seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._recent: deque[tuple[Any, str]] = deque(maxlen=RECENT)
        self.courier = Courier(self._chance)

    def step(self) -> None:
        """Do one thing."""
        name = self._chance.choices(list(work.NATURES), [weight for _, weight in work.NATURES.values()])[0]
        task, value, call_id = app.tasks[name], self._chance.randrange(1000), new_id()
        deed = self._plain
        if work.nature_of(name).owned:
            task = getattr(work, name.rpartition(".")[2])
            deed = self._chance.choices([self._call, self._in_transaction, self._raced], [12, 5, 2])[0]
        ledger.write("wanted", call_id, task=name, value=value)
        try:
            deed(task, value, call_id)
        except Exception as error:
            ledger.write("refused", call_id, error=f"{type(error).__name__}: {error}"[:200])
            connection.close()
        else:
            if work.nature_of(name).owned:
                self._recent.append((task, call_id))
        if self._recent and self._chance.random() < 0.5:
            self._look_back()
        self.courier.deliver(app)

    def _plain(self, task: Any, value: int, call_id: str) -> None:
        task.apply_async((value,), task_id=call_id)
        ledger.write("accepted", call_id)

    def _call(self, task: Any, value: int, call_id: str) -> None:
        assert task.using(call_id=call_id).call(value) == call_id
        ledger.write("accepted", call_id)

    def _in_transaction(self, task: Any, value: int, call_id: str) -> None:
        is_wanted = self._chance.random() < 0.6
        try:
            with transaction.atomic():
                task.using(call_id=call_id).call(value)
                if not is_wanted:
                    ledger.write("rolled back", call_id)
                    raise _RolledBack
        except _RolledBack:
            return
        ledger.write("accepted", call_id)

    def _raced(self, task: Any, value: int, call_id: str) -> None:
        def start(_: int) -> str:
            try:
                return str(task.using(call_id=call_id).call(value))
            finally:
                connections.close_all()

        with ThreadPoolExecutor(RACERS) as threads:
            handles = list(threads.map(start, range(RACERS)))
        ledger.write("raced", call_id, handles=handles)
        ledger.write("accepted", call_id)

    def _look_back(self) -> None:
        task, call_id = self._chance.choice(self._recent)
        try:
            look_back(self._chance, task, call_id, calls.get, is_stoppable=task is work.stoppable)
        except Exception:
            connection.close()


def main(seed: int, pause: float) -> None:
    """Call until somebody ends this process."""
    # Racers are threads, and to these only the default app is known.
    app.set_default()
    app.finalize()
    app.loader.import_default_modules()
    caller = Caller(seed)
    caller.courier.take_over()
    while True:
        caller.step()
        time.sleep(pause)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
