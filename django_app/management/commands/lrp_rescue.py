"""manage.py lrp_rescue: settle or send again the calls whose worker is gone."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from celery import current_app
from django.core.management.base import BaseCommand, CommandError

from django_app.conf import options as settings
from lrp_celery.core.errors import LrpError
from lrp_celery.procedures.rounds import look_after, rescue
from lrp_celery.procedures.runtime import runtime_of


class Command(BaseCommand):
    help = (
        "Do what is due for calls. Without --wait, only for those of procedures that no run holds, as lrp_relay does: "
        "whoever has just come cannot tell a worker that died from a database that was away."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Show signs of life for LEASE seconds first, and then judge the workers that showed none, and the calls "
            "of which nothing is heard.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["wait"] and options["verbosity"] > 0:
            self.stdout.write(f"Waiting for {settings().LEASE:g} seconds.")
        try:
            done = (rescue if options["wait"] else look_after)(current_app, runtime_of(current_app))
        except LrpError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{done.calls} calls of the app {current_app.main!r} were due, {done.sent} messages sent.")
        if options["wait"]:
            self.stdout.write(f"{done.judged} calls of other tasks were given up, or marked as interrupted.")
        if done.left:
            self.stdout.write(f"{done.left} are held by runs that do not renew their leases: --wait judges them.")
