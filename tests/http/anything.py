"""A procedure that takes whatever is made up."""

from typing import Any

from celery import shared_task

from lrp_celery import procedure


@procedure
@shared_task(name="http.anything")
def anything(*args: Any, **kwargs: Any) -> list[Any]:
    if kwargs:
        raise KeyError(*args)
    return list(args)
