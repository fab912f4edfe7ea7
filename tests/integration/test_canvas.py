"""Calls that belong together: who called whom, in which group, and what becomes of the rest."""

import pytest
from celery import chain, chord, group

from tests.integration.cells import BASE, MARIADB, MATRIX, RABBITMQ, SQLITE, THREADS, on

BY_CHILD = "tests.integration.tasks:"


def in_worker(cell, call, script=None):
    """The source of a call that a task made, or that Celery made for it."""
    row = cell.wait_for(call)
    return (row.source_instance_id, script, row.source_node)


@on(BASE, RABBITMQ, THREADS, MARIADB, SQLITE)
def test_a_call_made_by_a_task_names_its_parent_and_its_root(cell):
    call = cell.tasks.parent.delay()
    cell.expect(call, "succeeded")
    child = call.get(timeout=10)
    cell.expect(child, "succeeded", root=call.id, parent=call.id, source=in_worker(cell, child, BY_CHILD + "parent"))


@on(BASE, RABBITMQ, THREADS, MATRIX)
def test_the_steps_of_a_chain_name_the_step_before_them(cell):
    add = cell.tasks.add
    last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    second, first = last.parent, last.parent.parent
    cell.expect(first, "succeeded")
    cell.expect(second, "succeeded", root=first.id, parent=first.id, source=in_worker(cell, second))
    cell.expect(last, "succeeded", root=first.id, parent=second.id, source=in_worker(cell, last))


@on(BASE, RABBITMQ)
def test_the_steps_after_one_that_failed_have_no_row_for_they_were_never_called(cell):
    """Celery tells nobody but its result backend. Rows for them come with the rescue (celery-signals 9.16)."""
    last = chain(cell.tasks.fail.si(), cell.tasks.add.s(2), cell.tasks.add.s(3)).apply_async()
    second, first = last.parent, last.parent.parent
    cell.expect(first, "failed", error="ValueError")
    with pytest.raises(ValueError, match="no"):
        last.get(timeout=10)
    assert cell.has_no_row(second)
    assert cell.has_no_row(last)


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


@on(BASE)
def test_the_body_of_a_chord_whose_member_failed_has_no_row_for_it_was_never_called(cell):
    body = chord([cell.tasks.add.s(1, 1), cell.tasks.fail.si()], cell.tasks.total.s()).apply_async()
    fine, failed = body.parent
    cell.expect(fine, "succeeded", group=body.parent.id)
    cell.expect(failed, "failed", group=body.parent.id, error="ValueError")
    assert cell.has_no_row(body)


# --- Replacing


@on(BASE, RABBITMQ, THREADS, MATRIX)
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


@on(BASE)
def test_a_replacement_counts_its_own_retries(cell):
    call = cell.tasks.replace_by_retrying.delay()
    runs = ["1 replaced", "2 retried celery.exceptions.Retry"]
    cell.expect(call, "succeeded", retries=1, attempt=3, attempts=runs)
