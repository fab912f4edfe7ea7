"""What nearly all reports say (a call's first run began, it succeeded), written without reading the rows first.

On PostgreSQL only. The condition of each statement says when the rule (`lrp_celery.tracking.merge`) would change
a row just so; what it does not hold for is left to the rule itself. Where many calls end together, the statement
that ends them counts them, too: to mark them afterwards would write each row and its entries in the indexes again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_app.executing import execute
from django_app.stores import counting, rows, summing, telling
from django_app.stores.sums import Key, Sums
from django_app.stores.tables import array_literal
from lrp_celery.tracking.folding import PlainRun

#: Fewer calls than this are cheaper counted together with others, later.
_MANY: Final = 8
_MICROSECOND: Final = timedelta(microseconds=1)
_BEGAN: Final = "STATEMENT_TIMESTAMP() - news.began * INTERVAL '1 microsecond'"
_ENDED: Final = "STATEMENT_TIMESTAMP() - news.ended * INTERVAL '1 microsecond'"


@dataclass(frozen=True, slots=True)
class _Story:
    """What a statement sets, the times of which its row is as new as the latest, and which rows it is for."""

    settings: tuple[str, ...]
    times: tuple[str, ...]
    only_if: str


_BEGINS: Final = (
    *("run = news.run", "worker = news.worker", "pid = news.pid", "redelivered = news.redelivered"),
    *("acks_late = news.acks_late", "attempt = 1", "runs = 1"),
    f"started_at = GREATEST(call.enqueued_at, {_BEGAN})",
)
_SUCCEEDS: Final = (
    *("status = 'succeeded'", "run_outcome = 'succeeded'", "stop_reason = NULL"),
    *("last_error = NULL", "error_type = NULL", "http_status = NULL"),
)
_IS_WATCHED: Final = "NOT call.owned AND call.removed_at IS NULL AND NOT call.remove_when_settled"
#: Nothing has happened since the row was made, and who made it knew how to show the arguments.
_IS_AS_MADE: Final = (
    "call.version = 0 AND call.status = 'submitted' AND call.runs = 0 AND call.stop_reason IS NULL "
    f"AND call.target_summary IS NOT NULL AND {_IS_WATCHED}"
)
_IS_IN_THIS_RUN: Final = (
    f"call.run = news.run AND call.status = 'started' AND call.run_outcome IS NULL AND {_IS_WATCHED}"
)
#: By whether it is told that the run began, and that it ended.
_STORIES: Final = {
    (True, False): _Story((*_BEGINS, "status = 'started'"), (_BEGAN,), _IS_AS_MADE),
    (True, True): _Story((*_BEGINS, *_SUCCEEDS), (_BEGAN, _ENDED), _IS_AS_MADE),
    (False, True): _Story(_SUCCEEDS, (_ENDED,), _IS_IN_THIS_RUN),
}
_COLUMNS: Final = (
    *(("call_id", "text"), ("run", "text"), ("worker", "text"), ("pid", "bigint")),
    *(("redelivered", "boolean"), ("acks_late", "boolean"), ("began", "bigint"), ("ended", "bigint")),
)


def is_possible(connection: BaseDatabaseWrapper) -> bool:
    """Whether a statement can take its values from arrays."""
    return connection.vendor == "postgresql"


def write(connection: BaseDatabaseWrapper, runs: Iterable[PlainRun]) -> set[str]:
    """Write what is told of these runs, of one call each; return the calls of which the rows are so written."""
    alike: dict[tuple[bool, bool], list[tuple[Any, ...]]] = defaultdict(list)
    for plain in runs:
        alike[plain.began is not None, plain.ended is not None].append(_row(plain))
    written: set[str] = set()
    sums: dict[Key, Sums] = {}
    for (began, ended), news in alike.items():
        counts = ended and len(news) >= _MANY
        update = _update(rows.calls.quoted(connection), (began, ended), counts=counts, is_heard=telling.is_heard())
        arrays = [array_literal(column) for column in zip(*news, strict=True)]
        if counts:
            written.update(summing.run(connection, update, arrays, sums))
        else:
            written.update(call_id for (call_id,) in execute(connection, update, arrays).fetchall())
    # Last of all, as others who count at the same time wait from here to the end.
    counting.enter(connection, sums)
    return written


def _row(plain: PlainRun) -> tuple[Any, ...]:
    run = plain.run
    return (
        *(plain.call_id, run.token, run.worker, run.pid, run.redelivered, run.acks_late),
        *(_microseconds(plain.began), _microseconds(plain.ended)),
    )


def _microseconds(age: timedelta | None) -> int | None:
    return None if age is None else age // _MICROSECOND


@lru_cache(maxsize=16)
def _update(table: str, kind: tuple[bool, bool], *, counts: bool, is_heard: bool) -> str:
    story = _STORIES[kind]
    latest = f"GREATEST(call.updated_at, {', '.join(story.times)})"
    at_the_end = ("terminal_at", "tell_at") if is_heard else ("terminal_at",)
    ends = [f"{name} = {latest}" for name in at_the_end] if kind[1] else []
    marks = (summing.MARK,) if counts else ()
    settings = ", ".join((*story.settings, *ends, *marks, f"updated_at = {latest}", "version = call.version + 1"))
    names = ", ".join(name for name, _ in _COLUMNS)
    arrays = ", ".join(f"%s::{kind}[]" for _, kind in _COLUMNS)
    update = (
        f"UPDATE {table} AS call SET {settings} FROM unnest({arrays}) AS news({names}) "
        # Of so many conditions the planner thinks that one row meets them, and would compare each of thousands with each news.
        f"WHERE call.call_id = news.call_id AND CASE WHEN {story.only_if} THEN TRUE ELSE FALSE END"
    )
    return summing.summing_up(update) if counts else f"{update} RETURNING call.call_id"
