"""The measured Celery app: plain tasks, and the same as procedures, by `BENCH_WITH`.

`celery`: plain; `lrp_celery`: procedures in Django's PostgreSQL; `redis`: procedures in Redis, without Django.
"""

import os
import time

from celery import Celery

WITH = os.environ.get("BENCH_WITH", "celery")
BROKER = os.environ.get("BENCH_BROKER", "redis://127.0.0.1:6379/0")
PREFIX = os.environ.get("BENCH_PREFIX", "lrp-bench:")
#: Seconds that the deaf one gets.
GRACE = 1.0

if WITH == "lrp_celery":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    import django

    django.setup()

app = Celery("benchmarks.shop", broker=BROKER, backend=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"global_keyprefix": PREFIX},
    result_backend_transport_options={"global_keyprefix": PREFIX},
    worker_prefetch_multiplier=16,
)


if WITH == "redis":
    from lrp_celery import LrpCelery
    from lrp_celery.tracking import RedisTrackingStore

    lrp = LrpCelery(app, store=RedisTrackingStore(BROKER, prefix=f"{PREFIX}lrp"))


def done() -> None:
    """Count one run, for whoever measures."""
    file = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)
    os.write(file, b".")
    os.close(file)


def nothing(number: int) -> None:
    """Do nothing, and be counted."""
    done()


def wait_a_little(seconds: float) -> float:
    """Sleep, and return when that was over."""
    time.sleep(seconds)
    return time.time()


if WITH != "celery":
    from lrp_celery import AbortSignal, procedure

    @procedure
    @app.task(name="polite", ignore_result=True)
    def polite(signal: AbortSignal) -> None:
        """Wait for the signal, and heed it."""
        signal.wait(60)
        signal.raise_if_aborted()

    @procedure(grace=GRACE)
    @app.task(name="deaf", ignore_result=True)
    def deaf() -> None:
        """Sleep, and heed nothing."""
        time.sleep(60)

    nothing = procedure(app.task(name="nothing", ignore_result=True)(nothing))
    wait_a_little = procedure(app.task(name="wait_a_little")(wait_a_little))
else:
    nothing = app.task(name="nothing", ignore_result=True)(nothing)
    wait_a_little = app.task(name="wait_a_little")(wait_a_little)
