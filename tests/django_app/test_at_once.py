"""On PostgreSQL a call is made, begins and ends by one statement each, and its row is what the rules say."""

import asyncio
import time
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_app.stores import DjangoTrackingStore
from django_app.stores.sessions import OwnSession
from django_app.wiring import current_runtime
from lrp_celery.core.ids import new_id
from lrp_celery.tracking import owned
from lrp_celery.tracking.callstore import NOT_FOR_RUNS, Known
from lrp_celery.tracking.items import Put
from lrp_celery.tracking.owned import AbortRequest, Delivery, Note, Order, Settlement, Terms, Verdict
from lrp_celery.tracking.record import CallRecord, Turn
from lrp_celery.tracking.reports import CallFacts, ErrorFacts, Outcome, RunFacts
from lrp_celery.tracking.status import CallStatus, Reason

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True, databases="__all__")]

FACTS = CallFacts(task="t", queue="q", target_summary="(1)", root_id="root")
RUN = RunFacts(token="run", worker="w@h", pid=7, acks_late=True)


@pytest.fixture
def store(postgres_alias):
    return DjangoTrackingStore(postgres_alias)


def made(store, *, facts=FACTS, **terms):
    call_id = new_id()
    return store.insert(Order(call_id=call_id, facts=facts, terms=Terms(app="a", **terms), message="{}"))


def delivery(record, **more):
    given = {"turn": Turn(), "generation": 0, "facts": FACTS, "terms": Terms(app="a"), "run": RUN, **more}
    return Delivery(call_id=record.call_id, **given)


def same(found, expected, *, but=frozenset()):
    """Compare rows; instants that the database read one after the other differ a little."""
    for field in fields(CallRecord):
        if field.name in but:
            continue
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, datetime) and isinstance(other, datetime):
            assert abs(one - other) < timedelta(seconds=1), field.name
        else:
            assert one == other, field.name


def statements(store):
    return CaptureQueriesContext(connections[store._session.alias])


def test_a_call_is_made_begins_and_ends_by_one_statement_each(store):
    with statements(store) as making:
        record = made(store)
    with statements(store) as beginning:
        claim = store.claim(delivery(record))
    with statements(store) as ending:
        known = Known(replace(claim.record, version=claim.record.version + 1))
        assert store.settle(
            record.call_id,
            "run",
            Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result="12"),
            known,
        )
    assert [len(making), len(beginning), len(ending)] == [1, 1, 1]
    assert store.payload(record.call_id).result == "12"


def test_what_is_made_is_told_by_the_databases_time(store):
    before = store._now()
    record = made(store, timeout=90.0)
    assert before <= record.enqueued_at <= store._now()
    assert record.deadline_at - record.enqueued_at == pytest.approx(timedelta(seconds=90), abs=timedelta(seconds=1))
    same(store.look(record.call_id), record)


@pytest.mark.parametrize(
    "terms", [{}, {"timeout": 900.0}, {"timeout": 3.0}, {"idempotent": True, "grace": 1.5}], ids=str
)
def test_a_call_that_begins_as_it_was_made_has_the_row_that_the_rule_makes(store, terms):
    record = made(store, **terms)
    claim = store.claim(delivery(record))
    written = store.look(record.call_id)
    _, expected = owned.claim(record, delivery(record), written.updated_at, store.timing)
    assert claim.verdict is expected.verdict is Verdict.GRANTED
    same(claim.record, expected.record, but=NOT_FOR_RUNS)
    same(written, replace(expected.record, version=1))
    assert written.updated_at > record.updated_at


OTHERS = [
    CallFacts(task="t", queue="q", target_summary="(2)", root_id="another"),
    CallFacts(task="t", queue="q", target_summary="(3)", root_id="root", parent_id="p", owner="o", schedule="s"),
    CallFacts(task="other"),
]


@pytest.mark.parametrize("terms", [{}, {"timeout": 90.0}], ids=str)
@pytest.mark.parametrize("facts", OTHERS, ids=["alike", "of which more is said", "of which less is said"])
def test_a_call_that_is_made_after_others_says_nothing_of_them(store, facts, terms):
    made(store, **terms)
    record = made(store, facts=facts, **terms)
    order = Order(call_id=record.call_id, facts=facts, terms=Terms(app="a", **terms), message="{}")
    same(store.look(record.call_id), record)
    same(record, owned.place(None, order, record.enqueued_at, store.timing).record)


def test_runs_that_begin_one_after_the_other_are_told_apart(store):
    first, second = made(store), made(store)
    began = store._now()
    run = replace(RUN, started_at=began)
    runs = [replace(run, token="1"), replace(run, token="2", pid=8, redelivered=True)]
    claims = [store.claim(delivery(record, run=run)) for record, run in zip((first, second), runs, strict=True)]
    for record, run, claim in zip((first, second), runs, claims, strict=True):
        found = store.look(record.call_id)
        assert (found.run, found.pid, found.redelivered) == (run.token, run.pid, run.redelivered)
        assert (claim.record.call_id, claim.record.run) == (record.call_id, run.token)
    assert store.look(second.call_id).started_at == began


ENDS = {
    "succeeded": Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result="12"),
    "failed": Settlement(
        outcome=Outcome(status=CallStatus.FAILED, error=ErrorFacts(type="E", message="m")), error="{}"
    ),
    "discarded": Settlement(outcome=Outcome(status=CallStatus.DISCARDED, reason=Reason.IGNORED)),
    "with a last word": Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), said=Note(lines=("almost",))),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "terms", [{}, {"time_to_live": 60.0}, {"until_removed": True}, {"keep_result": False}, {"timeout": 900.0}], ids=str
)
def test_a_run_that_knows_no_more_than_it_was_told_ends_its_call_as_the_rule_says(store, terms, end):
    record = made(store, **terms)
    claim = store.claim(delivery(record))
    begun = store.look(record.call_id)
    assert store.settle(record.call_id, "run", ENDS[end], Known.by(claim, time.monotonic())) is not None
    written = store.look(record.call_id)
    expected = owned.finish(begun, "run", ENDS[end], written.terminal_at).merged.record
    same(written, replace(expected, version=2))


def test_a_row_that_is_to_go_when_it_ends_is_gone_then_though_nothing_has_happened_to_it(store):
    call_id = new_id()
    store.put(Put(call_id=call_id, task="t", app="a", settlement=None, live=60))
    claim = store.claim(delivery(store.look(call_id)))
    assert store.settle(call_id, "run", ENDS["succeeded"], Known.by(claim, time.monotonic())) is not None
    assert store.look(call_id) is None


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (lambda store, call_id: store.request_abort(call_id, AbortRequest(reason="no")), Verdict.SETTLED),
        (
            lambda store, call_id: store.claim(delivery(store.look(call_id), run=replace(RUN, token="other"))),
            Verdict.HELD,
        ),
        (lambda store, call_id: store.not_sent(call_id), Verdict.GRANTED),
    ],
    ids=["aborted", "held", "not sent"],
)
def test_what_has_happened_since_it_was_made_has_its_say(store, spoil, verdict):
    record = made(store)
    spoil(store, record.call_id)
    version = store.look(record.call_id).version
    assert store.claim(delivery(record)).verdict is verdict
    # A version that came again would let a writer who knows the first one write over the second.
    assert store.look(record.call_id).version == version + (verdict is Verdict.GRANTED)


def test_a_call_whose_time_is_over_does_not_begin(store):
    record = made(store, timeout=0.001)
    assert store.claim(delivery(record)).verdict is Verdict.SETTLED
    assert store.look(record.call_id).reason == "timeout"


def test_a_call_that_is_not_due_does_not_begin(store):
    later = store._now() + timedelta(hours=1)
    record = made(store, facts=replace(FACTS, due_at=later))
    assert store.claim(delivery(record)).verdict is Verdict.EARLY


def test_a_call_that_expired_does_not_begin(store):
    record = made(store, facts=replace(FACTS, expires_at=store._now() - timedelta(seconds=1)))
    assert store.claim(delivery(record)).verdict is Verdict.SETTLED
    assert store.look(record.call_id).reason == "expired"


def test_a_row_that_is_only_watched_is_adopted_by_the_rule(store):
    call_id = new_id()
    assert store.record_enqueue(call_id, "t")
    claim = store.claim(delivery(store.look(call_id)))
    assert claim.verdict is Verdict.GRANTED
    assert claim.record.owned


# --- What else a statement of ours must do


@pytest.fixture
def own(postgres_alias, monkeypatch):
    session = OwnSession(postgres_alias)
    monkeypatch.setattr(session, "release", lambda: None)
    yield DjangoTrackingStore(session=session)
    session.close()


def test_a_run_began_when_its_worker_says_within_what_the_store_knows(store):
    record = made(store)
    early = RunFacts(token="run", started_at=record.enqueued_at - timedelta(hours=1))
    assert store.claim(delivery(record, run=early)).record.started_at == store.look(record.call_id).enqueued_at
    record = made(store)
    moment = store._now()
    assert store.claim(delivery(record, run=RunFacts(token="run", started_at=moment))).record.started_at == moment


@pytest.mark.parametrize("due", [datetime(9999, 12, 29, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)], ids=str)
def test_a_call_that_is_due_in_the_far_future_is_due_just_then(store, due):
    record = made(store, facts=replace(FACTS, due_at=due))
    assert record.due_at == store.look(record.call_id).due_at == due


def test_a_statement_that_a_migration_has_outdated_is_prepared_anew(own):
    record = made(own)
    for _ in range(6):
        assert own.look(record.call_id) is not None
    connection = connections[own._session.alias]
    alter = "ALTER TABLE lrp_celery_call ALTER COLUMN worker TYPE varchar({})"
    with connection.cursor() as cursor:
        cursor.execute(alter.format(300))
    try:
        assert own.look(record.call_id) is not None
    finally:
        with connection.cursor() as cursor:
            cursor.execute(alter.format(255))


def test_a_statement_in_an_event_loop_is_refused_as_django_does(own):
    made(own)

    async def call():
        made(own)

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(call())


def test_an_item_that_is_settled_with_nothing_is_written(store):
    call_id = new_id()
    pending = Put(call_id=call_id, task="t", app="a", settlement=None, live=60)
    store.put(pending)
    store.put(replace(pending, settlement=Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED))))
    assert store.look(call_id).status is CallStatus.SUCCEEDED


@pytest.mark.parametrize("alias", ["postgres", "sqlite"])
def test_a_new_call_is_made_on_our_connection_only_where_nobody_can_be_in_its_way(request, alias):
    chosen = request.getfixturevalue(f"{alias}_alias")
    with override_settings(LRP_CELERY={"DATABASE": chosen}):
        runtime = current_runtime()
        # On SQLite whoever reads on Django's connection keeps every other one from writing.
        assert (runtime.of_new_call() is runtime.callers) is (alias == "sqlite")
        assert runtime.callers is not runtime.own
        with transaction.atomic(using=chosen):
            assert runtime.of_new_call() is runtime.callers


def test_what_follows_a_write_does_not_undo_it(caplog):
    with override_settings(LRP_CELERY={"DATABASE": "default"}):
        current_runtime().after_commit(lambda: 1 // 0)
    assert "ZeroDivisionError" in caplog.text


def test_what_follows_a_commit_does_not_keep_what_else_follows_it(caplog):
    followed = []
    with override_settings(LRP_CELERY={"DATABASE": "default"}), transaction.atomic():
        # As calls are sent: a partial has no name by which Django could tell of it.
        current_runtime().after_commit(partial(lambda number: 1 // number, 0))
        transaction.on_commit(lambda: followed.append(True))
    assert "ZeroDivisionError" in caplog.text
    assert followed == [True]


def test_an_id_that_was_just_made_and_has_a_row_all_the_same_keeps_that(store):
    order = Order(call_id=new_id(), facts=FACTS, terms=Terms(app="a"), message="{}")
    first = store.insert(order)
    assert first is not None
    assert store.insert(replace(order, facts=replace(FACTS, task="u"), message="[]")) is None
    same(store.look(order.call_id), first)
    assert store.payload(order.call_id).message == "{}"
    with transaction.atomic(using=store._session.alias):
        assert store.insert(order) is None
        assert store.look(order.call_id).task == "t", "and the transaction goes on"
