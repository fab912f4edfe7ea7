"""How a call ends by itself: it returns, raises, retries, ignores or rejects."""

from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

from lrp_celery.tracking import signals
from tests.integration.cells import BASE, GEVENT, MARIADB, MATRIX, RABBITMQ, SOLO, SQLITE, THREADS, on

EVERYWHERE = (BASE, RABBITMQ, THREADS, GEVENT, SOLO, MARIADB, MATRIX)

# --- Returning and raising


@on(*EVERYWHERE)
def test_a_call_that_returns_has_succeeded(cell):
    call = cell.tasks.add.delay(2, y=3, password="hunter22")
    row = cell.expect(call, "succeeded", task="tests.add", summary="2, y=3, password=[redacted]", published=True)
    assert cell.runs(call) == 1
    assert row.started_at is not None


@on(BASE, RABBITMQ)
def test_a_call_is_shown_as_its_publisher_wants_it_also_by_its_worker(cell):
    ours = cell.tasks.add.apply_async((2,), {"y": 3}, argsrepr="(<two>,)")
    cell.expect(ours, "succeeded", summary="(<two>,), y=3")
    # Of a publisher that does not track, the row is the worker's.
    signals.disconnect()
    try:
        strangers = cell.tasks.add.apply_async((2,), {"y": 3}, argsrepr="(<two>,)")
    finally:
        signals.connect()
    assert cell.wait_for(strangers).target_summary == "(<two>,), y=3"


@on(BASE, THREADS, GEVENT)
def test_a_secret_that_a_map_passes_on_is_neither_shown_nor_in_its_error(cell):
    call = cell.tasks.refuse.starmap([("ada", "hunter22")]).apply_async()
    row = cell.wait_for(call)
    assert row.target_summary == "tests.refuse, 1 item: ('ada', [redacted])"
    assert (row.status, row.last_error) == ("failed", "[redacted] is wrong")
    (attempt,) = cell.attempts(call.id)
    assert "hunter22" not in attempt.traceback


@on(*EVERYWHERE)
def test_a_call_that_raises_has_failed_and_keeps_its_error(cell):
    call = cell.tasks.fail.delay("ValueError", "no such thing")
    cell.expect(call, "failed", error="ValueError", message="no such thing")
    (attempt,) = cell.attempts(call.id)
    assert "ValueError: no such thing" in attempt.traceback


@on(BASE)
def test_an_error_that_names_an_http_status_hands_it_on(cell):
    call = cell.tasks.fail_with_status.delay(404)
    cell.expect(call, "failed", error="tests.integration.tasks.ServiceAnswered", http_status=404)


@on(BASE, RABBITMQ, SQLITE)
def test_a_call_whose_result_nobody_wants_is_tracked_all_the_same(cell):
    cell.expect(cell.tasks.quiet.delay(), "succeeded")
    cell.expect(cell.tasks.add.apply_async((1, 1), ignore_result=True), "succeeded")


@on(BASE)
def test_a_result_that_cannot_be_stored_fails_the_call(cell):
    call = cell.tasks.return_the_unserialisable.delay()
    cell.expect(call, "failed", error="kombu.exceptions.EncodeError")


@on(BASE)
def test_a_call_that_fails_before_its_body_has_failed(cell):
    call = cell.tasks.fail_before_start.delay()
    ended = cell.wait_for(call)
    # A body that never ran tells the truth file nothing.
    cell.expect(call, "failed", error="ValueError", message="not today", pid=ended.pid, true_pids=False)
    assert cell.runs(call) == 0


@on(BASE)
def test_an_exception_that_is_none_fails_the_call(cell):
    call = cell.tasks.fail_oddly.delay()
    cell.expect(call, "failed", error="tests.integration.tasks.NotOfThisWorld")


@on(BASE)
def test_many_calls_at_once_get_one_row_each(cell):
    calls = [cell.tasks.add.delay(number, 1) for number in range(50)]
    for call in calls:
        cell.expect(call, "succeeded")
    assert {cell.runs(call) for call in calls} == {1}


# --- Retries


@on(*EVERYWHERE)
def test_a_call_that_retries_by_itself_has_a_row_for_each_failed_attempt(cell):
    call = cell.tasks.autoretry.delay(2)
    runs = ["1 retried KeyError", "2 retried KeyError"]
    cell.expect(call, "succeeded", retries=2, attempt=3, attempts=runs)
    assert cell.runs(call) == 3


@on(BASE, RABBITMQ, THREADS, GEVENT, SOLO)
def test_a_call_that_asks_for_a_retry_waits_and_then_succeeds(cell):
    call = cell.tasks.retry.delay(1, countdown=2)
    waiting = cell.wait_for(call, lambda row: row.status == "retrying")
    assert (waiting.retries, waiting.terminal_at) == (1, None)
    assert waiting.due_at > datetime.now(UTC)
    runs = ["1 retried celery.exceptions.Retry"]
    cell.expect(call, "succeeded", retries=1, attempt=2, attempts=runs)


@on(BASE)
def test_a_call_that_retries_and_then_raises_has_failed_and_is_not_parked(cell):
    call = cell.tasks.retry_then_fail.delay()
    runs = ["1 retried celery.exceptions.Retry", "2 failed ValueError"]
    cell.expect(call, "failed", retries=1, attempt=2, attempts=runs, error="ValueError")


@on(*EVERYWHERE)
def test_a_call_without_retries_left_is_parked_by_autoretry(cell):
    call = cell.tasks.autoretry.delay(99)
    runs = ["1 retried KeyError", "2 retried KeyError", "3 parked KeyError"]
    cell.expect(call, "parked", "max_retries", retries=2, attempt=3, attempts=runs, error="KeyError")


@on(BASE, RABBITMQ)
def test_a_call_without_retries_left_is_parked_with_the_error_it_named(cell):
    call = cell.tasks.retry_with_cause.delay()
    error = "tests.integration.tasks.ServiceAnswered"
    runs = [f"1 retried {error}", f"2 parked {error}"]
    cell.expect(
        call, "parked", "max_retries", retries=1, attempt=2, attempts=runs, error=error, http_status=503,
        message="the service answered 503",
    )  # fmt: skip


@on(BASE, THREADS, GEVENT)
def test_a_call_without_retries_left_is_parked_when_it_named_no_error(cell):
    call = cell.tasks.retry_bare.delay()
    error = "celery.exceptions.MaxRetriesExceededError"
    runs = ["1 retried celery.exceptions.Retry", f"2 parked {error}"]
    cell.expect(call, "parked", "max_retries", retries=1, attempt=2, attempts=runs, error=error)


@on(BASE)
def test_a_retry_that_could_not_be_published_discards_the_call(cell):
    call = cell.tasks.retry_into_the_void.delay()
    ended = cell.wait_for(call)
    assert "Encode" in ended.error_type or ended.error_type == "TypeError"
    cell.expect(call, "discarded", "publish_failed", error=ended.error_type)
    assert cell.runs(call) == 1


@on(BASE, RABBITMQ, SOLO)
def test_a_call_that_goes_on_after_asking_for_a_retry_ends_as_the_retry_does(cell):
    call = cell.until_running(cell.tasks.retry_without_raising.delay())
    cell.release(call)
    # The first run returned, and yet the call was not over: a later turn was on its way.
    cell.expect(call, "succeeded", retries=1, attempt=2, attempts=["1 succeeded"], pid=ANY)
    assert cell.runs(call) == 2


@on(BASE, RABBITMQ)
def test_retries_that_overtake_the_attempt_before_them_do_not_mix_up_the_call(cell):
    # With two children and no countdown the next attempt may begin before the last one has ended.
    calls = [cell.tasks.autoretry.delay(2) for _ in range(25)]
    runs = ["1 retried KeyError", "2 retried KeyError"]
    for call in calls:
        cell.expect(call, "succeeded", retries=2, attempt=3, attempts=runs)


# --- Ignore and Reject


@on(BASE, RABBITMQ, THREADS, GEVENT, SOLO, MATRIX)
def test_a_call_that_ignores_itself_is_discarded(cell):
    cell.expect(cell.tasks.ignore.delay(), "discarded", "ignored")


@on(BASE, RABBITMQ, MATRIX)
def test_a_call_that_rejects_its_message_is_discarded(cell):
    # Celery 5.7 sends a failure for it, from another process; 5.6 none.
    cell.expect(cell.tasks.reject.delay(), "discarded", "rejected")
    cell.expect(cell.tasks.reject_late.delay(), "discarded", "rejected")


@on(BASE, RABBITMQ)
def test_a_message_given_back_late_is_run_again(cell):
    call = cell.tasks.reject_once.delay()
    cell.expect(call, "succeeded", attempt=2, attempts=["1 requeued"])


@on(BASE, RABBITMQ)
def test_a_message_given_back_too_late_is_lost_and_the_call_discarded(cell):
    # It was acknowledged when the call began: there is nothing that the broker could deliver again.
    cell.expect(cell.tasks.reject.delay(requeue=True), "discarded", "rejected")


# --- Asked for later, asked for twice


@on(BASE, RABBITMQ, THREADS, GEVENT, SOLO, SQLITE)
def test_a_countdown_is_when_the_call_is_due(cell):
    before = datetime.now(UTC)
    call = cell.tasks.add.apply_async((1, 1), countdown=1)
    row = cell.find(call.id)
    assert row.status == "submitted"
    assert timedelta(seconds=0.9) < row.due_at - before < timedelta(seconds=2)
    ended = cell.expect(call, "succeeded")
    # Timers of gevent count from when its loop last looked at the clock.
    assert ended.started_at > row.due_at - timedelta(seconds=0.1)


@on(BASE, RABBITMQ, THREADS, GEVENT)
def test_the_second_of_two_messages_with_one_id_is_a_late_run_of_the_same_call(cell):
    first = cell.tasks.add.apply_async((1, 1), task_id=f"twice-{cell.name}")
    ended = cell.wait_for(first)
    cell.tasks.fail.apply_async(task_id=first.id)
    runs = ["2 late failed ValueError"]
    cell.expect(first, "succeeded", attempts=runs, late_runs=1, task="tests.add", pid=ended.pid)
    assert cell.runs(first) == 2
