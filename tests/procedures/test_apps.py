"""Procedures of several Celery apps in one process, and of one that nobody has finalised."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from lrp_celery import AbortSignal, CallAborted, CallStatus, CallTimedOut, LrpCelery, procedure
from lrp_celery.procedures import workers
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.owned import AbortRequest, Claim, Delivery
from tests.conformance.item_store import until

WAIT = 20


def made(value: int, **options: Any) -> SimpleNamespace:
    """An app of its own, with a task that others have under the same name."""
    app, store = Celery("apps", set_as_current=False), MemoryTrackingStore()
    app.conf.update(task_always_eager=True)
    lrp = LrpCelery(app, store=store)

    @procedure(**options)
    @app.task(name="tests.apps.value", shared=False)
    def give() -> int:
        return value

    return SimpleNamespace(app=app, store=store, lrp=lrp, give=give)


@pytest.fixture
def make():
    apps: list[SimpleNamespace] = []

    def one(*args: Any, **options: Any) -> SimpleNamespace:
        apps.append(made(*args, **options))
        return apps[-1]

    yield one
    for each in apps:
        each.lrp.close()


def test_the_first_eager_call_of_an_app_that_nobody_has_finalised_is_owned(make):
    one = make(1)
    assert not one.app.finalized
    call_id = one.give.call()
    assert one.give.get_result(call_id) == 1
    assert one.give.get_call(call_id).status is CallStatus.SUCCEEDED
    assert make(2).give() == 2


def test_whoever_comes_while_an_app_is_finalised_waits_for_its_tasks_to_run_their_procedures(make, monkeypatch):
    one, begun, go_on = make(1), threading.Event(), threading.Event()
    adopt = type(one.give).adopt

    def slowly(self, task):
        begun.set()
        assert go_on.wait(WAIT)
        adopt(self, task)

    monkeypatch.setattr(type(one.give), "adopt", slowly)
    made: list[str] = []
    callers = [threading.Thread(target=lambda: made.append(one.give.call())) for _ in range(2)]
    callers[0].start()
    assert begun.wait(WAIT)
    assert one.app.finalized, "Celery says so from the beginning"
    callers[1].start()
    callers[1].join(0.2)
    assert made == []
    go_on.set()
    for caller in callers:
        caller.join(WAIT)
    assert [one.give.get_result(call_id) for call_id in made] == [1, 1]


def test_tasks_of_one_name_in_two_apps_are_two_procedures(make):
    one, other = make(1, time_to_live=60), make(2)
    for each, value, live in ((one, 1, timedelta(seconds=60)), (other, 2, None)):
        call_id = each.give.call()
        assert each.give.get_result(call_id) == value
        assert each.app.tasks["tests.apps.value"].lrp_procedure is each.give
        call = each.give.get_call(call_id)
        assert (call.purge_at and call.purge_at - call.terminal_at) == live
    assert one.store._records.keys().isdisjoint(other.store._records)


def test_a_task_that_apps_share_is_one_procedure():
    app = Celery("shares", set_as_current=False)

    @procedure
    @app.task(name="tests.apps.shared")
    def shared() -> None: ...

    for each in (app, Celery("takes part", set_as_current=False)):
        assert each.tasks["tests.apps.shared"].lrp_procedure is shared


DECORATED = """
from celery import Celery, _state, shared_task
from lrp_celery import procedure

@procedure
@shared_task
def first(): pass

@procedure(timeout=5)
@shared_task(bind=True)
def second(self): pass

@procedure
def third(): pass

repr([first.using(queue="slow"), second, third])
assert _state.default_app is None, _state.default_app
app = Celery("projects", set_as_current=False)
app.set_default()
app.finalize()
assert {first.task.app, second.task.app, third.task.app} == {app}
"""


def test_decorating_and_using_does_not_make_celerys_default_app():
    # It would be the one of every thread but the first, with a broker that nobody has named.
    subprocess.run([sys.executable, "-c", DECORATED], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_an_app_that_was_typed_and_is_in_no_file_keeps_its_worker_looking_after_its_calls(make, monkeypatch, caplog):
    one, typed = make(1), ModuleType("__main__")
    typed.app = one.app
    for name in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, typed)
    monkeypatch.setattr(workers.declared, "in_app", lambda app: True)
    workers._on_setup(sender="worker@here", instance=SimpleNamespace(app=one.app))
    assert "no attribute of a module" in caplog.text
    assert workers._side is None


def test_the_calls_of_each_app_are_looked_after(make):
    for each in (make(1), make(2)):
        workers.ensure_care(each.app, runtime_of(each.app))
        workers.ensure_care(each.app, runtime_of(each.app))
        until(lambda store=each.store: len(store.workers()) == 1)


def ends_by_its_timeout(run: Callable[[AbortSignal], None]) -> None:
    """Make an eager call in this thread whose timeout passes while it runs."""
    app, store = Celery("timeouts", set_as_current=False), MemoryTrackingStore()
    app.conf.update(task_always_eager=True)
    lrp = LrpCelery(app, store=store)
    slow = procedure(timeout=0.1, grace=0.1)(app.task(name="tests.apps.slow", shared=False)(run))
    began = time.monotonic()
    call_id = slow.call()
    assert time.monotonic() - began < WAIT
    call: Any = slow.get_call(call_id)
    assert (call.status, call.reason) == ("aborted", "timeout")
    with pytest.raises(CallTimedOut):
        slow.get_result(call_id)
    lrp.close()


class AbortsAtOnce(MemoryTrackingStore):
    """Somebody asks for the end of a call as soon as it has been claimed."""

    def claim(self, delivery: Delivery) -> Claim:
        claimed = super().claim(delivery)
        self.request_abort(delivery.call_id, AbortRequest(reason="now"))
        return claimed


def test_lrp_18_an_eager_call_hears_of_an_abort_that_came_between_its_claim_and_its_function():
    app = Celery("aborts", set_as_current=False)
    app.conf.update(task_always_eager=True)
    lrp = LrpCelery(app, store=AbortsAtOnce())

    @procedure
    @app.task(name="tests.apps.polite", shared=False)
    def polite(signal: AbortSignal) -> None:
        signal.wait(WAIT)
        signal.raise_if_aborted()

    began = time.monotonic()
    with pytest.raises(CallAborted, match="now"):
        polite.get_result(polite.call())
    assert time.monotonic() - began < WAIT
    lrp.close()


def test_lrp_25_an_eager_call_in_the_main_thread_hears_of_its_timeout():
    def polite(signal: AbortSignal) -> None:
        signal.wait(WAIT)
        signal.raise_if_aborted()

    assert threading.current_thread() is threading.main_thread()
    ends_by_its_timeout(polite)


def test_lrp_25_an_eager_call_in_the_main_thread_is_interrupted_after_its_grace():
    def deaf(signal: AbortSignal) -> None:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            pass

    ends_by_its_timeout(deaf)
