"""The calls that were to follow one that has ended without success: Celery never sends them, and tells nobody.

A message carries the rest of its chain and the body of its chord, each with the id that
somebody may hold. What is read here was written by Celery's canvas.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from lrp_celery.core.text import clean
from lrp_celery.tracking import displays
from lrp_celery.tracking.displays import Arguments
from lrp_celery.tracking.messages import Get, id_of
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.reports import CallFacts, ErrorFacts, NeverSent, Outcome
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.store import MAX_NAME, is_usable_id
from lrp_celery.tracking.tracking import Tracking

#: So many rows are made at most: whoever ends is kept waiting for them.
MOST: Final = 500


class _Result:
    def __repr__(self) -> str:
        return "<result>"


#: Stands for what the call before would have returned.
RESULT: Final = _Result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A call that was to follow."""

    call_id: str
    task: str
    args: Any
    kwargs: Any
    parent_id: str
    group_id: str | None
    nesting: int
    queue: str | None
    is_body: bool
    """Whether it is the body of a chord, or comes after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What a message says of the calls after its own."""

    root_id: str | None
    chain: list[Any]
    """Celery takes each step out of it before it sends that."""
    steps: int
    chord: Any

    @classmethod
    def of(cls, get: Get) -> Following | None:
        """Return what a message says; None: nothing follows."""
        chain, chord = get("chain"), get("chord")
        known = chain if isinstance(chain, list) else []
        if not known and not isinstance(chord, Mapping):
            return None
        return cls(root_id=id_of(get("root_id")), chain=known, steps=len(known), chord=chord)

    def unsent(self, call_id: str) -> Iterator[Later]:
        """Yield the calls that are not sent any more after `call_id`; none if that has already sent the next one."""
        if len(self.chain) < self.steps:
            return
        seen = {call_id}
        for later in self._all(call_id):
            if later.call_id not in seen:
                seen.add(later.call_id)
                yield later

    def _all(self, call_id: str) -> Iterator[Later]:
        parent = call_id
        for step in reversed(self.chain):
            parent = yield from _calls_of(step, parent, None, is_body=False)
        if isinstance(self.chord, Mapping):
            yield from _calls_of(self.chord, parent, None, is_body=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A call that has ended without success."""

    task: str
    call_id: str
    status: CallStatus
    following: Following


def report(tracking: Tracking, app: Any, cause: Cause) -> None:
    """Make the rows of the calls that were to follow one that has ended without success."""
    first: str | None = None
    unsent = cause.following.unsent(cause.call_id)
    for later in islice(unsent, MOST):
        relation = "an earlier step"
        if later.parent_id == cause.call_id:
            relation = "a member of its chord" if later.is_body else "the step before it"
        words = f"Never sent: {cause.task} {cause.call_id}, {relation}, ended as {cause.status}."
        outcome = Outcome(status=CallStatus.DISCARDED, reason=Reason.LOST, error=ErrorFacts(message=words))
        facts = _facts(tracking, app, later, cause.following.root_id or cause.call_id)
        # Only the row of a replaced call is there already, and waits for what is not sent now.
        if facts is not None or later.nesting:
            turn = Turn(later.nesting, 0)
            news = NeverSent(call_id=later.call_id, turn=turn, facts=facts, outcome=outcome, after=first)
            tracking.recorder.record(news)
        first = first or later.call_id
    if next(unsent, None) is not None:
        losses.add("row of a later step")


def _facts(tracking: Tracking, app: Any, later: Later, root_id: str) -> CallFacts | None:
    # As `Arguments` does: `tasks` would finalise an app that is still being set up.
    is_procedure = getattr(app._tasks.get(later.task), "lrp_procedure", None) is not None  # noqa: SLF001
    if not is_procedure and not tracking.selection.has(later.task):
        return None
    call = Arguments(app, later.task, later.args, later.kwargs)
    return CallFacts(
        task=clean(later.task, MAX_NAME),
        target_summary=displays.summary(call.hidden_by(tracking.redactor), call),
        queue=later.queue,
        root_id=root_id,
        parent_id=later.parent_id,
        group_id=later.group_id,
    )


def _calls_of(step: Any, parent: str, group: str | None, *, is_body: bool) -> Generator[Later, None, str]:
    """Yield the calls that a signature stands for; return the one that whatever follows has as its parent."""
    if not isinstance(step, Mapping):
        return parent
    options, kwargs = _mapping(step.get("options")), _mapping(step.get("kwargs"))
    match step.get("task"):
        case "celery.chain":
            for each in _sequence(kwargs.get("tasks")):
                parent = yield from _calls_of(each, parent, group, is_body=is_body)
            return parent
        case "celery.group":
            yield from _members(kwargs.get("tasks"), parent, id_of(options.get("task_id")), is_body=is_body)
            return parent
        case "celery.chord":
            header = kwargs.get("header")
            named = _mapping(header)
            tasks = _mapping(named.get("kwargs")).get("tasks") if named else header
            group_id = id_of(_mapping(named.get("options")).get("task_id")) or id_of(options.get("task_id"))
            yield from _members(tasks, parent, group_id, is_body=is_body)
            return (yield from _calls_of(kwargs.get("body"), parent, None, is_body=is_body))
        case str() as task if is_usable_id(options.get("task_id")):
            later = _later(task, step, options, parent, group, is_body=is_body)
            yield later
            yield from _calls_of(options.get("chord"), later.call_id, None, is_body=True)
            return later.call_id
    return parent


def _members(tasks: Any, parent: str, group: str | None, *, is_body: bool) -> Iterator[Later]:
    for each in _sequence(tasks):
        yield from _calls_of(each, parent, group, is_body=is_body)


def _later(
    task: str, step: Mapping[str, Any], options: Mapping[str, Any], parent: str, group: str | None, *, is_body: bool
) -> Later:
    nesting, queue = options.get("replaced_task_nesting"), options.get("queue")
    # Its parameters are told apart, and hidden, by their place.
    before = () if step.get("immutable") else (RESULT,)
    return Later(
        call_id=options["task_id"],
        task=task,
        args=(*before, *_sequence(step.get("args"))),
        kwargs=step.get("kwargs") or {},
        parent_id=parent,
        group_id=id_of(options.get("group_id")) or group,
        nesting=nesting if isinstance(nesting, int) else 0,
        queue=clean(queue, MAX_NAME) if isinstance(queue, str) else None,
        is_body=is_body,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
