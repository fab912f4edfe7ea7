"""Makes as many rows as a busy site has: `python -m benchmarks.fill --rows 5000000`.

Calls of forty tasks, some frequent and most rare, evenly over the last thirty days, with UUID v7 ids in the
order of time: nearly all succeeded; some failed, parked, aborted or discarded, with their attempts; some are
procedures' with a payload; some are children of others; the newest are open, and a few old ones have been
silent ever since. All that ended are in the hourly counts. The database is `BENCH_PG`'s; without it a private server is started, which stays until
Ctrl-C, so that others can measure on it meanwhile.
"""

import argparse
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from benchmarks.servers import grounds

#: Rows that are made by one statement.
CHUNK = 250_000
#: Of how many calls the newest are open, at most.
OPEN = 2_000

TASKS = ", ".join(
    f"'{app}.tasks.{task}_{thing}'"
    for app, things in (("shop", ("order", "basket")), ("mail", ("receipt", "digest")), ("reports", ("month", "day")))
    for thing in things
    for task in ("import", "send", "check", "build", "refund", "archive", "score")
)
#: Of 1000 ended calls: statuses from the most frequent on, with where each begins.
STATUSES = ((0, "succeeded"), (945, "failed"), (975, "parked"), (980, "aborted"), (985, "discarded"))

#: `n` counts from 1 to the number of rows, `h` is a hash of it, `dice` is 0 to 999 and fair.
CALLS = """
WITH numbered AS (
    SELECT n, md5(n::text || 'call') AS h, ('x' || substr(md5(n::text), 1, 7))::bit(28)::int %% 1000 AS dice,
           now() - interval '30 days' * ((%(rows)s - n)::float / %(rows)s) AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
), named AS (
    SELECT *, lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') AS clock,
           (ARRAY[{tasks}])[1 + floor({count} * power(('x' || substr(h, 20, 6))::bit(24)::int / 16777216.0, 3))::int] AS name,
           n > %(rows)s - %(open)s OR n %% 1000000 = 17 AS is_open
    FROM numbered
), told AS (
    SELECT *, substr(clock, 1, 8) || '-' || substr(clock, 9) || '-7' || substr(h, 1, 3) || '-8' || substr(h, 4, 3)
           || '-' || substr(h, 7, 12) AS id,
           CASE WHEN NOT is_open THEN {statuses} WHEN dice < 800 THEN 'submitted' WHEN dice < 900 THEN 'started'
                ELSE 'retrying' END AS what
    FROM named
)
INSERT INTO lrp_celery_call ({columns}) SELECT {values} FROM told
"""
#: What is known of each call, as SQL over `told`.
KNOWN = {
    "call_id": "id",
    "task": "name",
    "status": "what",
    "reason": "CASE what WHEN 'parked' THEN 'max_retries' WHEN 'aborted' THEN 'aborted' WHEN 'discarded' THEN 'expired' END",
    "retries": "CASE WHEN what IN ('parked', 'retrying') THEN 3 ELSE 0 END",
    "attempt": "CASE what WHEN 'submitted' THEN 0 WHEN 'discarded' THEN 0 WHEN 'parked' THEN 4 WHEN 'retrying' THEN 3 ELSE 1 END",
    "runs": "CASE what WHEN 'failed' THEN 1 WHEN 'parked' THEN 4 WHEN 'retrying' THEN 3 ELSE 0 END",
    "queue": "CASE dice % 3 WHEN 0 THEN 'celery' WHEN 1 THEN 'slow' ELSE 'mail' END",
    "worker": "CASE WHEN what NOT IN ('submitted', 'discarded') THEN 'worker-' || dice % 8 || '@shop.example.com' END",
    "run": "CASE WHEN what NOT IN ('submitted', 'discarded') THEN substr(h, 1, 20) || ':' || n END",
    "run_outcome": "CASE WHEN what IN ('succeeded', 'failed', 'parked') THEN what WHEN what = 'retrying' THEN 'retried' END",
    "pid": "CASE WHEN what NOT IN ('submitted', 'discarded') THEN 1000 + dice END",
    "target_summary": "'(' || n || ', ''user' || n || '@example.com''), flag=True, month=''2026-' || 1 + dice % 12 || ''''",
    "source_instance_id": "'web-' || dice % 4",
    "source_script": "'shop.views.checkout'",
    "source_node": "'gen' || 100 + dice || '@web-' || dice % 4",
    "last_error": "CASE WHEN what IN ('failed', 'parked') THEN 'the server said ' || dice || ' and closed the connection' END",
    "error_type": "CASE WHEN what IN ('failed', 'parked') THEN 'requests.exceptions.ConnectionError' END",
    "root_id": "id",
    "enqueued_at": "at",
    "published_at": "at",
    "started_at": "CASE WHEN what NOT IN ('submitted', 'discarded') THEN at + interval '1 ms' * dice END",
    "updated_at": "at + interval '2 ms' * dice",
    "terminal_at": "CASE WHEN NOT is_open THEN at + interval '2 ms' * dice END",
    "owned": "dice % 20 = 3",
    "acks_late": "dice % 20 = 3",
    "version": "2",
    "counted_at": "CASE WHEN NOT is_open THEN at + interval '3 ms' * dice END",
}
#: Every tenth call is a child of the one before it.
CHILDREN = """
UPDATE lrp_celery_call AS child SET root_id = pair.parent, parent_id = pair.parent
FROM (SELECT call_id, lag(call_id) OVER (ORDER BY call_id) AS parent, row_number() OVER (ORDER BY call_id) AS n
      FROM lrp_celery_call WHERE enqueued_at > now() - interval '1 day') AS pair
WHERE child.call_id = pair.call_id AND pair.n % 10 = 0 AND pair.parent IS NOT NULL
"""
ATTEMPTS = """
INSERT INTO lrp_celery_attempt (call_id, run, number, retries, nesting, worker, pid, redelivered, late, started_at,
                                ended_at, outcome, error_type, last_error, traceback)
SELECT call_id, call_id || ':' || number, number, number - 1, 0, worker, pid, false, false, started_at, updated_at,
       CASE WHEN number < runs OR status = 'retrying' THEN 'retried' ELSE status END, error_type, last_error,
       repeat('  File "/srv/shop/tasks.py", line 17, in send\n    answer = client.get(url)\n', 12)
FROM lrp_celery_call, generate_series(1, runs) AS number WHERE runs > 0
"""
#: The hourly counts of these calls, as `django_app.stores.counting` has them, but with keys of their own.
ROLLUPS = """
WITH ended AS (
    SELECT date_trunc('hour', terminal_at) AS hour, task, status, COALESCE(error_type, '') AS error_type,
           started_at - enqueued_at AS wait, terminal_at - started_at AS run
    FROM lrp_celery_call WHERE terminal_at IS NOT NULL
), sized AS (
    SELECT hour, task, status, error_type, kind,
           CASE WHEN length < 0.0001 THEN 0 ELSE floor(log(2, (length * 10000)::numeric) * 4)::int + 1 END AS size, count(*) AS calls
    FROM ended, LATERAL (VALUES ('w', extract(epoch FROM wait)), ('r', extract(epoch FROM run)), ('c', 1)) AS told (kind, length)
    WHERE length IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6
), together AS (
    SELECT hour, task, status, error_type, sum(calls) FILTER (WHERE kind = 'c') AS calls,
           json_object_agg(size::text, calls) FILTER (WHERE kind = 'w') AS waits,
           json_object_agg(size::text, calls) FILTER (WHERE kind = 'r') AS runs
    FROM sized GROUP BY 1, 2, 3, 4
)
INSERT INTO lrp_celery_hourlyrollup (key, hour, task, status, error_type, calls, waits, runs)
SELECT md5(hour::text || task || status || error_type), hour, task, status, error_type, calls,
       COALESCE(waits::text, ''), COALESCE(runs::text, '')
FROM together
"""
PAYLOADS = """
INSERT INTO lrp_celery_payload (call_id, message, result)
SELECT call_id, '{"task": "' || task || '", "args": [' || pid || '], "kwargs": {"month": "2026-10"}}', '{"pages": 12}'
FROM lrp_celery_call WHERE owned
"""


def fill(url: str, rows: int) -> None:
    """Make the rows in a database whose tables are there and empty; Django is set up."""
    from django.db import connection

    from django_app.models import Call

    indexes = Call._meta.indexes
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(Call, index)
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("SET synchronous_commit = off")
        statement = _statement()
        for first, last in _chunks(rows):
            open_ = min(OPEN, rows // 10)
            server.execute(statement, {"rows": rows, "first": first, "last": last, "open": open_})
            print(f"{last} calls", flush=True)
        with connection.schema_editor() as editor:
            for index in indexes:
                editor.add_index(Call, index)
        for also in (CHILDREN, ATTEMPTS, PAYLOADS, ROLLUPS):
            server.execute(also)
        server.execute("VACUUM ANALYZE")
    print("attempts, payloads and indexes are there, too", flush=True)


def _statement() -> str:
    columns = {**_defaults(), **KNOWN}
    cases = "".join(f" WHEN dice >= {begin} THEN '{status}'" for begin, status in reversed(STATUSES))
    return CALLS.format(
        tasks=TASKS,
        count=TASKS.count("'") // 2,
        statuses=f"CASE{cases} END",
        columns=", ".join(columns),
        # Percent signs are psycopg's.
        values=", ".join(columns.values()).replace("%", "%%"),
    )


def _defaults() -> Mapping[str, str]:
    """Return what the columns hold that must not be empty and of which nothing is known."""
    from django_app.models import Call

    fields = [field for field in Call._meta.concrete_fields if not field.null and field.has_default()]
    return {field.column: _literal(field.get_default()) for field in fields}


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(1, rows + 1, CHUNK):
        yield first, min(first + CHUNK - 1, rows)


def set_up(kind: str = "admin") -> None:
    """Set Django up in this process, with the tables made."""
    os.environ |= {"BENCH_WITH": kind, "DJANGO_SETTINGS_MODULE": "benchmarks.settings"}
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def have(url: str, rows: int) -> None:
    """Make the rows unless there are as many already; SystemExit if there are others."""
    from django_app.models import Call

    # By the ids: what has been measured before has left some, or taken some away.
    there = Call.objects.count()
    if there == 0:
        fill(url, rows)
    elif abs(there - rows) > rows / 100:
        raise SystemExit(f"{url} has {there} calls already, and {rows} are asked for: use an empty database.")


def main() -> None:
    """Fill, and keep a private server running."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    chosen = parser.parse_args()
    is_private = "BENCH_PG" not in os.environ
    with grounds() as ground:
        set_up()
        began = time.monotonic()
        fill(ground.postgres, chosen.rows)
        print(f"{chosen.rows} calls in {time.monotonic() - began:.0f} s")
        if is_private:
            print(f"\nexport BENCH_PG={ground.postgres}\n\nIt stays until Ctrl-C, or SIGTERM.", flush=True)
            ends = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)
            signal.sigwait(ends)


if __name__ == "__main__":
    main()
