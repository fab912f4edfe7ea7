"""What an action would do to a selection of calls, before anybody has confirmed it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import current_app
from django.utils import timezone
from django.utils.safestring import SafeString

from django_app.admin.display import badge
from django_app.admin.offers import ABORT_TREE, RERUN, RESEND, Facts, Offer
from django_app.admin.payloads import with_message
from django_app.models import Call
from django_app.querysets import CallQuerySet
from lrp_celery.tracking.status import CallStatus

#: The columns that judging a call takes.
JUDGED: Final = (
    "call_id",
    "task",
    "status",
    "owned",
    "run",
    "run_outcome",
    "root_id",
    "due_at",
    "lease_until",
    "terminal_at",
    "handled_at",
    "enqueued_at",
)
#: Open calls of the trees at hand that are counted.
_FAMILY: Final = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """An action and its calls: what will be done, and what will not."""

    offer: Offer
    calls: Sequence[Call]
    statuses: Sequence[tuple[SafeString, int]]
    done: Sequence[tuple[str, int]]
    skipped: Sequence[tuple[str, int]]
    doable: Sequence[Call]
    skips: dict[str, str]
    """Why nothing is done, by the ids of the calls that are skipped."""


def plan(offer: Offer, calls: Sequence[Call], facts: Facts) -> Plan:
    """Return what `offer` would do to `calls`."""
    verdicts = [(call, offer.judge(call, facts)) for call in calls]
    statuses = Counter(call.status for call in calls)
    return Plan(
        offer=offer,
        calls=calls,
        statuses=[(badge(status), statuses[status]) for status in CallStatus if statuses[status]],
        done=Counter(str(verdict.text) for _call, verdict in verdicts if verdict.is_done).most_common(),
        skipped=Counter(str(verdict.text) for _call, verdict in verdicts if not verdict.is_done).most_common(),
        doable=[call for call, verdict in verdicts if verdict.is_done],
        skips={call.pk: str(verdict.text) for call, verdict in verdicts if not verdict.is_done},
    )


def facts_for(
    offers: Iterable[Offer],
    calls: Sequence[Call],
    source: CallQuerySet,
    open_by_root: Mapping[str, int] | None = None,
) -> Facts:
    """Return what judging `calls` by these offers takes, by at most two bounded queries.

    `open_by_root`: how many calls are open below their roots, for whoever has counted them.
    """
    wanted = {offer.name for offer in offers}
    if open_by_root is None:
        open_by_root = _open_by_root(calls, source) if ABORT_TREE.name in wanted and calls else {}
    return Facts(
        now=timezone.now(),
        with_message=with_message(calls, source.db) if wanted & {RERUN.name, RESEND.name} else frozenset(),
        procedures=_procedures(calls) if RERUN.name in wanted else frozenset(),
        tasks=_tasks(calls) if RERUN.name in wanted else frozenset(),
        open_by_root=open_by_root,
    )


def _tasks(calls: Sequence[Call]) -> frozenset[str]:
    tasks: Any = current_app.tasks
    return frozenset(name for name in {call.task for call in calls} if name in tasks)


def _procedures(calls: Sequence[Call]) -> frozenset[str]:
    tasks: Any = current_app.tasks
    names = {call.task for call in calls}
    return frozenset(name for name in names if getattr(tasks.get(name), "lrp_procedure", None) is not None)


def _open_by_root(calls: Sequence[Call], source: CallQuerySet) -> Counter[str]:
    roots = {call.root_id or call.pk for call in calls}
    descendants = source.open().descending_from(*roots).order_by()
    return Counter(str(root_id) for root_id in descendants.values_list("root_id", flat=True)[:_FAMILY])
