"""Calls procedures over HTTP until it is killed: `python -m tests.chaos.remote SEED PAUSE URL`.

As `tests.chaos.caller`, but of another service: it knows neither Django nor the broker.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lrp_celery import HttpProcedure, LrpError
from lrp_celery.core.ids import new_id
from tests.chaos import ledger, work
from tests.chaos.onlooker import RECENT, look_back

RACERS = 4
HEADERS = {"Authorization": "Bearer ada"}
STOPPABLE = "tests.chaos.stoppable"


class RemoteCaller:
    """One caller, whose choices follow from its seed."""

    def __init__(self, seed: int, url: str) -> None:
        self._chance = random.Random(seed)
        self._recent: deque[tuple[str, str]] = deque(maxlen=RECENT)
        self._weights = {name: weight for name, (nature, weight) in work.NATURES.items() if nature.owned}
        self._procedures: dict[str, Any] = {name: HttpProcedure(url, name, HEADERS) for name in self._weights}

    def step(self) -> None:
        """Do one thing."""
        name = self._chance.choices(list(self._weights), list(self._weights.values()))[0]
        value, call_id = self._chance.randrange(1000), new_id()
        deed = self._chance.choices([self._call, self._raced], [17, 2])[0]
        ledger.write("wanted", call_id, task=name, value=value)
        try:
            deed(self._procedures[name].using(call_id=call_id), value, call_id)
        except LrpError as error:
            # Nobody knows whether it was made: that its server died is no answer.
            ledger.write("refused", call_id, error=f"{type(error).__name__}: {error}"[:200])
        else:
            ledger.write("accepted", call_id, over="http")
            self._recent.append((name, call_id))
        if self._recent and self._chance.random() < 0.5:
            self._look_back()

    def _call(self, procedure: Any, value: int, call_id: str) -> None:
        assert procedure.call(value) == call_id

    def _raced(self, procedure: Any, value: int, call_id: str) -> None:
        with ThreadPoolExecutor(RACERS) as threads:
            handles = list(threads.map(lambda _: str(procedure.call(value)), range(RACERS)))
        ledger.write("raced", call_id, handles=handles)

    def _look_back(self) -> None:
        name, call_id = self._chance.choice(self._recent)
        procedure = self._procedures[name]
        look_back(self._chance, procedure, call_id, procedure.get_call, is_stoppable=name == STOPPABLE)


def main(seed: int, pause: float, url: str) -> None:
    """Call until somebody ends this process."""
    caller = RemoteCaller(seed, url)
    while True:
        caller.step()
        time.sleep(pause)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
