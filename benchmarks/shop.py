"""The measured Celery app: plain tasks, and the same as procedures where `BENCH_WITH` is `lrp_celery`."""

import os
import time

from celery import Celery

WITH_US = os.environ.get("BENCH_WITH") == "lrp_celery"
BROKER = os.environ.get("BENCH_BROKER", "redis://127.0.0.1:6379/0")
PREFIX = os.environ.get("BENCH_PREFIX", "lrp-bench:")

if WITH_US:
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


if WITH_US:
    from lrp_celery import procedure

    nothing = procedure(app.task(name="nothing", ignore_result=True)(nothing))
    wait_a_little = procedure(app.task(name="wait_a_little")(wait_a_little))
else:
    nothing = app.task(name="nothing", ignore_result=True)(nothing)
    wait_a_little = app.task(name="wait_a_little")(wait_a_little)
