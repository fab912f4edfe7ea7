"""Tasks for beat, found by `app.autodiscover_tasks()`."""

from __future__ import annotations

from celery import shared_task

from django_app import purge as purging


@shared_task(name="lrp_celery.purge", ignore_result=True)
def purge() -> int:
    """Delete calls that have been kept long enough by the setting RETENTION; return how many."""
    return purging.purge().calls
