"""A tracking store in Redis or Valkey, for projects without Django.

What lies where (`lrp` is the prefix):

    lrp:call:<call id>     hash   version -> how often the row was written, a decimal number
                                  record  -> the row, JSON (`lrp_celery.tracking.encoding`)
                                  awaited -> 1 if somebody waits, or has waited, for its end
                                  root    -> the call it stems from; absent if that is none, or itself
    lrp:runs:<call id>     hash   run token -> the run's own row, JSON; absent while no run has one
    lrp:payload:<call id>  hash   message, result, error of an owned call, JSON texts; absent if there is none
    lrp:log:<call id>      list   what the call has logged, each line as JSON; absent if there is none
    lrp:attend             zset   ids of open owned calls, scored by `attend_at`
    lrp:attend:<app>       zset   those of them whose messages this Celery app sends
    lrp:open               zset   ids of open observed calls, scored by `enqueued_at`
    lrp:begun              hash   queue -> the latest `enqueued_at` of its calls that have been started
    lrp:workers            hash   boot id -> what a worker says of itself, JSON
    lrp:seen               zset   boot ids, scored by when they were last heard of
    lrp:revoked            zset   ids of observed calls, scored by `abort_requested_at`; some may have ended
    lrp:family:<call id>   set    ids of the calls that stem from this one

An ended call is in one of three indexes, by what ends its row:

    lrp:ended              zset   scored by `terminal_at`: retention
    lrp:expiring           zset   scored by `purge_at`: its own time to live, after which it becomes a tombstone
    lrp:removed            zset   scored by `removed_at`: tombstones
    (none of them)                it is kept until somebody removes it

All scores and instants are microseconds since 1970. No key ever expires by itself: an open row
must outlive every failure, and a terminal one ends by `purge_terminal`. Each write is one
script, so nobody sees half of it. The scripts name keys that they compute; on Redis Cluster
give the prefix a hash tag (`{lrp}`), which keeps all of them on one node.

When an awaited call has ended, or its end was asked for, its id is published on the channel
`lrp:news`. Who may do everything else but use that channel (`&lrp:news` in an ACL) loses
nothing but time: his writes count, and where he waits he looks for himself. Channels are not of
one database, so stores with the same prefix on two of them hear each other, which wakes nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from lrp_celery.core.errors import ConfigurationError, StoreError, StoreUnavailable
from lrp_celery.core.values import replace
from lrp_celery.tracking import owned
from lrp_celery.tracking.callstore import REMEMBERED, OwningStore, Payload, Taken, WorkerFacts
from lrp_celery.tracking.encoding import decode_attempt, decode_call, encode
from lrp_celery.tracking.folding import by_call, runs_of
from lrp_celery.tracking.news import Hear, Listener, Newsroom, Watch
from lrp_celery.tracking.owned import AbortRequest, Order, Timing
from lrp_celery.tracking.record import AttemptRecord, CallRecord, LogLine
from lrp_celery.tracking.reports import Enqueued, Told
from lrp_celery.tracking.rescue import Suspicion
from lrp_celery.tracking.steps import Merged, made
from lrp_celery.tracking.store import Found, require_id, require_threshold

try:
    from redis import Redis, exceptions
    from redis.backoff import NoBackoff
    from redis.client import PubSub
    from redis.exceptions import RedisError, ResponseError
    from redis.retry import Retry
except ImportError as error:
    raise ImportError("RedisTrackingStore needs redis-py: pip install 'lrp_celery[redis]'.") from error

#: Seconds to wait for a connection or an answer, unless the URL says otherwise (`?socket_timeout=1`).
TIMEOUT: Final = 5.0
#: What a server says that takes no writes for now: it is full, a replica, closed to us, or without a disk.
_CLOSED: Final = (
    *(exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ClusterDownError, exceptions.TryAgainError),
    *(exceptions.OutOfMemoryError, exceptions.ReadOnlyError, exceptions.NoPermissionError),
)
#: Likewise, by words for which there is no class, or that a script has passed on.
_CLOSED_WORDS: Final = re.compile(r"\b(BUSY|MISCONF|NOREPLICAS|OOM|READONLY)\b")
#: Rows that one purge script deletes; Redis serves nobody else meanwhile (about 2 ms).
CHUNK: Final = 500

# KEYS: call, runs, payload. ARGV: run token, or "" for none; "1" if its end is awaited from now on;
# "1" if what it ended with is asked for, too.
# Returns the version, the row, the run's row (each nil if absent), the server's time, result and error.
FIND: Final = """
local call = redis.call('HMGET', KEYS[1], 'version', 'record')
if ARGV[2] == '1' and call[1] then
    redis.call('HSET', KEYS[1], 'awaited', '1')
end
local run = ARGV[1] ~= '' and redis.call('HGET', KEYS[2], ARGV[1])
local ended = ARGV[3] == '1' and redis.call('HMGET', KEYS[3], 'result', 'error')
return {call[1], call[2], run, redis.call('TIME'), ended}
"""

# KEYS: call, runs, payload, log, begun, and the indexes: attend, ended, expiring, removed, open, attend of its app.
# ARGV: the version that was read ("" for no row), the version and the row to write, the call id;
# its score in each index, in their order ("" where it is not); a queue and the `enqueued_at` of
# its call that has just been started ("" for none); the call that it stems from ("" for none), and
# the prefix of the families; the channel, if this is news ("" if not); "1" if runs and log are
# forgotten; how many payload texts follow, each with its name ("" for no text); how many lines to
# log, and they; then run token and row of each run.
# Returns 1 if it wrote, 0 if the row is not in that version.
WRITE: Final = """
local known = redis.call('HMGET', KEYS[1], 'version', 'root', 'awaited')
if (known[1] or '') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
for i = 1, 6 do
    if ARGV[4 + i] == '' then
        redis.call('ZREM', KEYS[5 + i], ARGV[4])
    else
        redis.call('ZADD', KEYS[5 + i], ARGV[4 + i], ARGV[4])
    end
end
if ARGV[12] ~= '' then
    local latest = redis.call('HGET', KEYS[5], ARGV[11])
    if not latest or tonumber(latest) < tonumber(ARGV[12]) then
        redis.call('HSET', KEYS[5], ARGV[11], ARGV[12])
    end
end
if (known[2] or '') ~= ARGV[13] then
    if known[2] then
        redis.call('SREM', ARGV[14] .. known[2], ARGV[4])
        redis.call('HDEL', KEYS[1], 'root')
    end
    if ARGV[13] ~= '' then
        redis.call('SADD', ARGV[14] .. ARGV[13], ARGV[4])
        redis.call('HSET', KEYS[1], 'root', ARGV[13])
    end
end
if ARGV[15] ~= '' and known[3] then
    -- Whoever may not tell may write all the same.
    redis.pcall('PUBLISH', ARGV[15], ARGV[4])
end
if ARGV[16] == '1' then
    redis.call('UNLINK', KEYS[2], KEYS[4])
end
local texts = 17 + 2 * ARGV[17]
for i = 18, texts, 2 do
    if ARGV[i + 1] == '' then
        redis.call('HDEL', KEYS[3], ARGV[i])
    else
        redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    end
end
local lines = texts + 1 + ARGV[texts + 1]
for i = texts + 2, lines do
    redis.call('RPUSH', KEYS[4], ARGV[i])
end
for i = lines + 1, #ARGV, 2 do
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1
"""

# KEYS: an index. ARGV: threshold, chunk size, then the prefixes of the keys of call, runs, payload, log and family.
# Returns how many entries it took from the index, and how many rows it deleted.
PURGE: Final = """
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
local deleted = 0
for _, id in ipairs(old) do
    local root = redis.call('HGET', ARGV[3] .. id, 'root')
    if root then
        redis.call('SREM', ARGV[7] .. root, id)
    end
    deleted = deleted + redis.call('UNLINK', ARGV[3] .. id)
    redis.call('UNLINK', ARGV[4] .. id, ARGV[5] .. id, ARGV[6] .. id)
    redis.call('ZREM', KEYS[1], id)
end
return {#old, deleted}
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RedisTrackingStore(OwningStore):
    """A `TrackingStore` and `CallStore` in Redis >= 6.2 or Valkey.

    `url` is redis-py's (`redis://`, `rediss://`, `unix://`, with its query options); stores with
    one `prefix` on one database share their calls. Connecting happens at first use. Safe for
    threads and across fork. What survives a crash of the server is what its own persistence
    kept (`appendonly yes`); eviction must be off (`maxmemory-policy noeviction`).
    """

    def __init__(self, url: str, *, prefix: str = "lrp", timing: Timing | None = None) -> None:
        super().__init__(timing)
        self._redis = connect(url)
        self._channel = f"{prefix}:news"
        self._listener = _Listener(connect(url), self._channel, self.newsroom)
        self._prefixes = [f"{prefix}:{name}:" for name in ("call", "runs", "payload", "log")]
        self._call_prefix, self._runs_prefix, self._payload_prefix, self._log_prefix = self._prefixes
        self._begun_key, self._workers_key, self._seen_key, self._revoked_key = (
            f"{prefix}:{name}" for name in ("begun", "workers", "seen", "revoked")
        )
        self._family_prefix = f"{prefix}:family:"
        self._indexes = [f"{prefix}:{name}" for name in ("attend", "ended", "expiring", "removed", "open")]
        self._find_script = self._redis.register_script(FIND)
        self._write_script = self._redis.register_script(WRITE)
        self._purge_script = self._redis.register_script(PURGE)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._place}>"

    def close(self) -> None:
        """Close the connections; the store opens new ones when it is used again."""
        self._listener.close()
        self._redis.close()

    # --- the primitives

    def _now(self) -> datetime:
        with self._errors():
            return _instant(self._redis.time())

    def _find(self, call_id: str, run: str | None) -> Found:
        with self._errors():
            return _found(self._find_script(*self._find_call(call_id, run)))

    def _write(self, merged: Merged, replaces: CallRecord | None) -> bool:
        with self._errors():
            return bool(self._write_script(*self._write_call(merged, replaces)))

    def _find_all(self, call_ids: Iterable[str]) -> list[Found]:
        """Read several calls in one round trip."""
        with self._errors(), self._redis.pipeline(transaction=False) as pipe:
            for call_id in call_ids:
                self._find_script(*self._find_call(call_id), client=pipe)
            return [_found(answer) for answer in pipe.execute()]

    def _write_all(self, changes: Sequence[tuple[Merged, CallRecord | None]]) -> list[bool]:
        """Write several calls in one round trip, each by itself."""
        with self._errors(), self._redis.pipeline(transaction=False) as pipe:
            for merged, replaces in changes:
                self._write_script(*self._write_call(merged, replaces), client=pipe)
            return [bool(written) for written in pipe.execute()]

    def enqueue_all(self, reports: Sequence[Enqueued]) -> None:
        """Make the rows of these calls in one round trip."""
        now = self._now()
        for report in reports:
            require_id(report.call_id)
        fresh = [made(report, report.facts, now) for report in reports if report.facts is not None]
        self._write_all([(merged, None) for merged in fresh])

    def insert_all(self, orders: Sequence[Order], taken: Taken) -> list[CallRecord | None]:
        """Make the rows of new calls in one round trip; those whose ids are not new are looked at one by one."""
        found = self._find_all([order.call_id for order in orders])
        for order, each in zip(orders, found, strict=True):
            require_id(order.call_id)
            if each.record is not None and not each.record.is_absent(each.now):
                taken(order, each.record)
        placed = [owned.place(None, order, each.now, self.timing) for order, each in zip(orders, found, strict=True)]
        fresh = [merged for merged in placed if merged is not None]
        written = self._write_all([(merged, None) for merged in fresh])
        return [
            merged.record if is_written else self._insert_or_tell(order, taken)
            for order, merged, is_written in zip(orders, fresh, written, strict=True)
        ]

    def _find_call(
        self, call_id: str, run: str | None = None, *, is_awaited: bool = False, with_end: bool = False
    ) -> tuple[list[Any], list[Any]]:
        keys = [prefix + call_id for prefix in (self._call_prefix, self._runs_prefix, self._payload_prefix)]
        return keys, [run or "", int(is_awaited), int(with_end)]

    def _write_call(self, merged: Merged, replaces: CallRecord | None) -> tuple[list[Any], list[Any]]:
        record = merged.record
        read, written = ("", 0) if replaces is None else (replaces.version, replaces.version + 1)
        is_begun = record.runs > (0 if replaces is None else replaces.runs)
        begun = [record.queue or "", _micros(record.enqueued_at)] if is_begun else ["", ""]
        texts = [text for name, value in (merged.payload or {}).items() for text in (name, value or "")]
        lines = [_logged(line) for line in merged.lines]
        runs = [text for attempt in merged.attempts for text in (attempt.run, encode(attempt))]
        own = [prefix + record.call_id for prefix in self._prefixes]
        row = [read, written, encode(record), record.call_id, *_scores(record)]
        root = "" if record.root_id in {None, record.call_id} else record.root_id
        around = [root, self._family_prefix, self._channel if owned.is_news(record) else ""]
        beside = [int(merged.forgets_runs), len(texts) // 2, *texts, len(lines), *lines, *runs]
        return [*own, self._begun_key, *self._indexes, self._attend_key(record.app)], [*row, *begun, *around, *beside]

    def _attend_key(self, app: str | None) -> str:
        """Return the index of the calls of `app` that somebody must look after; None: of all."""
        return self._indexes[0] if app is None else f"{self._indexes[0]}:{app}"

    # --- owned calls

    @property
    def tells(self) -> bool:
        """Whether Redis tells, and we hear it."""
        return self._listener.is_listening

    def watching(self, call_id: str) -> AbstractContextManager[Watch]:
        """Watch a call within this context; it is opened without a statement in this thread."""
        return self._listener.watching(call_id)

    def await_end(self, call_id: str) -> bool:
        """Note that somebody waits for the end of a call; False: it has ended, or its end was asked for."""
        require_id(call_id)
        with self._errors():
            record = _found(self._find_script(*self._find_call(call_id, is_awaited=True))).record
        return record is not None and not owned.is_news(record)

    def look_with_result(self, call_id: str) -> tuple[CallRecord, Payload] | None:
        """Return the row as readers see it, and of one that has ended its result or error, in one round trip."""
        require_id(call_id)
        with self._errors():
            answer = self._find_script(*self._find_call(call_id, with_end=True))
            found, (result, error) = _found(answer), answer[4]
        if found.record is None or found.record.is_absent(found.now):
            return None
        has_ended = found.record.status.is_terminal
        return found.record, Payload(result=result, error=error) if has_ended else Payload()

    def payload(self, call_id: str) -> Payload | None:
        """Return what is kept beside the row; None: nothing."""
        with self._errors():
            texts: dict[str, str] = self._redis.hgetall(self._payload_prefix + call_id)  # type: ignore[assignment]
        return Payload(**_known(Payload, texts)) if texts else None

    def renew(self, runs: Iterable[tuple[str, str]]) -> dict[str, CallRecord]:
        """Extend the leases of these (call id, run), in as many round trips for one as for a thousand."""
        held = dict(runs)
        kept = [
            (Merged(renewed), found.record)
            for found in self._find_all(held)
            if found.record is not None
            and (renewed := owned.renewed(found.record, held[found.record.call_id], found.now, self.timing)) is not None
        ]
        records = {}
        for (merged, replaces), written in zip(kept, self._write_all(kept), strict=True):
            call_id = replaces.call_id
            record = merged.record if written else self._renew(call_id, held[call_id])
            if record is not None:
                records[call_id] = record
        return records

    def aborts(self, call_ids: Sequence[str]) -> Sequence[CallRecord]:
        """Return those of the calls that are open and whose end somebody has asked for."""
        records = [found.record for found in self._find_all(call_ids)]
        return [record for record in records if record and record.abort_requested_at and record.status.is_open]

    def log(self, call_id: str) -> Sequence[LogLine]:
        """Return what a call has logged, in order."""
        with self._errors():
            lines: list[str] = self._redis.lrange(self._log_prefix + call_id, 0, -1)  # type: ignore[assignment]
            known = [_known(LogLine, json.loads(line)) for line in lines]
        return [LogLine(**{**line, "at": datetime.fromisoformat(line["at"])}) for line in known]

    def due(self, limit: int, app: str | None = None) -> Sequence[str]:
        """Return owned calls that somebody must look after now, the longest overdue first."""
        now = _micros(self._now())
        with self._errors():
            found: list[str] = self._redis.zrange(  # type: ignore[assignment]
                self._attend_key(app), "-inf", now, byscore=True, offset=0, num=limit
            )
        return found

    def request_abort(self, call_id: str, request: AbortRequest) -> CallRecord | None:
        """Ask for the end of a call; an observed one is remembered for the workers that start later."""
        record = super().request_abort(call_id, request)
        if record is not None and not record.owned and record.abort_requested_at is not None:
            with self._errors():
                self._redis.zadd(self._revoked_key, {call_id: _micros(record.abort_requested_at)})
        return record

    def revoked(self, limit: int) -> Sequence[str]:
        """Return open observed calls whose end somebody has asked for, the latest request first."""
        with self._errors():
            asked: list[str] = self._redis.zrange(self._revoked_key, 0, limit - 1, desc=True)  # type: ignore[assignment]
        found = dict(zip(asked, self._find_all(asked), strict=True))
        over = [call_id for call_id, each in found.items() if each.record is None or not each.record.status.is_open]
        if over:
            with self._errors():
                self._redis.zrem(self._revoked_key, *over)
        return [call_id for call_id in asked if call_id not in over]

    def family(self, root_id: str, limit: int) -> Sequence[CallRecord]:
        """Return the calls that stem from this one, read a few at a time."""
        found: dict[str, CallRecord] = {}
        with self._errors():
            named = self._redis.sscan_iter(self._family_prefix + root_id, count=CHUNK)
            for call_ids in _chunks(chain([root_id], named)):
                records = [each.record for each in self._find_all(call_ids)]
                there = [record for record in records if record is not None and record.removed_at is None]
                # A scan may name one twice, or one that belongs to another family by now.
                found |= {each.call_id: each for each in there if root_id in {each.root_id, each.call_id}}
                if len(found) >= limit:
                    break
        return list(found.values())[:limit]

    def _suspects(self, after: datetime | None, suspicion: Suspicion) -> tuple[Sequence[CallRecord], datetime | None]:
        index, begin = self._indexes[4], "-inf" if after is None else f"({_micros(after)}"
        with self._errors():
            last: list[Any] = self._redis.zrange(
                index, begin, "+inf", byscore=True, offset=CHUNK - 1, num=1, withscores=True
            )
            until = _at(int(last[0][1])) if last else None
            end = "+inf" if until is None else _micros(until)
            stretch: list[str] = self._redis.zrange(index, begin, end, byscore=True)  # type: ignore[assignment]
            records = [found.record for found in self._find_all(stretch)]
        return [record for record in records if record is not None and suspicion.falls_on(record)], until

    def is_overtaken(self, record: CallRecord) -> bool:
        """Whether a call of the same queue has been started that was asked for after this one's message went out."""
        with self._errors():
            latest: Any = self._redis.hget(self._begun_key, record.queue or "")
        return latest is not None and int(latest) > _micros(owned.sent_at(record))

    def beat(self, worker: WorkerFacts) -> None:
        """Note that a worker is alive."""
        now = self._now()
        with self._errors():
            known: Any = self._redis.hget(self._workers_key, worker.boot_id)
        began = _micros(now) if known is None else json.loads(known)["started_at"]
        facts = json.dumps({**asdict(worker), "started_at": began, "seen_at": None})
        with self._errors(), self._redis.pipeline() as pipe:
            pipe.hset(self._workers_key, worker.boot_id, facts)
            pipe.zadd(self._seen_key, {worker.boot_id: _micros(now)})
            pipe.execute()

    def workers(self) -> Sequence[WorkerFacts]:
        """Return the workers that were heard of, the latest first."""
        with self._errors(), self._redis.pipeline() as pipe:
            pipe.hgetall(self._workers_key)
            pipe.zrange(self._seen_key, 0, -1, desc=True, withscores=True)
            known, seen = pipe.execute()
            return [_worker(known[boot_id], int(score)) for boot_id, score in seen if boot_id in known]

    def forget_worker(self, boot_id: str) -> None:
        """Forget a worker that has ended in good order."""
        self._forget_workers([boot_id])

    def _forget_workers(self, boot_ids: Sequence[str]) -> None:
        if boot_ids:
            with self._errors(), self._redis.pipeline() as pipe:
                pipe.hdel(self._workers_key, *boot_ids)
                pipe.zrem(self._seen_key, *boot_ids)
                pipe.execute()

    # --- the rest

    def report_many(self, told: Sequence[Told]) -> Sequence[Told]:
        """Merge many reports in two round trips; one call at a time where others were faster."""
        calls = by_call(self._counting(told))
        changes, apart = [], []
        for found, (call_id, several) in zip(self._find_all(calls), calls.items(), strict=True):
            record = found.record
            if record is not None and record.runs and runs_of(several) - {record.run}:
                apart.append(call_id)
                continue
            merged = self._fold(record, {}, several, found.now)
            if merged is not None:
                changes.append((merged, record))
        written = self._write_all(changes)
        apart += [merged.record.call_id for (merged, _), done in zip(changes, written, strict=True) if not done]
        for call_id in apart:
            self._report_all_of(call_id, calls[call_id])
        return ()

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in order."""
        with self._errors():
            rows: list[Any] = self._redis.hvals(self._runs_prefix + call_id)
            found = [decode_attempt(row) for row in rows]
        return tuple(sorted(found, key=lambda attempt: attempt.number))

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete calls that ended strictly before `older_than`; return how many."""
        threshold, now = require_threshold(older_than), self._now()
        _, ended, _, removed, _ = self._indexes
        self._expire(now)
        deleted = self._purge(removed, now - timedelta(seconds=self.timing.tombstone)) + self._purge(ended, threshold)
        with self._errors():
            silent: list[str] = self._redis.zrange(  # type: ignore[assignment]
                self._seen_key, "-inf", f"({_micros(now - REMEMBERED)}", byscore=True
            )
        self._forget_workers(silent)
        return deleted

    def _expire(self, now: datetime) -> None:
        """Make tombstones of the calls whose time to live is over."""
        index, found = self._indexes[2], [""]
        while found:
            with self._errors():
                found = self._redis.zrange(  # type: ignore[assignment]
                    index, "-inf", _micros(now), byscore=True, offset=0, num=CHUNK
                )
            records = [each.record for each in self._find_all(found) if each.record is not None]
            expired = [(owned.expire(record, now), record) for record in records]
            changes = [(merged, record) for merged, record in expired if merged is not None]
            if not any(self._write_all(changes)):
                # Others are at it; what they leave, the next purge takes.
                return

    def _purge(self, index: str, threshold: datetime) -> int:
        deleted, taken = 0, CHUNK
        while taken == CHUNK:
            with self._errors():
                taken, rows = self._purge_script(
                    [index], [_micros(threshold), CHUNK, *self._prefixes, self._family_prefix]
                )
            deleted += rows
        return deleted

    @property
    def place(self) -> str | None:
        """What tells the store from every other: server, database and prefix."""
        return f"{self._place}, {self._channel}"

    @property
    def _place(self) -> str:
        return _place_of(self._redis)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, ValueError) as error:
            kind = StoreUnavailable if _is_away(error) else StoreError
            raise kind(f"The tracking store on {self._place} failed: {error}") from error


class _Listener(Listener):
    """Passes what Redis tells on to a newsroom, as long as somebody watches there."""

    def __init__(self, redis: Redis, channel: str, newsroom: Newsroom) -> None:
        super().__init__(newsroom)
        # Not the store's own: the connections that a URL allows it are for what it has to do.
        self._redis = redis
        self._channel = channel

    def close(self) -> None:
        """Hang up; the next watch opens a line again."""
        super().close()
        self._redis.close()

    @contextmanager
    def _line(self) -> Iterator[Hear]:
        with self._redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(self._channel)
            if pubsub.get_message(timeout=TIMEOUT) is None:
                raise exceptions.TimeoutError("It does not confirm the subscription.")
            yield partial(_told, pubsub)

    @property
    def _place(self) -> str:
        return f"Redis on {_place_of(self._redis)}"


def _told(pubsub: PubSub, seconds: float) -> Iterator[str | None]:
    """Yield what the next message tells, if one comes; after silence find out whether anybody is there."""
    message = pubsub.get_message(timeout=seconds)
    if message is None:
        pubsub.ping()
        message = pubsub.get_message(timeout=TIMEOUT)
        if message is None:
            raise exceptions.TimeoutError("It does not answer.")
    if message["type"] == "message":
        yield message["data"]
    elif message["type"] == "subscribe":
        # redis-py has connected anew, and nobody knows what was told meanwhile.
        yield None


def connect(url: str) -> Redis:
    """Return a client for `url`, not connected yet; `ConfigurationError`, without showing it, if it cannot be read."""
    # No retries by redis-py: after a lost answer it would send the write again, find the row
    # changed by itself, and say that the write did not apply.
    try:
        client = Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        # Not connected yet, but an option that redis-py does not know is refused here. One that the
        # pool makes would count as one of those it may have.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError):
        # Neither the URL nor what redis-py says of it may be shown: both can hold a password.
        raise ConfigurationError(
            "The URL of Redis cannot be read. Write redis://[user:password@]host[:port][/database], "
            "with special characters of the password percent-encoded."
        ) from None
    return client


def _is_away(error: Exception) -> bool:
    """Whether a failure says nothing of what was to be read or written: the same may well succeed later."""
    if isinstance(error, (*_CLOSED, OSError)):
        return True
    return isinstance(error, ResponseError) and _CLOSED_WORDS.search(str(error)) is not None


def _place_of(redis: Redis) -> str:
    options = redis.connection_pool.connection_kwargs
    where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{where}, database {options.get('db', 0)}"


def _found(answer: Any) -> Found:
    version, record, attempt, now = answer[:4]
    return Found(
        None if record is None else replace(decode_call(record), version=int(version)),
        None if attempt is None else decode_attempt(attempt),
        _instant(now),
    )


def _scores(record: CallRecord) -> tuple[int | str, ...]:
    """Return the row's scores in the indexes, in the order of WRITE; "" where it is not in it."""
    attend = "" if record.attend_at is None else _micros(record.attend_at)
    ended: int | str = ""
    expiring: int | str = ""
    removed: int | str = ""
    if record.removed_at is not None:
        removed = _micros(record.removed_at)
    elif record.terminal_at is not None and record.purge_at is not None:
        expiring = _micros(record.purge_at)
    elif record.terminal_at is not None and not record.until_removed:
        ended = _micros(record.terminal_at)
    is_watched = record.status.is_open and not record.owned
    return attend, ended, expiring, removed, _micros(record.enqueued_at) if is_watched else "", attend


def _logged(line: LogLine) -> str:
    return json.dumps({**asdict(line), "at": line.at.isoformat()}, separators=(",", ":"))


def _chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(keys)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _worker(facts: str, seen: int) -> WorkerFacts:
    known = _known(WorkerFacts, json.loads(facts))
    return WorkerFacts(**{**known, "started_at": _at(known["started_at"]), "seen_at": _at(seen)})


def _known(kind: type[Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only a later version of the library knows."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in stored.items() if name in names}


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _at(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _instant(time: Any) -> datetime:
    """Return what Redis' TIME says: seconds and microseconds, as numbers or texts."""
    seconds, micros = time
    return _EPOCH + timedelta(seconds=int(seconds), microseconds=int(micros))
