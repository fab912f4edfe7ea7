"""The measured Celery app and its tasks, set up as the variant in `BENCH_WITH` says (see `variants`)."""

import os
import time
from functools import lru_cache
from pathlib import Path

from celery import Celery

from benchmarks.variants import GRACE, VARIANTS

KIND = os.environ.get("BENCH_WITH", "bare")
VARIANT = VARIANTS[KIND]
BROKER = os.environ["BENCH_BROKER"]
#: Seconds that `pause` takes.
PAUSE = float(os.environ.get("BENCH_PAUSE", "0"))

if VARIANT.django:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    import django

    django.setup()

app = Celery("benchmarks.shop", broker=BROKER, backend=BROKER if VARIANT.backend else None)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=not VARIANT.backend,
    # One of its own, for set-ups that run beside each other.
    task_default_queue=KIND,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "16")),
)
app.conf.update(VARIANT.celery)

if not VARIANT.django:
    from lrp_celery import LrpCelery
    from lrp_celery.tracking import RedisTrackingStore

    lrp = LrpCelery(app, store=RedisTrackingStore(BROKER, prefix="lrp"))


def note(text: str) -> None:
    """Append to this measurement's file of what has happened: one write, which survives any kill."""
    os.write(_notes(os.getpid()), text.encode())


@lru_cache(maxsize=1)
def _notes(pid: int) -> int:
    return os.open(Path(os.environ["BENCH_NOTES"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def nothing(number: int, email: str = "someone@example.com", flag: bool = True) -> None:
    """Do nothing, and be counted."""
    note(".")


def pause(number: int, email: str = "someone@example.com", flag: bool = True) -> None:
    """Sleep, and be counted."""
    time.sleep(PAUSE)
    note(".")


def witness(self: object, number: int, email: str = "someone@example.com", flag: bool = True) -> None:
    """Sleep, and write down when that began and ended."""
    note(f"B {self.request.id} {time.time()}\n")
    time.sleep(PAUSE)
    note(f"E {self.request.id} {time.time()}\n")


def wait_a_little(seconds: float) -> float:
    """Sleep, and return when that was over."""
    time.sleep(seconds)
    return time.time()


if VARIANT.procedures:
    from lrp_celery import AbortSignal, current_call, procedure

    @procedure
    @app.task(name="polite")
    def polite(signal: AbortSignal) -> None:
        """Wait for the signal, and heed it."""
        signal.wait(60)
        signal.raise_if_aborted()

    @procedure(grace=GRACE)
    @app.task(name="deaf")
    def deaf() -> None:
        """Sleep, and heed nothing."""
        time.sleep(60)

    @procedure(idempotent=True)
    @app.task(name="survive")
    def survive() -> None:
        """Write down where and when each run begins; the first one hangs."""
        call = current_call()
        note(f"pid {call.id} {os.getpid()}\n")
        note(f"{call.attempt} {call.id} {time.time()}\n")
        if call.attempt == 1:
            time.sleep(600)

    nothing = procedure(app.task(name="nothing")(nothing))
    wait_a_little = procedure(app.task(name="wait_a_little")(wait_a_little))
else:
    nothing = app.task(name="nothing")(nothing)
    wait_a_little = app.task(name="wait_a_little", ignore_result=False)(wait_a_little)
pause = app.task(name="pause")(pause)
witness = app.task(name="witness", bind=True)(witness)
