"""What a signal means: from Celery's objects to reports.

Each function here answers one signal. They hold what Celery's signals really mean (which
differs by version, pool and process) and nothing of how reports are merged or stored.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import states
from celery.app.task import Context

from lrp_celery.core.text import clean
from lrp_celery.tracking import descendants, displays, messages, outcomes
from lrp_celery.tracking.descendants import Cause, Following
from lrp_celery.tracking.displays import Arguments
from lrp_celery.tracking.handling import handled_request, is_unasked_end
from lrp_celery.tracking.holding import gathered
from lrp_celery.tracking.keeping import message_of
from lrp_celery.tracking.messages import HEADER, Get
from lrp_celery.tracking.publishing import unpublished
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.reports import (
    NO_ERROR,
    Again,
    CallFacts,
    Ended,
    Enqueued,
    ErrorFacts,
    NotRun,
    Outcome,
    Published,
    PublishFailed,
    Report,
    RunFacts,
    Started,
    Stopping,
    Unwound,
    Waiting,
)
from lrp_celery.tracking.runs import RUN_KEY, Running, new_token, runs
from lrp_celery.tracking.status import CallStatus, Reason
from lrp_celery.tracking.store import MAX_NAME, is_usable_id
from lrp_celery.tracking.tracking import Tracking

# --- publishing ---------------------------------------------------------------------


def publishing(
    tracking: Tracking,
    app: Any,
    task: str,
    headers: dict[str, Any],
    body: Any,
    *,
    queue: str | None,
    schedule: str | None,
) -> None:
    """A message is about to go out: make the row of a new call."""
    headers.pop(RUN_KEY, None)
    if messages.is_owned(headers.get):
        messages.stamp(headers, tracking.clock.now(), schedule)
        return
    if not tracking.selection.has(task):
        return
    call_id = _usable_id(headers.get("id"))
    if call_id is None:
        return
    call = Arguments(app, task, *_arguments(body))
    given = displays.given_by_publisher(call, headers.get)
    shown = {**displays.given_before(headers.get), **given}
    # None: its worker, which knows the task, will show them.
    summary = displays.summary(call.hidden_by(tracking.redactor), call, shown)
    messages.stamp(headers, tracking.clock.now(), schedule, given, summary)
    turn = messages.turn_of(headers.get)
    if turn.retries == 0:
        facts = messages.facts_of(headers.get, task, queue=queue, summary=summary, is_new=True)
        message = message_of(task, call.args, call.kwargs) if tracking.kept.has(task) else None
        report = Enqueued(call_id=call_id, turn=turn, facts=facts, message=message)
        together = gathered()
        if together is None:
            tracking.recorder.record(report)
        else:
            together.append(report)


def published(tracking: Tracking, task: str, headers: dict[str, Any], queue: str | None) -> None:
    """A message went out: news if it is of a further turn, or if an earlier publish of the call had raised."""
    turn, call_id = messages.turn_of(headers.get), headers.get("id")
    if messages.is_owned(headers.get):
        return
    if turn == Turn():
        if isinstance(call_id, str) and unpublished.remove(call_id):
            tracking.recorder.record(Published(call_id=call_id))
        return
    if not isinstance(call_id, str) or not _concerns(tracking, task, headers.get):
        return
    facts = messages.facts_of(headers.get, task, queue=queue, summary=None) if tracking.selection.has(task) else None
    due_at = messages.instant(headers.get("eta"))
    tracking.recorder.record(Waiting(call_id=call_id, turn=turn, facts=facts, due_at=due_at))


def publish_failed(tracking: Tracking, headers: dict[str, Any], error: Exception) -> None:
    """A publish raised; the broker may have the message all the same."""
    call_id = headers.get("id")
    if not isinstance(call_id, str) or headers.get(HEADER) is None or messages.is_owned(headers.get):
        return
    running = runs.find(call_id)
    if running is not None:
        running.publish_failed = True
    turn = messages.turn_of(headers.get)
    if turn == Turn():
        unpublished.add(call_id)
    facts = outcomes.error_facts(error, None, tracking.redactor)
    tracking.recorder.record(PublishFailed(call_id=call_id, turn=turn, error=facts))


# --- a run, in the process that runs it ----------------------------------------------


def received(request: Any) -> None:
    """A worker took a message: give this delivery a token that its pool process will know too."""
    request.request_dict[RUN_KEY] = new_token()


def starting(tracking: Tracking, task: Any, call_id: str, args: Any, kwargs: Any) -> None:
    """A run begins."""
    request = task.request
    get = _reading(request)
    inline, owned = bool(get("is_eager")), is_procedure(task)
    if _usable_id(call_id) is None or not (owned or _concerns(tracking, task.name, get)):
        return
    call = Arguments(task.app, task.name, args, kwargs)
    run = _run_facts(task, get, tracking)
    tracked = owned or tracking.selection.has(task.name)
    running = Running(
        call_id=call_id,
        turn=messages.turn_of(get),
        run=run,
        facts=(_facts_of_known(task.name, get) if owned else None)
        or (_request_facts(tracking, get, call) if tracked else None),
        secrets=displays.secrets(call.hidden_by(tracking.redactor), call),
        inline=inline,
        owned=owned,
        following=Following.of(get),
    )
    runs.begin(running)
    if not owned:
        started = Started(call_id=call_id, turn=running.turn, facts=running.facts, run=run)
        tracking.recorder.record(started, inline=inline)


def succeeded(tracking: Tracking, call_id: str | None) -> None:
    """The task returned."""
    running = runs.find(call_id) if call_id else None
    if running is not None:
        _end(tracking, running, Outcome(status=CallStatus.SUCCEEDED))


def retrying(tracking: Tracking, task: Any, request: Any, reason: Any, einfo: Any) -> None:
    """The task asked for another turn, whose message is out."""
    error = getattr(reason, "exc", None) or reason
    running = runs.find(request.id)
    secrets = running.secrets if running is not None else frozenset()
    facts = outcomes.error_facts(error, getattr(einfo, "traceback", None), tracking.redactor, secrets)
    if running is not None:
        _end(tracking, running, Again.RETRIED, facts)
    elif _concerns(tracking, task.name, request.get):
        tracking.recorder.record(
            Ended(
                call_id=request.id,
                turn=messages.turn_of(request.get),
                run=_foreign_run(request.get),
                outcome=Again.RETRIED,
                error=facts,
            )
        )


def failed(tracking: Tracking, task: Any, call_id: str, exception: BaseException, einfo: Any) -> None:
    """The task raised and will not be tried again; or the worker's main process says so of a run it lost."""
    running = runs.find(call_id)
    secrets = running.secrets if running is not None else frozenset()
    facts = outcomes.error_facts(exception, getattr(einfo, "traceback", None), tracking.redactor, secrets)
    outcome = outcomes.of_failure(exception, facts)
    if running is not None:
        _end_badly(tracking, task, running, outcome)
        return
    request: Any = handled_request(call_id) or (task.request if task.request.id == call_id else None)
    if request is not None and not _concerns(tracking, task.name, request.get):
        return
    tracking.recorder.record(
        Ended(
            call_id=call_id,
            turn=None if request is None else messages.turn_of(request.get),
            run=None if request is None else _foreign_run(request.get),
            outcome=outcome,
        )
    )
    if request is not None:
        _never_sent(tracking, task, request, outcome)


def crashed(tracking: Tracking, task: Any, call_id: str, request: Any, exception: BaseException, einfo: Any) -> None:
    """Celery's own code around the task raised; often the only news of the call's end."""
    running = runs.find(call_id)
    secrets = running.secrets if running is not None else frozenset()
    facts = outcomes.error_facts(exception, getattr(einfo, "traceback", None), tracking.redactor, secrets)
    if running is not None:
        # Eagerly, with exceptions propagating, this is how a plain failure looks.
        end = outcomes.of_failure(exception, facts) if running.inline else _internal_error(facts)
        _end_badly(tracking, task, running, end)
        return
    get: Get = request.get if hasattr(request, "get") else {}.get
    if _concerns(tracking, task.name, get):
        tracking.recorder.record(
            Ended(
                call_id=call_id,
                turn=messages.turn_of(get),
                facts=_facts(task.name, get, summary="") if tracking.selection.has(task.name) else None,
                run=_foreign_run(get),
                outcome=_internal_error(facts),
            )
        )
        _never_sent(tracking, task, {**request, "id": call_id}, _internal_error(facts))


def ending(tracking: Tracking, task: Any, call_id: str, state: str | None, retval: Any) -> None:
    """A run is over in its process. Only what no other signal tells counts here."""
    running = runs.find(call_id)
    runs.end(call_id)
    if running is None or running.owned:
        return
    if state is None:
        tracking.recorder.record(
            Unwound(call_id=call_id, turn=running.turn, facts=running.facts, run=running.run), inline=running.inline
        )
    elif state == states.IGNORED:
        ignored = Outcome(status=CallStatus.DISCARDED, reason=Reason.IGNORED)
        if outcomes.is_replacement(retval):
            _end(tracking, running, Again.REPLACED)
        else:
            _end_badly(tracking, task, running, ignored)
    elif state == states.REJECTED:
        _end_badly(tracking, task, running, _rejected(tracking, running, task, retval))


def _rejected(tracking: Tracking, running: Running, task: Any, retval: Any) -> Outcome | Again:
    if getattr(retval, "requeue", False) and task.acks_late and not running.inline:
        return Again.REQUEUED
    cause = getattr(retval, "reason", None)
    error = cause if isinstance(cause, BaseException) else None
    facts = outcomes.error_facts(error, None, tracking.redactor, running.secrets)
    reason = Reason.PUBLISH_FAILED if running.publish_failed else Reason.REJECTED
    return Outcome(status=CallStatus.DISCARDED, reason=reason, error=facts)


def _end(tracking: Tracking, running: Running, outcome: Outcome | Again, error: ErrorFacts = NO_ERROR) -> None:
    if running.owned:
        return
    report = Ended(
        call_id=running.call_id, turn=running.turn, facts=running.facts, run=running.run, outcome=outcome, error=error
    )
    tracking.recorder.record(report, inline=running.inline)


def _end_badly(tracking: Tracking, task: Any, running: Running, outcome: Outcome | Again) -> None:
    _end(tracking, running, outcome)
    if isinstance(outcome, Outcome) and not running.owned:
        never_sent(tracking, task.app, task.name, running.call_id, outcome.status, running.following)


def never_sent(
    tracking: Tracking, app: Any, task: str, call_id: str, status: CallStatus, following: Following | None
) -> None:
    """A call has ended without success, so that what was to follow it is not sent any more."""
    if following is not None:
        cause = Cause(task=task, call_id=call_id, status=status, following=following)
        descendants.report(tracking, app, cause)


def _never_sent(tracking: Tracking, task: Any, request: Any, outcome: Outcome) -> None:
    """Likewise where only the message of the call is there. Of a procedure it is no end: it may be run again."""
    if not is_procedure(task):
        following = Following.of(request.get)
        never_sent(tracking, task.app, task.name, request.get("id"), outcome.status, following)


# --- what only a worker's main process knows -----------------------------------------


def cancelled(tracking: Tracking, task: Any, request: Any) -> None:
    """The worker gives up a run (shutdown, broker gone): the broker has its message, or nobody has."""
    if not _concerns(tracking, task.name, request.get):
        return
    turn, run = messages.turn_of(request.get), _foreign_run(request.get)
    report: Report
    if task.acks_late:
        report = Ended(call_id=request.id, turn=turn, run=run, outcome=Again.REQUEUED)
    else:
        report = Stopping(call_id=request.id, turn=turn, run=run, reason=Reason.WORKER_LOST)
    tracking.recorder.record(report)


def revoked(tracking: Tracking, task: Any, request: Any, *, terminated: bool, signum: Any, expired: bool) -> None:
    """A message was dropped unread, or a signal was sent to the process that runs it."""
    if not _concerns(tracking, task.name, request.get):
        return
    if terminated and is_unasked_end(request.id):
        failed(tracking, task, request.id, WorkerLostError("Its process died."), None)
        return
    turn = messages.turn_of(request.get)
    if terminated:
        certain = signum in {signal.SIGKILL, "SIGKILL", "KILL"}
        run = _foreign_run(request.get)
        report: Report = Stopping(call_id=request.id, turn=turn, run=run, reason=Reason.REVOKED, certain=certain)
    else:
        call = Arguments(task.app, task.name, request.get("args"), request.get("kwargs"))
        tracked = tracking.selection.has(task.name)
        report = NotRun(
            call_id=request.id,
            turn=turn,
            facts=_request_facts(tracking, request.get, call) if tracked else None,
            outcome=_discarded(Reason.EXPIRED if expired else Reason.REVOKED),
        )
    tracking.recorder.record(report)
    # A copy that was delivered again may have been dropped beside a run that goes on.
    if not terminated and not _is_redelivered(request.get):
        _never_sent(tracking, task, request, _discarded(Reason.REVOKED))


def terminated(tracking: Tracking, request: Any) -> None:
    """A run has ended by the signal that a revoke sent; its own process has told that it was unwound, if it could."""
    if _concerns(tracking, request.task.name, request.request_dict.get):
        _never_sent(tracking, request.task, request._context, _discarded(Reason.REVOKED))  # noqa: SLF001 - see below


def timed_out(tracking: Tracking, request: Any, limit: float) -> None:
    """The hard time limit struck: its process is being killed. Celery 5.6 sends no signal for it."""
    get = request.request_dict.get
    if not _concerns(tracking, request.task.name, get):
        return
    error = outcomes.error_facts(TimeLimitExceeded(limit), None, tracking.redactor)
    outcome = Outcome(status=CallStatus.FAILED, reason=Reason.TIME_LIMIT, error=error)
    run = _foreign_run(get)
    tracking.recorder.record(Ended(call_id=request.id, turn=messages.turn_of(get), run=run, outcome=outcome))
    # Its body, which says what follows, is read only when it is asked for so.
    _never_sent(tracking, request.task, request._context, outcome)  # noqa: SLF001 - as Celery's own handlers do


def unknown(tracking: Tracking, app: Any, call_id: str, name: str, message: Any, exception: Any) -> None:
    """This worker has no such task, and dropped the message."""
    _dropped(tracking, call_id, name, message, Reason.UNKNOWN_TASK, exception)
    if not messages.is_owned((message.headers or {}).get):
        # An old message's body holds everything in one.
        body = message.payload
        embedded = body if isinstance(body, dict) else {**message.headers, **(body[2] or {})}
        never_sent(tracking, app, name, call_id, CallStatus.DISCARDED, Following.of(embedded.get))


def rejected(tracking: Tracking, message: Any, exception: Any) -> None:
    """This worker could not read the message, and dropped it."""
    headers = getattr(message, "headers", None) or {}
    _dropped(tracking, headers.get("id"), headers.get("task") or "", message, Reason.REJECTED, exception)


def _dropped(tracking: Tracking, call_id: Any, task: str, message: Any, reason: Reason, exception: Any) -> None:
    headers = dict(getattr(message, "headers", None) or {})
    if _usable_id(call_id) is None or not _concerns(tracking, task, headers.get):
        return
    error = exception if isinstance(exception, BaseException) else None
    facts = None
    if tracking.selection.has(task) and task:
        queue = (getattr(message, "delivery_info", None) or {}).get("routing_key")
        facts = messages.facts_of(headers.get, task, queue=queue, summary=None)
    outcome = _discarded(reason, outcomes.error_facts(error, None, tracking.redactor))
    tracking.recorder.record(NotRun(call_id=call_id, turn=messages.turn_of(headers.get), facts=facts, outcome=outcome))


# --- shared --------------------------------------------------------------------------


def is_procedure(task: Any) -> bool:
    """Whether the runs of a task write for themselves (`lrp_celery.procedures`)."""
    return getattr(task, "lrp_procedure", None) is not None


def _concerns(tracking: Tracking, task: str, get: Get) -> bool:
    """Whether news of this call may concern a row: its task is tracked, or it was when it was published."""
    known = get(HEADER) is not None or messages.is_owned(get)
    return tracking.selection.has(task) or known or messages.turn_of(get).nesting > 0


def _usable_id(call_id: object) -> str | None:
    if isinstance(call_id, str) and is_usable_id(call_id):
        return call_id
    losses.add("call with an unusable id")
    return None


def _request_facts(tracking: Tracking, get: Get, call: Arguments) -> CallFacts:
    told = messages.summary_in(get)
    if told is not None:
        return _facts(call.task, get, told)
    redactor = call.hidden_by(tracking.redactor)
    given = displays.given_in_message(redactor, call, get)
    return _facts(call.task, get, displays.summary(redactor, call, given))


def _facts_of_known(task: str, get: Get) -> CallFacts | None:
    """Return what the message of a call that has its row may still add to that; None: nobody knows whether it has one."""
    if not isinstance(get(messages.OWNED), int):
        return None
    return CallFacts(task=clean(task, MAX_NAME), due_at=messages.instant(get("eta")))


def _facts(task: str, get: Get, summary: str | None) -> CallFacts:
    delivery = get("delivery_info") or {}
    return messages.facts_of(get, task, queue=delivery.get("routing_key"), summary=summary)


def _run_facts(task: Any, get: Get, tracking: Tracking) -> RunFacts:
    return RunFacts(
        token=get(RUN_KEY) or new_token(),
        worker=_worker(get),
        pid=os.getpid(),
        redelivered=_is_redelivered(get),
        acks_late=bool(task.acks_late),
        reject_on_worker_lost=bool(task.reject_on_worker_lost),
        started_at=tracking.clock.now(),
    )


def _reading(request: Any) -> Get:
    """Return what reads a request, once for each of many items: of Celery's own kind what it was given, which is quick."""
    # What it was not given it has by its class: None, 0 or False.
    return vars(request).get if type(request) is Context else request.get


def _foreign_run(get: Get) -> RunFacts | None:
    """Return the run of a request that another process runs; None: it has no token."""
    token = get(RUN_KEY)
    if not isinstance(token, str):
        return None
    return RunFacts(token=token, worker=_worker(get), redelivered=_is_redelivered(get))


def _is_redelivered(get: Get) -> bool:
    return bool((get("delivery_info") or {}).get("redelivered"))


def _worker(get: Get) -> str | None:
    hostname = get("hostname")
    return clean(hostname, MAX_NAME) if isinstance(hostname, str) else None


def _arguments(body: Any) -> tuple[Any, Any]:
    """Return args and kwargs of a message body of either protocol."""
    if isinstance(body, tuple | list):
        args, kwargs, *_ = body
        return args, kwargs
    return (body.get("args"), body.get("kwargs")) if isinstance(body, dict) else ((), {})


def _discarded(reason: Reason, error: ErrorFacts = NO_ERROR) -> Outcome:
    return Outcome(status=CallStatus.DISCARDED, reason=reason, error=error)


def _internal_error(facts: ErrorFacts) -> Outcome:
    return Outcome(status=CallStatus.FAILED, reason=Reason.INTERNAL_ERROR, error=facts)
