"""manage.py lrp_purge: delete calls that have been kept long enough."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.connection import ConnectionDoesNotExist

from django_app.management.arguments import age, positive
from django_app.purge import BUDGET, CHUNK, purge
from lrp_celery.core.errors import LrpError


class Command(BaseCommand):
    help = (
        "Delete calls that ended longer ago than the setting RETENTION keeps them, in small chunks. "
        "Open calls are never deleted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--older-than",
            type=_age_or_instant,
            help="Instead of RETENTION: every call that ended before this, parked ones too. "
            "An age (90s, 30m, 12h, 7d, 4w) or a time with its zone (2026-11-01T00:00+00:00).",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only count.")
        parser.add_argument("--database", help="The alias of the database; default: the setting DATABASE.")
        parser.add_argument("--chunk", type=positive, default=CHUNK, help="Calls per transaction (%(default)s).")
        parser.add_argument(
            "--budget",
            type=age,
            default=BUDGET,
            help="How long to go on, e.g. 10m; the next run continues where this one stopped (5m).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            purged = purge(
                older_than=options["older_than"],
                dry_run=options["dry_run"],
                using=options["database"],
                chunk=options["chunk"],
                budget=options["budget"],
            )
        except (LrpError, OverflowError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        if options["verbosity"] == 0:
            return
        verb = "would be deleted" if options["dry_run"] else "deleted"
        self.stdout.write(f"{purged.calls} calls {verb}.")
        if purged.emptied:
            verb = "would be emptied" if options["dry_run"] else "emptied"
            self.stdout.write(f"{purged.emptied} calls whose time to live is over {verb}.")
        if not purged.complete:
            self.stdout.write("The time budget is spent and more are due; run it again.")


def _age_or_instant(text: str) -> timedelta | datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return age(text)
    if instant.tzinfo is None:
        raise ArgumentTypeError(f"{text!r} has no time zone; write e.g. {instant.isoformat()}+00:00.")
    return instant.astimezone(UTC)
