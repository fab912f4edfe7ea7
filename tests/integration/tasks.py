"""A task for every way in which a call can go. Each notes what it really does in the truth file."""

import builtins
import os
import signal
import sys
import time

from celery import Task, chain, current_task, group, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from tests.integration.truth import STARTED, hold, note, wait_until_accepted

FOREVER = 60.0


class ServiceAnswered(Exception):
    """What an HTTP client raises, in the shape that most of them share."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the service answered {status}")
        self.status_code = status


class Unspeakable(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class NotOfThisWorld(BaseException):
    """No Exception, and no way for a process to end either."""


# --- Plain ends


@shared_task(name="tests.add")
def add(x, y=0, **more):
    note(STARTED)
    return x + y


@shared_task(name="tests.total")
def total(numbers):
    note(STARTED)
    return sum(numbers)


@shared_task(name="tests.quiet", ignore_result=True)
def quiet():
    note(STARTED)


@shared_task(name="tests.refuse")
def refuse(user, password):
    raise ValueError(f"{password} is wrong")


@shared_task(name="tests.fail")
def fail(kind="ValueError", message="no"):
    note(STARTED)
    raise getattr(builtins, kind)(message)


@shared_task(name="tests.fail_with_status")
def fail_with_status(status):
    note(STARTED)
    raise ServiceAnswered(status)


@shared_task(name="tests.fail_unspeakably")
def fail_unspeakably():
    note(STARTED)
    raise Unspeakable


@shared_task(name="tests.fail_oddly")
def fail_oddly():
    note(STARTED)
    raise NotOfThisWorld("odd")


@shared_task(name="tests.fail_when_told", bind=True)
def fail_when_told(self):
    note(STARTED)
    hold(self.request.id)
    raise ValueError("told to")


@shared_task(name="tests.return_the_unserialisable")
def return_the_unserialisable():
    note(STARTED)
    return object()


class FailingStart(Task):  # type: ignore[type-arg] # Celery's is not generic at run time
    """Fails before its body."""

    def before_start(self, task_id, args, kwargs):
        raise ValueError("not today")


@shared_task(name="tests.fail_before_start", base=FailingStart)
def fail_before_start():
    note(STARTED)


@shared_task(name="tests.ignore")
def ignore():
    note(STARTED)
    raise Ignore("nobody needs it")


@shared_task(name="tests.reject")
def reject(requeue=False):
    note(STARTED)
    raise Reject("not mine", requeue=requeue)


@shared_task(name="tests.reject_late", acks_late=True)
def reject_late():
    note(STARTED)
    raise Reject("not mine", requeue=False)


@shared_task(name="tests.reject_once", bind=True, acks_late=True)
def reject_once(self):
    note(STARTED)
    if not self.request.delivery_info["redelivered"]:
        raise Reject("later", requeue=True)


# --- Retries


@shared_task(name="tests.retry", bind=True, max_retries=5)
def retry(self, times, countdown=0):
    note(STARTED)
    if self.request.retries < times:
        raise self.retry(countdown=countdown)


@shared_task(name="tests.autoretry", bind=True, autoretry_for=(KeyError,), max_retries=2, default_retry_delay=0)
def autoretry(self, times):
    note(STARTED)
    if self.request.retries < times:
        raise KeyError("not yet")


@shared_task(name="tests.retry_with_cause", bind=True, max_retries=1)
def retry_with_cause(self):
    note(STARTED)
    raise self.retry(exc=ServiceAnswered(503), countdown=0)


@shared_task(name="tests.retry_bare", bind=True, max_retries=1)
def retry_bare(self):
    note(STARTED)
    raise self.retry(countdown=0)


@shared_task(name="tests.retry_without_raising", bind=True)
def retry_without_raising(self):
    note(STARTED)
    if self.request.retries == 0:
        self.retry(countdown=0, throw=False)
        hold(self.request.id)


@shared_task(name="tests.retry_into_the_void", bind=True)
def retry_into_the_void(self, value=None):
    note(STARTED)
    # An argument that the retry's message cannot carry: its publish fails.
    raise self.retry(args=(object(),), countdown=0)


@shared_task(name="tests.retry_then_fail", bind=True, max_retries=5)
def retry_then_fail(self):
    note(STARTED)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    raise ValueError("still no")


# --- Limits and deaths


@shared_task(name="tests.soft_limit")
def soft_limit():
    note(STARTED)
    time.sleep(FOREVER)


@shared_task(name="tests.soft_limit_caught")
def soft_limit_caught():
    note(STARTED)
    try:
        time.sleep(FOREVER)
    except SoftTimeLimitExceeded:
        return "caught"


@shared_task(name="tests.hard_limit")
def hard_limit():
    note(STARTED)
    time.sleep(FOREVER)


@shared_task(name="tests.hard_limit_late", acks_late=True)
def hard_limit_late():
    note(STARTED)
    time.sleep(FOREVER)


DEATHS = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "os._exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(3),
}


def end_process(how):
    """End this process once its worker knows what it runs: until then Celery would hand the delivery to another one."""
    wait_until_accepted(current_task.request.id)
    DEATHS[how]()
    time.sleep(FOREVER)


@shared_task(name="tests.die")
def die(how):
    note(STARTED)
    end_process(how)


@shared_task(name="tests.die_late", acks_late=True)
def die_late(how):
    note(STARTED)
    end_process(how)


@shared_task(name="tests.die_once", bind=True, acks_late=True, reject_on_worker_lost=True)
def die_once(self):
    note(STARTED)
    if not self.request.delivery_info["redelivered"]:
        end_process("sigkill")


# --- Calls that run as long as a test wants


@shared_task(name="tests.held", bind=True)
def held(self):
    note(STARTED)
    hold(self.request.id)


@shared_task(name="tests.held_late", bind=True, acks_late=True)
def held_late(self):
    note(STARTED)
    hold(self.request.id)


@shared_task(name="tests.stubborn", bind=True)
def stubborn(self):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(STARTED)
    try:
        hold(self.request.id)
    finally:
        signal.signal(signal.SIGTERM, before)


# --- Calls that make calls


@shared_task(name="tests.parent", bind=True)
def parent(self):
    note(STARTED)
    # Through the app: inside a worker it is the worker's, in a test the test's.
    return self.app.tasks["tests.add"].delay(1, 1).id


@shared_task(name="tests.replace", bind=True)
def replace(self, by):
    note(STARTED)
    tasks = self.app.tasks
    one, two = tasks["tests.add"].si(1, 2), tasks["tests.add"].si(3, 4)
    failing = tasks["tests.fail"].si()
    choices = {
        "task": lambda: one,
        "chain": lambda: chain(one, two),
        "group": lambda: group(one, two),
        "failing task": lambda: failing,
        "failing chain": lambda: chain(failing, two),
        "failing group": lambda: group(one, failing),
    }
    raise self.replace(choices[by]())


@shared_task(name="tests.replace_by_retrying", bind=True)
def replace_by_retrying(self):
    note(STARTED)
    raise self.replace(self.app.tasks["tests.retry"].si(1))


# --- The trial of ground truth: every kind of end, each told just before it happens


def play(task, kind, seconds):
    """Begin, take a moment, and end as `kind` says."""
    note(f"began:{task.request.retries}")
    time.sleep(seconds)
    if kind == "fails":
        note("ended:failed")
        raise ValueError("as planned")
    if kind == "ignores":
        note("ended:discarded")
        raise Ignore
    if kind == "rejects":
        note("ended:discarded")
        raise Reject("as planned", requeue=False)
    if kind == "retries" and task.request.retries == 0:
        note("ended:retried")
        raise task.retry(countdown=0)
    if kind == "parks":
        note("ended:retried" if task.request.retries == 0 else "ended:parked")
        raise task.retry(countdown=0, max_retries=1, exc=ValueError("as planned"))
    note("ended:succeeded")


@shared_task(name="tests.played", bind=True)
def played(self, kind, seconds):
    play(self, kind, seconds)


@shared_task(name="tests.played_late", bind=True, acks_late=True)
def played_late(self, kind, seconds):
    play(self, kind, seconds)
