"""Opening a store in a process that is started for a race: nothing here needs Django at import."""

from __future__ import annotations

import os

from lrp_celery.tracking.store import MergingStore


def open_redis(url: str, prefix: str) -> MergingStore:
    from lrp_celery.tracking import RedisTrackingStore

    return RedisTrackingStore(url, prefix=prefix)


def open_django(environment: dict[str, str]) -> MergingStore:
    """`environment` says which database is the default one, see tests.services.as_environment."""
    os.environ.update(environment)
    import django

    django.setup()
    from django_app.stores import DjangoTrackingStore

    return DjangoTrackingStore()
