"""Other calls on the page of one: those it came from and that came of it, and earlier ones of the same task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.utils.safestring import SafeString

from django_app.admin.display import PREVIEW, badge, error_line, moment, short_id, short_task, status_label
from django_app.admin.families import Place, excerpt, family_of, nest
from django_app.durations import NOTHING, duration
from django_app.lengths import run_time_of
from django_app.models import Call
from django_app.querysets import CallQuerySet

#: Calls of the same tree that are read, and those of them that the page lists.
MOST_RELATIVES: Final = 200
MOST_LISTED: Final = 25
#: Earlier calls of the same task.
MOST_EARLIER: Final = 20

#: What is read of a call of which little is shown.
BRIEF: Final = (
    "call_id",
    "task",
    "status",
    "attempt",
    "run",
    "run_outcome",
    "parent_id",
    "root_id",
    "group_id",
    "enqueued_at",
    "started_at",
    "terminal_at",
    "error_type",
    "last_error",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Another call, or only its id where it has no row (any more)."""

    call_id: str
    call: Call | None = None
    task: str = ""
    badge: SafeString | str = ""
    enqueued: SafeString | str = ""
    length: str = NOTHING
    error: str = ""
    share: str = "0%"
    """Its run, as a share of the longest one beside it that has ended."""
    depth: int = 0
    """How many calls it is below the first, as far as that is drawn."""
    is_this: bool = False
    """Whether it is the call whose page this is."""

    @property
    def short_id(self) -> str:
        """The end of its id."""
        return short_id(self.call_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a call came from, and what came of it."""

    root: Relative | None
    parent: Relative | None
    rerun_of: Relative | None
    reruns: Sequence[Relative]
    """The calls that were made in its stead, the newest first."""
    tree: Sequence[Relative]
    """The calls of its tree, each below the one it came from; empty if it is alone."""
    unlisted: int
    """How many calls of the tree were read, but are not listed."""
    group_id: str | None
    group: Sequence[tuple[str, int]]
    """How many calls of its group have which status."""
    is_cut: bool
    """Whether the tree has more calls than were read."""
    open: int
    """How many of those that were read, below the root, have not ended."""

    @property
    def group_size(self) -> int:
        """How many calls its group has, of those that were read."""
        return sum(number for _, number in self.group)


def lineage_of(call: Call, now: datetime, calls: CallQuerySet, reruns: Sequence[str] = ()) -> Lineage:
    """Return the lineage of `call`, of those that may be linked to, by at most two queries; `reruns` run in its stead."""
    root_id = call.root_id or call.pk
    family, is_cut = family_of(calls.only(*BRIEF), root_id, MOST_RELATIVES)
    known = {one.pk: one for one in family}
    wanted = {root_id, call.parent_id, call.rerun_of, *reruns} - {None, call.pk, *known}
    known |= calls.only(*BRIEF).in_bulk([key for key in wanted if key]) if wanted else {}
    root = call if root_id == call.pk else known.get(root_id)
    members = {one.pk: one for one in ([] if root is None else [root]) + [*family, call]}
    places = nest(list(members.values()))
    listed = excerpt(places, call.pk, MOST_LISTED)
    return Lineage(
        root=_relative(call.root_id, call, known, now),
        parent=_relative(call.parent_id, call, known, now),
        rerun_of=_relative(call.rerun_of, call, known, now),
        reruns=[again for each in reruns if (again := _relative(each, call, known, now)) is not None],
        tree=_relatives(listed, now, call) if len(places) > 1 else (),
        unlisted=len(places) - len(listed),
        group_id=call.group_id,
        group=counts_by_status(one for one in members.values() if one.group_id == call.group_id)
        if call.group_id
        else (),
        is_cut=is_cut,
        open=sum(not one.is_terminal for one in family),
    )


def counts_by_status(calls: Iterable[Call]) -> list[tuple[str, int]]:
    """Return how many calls have which status: (its label, number), the most frequent first."""
    counted = Counter(call.status for call in calls)
    return [(status_label(status), number) for status, number in counted.most_common()]


def earlier_calls(call: Call, now: datetime, calls: CallQuerySet) -> list[Relative]:
    """Return the calls of the same task that were asked for before, the newest first."""
    before = calls.for_task(call.task).filter(enqueued_at__lte=call.enqueued_at).order_by("-enqueued_at")
    found = [one for one in before.only(*BRIEF)[: MOST_EARLIER + 1] if one.pk != call.pk]
    return _relatives([Place(one) for one in found[:MOST_EARLIER]], now)


def _relative(call_id: str | None, call: Call, known: dict[str, Call], now: datetime) -> Relative | None:
    if call_id is None or call_id == call.pk:
        return None
    found = known.get(call_id)
    return Relative(call_id=call_id) if found is None else _relatives([Place(found)], now)[0]


def _relatives(places: Sequence[Place], now: datetime, this: Call | None = None) -> list[Relative]:
    lengths = [(place, run_time_of(place.call, now)) for place in places]
    # One that runs for a day already would make all others look alike.
    ended = [length for place, length in lengths if length and place.call.is_terminal]
    longest = max(ended or [length for _place, length in lengths if length], default=None)
    return [
        Relative(
            call_id=place.call.pk,
            call=place.call,
            task=short_task(place.call.task),
            badge=badge(place.call.status),
            enqueued=moment(place.call.enqueued_at, now),
            length=duration(length),
            error=error_line(place.call.error_type, place.call.last_error, PREVIEW),
            share=f"{min(length / longest, 1) * 100:.1f}%" if length and longest else "0%",
            depth=place.depth,
            is_this=this is not None and place.call.pk == this.pk,
        )
        for place, length in lengths
    ]
