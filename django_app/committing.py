"""What follows the caller's commit."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import connections, transaction

from django_app.surroundings import is_in_transaction

logger = logging.getLogger("lrp_celery.procedures")


def after_commit(alias: str, work: Callable[[], None]) -> None:
    """Do `work` once the caller's transaction on this database has been committed; now, if he has none.

    What it raises is logged: what was written stands, and whoever called must not believe that it does not, nor lose
    what else was to follow. Django's own `robust` would not do: it logs by the name of a function, which not all have.
    """

    def do() -> None:
        try:
            work()
        except Exception:
            logger.exception("What was to follow a write failed.")

    if is_in_transaction(connections[alias]):
        transaction.on_commit(do, using=alias)
    else:
        do()
