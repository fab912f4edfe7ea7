"""One owned call through anything that may happen to it, in any order, and what always holds.

`LRP_HYPOTHESIS=thorough` looks at many more histories, other ones each time; `quick` does not
look for the shortest one that fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from lrp_celery.tracking.owned import Care, attend, is_held
from lrp_celery.tracking.record import CallRecord, Turn
from lrp_celery.tracking.reports import (
    Again,
    AttemptRecorded,
    Ended,
    Enqueued,
    NotRun,
    Outcome,
    PublishFailed,
    Report,
    Started,
    Stopping,
    TerminalRecorded,
    Unwound,
    Waiting,
)
from lrp_celery.tracking.status import OPEN, TERMINAL, CallStatus, Reason
from tests.tracking.lives import BAD, CALL_ID, FACTS, FINAL, Life, run, seconds

THOROUGH = os.environ.get("LRP_HYPOTHESIS") == "thorough"
QUICK = os.environ.get("LRP_HYPOTHESIS") == "quick"

#: Which run is meant: the one that holds the call (or did last), the one before it, one that nobody has heard of.
WHO = st.sampled_from(["holder", "holder", "holder", "before", "stranger"])
SPANS = st.sampled_from([0.5, 4.0, 9.9, 10.0, 12.0, 20.0, 31.0, 61.0, 400.0])
ENDS = st.sampled_from(sorted(TERMINAL))
CAUSES = st.sampled_from([Reason.ABORTED, Reason.TIMEOUT])
TERMS = st.fixed_dictionaries(
    {
        "idempotent": st.booleans(),
        "max_attempts": st.integers(1, 4),
        "timeout": st.sampled_from([None, None, None, 25.0, 100.0]),
        "time_to_live": st.sampled_from([None, 15.0]),
        "until_removed": st.booleans(),
        "grace": st.sampled_from([2.0, 10.0]),
        "keep_result": st.booleans(),
        "due_in": st.sampled_from([None, None, None, 20.0, 300.0]),
        "expires_in": st.sampled_from([None, None, 15.0]),
    }
)

Draw = Callable[[st.SearchStrategy[Any]], Any]


def told(draw: Draw, token: str | None, turn: Turn | None) -> Report:
    """Whatever a signal may tell."""
    reason = draw(st.sampled_from([Reason.WORKER_LOST, Reason.TIME_LIMIT, Reason.REVOKED, None, *sorted(Reason)]))
    outcome = Outcome(status=draw(ENDS), reason=reason, error=BAD)
    who = None if token is None else run(token)
    weighty, others = (Ended, Stopping, NotRun), (Enqueued, Waiting, PublishFailed, Started, Unwound)
    kind: type[Any] = draw(st.sampled_from([*weighty, *weighty, *others, AttemptRecorded, TerminalRecorded]))
    by_kind: dict[type[Any], dict[str, Any]] = {
        PublishFailed: {"error": BAD},
        Started: {"run": who or run("a")},
        Unwound: {"run": who or run("a")},
        Ended: {"run": who, "outcome": draw(st.sampled_from([outcome, outcome, outcome, *Again]))},
        Stopping: {"run": who, "reason": reason or Reason.REVOKED, "certain": draw(st.booleans())},
        NotRun: {"outcome": outcome},
        AttemptRecorded: {"status": draw(st.sampled_from(sorted(OPEN)))},
        TerminalRecorded: {"outcome": outcome},
    }
    facts = draw(st.sampled_from([None, FACTS]))
    report: Report = kind(call_id=CALL_ID, turn=turn, facts=facts, **by_kind.get(kind, {}))
    return report


@dataclass(frozen=True)
class Grant:
    """A claim that was granted."""

    generation: int
    turn: Turn
    token: str


class Story:
    """Callers, workers, a caretaker and the purge, each at any moment; each checks what came of what it did."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.life = Life()
        self.grants: list[Grant] = []
        self.heard_at: dict[str, datetime] = {}
        """When a run last showed that it lives."""
        self.final: dict[str, Any] | None = None
        self.tokens = 0
        assert self.life.call(**draw(TERMS))

    @property
    def record(self) -> CallRecord:
        return self.life.record

    def token(self, who: str) -> str:
        known = [self.record.run, *(grant.token for grant in reversed(self.grants))]
        heard = list(dict.fromkeys(token for token in known if token))
        place = {"holder": 0, "before": 1}.get(who)
        if place is not None and place < len(heard):
            return heard[place]
        self.tokens += 1
        # Of two tokens of a call the later one need not sort later: its worker's clock may be behind.
        return f"{'ba'[self.tokens % 2]}{self.tokens}"

    def someone(self) -> str:
        return self.token(self.draw(WHO))

    # --- callers

    def somebody_calls_once_more(self) -> None:
        if self.record.status.is_terminal:
            if self.draw(st.booleans()):
                self.somebody_removes_it()
            else:
                self.life.passes(20)
        before = self.record
        was_free = before.is_absent(self.life.now)
        assert self.life.call(message="again", **self.draw(TERMS)) == was_free
        if was_free:
            assert self.record.generation == before.generation + 1
            assert (self.life.runs, self.life.payload) == ({}, {"message": "again"})
            self.final = None
        else:
            assert self.record == before

    def somebody_aborts(self) -> None:
        before, now = self.record, self.life.now
        applied = self.life.abort(cause=self.draw(CAUSES))
        assert applied == (before.status.is_open and before.abort_requested_at is None)
        if applied:
            assert self.record.abort_requested_at == now
            assert self.record.status.is_terminal == (not is_held(before))

    def somebody_removes_it(self) -> None:
        before = self.record
        removed = self.life.remove(when_settled=self.draw(st.booleans()))
        assert removed == (before.status.is_terminal or before.is_absent(self.life.now))
        assert removed == self.record.is_absent(self.life.now)

    # --- workers

    def a_worker_takes_it(self) -> None:
        self.delivered(self.token("stranger"), 0, 0)

    def its_lease_lapses_and_a_worker_takes_it(self) -> None:
        self.life.passes(self.life.timing.lease)
        self.delivered(self.token("stranger"), 0, 0)

    def some_copy_of_its_message_comes(self) -> None:
        turn, generation = st.sampled_from([-1, 0, 0, 1]), st.sampled_from([None, -1, 0, 0])
        self.delivered(self.someone(), self.draw(turn), self.draw(generation))

    def delivered(self, token: str, turn: int, generation: int | None) -> None:
        before, now = self.record, self.life.now
        retries = max(before.retries + turn, 0)
        said = None if generation is None else max(before.generation + generation, 0)
        verdict = self.life.claim(token, retries, generation=said, message="copy")
        after = self.record
        if after.losses > before.losses:
            assert self.has_vanished(before)
        if before.is_absent(now) or (said or 0) < before.generation or retries < before.retries:
            assert verdict in {"stale", "settled"}
            assert after == before
        if verdict == "granted":
            assert after.run == token
            assert is_held(after)
            assert before.status.is_open
            if before.run != token or not is_held(before):
                self.granted(before, token)
        else:
            assert not is_held(after) or after.run == before.run

    def granted(self, before: CallRecord, token: str) -> None:
        after = self.record
        assert after.abort_requested_at is None, "a run began although somebody had asked for the end"
        if is_held(before):
            assert self.has_vanished(before)
            assert before.idempotent
        same_turn = [each for each in self.grants if (each.generation, each.turn) == (after.generation, after.turn)]
        assert before.idempotent or not same_turn, "what must not run twice did"
        self.grants.append(Grant(after.generation, after.turn, token))
        self.heard_at[token] = self.life.now

    def has_vanished(self, record: CallRecord) -> bool:
        """Whether nothing has been heard of the run that holds the call for as long as it takes to give it up."""
        leases = 1 if record.idempotent else 3
        return self.life.now - self.heard_at[str(record.run)] >= seconds(leases * self.life.timing.lease)

    def a_lease_is_renewed(self) -> None:
        before, token = self.record, self.someone()
        renewed = self.life.renew(token)
        assert renewed == (is_held(before) and before.run == token)
        if renewed:
            self.heard_at[token] = self.life.now
        else:
            assert self.record == before

    def a_run_settles(self) -> None:
        before, kept, token, status = self.record, dict(self.life.payload), self.someone(), self.draw(ENDS)
        holds = is_held(before) and before.run == token
        applied = self.life.settle(token, status)
        if holds:
            assert applied
            asked = before.abort_requested_at is not None and status is not CallStatus.SUCCEEDED
            assert self.record.status is (CallStatus.ABORTED if asked else status)
        else:
            assert (self.record, self.life.payload) == (before, kept)
            assert not applied or (before.status.is_terminal and before.run == token)

    def a_run_wants_a_retry(self) -> None:
        before, token = self.record, self.someone()
        holds = is_held(before) and before.run == token
        applied = self.life.retry(token, due_in=self.draw(st.sampled_from([None, None, 3.0, 50.0])))
        assert applied == (holds and before.abort_requested_at is None)
        if applied:
            assert self.record.turn == Turn(0, before.retries + 1)
        elif not holds:
            assert self.record == before

    # --- whoever looks after

    def somebody_looks_after_it(self) -> None:
        self.attended(is_dead=False, token=None)

    def a_process_is_found_dead(self) -> None:
        self.attended(is_dead=True, token=self.someone())

    def attended(self, *, is_dead: bool, token: str | None) -> None:
        before = self.record
        care = self.life.attend(is_dead=is_dead, run=token)
        if self.record.losses > before.losses:
            assert (is_dead and token == before.run) or self.has_vanished(before)
        if care is Care.SEND:
            assert before.status.is_open
            assert not is_held(before)
            self.life.send()

    def its_time_comes(self) -> None:
        if self.record.attend_at is not None:
            self.life.now = max(self.life.now, self.record.attend_at)
            self.somebody_looks_after_it()

    def time_passes(self) -> None:
        self.life.passes(self.draw(SPANS))

    def its_queue_is_long(self) -> None:
        if attend(self.record, self.life.now, self.life.timing)[1] is Care.SEND:
            self.life.put_off()

    def it_could_not_be_sent(self) -> None:
        before = self.record
        assert self.life.not_sent() == (before.status.is_open and not is_held(before))

    def a_signal_tells(self) -> None:
        before = self.record
        turn = self.draw(st.sampled_from([None, 0, 0, -1, 1]))
        of_turn = None if turn is None else Turn(0, max(before.retries + turn, 0))
        report = told(self.draw, self.someone(), of_turn)
        self.life.hear(report)
        after = self.record
        token = None if getattr(report, "run", None) is None else report.run.token  # type: ignore[attr-defined]
        if is_held(before) and after.status.is_terminal:
            assert token == before.run, "ended by a report of another run"
        assert after.losses == before.losses or token == before.run
        assert not is_held(after) or is_held(before)

    def the_purge_comes(self) -> None:
        before = self.record
        if self.life.expire():
            assert before.is_absent(self.life.now)
            assert self.record.removed_at == before.purge_at

    # --- what always holds (`lives.assert_sound` sees each row, too)

    def check(self) -> None:
        record, kept = self.record, self.life.payload
        if self.final is None and record.status.is_terminal:
            self.final = {name: getattr(record, name) for name in FINAL}
        if self.final is not None:
            assert {name: getattr(record, name) for name in FINAL} == self.final, "what has ended has changed"
        assert record.losses <= record.max_attempts
        if record.removed_at is not None:
            assert kept == {}
        else:
            assert "message" in kept
            assert "result" not in kept or record.status is CallStatus.SUCCEEDED
            assert "error" not in kept or record.status in TERMINAL - {CallStatus.SUCCEEDED}

    def is_over(self) -> bool:
        return self.record.status.is_terminal

    def comes_to_an_end(self) -> None:
        """Everybody else is gone: then the caretaker alone brings the call on, and never looks in vain for long."""
        patience = seconds(2 * self.life.timing.lease)
        for _ in range(20):
            at = self.record.attend_at
            if at is None:
                assert self.record.status.is_terminal
                return
            self.life.now = max(self.life.now, at)
            if not self.gets_on():
                # The one wait that is not in `attend_at`: for proof of a death, which may come any time.
                assert is_held(self.record), "called in vain"
                assert not self.record.idempotent
                self.life.now += patience
                assert self.gets_on()

    def gets_on(self) -> bool:
        before = self.record
        if self.life.attend() is Care.SEND:
            self.life.send()
        return replace(self.record, version=0) != replace(before, version=0)


#: What happens, the more often the more it leads to.
STEPS = [
    *[Story.a_worker_takes_it] * 4,
    *[Story.its_lease_lapses_and_a_worker_takes_it] * 2,
    *[Story.some_copy_of_its_message_comes] * 2,
    *[Story.a_run_wants_a_retry] * 2,
    *[Story.a_lease_is_renewed] * 2,
    *[Story.somebody_calls_once_more] * 3,
    *[Story.a_process_is_found_dead] * 2,
    *[Story.a_signal_tells] * 3,
    *[Story.its_time_comes, Story.somebody_looks_after_it, Story.time_passes],
    *[Story.a_run_settles, Story.somebody_aborts, Story.somebody_removes_it, Story.the_purge_comes],
    *[Story.its_queue_is_long, Story.it_could_not_be_sent],
]


@settings(
    max_examples=8000 if THOROUGH else 600,
    derandomize=not THOROUGH,
    deadline=None,
    phases=[phase for phase in Phase if not (QUICK and phase in {Phase.shrink, Phase.explain})],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
@given(data=st.data(), steps=st.lists(st.sampled_from(STEPS), min_size=10, max_size=40))
def test_whatever_happens_to_a_call(data: st.DataObject, steps: list[Callable[[Story], None]]) -> None:
    story = Story(data.draw)
    for step in steps:
        # What has ended is soon told: most of the time there shall be a call that is open.
        chosen = Story.somebody_calls_once_more if story.is_over() and data.draw(st.booleans()) else step
        note(chosen.__name__)
        chosen(story)
        story.check()
    story.comes_to_an_end()
