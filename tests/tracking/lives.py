"""One owned call, lived through by the pure rules: what is written is checked each time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lrp_celery.tracking import owned
from lrp_celery.tracking.merge import merge
from lrp_celery.tracking.owned import (
    AbortRequest,
    Care,
    Changed,
    Claim,
    Delivery,
    Order,
    Retry,
    Settlement,
    Terms,
    Timing,
)
from lrp_celery.tracking.record import AttemptRecord, CallRecord, Turn
from lrp_celery.tracking.reports import CallFacts, ErrorFacts, Outcome, Report, RunFacts
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.steps import Merged

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL_ID = "the-call"
FACTS = CallFacts(task="tasks.report", queue="slow", target_summary="(1)")
BAD = ErrorFacts(type="ValueError", message="bad", traceback="Traceback …")
#: What must never change again once a call has ended, except that it is removed.
FINAL = ("status", "reason", "terminal_at", "retries", "nesting", "attempt", "worker", "started_at", "run", "losses")


def run(token: str, **facts: Any) -> RunFacts:
    return RunFacts(token=token, **facts)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class Life:
    """The row of a call with what is kept beside it, and a clock."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.now = NOW
        self.timing = timing or Timing()
        self.known: CallRecord | None = None
        self.payload: dict[str, str | None] = {}
        self.runs: dict[str, AttemptRecord] = {}
        self.writes = 0

    @property
    def record(self) -> CallRecord:
        assert self.known is not None
        return self.known

    @property
    def stands(self) -> tuple[str, str | None]:
        """Status and reason."""
        return self.record.status.value, self.record.reason

    @property
    def fates(self) -> dict[str, str | None]:
        return {token: attempt.outcome for token, attempt in self.runs.items()}

    def passes(self, count: float) -> Life:
        self.now += seconds(count)
        return self

    # --- calling

    def call(
        self, *, due_in: float | None = None, expires_in: float | None = None, message: str = "m0", **terms: Any
    ) -> bool:
        facts = replace(FACTS, due_at=self.within(due_in), expires_at=self.within(expires_in))
        order = Order(call_id=CALL_ID, facts=facts, terms=Terms(**terms), message=message)
        merged = owned.place(self.known, order, self.now, self.timing)
        self.write(merged)
        return merged is not None

    def within(self, count: float | None) -> datetime | None:
        return None if count is None else self.now + seconds(count)

    # --- running

    def deliver(
        self,
        token: str = "a",
        retries: int | None = None,
        *,
        generation: int | None = 0,
        nesting: int = 0,
        message: str | None = None,
        facts: CallFacts = FACTS,
        terms: Terms | None = None,
    ) -> Claim:
        """A message arrives; without `retries` it is of the present turn."""
        turn = self.record.turn if retries is None and self.known else Turn(nesting, retries or 0)
        delivery = Delivery(
            call_id=CALL_ID,
            turn=turn,
            generation=generation,
            facts=facts,
            terms=terms or Terms(),
            run=run(token, worker=f"worker-{token}", pid=1, acks_late=True),
            message=message,
        )
        merged, claim = owned.claim(self.known, delivery, self.now, self.timing)
        self.write(merged)
        if merged is not None:
            assert claim.record == merged.record
        return claim

    def claim(self, token: str = "a", retries: int | None = None, **more: Any) -> str:
        return self.deliver(token, retries, **more).verdict.value

    def renew(self, token: str = "a") -> bool:
        record = owned.renewed(self.record, token, self.now, self.timing)
        self.write(None if record is None else Merged(record))
        return record is not None

    def settle(self, token: str = "a", status: CallStatus = CallStatus.SUCCEEDED, **outcome: Any) -> bool:
        is_good = status is CallStatus.SUCCEEDED
        error = {} if is_good else {"error": BAD}
        settlement = Settlement(
            outcome=Outcome(status=status, **{**error, **outcome}),
            result='{"a": 1}' if is_good else None,
            error=None if is_good else '{"type": "ValueError"}',
        )
        return self.apply(owned.finish(self.known, token, settlement, self.now))

    def retry(self, token: str = "a", *, due_in: float | None = None, message: str | None = "m1") -> bool:
        wish = Retry(retries=self.record.retries + 1, due_at=self.within(due_in), message=message, error=BAD)
        return self.apply(owned.retry(self.known, token, wish, self.now, self.timing))

    # --- from outside

    def abort(self, reason: str | None = "wrong month", by: str | None = "ada", cause: Reason = Reason.ABORTED) -> bool:
        return self.apply(owned.request_abort(self.known, AbortRequest(reason=reason, by=by, cause=cause), self.now))

    def remove(self, *, when_settled: bool = False) -> bool:
        return self.apply(owned.remove(self.known, self.now, when_settled=when_settled))

    def expire(self) -> bool:
        merged = owned.expire(self.record, self.now)
        self.write(merged)
        return merged is not None

    def hear(self, report: Report) -> bool:
        merged = merge(self.known, self.runs.get(getattr(getattr(report, "run", None), "token", "")), report, self.now)
        self.write(merged)
        return merged is not None

    # --- looking after

    def attend(self, *, is_dead: bool = False, run: str | None = None, may_judge: bool = True) -> Care:
        merged, care = owned.attend(self.known, self.now, self.timing, is_dead=is_dead, run=run, may_judge=may_judge)
        self.write(merged)
        return care

    def send(self) -> None:
        self.write(owned.sent(self.record, self.now, self.timing))

    def put_off(self) -> None:
        self.write(owned.put_off(self.record, self.now, self.timing))

    def not_sent(self) -> bool:
        return self.apply(owned.not_sent(self.known, self.now))

    # --- the store

    def apply(self, changed: Changed) -> bool:
        self.write(changed.merged)
        return changed.applied

    def write(self, merged: Merged | None) -> None:
        if merged is None:
            return
        before, after = self.known, merged.record
        assert_sound(after)
        if before is not None and before.status.is_terminal and before.generation == after.generation:
            assert {name: getattr(after, name) for name in FINAL} == {name: getattr(before, name) for name in FINAL}
        self.known = replace(after, version=0 if before is None else before.version + 1)
        if merged.forgets_runs:
            self.runs = {}
        self.runs |= {attempt.run: attempt for attempt in merged.attempts}
        self.payload = {name: text for name, text in (self.payload | dict(merged.payload or {})).items() if text}
        self.writes += 1
        if after.removed_at is not None:
            assert (self.payload, self.runs) == ({}, {})


def assert_sound(record: CallRecord) -> None:
    """What holds of each row, whatever has happened."""
    assert record.status.is_terminal == (record.terminal_at is not None)
    assert record.status.is_terminal or record.reason is None
    assert record.removed_at is None or record.status.is_terminal
    if not record.owned:
        assert record.attend_at is None
        return
    if record.status.is_terminal:
        assert (record.attend_at, record.lease_until, record.send_at) == (None, None, None)
        return
    assert record.attend_at is not None, "left hanging: nobody would ever look after it"
    assert record.attend_at == owned.attended(record).attend_at
    assert (record.lease_until is not None) == (record.status is CallStatus.STARTED) == owned.is_held(record)
    assert (record.send_at is None) == owned.is_held(record), "neither held nor to be sent, or both"
    assert record.losses < max(record.max_attempts, 1)
