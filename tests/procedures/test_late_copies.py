"""What Celery gets when the message of a call that has ended is delivered once more: its chain may still have to go on."""

import itertools

import pytest
from celery import Celery, states
from celery.app.trace import build_tracer

from lrp_celery import LrpCelery, procedure
from lrp_celery.tracking import MemoryTrackingStore, messages

numbers = itertools.count()


@pytest.fixture
def app():
    made = Celery("late", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.task_always_eager = True
    lrp = LrpCelery(made, store=MemoryTrackingStore())
    yield made
    lrp.close()


def declared(app, returned, **options):
    runs = []

    @procedure(**options)
    @app.task(name=f"late.give_{next(numbers)}")
    def give():
        runs.append(returned)
        return returned

    app.finalize()
    return give, runs


def delivered_again(give, call_id):
    """Run the message of a call; return the state that Celery sees, and the value."""
    task = give.task
    request = {"id": call_id, "task": task.name, "is_eager": True, "retries": 0, messages.OWNED: 0}
    traced = build_tracer(task.name, task, eager=True, app=task.app)(call_id, (), {}, request)
    return (states.SUCCESS if traced.info is None else traced.info.state), traced.retval


@pytest.mark.parametrize("returned", [12, None], ids=str)
def test_a_copy_of_a_call_that_succeeded_returns_what_it_returned(app, returned):
    give, runs = declared(app, returned)
    assert delivered_again(give, give.call()) == (states.SUCCESS, returned)
    assert len(runs) == 1


def test_a_copy_of_a_call_whose_result_is_not_kept_ends_quietly(app):
    give, runs = declared(app, 12, keep_result=False)
    assert delivered_again(give, give.call())[0] == states.IGNORED
    assert len(runs) == 1


@pytest.mark.parametrize("returned", [12, None], ids=str)
def test_a_copy_of_a_call_that_was_removed_ends_quietly(app, returned):
    give, runs = declared(app, returned)
    call_id = give.call()
    give.remove(call_id)
    assert delivered_again(give, call_id)[0] == states.IGNORED
    assert len(runs) == 1
