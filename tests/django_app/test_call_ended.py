"""`call_ended`: whoever listens is told of every call that has ended, at least once, and after the commit."""

import functools
import logging
import threading
import time
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from celery import Celery
from django.core.management import call_command
from django.db import connections, transaction
from django.test import TestCase, override_settings
from django.utils import timezone

from django_app.models import Call
from django_app.signals import call_ended
from django_app.stores import DjangoTrackingStore, telling
from django_app.stores.sessions import OwnSession
from lrp_celery import calls, procedure
from lrp_celery.core.ids import new_id
from lrp_celery.procedures.telling import Telling, tell_all
from lrp_celery.tracking.callstore import Known
from lrp_celery.tracking.items import Put
from lrp_celery.tracking.owned import AbortRequest, Delivery, Order, Settlement, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Ended, Enqueued, ErrorFacts, NotRun, Outcome, RunFacts, Started, Told
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.status import CallStatus, Reason
from tests.integration.harness import eventually

FACTS = CallFacts(task="t", queue="q", target_summary="(1)")
RUN = RunFacts(token="run", worker="w@h", pid=7)
DONE = Outcome(status=CallStatus.SUCCEEDED)
#: Seconds.
WITHIN = 60
FAILURE = Outcome(status=CallStatus.FAILED, error=ErrorFacts(type="shop.Broken", message="no"))

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.services) for name in ("postgres", "mysql"))])
def alias(request):
    name = request.getfixturevalue(f"{request.param}_alias")
    Call.objects.using(name).all().delete()
    return name


@pytest.fixture
def store(alias):
    """As workers and their side processes have it: on a connection of its own."""
    return DjangoTrackingStore(session=OwnSession(alias))


@pytest.fixture
def heard():
    """What a receiver was told, in order; it does besides what is put into `heard.then`."""

    class Heard(list):
        then = staticmethod(lambda _: None)

        @property
        def ids(self):
            return [snapshot.call_id for snapshot in self]

    heard = Heard()

    def receiver(sender, snapshot, **_):
        assert sender is Call
        heard.append(snapshot)
        heard.then(snapshot)

    call_ended.connect(receiver)
    yield heard
    call_ended.disconnect(receiver)


def made(store, **terms):
    call_id = new_id()
    store.insert(Order(call_id=call_id, facts=FACTS, terms=Terms(app="a", **terms), message="{}"))
    return call_id


def ended(store, outcome=DONE, **terms):
    call_id = made(store, **terms)
    delivery = Delivery(call_id=call_id, turn=Turn(), generation=0, facts=FACTS, terms=Terms(app="a"), run=RUN)
    store.claim(delivery)
    assert store.settle(call_id, "run", Settlement(outcome=outcome)) is not None
    return call_id


def observed(call_id=None):
    call_id = call_id or new_id()
    given = {"call_id": call_id, "turn": Turn(), "facts": FACTS}
    run = replace(RUN, started_at=timezone.now())
    return [Enqueued(**given), Started(**given, run=run), Ended(**given, run=run, outcome=DONE)]


def marked(alias):
    return Call.objects.using(alias).exclude(tell_at=None).count()


def due_again(alias):
    """Let the time pass after which others tell of what somebody has taken."""
    Call.objects.using(alias).exclude(tell_at=None).update(tell_at=timezone.now() - timedelta(seconds=1))


def test_whoever_listens_is_told_once_how_a_call_ended(store, alias, heard):
    call_id = ended(store, FAILURE)
    assert heard == []
    assert [store.tell_next(), store.tell_next()] == [True, False]
    (snapshot,) = heard
    assert isinstance(snapshot, CallSnapshot)
    assert (snapshot.call_id, snapshot.task, snapshot.status) == (call_id, "t", CallStatus.FAILED)
    assert (snapshot.error_type, snapshot.target_summary) == ("shop.Broken", "(1)")
    assert marked(alias) == 0


@pytest.mark.parametrize("number", [1, 30])
def test_of_observed_calls_too_whether_one_is_reported_or_many(store, heard, number):
    stories = [observed() for _ in range(number)]
    for story in stories:
        store.report(story[0])
    store.report_many([Told(report) for story in stories for report in story[1:]])
    tell_all(store, WITHIN)
    assert sorted(heard.ids) == sorted(story[0].call_id for story in stories)


def test_of_calls_whose_first_news_is_their_end(store, heard):
    given = {"call_id": new_id(), "turn": Turn(), "facts": FACTS}
    store.report(NotRun(**given, outcome=Outcome(status=CallStatus.DISCARDED, reason=Reason.REVOKED)))
    tell_all(store, WITHIN)
    assert [(snapshot.call_id, snapshot.reason) for snapshot in heard] == [(given["call_id"], Reason.REVOKED)]


def test_what_goes_on_is_not_told_of_and_a_run_after_the_end_is_no_second_end(store, heard):
    made(store)
    story = observed()
    for report in story:
        store.report(report)
    tell_all(store, WITHIN)
    late = RunFacts(token="zzz", worker="w@h", pid=8)
    store.report(Started(call_id=story[0].call_id, turn=Turn(), facts=FACTS, run=late))
    store.report(Ended(call_id=story[0].call_id, turn=Turn(), facts=FACTS, run=late, outcome=FAILURE))
    tell_all(store, WITHIN)
    assert heard.ids == [story[0].call_id]


def test_where_nobody_listens_nothing_is_marked_and_nothing_read(store, alias, django_assert_num_queries):
    ended(store)
    assert marked(alias) == 0
    with django_assert_num_queries(0, using=alias):
        assert store.tell_next() is False


def test_two_who_tell_at_once_tell_of_each_call_once(store, alias, heard):
    expected = sorted(ended(store) for _ in range(60))
    both = threading.Barrier(2)

    def tell():
        both.wait(10)
        tell_all(DjangoTrackingStore(session=OwnSession(alias)), WITHIN)

    threads = [threading.Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # SQLite has one writer: of two one may have gone home.
    tell_all(store, WITHIN)
    assert sorted(heard.ids) == expected


def test_what_somebody_died_of_while_he_told_it_others_tell_once_more(store, alias, heard):
    call_id = ended(store)

    def die(_):
        raise SystemExit

    heard.then = die
    with pytest.raises(SystemExit):
        store.tell_next()
    heard.then = lambda _: None
    assert store.tell_next() is False, "for a minute it is left to whoever has begun"
    due_again(alias)
    assert store.tell_next() is True
    assert heard.ids == [call_id, call_id]
    assert marked(alias) == 0


def test_what_a_receiver_raises_is_logged_and_keeps_nobody_from_hearing_the_rest(store, alias, heard, caplog):
    expected = [ended(store), ended(store)]

    def fail(_):
        raise RuntimeError("no receiver is perfect")

    heard.then = fail
    others = []
    also = lambda snapshot, **_: others.append(snapshot.call_id)  # noqa: E731
    call_ended.connect(also)
    try:
        with caplog.at_level(logging.ERROR):
            tell_all(store, WITHIN)
    finally:
        call_ended.disconnect(also)
    assert sorted(heard.ids) == sorted(others) == sorted(expected)
    assert "no receiver is perfect" in caplog.text
    assert marked(alias) == 0


def test_a_receiver_may_write_the_row_of_the_call_it_is_told_of(store, alias, heard):
    handled, removed = ended(store, FAILURE), ended(store)
    own = DjangoTrackingStore(session=OwnSession(alias))

    def act(snapshot):
        own.handle(snapshot.call_id) if snapshot.call_id == handled else own.remove(snapshot.call_id)

    heard.then = act
    tell_all(store, WITHIN)
    assert sorted(heard.ids) == sorted([handled, removed])
    assert store.look(handled).handled_at is not None
    assert store.look(removed) is None
    assert marked(alias) == 0


def test_a_call_that_was_removed_meanwhile_is_told_of_without_what_was_blotted_out(store, heard):
    call_id = ended(store)
    store.remove(call_id)
    tell_all(store, WITHIN)
    assert [(snapshot.call_id, snapshot.status, snapshot.target_summary) for snapshot in heard] == [
        (call_id, CallStatus.SUCCEEDED, None)
    ]


def test_an_id_that_is_given_to_a_new_call_is_told_of_by_that(store, heard):
    call_id = ended(store)
    store.remove(call_id)
    store.insert(Order(call_id=call_id, facts=FACTS, terms=Terms(app="a"), message="{}"))
    tell_all(store, WITHIN)
    assert heard == []
    store.request_abort(call_id, AbortRequest(reason="no"))
    tell_all(store, WITHIN)
    assert [snapshot.status for snapshot in heard] == [CallStatus.ABORTED]


def test_an_end_that_comes_while_an_earlier_one_is_told_is_told_of_too(store, alias, heard):
    call_id = ended(store)
    own = DjangoTrackingStore(session=OwnSession(alias))

    def end_anew(_):
        heard.then = lambda _: None
        own.remove(call_id)
        own.insert(Order(call_id=call_id, facts=FACTS, terms=Terms(app="a"), message="{}"))
        own.request_abort(call_id, AbortRequest(reason="no"))

    heard.then = end_anew
    tell_all(store, WITHIN)
    tell_all(store, WITHIN)
    assert [snapshot.status for snapshot in heard] == [CallStatus.SUCCEEDED, CallStatus.ABORTED]


def test_what_a_store_of_values_is_given_is_told_of_as_any_call(store, heard):
    call_id = new_id()
    store.put(Put(call_id=call_id, task="t", app="a", settlement=Settlement(outcome=DONE, result="1"), live=None))
    tell_all(store, WITHIN)
    assert heard.ids == [call_id]


def test_an_end_in_somebodys_transaction_is_told_of_by_him_and_only_after_the_commit(alias, heard):
    store = DjangoTrackingStore(alias)
    with transaction.atomic(using=alias):
        call_id = ended(store)
        assert heard == []
    assert heard.ids == [call_id]
    assert marked(alias) == 0


def test_an_end_that_is_rolled_back_is_told_to_nobody(alias, store, heard):
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
        ended(DjangoTrackingStore(alias))
        raise ZeroDivisionError
    tell_all(store, WITHIN)
    assert heard == []


# SQLite has one writer: who told at once would wait for whoever has not committed.
@pytest.mark.services
@pytest.mark.parametrize("alias", ["postgres", "mysql"], indirect=True)
def test_an_end_in_a_transaction_that_tells_nobody_of_its_commit_is_left_to_others(alias, store, heard):
    connection = connections[alias]
    connection.set_autocommit(False)
    try:
        call_id = ended(DjangoTrackingStore(alias))
        connection.commit()
    finally:
        connection.set_autocommit(True)
    assert heard == []
    tell_all(store, WITHIN)
    assert heard.ids == [call_id]


def test_the_thread_of_a_side_process_tells_and_outlives_whatever_is_raised(alias, store, heard, monkeypatch):
    first, calls_made = threading.Event(), []

    def breaks_once(self):
        calls_made.append(True)
        if len(calls_made) == 1:
            first.set()
            raise SystemExit
        return DjangoTrackingStore.tell_next(self)

    class Brittle(DjangoTrackingStore):
        tell_next = breaks_once

    teller = Telling(Brittle(session=OwnSession(alias)))
    teller.start()
    assert first.wait(10)
    call_id = ended(store)
    eventually("it is told", lambda: heard.ids == [call_id], 10)
    last = ended(store)
    teller.finish(10)
    assert heard.ids == [call_id, last]


def test_whoever_commits_an_end_tells_of_it_though_it_is_dated_a_little_ahead(alias, heard):
    store = DjangoTrackingStore(alias)
    call_id = made(store)
    delivery = Delivery(call_id=call_id, turn=Turn(), generation=0, facts=FACTS, terms=Terms(app="a"), run=RUN)
    # As if it had taken long to claim it: the time of its end is reckoned from when that was asked for.
    known = Known.by(store.claim(delivery), time.monotonic() - 5)
    assert store.settle(call_id, "run", Settlement(outcome=DONE), known).terminal_at > timezone.now()
    assert heard.ids == [call_id]


def test_what_goes_wrong_with_the_telling_harms_neither_the_commit_nor_what_follows_it(
    alias, store, heard, monkeypatch
):
    monkeypatch.setattr(telling, "take_one", lambda *_: 1 / 0)
    followed = []
    with transaction.atomic(using=alias):
        call_id = ended(DjangoTrackingStore(alias))
        transaction.on_commit(lambda: followed.append(True), using=alias)
    assert followed == [True]
    assert heard == []
    tell_all(store, WITHIN)
    assert heard.ids == [call_id]


def test_what_is_put_over_something_that_has_ended_is_a_new_end(alias, heard):
    store, call_id = DjangoTrackingStore(alias), new_id()
    for value in "12":
        settlement = Settlement(outcome=DONE, result=value)
        store.put(Put(call_id=call_id, task="t", app="a", settlement=settlement, live=None))
    assert heard.ids == [call_id, call_id]
    assert marked(alias) == 0


def test_receivers_that_take_longer_than_others_wait_are_not_called_for_ever(alias, heard, monkeypatch):
    monkeypatch.setattr(telling, "_LEAST", timedelta(milliseconds=100))
    stores = [DjangoTrackingStore(session=OwnSession(alias)) for _ in range(2)]
    expected = sorted(ended(stores[0]) for _ in range(6))
    heard.then = lambda _: time.sleep(0.25)
    threads = [threading.Thread(target=tell_all, args=(store, WITHIN)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    tell_all(stores[0], WITHIN)
    assert marked(alias) == 0
    assert sorted(set(heard.ids)) == expected
    assert len(heard) < 5 * len(expected)


def test_a_call_over_which_everybody_dies_keeps_nobody_from_hearing_of_the_others(alias, store, heard):
    expected = [ended(store) for _ in range(5)]

    def die(snapshot):
        if snapshot.call_id == expected[1]:
            raise SystemExit

    heard.then = die
    teller = Telling(store)
    teller.start()
    eventually("all are told of", lambda: sorted(heard.ids) == sorted(expected), WITHIN)
    teller.finish(WITHIN)
    assert list(Call.objects.using(alias).exclude(tell_at=None).values_list("pk", flat=True)) == [expected[1]]


def test_a_call_that_was_tried_in_vain_is_tried_less_and_less_often(alias, store, heard):
    call_id = ended(store)
    row = Call.objects.using(alias).filter(pk=call_id)

    def die(_):
        raise SystemExit

    heard.then = die
    for age, expected in ((0, 60), (10, 600), (24 * 60, 3600)):
        row.update(terminal_at=timezone.now() - timedelta(minutes=age), tell_at=timezone.now() - timedelta(seconds=1))
        with pytest.raises(SystemExit):
            store.tell_next()
        assert (row.get().tell_at - timezone.now()).total_seconds() == pytest.approx(expected, abs=10)


def test_a_receiver_that_hangs_keeps_nobody_from_hearing_of_other_calls(alias, store, heard, caplog):
    first, released = ended(store), threading.Event()
    heard.then = lambda snapshot: released.wait(WITHIN) if snapshot.call_id == first else None
    teller = Telling(store, longest=0.3)
    teller.start()

    def others_are_told():
        teller.look()
        return second in heard.ids

    try:
        eventually("the first is being told of", lambda: heard.ids == [first], WITHIN)
        second = ended(store)
        eventually("the second is told of, too", others_are_told, WITHIN)
        assert "has not returned" in caplog.text
    finally:
        released.set()
        teller.finish(WITHIN)
    eventually("both are told for good", lambda: marked(alias) == 0, WITHIN)


def test_a_side_process_that_ends_tells_of_no_further_call_and_of_none_twice(alias, store, heard):
    expected = {ended(store) for _ in range(20)}
    begun, go_on = threading.Event(), threading.Event()

    def wait(_):
        begun.set()
        go_on.wait(WITHIN)

    heard.then = wait
    teller = Telling(store)
    teller.start()
    assert begun.wait(WITHIN)
    teller.finish(0.01)
    go_on.set()
    eventually("the last one is noted", lambda: marked(alias) == 19, WITHIN)
    heard.then = lambda _: None
    due_again(alias)
    tell_all(store, WITHIN)
    assert sorted(heard.ids) == sorted(expected)


@pytest.mark.services
@pytest.mark.parametrize("alias", ["postgres", "mysql"], indirect=True)
def test_a_row_that_somebody_holds_keeps_nobody_from_hearing_of_the_others(alias, store, heard):
    expected = [ended(store) for _ in range(10)]
    with transaction.atomic(using=alias):
        Call.objects.using(alias).select_for_update().get(pk=expected[0])
        tell_all(store, WITHIN)
        assert sorted(heard.ids) == sorted(expected[1:])
        assert marked(alias) == 1
    tell_all(store, WITHIN)
    assert sorted(heard.ids) == sorted(expected)


@pytest.mark.services
@pytest.mark.parametrize("alias", ["postgres", "mysql"], indirect=True)
def test_a_row_that_somebody_holds_while_it_is_told_of_is_not_told_of_again_for_that(alias, store, heard, caplog):
    call_id = ended(store)
    with caplog.at_level(logging.INFO, "lrp_celery.telling"), transaction.atomic(using=alias):

        def hold(_):
            # By another connection than that on which it is told, and noted.
            Call.objects.using(alias).select_for_update().get(pk=call_id)

        holder = threading.Thread(target=tell_all, args=(store, WITHIN))
        held = threading.Event()
        heard.then = lambda _: held.wait(WITHIN)
        holder.start()
        eventually("it is being told of", lambda: heard.ids == [call_id], WITHIN)
        hold(None)
        held.set()
        eventually("it could not be noted", lambda: "is not noted yet" in caplog.text, WITHIN)
    holder.join(WITHIN)
    assert marked(alias) == 0
    assert heard.ids == [call_id]


@pytest.mark.services
@pytest.mark.parametrize("alias", ["postgres", "mysql"], indirect=True)
def test_a_connection_that_a_receiver_has_lost_is_a_new_one_for_the_next_call(alias, store, heard, monkeypatch):
    monkeypatch.setattr("django_app.surroundings.under_test", lambda: False)
    for _ in range(3):
        ended(store)
    worked = []

    def use(snapshot):
        cursor = connections[alias].cursor()
        cursor.execute("SELECT 1")
        worked.append(snapshot.call_id)
        is_mysql = connections[alias].vendor == "mysql"
        cursor.execute("KILL CONNECTION_ID()" if is_mysql else "SELECT pg_terminate_backend(pg_backend_pid())")

    def tell():
        heard.then = use
        tell_all(store, WITHIN)
        connections.close_all()

    thread = threading.Thread(target=tell)
    thread.start()
    thread.join(WITHIN)
    assert worked == heard.ids
    assert len(worked) == 3


def test_a_row_that_is_open_again_is_not_told_of_whatever_an_earlier_release_left_there(alias, store, heard):
    call_id = made(store)
    Call.objects.using(alias).filter(pk=call_id).update(tell_at=timezone.now() - timedelta(seconds=1))
    tell_all(store, WITHIN)
    assert heard == []
    assert marked(alias) == 0


def test_a_receiver_without_a_name_may_fail_like_any_other(store, alias, caplog):
    failing = functools.partial(lambda **_: 1 / 0)
    call_ended.connect(failing)
    try:
        ended(store)
        tell_all(store, WITHIN)
    finally:
        call_ended.disconnect(failing)
    assert "ZeroDivisionError" in caplog.text
    assert marked(alias) == 0


def test_the_command_for_where_no_worker_is_up_tells_too(sqlite_alias, heard):
    with override_settings(LRP_CELERY={"DATABASE": sqlite_alias}):
        call_id = ended(DjangoTrackingStore(session=OwnSession(sqlite_alias)))
        Celery("relayed", broker="memory://", set_as_current=True)
        call_command("lrp_relay", stdout=StringIO())
    assert heard.ids == [call_id]


def test_a_call_that_runs_eagerly_is_told_of_by_its_caller(heard, sqlite_alias):
    app = Celery("eager", broker="memory://", set_as_current=True)
    app.conf.task_always_eager = True

    @procedure
    @app.task(name="ended.double")
    def double(number: int) -> int:
        return number * 2

    @app.task(name="ended.plain")
    def plain() -> None:
        pass

    with override_settings(LRP_CELERY={"DATABASE": sqlite_alias}):
        owned = double.call(4)
        plain.delay()
        assert sorted(snapshot.task for snapshot in heard) == ["ended.double", "ended.plain"]
        assert owned in heard.ids
        calls.remove(owned)


class InATestCase(TestCase):
    """As users test: nothing is committed, so they are told by `captureOnCommitCallbacks(execute=True)`."""

    databases = "__all__"

    def test_the_callback_of_the_commit_tells(self):
        told = []
        receiver = lambda snapshot, **_: told.append(snapshot.status)  # noqa: E731
        call_ended.connect(receiver)
        self.addCleanup(call_ended.disconnect, receiver)
        with self.captureOnCommitCallbacks(execute=True):
            ended(DjangoTrackingStore("default"))
            assert told == []
        assert told == [CallStatus.SUCCEEDED]


@pytest.mark.services
def test_postgresql_finds_what_is_to_be_told_by_its_index_though_it_knows_nothing_of_the_table(postgres_alias, heard):
    store = DjangoTrackingStore(session=OwnSession(postgres_alias))
    now = timezone.now()
    given = {"task": "t", "status": "succeeded", "enqueued_at": now, "updated_at": now, "terminal_at": now}
    Call.objects.using(postgres_alias).bulk_create([Call(call_id=new_id(), **given) for _ in range(3000)])
    ended(store)
    with connections[postgres_alias].cursor() as cursor:
        cursor.execute(f"EXPLAIN SELECT call_id FROM lrp_celery_call WHERE {telling._FIRST}", [timezone.now()])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert telling._INDEX in plan
