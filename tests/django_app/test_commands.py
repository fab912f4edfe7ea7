"""The commands and beat tasks about calls."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from celery import current_app
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from django_app import stats, tasks
from django_app.beat import beat_schedule
from django_app.management.commands import lrp_relay, lrp_rescue
from django_app.models import ActionLog, Call, Worker
from django_app.procedures import DjangoRuntime
from django_app.stores import DjangoTrackingStore
from lrp_celery import CallStatus
from lrp_celery.core.errors import StoreError
from lrp_celery.procedures import rounds
from lrp_celery.procedures.rounds import LookedAfter
from lrp_celery.tracking.callstore import WorkerFacts

pytestmark = pytest.mark.django_db


def add(call_id, status=CallStatus.SUCCEEDED, task="shop.pay", age=0, **more):
    then = datetime.now(UTC) - timedelta(minutes=age)
    ended = then if status.is_terminal else None
    return Call.objects.create(
        call_id=call_id, task=task, status=status, enqueued_at=then, updated_at=then, terminal_at=ended, **more
    )


def run(name, *args, errors=None):
    out = StringIO()
    call_command(name, *args, stdout=out, stderr=errors or StringIO())
    return out.getvalue()


@pytest.fixture
def revoked(monkeypatch):
    from lrp_celery.procedures import stopping

    ids = []
    monkeypatch.setattr(stopping, "revoke", lambda app, runtime, call_id, **kwargs: ids.append(call_id))
    return ids


# --- lrp_calls


@pytest.fixture
def four():
    add("new", CallStatus.STARTED, age=1)
    add("bad", CallStatus.FAILED, "shop.refund", age=2, reason="timeout", error_type="KeyError")
    add("old", CallStatus.SUCCEEDED, "mail.send", age=3)
    add("gone", CallStatus.SUCCEEDED, age=4, removed_at=datetime.now(UTC))


def listed(*args):
    return [line.split()[0] for line in run("lrp_calls", *args).splitlines()]


def test_calls_lists_what_readers_see_newest_first(four):
    assert listed() == ["new", "bad", "old"]
    assert "failed (timeout)  shop.refund  KeyError" in run("lrp_calls")


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["--open"], ["new"]),
        (["--status", "failed", "--status", "succeeded"], ["bad", "old"]),
        (["--task", "shop.refund"], ["bad"]),
        (["--task", "shop.*"], ["new", "bad"]),
        (["--task", "shop"], []),
        (["--limit", "1"], ["new"]),
    ],
)
def test_calls_filters(four, args, found):
    assert listed(*args) == found


def test_calls_as_json_tells_everything(four):
    (line,) = run("lrp_calls", "--json", "--limit", "1").splitlines()
    told = json.loads(line)
    assert (told["call_id"], told["status"], told["terminal_at"]) == ("new", "started", None)
    assert datetime.fromisoformat(told["enqueued_at"]).tzinfo is not None


@pytest.mark.parametrize("args", [["--limit", "0"], ["--status", "lost"]])
def test_calls_refuses_what_it_does_not_know(args):
    with pytest.raises(CommandError):
        run("lrp_calls", *args)


# --- lrp_abort, lrp_rerun


def test_abort_tells_what_came_of_it(revoked):
    DjangoTrackingStore().record_enqueue("open", "t")
    add("ended")
    errors = StringIO()
    with pytest.raises(CommandError, match="1 of 3"):
        run("lrp_abort", "open", "ended", "unknown", "--reason", "enough", "--by", "ada", errors=errors)
    assert "unknown: there is no such call" in errors.getvalue()
    assert run("lrp_abort", "open", "ended").splitlines() == [
        "open: is asked to end (submitted).",
        "ended: had ended (succeeded).",
    ]
    assert revoked == ["open", "open"]
    first = ActionLog.objects.earliest("id")
    assert (first.call_id, first.by, first.reason) == ("open", "ada", "enough")
    assert ActionLog.objects.latest("id").by


def test_rerun_refuses_what_was_only_observed():
    add("ended")
    errors = StringIO()
    with pytest.raises(CommandError, match="2 of 2"):
        run("lrp_rerun", "ended", "unknown", errors=errors)
    assert "PAYLOAD" in errors.getvalue()
    assert "unknown" in errors.getvalue()


# --- lrp_stats


def test_stats_show_every_status_and_what_has_been_waiting_running_and_silent():
    add("waits", CallStatus.SUBMITTED, age=4)
    add("not due", CallStatus.SUBMITTED, age=90, due_at=datetime.now(UTC) + timedelta(hours=1))
    add("runs", CallStatus.STARTED, age=6, run="r", started_at=datetime.now(UTC) - timedelta(minutes=5))
    add("silent", CallStatus.RETRYING, age=3 * 24 * 60, run="r")
    add("lately", CallStatus.SUCCEEDED, age=10)
    add("long ago", CallStatus.SUCCEEDED, age=90)
    add("removed", CallStatus.SUCCEEDED, age=10, removed_at=datetime.now(UTC))
    page = run("lrp_stats")
    lines = {tuple(line.split()) for line in page.splitlines()}
    assert {
        ("submitted", "2"),
        ("started", "1"),
        ("retrying", "1"),
        ("succeeded", "3", "2"),
        ("failed", "0", "0"),
    } <= lines
    assert "Oldest waiting for: 4 min" in page
    assert "Longest running for: 5 min" in page
    assert "Overdue: 1, silent: 1" in page


def test_stats_of_nothing_are_a_page_too():
    page = run("lrp_stats")
    assert "Oldest waiting for: nothing" in page
    assert "Workers: none is known" in page
    assert "Not written to the database yet: 0 bytes" in page


def test_stats_stop_counting_somewhere(monkeypatch):
    monkeypatch.setattr(stats, "LIMIT", 2)
    for number in range(4):
        add(f"o{number}", CallStatus.SUBMITTED, age=number + 1)
        add(f"s{number}", CallStatus.SUCCEEDED)
    add("bad", CallStatus.FAILED)
    lines = {tuple(line.split()) for line in run("lrp_stats").splitlines()}
    assert {("succeeded", "2+", "2+"), ("failed", "1", "1")} <= lines
    told = json.loads(run("lrp_stats", "--json"))
    assert told["open"]["by_status"]["submitted"] == {"number": 2, "is_capped": True}
    waiting = datetime.fromisoformat(told["now"]) - datetime.fromisoformat(told["open"]["waiting_since"])
    assert waiting > timedelta(minutes=3), "the oldest are among those that are read"


def test_stats_read_a_bounded_number_of_rows_by_a_fixed_number_of_queries(django_assert_num_queries):
    add("one")
    with CaptureQueriesContext(connection) as few:
        run("lrp_stats")
    for number in range(20):
        add(f"s{number}", list(CallStatus)[number % 8], f"task{number}")
    with django_assert_num_queries(len(few)) as many:
        run("lrp_stats")
    counting = [query["sql"] for query in many if "COUNT" in query["sql"]]
    assert len(counting) == 11
    assert all("LIMIT 10001" in query for query in counting)


def test_stats_show_the_workers_and_when_they_were_heard_of():
    store = DjangoTrackingStore()
    store.beat(WorkerFacts(boot_id="b", name="celery@one", host="one", pid=17, pool="prefork"))
    Worker.objects.update(started_at=F("started_at") - timedelta(hours=2), seen_at=F("seen_at") - timedelta(minutes=3))
    (line,) = (line for line in run("lrp_stats").splitlines() if "celery@one" in line)
    assert line.split()[:3] == ["celery@one", "prefork", "17"]
    assert "2 h" in line
    assert "3 min ago" in line or "3 min 1 s ago" in line


def test_stats_show_what_waits_in_spools_and_what_was_dropped():
    store = DjangoTrackingStore()
    for boot_id, waiting, dropped in (("a", 4096, 0), ("b", 4, 3)):
        worker = WorkerFacts(boot_id=boot_id, name=f"celery@{boot_id}", host="one", pid=17, pool="prefork")
        store.beat(worker)
        store.beat(replace(worker, waiting=waiting, dropped=dropped))
    page = run("lrp_stats")
    (line,) = (line for line in page.splitlines() if "celery@b" in line)
    assert line.split()[-2:] == ["4", "3"]
    assert "Reports dropped: 3" in page
    assert "Not written to the database yet: 4,100 bytes" in page
    told = json.loads(run("lrp_stats", "--json"))
    assert (told["waiting"], told["dropped"]) == (4100, 3)


# --- lrp_relay, lrp_rescue, and beat


@pytest.fixture
def rounds_noted(monkeypatch):
    noted = []

    def note(name, done):
        def work(app, runtime):
            assert app.main == current_app.main
            assert isinstance(runtime, DjangoRuntime)
            noted.append(name)
            return done

        return work

    for module in (lrp_relay, lrp_rescue, rounds):
        monkeypatch.setattr(module, "look_after", note("look_after", LookedAfter(calls=3, sent=2, left=1)))
    for module in (lrp_rescue, rounds):
        monkeypatch.setattr(module, "rescue", note("rescue", LookedAfter(calls=4, sent=1, judged=5)))
    return noted


def test_relay_and_rescue_say_what_they_did_and_did_not(rounds_noted):
    assert "3 calls" in run("lrp_relay")
    assert "lrp_rescue --wait" in run("lrp_relay", "--once")
    assert "--wait judges them" in run("lrp_rescue")
    waited = run("lrp_rescue", "--wait")
    assert "Waiting for 10 seconds" in waited
    assert "4 calls" in waited
    assert "5 calls of other tasks" in waited
    assert rounds_noted == ["look_after"] * 3 + ["rescue"]


def test_relay_goes_on_until_it_is_interrupted(rounds_noted, monkeypatch, caplog):
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    works = lrp_relay.look_after
    monkeypatch.setattr(lrp_relay, "time", SimpleNamespace(sleep=sleep))

    def away_once(app, runtime):
        if len(naps) == 1:
            raise StoreError("away")
        return works(app, runtime)

    monkeypatch.setattr(lrp_relay, "look_after", away_once)
    assert run("lrp_relay", "--loop").count("3 calls") == 2
    assert (naps, "away" in caplog.text) == ([2.0] * 3, True)


def test_a_store_that_is_away_is_an_error_of_the_command(monkeypatch):
    def fail(app, runtime):
        raise StoreError("away")

    monkeypatch.setattr(lrp_relay, "look_after", fail)
    monkeypatch.setattr(lrp_rescue, "look_after", fail)
    for name in ("lrp_relay", "lrp_rescue"):
        with pytest.raises(CommandError, match="away"):
            run(name)


def test_beat_knows_its_tasks(rounds_noted):
    schedule = beat_schedule()
    assert {name: entry["task"] for name, entry in schedule.items()} == {name: name for name in schedule}
    known = {task.name for task in (tasks.purge, tasks.relay, tasks.rescue)}
    assert set(schedule) == known
    assert (tasks.relay(), tasks.rescue()) == (2, 4 + 5)
