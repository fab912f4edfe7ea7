"""What the search box finds: only what an index finds."""

from __future__ import annotations

from typing import Final

from django.db.models import Q

from django_app.admin.tasks import known_tasks
from django_app.querysets import CallQuerySet

_LAST: Final = chr(0x10FFFF)


def find(calls: CallQuerySet, term: str) -> CallQuerySet:
    """Return the calls that `term` means.

    A whole id means that one call. Otherwise: calls whose id begins with it, and calls of
    tasks whose full or short name begins with it, upper or lower case. Nothing is searched
    that would need every row to be read.
    """
    meant = meaning(calls, term)
    return calls.none() if meant is None else calls.filter(meant)


def meaning(calls: CallQuerySet, term: str) -> Q | None:
    """Return what `term` means, whatever else `calls` are narrowed by; None: nothing there is."""
    term = term.strip()
    if not term:
        return Q()
    everywhere = calls.model.objects.using(calls.db).visible()
    begins = Q(pk__gte=term, pk__lt=term + _LAST)
    # The first of all that begin so is the one that has no more to it.
    first = everywhere.filter(begins).order_by("pk").values_list("pk", flat=True).first()
    if first == term:
        return Q(pk=term)
    meant = Q() if first is None else begins
    # In the order of the index: a planner that expects many would else read until it meets one.
    exact = everywhere.for_task(term).order_by("-enqueued_at").values_list("pk").first()
    if tasks := [term] if exact else matching_tasks(known_tasks(calls.db), term):
        meant |= Q(task__in=tasks)
    return meant or None


def matching_tasks(names: tuple[str, ...], term: str) -> list[str]:
    """Return those of `names` that `term` begins, or whose short name it begins: what follows the last dot."""
    lowered = term.lower()
    return [name for name in names if any(part.startswith(lowered) for part in _names_of(name.lower()))]


def _names_of(task: str) -> tuple[str, str]:
    return task, task.rpartition(".")[2]
