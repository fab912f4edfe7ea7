"""manage.py lrp_calls: what became of calls."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from django_app.conf import options as settings
from django_app.models import Call
from django_app.querysets import CallQuerySet
from django_app.stores import rows
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.status import CallStatus


class Command(BaseCommand):
    help = "List calls, the newest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--status",
            action="append",
            choices=[status.value for status in CallStatus],
            help="Only calls in this status; may be given several times.",
        )
        parser.add_argument("--task", help="Only calls of this task; a * at the end stands for anything.")
        parser.add_argument("--open", action="store_true", help="Only calls that have not ended.")
        parser.add_argument("--limit", type=_positive, default=20, help="How many at most (%(default)s).")
        parser.add_argument("--json", action="store_true", help="Everything that is known, one JSON object for each.")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = _filtered(Call.objects.using(settings().DATABASE).visible(), options)
        found = wanted.order_by("-enqueued_at", "-call_id").values_list(*rows.CALL_COLUMNS)[: options["limit"]]
        for values in found:
            snapshot = rows.call_record(values).snapshot()
            self.stdout.write(_as_json(snapshot) if options["json"] else _as_line(snapshot))


def _filtered(calls: CallQuerySet, options: dict[str, Any]) -> CallQuerySet:
    if options["status"]:
        calls = calls.filter(status__in=options["status"])
    if options["open"]:
        calls = calls.open()
    task = options["task"]
    if task and task.endswith("*"):
        return calls.filter(task__startswith=task.removesuffix("*"))
    return calls.for_task(task) if task else calls


def _as_json(snapshot: CallSnapshot) -> str:
    return json.dumps(asdict(snapshot), cls=DjangoJSONEncoder)


def _as_line(snapshot: CallSnapshot) -> str:
    enqueued = timezone.localtime(snapshot.enqueued_at).strftime("%Y-%m-%d %H:%M:%S")
    why = f" ({snapshot.reason})" if snapshot.reason else ""
    error = f"  {snapshot.error_type}" if snapshot.error_type else ""
    return f"{snapshot.call_id}  {enqueued}  {snapshot.status}{why}  {snapshot.task}{error}"


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number above 0.")
    return int(text)
