"""Over whose connection a report travels, and that no test of a user's leaves anything behind."""

import asyncio
import unittest

import pytest
from asgiref.sync import async_to_sync
from celery import Celery
from celery.app.trace import build_tracer
from django.db import connection, connections, transaction
from django.test import TestCase, TransactionTestCase, override_settings

from django_app.models import Attempt, Call
from lrp_celery import CallStatus, calls
from lrp_celery.tracking import messages
from lrp_celery.tracking.recorder import losses

wired = Celery("wired", broker="memory://", backend="cache+memory://", set_as_current=False)
wired.conf.task_default_queue = "wired"


@wired.task(name="wired.add", shared=False)
def add(a, b):
    return a + b


@wired.task(name="wired.fail", shared=False)
def fail():
    raise ValueError("no")


@wired.task(name="wired.retry", bind=True, max_retries=1, shared=False)
def retry(self):
    raise self.retry(exc=KeyError("k"), countdown=0)


@pytest.fixture
def app():
    return wired


@pytest.fixture
def eager(app):
    app.conf.task_always_eager = True
    yield app
    app.conf.task_always_eager = False


def run(case, *methods):
    result = unittest.TestResult()
    unittest.TestSuite(case(method) for method in methods).run(result)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, "\n".join(problems)
    assert result.testsRun == len(methods)


@pytest.mark.django_db(transaction=True)
def test_a_users_testcase_sees_its_calls_and_leaves_none_behind(app, eager):
    class UsersTests(TestCase):
        def test_eager(self):
            result = app.tasks["wired.add"].delay(1, 2)
            assert calls.get(result.id).status is CallStatus.SUCCEEDED

        def test_published(self):
            app.conf.task_always_eager = False
            result = app.tasks["wired.add"].delay(1, 2)
            assert Call.objects.get(pk=result.id).status == "submitted"

        def test_others_see_nothing_yet(self):
            app.tasks["wired.fail"].delay()
            assert Call.objects.count() == 1

    run(UsersTests, "test_eager", "test_published", "test_others_see_nothing_yet")
    assert not Call.objects.exists()
    assert not Attempt.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_transaction_testcase_flushes_them_like_any_row(app):
    class UsersTests(TransactionTestCase):
        def test_published(self):
            with transaction.atomic():
                result = app.tasks["wired.add"].delay(1, 2)
            assert Call.objects.get(pk=result.id).status == "submitted"

    run(UsersTests, "test_published")


@pytest.mark.django_db(transaction=True)
def test_an_eager_call_belongs_to_its_callers_transaction(eager):
    with transaction.atomic():
        eager.tasks["wired.add"].delay(1, 2)
        assert Call.objects.count() == 1
        transaction.set_rollback(True)
    assert not Call.objects.exists()


@pytest.mark.django_db
def test_eager_calls_tell_what_became_of_them(eager):
    failed = calls.get(eager.tasks["wired.fail"].delay().id)
    assert (failed.status, failed.error_type, failed.last_error) == (CallStatus.FAILED, "ValueError", "no")
    parked = calls.get(eager.tasks["wired.retry"].delay().id)
    assert (parked.status, parked.reason, parked.retries) == (CallStatus.PARKED, "max_retries", 1)


@pytest.mark.django_db
def test_a_poisoned_transaction_harms_neither_task_nor_caller(eager):
    lost = losses.counts().get("report", 0)
    with transaction.atomic():
        transaction.set_rollback(True)
        assert eager.tasks["wired.add"].delay(1, 2).get() == 3
    assert losses.counts()["report"] > lost
    assert not Call.objects.exists()


@pytest.mark.django_db
def test_a_fault_of_ours_does_not_poison_the_callers_transaction(eager, monkeypatch):
    from django_app.stores import rows

    honest = rows.calls.insertion
    monkeypatch.setattr(
        rows.calls, "insertion", lambda connection, values: honest(connection, {**values, "task": None})
    )
    with transaction.atomic():
        assert eager.tasks["wired.add"].delay(1, 2).get() == 3
        assert not Call.objects.exists(), "and the connection still works"


@pytest.mark.django_db
def test_track_and_exclude_choose_by_pattern(eager):
    with override_settings(LRP_CELERY={"TRACK": ["wired.*"], "EXCLUDE": ["*.fail"]}):
        tracked = eager.tasks["wired.add"].delay(1, 2)
        excluded = eager.tasks["wired.fail"].delay()
    assert calls.get(tracked.id) is not None
    assert calls.get(excluded.id) is None


@pytest.mark.django_db
def test_a_worker_that_knows_no_procedure_of_that_name_watches_as_ever(eager):
    # The message was sent by one that knows it; its row is gone.
    def run(name, args):
        task = eager.tasks[name]
        request = {"id": name, "task": name, "args": args, "is_eager": True, "retries": 0, messages.OWNED: 0}
        build_tracer(name, task, eager=True, app=eager)(name, args, {}, request)

    with override_settings(LRP_CELERY={"EXCLUDE": ["*.fail"]}):
        run("wired.add", (1, 2))
        run("wired.fail", ())
    assert "1, 2" in calls.get("wired.add").target_summary
    assert calls.get("wired.fail") is None


@pytest.mark.django_db(transaction=True)
def test_a_call_from_an_event_loop_is_recorded(app):
    async def view():
        return app.tasks["wired.add"].delay(1, 2).id

    call_id = asyncio.run(view())
    assert calls.get(call_id).status is CallStatus.SUBMITTED


@pytest.mark.django_db
def test_a_testcase_that_calls_eagerly_from_an_event_loop_leaves_nothing_behind(eager):
    lost = losses.counts().get("report from an event loop under test", 0)

    async def view():
        return eager.tasks["wired.add"].delay(1, 2).get()

    assert asyncio.run(view()) == 3
    assert losses.counts()["report from an event loop under test"] > lost
    assert not Call.objects.exists()


@pytest.mark.django_db
def test_calls_are_read_from_async_code(eager):
    call_id = eager.tasks["wired.add"].delay(1, 2).id
    assert async_to_sync(calls.aget)(call_id).status is CallStatus.SUCCEEDED


@pytest.mark.django_db
def test_a_wrong_setting_costs_the_tracking_and_not_the_task(eager):
    with override_settings(LRP_CELERY={"NONSENSE": 1}):
        assert eager.tasks["wired.add"].delay(1, 2).get() == 3
    assert not Call.objects.exists()
    assert connection.in_atomic_block
    assert connections["default"].is_usable()
