"""The calls that stem from one call, each below the one it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import F

from django_app.models import Call
from django_app.querysets import CallQuerySet

#: How deep calls are drawn; those below stand as deep as these.
DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A call, and how many calls it is below the first, as far as that is drawn."""

    call: Call
    depth: int = 0


def family_of(calls: CallQuerySet, root_id: str, limit: int) -> tuple[list[Call], bool]:
    """Return the calls that stem from `root_id`, in the order they were asked for, and whether there are more than `limit`.

    The root itself is not among them. One query, which an index serves; of more than `limit` it returns any.
    """
    descendants = calls.filter(root_id=root_id).exclude(root_id=F("call_id")).order_by()
    found = sorted(descendants[: limit + 1], key=lambda one: (one.enqueued_at, one.pk))
    return found[:limit], len(found) > limit


def nest(calls: Sequence[Call]) -> list[Place]:
    """Return calls so that each follows the one it came from, and those of one origin stand in the order they were asked for.

    A call whose origin is not among them stands first by itself; so does one of a circle, which only
    hand-made ids could close.
    """
    by_origin: dict[str | None, list[Call]] = defaultdict(list)
    known = {call.pk for call in calls}
    for call in sorted(calls, key=lambda one: (one.enqueued_at, one.pk), reverse=True):
        is_first = call.parent_id == call.pk or call.parent_id not in known
        by_origin[None if is_first else call.parent_id].append(call)
    placed: dict[str, Place] = {}
    # One after another, so that each circle is opened where it is met first; and no deeper than a stack may be.
    waiting = [Place(call) for call in by_origin[None]]
    rest = sorted(calls, key=lambda one: (one.enqueued_at, one.pk), reverse=True)
    while waiting or rest:
        if not waiting:
            waiting = [Place(rest.pop())]
        place = waiting.pop()
        if place.call.pk in placed:
            continue
        placed[place.call.pk] = place
        below = min(place.depth + 1, DEEPEST)
        waiting += [Place(call, below) for call in by_origin[place.call.pk]]
    return list(placed.values())


def excerpt(places: Sequence[Place], call_id: str, limit: int) -> list[Place]:
    """Return those of nested `places` that say most of a call: all, or where it came from and what came of it.

    At most `limit`, besides the calls above it, which are at most as many again.
    """
    if len(places) <= limit:
        return list(places)
    by_id = {place.call.pk: place for place in places}
    above: dict[str, Place] = {}
    place = by_id.get(call_id)
    while place is not None and place.call.pk not in above and len(above) <= limit:
        above[place.call.pk] = place
        place = by_id.get(place.call.parent_id or "")
    below = [place for place in places if place.call.parent_id == call_id and place.call.pk not in above][:limit]
    chosen = {*above, *(place.call.pk for place in below)}
    return [place for place in places if place.call.pk in chosen]
