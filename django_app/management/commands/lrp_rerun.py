"""manage.py lrp_rerun: run ended calls once more."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_app.management.arguments import add_author, add_ids
from lrp_celery import calls
from lrp_celery.core.errors import LrpError


class Command(BaseCommand):
    help = "Run ended calls of procedures once more, each as a new call with the same arguments that points back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_ids(parser)
        add_author(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        failed = 0
        for call_id in options["ids"]:
            try:
                again = calls.rerun(call_id, by=options["by"])
            except LrpError as error:
                failed += 1
                self.stderr.write(str(error))
            else:
                self.stdout.write(f"{call_id}: runs again as {again}.")
        if failed:
            raise CommandError(f"{failed} of {len(options['ids'])} do not run again.")
