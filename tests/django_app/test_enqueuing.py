"""Rows of observed calls that are asked for: what they cost, and that they say all that the message says."""

from datetime import UTC, datetime

import pytest
from celery import Celery
from django.db import connections, transaction
from django.test import override_settings

from django_app.models import Call
from django_app.stores import DjangoTrackingStore, sessions, tables
from django_app.stores.sessions import observing_session, own_session
from lrp_celery.core.ids import new_id
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Enqueued

app = Celery("enqueuing", broker="memory://", set_as_current=False)
app.conf.task_default_queue = "enqueuing"

FACTS = CallFacts(
    task="t",
    target_summary="1, 2",
    source_instance_id="host",
    source_script="shop:buy",
    source_node="gen1@host",
    queue="q",
    owner="ada",
    root_id="root",
    parent_id="parent",
    group_id="group",
    schedule="nightly",
    rerun_of="earlier",
    due_at=datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    expires_at=datetime(2031, 1, 1, tzinfo=UTC),
)
CLOCKED = {"call_id", "enqueued_at", "updated_at", "published_at"}


@app.task(name="enqueuing.add", shared=False)
def add(a, b):
    return a + b


@pytest.fixture(scope="session", params=["default", "postgres", "mysql"])
def alias(request):
    return "default" if request.param == "default" else request.getfixturevalue(f"{request.param}_alias")


def setting(session, name):
    with session.connection().cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return cursor.fetchone()[0]


def row(alias, call_id):
    return Call.objects.using(alias).filter(pk=call_id).values().get()


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_row_that_the_one_statement_makes_says_what_any_other_says(alias):
    store = DjangoTrackingStore(alias)
    store.report(Enqueued(call_id="soon", facts=FACTS))
    # Of a replaced task, which is another turn; that one is said in full.
    store.report(Enqueued(call_id="other", facts=FACTS, turn=Turn(1, 0)))
    one, other = row(alias, "soon"), row(alias, "other")
    same = one.keys() - CLOCKED - {"status", "nesting"}
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    assert (one["target_summary"], one["due_at"], one["schedule"]) == ("1, 2", FACTS.due_at, "nightly")
    assert (one["status"], one["nesting"]) == ("submitted", 0)
    assert one["published_at"] is not None
    assert not store.report(Enqueued(call_id="soon", facts=CallFacts(task="u"))), "the first one stands"
    assert row(alias, "soon")["task"] == "t"


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_only_what_is_observed_does_not_wait_for_the_disk(postgres_alias, monkeypatch):
    monkeypatch.setattr(sessions, "under_test", lambda: False)
    observing, owning = observing_session(postgres_alias), own_session(postgres_alias)
    with override_settings(LRP_CELERY={"DATABASE": postgres_alias}):
        add.delay(1, 2)
    try:
        with connections[postgres_alias].cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            usual = cursor.fetchone()[0]
        assert setting(observing, "synchronous_commit") == "off"
        assert setting(owning, "synchronous_commit") == usual
        assert "lrp_celery_statements" in vars(observing.connection()), "and that is where the row came from"
    finally:
        observing.close()
        owning.close()


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_row_of_an_id_that_was_just_made_is_inserted_without_asking_and_stands_all_the_same(alias, monkeypatch):
    said = []
    honest = tables.execute
    monkeypatch.setattr(tables, "execute", lambda *given: said.append(given[1]) or honest(*given))
    store = DjangoTrackingStore(alias)
    fresh, given = new_id(), "of-somebody"
    first = [store.report(Enqueued(call_id=each, facts=FACTS)) for each in (fresh, given)]
    assert first == [True, True]
    asks = {"sqlite": [True, True], "postgresql": [False, True], "mysql": [False, False]}
    assert ["ON CONFLICT" in each for each in said] == asks[connections[alias].vendor]
    again = [store.report(Enqueued(call_id=each, facts=CallFacts(task="u"))) for each in (fresh, given)]
    assert again == [False, False]
    with transaction.atomic(using=alias):
        assert not store.report(Enqueued(call_id=fresh, facts=FACTS))
        assert row(alias, fresh)["task"] == "t", "and the transaction goes on"


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_of_many_fresh_ids_those_that_have_a_row_after_all_keep_it(alias):
    store = DjangoTrackingStore(alias)
    ids = [new_id() for _ in range(3)]
    store.report(Enqueued(call_id=ids[1], facts=FACTS))
    store.enqueue_all([Enqueued(call_id=each, facts=CallFacts(task="u")) for each in ids])
    assert [row(alias, each)["task"] for each in ids] == ["u", "t", "u"]
