"""Messages that no worker can run, and calls that never become a message."""

import kombu.serialization
import pytest
from kombu.exceptions import OperationalError

from lrp_celery import calls
from tests.integration.cells import BASE, MARIADB, MATRIX, RABBITMQ, SOLO, on

NOWHERE = "redis://127.0.0.1:1/0"


@on(BASE, RABBITMQ, SOLO, MARIADB, MATRIX)
def test_a_task_that_no_worker_knows_is_discarded(cell):
    call = cell.app.send_task("tests.no_such_task", (1,))
    message = "'tests.no_such_task'"
    cell.expect(call, "discarded", "unknown_task", attempt=0, error="KeyError", message=message)


@on(BASE, RABBITMQ)
def test_a_message_of_a_content_type_that_is_not_accepted_is_discarded(cell):
    call = cell.tasks.add.apply_async((1, 1), serializer="pickle")
    error = "kombu.exceptions.ContentDisallowed"
    cell.expect(call, "discarded", "rejected", attempt=0, error=error)


@on(BASE, RABBITMQ)
def test_a_message_that_cannot_be_decoded_leaves_an_open_row_until_silence_is_watched(cell):
    """Celery acknowledges it and tells nobody: see `test_rescue`."""
    kombu.serialization.register("tests-torn", lambda body: "{torn", None, "application/json", "utf-8")
    call = cell.tasks.add.apply_async((1, 1), serializer="tests-torn")
    cell.expect(cell.tasks.add.delay(1, 1), "succeeded")
    cell.expect(call, "submitted", attempt=0)


@on(BASE)
def test_wrong_arguments_are_refused_by_celery_and_make_no_row(cell):
    with pytest.raises(TypeError):
        cell.tasks.total.apply_async((1, 2, 3), task_id="wrong-arguments")
    assert cell.has_no_row("wrong-arguments")


@on(BASE, RABBITMQ)
def test_wrong_arguments_sent_by_name_fail_the_call(cell):
    call = cell.app.send_task("tests.total", (1, 2, 3))
    ended = cell.wait_for(call)
    cell.expect(call, "failed", error="TypeError", pid=ended.pid, true_pids=False)
    assert cell.runs(call) == 0


@on(BASE, SOLO)
def test_keyword_arguments_that_are_none_at_all_are_an_internal_error(cell):
    """Celery's worker believes that such a call succeeded: its only news is task_internal_error."""
    amqp, call_id = cell.app.amqp, f"no-mapping-{cell.name}"
    message = amqp.as_task_v2(call_id, "tests.add", (1, 1), {})
    args, _, embedded = message.body
    with cell.app.producer_or_acquire() as producer:
        amqp.send_task_message(producer, "tests.add", message._replace(body=(args, [["x", 1]], embedded)))
    ended = cell.wait_for(call_id)
    assert (ended.status, ended.reason) == ("failed", "internal_error")
    assert cell.runs(call_id) == 0


@on(BASE)
def test_a_broker_that_is_away_gives_the_caller_celerys_own_error_and_marks_the_row(cell):
    call_id = f"unsent-{cell.name}"
    with cell.app.connection_for_write(NOWHERE) as nowhere, pytest.raises(OperationalError):
        cell.tasks.add.apply_async((1, 1), task_id=call_id, connection=nowhere, retry=False)
    error = "kombu.exceptions.OperationalError"
    row = cell.expect(call_id, "submitted", attempt=0, error=error, published=False)
    assert row.last_error
    assert calls.get(row.call_id).status == "submitted"


@on(BASE)
def test_celerys_own_tasks_get_no_row(cell):
    calls_of_celery = [
        cell.app.send_task("celery.backend_cleanup"),
        cell.app.send_task("celery.accumulate", (1, 2)),
        cell.app.send_task("celery.chord_unlock", ("group", None), {"result": [], "max_retries": 0}),
    ]
    cell.expect(cell.tasks.add.delay(1, 1), "succeeded")
    assert all(map(cell.has_no_row, calls_of_celery))
