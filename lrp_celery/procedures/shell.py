"""What Celery runs in place of a procedure's function: claim, run, settle.

The function runs only if its call could be claimed, and what becomes of the call is what
could be settled: a copy of the message, or a run that has lost its call meanwhile, ends
quietly and changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import Ignore, Reject, Retry

from lrp_celery.core import codec
from lrp_celery.core.errors import NotEncodable, StoreError
from lrp_celery.core.values import replace
from lrp_celery.procedures import context
from lrp_celery.procedures.aborts import Interrupted, Reach
from lrp_celery.procedures.context import CurrentCall
from lrp_celery.procedures.envelope import Envelope, capture
from lrp_celery.procedures.failures import StoredError
from lrp_celery.procedures.publishing import send_or_leave
from lrp_celery.procedures.reporter import Reporter
from lrp_celery.procedures.runtime import Runtime, runtime_of
from lrp_celery.procedures.signal import AbortController, AbortSignal, never
from lrp_celery.procedures.workers import ensure_care
from lrp_celery.tracking import messages, observer, outcomes, owned
from lrp_celery.tracking.callstore import CallStore, Known, Payload
from lrp_celery.tracking.owned import Claim, Delivery, Settled, Settlement, Verdict
from lrp_celery.tracking.publishing import diverting
from lrp_celery.tracking.record import CallRecord, Turn
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.reports import NO_ERROR, Again, ErrorFacts, Outcome, RunFacts
from lrp_celery.tracking.runs import Running, runs
from lrp_celery.tracking.spool.spool import leave
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.store import is_usable_id
from lrp_celery.tracking.tracking import tracking_of

logger = logging.getLogger("lrp_celery.procedures")

T = TypeVar("T")
_PAUSE: Final = 0.25
_BRIEF: Final = 1.0


class Shell:
    """Runs the calls of one procedure in the tasks of one app."""

    def __init__(self, procedure: Any, task: Any) -> None:
        self._procedure = procedure
        self._task = task
        self._body: Callable[..., Any] = task.run
        self._before_start: Callable[..., Any] = task.before_start

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a delivered call, or, called directly, just the function."""
        request = self._task.request
        if request.called_directly:
            return self._in_place(args, kwargs)
        running = runs.find(request.id)
        if running is None:
            # An id that no row can have never gets one; else the message waits a moment, lest it go round and round.
            is_usable = is_usable_id(request.id)
            time.sleep(_PAUSE if is_usable else 0)
            raise Reject(f"{self._task.name}: lrp_celery was not connected when this run began.", requeue=is_usable)
        runtime = runtime_of(self._task.app)
        return _Run(self, runtime, running, request).perform(args, kwargs)

    @property
    def procedure(self) -> Any:
        """The procedure whose calls these are."""
        return self._procedure

    @property
    def task(self) -> Any:
        """The task that Celery knows."""
        return self._task

    def run_body(self, args: tuple[Any, ...], kwargs: dict[str, Any], signal: Any) -> Any:
        """Call the function with what the message holds and the signal."""
        self._before_start(self._task.request.id, args, kwargs)
        parameters = self._procedure.parameters
        typed_args, typed_kwargs = parameters.decode(args, kwargs)
        full_args, full_kwargs = parameters.inject(typed_args, typed_kwargs, signal)
        return self._body(*full_args, **full_kwargs)

    def _in_place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._procedure.parameters.check(args, kwargs)
        signal = never()
        full_args, full_kwargs = self._procedure.parameters.inject(args, kwargs, signal)
        with context.in_place(signal):
            return self._body(*full_args, **full_kwargs)


class _Run:
    """One delivery of one call."""

    def __init__(self, shell: Shell, runtime: Runtime, running: Running, request: Any) -> None:
        self._shell = shell
        self._task = shell.task
        self._runtime = runtime
        self._running = running
        self._request = request
        self._store: CallStore = runtime.of_run(inline=running.inline)
        self._redactor = runtime.redactor.also(shell.procedure.options.sensitive)
        self._given_up = False
        self._is_limited = False

    def perform(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        claim = self._claim()
        if claim.verdict is not Verdict.GRANTED or claim.record is None:
            return self._end_quietly(claim)
        self._known = Known.by(claim, self._asked_at)
        return self._hold(claim.record, args, kwargs)

    # --- claiming

    def _claim(self) -> Claim:
        delivery = self._delivery()

        def claim() -> Claim:
            self._asked_at = time.monotonic()
            return self._store.claim(delivery)

        try:
            return self._insisting(claim)
        except StoreError as error:
            # Whether it may run cannot be told, so it does not; the message is given back, and sent again besides.
            logger.warning("Call %s does not run, its row cannot be read: %s", self._running.call_id, error)
            raise Reject(error, requeue=True) from error

    def _delivery(self) -> Delivery:
        get = self._request.get
        generation = get(messages.OWNED)
        running = self._running
        if running.facts is None:
            raise Reject(f"{self._task.name}: the message does not say enough to be run.", requeue=False)
        is_ours = isinstance(generation, int)
        return Delivery(
            call_id=running.call_id,
            turn=running.turn,
            generation=generation if is_ours else None,
            facts=running.facts,
            terms=self._shell.procedure.options.terms(self._task.app, self._runtime.limits.grace),
            run=running.run,
            message=None if is_ours or running.inline else self._own_message(running.turn, countdown=0).to_json(),
        )

    def _own_message(self, turn: Turn, **due: Any) -> Envelope:
        """Return the message of this delivery, rebuilt as Celery does for a retry."""
        request = self._request
        again = self._task.signature_from_request(request, request.args, request.kwargs, retries=turn.retries, **due)
        envelope = capture(lambda producer: again.apply_async(producer=producer))
        return _marked(envelope, request.get(messages.OWNED) or 0)

    def _end_quietly(self, claim: Claim) -> Any:
        record = claim.record
        # Of a call that was removed, which is no longer SETTLED but STALE, nobody knows any more what it returned.
        is_settled = claim.verdict is Verdict.SETTLED
        if is_settled and record is not None and record.status is CallStatus.SUCCEEDED and record.keep_result:
            # The broker delivered it again: Celery may still have a chain to go on with.
            result = (self._store.payload(record.call_id) or Payload()).result
            return None if result is None else codec.loads(result)
        raise Ignore(f"This copy of call {self._running.call_id} does not run: {claim.verdict}.")

    # --- running

    def _hold(self, record: CallRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call that is ours now, and settle it."""
        ending = self._run_body(record, args, kwargs)
        if ending.settlement is not None:
            self._settle(ending.settlement)
        if ending.error is not None:
            raise ending.error
        return ending.value

    def _run_body(self, record: CallRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Ending:
        controller = AbortController()
        reach = Reach(record, self._running.run.token, controller)
        if not self._running.inline:
            ensure_care(self._task.app, self._runtime)
        elif record.deadline_at is not None:
            # Nobody looks after a call that runs inside its caller.
            reach.expire_after((record.deadline_at - record.updated_at).total_seconds())
        token = context.entered(self._current_call(record, controller.signal))
        try:
            with diverting(self._divert):
                try:
                    with reach:
                        self._hear_what_came_early(reach)
                        value = self._run_function(args, kwargs, controller.signal)
                finally:
                    # An interrupt may strike on the way out, too; but only once.
                    reach.leave()
                    self._note_timeout(reach)
            return self._returned(value)
        except _LetGo:
            return _Ending(None, error=Ignore(f"Call {record.call_id} goes on without this run."))
        except Interrupted:
            aborted = Outcome(status=CallStatus.ABORTED, reason=reach.cause)
            return _Ending(Settlement(outcome=aborted), error=reach.error())
        except Retry as retry:
            return self._retries(retry)
        except (Ignore, Reject) as refusal:
            outcome = _discarded(refusal, self._facts(refusal))
            return _Ending(Settlement(outcome=outcome), error=Ignore(str(refusal)))
        except Exception as error:  # noqa: BLE001 - settled, and raised again
            return self._raised(error)
        finally:
            context.left(token)

    def _hear_what_came_early(self, reach: Reach) -> None:
        """Tell a run inside its caller of an abort that found its call claimed, but not here yet: nobody looks again."""
        if not self._running.inline:
            return
        with contextlib.suppress(StoreError):
            for record in self._store.aborts([reach.call_id]):
                reach.tell(record.abort_reason, record.stop_reason or Reason.ABORTED)

    def _note_timeout(self, reach: Reach) -> None:
        """Write down that its time is over, which nobody else does for a call that runs inside its caller."""
        if self._running.inline and reach.is_timed_out:
            over = owned.AbortRequest(cause=Reason.TIMEOUT)
            self._insisting(lambda: self._store.request_abort(reach.call_id, over))

    def _run_function(self, args: tuple[Any, ...], kwargs: dict[str, Any], signal: AbortSignal) -> Any:
        if self._is_limited:
            # It struck while the call was claimed, and strikes only once.
            raise SoftTimeLimitExceeded
        return self._shell.run_body(args, kwargs, signal)

    def _current_call(self, record: CallRecord, signal: AbortSignal) -> CurrentCall:
        self._reporter = Reporter(
            self._store,
            record.call_id,
            self._running.run.token,
            self._redactor,
            self._running.secrets,
            lambda: self._running.inline or self._runtime.may_write(),
        )
        return CurrentCall(
            id=record.call_id,
            attempt=record.attempt,
            signal=signal,
            deadline=record.deadline_at,
            reporter=self._reporter,
        )

    def _returned(self, value: Any) -> _Ending:
        try:
            tree = self._shell.procedure.parameters.encode_result(value)
            text = codec.dumps(tree)
        except NotEncodable as error:
            return self._bad_result(error)
        if len(text) > self._runtime.limits.max_payload:
            return self._bad_result(
                NotEncodable(
                    f"The result has {len(text)} bytes of JSON, more than MAX_PAYLOAD allows: keep it elsewhere."
                )
            )
        # A body that has published its own retry and returns all the same has a further turn to come.
        kept = None if tree is None else text
        succeeded = Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result=kept)
        return _Ending(None if self._given_up else succeeded, value=tree)

    def _bad_result(self, error: NotEncodable) -> _Ending:
        facts = self._facts(error)
        outcome = Outcome(status=CallStatus.FAILED, reason=Reason.BAD_RESULT, error=facts)
        return _Ending(Settlement(outcome=outcome, error=StoredError.of(error, facts).to_json()), error=error)

    def _raised(self, error: Exception) -> _Ending:
        facts = self._facts(error)
        stored = StoredError.of(error, facts, redactor=self._redactor, secrets=self._running.secrets)
        settlement = Settlement(outcome=outcomes.of_failure(error, facts), error=stored.to_json())
        return _Ending(None if self._given_up else settlement, error=error)

    def _facts(self, error: BaseException) -> ErrorFacts:
        return outcomes.error_facts(
            error, "".join(traceback.format_exception(error)), self._redactor, self._running.secrets
        )

    # --- ending

    def _settle(self, settlement: Settlement) -> None:
        """Write the outcome, insistently; one that is refused ends the run quietly."""
        settlement = replace(settlement, said=self._reporter.last_words())
        call_id, token = self._running.call_id, self._running.run.token
        try:
            record = self._insisting(lambda: self._store.settle(call_id, token, settlement, self._known))
        except StoreError as error:
            settled = Settled(
                call_id=call_id, turn=self._running.turn, run=RunFacts(token=token), settlement=settlement
            )
            # Inside its caller it is his transaction that would have to be committed.
            is_left = not self._running.inline and leave(settled, self._store.place)
            what = "is recorded when the store is back" if is_left else "could not be recorded"
            logger.error("Call %s ended as %s, which %s: %s", call_id, settlement.outcome.status, what, error)  # noqa: TRY400 - the traceback of the store's error says nothing
            return
        if record is None:
            raise Ignore(f"Call {call_id} was taken from this run: its outcome does not count.")
        if record.status is not CallStatus.SUCCEEDED:
            self._end_what_follows(record.status)

    def _end_what_follows(self, status: CallStatus) -> None:
        """Make the rows of the steps after it, which nobody sends any more. It must not raise."""
        try:
            tracking = tracking_of(self._task.app)
            if tracking is not None:
                task, running = self._task, self._running
                observer.never_sent(tracking, task.app, task.name, running.call_id, status, running.following)
        except Exception as error:  # noqa: BLE001 - the call has been settled, and that stands
            losses.add("row of a later step", error)

    def _insisting(self, write: Callable[[], T]) -> T:
        """Do `write`; while the store is away, again until SETTLE_WAIT is over. No soft limit gets between."""
        wait = self._runtime.limits.settle_wait
        # Inside its caller it is his transaction that may be broken: that does not pass.
        until = time.monotonic() + (min(wait, _BRIEF) if self._running.inline else wait)
        while True:
            try:
                return write()
            except SoftTimeLimitExceeded:
                self._is_limited = True
                continue
            except StoreError:
                if time.monotonic() + _PAUSE > until:
                    raise
            time.sleep(_PAUSE)

    # --- retrying

    def _divert(self, send: Callable[[Any], Any], producer: Any, message: Any) -> Any:
        """Let every message pass but our own next turn: that one is written down first."""
        turn = messages.turn_of(message.headers.get)
        if message.headers.get("id") != self._running.call_id or turn <= self._running.turn:
            return send(producer)
        if not self._pass_on(turn, _marked(capture(send), self._request.get(messages.OWNED) or 0)):
            raise _LetGo
        return None

    def _pass_on(self, turn: Turn, envelope: Envelope) -> bool:
        """Give the call up for a further turn, and send its message, unless that is due so late that the relay does."""
        due_at = messages.instant(envelope.headers.get("eta"))
        given_up = self._give_up(turn, due_at, envelope.to_json())
        if given_up is None:
            return False
        if given_up.published_at is not None:
            send_or_leave(self._task.app, self._runtime, self._running.call_id, envelope)
        return True

    def _give_up(self, turn: Turn, due_at: datetime | None, message: str | None) -> CallRecord | None:
        cause = sys.exc_info()[1]
        error = NO_ERROR if cause is None else self._facts(cause)
        wish = owned.Retry(retries=turn.retries, due_at=due_at, message=message, error=error)
        call_id, token = self._running.call_id, self._running.run.token
        record = self._insisting(lambda: self._store.retry(call_id, token, wish))
        self._given_up = record is not None
        return record

    def _retries(self, retry: Retry) -> _Ending:
        following = Again.RETRIED.turn_after(self._running.turn)
        if self._running.inline:
            # Eagerly no message is published: the next turn runs inside this one's caller.
            is_passed_on = self._given_up or self._give_up(following, None, None) is not None
        else:
            # One that was raised by hand has published none, either.
            is_passed_on = self._given_up or self._pass_on(following, self._own_message(following, **_due(retry)))
        if is_passed_on:
            return _Ending(None, error=retry)
        return _Ending(None, error=Ignore(f"Call {self._running.call_id} is not tried again."))


@dataclass(frozen=True, slots=True)
class _Ending:
    """What a body's end means: what is settled (None: nothing), and what Celery gets."""

    settlement: Settlement | None
    value: Any = None
    error: BaseException | None = None


class _LetGo(BaseException):
    """The run may not go on: its call has been taken from it, or somebody asked for its end."""


def _marked(envelope: Envelope, generation: int) -> Envelope:
    envelope.headers[messages.OWNED] = generation
    return envelope


def _due(retry: Retry) -> dict[str, Any]:
    return {"eta" if isinstance(retry.when, datetime) else "countdown": retry.when or 0}


def _discarded(refusal: BaseException, facts: ErrorFacts) -> Outcome:
    reason = Reason.REJECTED if isinstance(refusal, Reject) else Reason.IGNORED
    return Outcome(status=CallStatus.DISCARDED, reason=reason, error=facts)
