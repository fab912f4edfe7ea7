"""The purge: TRK-19 to TRK-21 through the function, the task and the command."""

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import override_settings

from django_app.beat import beat_schedule
from django_app.clock import read_clock
from django_app.models import Attempt, Call, LogLine, Payload, Worker
from django_app.purge import Purged, purge, purge_older_than, task_names
from django_app.stores import DjangoTrackingStore
from django_app.tasks import purge as purge_task
from lrp_celery.core.errors import ConfigurationError
from lrp_celery.tracking.owned import BLANKED, Order, Terms
from lrp_celery.tracking.reports import CallFacts
from lrp_celery.tracking.status import CallStatus

DAY = timedelta(days=1)
NO_PAUSE = timedelta(0)

pytestmark = pytest.mark.django_db


def add(call_id, status=CallStatus.SUCCEEDED, age=timedelta(), task="t", alias="default", **more):
    """A call that ended `age` ago (an open one: that was last heard of so long ago)."""
    then = datetime.now(UTC) - age
    ended = then if status.is_terminal else None
    return Call.objects.using(alias).create(
        call_id=call_id, task=task, status=status, enqueued_at=then, updated_at=then, terminal_at=ended, **more
    )


def left(alias="default"):
    return set(Call.objects.using(alias).values_list("call_id", flat=True))


def test_a_parked_call_goes_once_it_was_handled_and_its_time_is_over():
    now = datetime.now(UTC)
    for call_id, handled in {"waits": None, "lately": DAY, "long ago": 8 * DAY}.items():
        add(call_id, CallStatus.PARKED, 30 * DAY, handled_at=None if handled is None else now - handled)
    assert purge(dry_run=True).calls == 1
    assert purge(pause=NO_PAUSE).calls == 1
    assert left() == {"waits", "lately"}


def test_trk_19_only_what_ended_strictly_before_the_threshold_goes():
    now = read_clock(connections["default"])
    add("at"), add("before"), add("after")
    for call_id, terminal_at in {"at": now, "before": now - timedelta(microseconds=1), "after": now}.items():
        Call.objects.filter(pk=call_id).update(terminal_at=terminal_at)
    assert purge(older_than=now).calls == 1
    assert left() == {"at", "after"}


def test_trk_20_an_open_call_stays_whatever_its_age():
    for status in CallStatus:
        add(status, status, age=1000 * DAY)
    purge(older_than=timedelta(seconds=1), pause=NO_PAUSE)
    assert left() == {"submitted", "started", "retrying"}


def test_trk_21_retention_counts_by_status_and_task():
    add("old", age=8 * DAY), add("young", age=6 * DAY)
    add("parked", CallStatus.PARKED, age=800 * DAY)
    add("report", CallStatus.FAILED, age=80 * DAY, task="reports.build")
    add("report-ok", age=80 * DAY, task="reports.build")
    with override_settings(LRP_CELERY={"RETENTION": {"reports.*:failed": 90 * DAY}}):
        assert purge(pause=NO_PAUSE).calls == 2
    assert left() == {"young", "parked", "report"}


def test_a_time_to_live_of_its_own_outweighs_retention():
    add("spent", age=DAY, purge_at=datetime.now(UTC) - timedelta(seconds=1))
    add("kept", age=80 * DAY, purge_at=datetime.now(UTC) + DAY)
    purge(pause=NO_PAUSE)
    assert left() == {"kept"}


def test_attempts_go_with_their_call_and_only_they():
    for call_id, age in {"old": 8 * DAY, "young": DAY}.items():
        Attempt.objects.create(call=add(call_id, CallStatus.FAILED, age=age), run="r", number=1)
    purge(pause=NO_PAUSE)
    assert list(Attempt.objects.values_list("call_id", flat=True)) == ["young"]


def test_a_dry_run_counts_and_deletes_nothing():
    add("old", age=8 * DAY), add("young")
    assert purge(dry_run=True).calls == 1
    assert left() == {"old", "young"}


def test_chunks_and_a_spent_budget_leave_the_rest_for_the_next_run():
    for number in range(5):
        add(f"{number}", age=8 * DAY)
    first = purge(chunk=2, budget=timedelta(0), pause=NO_PAUSE)
    assert (first.calls, first.complete) == (2, False)
    second = purge(chunk=2, pause=NO_PAUSE)
    assert (second.calls, second.complete) == (3, True)


@pytest.mark.parametrize("bad", [datetime(2026, 1, 1), datetime.now(UTC) + DAY, -DAY])
def test_trk_23_a_threshold_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ConfigurationError):
        purge(older_than=bad)


def test_task_names_are_found_one_by_one():
    for number, task in enumerate("bacab"):
        add(f"{number}", task=task)
    assert list(task_names("default")) == ["a", "b", "c"]


def test_the_task_for_beat_purges_by_the_setting():
    add("old", age=8 * DAY), add("young")
    entry = beat_schedule()["lrp_celery.purge"]
    assert entry["task"] == purge_task.name == "lrp_celery.purge"
    assert purge_task() == 1
    assert left() == {"young"}


# --- Owned calls


def owned(call_id, status=CallStatus.SUCCEEDED, age=timedelta(), **more):
    """An owned call with all that may hang on it."""
    call = add(call_id, status, age, owned=True, **{"target_summary": "(1)", "last_error": "why", **more})
    Payload.objects.create(call=call, message="{}", result="1")
    LogLine.objects.create(call=call, number=1, at=call.updated_at, text="half done")
    Attempt.objects.create(call=call, run="r", number=1, last_error="why")
    return call


def beside():
    """Of which calls there is more than the row."""
    kept = {model: set(model.objects.values_list("call_id", flat=True)) for model in (Payload, Attempt, LogLine)}
    assert len(set(map(frozenset, kept.values()))) == 1, kept
    return kept[Payload]


def since(age):
    return datetime.now(UTC) - age


def test_rule_11_a_call_past_its_time_to_live_is_emptied_and_leaves_a_tombstone():
    over = since(timedelta(seconds=1))
    owned("over", CallStatus.FAILED, purge_at=over, progress="{}", abort_reason="why", error_type="E")
    owned("lives", purge_at=since(-DAY), age=80 * DAY)
    purged = purge(pause=NO_PAUSE)
    assert (purged.calls, purged.emptied, purged.complete) == (0, 1, True)
    assert (left(), beside()) == ({"over", "lives"}, {"lives"})
    call = Call.objects.get(pk="over")
    assert (call.removed_at, call.purge_at, call.version) == (over, None, 1)
    assert [getattr(call, name) for name in BLANKED] == [None] * len(BLANKED)
    assert (call.task, call.status, call.terminal_at is None) == ("t", "failed", False)
    assert purge(pause=NO_PAUSE).emptied == 0


def test_rule_11_a_tombstone_goes_when_it_has_served_its_time():
    for call_id, age in {"served": DAY + timedelta(minutes=1), "serves": DAY - timedelta(minutes=1)}.items():
        add(call_id, owned=True, removed_at=since(age), age=80 * DAY)
        owned(f"{call_id} too", purge_at=since(age), age=80 * DAY)
        add(f"{call_id}, kept", owned=True, until_removed=True, removed_at=since(age))
    assert purge(pause=NO_PAUSE).calls == 3
    assert left() == {"serves", "serves too", "serves, kept"}
    with override_settings(LRP_CELERY={"TOMBSTONE": timedelta(hours=2)}):
        assert purge(pause=NO_PAUSE).calls == 3
    assert left() == set()


def test_a_call_that_is_kept_until_it_is_removed_is_never_purged():
    owned("kept", until_removed=True, age=8000 * DAY)
    owned("parked", CallStatus.PARKED, until_removed=True, age=8000 * DAY)
    assert purge(pause=NO_PAUSE).calls == 0
    assert purge(older_than=DAY, pause=NO_PAUSE).calls == 0
    assert purge_older_than(datetime.now(UTC), using="default") == 0
    assert left() == beside() == {"kept", "parked"}


def test_a_time_to_live_outweighs_an_age_that_somebody_names():
    owned("lives", purge_at=since(-DAY), age=80 * DAY)
    assert purge(older_than=DAY, pause=NO_PAUSE) == Purged(calls=0, complete=True)
    assert left() == {"lives"}


def test_what_is_kept_beside_an_owned_call_goes_with_it_and_only_that():
    owned("old", age=8 * DAY), owned("young", age=6 * DAY), owned("parked", CallStatus.PARKED, age=80 * DAY)
    assert purge(pause=NO_PAUSE).calls == 1
    assert left() == beside() == {"young", "parked"}
    assert purge(older_than=DAY, pause=NO_PAUSE).calls == 2
    assert left() == beside() == set()


def test_rule_11_a_retention_shorter_than_a_tombstone_waits_for_late_copies_of_owned_calls():
    owned("young", age=timedelta(hours=2)), owned("old", age=DAY + timedelta(minutes=1))
    add("observed", age=timedelta(hours=2))
    with override_settings(LRP_CELERY={"RETENTION": {"*": timedelta(hours=1)}}):
        assert purge(pause=NO_PAUSE).calls == 2
    assert left() == {"young"}


@pytest.mark.parametrize("status", [status for status in CallStatus if status.is_open])
def test_trk_20_an_open_owned_call_stays_whatever_its_age(status):
    owned("open", status, age=800 * DAY, purge_at=since(DAY))
    purge(pause=NO_PAUSE)
    purge(older_than=timedelta(seconds=1), pause=NO_PAUSE)
    assert left() == beside() == {"open"}
    assert Call.objects.get().removed_at is None


def test_a_dry_run_counts_what_a_purge_then_does():
    owned("over", purge_at=since(timedelta(minutes=1)))
    owned("long over", purge_at=since(2 * DAY))
    add("served", owned=True, removed_at=since(2 * DAY))
    owned("old", age=8 * DAY), owned("kept", until_removed=True, age=8 * DAY), owned("young")
    dry = purge(dry_run=True)
    assert (len(left()), dry) == (6, Purged(calls=3, emptied=1, complete=True))
    assert purge(pause=NO_PAUSE) == dry
    assert left() == {"over", "kept", "young"}


def test_a_spent_budget_leaves_the_rest_of_emptying_for_the_next_run():
    for number in range(3):
        owned(f"{number}", purge_at=since(timedelta(minutes=1)))
    first = purge(chunk=2, budget=timedelta(0), pause=NO_PAUSE)
    assert (first.emptied, first.complete) == (2, False)
    assert purge(chunk=2, pause=NO_PAUSE).emptied == 1


def test_the_purge_forgets_workers_that_have_been_silent_for_a_day():
    for name, age in {"silent": DAY + timedelta(minutes=1), "alive": DAY - timedelta(minutes=1)}.items():
        seen = since(age)
        Worker.objects.create(boot_id=name, name=name, host="h", pid=1, pool="solo", started_at=seen, seen_at=seen)
    purge(dry_run=True)
    assert Worker.objects.count() == 2
    purge(pause=NO_PAUSE)
    assert list(Worker.objects.values_list("pk", flat=True)) == ["alive"]


def test_a_call_that_is_placed_over_its_tombstone_meanwhile_is_not_purged(monkeypatch):
    store = DjangoTrackingStore()
    owned("id", purge_at=since(timedelta(minutes=1)))
    found = store._find("id", None)
    assert purge(pause=NO_PAUSE).emptied == 1
    monkeypatch.setattr(store, "_find", lambda *_: monkeypatch.undo() or found)
    facts = CallFacts(task="t", target_summary="(2)")
    placed = store.insert(Order(call_id="id", facts=facts, terms=Terms(), message="new"))
    call = Call.objects.get()
    assert (placed.generation, call.generation, call.removed_at, call.target_summary) == (1, 1, None, "(2)")
    assert Payload.objects.get().message == "new"


def command(*args):
    out = StringIO()
    call_command("lrp_purge", *args, stdout=out)
    return out.getvalue()


def test_the_command_takes_ages_and_instants_and_says_what_it_did():
    add("old", age=2 * DAY), add("young")
    assert command("--older-than", "1d", "--dry-run") == "1 calls would be deleted.\n"
    assert command("--older-than", (datetime.now(UTC) - DAY).isoformat()) == "1 calls deleted.\n"
    assert left() == {"young"}


def test_the_command_tells_of_calls_that_were_emptied():
    owned("over", purge_at=since(timedelta(minutes=1)))
    assert command("--dry-run").splitlines() == [
        "0 calls would be deleted.",
        "1 calls whose time to live is over would be emptied.",
    ]
    assert command().splitlines() == ["0 calls deleted.", "1 calls whose time to live is over emptied."]
    assert command() == "0 calls deleted.\n"


@pytest.mark.parametrize("bad", ["7", "1y", "yesterday", "2026-01-01", "999999d", "99999999999d"])
def test_the_command_refuses_what_it_does_not_understand(bad):
    with pytest.raises(CommandError):
        command("--older-than", bad)


def test_the_command_refuses_an_unknown_database():
    with pytest.raises(CommandError, match="nope"):
        command("--database", "nope")


@pytest.fixture(scope="session", params=["postgres", "mysql"])
def server_alias(request):
    return request.getfixturevalue(f"{request.param}_alias")


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_two_purges_at_once_do_not_wait_for_each_other(server_alias):
    then = datetime.now(UTC) - 8 * DAY
    ended = {"task": "t", "status": "succeeded", "enqueued_at": then, "updated_at": then, "terminal_at": then}
    Call.objects.using(server_alias).bulk_create(Call(call_id=f"{number:04}", **ended) for number in range(300))
    done = []

    def other():
        try:
            done.append(purge(using=server_alias, chunk=100, pause=NO_PAUSE).calls)
        finally:
            connections[server_alias].close()

    with transaction.atomic(using=server_alias):
        rows = Call.objects.using(server_alias).select_for_update().order_by("pk")
        mine = set(rows.values_list("pk", flat=True)[:10])
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive(), "the second purge waits for the rows of the first"
    assert done == [290]
    assert left(server_alias) == mine
