"""Calls that belong together: who called whom, in which group, and what becomes of the rest."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from celery import chain, chord, group, signature

from tests.integration import hostile
from tests.integration.cells import BASE, GEVENT, MARIADB, MATRIX, RABBITMQ, SQLITE, THREADS, on
from tests.integration.harness import eventually

BY_CHILD = "tests.integration.tasks:"


def in_worker(cell, call, script=None):
    """The source of a call that a task made, or that Celery made for it."""
    row = cell.wait_for(call)
    return (row.source_instance_id, script, row.source_node)


@on(BASE, RABBITMQ, THREADS, GEVENT, MARIADB, SQLITE)
def test_a_call_made_by_a_task_names_its_parent_and_its_root(cell):
    call = cell.tasks.parent.delay()
    cell.expect(call, "succeeded")
    child = call.get(timeout=10)
    cell.expect(child, "succeeded", root=call.id, parent=call.id, source=in_worker(cell, child, BY_CHILD + "parent"))


@on(BASE, RABBITMQ, THREADS, GEVENT, MATRIX)
def test_the_steps_of_a_chain_name_the_step_before_them(cell):
    add = cell.tasks.add
    last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    second, first = last.parent, last.parent.parent
    cell.expect(first, "succeeded")
    cell.expect(second, "succeeded", root=first.id, parent=first.id, source=in_worker(cell, second))
    cell.expect(last, "succeeded", root=first.id, parent=second.id, source=in_worker(cell, last))


def never_sent(cell, call, after, status, relation="the step before it", *, called=None, **expected):
    """A call that was to follow, and is not sent any more; `called`: what was run under the id of the one before."""
    message = f"Never sent: {called or after.task} {after.call_id}, {relation}, ended as {status}."
    nowhere = {"queue": None, "source": (None, None, None), "published": False}
    return cell.expect(call, "discarded", "lost", attempt=0, message=message, **nowhere, **expected)


@on(BASE, RABBITMQ, THREADS, GEVENT, SQLITE, MARIADB)
def test_the_steps_after_one_that_failed_end_with_it_for_they_are_never_sent(cell):
    last = chain(cell.tasks.fail.si(), cell.tasks.add.s(2), cell.tasks.add.s(y=3)).apply_async()
    second, first = last.parent, last.parent.parent
    row = cell.expect(first, "failed", error="ValueError")
    never_sent(cell, second, row, "failed", root=first.id, parent=first.id, task="tests.add", summary="<result>, 2")
    after_both = {"root": first.id, "parent": second.id, "task": "tests.add", "summary": "<result>, y=3"}
    never_sent(cell, last, row, "failed", "an earlier step", **after_both)


@on(BASE)
def test_what_a_later_step_would_have_got_is_redacted_by_the_parameter_that_it_would_have_been(cell):
    last = chain(cell.tasks.fail.si(), cell.tasks.refuse.s("hunter2")).apply_async()
    row = cell.wait_for(last.parent)
    family = {"root": row.call_id, "parent": row.call_id}
    never_sent(cell, last, row, "failed", **family, task="tests.refuse", summary="<result>, [redacted]")


@on(BASE)
def test_the_steps_after_one_whose_retries_are_exhausted_end_only_then(cell):
    last = chain(cell.tasks.retry_bare.si(), cell.tasks.add.s(2)).apply_async()
    row = cell.wait_for(last.parent)
    assert row.status == "parked"
    never_sent(cell, last, row, "parked", root=row.call_id, parent=row.call_id)
    # Both are told by their age, each from a moment of its own.
    assert cell.find(last.id).terminal_at > row.terminal_at - timedelta(seconds=0.5)


@on(BASE)
@pytest.mark.parametrize("how", ["killed", "limited", "ignored", "rejected", "expired", "unknown", "unwound"])
def test_the_steps_after_one_that_ended_otherwise_end_with_it(cell, how):
    tasks = cell.tasks
    steps = {
        "killed": (tasks.die.si("sigkill"), "failed"),
        "limited": (tasks.hard_limit.si().set(time_limit=0.5), "failed"),
        "ignored": (tasks.ignore.si(), "discarded"),
        "rejected": (tasks.reject.si(), "discarded"),
        "expired": (tasks.add.si(1, 1).set(expires=datetime.now(UTC) - timedelta(seconds=1)), "discarded"),
        "unknown": (signature("tests.no_such_task", app=cell.app), "discarded"),
        "unwound": (tasks.fail_oddly.si(), "failed"),
    }
    step, status = steps[how]
    last = chain(step, tasks.add.s(2)).apply_async()
    row = cell.wait_for(last.parent)
    assert row.status == status
    never_sent(cell, last, row, status, root=row.call_id, parent=row.call_id)


@on(BASE)
@pytest.mark.parametrize("kill", ["SIGTERM", "SIGKILL"])
def test_the_steps_after_one_that_was_revoked_end_once_it_has_ended(cell, kill):
    last = chain(cell.tasks.held.si(), cell.tasks.add.s(2)).apply_async()
    first = cell.until_running(last.parent)
    first.revoke(terminate=True, signal=kill)
    row = cell.wait_for(first)
    assert (row.status, row.reason) == ("discarded", "revoked")
    never_sent(cell, last, row, "discarded", root=row.call_id, parent=row.call_id)


@on(BASE)
def test_the_steps_after_one_that_does_not_heed_its_revoke_are_sent(cell):
    last = chain(cell.tasks.stubborn.si(), cell.tasks.add.si(1, 2)).apply_async()
    first = cell.until_running(last.parent)
    first.revoke(terminate=True)
    cell.wait_for(first, lambda row: row.stop_reason == "revoked")
    assert cell.has_no_row(last)
    cell.release(first)
    cell.expect(last, "succeeded", root=first.id, parent=first.id, source=in_worker(cell, last))


@on(BASE)
def test_every_member_of_a_group_and_the_body_after_it_end_with_the_step_before_them(cell):
    add = cell.tasks.add
    last = chain(cell.tasks.fail.si(), group(add.s(1), add.s(2)), cell.tasks.total.s(), add.s(3)).apply_async()
    body, members = last.parent, list(last.parent.parent)
    row = cell.wait_for(last.parent.parent.parent)
    family = {"root": row.call_id}
    for member in members:
        never_sent(cell, member, row, "failed", **family, parent=row.call_id, group=last.parent.parent.id)
    never_sent(cell, body, row, "failed", **family, parent=row.call_id, task="tests.total")
    never_sent(cell, last, row, "failed", "an earlier step", **family, parent=body.id)


@on(BASE)
def test_what_an_errback_does_has_a_row_of_its_own(cell):
    last = chain(cell.tasks.fail.si(), cell.tasks.add.s(2)).apply_async(link_error=cell.tasks.quiet.si())
    row = cell.wait_for(last.parent)
    never_sent(cell, last, row, "failed", root=row.call_id, parent=row.call_id)
    (errback,) = eventually("the errback is called", lambda: cell.found(task="tests.quiet", root_id=row.call_id))
    cell.wait_for(errback.call_id, lambda row: row.status == "succeeded")


@on(BASE)
def test_the_steps_after_a_procedure_that_failed_end_with_it(cell):
    last = chain(hostile.meets.si(fails=True), cell.tasks.add.s(2)).apply_async()
    row = cell.wait_for(last.parent)
    assert (row.owned, row.status) == (True, "failed")
    never_sent(cell, last, row, "failed", root=row.call_id, parent=row.call_id)


@on(BASE, RABBITMQ, SQLITE)
def test_the_members_of_a_group_name_it(cell):
    result = group(cell.tasks.add.s(number, 1) for number in range(4)).apply_async()
    for member in result:
        row = cell.wait_for(member)
        cell.expect(
            member, "succeeded", group=result.id, root=row.root_id, parent=None,
        )  # fmt: skip
        assert row.root_id == member.id


@on(BASE, RABBITMQ)
def test_a_chord_is_its_members_and_one_body(cell):
    body = chord([cell.tasks.add.s(1, 1), cell.tasks.add.s(2, 2)], cell.tasks.total.s()).apply_async()
    assert body.get(timeout=10) == 6
    members = list(body.parent)
    for member in members:
        cell.expect(member, "succeeded", group=body.parent.id)
    row = cell.wait_for(body)
    assert row.parent_id in {member.id for member in members}
    cell.expect(
        body, "succeeded", task="tests.total", group=row.group_id, parent=row.parent_id, root=row.root_id,
        source=in_worker(cell, body),
    )  # fmt: skip


@on(BASE, RABBITMQ)
def test_the_body_of_a_chord_whose_member_failed_ends_with_it_and_so_do_the_steps_after(cell):
    add, total, failing = cell.tasks.add, cell.tasks.total, cell.tasks.fail.si()
    failing.set(task_id=f"failing-{uuid.uuid4()}")
    last = (chord([add.s(1, 1), failing], total.s()) | add.s(5)).apply_async()
    row = cell.wait_for(failing.id)
    assert row.status == "failed"
    # Its result is not to be had from that of the last one.
    (body,) = eventually("the body has a row", lambda: cell.found(task="tests.total", root_id=row.call_id))
    never_sent(cell, body.call_id, row, "failed", "a member of its chord", root=row.call_id, parent=row.call_id)
    # Celery says that the last of them is of the chord's group.
    last_one = {"root": row.call_id, "parent": body.call_id, "group": row.group_id}
    never_sent(cell, last, row, "failed", "an earlier step", **last_one)


@on(BASE)
def test_the_body_after_a_chain_that_is_a_member_of_a_chord_ends_with_the_chain(cell):
    member = chain(cell.tasks.fail.si(), cell.tasks.add.s(1))
    body = chord([cell.tasks.add.s(1, 1), member], cell.tasks.total.s()).apply_async()
    second = body.parent.results[1]
    row = cell.wait_for(second.parent)
    assert row.status == "failed"
    group_id = body.parent.id
    never_sent(cell, second, row, "failed", root=row.call_id, parent=row.call_id, group=group_id)
    never_sent(cell, body, row, "failed", "an earlier step", root=row.call_id, parent=second.id, group=group_id)


# --- Replacing


@on(BASE, RABBITMQ, THREADS, GEVENT, MATRIX)
def test_a_call_replaced_by_a_task_is_one_call_that_ends_as_that_task_does(cell):
    call = cell.tasks.replace.delay("task")
    cell.expect(call, "succeeded", attempt=2, attempts=["1 replaced"], task="tests.replace")
    assert call.get(timeout=10) == 3


@on(BASE, RABBITMQ)
def test_a_call_replaced_by_a_chain_ends_with_its_last_step(cell):
    call = cell.tasks.replace.delay("chain")
    cell.expect(call, "succeeded", attempt=2, attempts=["1 replaced"])
    assert call.get(timeout=10) == 7


@on(BASE, RABBITMQ)
def test_a_call_replaced_by_a_group_ends_when_the_whole_group_has(cell):
    call = cell.tasks.replace.delay("group")
    ended = cell.wait_for(call)
    # The last run is celery.accumulate's, which writes no truth.
    cell.expect(call, "succeeded", attempt=2, attempts=["1 replaced"], pid=ended.pid)
    assert call.get(timeout=10) == [3, 7]


@on(BASE, RABBITMQ)
@pytest.mark.parametrize("by", ["failing chain", "failing group"])
def test_a_call_replaced_by_what_fails_before_its_last_part_ends_with_it(cell, by):
    call = cell.tasks.replace.delay(by)
    row = cell.expect(
        call, "discarded", "lost", attempt=1, attempts=["1 replaced"], error=None, message=cell.wait_for(call).last_error
    )  # fmt: skip
    assert row.last_error.startswith("Never sent: tests.fail ")


@on(BASE)
def test_the_steps_after_a_replaced_call_that_fails_end_with_it(cell):
    last = chain(cell.tasks.replace.si("failing task"), cell.tasks.add.s(2)).apply_async()
    row = cell.wait_for(last.parent)
    assert row.status == "failed"
    never_sent(cell, last, row, "failed", called="tests.fail", root=row.call_id, parent=row.call_id)


@on(BASE)
def test_a_replacement_counts_its_own_retries(cell):
    call = cell.tasks.replace_by_retrying.delay()
    runs = ["1 replaced", "2 retried celery.exceptions.Retry"]
    cell.expect(call, "succeeded", retries=1, attempt=3, attempts=runs)
