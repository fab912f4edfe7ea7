"""manage.py lrp_relay: send the messages of procedures' calls that did not get out."""

from __future__ import annotations

import contextlib
import logging
import time
from argparse import ArgumentParser
from typing import Any

from celery import current_app
from django.core.management.base import BaseCommand, CommandError

from django_app.conf import options as settings
from lrp_celery.core.errors import LrpError, StoreError
from lrp_celery.procedures.rounds import LookedAfter, look_after
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.procedures.telling import Telling, tell_all

#: Seconds for which one round tells receivers.
_TELL = 60.0

logger = logging.getLogger("lrp_celery.relay")


class Command(BaseCommand):
    help = (
        "Do what is due for procedures' calls that no run holds: send messages that did not get out or were lost, "
        "end what is overdue or expired; and tell the receivers of call_ended. Every worker with procedures does so all "
        "the time. Calls whose worker is gone are left to lrp_rescue."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--once", action="store_true", help="One round (the default).")
        how.add_argument("--loop", action="store_true", help="A round every RESCUE_INTERVAL seconds, until Ctrl-C.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["loop"]:
            with contextlib.suppress(KeyboardInterrupt):
                self._loop()
            return
        try:
            runtime = runtime_of(current_app)
            done = look_after(current_app, runtime)
        except LrpError as error:
            raise CommandError(str(error)) from error
        self._tell(done)
        tell_all(runtime.own, within=_TELL)

    def _loop(self) -> None:
        telling = Telling(runtime_of(current_app).own)
        telling.start()
        while True:
            telling.look()
            try:
                done = look_after(current_app, runtime_of(current_app))
            except StoreError as error:
                logger.warning("The store of the calls is away: %s", error)
            else:
                if done.calls:
                    self._tell(done)
            time.sleep(settings().RESCUE_INTERVAL)

    def _tell(self, done: LookedAfter) -> None:
        self.stdout.write(f"{done.calls} calls of the app {current_app.main!r} were due, {done.sent} messages sent.")
        if done.left:
            self.stdout.write(f"{done.left} are held by runs that do not renew their leases: see lrp_rescue --wait.")
