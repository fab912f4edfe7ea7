"""What people do to calls is kept, whatever becomes of their transactions."""

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction

from django_app.models import ActionLog, Call
from django_app.stores import DjangoTrackingStore
from lrp_celery import CallPending, calls

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def no_broker(monkeypatch):
    from lrp_celery.procedures import stopping

    revoked = []
    monkeypatch.setattr(stopping, "revoke", lambda app, runtime, call_id, **kwargs: revoked.append(call_id))
    return revoked


def log():
    return list(ActionLog.objects.order_by("id").values_list("deed", "call_id", "by", "reason", "outcome"))


def test_each_action_leaves_a_line_with_its_author(no_broker):
    ada = get_user_model().objects.create(username="ada")
    DjangoTrackingStore().record_enqueue("x", "t")
    calls.abort("x", reason="wrong \x00month", by=ada)
    with pytest.raises(CallPending):
        calls.remove("x", by=ada)
    DjangoTrackingStore().record_terminal("x", "failed")
    calls.remove("x", by="a script")
    assert log() == [
        ("abort", "x", "ada", "wrong month", "asked to end"),
        ("remove", "x", "a script", None, "removed"),
    ]
    assert no_broker == ["x"]
    assert ActionLog.objects.latest("at").at is not None
    Call.objects.all().delete()
    assert ActionLog.objects.count() == 2


def test_an_abort_counts_although_the_caller_rolls_back(no_broker):
    DjangoTrackingStore().record_enqueue("x", "t")
    with transaction.atomic():
        calls.abort("x", by="ada")
        writes_at_once = ActionLog.objects.count()
        transaction.set_rollback(True)
    is_kept = Call.objects.get(pk="x").abort_requested_at is not None
    # SQLite has one writer: there it is the caller's transaction that decides, about both.
    assert is_kept == bool(writes_at_once) == bool(log()) == bool(no_broker)
    from django.db import connection

    assert is_kept == (connection.vendor != "sqlite")


def test_a_removal_belongs_to_the_callers_transaction(no_broker):
    DjangoTrackingStore().record_enqueue("x", "t")
    DjangoTrackingStore().record_terminal("x", "failed")
    with transaction.atomic():
        calls.remove("x")
        transaction.set_rollback(True)
    assert (calls.get("x") is not None, log()) == (True, [])
    with transaction.atomic():
        calls.remove("x")
    assert (calls.get("x"), len(log())) == (None, 1)


def test_a_log_that_cannot_be_written_harms_nothing(no_broker, monkeypatch, caplog):
    from django.db import DatabaseError

    from django_app.stores import actions

    def fail(*_, **__):
        raise DatabaseError("no such table")

    monkeypatch.setattr(actions._actions, "insert", fail)
    DjangoTrackingStore().record_enqueue("x", "t")
    calls.abort("x")
    assert Call.objects.get(pk="x").abort_requested_at is not None
    assert "It is not recorded that" in caplog.text


@pytest.mark.django_db(transaction=False)
def test_in_a_test_case_it_is_written_where_the_test_sees_it(no_broker, db):
    DjangoTrackingStore().record_enqueue("x", "t")
    calls.abort("x", by="ada")
    assert [line[:3] for line in log()] == [("abort", "x", "ada")]
