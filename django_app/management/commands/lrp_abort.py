"""manage.py lrp_abort: ask for the end of calls."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_app.management.arguments import add_author, add_ids
from lrp_celery import calls
from lrp_celery.core.errors import LrpError


class Command(BaseCommand):
    help = (
        "Ask for the end of calls. A procedure's call that does not run ends at once, one that runs after its grace; "
        "another task's call is revoked, and goes on if it runs already."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_ids(parser)
        parser.add_argument("--reason", help="Why, for whoever waits, and for the record.")
        parser.add_argument("--tree", action="store_true", help="The open calls that these have made, too.")
        parser.add_argument("--force", action="store_true", help="Kill the process that runs it (prefork only).")
        add_author(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {name: options[name] for name in ("reason", "tree", "force", "by")}
        failed = [call_id for call_id in options["ids"] if not self._abort(call_id, wanted)]
        if failed:
            raise CommandError(f"Nothing was done about {len(failed)} of {len(options['ids'])}.")

    def _abort(self, call_id: str, wanted: dict[str, Any]) -> bool:
        try:
            before = calls.get(call_id)
            if before is None:
                self.stderr.write(f"{call_id}: there is no such call.")
                return False
            calls.abort(call_id, **wanted)
            after = calls.get(call_id) or before
        except LrpError as error:
            self.stderr.write(f"{call_id}: {error}")
            return False
        asked = "had ended" if before.is_terminal else "has ended" if after.is_terminal else "is asked to end"
        self.stdout.write(f"{call_id}: {asked} ({after.status}).")
        return True
