"""`calls`: what anybody may do to any call, procedure or not, against a store in memory."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state
from kombu import Connection

from lrp_celery import (
    CallIdConflict,
    CallNotFound,
    CallPending,
    CallStatus,
    ConfigurationError,
    LrpCelery,
    NotRerunnable,
    PublishFailed,
    calls,
    procedure,
)
from lrp_celery.procedures import deeds, publishing, rerunning, revoking, runtime
from lrp_celery.procedures.aborts import Board, Reach
from lrp_celery.procedures.actions import Action
from lrp_celery.procedures.deeds import Deeds
from lrp_celery.procedures.runtime import PlainRuntime
from lrp_celery.procedures.signal import AbortController
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.callstore import Payload, WorkerFacts
from lrp_celery.tracking.owned import AbortRequest, Delivery, Settlement, Terms
from lrp_celery.tracking.record import CallRecord, Turn
from lrp_celery.tracking.reports import CallFacts, Enqueued, NotRun, Outcome, RunFacts, Started
from lrp_celery.tracking.status import Reason
from lrp_celery.tracking.steps import Merged

BOOT = "b00t"
DONE = Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result="3")


app = Celery("calls", broker="memory://", set_as_current=False)


@procedure
@app.task(name="tests.calls.add")
def add(a: int, b: int = 2) -> int:
    return a + b


@app.task(name="tests.calls.plain", bind=True)
def plain(self: Any, month: str, *, moment: datetime | None = None) -> None:
    """A task that is no procedure."""


app.finalize()


class Scene:
    """An app whose broker is never asked: what it would have been told is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.store = MemoryTrackingStore()
        self.lrp = LrpCelery(self.app, store=self.store, payload=["tests.calls.*"])
        self.revoked: list[tuple[str, dict[str, Any]]] = []
        self.actions: list[Action] = []
        control = SimpleNamespace(revoke=lambda call_id, **kwargs: self.revoked.append((call_id, kwargs)))
        monkeypatch.setattr(app, "control", control)
        monkeypatch.setattr(PlainRuntime, "log", lambda _, action: self.actions.append(action))
        self.add = add

    def observed(self, call_id: str, *, running: bool = False, **facts: Any) -> str:
        self.store.report(Enqueued(call_id=call_id, facts=CallFacts(task="plain", **facts)))
        if running:
            run = RunFacts(token=f"1-{BOOT}-7-1", worker="w", pid=7)
            self.store.report(Started(call_id=call_id, run=run, facts=CallFacts(task="plain")))
        return call_id

    def claimed(self, call_id: str) -> str:
        run = f"1-{BOOT}-7-{call_id}"
        delivery = Delivery(
            call_id=call_id,
            turn=Turn(),
            generation=0,
            facts=CallFacts(task="tests.calls.add"),
            terms=Terms(),
            run=RunFacts(token=run, worker="w", pid=7),
        )
        assert self.store.claim(delivery).verdict == "granted"
        return run

    def worker(self, pool: str) -> None:
        self.store.beat(WorkerFacts(boot_id=BOOT, name="w", host="h", pid=6, pool=pool))

    def row(self, call_id: str) -> CallRecord:
        record = self.store.look(call_id)
        assert record is not None
        return record

    def rewrite(self, call_id: str, **values: Any) -> None:
        record = self.row(call_id)
        assert self.store._write(Merged(replace(record, **values)), record)


@pytest.fixture
def scene(monkeypatch):
    before = _state.get_current_app()
    made = Scene(monkeypatch)
    made.app.set_current()
    yield made
    before.set_current()
    made.lrp.close()


# --- abort


def test_a_call_that_nobody_has_claimed_ends_at_once(scene):
    call_id = scene.add.call(1)
    calls.abort(call_id, reason="wrong month", by="ada")
    row = scene.row(call_id)
    assert (row.status, row.reason, row.abort_reason, row.abort_by) == ("aborted", "aborted", "wrong month", "ada")
    assert scene.actions == [Action(deed="abort", call_id=call_id, by="ada", reason="wrong month", outcome="aborted")]
    assert scene.revoked == []


def test_a_running_call_is_asked_to_end_once(scene):
    call_id = scene.add.call(1)
    scene.claimed(call_id)
    for _ in range(2):
        calls.abort(call_id)
    assert scene.row(call_id).status == "started"
    assert [action.outcome for action in scene.actions] == ["asked to end", "had been asked to end"]


def test_aborting_what_has_ended_or_is_unknown_is_silent(scene):
    call_id = scene.add.call(1)
    assert scene.store.settle(call_id, scene.claimed(call_id), DONE)
    calls.abort(call_id)
    calls.abort("unknown")
    assert scene.row(call_id).status == "succeeded"
    assert [(action.call_id, action.outcome) for action in scene.actions] == [(call_id, "had ended")]


def test_a_django_user_is_known_by_his_name(scene):
    user = SimpleNamespace(get_username=lambda: "grace\x00")
    call_id = scene.add.call(1)
    calls.abort(call_id, by=user)
    assert (scene.row(call_id).abort_by, scene.actions[0].by) == ("grace", "grace")


def test_rule_22_an_observed_call_is_revoked_and_not_settled(scene):
    call_id = scene.observed("x")
    calls.abort(call_id, reason="not needed")
    row = scene.row(call_id)
    assert (row.status, row.abort_reason, row.abort_requested_at is not None) == ("submitted", "not needed", True)
    assert scene.revoked == [("x", {})]
    # A worker drops it, and says so.
    dropped = Outcome(status=CallStatus.DISCARDED, reason=Reason.REVOKED)
    assert scene.store.report(NotRun(call_id="x", outcome=dropped))
    assert (scene.row("x").status, scene.row("x").reason) == ("aborted", "aborted")


def test_rule_22_a_silent_one_is_settled_at_once(scene):
    long_ago = datetime.now(UTC) - timedelta(days=2)
    for call_id, values in {
        "silent": {"updated_at": long_ago},
        "waiting": {"updated_at": long_ago, "due_at": datetime.now(UTC)},
        "expired": {"expires_at": long_ago},
    }.items():
        scene.observed(call_id)
        scene.rewrite(call_id, **values)
        calls.abort(call_id)
    assert [scene.row(call_id).status for call_id in ("silent", "waiting", "expired")] == [
        "aborted",
        "submitted",
        "aborted",
    ]


def test_a_broker_that_is_down_does_not_make_an_abort_fail(scene, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "lrp_celery")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(publishing, "_publisher", lambda _: publishing.Publisher())
    scene.app.control.revoke = refuse
    calls.abort(scene.observed("x"))
    assert scene.row("x").abort_requested_at is not None
    assert "do not hear that call x was revoked" in caplog.text


def test_a_worker_that_starts_knows_what_was_revoked(scene, monkeypatch):
    from celery.worker import state

    known: set[str] = set()
    monkeypatch.setattr(state, "revoked", known)
    for call_id in ("waiting", "ended", "untouched"):
        scene.observed(call_id)
    for call_id in ("waiting", "ended"):
        calls.abort(call_id)
    scene.store.record_terminal("ended", "discarded")
    calls.abort(scene.add.call(1))
    revoking._on_setup(instance=SimpleNamespace(app=scene.app))
    assert known == {"waiting"}
    # A process without a store still starts.
    monkeypatch.setattr(runtime._registry, "_for_others", [])
    revoking._on_setup(instance=SimpleNamespace(app=Celery("another", set_as_current=False)))


def test_a_tree_is_aborted_as_far_as_it_has_grown(scene):
    root = scene.add.call(1)
    scene.observed("child", root_id=root, parent_id=root)
    scene.observed("grandchild", root_id=root, parent_id="child")
    scene.observed("nephew", root_id=root, parent_id="somebody")
    scene.observed("stranger", root_id="stranger")
    scene.store.record_terminal("child", "succeeded")
    calls.abort("child", tree=True)
    assert [call_id for call_id, _ in scene.revoked] == ["grandchild"]
    calls.abort(root, tree=True, reason="all of it")
    assert scene.row(root).status == "aborted"
    assert {action.call_id: action.outcome for action in scene.actions} == {
        "child": "had ended",
        "grandchild": "had been asked to end",
        root: "aborted",
    }


# --- force


def test_force_is_told_to_the_process_that_runs_it(scene):
    scene.worker("prefork")
    call_id = scene.add.call(1)
    scene.claimed(call_id)
    calls.abort(call_id)
    assert not scene.row(call_id).abort_force
    calls.abort(call_id, force=True)
    calls.abort(call_id, force=True)
    assert scene.row(call_id).abort_force
    assert [action.outcome for action in scene.actions] == [
        "asked to end",
        "asked to end",
        "had been asked to end",
    ]


@pytest.mark.parametrize("pool", ["threads", "solo", None])
def test_force_is_refused_where_the_pool_cannot(scene, pool):
    if pool is not None:
        scene.worker(pool)
    call_id = scene.add.call(1)
    scene.claimed(call_id)
    with pytest.raises(ConfigurationError, match="without force"):
        calls.abort(call_id, force=True)
    assert scene.row(call_id).abort_requested_at is None
    assert scene.actions == []


def test_force_on_an_observed_call_kills_where_it_may(scene):
    calls.abort(scene.observed("here", running=True), force=True)
    calls.abort(scene.observed("waiting"), force=True)
    assert scene.revoked == [(call_id, {"terminate": True, "signal": "SIGKILL"}) for call_id in ("here", "waiting")]
    scene.worker("threads")
    with pytest.raises(ConfigurationError, match="threads"):
        calls.abort(scene.observed("there", running=True), force=True)


def test_force_on_a_call_that_does_not_run_ends_it(scene):
    call_id = scene.add.call(1)
    calls.abort(call_id, force=True)
    assert scene.row(call_id).status == "aborted"


@pytest.mark.parametrize("may", [True, False])
def test_only_a_process_of_a_pool_kills_itself_and_only_inside_the_run(monkeypatch, may):
    from lrp_celery.procedures import aborts

    killed: list[Any] = []
    own = Board()
    own.may_be_killed = may
    monkeypatch.setattr(aborts, "board", own)
    monkeypatch.setattr(aborts.os, "kill", lambda *args: killed.append(args))
    record = CallRecord(call_id="x", task="t", enqueued_at=datetime.now(UTC), updated_at=datetime.now(UTC), grace=60)
    controller = AbortController()
    with Reach(record, "run-1", controller):
        own.tell("x", "run-2", None, Reason.ABORTED, force=True)
        assert (killed, controller.signal.aborted) == ([], False)
        own.tell("x", "run-1", "now", Reason.ABORTED, force=True)
    assert len(killed) == may
    assert controller.signal.aborted
    own.tell("x", "run-1", None, Reason.ABORTED, force=True)
    assert len(killed) == may


# --- rerun


def settled(scene, *args, outcome=DONE, **kwargs):
    call_id = scene.add.using(owner="ada", queue="slow", headers={"x": 1}).call(*args, **kwargs)
    assert scene.store.settle(call_id, scene.claimed(call_id), outcome)
    return call_id


def test_rule_13_a_rerun_is_a_new_call_of_task_and_arguments_only(scene):
    failed = Settlement(outcome=Outcome(status=CallStatus.FAILED))
    earlier = settled(scene, 1, b=5, outcome=failed)
    again = calls.rerun(earlier, by="grace")
    row, before = scene.row(again), scene.row(earlier)
    assert again != earlier
    assert (row.status, row.rerun_of, row.owner, row.task) == ("submitted", earlier, "ada", "tests.calls.add")
    assert row.target_summary == before.target_summary
    assert (before.queue, row.queue) == ("slow", "celery")
    message = scene.store.payload(again).message
    assert '"x"' not in message
    assert before.status == "failed"
    assert [(a.deed, a.call_id, a.by, a.outcome) for a in scene.actions] == [
        ("rerun", earlier, "grace", f"runs again as {again}")
    ]
    assert (before.handled_at is not None, before.handled_by) == (True, "grace")
    # And once more, from the new one.
    assert scene.store.settle(again, scene.claimed(again), failed)
    assert scene.row(calls.rerun(again)).rerun_of == again


def test_whoever_asks_twice_with_one_key_gets_one_new_call(scene):
    earlier = settled(scene, 1)
    grace = Deeds(scene.app, runtime.runtime_of(scene.app), "grace")
    assert grace.rerun(earlier, new_id="again") == grace.rerun(earlier, new_id="again") == "again"
    assert scene.row("again").rerun_of == earlier
    # What has not failed needs nobody to deal with it.
    assert scene.row(earlier).handled_at is None


def failed(scene, *args, **kwargs):
    """Return a call of a task that is no procedure, which has failed."""
    call_id = plain.delay(*args, **kwargs).id
    assert scene.store.record_terminal(call_id, "failed")
    return call_id


def taken(call_id):
    """Take all messages that went out; return those of a call."""
    with Connection("memory://") as connection:
        messages = iter(lambda: connection.default_channel.basic_get("celery", no_ack=True), None)
        return [message for message in messages if message.headers["id"] == call_id]


def test_rule_30_a_call_that_was_only_watched_runs_again_if_its_arguments_were_kept(scene):
    moment = datetime(2026, 10, 1, tzinfo=UTC)
    earlier = failed(scene, "2026-10", moment=moment)
    again = calls.rerun(earlier, by="grace")
    row = scene.row(again)
    assert (row.status, row.rerun_of, row.task, row.owned) == ("submitted", earlier, "tests.calls.plain", False)
    assert row.target_summary == scene.row(earlier).target_summary
    (message,) = taken(again)
    assert message.decode()[:2] == [["2026-10"], {"moment": moment}]
    assert (scene.row(earlier).handled_by, scene.actions[-1].outcome) == ("grace", f"runs again as {again}")
    # And once more, from the new one.
    assert scene.store.record_terminal(again, "failed")
    assert scene.row(calls.rerun(again)).rerun_of == again


def test_a_call_that_was_only_watched_is_sent_once_however_often_it_is_asked_for_under_one_key(scene):
    earlier, other = failed(scene, "a"), failed(scene, "b")
    grace = Deeds(scene.app, runtime.runtime_of(scene.app), "grace")
    taken("")
    assert grace.rerun(earlier, new_id="again") == grace.rerun(earlier, new_id="again") == "again"
    assert len(taken("again")) == 1
    with pytest.raises(CallIdConflict):
        grace.rerun(other, new_id="again")


def test_a_rerun_that_the_broker_does_not_take_is_told_and_shown(scene, monkeypatch):
    earlier = failed(scene, "a")

    def away(*_):
        raise publishing.BrokerAway

    with monkeypatch.context() as patch:
        patch.setattr(rerunning, "ask_broker", away)
        with pytest.raises(PublishFailed) as refused:
            calls.rerun(earlier)
    row = scene.row(refused.value.call_id)
    assert (row.status, row.published_at, row.rerun_of) == ("submitted", None, earlier)
    assert taken(row.call_id) == []
    assert scene.row(earlier).handled_at is None


@pytest.mark.parametrize("argument", [object(), "x" * 9000, {1: float("nan"), "o": object()}])
def test_rule_30_what_has_no_json_form_or_is_large_is_not_kept(scene, argument):
    with suppress(Exception):
        plain.apply_async((argument,), task_id="odd")
    assert scene.row("odd").task == "tests.calls.plain"
    assert (scene.store.payload("odd") or Payload()).message is None


def test_what_cannot_be_run_again_is_refused(scene, monkeypatch):
    still_open = scene.add.call(1)
    with pytest.raises(NotRerunnable, match="it is open"):
        calls.rerun(still_open)
    scene.observed("x")
    scene.store.record_terminal("x", "failed")
    with pytest.raises(NotRerunnable, match="PAYLOAD"):
        calls.rerun("x")
    with pytest.raises(CallNotFound):
        calls.rerun("unknown")
    gone = settled(scene, 1)
    scene.rewrite(gone, task="gone")
    with pytest.raises(NotRerunnable, match="no procedure 'gone'"):
        calls.rerun(gone)
    plain_gone, changed = failed(scene, "a"), failed(scene, "b")
    scene.rewrite(plain_gone, task="gone")
    with pytest.raises(NotRerunnable, match="no task 'gone'"):
        calls.rerun(plain_gone)
    with monkeypatch.context() as patch:
        patch.setattr(plain, "__header__", lambda *, year: None)
        with pytest.raises(NotRerunnable, match="do not fit any more"):
            calls.rerun(changed)
    altered = settled(scene, 1)
    with monkeypatch.context() as patch:
        patch.setattr(scene.add.task, "__header__", lambda *, year: None)
        with pytest.raises(NotRerunnable, match="do not fit any more"):
            calls.rerun(altered)
    without = settled(scene, 1)
    scene.store._payloads[without] = replace(scene.store._payloads[without], message=None)
    with pytest.raises(NotRerunnable, match="without a message"):
        calls.rerun(without)
    assert {action.outcome for action in scene.actions} == {"refused: NotRerunnable", "refused: CallNotFound"}


# --- handle, resend


def test_a_failure_is_handled_once_and_that_is_on_record(scene):
    failed = settled(scene, 1, outcome=Settlement(outcome=Outcome(status=CallStatus.FAILED)))
    assert calls.handle(failed, by="ada", reason="the mirror was down")
    assert not calls.handle(failed, by="eve")
    assert not calls.handle(settled(scene, 1))
    assert scene.row(failed).handled_by == "ada"
    assert [(a.deed, a.call_id, a.by, a.reason, a.outcome) for a in scene.actions] == [
        ("handle", failed, "ada", "the mirror was down", "handled")
    ]


def test_a_message_is_sent_again_and_that_is_on_record(scene, monkeypatch):
    sent = []
    monkeypatch.setattr(deeds, "send_or_leave", lambda app, runtime, call_id, envelope: sent.append(envelope))
    waiting = scene.add.call(1)
    assert calls.resend(waiting, by="ada")
    assert [(envelope.headers["id"], envelope.args) for envelope in sent] == [(waiting, [1])]
    assert [(a.deed, a.call_id, a.by, a.outcome) for a in scene.actions] == [("resend", waiting, "ada", "sent again")]
    scene.claimed(waiting)
    assert not calls.resend(waiting)
    assert not calls.resend("unknown")


# --- remove


def test_removing(scene):
    call_id = settled(scene, 1)
    calls.remove(call_id, by="ada")
    assert calls.get(call_id) is None
    calls.remove(call_id)
    calls.remove("unknown")
    still_open = scene.observed("x")
    with pytest.raises(CallPending):
        calls.remove(still_open)
    scene.store.record_terminal("x", "failed")
    calls.remove("x")
    assert [(action.deed, action.call_id) for action in scene.actions] == [("remove", call_id), ("remove", "x")]


# --- the rest


def test_the_async_twins(scene):
    async def scenario() -> str:
        call_id = scene.add.call(1)
        await calls.aabort(call_id, reason="x", by="ada", tree=True)
        again = await calls.arerun(call_id)
        await calls.aremove(call_id)
        return again

    again = asyncio.run(scenario())
    assert scene.row(again).status == "submitted"
    assert [action.deed for action in scene.actions] == ["abort", "rerun", "remove"]


def test_without_a_store_everything_says_so(scene, monkeypatch):
    monkeypatch.setattr(runtime._registry, "_for_others", [])
    scene.lrp.close()
    for use in (calls.abort, calls.rerun, calls.remove):
        with pytest.raises(ConfigurationError, match="LrpCelery"):
            use("x")


def test_an_abort_request_is_recorded_once(scene):
    call_id = scene.add.call(1)
    scene.claimed(call_id)
    assert scene.store.request_abort(call_id, AbortRequest(reason="first", force=True))
    assert scene.store.request_abort(call_id, AbortRequest(reason="second", force=True)) is None
    assert scene.row(call_id).abort_reason == "first"
