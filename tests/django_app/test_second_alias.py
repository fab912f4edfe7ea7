"""DATABASE may name another alias: calls are kept there, the rest of the project stays where it is."""

import pytest
from celery import Celery
from django.db import transaction
from django.test import override_settings

from django_app.models import Call
from django_app.purge import purge
from lrp_celery import CallStatus, calls

elsewhere = Celery("elsewhere", broker="memory://", backend="cache+memory://", set_as_current=False)
elsewhere.conf.task_default_queue = "elsewhere"


@elsewhere.task(name="elsewhere.add", shared=False)
def add(a, b):
    return a + b


@pytest.fixture
def chosen(sqlite_alias):
    with override_settings(LRP_CELERY={"DATABASE": sqlite_alias}):
        yield sqlite_alias


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_published_call_is_kept_on_the_chosen_database_only(chosen):
    result = add.delay(1, 2)
    assert calls.get(result.id).status is CallStatus.SUBMITTED
    assert not Call.objects.using("default").exists()


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_rollback_elsewhere_does_not_concern_it(chosen):
    with transaction.atomic(using="default"):
        result = add.delay(1, 2)
        transaction.set_rollback(True, using="default")
    assert calls.get(result.id) is not None


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_an_eager_call_and_the_purge_go_there_too(chosen):
    elsewhere.conf.task_always_eager = True
    try:
        result = add.delay(1, 2)
    finally:
        elsewhere.conf.task_always_eager = False
    assert calls.get(result.id).status is CallStatus.SUCCEEDED
    Call.objects.using(chosen).update(terminal_at="2020-01-01T00:00Z")
    assert purge().calls == 1
    assert calls.get(result.id) is None


@pytest.mark.django_db(databases="__all__")
def test_a_testcase_on_both_leaves_nothing_behind(chosen):
    add.delay(1, 2)
    assert Call.objects.using(chosen).count() == 1
    assert not Call.objects.using("default").exists()
