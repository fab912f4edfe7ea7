"""`python manage.py demo`: see real calls from enqueue to outcome, with nothing to set up."""

import os
import sys
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """Start a broker, a worker, beat and the admin, and send the calls of the example."""

    help = (
        "Starts a private broker (or uses CELERY_BROKER_URL), a worker, beat and a web server, "
        "sends the example's calls, and shows what became of them. DEMO_VERBOSE=1 shows the "
        "output of the processes."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of the demo."""
        parser.add_argument("--port", type=int, default=8000, help="of the admin, if it is free")
        parser.add_argument("--once", action="store_true", help="stop as soon as it is READY")
        parser.add_argument("--no-calls", action="store_true", help="start all, but send no calls")

    def handle(self, *args: object, port: int, once: bool, no_calls: bool, **options: object) -> None:
        """Run the demo and exit as it ended."""
        if os.name != "posix":
            raise CommandError("The demo needs Linux or macOS; on Windows, run it in WSL.")
        from demo.supervisor import Options, run_demo

        verbose = os.environ.get("DEMO_VERBOSE") == "1"
        chosen = Options(port=port, once=once, sends_calls=not no_calls, verbose=verbose)
        sys.exit(run_demo(chosen))
