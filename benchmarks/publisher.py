"""Publishes calls when it is told to: `python -m benchmarks.publisher TASK CALLS QUEUE`, started by `Bench.publisher`.

Says READY; for each line that it is sent it publishes so many calls, and prints as JSON how long that took, its
CPU seconds and the ids.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import shop

WARM_UP = 20


def publish(task: Any, calls: int, queue: str) -> list[str]:
    """Publish calls of a task, in the way of the variant; return their ids."""
    if shop.VARIANT.bulk:
        from lrp_celery.calls import enqueue_many

        return enqueue_many(_signatures(task, calls, queue), chunk=500)
    return [
        task.apply_async((n,), {"email": f"user{n}@example.com", "flag": True}, queue=queue).id for n in range(calls)
    ]


def _signatures(task: Any, calls: int, queue: str) -> Iterator[Any]:
    for n in range(calls):
        yield task.s(n, email=f"user{n}@example.com", flag=True).set(queue=queue)


def main() -> None:
    """Publish on command."""
    task, calls, queue = getattr(shop, sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    publish(task, WARM_UP, "nowhere")  # connections, caches
    print("READY", flush=True)
    for _ in sys.stdin:
        spent, began = os.times(), time.perf_counter()
        ids = publish(task, calls, queue)
        seconds, now = time.perf_counter() - began, os.times()
        cpu = now.user + now.system - spent.user - spent.system
        print(json.dumps({"seconds": seconds, "cpu": cpu, "ids": ids}), flush=True)


if __name__ == "__main__":
    main()
