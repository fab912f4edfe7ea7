"""manage.py lrp_rollup: enter what has ended into the hourly counts."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.connection import ConnectionDoesNotExist

from django_app.management.arguments import age, positive
from django_app.rollup import CHUNK, roll_up
from lrp_celery.core.errors import LrpError


class Command(BaseCommand):
    help = (
        "Enter calls that have ended into the hourly counts, each once, also those from before there were such. "
        "Workers do the same all the time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", help="The alias of the database; default: the setting DATABASE.")
        parser.add_argument("--chunk", type=positive, default=CHUNK, help="Calls per transaction (%(default)s).")
        parser.add_argument("--budget", type=age, help="How long to go on, e.g. 10m; default: to the end.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counted = roll_up(using=options["database"], chunk=options["chunk"], budget=options["budget"])
        except (LrpError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        if options["verbosity"] == 0:
            return
        self.stdout.write(f"{counted.calls} calls counted.")
        if not counted.complete:
            self.stdout.write("The time budget is spent and more are left; run it again.")
