"""What becomes of an open observed call of which nothing more is heard. Pure, like `merge`.

Celery tells nobody of a whole worker that was killed, of a message that the broker dropped,
or of one that was never stored. So now and then somebody looks through the open calls, and
judges those that are suspicious by what is known of their workers. Every verdict is a report
that `merge` applies, only to the very row that was judged, and says in words why it was reached.

Owned calls are not judged here: they have their own rules (`lrp_celery.tracking.owned.attend`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lrp_celery.core.text import clean
from lrp_celery.tracking.record import AttemptOutcome, CallRecord
from lrp_celery.tracking.reports import ErrorFacts, GivenUp, Outcome, Report, RunFacts, Unwound
from lrp_celery.tracking.runs import boot_of
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.store import MAX_ERROR

#: A worker counts as gone after so many leases without a sign of life, as one does that holds a call.
LEASES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each kind of silence is borne."""

    silent: timedelta
    """Of a call that nobody speaks of, counted from when it was due."""
    gone: timedelta
    """Of a worker; and for news of a call that had to start before a moment that has passed."""
    redelivery: timedelta
    """Within which the broker delivers a message again whose worker is gone before it has acknowledged it."""

    @classmethod
    def of(cls, *, silent_after: float, lease: float, redelivery: float) -> Patience:
        """Return the patience by these seconds."""
        return cls(
            silent=timedelta(seconds=silent_after),
            gone=timedelta(seconds=LEASES * lease),
            redelivery=timedelta(seconds=redelivery),
        )


@dataclass(frozen=True, slots=True)
class Fate:
    """What is known of a worker: alive, gone since it was last heard of, or (neither) nothing."""

    is_alive: bool = False
    gone_since: datetime | None = None


ALIVE: Final = Fate(is_alive=True)
UNKNOWN: Final = Fate()


@dataclass(frozen=True, slots=True)
class Roster:
    """Which workers are alive and which are gone, by when they were last heard of.

    The latest sign of life of any of them stands for the present moment: whoever judges gives one
    himself, so it is not much later, and no clock of a host is compared with another's.
    """

    alive: frozenset[str]
    """Boot ids."""
    gone: Mapping[str, datetime]
    """By boot id, when they were last heard of."""

    @classmethod
    def of(cls, heard: Mapping[str, datetime], goodbyes: Mapping[str, datetime], patience: timedelta) -> Roster:
        """Return the roster by when each worker was last heard of.

        `goodbyes`: those that have ended in good order; they count as gone only as late as the
        others, for their last reports may not be drained yet.
        """
        latest = max(heard.values(), default=None)
        everybody = {**goodbyes, **heard}
        gone = {} if latest is None else {each: at for each, at in everybody.items() if at + patience <= latest}
        return cls(alive=frozenset(heard.keys() - gone.keys()), gone=gone)

    def fate_of(self, run: str | None) -> Fate:
        """Return what is known of the worker that a run is of."""
        boot_id = boot_of(run) or ""
        if boot_id in self.alive:
            return ALIVE
        return Fate(gone_since=self.gone[boot_id]) if boot_id in self.gone else UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Which open calls are to be judged: what a store can tell from its rows alone."""

    silent_before: datetime
    expired_before: datetime
    interrupted_before: datetime
    gone: frozenset[str]
    """Boot ids of workers."""

    @classmethod
    def at(cls, now: datetime, patience: Patience, gone: Iterable[str]) -> Suspicion:
        """Return what is suspicious at this moment."""
        return cls(
            silent_before=now - patience.silent,
            expired_before=now - patience.gone,
            interrupted_before=now - patience.redelivery,
            gone=frozenset(gone),
        )

    def falls_on(self, record: CallRecord) -> bool:
        """Whether a row is suspicious; a store that can say this in its own words must say the same."""
        if record.owned or record.status.is_terminal:
            return False
        is_cut = record.run_outcome is AttemptOutcome.INTERRUPTED
        # One that acknowledges late and was cut off waits for its message, whatever its worker does.
        is_under_way = record.run_outcome is None or (is_cut and not record.acks_late)
        return (
            heard_at(record) <= self.silent_before
            or (record.run is None and record.expires_at is not None and record.expires_at <= self.expired_before)
            or (is_cut and record.updated_at <= self.interrupted_before)
            or (is_under_way and boot_of(record.run) in self.gone)
        )


def heard_at(record: CallRecord) -> datetime:
    """Return since when a call is silent: since it was last spoken of, or since it was due if that is later."""
    return max(record.updated_at, record.due_at or record.updated_at)


def is_silent(record: CallRecord, now: datetime, silent_after: timedelta) -> bool:
    """Whether an open call is shown as silent: nobody has spoken of it for long, or it should have begun long ago."""
    is_expired = record.run is None and record.expires_at is not None and record.expires_at < now
    return is_expired or heard_at(record) < now - silent_after


def judge(record: CallRecord, worker: Fate, now: datetime, patience: Patience) -> Report | None:
    """Return what has become of an open observed call, or None: nothing yet, as far as anybody can tell.

    `worker` is the one of its present run, `now` the store's time.
    """
    if record.owned or record.status.is_terminal or record.removed_at is not None:
        return None
    case = _Case(record, worker, now, patience)
    if record.is_running:
        return case.of_running()
    return case.of_interrupted() if record.run_outcome is AttemptOutcome.INTERRUPTED else case.of_waiting()


@dataclass(frozen=True, slots=True)
class _Case:
    record: CallRecord
    worker: Fate
    now: datetime
    patience: Patience

    def of_running(self) -> Report | None:
        """A run has begun, and has not ended as far as anybody has heard."""
        record, since = self.record, self.worker.gone_since
        if since is not None:
            if record.acks_late and record.stop_reason is None:
                error = lost(f"{self._worker_is_gone(since)} The broker delivers the message again.")
                return Unwound(call_id=record.call_id, turn=record.turn, run=_run(record), error=error)
            return self._workerlost(f"{self._worker_is_gone(since)} Nobody else runs it: it was acknowledged before.")
        if self.worker.is_alive or not self._is_silent:
            return None
        return self._give_up(
            CallStatus.DISCARDED, Reason.LOST, f"{self._silence()} Whether its worker still lives is not known."
        )

    def of_interrupted(self) -> Report | None:
        """Its run was cut off: the broker delivers it again, or somebody still says what killed it."""
        record, since = self.record, self.worker.gone_since
        if since is not None and not record.acks_late:
            return self._workerlost(f"{self._worker_is_gone(since)} Nobody else runs it: it was acknowledged before.")
        if record.updated_at + self.patience.redelivery > self.now:
            return None
        waited = f"for {_words(self.patience.redelivery)}"
        if record.acks_late:
            return self._workerlost(
                f"Its run was cut off at {_at(record.updated_at)}, and not delivered again {waited}."
            )
        return self._workerlost(f"Its run was cut off at {_at(record.updated_at)}, and nobody said why {waited}.")

    def of_waiting(self) -> Report | None:
        """Its message is on its way, as far as anybody knows."""
        record = self.record
        expires_at = record.expires_at if record.run is None else None
        is_expired = expires_at is not None and expires_at + self.patience.gone <= self.now
        if not is_expired and not self._is_silent:
            return None
        if record.published_at is None and record.runs == 0:
            why = (
                f"{record.error_type}: {record.last_error}" if record.last_error else "it is not known to have got out"
            )
            words = f"It could not be sent, and no worker has heard of it since. {why}"
            return self._give_up(CallStatus.DISCARDED, Reason.PUBLISH_FAILED, words, error_type=record.error_type)
        if is_expired and expires_at is not None:
            words = f"It had to start before {_at(expires_at)}, and no worker has said that it did."
            return self._give_up(CallStatus.DISCARDED, Reason.EXPIRED, words)
        return self._give_up(CallStatus.DISCARDED, Reason.LOST, f"{self._silence()} Its message must have been lost.")

    @property
    def _is_silent(self) -> bool:
        return heard_at(self.record) + self.patience.silent <= self.now

    def _workerlost(self, words: str) -> GivenUp:
        return self._give_up(CallStatus.FAILED, Reason.WORKER_LOST, words, error_type=_WORKER_LOST)

    def _give_up(self, status: CallStatus, reason: Reason, words: str, error_type: str | None = None) -> GivenUp:
        record = self.record
        error = ErrorFacts(type=error_type, message=clean(words, MAX_ERROR))
        outcome = Outcome(status=status, reason=reason, error=error)
        run = None if record.run is None else _run(record)
        return GivenUp(call_id=record.call_id, turn=record.turn, run=run, outcome=outcome)

    def _worker_is_gone(self, since: datetime) -> str:
        name = f" {self.record.worker}" if self.record.worker else ""
        return f"Its worker{name} is gone, last heard of at {_at(since)}."

    def _silence(self) -> str:
        return f"Nobody has spoken of it for {_words(self.patience.silent)}, since {_at(heard_at(self.record))}."


_WORKER_LOST: Final = "WorkerLost"


def lost(words: str) -> ErrorFacts:
    """Return the error of a run whose process or worker is gone."""
    return ErrorFacts(type=_WORKER_LOST, message=words)


def _run(record: CallRecord) -> RunFacts:
    return RunFacts(token=record.run or "", worker=record.worker, pid=record.pid)


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def _words(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
