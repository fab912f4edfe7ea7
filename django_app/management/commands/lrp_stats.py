"""manage.py lrp_stats: how calls, workers and tracking are doing."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder

from django_app.conf import options as settings
from django_app.durations import duration
from django_app.stats import Stats, stats


class Command(BaseCommand):
    help = (
        "Show how many calls there are and how the workers are. Reads a bounded number of rows, however many there are."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="One JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        found = stats(settings().DATABASE)
        if options["json"]:
            self.stdout.write(json.dumps(asdict(found), cls=DjangoJSONEncoder))
        else:
            for line in _page(found):
                self.stdout.write(line)


def _page(found: Stats) -> Iterator[str]:
    yield f"{'Calls':24}{'all':>10}{'last hour':>12}"
    for status, counted in found.open.by_status.items():
        yield f"  {status:22}{counted!s:>10}"
    for status, counted in found.ended.items():
        yield f"  {status:22}{counted!s:>10}{found.lately[status]!s:>12}"
    yield f"Oldest waiting for: {_since(found.open.waiting_since, found.now)}"
    yield f"Longest running for: {_since(found.open.running_since, found.now)}"
    yield f"Overdue: {found.open.overdue}, silent: {found.open.silent}"
    yield ""
    yield from _workers(found)
    yield ""
    yield from _tracking(found)


def _workers(found: Stats) -> Iterator[str]:
    if not found.workers:
        yield "Workers: none is known"
        return
    yield f"{'Workers':36}{'pool':10}{'process':>9}{'up for':>16}{'heard of':>16}{'in spool':>12}{'dropped':>9}"
    for worker in found.workers:
        up, heard = _since(worker.started_at, found.now), _since(worker.seen_at, found.now)
        spool = f"{worker.waiting:>12,}{worker.dropped:>9,}"
        yield f"  {worker.name:34}{worker.pool:10}{worker.pid:>9}{up:>16}{heard + ' ago':>16}{spool}"


def _tracking(found: Stats) -> Iterator[str]:
    yield f"Reports dropped: {found.dropped:,}"
    yield f"Not written to the database yet: {found.waiting:,} bytes"


def _since(instant: datetime | None, now: datetime) -> str:
    return "nothing" if instant is None else duration(now - instant)
