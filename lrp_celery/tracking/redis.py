"""A tracking store in Redis or Valkey, for projects without Django.

What lies where (`lrp` is the prefix):

    lrp:call:<call id>    hash    version -> how often the row was written, a decimal number
                                  record  -> the row, JSON (`lrp_celery.tracking.encoding`)
    lrp:runs:<call id>    hash    run token -> the run's own row, JSON; absent while no run has one
    lrp:ended             zset    call ids of terminal rows, scored by `terminal_at` in microseconds

No key ever expires by itself: an open row must outlive every failure, and a terminal one ends
by `purge_terminal`. Each operation is one script, so nobody sees half of a write. The scripts
name keys that they compute; on Redis Cluster give the prefix a hash tag (`{lrp}`), which keeps
all of them on one node.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lrp_celery.core.errors import ConfigurationError, StoreError, StoreUnavailable
from lrp_celery.tracking.encoding import decode_attempt, decode_call, encode
from lrp_celery.tracking.record import AttemptRecord, CallRecord
from lrp_celery.tracking.steps import Merged
from lrp_celery.tracking.store import Found, MergingStore, require_threshold

try:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import RedisError
    from redis.exceptions import TimeoutError as RedisTimeoutError
    from redis.retry import Retry
except ImportError as error:
    raise ImportError("RedisTrackingStore needs redis-py: pip install 'lrp_celery[redis]'.") from error

#: Seconds to wait for a connection or an answer, unless the URL says otherwise (`?socket_timeout=1`).
TIMEOUT: Final = 5.0
#: Rows that one purge script deletes; Redis serves nobody else meanwhile (about 2 ms).
CHUNK: Final = 500

# KEYS: call, runs. ARGV: run token, or "" for none.
# Returns the version, the row, the run's row (each nil if absent) and the server's time.
FIND: Final = """
local call = redis.call('HMGET', KEYS[1], 'version', 'record')
local run = ARGV[1] ~= '' and redis.call('HGET', KEYS[2], ARGV[1])
return {call[1], call[2], run, redis.call('TIME')}
"""

# KEYS: call, runs, ended. ARGV: the version that was read ("" for no row), the version and the
# row to write, terminal_at in microseconds ("" while open), the call id, then run token and row
# of each run. Returns 1 if it wrote, 0 if the row is not in that version.
WRITE: Final = """
local version = redis.call('HGET', KEYS[1], 'version') or ''
if version ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
if ARGV[4] ~= '' then
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
end
for i = 6, #ARGV, 2 do
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1
"""

# KEYS: ended. ARGV: threshold in microseconds, chunk size, prefixes of the keys of call and runs.
# Returns how many entries it took from the index, and how many rows it deleted.
PURGE: Final = """
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
local deleted = 0
for _, id in ipairs(old) do
    deleted = deleted + redis.call('UNLINK', ARGV[3] .. id)
    redis.call('UNLINK', ARGV[4] .. id)
    redis.call('ZREM', KEYS[1], id)
end
return {#old, deleted}
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RedisTrackingStore(MergingStore):
    """A `TrackingStore` in Redis >= 6.2 or Valkey.

    `url` is redis-py's (`redis://`, `rediss://`, `unix://`, with its query options); stores with
    one `prefix` on one database share their calls. Connecting happens at first use. Safe for
    threads and across fork. What survives a crash of the server is what its own persistence
    kept (`appendonly yes`); eviction must be off (`maxmemory-policy noeviction`).
    """

    def __init__(self, url: str, *, prefix: str = "lrp") -> None:
        self._redis = _client(url)
        self._call_prefix = f"{prefix}:call:"
        self._runs_prefix = f"{prefix}:runs:"
        self._ended_key = f"{prefix}:ended"
        self._find_script = self._redis.register_script(FIND)
        self._write_script = self._redis.register_script(WRITE)
        self._purge_script = self._redis.register_script(PURGE)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._place}>"

    def close(self) -> None:
        """Close the idle connections; the store opens new ones when it is used again."""
        self._redis.close()

    def _now(self) -> datetime:
        with self._errors():
            return _instant(self._redis.time())

    def _find(self, call_id: str, run: str | None) -> Found:
        keys = [self._call_prefix + call_id, self._runs_prefix + call_id]
        with self._errors():
            version, record, attempt, now = self._find_script(keys, [run or ""])
            return Found(
                None if record is None else replace(decode_call(record), version=int(version)),
                None if attempt is None else decode_attempt(attempt),
                _instant(now),
            )

    def _write(self, merged: Merged, replaces: CallRecord | None) -> bool:
        record = merged.record
        read, written = ("", 0) if replaces is None else (replaces.version, replaces.version + 1)
        ended = "" if record.terminal_at is None else _micros(record.terminal_at)
        runs = [text for attempt in merged.attempts for text in (attempt.run, encode(attempt))]
        keys = [self._call_prefix + record.call_id, self._runs_prefix + record.call_id, self._ended_key]
        with self._errors():
            return bool(self._write_script(keys, [read, written, encode(record), ended, record.call_id, *runs]))

    def attempts(self, call_id: str) -> tuple[AttemptRecord, ...]:
        """Return the runs that have a row of their own, in order."""
        with self._errors():
            rows: list[Any] = self._redis.hvals(self._runs_prefix + call_id)
            found = [decode_attempt(row) for row in rows]
        return tuple(sorted(found, key=lambda attempt: attempt.number))

    def purge_terminal(self, older_than: datetime) -> int:
        """Delete calls that ended strictly before `older_than`; return how many."""
        threshold = _micros(require_threshold(older_than))
        deleted, taken = 0, CHUNK
        while taken == CHUNK:
            with self._errors():
                taken, rows = self._purge_script(
                    [self._ended_key], [threshold, CHUNK, self._call_prefix, self._runs_prefix]
                )
            deleted += rows
        return deleted

    @property
    def _place(self) -> str:
        options = self._redis.connection_pool.connection_kwargs
        where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        return f"{where}, database {options.get('db', 0)}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, ValueError) as error:
            away = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
            kind = StoreUnavailable if away else StoreError
            raise kind(f"The tracking store on {self._place} failed: {error}") from error


def _client(url: str) -> Redis:
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
        # Not connected yet, but an option that redis-py does not know is refused here.
        client.connection_pool.make_connection()
    except (TypeError, ValueError):
        # Neither the URL nor what redis-py says of it may be shown: both can hold a password.
        raise ConfigurationError(
            "The URL of RedisTrackingStore cannot be read. Write redis://[user:password@]host[:port][/database], "
            "with special characters of the password percent-encoded."
        ) from None
    return client


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(time: Any) -> datetime:
    """Return what Redis' TIME says: seconds and microseconds, as numbers or texts."""
    seconds, micros = time
    return _EPOCH + timedelta(seconds=int(seconds), microseconds=int(micros))
