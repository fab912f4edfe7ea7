"""The hourly counts: each call that has ended is counted once, whoever tells of it, counts it or deletes it."""

import random
import threading
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.db.models import Sum
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_app.conf import options
from django_app.histogram import ERROR, Histogram
from django_app.lengths import Ended as EndedCall
from django_app.models import Call, HourlyRollup
from django_app.purge import purge, purge_older_than
from django_app.rollup import Counted, roll_up
from django_app.stores import DjangoTrackingStore, counting, summing
from django_app.stores.sessions import OwnSession
from django_app.stores.sums import Key
from lrp_celery.core.errors import ConfigurationError, StoreError
from lrp_celery.core.ids import new_id
from lrp_celery.core.values import replace
from lrp_celery.tracking.owned import Delivery, Order, Settlement, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Ended, Enqueued, ErrorFacts, NotRun, Outcome, RunFacts, Started, Told
from lrp_celery.tracking.status import CallStatus

HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
FACTS = CallFacts(task="t", queue="q", target_summary="(1)")
RUN = RunFacts(token="run", worker="w@h", pid=7)
DONE = Outcome(status=CallStatus.SUCCEEDED)
FAILURE = Outcome(status=CallStatus.FAILED, error=ErrorFacts(type="shop.Broken", message="no"))
NOON = (datetime.now(UTC) - 2 * DAY).replace(hour=12, minute=0, second=0, microsecond=0)

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.services) for name in ("postgres", "mysql"))])
def alias(request):
    name = request.getfixturevalue(f"{request.param}_alias")
    # What the first test leaves on an alias that is made for it, nobody clears.
    for model in (Call, HourlyRollup):
        model.objects.using(name).all().delete()
    return name


@pytest.fixture
def store(alias):
    return DjangoTrackingStore(alias)


def add(alias, terminal_at=NOON, status="succeeded", *, wait=SECOND, run=2 * SECOND, **more):
    """A call that has ended, as a row of the time before there were counts."""
    started_at = terminal_at - run
    known = {
        "call_id": new_id(),
        "task": "t",
        "status": status,
        "attempt": 1,
        "run": "run",
        "enqueued_at": started_at - wait,
        "started_at": started_at,
        "updated_at": terminal_at,
        "terminal_at": terminal_at,
        **more,
    }
    return Call.objects.using(alias).create(**known)


def hours(alias):
    """What is counted: (hour, task, status, error) -> number."""
    found = HourlyRollup.objects.using(alias).values_list("hour", "task", "status", "error_type", "calls")
    return {tuple(key): calls for *key, calls in found}


def total(alias):
    return HourlyRollup.objects.using(alias).aggregate(Sum("calls"))["calls__sum"] or 0


def alias_of(store):
    return store._session.alias


def sums(alias):
    """All that is counted, in their order: (key, calls, waits, runs)."""
    found = HourlyRollup.objects.using(alias).order_by("pk").values_list("pk", "calls", "waits", "runs")
    return [(key, calls, *map(Histogram.from_json, both)) for key, calls, *both in found]


def hour_of(instant):
    return instant.replace(minute=0, second=0, microsecond=0)


# --- what is counted


def test_calls_are_counted_by_the_hour_they_ended_in_by_task_outcome_and_error(alias):
    add(alias, NOON), add(alias, NOON + 59 * timedelta(minutes=1)), add(alias, NOON - timedelta(microseconds=1))
    add(alias, NOON, task="T"), add(alias, NOON, "failed", error_type="E"), add(alias, NOON, "parked", error_type="F")
    add(alias, NOON, "aborted", error_type="not of a failure"), add(alias, NOON, "failed")
    add(alias, NOON, "discarded", attempt=0, run=SECOND, started_at=None)
    Call.objects.using(alias).create(call_id="open", task="t", status="started", enqueued_at=NOON, updated_at=NOON)
    assert roll_up(using=alias) == Counted(calls=9, complete=True)
    assert hours(alias) == {
        (NOON, "t", "succeeded", ""): 2,
        (NOON - HOUR, "t", "succeeded", ""): 1,
        (NOON, "T", "succeeded", ""): 1,
        (NOON, "t", "failed", "E"): 1,
        (NOON, "t", "failed", ""): 1,
        (NOON, "t", "parked", "F"): 1,
        (NOON, "t", "aborted", ""): 1,
        (NOON, "t", "discarded", ""): 1,
    }


def test_waits_and_runs_are_kept_so_that_their_percentiles_can_be_told(alias):
    for number in range(1, 101):
        add(alias, wait=number * SECOND, run=number * SECOND / 10)
    add(alias, due_at=NOON - 3 * SECOND, wait=DAY)
    roll_up(using=alias, chunk=7)
    counted = HourlyRollup.objects.using(alias).get()
    waits, runs = Histogram.from_json(counted.waits), Histogram.from_json(counted.runs)
    assert (waits.number, runs.number) == (101, 101)
    assert abs(waits.quantile(0.5) / (50 * SECOND) - 1) <= ERROR
    assert abs(runs.quantile(0.95) / (9.5 * SECOND) - 1) <= ERROR
    # It waited since it was due, a second, not since it was asked for.
    assert waits.quantile(1) < 110 * SECOND


def test_a_call_that_never_ran_has_neither_waited_for_a_run_nor_taken_any(alias):
    add(alias, NOON, "discarded", attempt=0, run=SECOND, started_at=None)
    Call.objects.using(alias).update(run=None)
    roll_up(using=alias)
    counted = HourlyRollup.objects.using(alias).get()
    assert (counted.calls, counted.waits, counted.runs) == (1, "", "")


@pytest.mark.services
def test_postgresql_sums_up_as_python_does(postgres_alias, monkeypatch):
    chance = random.Random(7)

    def some(*choices):
        return chance.choice(choices)

    for _ in range(400):
        ended = NOON + chance.random() * 3 * HOUR
        started = some(None, ended - SECOND * chance.lognormvariate(0, 4), ended + SECOND)
        enqueued = (started or ended) - SECOND * some(0, chance.lognormvariate(0, 3))
        Call.objects.using(postgres_alias).create(
            call_id=new_id(),
            task=some("t", "u", "\N{SNOWMAN} '%s"),
            status=some("succeeded", "failed", "parked", "aborted", "discarded"),
            error_type=some(None, "E", "F"),
            attempt=some(0, 1, 2),
            retries=some(0, 0, 1),
            run=some(None, "run"),
            enqueued_at=enqueued,
            due_at=some(None, None, enqueued + SECOND, enqueued - SECOND),
            started_at=started,
            updated_at=ended,
            terminal_at=ended,
        )

    def counted():
        roll_up(using=postgres_alias, chunk=70)
        told = sums(postgres_alias)
        HourlyRollup.objects.using(postgres_alias).all().delete()
        Call.objects.using(postgres_alias).update(counted_at=None)
        return told

    by_sql = counted()
    monkeypatch.setattr(summing, "is_possible", lambda connection: False)
    assert counted() == by_sql
    assert sum(calls for _key, calls, *_ in by_sql) == 400


def test_hours_are_those_of_utc_whatever_zone_a_connection_tells_instants_in():
    known = dict.fromkeys(EndedCall._fields) | {"task": "t", "status": "succeeded", "attempt": 1, "retries": 0}
    keys = set()
    for zone in (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(minutes=30))):
        keys.add(Key.of(EndedCall(**{**known, "terminal_at": (NOON + 50 * SECOND).astimezone(zone)})).digest)
    assert len(keys) == 1


def test_the_hour_is_utcs_whatever_the_time_zone(alias):
    add(alias, NOON + timedelta(minutes=50))
    with override_settings(TIME_ZONE="Asia/Kolkata"):
        roll_up(using=alias)
    assert list(hours(alias)) == [(NOON, "t", "succeeded", "")]


# --- once


def test_what_is_counted_is_not_counted_again(alias):
    for _ in range(5):
        add(alias)
    assert [roll_up(using=alias).calls for _ in range(3)] == [5, 0, 0]
    add(alias)
    assert roll_up(using=alias).calls == 1
    assert hours(alias) == {(NOON, "t", "succeeded", ""): 6}


def test_counting_that_breaks_off_has_counted_nothing(alias, store, monkeypatch):
    add(alias), add(alias, task="u")

    def torn(*args):
        raise StoreError("torn")

    with monkeypatch.context() as broken:
        broken.setattr(counting, "enter", torn)
        with pytest.raises(StoreError):
            store.count_ended(10)
    assert (total(alias), Call.objects.using(alias).filter(counted_at=None).count()) == (0, 2)
    assert roll_up(using=alias).calls == 2
    assert total(alias) == 2


def enqueued(store, number, task="t"):
    calls = [new_id() for _ in range(number)]
    for call_id in calls:
        store.report(Enqueued(call_id=call_id, facts=replace(FACTS, task=task)))
    return calls


def end(store, calls, *, in_steps=False):
    """Let each of them have waited for a second and run for two, all of it told together or the end apart."""
    began, ended = (
        [
            Told(report(call_id=call_id, facts=FACTS, run=replace(RUN, started_at=NOON), **more), age)
            for call_id in calls
        ]
        for report, more, age in ((Started, {}, 2 * SECOND), (Ended, {"outcome": DONE}, 0 * SECOND))
    )
    Call.objects.using(alias_of(store)).filter(pk__in=calls).update(enqueued_at=store._now() - 3 * SECOND)
    for told in (began, ended) if in_steps else (began + ended,):
        assert list(store.report_many(told)) == []


@pytest.mark.services
@pytest.mark.parametrize("in_steps", [False, True], ids=["at once", "in steps"])
def test_many_calls_that_end_together_are_counted_by_the_statement_that_ends_them(postgres_alias, in_steps):
    store = DjangoTrackingStore(postgres_alias)
    calls = [*enqueued(store, 30), *enqueued(store, 25, "u")]
    with CaptureQueriesContext(connections[postgres_alias]) as captured:
        end(store, calls, in_steps=in_steps)
    written = [query["sql"] for query in captured if "STATEMENT_TIMESTAMP" in query["sql"]]
    assert len(written) == 1 + in_steps
    assert not Call.objects.using(postgres_alias).filter(counted_at=None).exists()
    by_statement = sums(postgres_alias)
    assert {calls for _key, calls, *_ in by_statement} == {30, 25}
    assert {lengths.number for *_, waits, runs in by_statement for lengths in (waits, runs)} == {30, 25}
    HourlyRollup.objects.using(postgres_alias).all().delete()
    Call.objects.using(postgres_alias).update(counted_at=None)
    roll_up(using=postgres_alias)
    assert sums(postgres_alias) == by_statement


@pytest.mark.services
def test_a_few_that_end_together_are_left_to_be_counted_with_others(postgres_alias):
    store = DjangoTrackingStore(postgres_alias)
    end(store, enqueued(store, 3))
    assert (total(postgres_alias), Call.objects.using(postgres_alias).filter(counted_at=None).count()) == (0, 3)
    assert (roll_up(using=postgres_alias).calls, total(postgres_alias)) == (3, 3)


@pytest.mark.services
def test_what_ends_many_ends_none_where_it_cannot_count_them(postgres_alias, monkeypatch):
    store = DjangoTrackingStore(postgres_alias)
    calls = enqueued(store, 30)

    def torn(*args):
        raise StoreError("torn")

    with monkeypatch.context() as broken:
        broken.setattr(counting, "enter", torn)
        with pytest.raises(StoreError):
            end(store, calls)
    assert not Call.objects.using(postgres_alias).exclude(status="submitted", counted_at=None).exists()
    end(store, calls)
    assert total(postgres_alias) == 30


@pytest.mark.services
def test_those_who_end_calls_and_those_who_count_them_count_each_call_once(postgres_alias):
    first = DjangoTrackingStore(postgres_alias)
    mine = [enqueued(first, 40 if number % 2 else 10, f"t{number % 3}") for number in range(24)]
    start, halves = threading.Barrier(3), (mine[:12], mine[12:])

    def ending(batches):
        session = OwnSession(postgres_alias)
        store = DjangoTrackingStore(session=session)
        start.wait(20)
        for calls in batches:
            end(store, calls)
        session.close()
        connections[postgres_alias].close()

    def counting_beside():
        start.wait(20)
        while Call.objects.using(postgres_alias).filter(counted_at=None).exists():
            first.count_ended(20)
        connections[postgres_alias].close()

    threads = [threading.Thread(target=ending, args=(half,)) for half in halves]
    threads.append(threading.Thread(target=counting_beside))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert total(postgres_alias) == 24 * 25
    counted = HourlyRollup.objects.using(postgres_alias).values("task").annotate(calls=Sum("calls"))
    assert {row["task"]: row["calls"] for row in counted} == {"t0": 200, "t1": 200, "t2": 200}


def test_two_who_count_at_once_count_each_call_once(alias):
    for number in range(300):
        add(alias, NOON + number % 3 * HOUR, task=f"t{number % 5}")
    start, counted = threading.Barrier(3), []

    def count():
        session = OwnSession(alias)
        mine = DjangoTrackingStore(session=session)
        try:
            start.wait(20)
            while Call.objects.using(alias).filter(counted_at=None).exists():
                counted.append(mine.count_ended(20))
        finally:
            session.close()
            connections[alias].close()

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counted) == total(alias) == 300
    assert set(hours(alias).values()) == {20}


@pytest.mark.services
@pytest.mark.parametrize("kind", ["postgres", "mysql"])
@pytest.mark.parametrize("holds", [True, False], ids=["commits", "rolls back"])
def test_what_another_is_about_to_count_is_left_to_him(request, kind, holds):
    alias = request.getfixturevalue(f"{kind}_alias")
    for task in ("a", "b"):
        add(alias, NOON + HOUR * (task == "b"), task=task)
    found = []

    def other():
        try:
            found.append(roll_up(using=alias).calls)
        finally:
            connections[alias].close()

    with transaction.atomic(using=alias):
        assert counting.count_some(connections[alias], 1) == 1
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "the second one waits for the calls of the first"
        transaction.set_rollback(not holds, using=alias)
    assert found == [1]
    assert roll_up(using=alias).calls == (0 if holds else 1)
    assert sorted(hours(alias).values()) == [1, 1]


# --- whoever tells of it, and however late


def test_a_report_that_comes_late_counts_in_its_hour(alias, store):
    call_ids = [new_id(), new_id()]
    store.enqueue_all([Enqueued(call_id=call_id, facts=FACTS) for call_id in call_ids])
    then = store._now() - 5 * HOUR
    Call.objects.using(alias).update(enqueued_at=then - HOUR, updated_at=then - HOUR)
    for call_id, age in zip(call_ids, (timedelta(), 5 * HOUR), strict=True):
        told = [Told(Started(call_id=call_id, facts=FACTS, run=RUN), age)]
        store.report_many([*told, Told(Ended(call_id=call_id, facts=FACTS, run=RUN, outcome=DONE), age)])
        roll_up(using=alias)
    assert sorted(hours(alias).items()) == [
        ((hour_of(Call.objects.using(alias).get(pk=call_id).terminal_at), "t", "succeeded", ""), 1)
        for call_id in reversed(call_ids)
    ]


def procedure(store, call_id=None, outcome=DONE):
    """A procedure's call that is made, claimed and settled."""
    call_id = call_id or new_id()
    assert store.insert(Order(call_id=call_id, facts=FACTS, terms=Terms(app="a"), message="{}")) is not None
    record = store._find(call_id, None).record
    run = RUN if record.generation == 0 else RunFacts(token=f"run {record.generation}", worker="w@h", pid=7)
    given = {"turn": Turn(), "generation": record.generation, "facts": FACTS, "terms": Terms(app="a"), "run": run}
    store.claim(Delivery(call_id=call_id, **given))
    assert store.settle(call_id, run.token, Settlement(outcome=outcome, result="1")) is not None
    return call_id


def test_every_road_on_which_a_call_ends_leads_to_the_counts(alias, store):
    procedure(store)
    procedure(store, outcome=FAILURE)
    # One by one, and many at once; with and without a row from before.
    for report in (store.report, lambda report: store.report_many([Told(report)])):
        for outcome in (DONE, FAILURE):
            for known in (True, False):
                call_id = new_id()
                if known:
                    store.report(Enqueued(call_id=call_id, facts=FACTS))
                report(Started(call_id=call_id, facts=FACTS, run=RUN))
                report(Ended(call_id=call_id, facts=FACTS, run=RUN, outcome=outcome))
        never = new_id()
        report(Enqueued(call_id=never, facts=FACTS))
        report(NotRun(call_id=never, outcome=Outcome(status=CallStatus.DISCARDED)))
    plain = new_id()
    store.record_enqueue(plain, "t")
    store.record_terminal(plain, CallStatus.PARKED, "no")
    roll_up(using=alias)
    by_status = {}
    for (_hour, _task, status, error), calls in hours(alias).items():
        by_status[status, error] = by_status.get((status, error), 0) + calls
    assert by_status == {
        ("succeeded", ""): 5,
        ("failed", "shop.Broken"): 5,
        ("discarded", ""): 2,
        ("parked", ""): 1,
    }


# --- whatever becomes of its row


@pytest.mark.parametrize("before", [True, False], ids=["counted before", "not counted before"])
def test_what_is_purged_stays_counted(alias, before):
    add(alias), add(alias, NOON, "failed", error_type="E")
    if before:
        roll_up(using=alias)
    assert purge_older_than(NOON + SECOND, using=alias) == 2
    assert roll_up(using=alias).calls == 0
    assert hours(alias) == {(NOON, "t", "succeeded", ""): 1, (NOON, "t", "failed", "E"): 1}


def test_purging_and_counting_at_once_count_each_call_once(alias):
    for number in range(200):
        add(alias, NOON + number * SECOND, task=f"t{number % 5}")
    start = threading.Barrier(2)

    def count():
        session = OwnSession(alias)
        mine = DjangoTrackingStore(session=session)
        try:
            start.wait(20)
            while mine.count_ended(7):
                pass
        finally:
            session.close()

    def delete():
        try:
            start.wait(20)
            purge(older_than=DAY, using=alias, chunk=10, pause=timedelta(0))
        finally:
            connections[alias].close()

    threads = [threading.Thread(target=work) for work in (count, delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    purge(older_than=DAY, using=alias, pause=timedelta(0))
    assert not Call.objects.using(alias).exists()
    assert total(alias) == 200


def test_the_purge_counts_what_nobody_else_does(alias):
    add(alias, datetime.now(UTC) - HOUR)
    purge(using=alias, pause=timedelta(0))
    assert (total(alias), Call.objects.using(alias).count()) == (1, 1)


def test_a_failure_that_is_removed_or_outlived_keeps_its_error_in_the_counts(alias, store):
    assert store.remove(procedure(store, outcome=FAILURE))
    add(alias, NOON, "failed", error_type="E", owned=True, purge_at=datetime.now(UTC) - SECOND)
    assert purge(using=alias, pause=timedelta(0)).emptied == 1
    roll_up(using=alias)
    assert sorted((status, error, calls) for (_, _, status, error), calls in hours(alias).items()) == [
        ("failed", "E", 1),
        ("failed", "shop.Broken", 1),
    ]


def test_whoever_removes_a_failure_in_a_transaction_keeps_nobody_from_counting(alias, store):
    call_id = procedure(store, outcome=FAILURE)
    with transaction.atomic(using=alias), CaptureQueriesContext(connections[alias]) as captured:
        assert store.remove(call_id)
    assert not any("hourlyrollup" in query["sql"] for query in captured)
    roll_up(using=alias)
    assert [(status, error, calls) for (_, _, status, error), calls in hours(alias).items()] == [("failed", "", 1)]


@pytest.mark.parametrize("before", [True, False], ids=["counted before", "not counted before"])
def test_both_calls_that_had_an_id_one_after_the_other_are_counted(alias, store, before):
    call_id = procedure(store)
    if before:
        roll_up(using=alias)
    assert store.remove(call_id)
    procedure(store, call_id, outcome=FAILURE)
    roll_up(using=alias)
    assert {status: calls for (_, _, status, _), calls in hours(alias).items()} == {"succeeded": 1, "failed": 1}


def test_counts_go_when_they_have_been_kept_for_long_enough(alias):
    now = datetime.now(UTC)
    for age in (91 * DAY, 89 * DAY, HOUR):
        add(alias, now - age)
    roll_up(using=alias)
    with override_settings(LRP_CELERY={"ROLLUP_RETENTION": None}):
        purge(using=alias, pause=timedelta(0))
    assert total(alias) == 3
    purge(using=alias, pause=timedelta(0))
    assert total(alias) == 2
    with override_settings(LRP_CELERY={"ROLLUP_RETENTION": DAY}):
        purge(using=alias, pause=timedelta(0))
    assert total(alias) == 1


@pytest.mark.parametrize("bad", [90, "90d", timedelta(minutes=59), -DAY])
def test_a_retention_of_counts_that_makes_no_sense_is_refused(bad):
    with override_settings(LRP_CELERY={"ROLLUP_RETENTION": bad}), pytest.raises(ConfigurationError, match="an hour"):
        options()


# --- what it costs


def test_where_nothing_has_ended_looking_is_one_query(alias, store):
    add(alias), roll_up(using=alias)
    with CaptureQueriesContext(connections[alias]) as captured:
        assert store.count_ended(100) == 0
    assert [query["sql"].partition(" ")[0] for query in captured] == ["SELECT"]


def test_statements_grow_with_what_is_counted_together_not_with_the_calls(request, sqlite_alias):
    for number in range(200):
        add(sqlite_alias, task=f"t{number % 2}")
    store = DjangoTrackingStore(sqlite_alias)
    store.count_ended(100)
    with CaptureQueriesContext(connections[sqlite_alias]) as captured:
        assert store.count_ended(100) == 100
    assert len(captured) < 12


# --- the command


def command(*args):
    out = StringIO()
    call_command("lrp_rollup", *args, stdout=out)
    return out.getvalue()


def test_the_command_counts_what_there_was_before_there_were_counts(alias):
    for _ in range(5):
        add(alias)
    first = command("--database", alias, "--chunk", "2", "--budget", "0s").splitlines()
    assert first == ["2 calls counted.", "The time budget is spent and more are left; run it again."]
    assert command("--database", alias) == "3 calls counted.\n"
    assert command("--database", alias) == "0 calls counted.\n"


@pytest.mark.parametrize("args", [["--database", "nope"], ["--chunk", "0"], ["--budget", "soon"]])
def test_the_command_refuses_what_it_does_not_understand(args):
    with pytest.raises(CommandError):
        command(*args)
