"""`calls.enqueue_many` on this app's tables: what it costs, and what of it a transaction takes back."""

import threading

import pytest
from celery import Celery, _state
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from django_app.models import Call, Payload
from django_app.stores import DjangoTrackingStore, many
from django_app.stores.rows import calls as table
from lrp_celery import CallIdConflict, PublishFailed, calls, procedure
from lrp_celery.procedures import publishing

app = Celery("many", broker="memory://", set_as_current=False)
app.conf.task_default_queue = "many"


@app.task(name="many.add", shared=False)
def add(a, b=2):
    return a + b


@procedure
@app.task(name="many.report", shared=False)
def report(month: str) -> str:
    return month


@procedure(timeout=60)
@app.task(name="many.brief", shared=False)
def brief(month: str) -> str:
    return month


app.finalize()


class Regret(Exception):
    """Rolls a transaction back."""


@pytest.fixture(scope="session", params=["default", "postgres", "mysql"])
def database(request):
    # Of the session: a test that may use all databases must find this one among them.
    return "default" if request.param == "default" else request.getfixturevalue(f"{request.param}_alias")


@pytest.fixture
def alias(database):
    before = _state.get_current_app()
    app.set_current()
    sent()
    with override_settings(LRP_CELERY={"DATABASE": database}):
        yield database
    before.set_current()


def sent():
    """Take all messages; return the ids of their calls."""
    found = []
    with Connection("memory://") as connection:
        while (message := connection.default_channel.basic_get("many", no_ack=True)) is not None:
            found.append(message.headers["id"])
    return found


def rows(alias, **where):
    return Call.objects.using(alias).filter(**where)


def broken(monkeypatch):
    def publish(*_, **__):
        raise OperationalError("no broker")

    monkeypatch.setattr(publishing, "RESPITE", 0.0)
    monkeypatch.setattr(Producer, "publish", publish)


both = pytest.mark.django_db(transaction=True, databases="__all__")
pytestmark = [pytest.mark.services, both]


@pytest.fixture
def statements(alias, monkeypatch):
    """The statements of this thread, over whatever connection."""
    from django_app.stores import tables

    said = []
    honest = tables.execute

    def execute(connection, statement, params):
        said.append(statement)
        return honest(connection, statement, params)

    monkeypatch.setattr(tables, "execute", execute)
    monkeypatch.setattr(many, "execute", execute)
    return said


def test_a_thousand_calls_cost_few_statements(alias, statements):
    if alias == "default":
        pytest.skip("SQLite takes few parameters at a time")
    with CaptureQueriesContext(connections[alias]) as captured:
        made = calls.enqueue_many(signature for n in range(500) for signature in (add.s(n), report.s(str(n))))
    assert rows(alias, pk__in=made).count() == 1000
    assert len(sent()) == 1000
    assert len(statements) + len(captured) <= 20, [*statements, *captured]


def test_rows_say_what_those_of_single_calls_say(alias):
    single = [add.delay(1).id, report.call("may"), brief.call("june"), report.using(countdown=3000).call("july")]
    given = [add.s(1), report.s("may"), brief.s("june"), report.s("july").set(countdown=3000)]
    together = calls.enqueue_many(given)
    moving = {
        "call_id",
        "root_id",
        "source_script",
        *(f.attname for f in Call._meta.fields if f.attname.endswith("_at")),
    }
    for one, other in zip(single, together, strict=True):
        theirs, ours = (rows(alias, pk=each).values().get() for each in (one, other))
        assert {name: ours[name] for name in ours.keys() - moving} == {n: theirs[n] for n in theirs.keys() - moving}
        assert [(name, ours[name] is None) for name in moving] == [(name, theirs[name] is None) for name in moving]
        kept = [
            Payload.objects.using(alias).filter(pk=each).values_list("result", "error").first() for each in (one, other)
        ]
        assert kept[0] == kept[1]
    assert set(sent()) == {*single[:3], *together[:3]}, "what is due much later waits with the relay"
    brief_row = rows(alias, pk=together[2]).get()
    assert (brief_row.deadline_at - brief_row.enqueued_at).total_seconds() == pytest.approx(60, abs=1)


def test_a_rollback_leaves_nothing_of_procedures_and_what_was_sent_of_other_tasks(alias):
    with pytest.raises(Regret), transaction.atomic(using=alias):
        made = calls.enqueue_many([report.s("may"), add.s(1)])
        assert rows(alias, pk=made[0]).exists()
        raise Regret
    assert sent() == [made[1]]
    assert not rows(alias, pk=made[0]).exists()
    assert not Payload.objects.using(alias).exists()
    # On SQLite its worker makes the row.
    assert rows(alias, pk=made[1]).exists() is (alias != "default")


def test_messages_of_procedures_go_out_after_the_commit(alias):
    with transaction.atomic(using=alias):
        made = calls.enqueue_many([report.s("may"), report.s("june")])
        assert sent() == []
    assert sent() == made


def test_one_conflict_takes_back_the_whole_chunk(alias):
    add.apply_async((1,), task_id="taken")
    sent()
    with transaction.atomic(using=alias):
        with pytest.raises(CallIdConflict):
            calls.enqueue_many(report.s("may").set(task_id=each) for each in ("before", "taken", "after"))
        assert not rows(alias, pk__in=["before", "after"]).exists(), "and the transaction still works"
    assert sent() == []


def test_ids_that_are_known_are_the_same_calls_and_those_that_are_free_again_are_new_ones(alias):
    ids = ["known", "gone", "new"]
    calls.enqueue_many(report.s("may").set(task_id=each) for each in ids[:2])
    report.abort("gone")
    report.remove("gone")
    sent()
    assert calls.enqueue_many(report.s("may").set(task_id=each) for each in [*ids, "new"]) == [*ids, "new"]
    assert sorted(sent()) == ["gone", "new"]
    assert rows(alias, pk="gone").get().generation == 1
    assert rows(alias, pk="new").count() == 1


def test_two_that_enqueue_the_same_ids_at_once_make_each_call_once(alias):
    if alias == "default":
        pytest.skip("one writer at a time")
    ids = [f"id-{n}" for n in range(50)]
    failed, barrier = [], threading.Barrier(2)

    def enqueue(order):
        app.set_current()
        barrier.wait()
        try:
            calls.enqueue_many((report.s("may").set(task_id=each) for each in order), chunk=50)
        except Exception as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=enqueue, args=[order]) for order in (ids, ids[::-1])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert sorted(sent()) == sorted(ids)
    assert Payload.objects.using(alias).filter(pk__in=ids).count() == 50


def test_a_broker_that_is_away_leaves_all_to_the_relay_by_few_statements(alias, monkeypatch, statements):
    broken(monkeypatch)
    made = calls.enqueue_many(report.s(str(n)) for n in range(200))
    waiting = rows(alias, pk__in=made, published_at=None, attend_at__isnull=False)
    assert waiting.count() == 200
    assert len(statements) <= (100 if alias == "default" else 10)
    assert sorted(DjangoTrackingStore(alias).due(500)) == sorted(made)


def test_what_is_due_in_a_moment_is_left_to_the_relay_for_then(alias, monkeypatch):
    broken(monkeypatch)
    (soon,) = calls.enqueue_many([report.s("may").set(countdown=30)])
    row = rows(alias, pk=soon).get()
    assert row.published_at is None
    assert row.send_at == row.due_at


def test_plain_tasks_whose_messages_did_not_go_out_are_named_and_marked(alias, monkeypatch):
    broken(monkeypatch)
    with pytest.raises(PublishFailed) as failed:
        calls.enqueue_many([add.s(1).set(task_id="one"), add.s(2).set(task_id="two")])
    assert (failed.value.uncertain, failed.value.unpublished) == (("one",), ("two",))
    assert list(rows(alias).order_by("pk").values_list("pk", "published_at", "last_error")) == [
        ("one", None, "no broker"),
        ("two", None, "no broker"),
    ]


def test_many_rows_say_any_values_apart_and_what_they_share_once(alias):
    strange = ["a'b\"c%s", "{1,2}", "NULL", "\\", "ü€😀", ""]
    base = {"task": "t", "status": "submitted", "enqueued_at": table_now(alias), "updated_at": table_now(alias)}
    given = [{**base, "call_id": f"s{n}", "queue": text, "pid": n or None} for n, text in enumerate(strange)]
    with transaction.atomic(using=alias):
        assert many.insert_absent(connections[alias], table, given) == {row["call_id"] for row in given}
        assert many.insert_absent(connections[alias], table, [*given[:2], {**given[0], "call_id": "s9"}]) == {"s9"}
    found = {
        row.pk: (row.queue, row.pid, row.grace, row.keep_result)
        for row in rows(alias, pk__in=[f"s{n}" for n in range(6)])
    }
    assert found == {f"s{n}": (text, n or None, 0.0, True) for n, text in enumerate(strange)}


def table_now(alias):
    return DjangoTrackingStore(alias)._now()
