"""A bad road to the broker: some messages of this process arrive twice, some later, some when all is over."""

from __future__ import annotations

import heapq
import random
import time
from typing import Any, cast

from kombu.messaging import Producer

from tests.chaos import ledger

#: Of a hundred messages.
DOUBLED, DELAYED, REPLAYED = 20, 5, 4
DELAY = (0.5, 4.0)
#: When most of the calls are settled.
REPLAY = (4.0, 9.0)


class Courier:
    """Takes over what this process publishes. Silent about a broker that is away when a copy is due: it is lost."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._waiting: list[tuple[float, int, Any]] = []
        self._count = 0
        self._publish: Any = Producer._publish

    def take_over(self) -> None:
        """Meddle from now on."""
        courier = self

        def publish(producer: Any, *args: Any, **kwargs: Any) -> Any:
            return courier._carry(producer, args, kwargs)

        cast("Any", Producer)._publish = publish

    def deliver(self, app: Any) -> None:
        """Send what is due."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, (args, kwargs) = heapq.heappop(self._waiting)
            try:
                with app.producer_pool.acquire(block=True, timeout=2) as producer:
                    self._publish(producer, *args, **kwargs)
            except Exception as error:
                ledger.write("copy lost", error=type(error).__name__)

    def _carry(self, producer: Any, args: Any, kwargs: Any) -> Any:
        dice = self._chance.randrange(100)
        if dice < DELAYED:
            ledger.write("delayed")
            self._later(DELAY, args, kwargs)
            return None
        answer = self._publish(producer, *args, **kwargs)
        if dice < DELAYED + DOUBLED:
            ledger.write("doubled")
            self._later((0.0, 0.3), args, kwargs)
        elif dice < DELAYED + DOUBLED + REPLAYED:
            ledger.write("replayed")
            self._later(REPLAY, args, kwargs)
        return answer

    def _later(self, when: tuple[float, float], args: Any, kwargs: Any) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (time.monotonic() + self._chance.uniform(*when), self._count, (args, kwargs)))
