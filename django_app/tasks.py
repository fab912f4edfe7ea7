"""Tasks for beat, found by `app.autodiscover_tasks()`."""

from __future__ import annotations

from celery import current_app, shared_task

from django_app import purge as purging
from lrp_celery.procedures import rounds
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.procedures.telling import tell_all

#: Seconds for which receivers are told, before the next task has its turn.
_TELL = 10.0


@shared_task(name="lrp_celery.purge", ignore_result=True)
def purge() -> int:
    """Delete calls that have been kept long enough by the setting RETENTION; return how many."""
    return purging.purge().calls


@shared_task(name="lrp_celery.relay", ignore_result=True)
def relay() -> int:
    """Send the messages of procedures' calls that did not get out, and end what no run holds and is overdue.

    Every worker's side process does so, too; and as that does, it tells receivers of `call_ended`, for some seconds.
    Returns how many messages were sent.
    """
    runtime = runtime_of(current_app)
    done = rounds.look_after(current_app, runtime)
    tell_all(runtime.own, within=_TELL)
    return done.sent


@shared_task(name="lrp_celery.rescue", ignore_result=True)
def rescue() -> int:
    """Do what is due for all calls, also those whose worker is gone; return for how many.

    Every worker's side process does so, too. It takes LEASE seconds, in which it mostly sleeps.
    """
    done = rounds.rescue(current_app, runtime_of(current_app))
    return done.calls + done.judged
