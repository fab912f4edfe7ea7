"""`calls.enqueue_many`: many calls at once, against a store and a broker in memory."""

import asyncio
from types import SimpleNamespace
from uuid import UUID

import pytest
from celery import Celery, Task, _state, chain, chord, group
from celery.signals import after_task_publish, before_task_publish
from kombu import Connection, Producer
from kombu.exceptions import EncodeError, OperationalError

from lrp_celery import CallIdConflict, CallStatus, ConfigurationError, LrpCelery, PublishFailed, calls, procedure
from lrp_celery.procedures import publishing
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.stencils import Stencil


class Desk:
    """An app with a task and a procedure, whose messages stay in memory."""

    def __init__(self):
        self.app = app = Celery("enqueuing", broker="memory://", set_as_current=False)
        app.conf.task_default_queue = f"desk-{id(self)}"
        self.store = MemoryTrackingStore()
        self.lrp = LrpCelery(app, store=self.store)

        @app.task(name="desk.add", shared=False)
        def add(a, b=2):
            return a + b

        @app.task(name="desk.quiet", ignore_result=True, compression="gzip", shared=False)
        def quiet(**named):
            """Have options of its own."""

        @procedure
        @app.task(name="desk.report", shared=False)
        def report(month: str, password: str = "") -> str:
            return month

        self.add, self.quiet, self.report = add, quiet, report
        app.finalize()

    def row(self, call_id):
        return self.store.look(call_id)

    def sent(self, queue=None):
        """Take all messages from a queue, and return them in order."""
        found = []
        with Connection("memory://") as connection:
            channel = connection.default_channel
            while (message := channel.basic_get(queue or self.app.conf.task_default_queue, no_ack=True)) is not None:
                found.append(
                    SimpleNamespace(headers=message.headers, body=message.decode(), properties=message.properties)
                )
        return found

    def ids_sent(self):
        return [message.headers["id"] for message in self.sent()]


@pytest.fixture
def desk():
    before = _state.get_current_app()
    made = Desk()
    made.app.set_current()
    made.sent()
    yield made
    before.set_current()
    made.lrp.close()
    made.app.close()


@pytest.fixture
def signals():
    heard = []

    def before(sender, headers, **_):
        heard.append(("before", headers["id"]))

    def after(sender, headers, **_):
        heard.append(("after", headers["id"]))

    before_task_publish.connect(before)
    after_task_publish.connect(after)
    yield heard
    before_task_publish.disconnect(before)
    after_task_publish.disconnect(after)


def broken(desk, monkeypatch, after=0):
    """Let the broker refuse every message but the first ones."""
    taken = []
    honest = Producer.publish

    def publish(self, *args, **kwargs):
        if len(taken) >= after:
            raise OperationalError("no broker")
        taken.append(kwargs)
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(Producer, "publish", publish)


# --- what goes out


def test_each_call_has_a_row_and_a_message_and_the_ids_come_in_order(desk):
    made = calls.enqueue_many(desk.add.s(number) for number in range(7))
    assert {UUID(call_id).version for call_id in made} == {7}
    assert [(row.status, row.target_summary) for row in map(desk.row, made)] == [
        (CallStatus.SUBMITTED, str(number)) for number in range(7)
    ]
    sent = desk.sent()
    assert [message.headers["id"] for message in sent] == made
    assert [message.body[0] for message in sent] == [[number] for number in range(7)]


def test_a_message_that_is_like_the_one_before_is_what_celery_would_have_made(desk):
    parts = [((1,), {}), ((2, 3), {}), ((4,), {"b": "it's"}), (([1, {"x": None}],), {"b": "x" * 3000})]
    many = calls.enqueue_many(desk.add.s(*args, **kwargs) for args, kwargs in parts)
    by_us = desk.sent()
    for args, kwargs in parts:
        desk.add.delay(*args, **kwargs)
    for ours, theirs, call_id in zip(by_us, desk.sent(), many, strict=True):
        assert ours.body == theirs.body
        assert ours.headers["id"] == ours.headers["root_id"] == ours.properties["correlation_id"] == call_id
        different = {"id", "root_id", "lrp"}
        assert ours.headers.keys() == theirs.headers.keys()
        for name in ours.headers.keys() - different:
            assert ours.headers[name] == theirs.headers[name], name
        assert {**ours.headers["lrp"], "at": 0} == {**theirs.headers["lrp"], "at": 0}
        assert ours.properties.keys() == theirs.properties.keys()


def test_the_options_of_each_signature_hold(desk):
    link = desk.add.si(5)
    given = [
        desk.add.s(1).set(task_id="mine", priority=3),
        desk.add.s(1).set(queue="far-away", headers={"tenant": "a"}),
        desk.add.s(1).set(countdown=30, link=link),
        desk.add.s(1).set(expires=60, shadow="other"),
        desk.quiet.s(a=1),
        desk.quiet.s(a=2),
    ]
    made = calls.enqueue_many(given)
    mine, later, short, *quiet = desk.sent()
    assert (made[0], mine.headers["id"], mine.properties["priority"]) == ("mine", "mine", 3)
    # Queues in memory are shared by all tests of a process, so this one has a name of its own.
    (elsewhere,) = desk.sent("far-away")
    assert elsewhere.headers["tenant"] == "a"
    assert (later.headers["eta"] is not None, later.body[2]["callbacks"][0]["task"]) == (True, "desk.add")
    assert (short.headers["shadow"], short.headers["expires"] is not None) == ("other", True)
    assert [(m.body[1], m.headers["compression"]) for m in quiet] == [({"a": n}, "application/x-gzip") for n in (1, 2)]
    assert desk.row(made[2]).due_at is not None
    assert desk.row(made[1]).queue == "far-away"


def test_a_task_with_an_apply_async_of_its_own_has_its_say(desk):
    class Polite(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            return super().apply_async((args[0] * 10,), kwargs, **options)

    @desk.app.task(name="desk.polite", base=Polite, shared=False)
    def polite(a):
        """Be called with ten times as much."""

    calls.enqueue_many([polite.s(1), polite.s(2), polite.s(3)])
    assert [message.body[0] for message in desk.sent()] == [[10], [20], [30]]


def test_a_wrapper_that_somebody_put_around_celery_is_heeded_for_each_call(desk, monkeypatch):
    seen = []
    honest = Task.apply_async

    def traced(self, *args, **kwargs):
        seen.append(self.name)
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(Task, "apply_async", traced)
    calls.enqueue_many(desk.add.s(n) for n in range(3))
    assert seen == ["desk.add"] * 3


def test_a_router_that_looks_at_arguments_is_asked_for_each_call(desk):
    desk.app.conf.task_routes = (lambda name, args, *_, **__: {"queue": f"q{args[0]}"},)
    calls.enqueue_many(desk.add.s(n) for n in range(3))
    assert [len(desk.sent(f"q{n}")) for n in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("ignores", [True, False])
def test_no_call_of_a_procedure_subscribes_to_a_result_and_the_worker_keeps_one_as_the_task_says(
    desk, monkeypatch, ignores
):
    subscribed = []
    monkeypatch.setattr(desk.app.backend, "on_task_call", lambda _, call_id: subscribed.append(call_id))
    monkeypatch.setattr(desk.report.task, "ignore_result", ignores)
    desk.report.call("2026-10")
    calls.enqueue_many([desk.report.s("2026-10")])
    assert subscribed == []
    assert [message.headers["ignore_result"] for message in desk.sent()] == [ignores, ignores]


def test_wrong_arguments_are_told_before_anything_is_written(desk):
    for wrong in (desk.add.s(), desk.report.s(), desk.report.s(b"", month=1)):
        with pytest.raises(TypeError):
            calls.enqueue_many([desk.add.s(1), desk.report.s("may"), wrong])
    with pytest.raises(EncodeError):
        calls.enqueue_many([desk.add.s(1), desk.report.s("may"), desk.add.s(object())])
    assert desk.sent() == []
    assert not desk.store._records


def test_signals_of_users_fire_for_each_message_and_the_later_one_when_it_is_out(desk, signals, monkeypatch):
    made = calls.enqueue_many(desk.add.s(n) for n in range(3))
    assert signals == [("before", each) for each in made] + [("after", each) for each in made]
    signals.clear()
    broken(desk, monkeypatch, after=1)
    with pytest.raises(PublishFailed) as failed:
        calls.enqueue_many(desk.add.s(n) for n in range(3))
    assert [what for what, _ in signals] == ["before"] * 3 + ["after"]
    assert [call_id for what, call_id in signals if what == "after"] == list(failed.value.published)


def test_what_a_users_receiver_writes_into_one_message_is_in_no_other(desk):
    def note(headers, body, **_):
        headers.setdefault("stamps", {})[headers["id"]] = True
        headers["timelimit"][0] = len(headers["stamps"])
        body[2].setdefault("seen", headers["id"])

    before_task_publish.connect(note)
    made = calls.enqueue_many(desk.add.s(n) for n in range(3))
    before_task_publish.disconnect(note)
    sent = desk.sent()
    assert [list(message.headers["stamps"]) for message in sent] == [[each] for each in made]
    assert [message.headers["timelimit"] for message in sent] == [[1, None]] * 3
    assert [message.body[2]["seen"] for message in sent] == made


def test_what_is_not_tracked_goes_out_without_a_row(desk):
    desk.lrp.close()
    desk.lrp = LrpCelery(desk.app, store=desk.store, exclude=["desk.add"])
    made = calls.enqueue_many([desk.add.s(1), desk.add.s(2), desk.quiet.s()])
    assert [desk.row(each) is None for each in made] == [True, True, False]
    assert ["lrp" in message.headers for message in desk.sent()] == [False, False, True]


def test_without_tracking_it_sends_all_the_same(desk):
    desk.lrp.close()
    made = calls.enqueue_many([desk.add.s(1), desk.add.s(2)])
    assert desk.ids_sent() == made


def test_a_call_made_in_a_task_belongs_to_its_family(desk):
    @desk.app.task(name="desk.parent", bind=True, shared=False)
    def parent(self):
        made = calls.enqueue_many([desk.add.s(1), desk.add.s(2)])
        return [made, [child.id for child in self.request.children]]

    made, children = parent.apply(task_id="root").get()
    assert made == children
    assert [(desk.row(each).root_id, desk.row(each).parent_id) for each in made] == [("root", "root")] * 2


# --- what is refused


def test_what_is_more_than_one_call_is_refused_before_anything_is_written(desk):
    for several in (chain(desk.add.s(1), desk.add.s(2)), group([desk.add.s(1)]), chord([desk.add.s(1)], desk.add.s())):
        with pytest.raises(ConfigurationError, match="by itself"):
            calls.enqueue_many([desk.add.s(1), several])
    assert desk.sent() == []
    assert not desk.store._records


def test_what_is_no_signature_and_a_senseless_chunk_are_refused(desk):
    for wrong in (desk.add, "desk.add", None):
        with pytest.raises(ConfigurationError, match="signatures"):
            calls.enqueue_many([wrong])
    for chunk in (0, -1, True, 2.5, None):
        with pytest.raises(ConfigurationError, match="chunk"):
            calls.enqueue_many([desk.add.s(1)], chunk=chunk)
    with pytest.raises(ConfigurationError, match="connection"):
        calls.enqueue_many([desk.add.s(1).set(connection=object())])


def test_a_signature_that_came_as_json_is_one(desk):
    (made,) = calls.enqueue_many([dict(desk.add.s(1))])
    assert desk.ids_sent() == [made]


def test_nothing_is_made_of_nothing(desk):
    assert calls.enqueue_many([]) == []


# --- chunks


def test_a_generator_is_read_chunk_by_chunk(desk):
    sent_before = []

    def signatures():
        for number in range(5):
            sent_before.append(len(desk.store._records))
            yield desk.add.s(number)

    assert len(calls.enqueue_many(signatures(), chunk=2)) == 5
    assert sent_before == [0, 0, 2, 2, 4]


def test_a_failure_names_what_went_out_of_earlier_chunks_too(desk, monkeypatch):
    broken(desk, monkeypatch, after=3)
    with pytest.raises(PublishFailed, match="1 of 2") as failed:
        calls.enqueue_many((desk.add.s(n).set(task_id=f"n{n}") for n in range(6)), chunk=2)
    assert failed.value.published == ("n0", "n1", "n2")
    assert failed.value.uncertain == ("n3",)
    assert failed.value.unpublished == ()
    assert desk.row("n3").published_at is None
    assert desk.row("n3").last_error == "no broker"
    assert desk.row("n2").published_at is not None
    assert desk.row("n4") is None


# --- procedures


def test_procedures_and_other_tasks_mix(desk):
    made = calls.enqueue_many([desk.add.s(1), desk.report.s("may", password="hunter22"), desk.add.s(2)])
    assert [desk.row(each).owned for each in made] == [False, True, False]
    assert desk.row(made[1]).target_summary == "'may', password=[redacted]"
    assert sorted(desk.ids_sent()) == sorted(made)


def test_a_procedures_signature_takes_what_using_takes(desk):
    (call_id,) = calls.enqueue_many([desk.report.s("may").set(task_id="r1", queue="slow", countdown=5)])
    row = desk.row(call_id)
    assert (call_id, row.queue, row.due_at is not None) == ("r1", "slow", True)
    with pytest.raises(ConfigurationError, match="retry"):
        calls.enqueue_many([desk.report.s("may").set(retry=False)])
    frozen = desk.report.s("may")
    frozen.freeze("r2")
    assert calls.enqueue_many([frozen]) == ["r2"]


def test_an_id_is_the_idempotency_key(desk):
    first = calls.enqueue_many([desk.report.s("may").set(task_id="same"), desk.report.s("may").set(task_id="same")])
    again = calls.enqueue_many([desk.report.s("may").set(task_id="same")])
    assert first == ["same", "same"]
    assert again == ["same"]
    assert desk.ids_sent() == ["same"]


def test_an_id_of_another_task_refuses_the_chunk(desk):
    desk.add.apply_async((1,), task_id="taken")
    desk.sent()
    with pytest.raises(CallIdConflict):
        calls.enqueue_many([desk.report.s("may").set(task_id="new"), desk.report.s("may").set(task_id="taken")])
    assert desk.row("new") is None
    assert desk.sent() == []


def test_a_broker_that_is_away_leaves_procedures_to_the_relay_and_raises_for_other_tasks(desk, monkeypatch):
    monkeypatch.setattr(publishing, "RESPITE", 0.0)
    broken(desk, monkeypatch)
    made = calls.enqueue_many([desk.report.s("may"), desk.report.s("june")])
    assert [desk.row(each).published_at for each in made] == [None, None]
    assert sorted(desk.store.due(10)) == sorted(made)
    with pytest.raises(PublishFailed) as failed:
        calls.enqueue_many([desk.report.s("july").set(task_id="owned"), desk.add.s(1).set(task_id="plain")])
    assert (failed.value.published, failed.value.uncertain) == (("owned",), ("plain",))


# --- eager, async


def test_eagerly_each_call_runs_in_turn(desk):
    desk.app.conf.task_always_eager = True
    made = calls.enqueue_many([desk.add.s(1), desk.report.s("may")])
    assert [desk.row(each).status for each in made] == [CallStatus.SUCCEEDED] * 2
    assert desk.sent() == []


def test_the_async_twin_does_the_same(desk):
    made = asyncio.run(calls.aenqueue_many([desk.add.s(1), desk.report.s("may")]))
    assert sorted(desk.ids_sent()) == sorted(made)


# --- and that the short way is taken at all


def test_only_the_first_of_many_alike_goes_the_long_way(desk, monkeypatch):
    cut = []
    honest = Stencil.send
    monkeypatch.setattr(Stencil, "send", lambda self, *args: cut.append(1) or honest(self, *args))
    calls.enqueue_many(desk.add.s(n) for n in range(10))
    assert len(cut) == 9


@pytest.fixture
def answers_lost(desk, monkeypatch):
    """The store writes a new row, and what it answers is lost with the connection: its second try finds the id taken."""
    make = desk.store._make
    monkeypatch.setattr(desk.store, "_make", lambda order: make(order) and None)


@pytest.mark.usefixtures("answers_lost")
def test_a_call_whose_row_was_written_although_the_answer_was_lost_is_sent_at_once(desk):
    one = desk.report.call("2026-10")
    assert desk.ids_sent() == [one]
    many = calls.enqueue_many([desk.report.s("2026-11"), desk.report.s("2026-12")])
    assert desk.ids_sent() == many


@pytest.mark.usefixtures("answers_lost")
def test_eagerly_such_a_call_runs(desk):
    desk.app.conf.task_always_eager = True
    call_id = desk.report.call("2026-10")
    assert desk.report.get_result(call_id, wait=1) == "2026-10"


@pytest.mark.usefixtures("answers_lost")
def test_rule_12_an_id_that_the_caller_chose_may_be_somebody_elses_call(desk):
    # Whoever made that sends it; and if it was us, the relay does.
    assert desk.report.using(call_id="october").call("2026-10") == "october"
    assert desk.ids_sent() == []
