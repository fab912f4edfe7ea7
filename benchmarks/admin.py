"""What the admin's pages ask of the database, with as many rows as a busy site has.

    python -m benchmarks.admin [--rows 5000000] [--repeat 5] [--plans]

Every page is fetched by the test client from the real admin: the list, each value of each filter, filters
together, the search for what there is and what there is not, the last page one can turn to, the page of one
call and of its tree, the dashboard; and the figures of `lrp_stats`. Shown are how many queries each makes and the milliseconds for which the
server's process was on the CPU for them, with everything in memory: the least of several, for what others do on
the machine only adds; and how heavy the page is. A query may take 10 ms (`--plans` explains those that take longer),
a page 12 queries, 60 ms for all of them, and 150 kB. Uses the rows of `BENCH_PG` where `fill` has made them, else makes
them on a private server first.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from benchmarks.fill import have, set_up
from benchmarks.processes import on_cpu
from benchmarks.servers import grounds
from benchmarks.tables import markdown, short

LIST = "/admin/lrp_celery/call/"
DASHBOARD = "/admin/lrp_celery/hourlyrollup/"
#: Milliseconds that one query may take, and all of a page's, how many these may be, and bytes of a page.
BAR = 10.0
PAGE_BAR = 60.0
QUERIES = 12
WEIGHT = 150_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One query, how long it took, and for how long of that the server was at work on it."""

    sql: str
    parameters: Any
    milliseconds: float
    at_work: float


class Queries:
    """Notes the queries of a connection to a server on this machine."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def __call__(self, execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        """Run a query, and note it: as Django's `execute_wrapper` takes it."""
        backend = context["connection"].connection.info.backend_pid
        worked, began = on_cpu(backend), time.perf_counter()
        try:
            return execute(sql, parameters, many, context)
        finally:
            took = time.perf_counter() - began
            self.asked.append(Asked(sql, parameters, took * 1e3, (on_cpu(backend) - worked) * 1e3))


@dataclass(frozen=True, slots=True)
class Page:
    """What a page has asked: each query with its least time."""

    name: str
    asked: list[Asked]
    weight: int
    """Bytes of it; 0: it is no page, and may take more queries."""

    @property
    def is_light(self) -> bool:
        """Whether it stays within all bars but that of a query."""
        is_brief = len(self.asked) <= QUERIES or not self.weight
        return is_brief and self.total <= PAGE_BAR and self.weight <= WEIGHT

    @property
    def hardest(self) -> Asked:
        """The query that was most work."""
        return max(self.asked, key=lambda asked: asked.at_work)

    @property
    def total(self) -> float:
        """Milliseconds of work for all queries."""
        return sum(asked.at_work for asked in self.asked)


def pages() -> Iterator[tuple[str, str]]:
    """Yield what there is to look at: a name, and the path with its query string."""
    from django_app.models import Call

    tasks = _tasks()
    yield "the list", LIST
    for over in ("24h", "7d"):
        yield f"the dashboard, {over}", f"{DASHBOARD}?over={over}"
    yield from _filters(tasks)
    for task in tasks.values():
        for also in ({"status": "failed"}, {"status": "submitted"}, {"attention": "any"}, {"enqueued": "1h"}):
            yield _listed(task=task, **also)
    for status in ("succeeded", "aborted", "started"):
        yield _listed(status=status, enqueued="24h")
    newest = Call.objects.filter(terminal_at__isnull=False).order_by("-enqueued_at").first()
    middle = Call.objects.filter(status="failed", enqueued_at__lt=_middle()).order_by("-enqueued_at").first()
    child = Call.objects.filter(parent_id__isnull=False).order_by("-enqueued_at").first()
    if child is not None:
        yield _listed(root=child.root_id)
        yield "a tree", f"{LIST}{child.pk}/tree/"
    for term in (
        middle.pk,
        middle.pk[:13],
        middle.pk[:7],
        "0",
        "x",
        "nothing.like.it",
        *tasks.values(),
        "send",
        "s",
        "shop",
    ):
        yield _listed(q=term)
        yield _listed(q=term, status="failed")
    for number in (2, 5, "last"):
        yield f"page {number}", f"{LIST}?{urlencode({'p': number if number != 'last' else _last(), 'q': ''})}"
        yield _listed(p=number if number != "last" else _last(), status="failed")
    for name, call in (("a call", newest), ("an old call that failed", middle), ("a child", child)):
        if call is not None:
            yield name, f"{LIST}{call.pk}/change/"


def _tasks() -> Mapping[str, str]:
    """Return the name of the most frequent task and of the rarest."""
    from django.db.models import Count

    from django_app.models import Call

    newest = Call.objects.filter(enqueued_at__gt=_middle()).order_by("-enqueued_at")[:20_000]
    counted = Call.objects.filter(pk__in=newest.values("pk")).values("task").annotate(n=Count("pk")).order_by("n")
    names = [each["task"] for each in counted]
    return {"frequent": names[-1], "rare": names[0]}


def _middle() -> Any:
    from datetime import timedelta

    from django.utils import timezone

    return timezone.now() - timedelta(days=15)


def _filters(tasks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    from django.contrib.admin import site
    from django.test import RequestFactory

    from django_app.admin.filters import FILTERS, TaskFilter, TreeFilter
    from django_app.models import Call

    request = RequestFactory().get(LIST)
    for kind in FILTERS:
        if kind is TreeFilter:
            continue
        offered = (value for value, _ in kind(request, {}, Call, site.get_model_admin(Call)).lookup_choices)
        for value in (*(tasks.values() if kind is TaskFilter else offered), "unknown"):
            yield _listed(**{kind.parameter_name: value})


def _listed(**query: Any) -> tuple[str, str]:
    return ", ".join(f"{name}={value}" for name, value in query.items()), f"{LIST}?{urlencode(query)}"


def _last() -> int:
    from django_app.admin.calls import CallAdmin

    return CallAdmin.paginator.LIMIT // CallAdmin.list_per_page


def look(name: str, visit: Callable[[], int | None], repeat: int) -> Page | None:
    """Visit a page several times; the first one is for warming up. None: there is no such page."""
    from django.db import connection

    from django_app.admin import tasks, values

    runs: list[list[Asked]] = []
    for _ in range(repeat + 1):
        tasks.forget()
        values.forget()
        queries = Queries()
        with connection.execute_wrapper(queries):
            weight = visit()
        if weight is None:
            return None
        runs.append(queries.asked)
    return Page(name, [_least(same) for same in zip(*runs[1:], strict=True)], weight)


def _least(same: Sequence[Asked]) -> Asked:
    took, at_work = min(each.milliseconds for each in same), min(each.at_work for each in same)
    return Asked(same[0].sql, same[0].parameters, took, at_work)


def visits() -> Iterator[tuple[str, Callable[[], int | None]]]:
    """Yield the name of each page, and what fetches it and returns its bytes; None: there is no such page."""
    from django_app.stats import stats

    client = signed_in()
    for name, path in pages():
        yield name, lambda path=path: _fetch(client, path)
    yield "lrp_stats", lambda: 0 * bool(stats("default"))


def _fetch(client: Any, path: str) -> int | None:
    response = client.get(path)
    if response.status_code not in {HTTPStatus.OK, HTTPStatus.FOUND}:
        raise SystemExit(f"{path}: {response.status_code}")
    # Where there are too few rows for a page, one is sent to another.
    return len(response.content) if response.status_code == HTTPStatus.OK else None


def signed_in() -> Any:
    """Return a client of somebody who may see everything."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    user, _ = get_user_model().objects.get_or_create(username="ada", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def explain(asked: Asked) -> str:
    """Return how PostgreSQL answers a query."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {asked.sql}", asked.parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    return f"{asked.sql[-600:]}\n{asked.parameters}\n{plan}"


def main() -> None:
    """Look at every page, and print the table, the slowest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--plans", action="store_true")
    chosen = parser.parse_args()
    with grounds() as ground:
        set_up()
        have(ground.postgres, chosen.rows)
        looked = (look(name, visit, chosen.repeat) for name, visit in visits())
        found = [page for page in looked if page is not None]
        found.sort(key=lambda page: -page.hardest.at_work)
        rows = [
            [
                *(p.name, len(p.asked), short(p.hardest.at_work), short(p.hardest.milliseconds), short(p.total)),
                short(p.weight / 1000),
            ]
            for p in found
        ]
        over = [page for page in found if page.hardest.at_work > BAR]
        plans = [f"\n{page.name}\n{explain(page.hardest)}" for page in over] if chosen.plans else []
    head = ["page", "queries", "hardest query, ms of SQL", "with waiting for the CPU", "all queries, ms of SQL", "kB"]
    print(markdown(head, rows), *plans, sep="\n")
    heavy = [page.name for page in found if not page.is_light]
    print(f"\n{len(found)} pages of {chosen.rows} calls, {len(over)} with a query over {BAR:g} ms.")
    print(f"Over {QUERIES} queries, {PAGE_BAR:g} ms or {WEIGHT // 1000} kB: {', '.join(heavy) or 'none'}.")


if __name__ == "__main__":
    main()
