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
from django_app.models import Attempt, Call
from django_app.purge import purge, task_names
from django_app.tasks import purge as purge_task
from lrp_celery.core.errors import ConfigurationError
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
    (entry,) = beat_schedule().values()
    assert entry["task"] == purge_task.name == "lrp_celery.purge"
    assert purge_task() == 1
    assert left() == {"young"}


def command(*args):
    out = StringIO()
    call_command("lrp_purge", *args, stdout=out)
    return out.getvalue()


def test_the_command_takes_ages_and_instants_and_says_what_it_did():
    add("old", age=2 * DAY), add("young")
    assert command("--older-than", "1d", "--dry-run") == "1 calls would be deleted.\n"
    assert command("--older-than", (datetime.now(UTC) - DAY).isoformat()) == "1 calls deleted.\n"
    assert left() == {"young"}


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
