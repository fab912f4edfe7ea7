"""The rules of owned calls, one by one: who may run one, who may end it, when somebody must look after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrp_celery.tracking import owned
from lrp_celery.tracking.merge import merge
from lrp_celery.tracking.owned import MAX_LINES, UNREADABLE, Care, Delivery, Note, Settlement, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import (
    Again,
    AttemptRecorded,
    Ended,
    Enqueued,
    ErrorFacts,
    NotRun,
    Outcome,
    PublishFailed,
    Started,
    Stopping,
    TerminalRecorded,
    Unwound,
    Waiting,
)
from lrp_celery.tracking.snapshot import Progress
from lrp_celery.tracking.status import TERMINAL, CallStatus, Reason
from tests.tracking.lives import BAD, CALL_ID, FACTS, NOW, Life, run, seconds

LEASE, AGAIN = 10, 60


def called(**terms):
    life = Life()
    assert life.call(**terms)
    return life


def running(token="a", **terms):
    life = called(**terms)
    assert life.claim(token) == "granted"
    return life


def ended(status=CallStatus.SUCCEEDED, **terms):
    life = running(**terms)
    assert life.settle(status=status)
    return life


def told(kind, retries=0, **details):
    return kind(call_id=CALL_ID, turn=Turn(0, retries), **details)


def dropped(reason, retries=0):
    return told(NotRun, retries, outcome=Outcome(status=CallStatus.DISCARDED, reason=reason))


def said(who, reason, status=CallStatus.FAILED):
    return told(Ended, run=who, outcome=Outcome(status=status, reason=reason, error=BAD))


# --- calling --------------------------------------------------------------------------


def test_a_new_call_waits_for_its_message_and_holds_its_terms():
    life = called(timeout=30, time_to_live=5, grace=2, idempotent=True, max_attempts=4, keep_result=False)
    record = life.record
    assert life.stands == ("submitted", None)
    assert record.owned
    assert (record.generation, record.runs, record.losses, record.sends) == (0, 0, 0, 0)
    assert (record.time_to_live, record.grace, record.idempotent) == (5, 2, True)
    assert (record.max_attempts, record.keep_result, record.until_removed) == (4, False, False)
    assert (record.enqueued_at, record.published_at) == (NOW, NOW)
    assert record.send_at == NOW + seconds(AGAIN)
    assert record.deadline_at == record.attend_at == NOW + seconds(30)
    assert life.payload == {"message": "m0"}


def test_rule_12_an_id_that_has_a_row_is_left_as_it_is():
    life = called()
    before = life.record
    assert not life.call(message="other")
    assert life.claim() == "granted"
    assert not life.call(message="other")
    assert life.settle()
    assert not life.call(message="other")
    assert (life.record.enqueued_at, life.payload["message"]) == (before.enqueued_at, "m0")


def test_rule_23_the_clock_starts_at_the_insert_whatever_the_callers_clock_says():
    facts = replace(FACTS, enqueued_at=NOW - seconds(3600))
    order = owned.Order(call_id=CALL_ID, facts=facts, terms=Terms(timeout=30), message="m")
    merged = owned.place(None, order, NOW, Life().timing)
    assert merged is not None
    assert merged.record.enqueued_at == NOW
    assert merged.record.deadline_at == NOW + seconds(30)


def test_rule_16_what_is_due_much_later_waits_with_us_and_not_in_the_broker():
    soon, late = called(due_in=60), called(due_in=61)
    assert (soon.record.published_at, soon.record.send_at) == (NOW, NOW + seconds(60 + AGAIN))
    assert (late.record.published_at, late.record.send_at) == (None, NOW + seconds(61))
    assert late.passes(60.9).attend() is Care.NOTHING
    assert late.passes(0.1).attend() is Care.SEND


# --- claiming -------------------------------------------------------------------------


def test_a_claim_gives_the_call_to_its_run():
    life = called(idempotent=True)
    claim = life.passes(3).deliver("a")
    assert claim.verdict == "granted"
    record = life.record
    assert life.stands == ("started", None)
    assert (record.run, record.attempt, record.runs, record.worker, record.pid) == ("a", 1, 1, "worker-a", 1)
    assert record.started_at == life.now
    assert record.lease_until == record.attend_at == life.now + seconds(LEASE)
    assert record.acks_late
    assert owned.is_held(record)


def test_a_claim_may_be_repeated_by_its_own_run():
    life = running("a")
    before, writes = life.record, life.writes
    assert life.passes(60).claim("a") == "granted"
    assert (life.record, life.writes) == (before, writes)


def test_a_second_delivery_of_a_running_call_does_not_run():
    life = running("a")
    before = life.record
    assert life.passes(LEASE - 0.001).claim("b") == "held"
    assert life.record == before


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_delivery_of_an_ended_call_does_not_run(status):
    life = ended(status)
    before = life.record
    claim = life.passes(1).deliver("b")
    assert (claim.verdict, claim.record) == ("settled", before)
    assert life.record == before


def test_a_delivery_without_a_row_is_stale_if_it_was_sent_by_call():
    life = Life()
    assert life.claim("a", generation=0) == "stale"
    assert life.known is None


def test_a_plain_publish_makes_its_row_when_it_is_claimed():
    life = Life()
    terms = Terms(timeout=30, idempotent=True)
    assert life.claim("a", generation=None, message="m", terms=terms) == "granted"
    assert (life.record.owned, life.record.deadline_at, life.payload) == (True, NOW + seconds(30), {"message": "m"})
    life.passes(LEASE + 1).attend()
    assert life.attend() is Care.SEND


def test_a_plain_publish_is_owned_from_its_claim_on():
    life = Life()
    life.hear(told(Enqueued, facts=FACTS))
    life.hear(told(Stopping, run=None, reason=Reason.REVOKED))
    assert not life.record.owned
    assert life.claim("a", generation=None, message="m") == "granted"
    assert (life.record.owned, life.record.stop_reason, life.record.attempt) == (True, None, 1)
    assert life.payload == {"message": "m"}
    assert life.settle()


def test_a_run_that_nobody_held_keeps_its_place_when_another_claims():
    life = Life()
    life.hear(told(Enqueued, facts=FACTS))
    life.hear(told(Started, run=run("old", worker="of an old release")))
    assert life.claim("new", generation=None) == "granted"
    assert (life.record.attempt, life.record.run) == (2, "new")
    assert {token: attempt.number for token, attempt in life.runs.items()} == {"old": 1}


def test_the_message_of_a_call_is_not_replaced_by_one_of_its_copies():
    life = called(idempotent=True)
    assert life.claim("a", message="a copy") == "granted"
    assert life.payload == {"message": "m0"}


@pytest.mark.parametrize("generation", [0, None])
def test_a_plain_publish_that_expired_or_was_aborted_ends_when_it_is_claimed(generation):
    life = Life()
    life.hear(told(Enqueued, facts=replace(FACTS, expires_at=NOW + seconds(5))))
    assert life.passes(5).claim(generation=generation) == "settled"
    assert life.stands == ("discarded", "expired")
    life = Life()
    life.hear(told(Enqueued, facts=FACTS))
    assert life.abort()
    assert life.stands == ("submitted", None), "rule 22: it is not ours to stop"
    assert life.claim(generation=generation) == "settled"
    assert life.stands == ("aborted", "aborted")


# --- rule 7: turns --------------------------------------------------------------------


def test_rule_07_a_retry_gives_the_call_up_before_its_message_goes_out():
    life = running("a", idempotent=False)
    assert life.passes(1).retry("a", due_in=30, message="m1")
    record = life.record
    assert life.stands == ("retrying", None)
    assert (record.retries, record.run, record.lease_until) == (1, None, None)
    assert (record.due_at, record.send_at) == (life.now + seconds(30), life.now + seconds(30 + AGAIN))
    assert (record.published_at, record.sends, record.error_type) == (life.now, 0, "ValueError")
    assert life.fates == {"a": "retried"}
    assert life.payload == {"message": "m1"}, "rule 13: replaced at each retry"
    assert not life.settle("a")
    assert life.passes(30).claim("b") == "granted"
    assert (life.record.attempt, life.record.retries, life.record.error_type) == (2, 1, None)


def test_rule_07_a_retry_without_a_message_keeps_the_one_there_is():
    life = running("a")
    assert life.retry("a", message=None)
    assert life.payload == {"message": "m0"}


def test_rule_07_a_copy_of_an_earlier_turn_ends_quietly():
    life = running("a")
    assert life.retry("a")
    before = life.record
    assert life.claim("b", 0) == "stale"
    assert life.record == before
    assert life.claim("c", 1) == "granted"
    assert life.claim("d", 0) == "stale"


def test_rule_07_no_turn_is_claimed_before_it_is_due_and_then_the_relay_sends_it():
    life = running("a")
    assert life.retry("a", due_in=30)
    assert life.passes(10).claim("b") == "early"
    assert life.record.send_at == life.record.due_at == life.now + seconds(20)
    assert life.record.published_at is None
    assert life.passes(20).attend() is Care.SEND
    assert life.claim("b") == "granted", "it was never begun, so it may come again"


def test_clocks_of_workers_may_be_a_little_ahead():
    life = called(due_in=30)
    assert life.passes(24.9).claim("a") == "early"
    assert life.passes(0.1).claim("a") == "granted"


def test_an_early_plain_publish_is_kept_with_its_message():
    life = Life()
    due = replace(FACTS, due_at=NOW + seconds(30))
    assert life.claim("a", generation=None, message="m", facts=due) == "early"
    assert (life.record.owned, life.record.status, life.payload) == (True, CallStatus.SUBMITTED, {"message": "m"})
    assert life.passes(30).attend() is Care.SEND


def test_a_later_turn_than_the_row_knows_is_taken_over_with_its_message():
    life = called()
    assert life.claim("a", 2, message="m2") == "granted"
    assert (life.record.turn, life.payload) == (Turn(0, 2), {"message": "m2"})
    life = running("a")
    assert life.claim("b", 1) == "held"
    due = replace(FACTS, due_at=NOW + seconds(30))
    life = called()
    assert life.claim("a", 1, message="m1", facts=due) == "early"
    assert (life.record.turn, life.record.due_at, life.payload) == (Turn(0, 1), due.due_at, {"message": "m1"})


def test_a_retry_by_who_does_not_hold_the_call_is_refused():
    life = running("a")
    before = life.record
    assert not life.retry("b")
    assert life.record == before
    assert not owned.retry(None, "a", owned.Retry(retries=1, due_at=None, message="m"), NOW, life.timing).applied


# --- rules 7 and 8: death -------------------------------------------------------------


def test_rule_07_what_may_run_twice_is_lost_when_its_lease_has_run_out():
    life = running(idempotent=True)
    life.passes(LEASE - 0.001).attend()
    assert life.stands == ("started", None)
    life.passes(0.001).attend()
    record = life.record
    assert life.stands == ("retrying", None)
    assert (record.losses, record.lease_until, record.due_at, record.published_at) == (1, None, None, None)
    assert record.send_at == record.attend_at == life.now
    assert record.error_type == "WorkerLost"
    assert life.fates == {"a": "interrupted"}


def test_rule_07_what_must_not_run_twice_is_lost_only_with_proof_or_after_three_leases():
    life = running(idempotent=False)
    life.passes(3 * LEASE - 0.001).attend()
    assert life.stands == ("started", None)
    life.passes(0.001).attend()
    assert life.stands == ("failed", "worker_lost")
    assert (life.record.losses, life.fates) == (1, {"a": "failed"})
    life = running(idempotent=False)
    life.attend(is_dead=True)
    assert life.stands == ("failed", "worker_lost")


def test_rule_07_proof_counts_only_for_the_run_that_was_proven_dead():
    life = running("a", idempotent=True)
    life.attend(is_dead=True, run="of before")
    assert life.stands == ("started", None)
    life.attend(is_dead=True, run="a")
    assert life.stands == ("retrying", None)


def test_rule_09_whoever_may_not_judge_sees_to_timeouts_all_the_same():
    life = running(timeout=5, grace=2)
    life.passes(5).attend(may_judge=False)
    assert (life.stands, life.record.stop_reason) == (("started", None), Reason.TIMEOUT)
    # That it goes on, and then that nobody hears of it, is for others to say.
    for patience in (3, 3 * LEASE):
        life.passes(patience).attend(may_judge=False)
        assert life.stands == ("started", None)
    life.attend()
    assert life.stands == ("aborted", "timeout")
    life = running()
    life.attend(is_dead=True, run="a", may_judge=False)
    assert life.stands == ("failed", "worker_lost")


def test_a_renewed_lease_keeps_the_call():
    life = running(idempotent=True)
    for _ in range(5):
        assert life.passes(LEASE - 1).renew("a")
        life.attend()
        assert (life.record.lease_until, life.record.updated_at) == (life.now + seconds(LEASE), life.now)
    assert not life.renew("b")
    assert life.settle("a")
    assert not life.renew("a")


@pytest.mark.parametrize(
    "terms", [{"idempotent": True}, {"idempotent": False}, {"idempotent": True, "max_attempts": 1}]
)
@pytest.mark.parametrize("late", [LEASE - 1, LEASE, 3 * LEASE - 1, 3 * LEASE])
def test_rule_08_a_claim_on_a_lapsed_lease_decides_as_the_rescue_does(terms, late):
    claimed, rescued = running("a", **terms).passes(late), running("a", **terms).passes(late)
    verdict = claimed.claim("b")
    rescued.attend()
    if rescued.record.status is CallStatus.STARTED:
        assert (verdict, claimed.record) == ("held", rescued.record)
    elif rescued.record.status.is_terminal:
        assert (verdict, claimed.record, claimed.runs) == ("settled", rescued.record, rescued.runs)
    else:
        assert rescued.claim("b") == verdict == "granted"
        assert replace(claimed.record, version=0) == replace(rescued.record, version=0)
        assert (claimed.record.losses, claimed.record.attempt, claimed.fates) == (1, 2, {"a": "interrupted"})


def test_rule_08_a_lapsed_lease_past_the_deadline_ends_the_call():
    life = running("a", idempotent=True, timeout=5).passes(LEASE + 1)
    assert life.claim("b") == "settled"
    assert life.stands == ("aborted", "timeout")
    assert life.fates == {"a": "interrupted"}


def test_rule_08_max_attempts_counts_runs_that_ended_by_loss():
    life = called(idempotent=True, max_attempts=3)
    for losses in (1, 2, 3):
        assert life.claim(f"run-{losses}") == "granted"
        life.attend(is_dead=True)
        assert life.record.losses == losses
    assert life.stands == ("failed", "worker_lost")
    assert list(life.fates.values()) == ["interrupted", "interrupted", "failed"]


def test_rule_08_retries_do_not_count_as_losses():
    life = called(idempotent=True, max_attempts=2)
    for number in range(5):
        assert life.claim(f"run-{number}") == "granted"
        assert life.retry(f"run-{number}")
    assert life.record.losses == 0


def test_a_run_that_was_given_up_cannot_claim_again():
    life = running("a", idempotent=True)
    life.attend(is_dead=True)
    assert life.claim("a") == "stale"
    assert life.claim("b") == "granted"
    assert not life.settle("a")


# --- settling -------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_the_holder_settles_and_readers_get_what_he_left(status):
    life = running("a").passes(2)
    assert life.settle("a", status, reason=Reason.MAX_RETRIES if status is CallStatus.PARKED else None)
    record = life.record
    assert (record.status, record.run_outcome, record.terminal_at) == (status, status, life.now)
    assert life.payload.keys() == {"message", "result" if status is CallStatus.SUCCEEDED else "error"}
    assert life.fates == ({} if status is CallStatus.SUCCEEDED else {"a": status})


def test_rule_01_whoever_does_not_hold_the_call_is_refused():
    life = running("a", idempotent=True)
    before = life.record
    assert not life.settle("b")
    assert life.record == before
    life.attend(is_dead=True)
    before, kept = life.record, dict(life.payload)
    assert not life.settle("a")
    assert (life.record, life.payload) == (before, kept)
    assert life.claim("b") == "granted"
    before = life.record
    assert not life.settle("a", CallStatus.FAILED)
    assert life.record == before
    assert not owned.finish(None, "a", Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED)), NOW).applied


def test_rule_10_settling_once_more_says_so_and_changes_nothing():
    for status in sorted(TERMINAL):
        life = ended(status)
        before, kept = life.record, dict(life.payload)
        assert life.passes(1).settle("a", status)
        assert not life.settle("b", status)
        assert not life.settle("a", status, reason=Reason.BAD_RESULT)
        assert (life.record, life.payload) == (before, kept)


def test_rule_10_an_end_by_others_is_not_taken_for_ones_own():
    life = running("a")
    life.attend(is_dead=True)
    assert not life.settle("a", CallStatus.SUCCEEDED)
    assert not life.settle("a", CallStatus.FAILED)
    life = running("a")
    assert life.abort()
    assert life.settle("a", CallStatus.FAILED)
    assert life.settle("a", CallStatus.FAILED), "what an abort request had made of it"
    assert not life.settle("a", CallStatus.SUCCEEDED)


def test_a_result_that_nobody_wants_is_not_kept_but_an_error_is():
    life = running(keep_result=False)
    assert life.settle()
    assert life.payload == {"message": "m0"}
    life = running(keep_result=False)
    assert life.settle(status=CallStatus.FAILED)
    assert life.payload.keys() == {"message", "error"}


def test_lrp_26_the_time_to_live_counts_from_settlement():
    life = running(time_to_live=5).passes(2)
    assert life.settle()
    assert life.record.purge_at == life.now + seconds(5)
    assert not life.record.is_absent(life.now + seconds(4.999999))
    assert life.record.is_absent(life.now + seconds(5))
    assert ended().record.purge_at is None


# --- rules 22 to 25: aborts and timeouts ----------------------------------------------


def test_a_call_that_no_run_holds_is_aborted_at_once_and_never_runs():
    for life in (called(), called(due_in=3600), running("a")):
        if life.record.run:
            assert life.retry("a", due_in=30)
        assert life.passes(1).abort()
        record = life.record
        assert life.stands == ("aborted", "aborted")
        assert (record.abort_requested_at, record.abort_reason, record.abort_by) == (life.now, "wrong month", "ada")
        assert (record.terminal_at, record.attend_at) == (life.now, None)
        assert life.claim("b") == "settled"


def test_lrp_16_a_running_call_is_only_asked():
    life = running("a", grace=5).passes(1)
    assert life.abort(cause=Reason.TIMEOUT)
    assert life.stands == ("started", None)
    assert life.record.abort_requested_at == life.now
    assert life.record.stop_reason is Reason.TIMEOUT
    assert life.record.attend_at == NOW + seconds(5 + 1 + 1), "grace and one second more, before its lease ends"


def test_lrp_20_the_first_request_counts_and_an_ended_call_stays_as_it_is():
    life = running("a")
    assert life.abort("first", "ada")
    assert not life.passes(1).abort("second", "bob")
    assert (life.record.abort_reason, life.record.abort_by) == ("first", "ada")
    life = ended()
    before = life.record
    assert not life.abort()
    assert life.record == before
    assert not owned.request_abort(None, owned.AbortRequest(), NOW).applied


def test_rule_22_an_abort_of_an_observed_call_is_only_noted():
    life = Life()
    life.hear(told(Enqueued, facts=FACTS))
    assert life.abort()
    assert life.stands == ("submitted", None)
    assert (life.record.abort_requested_at, life.record.stop_reason, life.record.attend_at) == (NOW, None, None)


def test_rule_25_a_run_that_returns_after_the_request_has_succeeded():
    life = running("a")
    assert life.abort()
    assert life.settle("a")
    assert life.stands == ("succeeded", None)
    assert "result" in life.payload


@pytest.mark.parametrize("cause", [Reason.ABORTED, Reason.TIMEOUT])
@pytest.mark.parametrize("status", [CallStatus.FAILED, CallStatus.PARKED, CallStatus.DISCARDED, CallStatus.ABORTED])
def test_rule_25_one_that_raises_after_the_request_is_aborted(status, cause):
    life = running("a")
    assert life.abort(cause=cause)
    assert life.settle("a", status)
    assert life.stands == ("aborted", cause)
    assert (life.record.error_type, life.fates) == ("ValueError", {"a": "aborted"})
    assert life.payload == {"message": "m0"}


def test_rule_25_one_that_wants_a_retry_after_the_request_is_aborted():
    life = running("a")
    assert life.abort()
    assert not life.retry("a", due_in=5)
    assert life.stands == ("aborted", "aborted")
    assert life.payload == {"message": "m0"}


def test_rule_25_one_that_is_lost_after_the_request_is_aborted():
    life = running("a", idempotent=True)
    assert life.abort()
    life.passes(LEASE + 1).attend()
    assert life.stands == ("aborted", "aborted")
    life = running("a", idempotent=True)
    assert life.abort()
    assert life.passes(LEASE + 1).claim("b") == "settled"
    assert life.stands == ("aborted", "aborted")


def test_rule_24_a_run_that_goes_on_past_its_grace_is_ended_without_it():
    life = running("a", grace=5)
    assert life.abort()
    for _ in range(5):
        assert life.passes(1).renew("a")
        life.attend()
        assert life.stands == ("started", None)
    life.passes(0.999).attend()
    assert life.stands == ("started", None)
    life.passes(0.001).attend()
    assert life.stands == ("aborted", "aborted")
    assert life.record.error_type == "StillRunning"
    before = life.record
    assert not life.renew("a")
    assert not life.settle("a")
    assert not life.settle("a", CallStatus.ABORTED)
    assert life.record == before


def test_rule_23_a_timeout_needs_no_worker():
    life = called(timeout=30)
    life.passes(29.999).attend()
    assert life.stands == ("submitted", None)
    life.passes(0.001).attend()
    assert life.stands == ("aborted", "timeout")
    life = called(timeout=30).passes(30)
    assert life.claim("a") == "settled"
    assert life.stands == ("aborted", "timeout")


def test_rule_23_a_timeout_asks_a_running_call_as_an_abort_does():
    life = running("a", timeout=30, grace=2)
    assert life.passes(25).renew("a")
    life.passes(5).attend()
    assert life.stands == ("started", None)
    assert (life.record.stop_reason, life.record.abort_by) == (Reason.TIMEOUT, None)
    assert life.renew("a")
    life.passes(3).attend()
    assert life.stands == ("aborted", "timeout")


def test_a_retry_that_waits_past_the_deadline_times_out():
    life = running("a", timeout=30)
    assert life.retry("a", due_in=50)
    assert life.record.attend_at == NOW + seconds(30)
    life.passes(30).attend()
    assert life.stands == ("aborted", "timeout")


def test_a_call_past_its_expiry_that_never_ran_is_discarded():
    life = called(expires_in=30)
    assert life.record.attend_at == NOW + seconds(30)
    life.passes(30).attend()
    assert life.stands == ("discarded", "expired")


def test_a_call_that_has_begun_does_not_expire_and_nobody_is_called_for_it_in_vain():
    life = running("a", expires_in=5, idempotent=True)
    life.passes(LEASE + 1).attend()
    assert life.attend() is Care.SEND
    life.send()
    assert life.record.attend_at == life.now + seconds(AGAIN)
    assert life.claim("b") == "granted"


def test_whoever_means_an_earlier_call_of_the_id_does_nothing_to_the_next():
    life = ended()
    assert life.remove()
    assert life.passes(1).call(message="new")
    assert life.record.generation == 1
    for _ in range(2):
        before = life.record
        assert not life.apply(owned.request_abort(life.known, owned.AbortRequest(generation=0), life.now))
        for when_settled in (False, True):
            assert life.apply(owned.remove(life.known, life.now, when_settled=when_settled, generation=0))
        assert life.record == before
        assert (
            life.apply(owned.request_abort(life.known, owned.AbortRequest(generation=1), life.now))
            is before.status.is_open
        )
    assert life.apply(owned.remove(life.known, life.now, when_settled=False, generation=1))
    assert life.record.removed_at == life.now


# --- rule 11: removal -----------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_rule_11_a_removed_call_is_blank_at_once(status):
    life = ended(status)
    assert life.passes(1).remove()
    record = life.record
    assert (record.removed_at, record.status, record.purge_at) == (life.now, status, None)
    assert (record.target_summary, record.last_error, record.error_type, record.abort_reason) == (None,) * 4
    assert record.is_absent(life.now)
    assert (life.payload, life.runs) == ({}, {})
    before, writes = life.record, life.writes
    assert life.passes(1).remove(), "LRP-23: silent"
    assert (life.record, life.writes) == (before, writes)


def test_lrp_22_an_open_call_is_not_removed():
    for life in (called(), running("a")):
        before = life.record
        assert not life.remove()
        assert life.record == before
    assert owned.remove(None, NOW, when_settled=False).applied


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_rule_36_a_call_may_be_removed_once_it_has_settled(status):
    life = running("a")
    assert not life.remove(when_settled=True)
    assert life.stands == ("started", None)
    writes = life.writes
    assert not life.remove(when_settled=True)
    assert life.writes == writes
    assert life.settle("a", status)
    assert life.record.removed_at == life.now
    assert (life.payload, life.runs) == ({}, {}), "the outcome is not kept beside a tombstone"


def test_rule_36_also_one_that_is_aborted_and_one_that_is_only_observed():
    life = called()
    assert not life.remove(when_settled=True)
    assert life.abort()
    assert life.record.removed_at == life.now
    life = Life()
    life.hear(told(Enqueued, facts=FACTS))
    life.hear(told(Started, run=run("a")))
    assert not life.remove(when_settled=True)
    life.hear(told(Ended, run=run("a"), outcome=Outcome(status=CallStatus.FAILED, error=BAD)))
    assert (life.record.removed_at, life.record.error_type, life.runs) == (life.now, None, {})


def test_rule_11_no_claim_and_no_report_revives_a_removed_call():
    life = ended()
    assert life.remove()
    before = life.record
    for generation in (0, None, 1):
        for retries in (0, 1):
            assert life.claim("b", retries, generation=generation) == "stale"
    for report in (*everything("b"), told(Enqueued, facts=FACTS), told(Started, run=run("z"), facts=FACTS)):
        assert not life.hear(report)
    assert not life.renew("a")
    assert not life.abort()
    assert life.attend() is Care.NOTHING
    assert life.record == before


def test_rule_11_a_call_past_its_time_to_live_is_as_good_as_removed():
    life = ended(time_to_live=5)
    assert life.passes(4.9).claim("b") == "settled"
    assert not life.expire()
    assert life.passes(0.1).claim("b") == "stale"
    assert not life.abort()
    assert life.passes(60).expire()
    assert life.record.removed_at == NOW + seconds(5)
    assert not life.expire()
    life = ended(time_to_live=5).passes(5)
    assert life.remove()
    assert life.record.removed_at == life.now


@pytest.mark.parametrize("gone", ["removed", "expired", "emptied"])
def test_rule_11_the_id_is_free_again_for_the_next_generation(gone):
    life = ended(CallStatus.FAILED, time_to_live=5).passes(5)
    if gone == "removed":
        assert life.remove()
    elif gone == "emptied":
        assert life.expire()
    assert life.passes(1).call(message="new", idempotent=True)
    record = life.record
    assert (record.generation, record.enqueued_at, record.removed_at, record.purge_at) == (1, life.now, None, None)
    assert (record.runs, record.losses, record.run, record.terminal_at) == (0, 0, None, None)
    assert life.payload == {"message": "new"}
    assert life.runs == {}, "the runs of the earlier call are not this one's"
    before = life.record
    assert life.claim("b", generation=0) == "stale"
    assert life.claim("b", generation=None) == "stale"
    assert life.record == before
    assert life.claim("b", generation=1) == "granted"
    assert not life.settle("a")


def test_rule_11_reports_of_an_earlier_generation_do_not_end_the_next():
    life = ended()
    assert life.remove()
    assert life.call()
    assert life.hear(dropped(Reason.REVOKED)), "it counts as not delivered"
    assert not life.hear(said(run("old"), None, CallStatus.SUCCEEDED))
    assert life.stands == ("submitted", None)


def test_what_a_purge_takes():
    timing, later = Life().timing, NOW + seconds(10**9)
    assert not owned.is_purged(called().record, later, later, timing)
    plain = ended().record
    assert owned.is_purged(plain, NOW + seconds(1), NOW, timing)
    assert not owned.is_purged(plain, NOW, NOW, timing)
    assert not owned.is_purged(ended(until_removed=True).record, later, later, timing)
    assert not owned.is_purged(ended(time_to_live=5).record, later, later, timing), "it becomes a tombstone first"
    tomb = ended(until_removed=True)
    assert tomb.remove()
    served = NOW + seconds(timing.tombstone)
    assert not owned.is_purged(tomb.record, NOW, served, timing)
    assert owned.is_purged(tomb.record, NOW, served + seconds(0.001), timing)


# --- looking after: messages ----------------------------------------------------------


def test_rule_16_a_message_that_nobody_claims_is_sent_again_ever_more_seldom():
    life = called()
    for wait in (60, 60, 120, 240, 480):
        assert life.passes(wait - 0.001).attend() is Care.NOTHING
        assert life.passes(0.001).attend() is Care.SEND
        life.send()
    assert (life.record.sends, life.record.published_at) == (5, life.now)
    assert life.claim() == "granted"
    assert life.record.send_at is None


def test_a_message_may_be_put_off_without_being_counted():
    life = called().passes(60)
    life.put_off()
    assert (life.record.sends, life.record.send_at) == (0, life.now + seconds(60))
    assert life.record.published_at == NOW


def test_a_message_that_could_not_be_sent_is_the_relays_as_soon_as_it_is_due():
    life = called(due_in=30)
    assert life.not_sent()
    assert (life.record.send_at, life.record.published_at) == (NOW + seconds(30), None)
    life = called().passes(1)
    assert life.not_sent()
    assert life.attend() is Care.SEND
    life.send()
    assert life.record.send_at == life.now + seconds(60)
    assert life.passes(1).not_sent(), "nor could the relay: it was not sent, so no longer wait follows from it"
    assert (life.record.sends, life.record.send_at) == (0, life.now)
    for nothing in (running("a"), ended()):
        before = nothing.record
        assert not nothing.not_sent()
        assert nothing.record == before
    assert not owned.not_sent(None, NOW).applied


def test_since_when_a_message_stands_in_its_queue():
    life = called()
    assert owned.sent_at(life.record) == NOW
    life.passes(60).send()
    assert owned.sent_at(life.record) == life.now
    assert owned.sent_at(called(due_in=3600).record) == NOW


def test_nobody_looks_after_what_is_not_ours_or_has_ended():
    life = Life()
    assert owned.attend(None, NOW, life.timing) == (None, Care.NOTHING)
    life.hear(told(Enqueued, facts=FACTS))
    assert life.passes(10**6).attend() is Care.NOTHING
    assert ended().passes(10**6).attend() is Care.NOTHING


# --- rule 1: what signals may say -------------------------------------------------------


def everything(token, retries=0):
    """One report of each kind, by somebody who speaks of another run than the holder's, or of none."""
    done = Outcome(status=CallStatus.SUCCEEDED)
    for who in (run(token), None):
        for reason in (None, Reason.WORKER_LOST, Reason.TIME_LIMIT, Reason.REVOKED, Reason.INTERNAL_ERROR):
            yield said(who, reason)
        yield told(Ended, retries, run=who, outcome=done)
        yield told(Ended, retries, run=who, outcome=Again.REQUEUED)
        yield told(Stopping, retries, run=who, reason=Reason.REVOKED, certain=True)
        yield told(Stopping, retries, run=who, reason=Reason.WORKER_LOST)
    for reason in (Reason.REVOKED, Reason.EXPIRED, Reason.UNKNOWN_TASK, Reason.REJECTED, Reason.IGNORED):
        yield dropped(reason, retries)
    yield told(Started, retries, run=run(token))
    yield told(Unwound, retries, run=run(token))
    yield told(Waiting, retries + 1)
    yield told(PublishFailed, retries, error=BAD)
    yield told(AttemptRecorded, retries + 1, status=CallStatus.RETRYING)
    yield told(TerminalRecorded, retries, outcome=done)


def test_rule_01_while_a_run_holds_the_call_nobody_else_is_heard():
    life = running("a", idempotent=True)
    before = life.record
    for report in everything("z"):
        assert not life.hear(report), report
    assert life.record == before
    assert life.settle("a")


def test_rule_01_nor_is_the_run_itself_by_signals_for_it_writes_for_itself():
    life = running("a")
    for report in (said(run("a"), None), said(run("a"), Reason.INTERNAL_ERROR), told(Unwound, run=run("a"))):
        assert not life.hear(report)
    assert not life.hear(told(Ended, run=run("a"), outcome=Again.RETRIED))
    assert not life.hear(told(Stopping, run=run("a"), reason=Reason.REVOKED)), "it may survive that"
    assert not life.hear(told(Stopping, run=run("a"), reason=Reason.WORKER_LOST)), "this is no proof"
    assert life.stands == ("started", None)


def test_rule_01_its_parent_tells_of_its_death_and_the_rescues_rule_decides():
    life = running("a", idempotent=True)
    assert life.hear(said(run("a"), Reason.WORKER_LOST))
    assert (life.stands, life.record.losses, life.record.error_type) == (("retrying", None), 1, "ValueError")
    life = running("a")
    assert life.hear(said(run("a"), Reason.WORKER_LOST))
    assert life.stands == ("failed", "worker_lost")
    life = running("a", idempotent=True)
    assert life.hear(told(Stopping, run=run("a"), reason=Reason.WORKER_LOST, certain=True))
    assert (life.stands, life.record.error_type) == (("retrying", None), "WorkerLost")


def test_rule_01_its_parent_tells_of_the_hard_limit_and_of_a_kill():
    life = running("a", idempotent=True)
    assert life.hear(said(run("a"), Reason.TIME_LIMIT))
    assert (life.stands, life.fates) == (("failed", "time_limit"), {"a": "failed"})
    life = running("a", idempotent=True)
    assert life.hear(told(Stopping, run=run("a"), reason=Reason.REVOKED, certain=True))
    assert (life.stands, life.fates) == (("discarded", "revoked"), {"a": "discarded"})
    for report in (
        said(run("a"), Reason.TIME_LIMIT),
        told(Stopping, run=run("a"), reason=Reason.REVOKED, certain=True),
    ):
        life = running("a")
        assert life.abort(cause=Reason.TIMEOUT)
        assert life.hear(report)
        assert life.stands == ("aborted", "timeout"), "rule 25: it was asked for"


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.EXPIRED, Reason.IGNORED])
def test_rule_01_a_call_that_was_never_claimed_ends_when_its_message_is_dropped(reason):
    life = called()
    assert life.hear(dropped(reason))
    assert life.stands == ("discarded", reason)
    life = running("a")
    assert life.retry("a")
    assert not life.hear(dropped(reason, retries=0)), "of a turn that is over"
    assert not life.hear(dropped(reason, retries=2))
    assert life.hear(dropped(reason, retries=1))
    assert life.stands == ("discarded", reason)


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_TASK, Reason.REJECTED])
def test_rule_01_a_message_that_a_worker_does_not_understand_counts_as_not_delivered(reason):
    life = called()
    for _ in range(UNREADABLE):
        assert life.hear(dropped(reason))
        assert life.stands == ("submitted", None)
        life.now = life.record.send_at
        assert life.attend() is Care.SEND
        life.send()
    assert life.hear(dropped(reason))
    assert life.stands == ("discarded", reason)


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.EXPIRED])
def test_rule_02_a_verdict_of_did_not_run_does_not_end_a_turn_that_has_started(reason):
    life = running("a", idempotent=True)
    assert not life.hear(dropped(reason))
    life.attend(is_dead=True)
    assert life.hear(dropped(reason)), "but neither is a call left hanging whose every message is dropped"
    assert life.stands == ("retrying", None)
    for _ in range(UNREADABLE):
        life.send()
    assert life.hear(dropped(reason))
    assert life.stands == ("discarded", reason)


def test_rule_01_a_worker_that_does_not_know_procedures_may_have_run_it():
    life = called()
    assert life.hear(said(run("old"), None, CallStatus.SUCCEEDED))
    assert life.stands == ("succeeded", None)
    life = called()
    for reason in (Reason.WORKER_LOST, Reason.IGNORED, Reason.REJECTED):
        assert not life.hear(said(run("old"), reason))
    assert not life.hear(told(Ended, run=run("old"), outcome=Again.RETRIED))
    life = running("a", idempotent=True)
    life.attend(is_dead=True)
    assert not life.hear(said(run("old"), None, CallStatus.SUCCEEDED)), "once it was claimed, its runs write themselves"


def test_a_publish_that_failed_is_left_to_the_relay():
    life = called(due_in=30).passes(1)
    assert life.hear(told(PublishFailed, error=ErrorFacts(type="OSError", message="down")))
    record = life.record
    assert (record.published_at, record.send_at, record.error_type) == (None, NOW + seconds(30), "OSError")
    life = running("a")
    assert life.retry("a")
    assert not life.hear(told(PublishFailed, error=BAD)), "that was the turn before"
    assert life.hear(told(PublishFailed, 1, error=BAD))
    assert life.record.send_at == life.now


def test_trk_04_no_report_changes_what_has_ended():
    for status in sorted(TERMINAL):
        life = ended(status)
        before = life.record
        for report in everything("a"):
            assert not life.hear(report)
        assert life.record == before


def test_a_report_with_facts_makes_no_owned_row():
    merged = merge(None, None, told(Started, run=run("a"), facts=FACTS), NOW)
    assert merged is not None
    assert not merged.record.owned


def test_a_delivery_says_all_that_a_claim_needs():
    delivery = Delivery(
        call_id=CALL_ID, turn=Turn(), generation=None, facts=FACTS, terms=Terms(until_removed=True), run=run("a")
    )
    merged, claim = owned.claim(None, delivery, NOW, Life().timing)
    assert merged is not None
    assert claim.record is merged.record
    assert (merged.record.until_removed, merged.record.queue, merged.payload) == (True, "slow", None)


# --- what a run says of itself, and who waits for it ------------------------------------


def noted(life, token, *lines, progress=None):
    return life.apply(owned.note(life.known, token, Note(progress=progress, lines=lines), life.now))


def test_only_the_run_that_holds_the_call_speaks_for_it():
    life = running("a").passes(1)
    half = Progress(done=1, total=2, text="half")
    assert noted(life, "a", "one", progress=half)
    assert (life.record.progress, life.record.lines, life.record.updated_at) == (half, 1, life.now)
    assert noted(life, "a", "two")
    assert (life.record.progress, life.record.lines) == (half, 2)
    assert not noted(life, "b", "three")
    assert life.settle("a")
    assert not noted(life, "a", "three")
    assert life.record.lines == 2
    assert not owned.note(None, "a", Note(), NOW).applied


def test_of_very_many_lines_the_first_are_kept_and_all_are_counted():
    life = running("a")
    merged = owned.note(life.record, "a", Note(lines=("x",) * (MAX_LINES + 5)), NOW).merged
    assert merged is not None
    assert ([line.number for line in merged.lines], merged.record.lines) == (
        list(range(1, MAX_LINES + 1)),
        MAX_LINES + 5,
    )
    more = owned.note(merged.record, "a", Note(lines=("y",)), NOW).merged
    assert more is not None
    assert (more.lines, more.record.lines) == ((), MAX_LINES + 6)


def test_lrp_15_who_waits_is_told_of_the_end_and_of_an_abort_request():
    life = running("a")
    assert not owned.is_news(life.record)
    assert life.abort()
    assert owned.is_news(life.record)
    assert owned.is_news(ended().record)
