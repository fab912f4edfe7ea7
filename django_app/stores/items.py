"""The store of seed 000 on this app's tables."""

from __future__ import annotations

from celery import current_app

from django_app.stores.tracking import DjangoTrackingStore
from lrp_celery.procedures.options import name_of
from lrp_celery.procedures.rows import RowStore


class DjangoStore(RowStore):
    """A `Store` that is a view of the calls in this app's tables (RULES 33): see `RowStore`.

    `using` names the database (default: the setting DATABASE). Writes go through Django's own
    connection, so they belong to the caller's transaction where there is one, and vanish with it.
    """

    def __init__(self, using: str | None = None) -> None:
        super().__init__(DjangoTrackingStore(using), app=name_of(current_app))
