"""On PostgreSQL what is usual is written without reading the rows, and they are what the rule says."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_app.models import Call
from django_app.stores import DjangoTrackingStore
from django_app.stores.tables import array_literal
from lrp_celery.core.clock import ManualClock
from lrp_celery.core.ids import new_id
from lrp_celery.core.values import replace
from lrp_celery.tracking.memory import MemoryTrackingStore
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import (
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    NotRun,
    Outcome,
    PublishFailed,
    RunFacts,
    Started,
    Stopping,
    Told,
    Waiting,
)
from lrp_celery.tracking.status import CallStatus, Reason

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True, databases="__all__")]

FACTS = CallFacts(task="t", queue="q", target_summary="(1)", root_id="root")
RUN = RunFacts(
    token="run 1", worker="w@h", pid=7, acks_late=True, redelivered=True, started_at=datetime(2020, 1, 1, tzinfo=UTC)
)
LATER = replace(RUN, token="run 2", pid=8)
DONE = Outcome(status=CallStatus.SUCCEEDED)
BEGAN = Started(call_id="", facts=FACTS, run=RUN)
ENDED = Ended(call_id="", facts=FACTS, run=RUN, outcome=DONE)
FAILURE = Outcome(status=CallStatus.FAILED, error=ErrorFacts(type="E", message="no"))

BEFORE = {
    "no row": [],
    "as made": [Enqueued(call_id="", facts=FACTS)],
    "arguments not shown": [Enqueued(call_id="", facts=replace(FACTS, target_summary=None))],
    "publish failed": [Enqueued(call_id="", facts=FACTS), PublishFailed(call_id="", error=ErrorFacts(type="E"))],
    "running": [Enqueued(call_id="", facts=FACTS), BEGAN],
    "another run": [Enqueued(call_id="", facts=FACTS), replace(BEGAN, run=LATER)],
    "to stop": [Enqueued(call_id="", facts=FACTS), Stopping(call_id="", run=None, reason=Reason.REVOKED)],
    "running and to stop": [
        *(Enqueued(call_id="", facts=FACTS), BEGAN),
        Stopping(call_id="", run=RUN, reason=Reason.REVOKED),
    ],
    "a later turn": [Enqueued(call_id="", facts=FACTS), Waiting(call_id="", turn=Turn(0, 1), facts=FACTS)],
    "dropped": [Enqueued(call_id="", facts=FACTS), NotRun(call_id="", outcome=Outcome(status=CallStatus.DISCARDED))],
    "failed": [Enqueued(call_id="", facts=FACTS), BEGAN, replace(ENDED, outcome=FAILURE)],
}
TOLD = {
    "began": [BEGAN],
    "ended": [ENDED],
    "both": [BEGAN, ENDED],
    "failed": [BEGAN, replace(ENDED, outcome=FAILURE)],
    "two runs": [BEGAN, replace(ENDED, run=LATER)],
    "a retry": [replace(BEGAN, turn=Turn(0, 1)), replace(ENDED, turn=Turn(0, 1))],
}


@pytest.fixture
def store(postgres_alias):
    return DjangoTrackingStore(postgres_alias)


def named(reports, call_id):
    return [replace(report, call_id=call_id) for report in reports]


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("before", BEFORE)
def test_a_row_becomes_what_the_rule_makes_of_it(store, before, told):
    call_id = new_id()
    memory = MemoryTrackingStore(ManualClock(store._now()))
    for report in named(BEFORE[before], call_id):
        store.report(report)
        memory.report(report)
    reports = [Told(report) for report in named(TOLD[told], call_id)]
    assert list(store.report_many(reports)) == []
    memory.report_many(reports)
    found, expected = store._find(call_id, None).record, memory._find(call_id, None).record
    for field in fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, datetime) and isinstance(other, datetime):
            assert abs(one - other) < timedelta(seconds=5), field.name
        else:
            assert one == other, field.name
    assert [attempt.outcome for attempt in store.attempts(call_id)] == [
        attempt.outcome for attempt in memory.attempts(call_id)
    ]


def test_times_are_those_at_which_it_was_and_never_before_the_call_was_made(store, postgres_alias):
    calls = [new_id(), new_id()]
    for call_id in calls:
        store.report(Enqueued(call_id=call_id, facts=FACTS))
    Call.objects.using(postgres_alias).filter(pk=calls[0]).update(
        enqueued_at=store._now() - timedelta(hours=3), updated_at=store._now() - timedelta(hours=3)
    )
    ages = timedelta(hours=2), timedelta(hours=1)
    store.report_many(
        [Told(*pair) for call_id in calls for pair in zip(named([BEGAN, ENDED], call_id), ages, strict=True)]
    )
    now, (old, young) = store._now(), [store.get_status(call_id) for call_id in calls]
    assert [
        abs(now - at - age) < timedelta(seconds=30)
        for at, age in zip((old.started_at, old.terminal_at), ages, strict=True)
    ] == [True, True]
    assert young.enqueued_at <= young.started_at <= young.terminal_at <= now


def test_what_is_usual_is_written_by_one_statement_and_nothing_is_read(store, postgres_alias):
    calls = [new_id() for _ in range(5)]
    for call_id in calls:
        store.report(Enqueued(call_id=call_id, facts=FACTS))
    with CaptureQueriesContext(connections[postgres_alias]) as captured:
        store.report_many([Told(report) for call_id in calls for report in named([BEGAN, ENDED], call_id)])
    said = [query["sql"] for query in captured if "lrp_celery_call" in query["sql"]]
    assert [text.partition(" ")[0] for text in said] == ["UPDATE"]
    assert {store.get_status(call_id).status for call_id in calls} == {CallStatus.SUCCEEDED}


def test_any_text_may_stand_in_an_array(postgres_alias):
    texts = ["plain", "", "NULL", None, 'a"b', "a\\b", "{x,y}", "a b", "é\n\t'", "%s"]
    with connections[postgres_alias].cursor() as cursor:
        cursor.execute("SELECT value FROM unnest(%s::text[]) AS value", [array_literal(texts)])
        assert [value for (value,) in cursor.fetchall()] == texts
        cursor.execute(
            "SELECT %s::bigint[], %s::boolean[]", [array_literal([1, None, -5]), array_literal([True, False])]
        )
        assert cursor.fetchone() == ([1, None, -5], [True, False])


def test_many_reports_on_a_table_that_nobody_has_analysed_are_not_compared_with_each_of_its_rows(store, postgres_alias):
    # Large enough for the planner to think that it makes no difference.
    calls = [new_id() for _ in range(8000)]
    with connections[postgres_alias].cursor() as cursor:
        # Forgets what is known of the columns.
        cursor.execute("TRUNCATE lrp_celery_call CASCADE")
        store.enqueue_all([Enqueued(call_id=call_id, facts=FACTS) for call_id in calls])
        # It learns how many rows there are, and no more.
        cursor.execute("VACUUM lrp_celery_call")
    for told, some in (("began", calls[:100]), ("both", calls[100:200]), ("ended", calls[:100])):
        reports = [Told(each) for call in some for each in named(TOLD[told], call)]
        plan = "\n".join(_plan(store, postgres_alias, reports))
        assert not ("Nested Loop" in plan and "Seq Scan on lrp_celery_call" in plan), f"{told}: {plan}"


def _plan(store, using, told):
    with CaptureQueriesContext(connections[using]) as captured:
        store.report_many(told)
    (said,) = (query["sql"] for query in captured if "unnest" in query["sql"] and "lrp_celery_call" in query["sql"])
    with connections[using].cursor() as cursor:
        cursor.execute(f"EXPLAIN {said}")
        return [line for (line,) in cursor.fetchall()]
