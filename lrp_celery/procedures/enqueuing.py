"""Many calls at once: their rows by a few statements, their messages in one go.

Of each chunk the messages are made first, so that what is wrong with one of them is told before
anything is written. Then come the rows, then the messages go out: those of procedures after the
commit, as `call` sends them, those of other tasks at once, as `delay` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from celery import canvas
from celery.canvas import Signature

from lrp_celery.core.errors import ConfigurationError, PublishFailed
from lrp_celery.procedures.calling import refuse_another
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.publishing import send_or_leave_all
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking import observer
from lrp_celery.tracking.holding import Held, Holder, gathering
from lrp_celery.tracking.owned import Order
from lrp_celery.tracking.publishing import publishing_as
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.sending import Sent, send_all, tell
from lrp_celery.tracking.stencils import Stencils
from lrp_celery.tracking.tracking import tracking_of

#: Celery's, which its type stubs do not know all of.
_canvas: Any = canvas
_SEVERAL: Final = (_canvas._chain, _canvas._chord, _canvas.group)  # noqa: SLF001 - what chain() and chord() make
_CONNECTIONS: Final = ("connection", "producer", "publisher")
#: What a signature that was frozen says of itself, and a procedure's call knows better.
_FROZEN: Final = frozenset({"root_id", "reply_to"})


def enqueue_many(signatures: Iterable[Any], chunk: int) -> list[str]:
    """Enqueue the calls, `chunk` of them at a time; return their ids, in order."""
    if isinstance(chunk, bool) or not isinstance(cast(object, chunk), int) or chunk < 1:
        raise ConfigurationError(f"chunk is {chunk!r}: pass a whole number from 1.")
    made: list[str] = []
    for some in _chunks(map(_checked, signatures), chunk):
        for app, members in itertools.groupby(some, _app_of):
            try:
                made += _enqueue(app, list(members))
            except PublishFailed as error:
                error.published = (*made, *error.published)
                raise
    return made


def _chunks(signatures: Iterator[Signature], chunk: int) -> Iterator[list[Signature]]:
    while some := list(itertools.islice(signatures, chunk)):
        yield some


def _checked(given: Any) -> Signature:
    found = _canvas.signature(given) if isinstance(given, Mapping) and not isinstance(given, Signature) else given
    if not isinstance(found, Signature):
        raise ConfigurationError(f"enqueue_many takes signatures, such as task.s(1), not {given!r:.100}.")
    if isinstance(found, _SEVERAL):
        raise ConfigurationError(
            f"enqueue_many takes calls of single tasks, not a {type(found).__name__.strip('_')}: publish that by itself."
        )
    for name in _CONNECTIONS:
        if found.options.get(name) is not None:
            raise ConfigurationError(f"A signature has the option {name!r}: enqueue_many sends all by one of its own.")
    return found


def _app_of(signature: Signature) -> Any:
    app = signature.app
    behind = getattr(app, "_get_current_object", None)
    return app if behind is None else behind()


def _enqueue(app: Any, signatures: Sequence[Signature]) -> list[str]:
    """Enqueue calls of one app."""
    if app.conf.task_always_eager:
        return [_run_now(app, signature) for signature in signatures]
    with app.producer_or_acquire() as producer:
        holder = Holder(app, producer)
        stencils = Stencils(app, holder)
        drafts: list[tuple[Order, Envelope]] = []
        ids: list[str] = []
        with gathering() as reports:
            for signature in signatures:
                procedure = _procedure_of(app, signature)
                if procedure is None:
                    ids.append(stencils.hold(signature))
                else:
                    drafts.append(procedure.draft(signature.args, signature.kwargs, _options(signature)))
                    ids.append(drafts[-1][0].call_id)
        envelopes = _make_owned(app, drafts, are_new=not any("task_id" in each.options for each in signatures))
        tracking = tracking_of(app)
        if tracking is not None and reports:
            tracking.recorder.record_all(reports)
        if envelopes:
            runtime = runtime_of(app)
            runtime.after_commit(partial(send_or_leave_all, app, runtime, envelopes))
        _send(app, producer, holder.held, also=[order.call_id for order, _ in drafts])
    return ids


def _run_now(app: Any, signature: Signature) -> str:
    procedure = _procedure_of(app, signature)
    if procedure is None:
        return str(signature.apply_async().id)
    call_id: str = procedure.using(**_options(signature)).call(*signature.args, **signature.kwargs)
    return call_id


def _procedure_of(app: Any, signature: Signature) -> Any:
    # `tasks` finalises the app: only then do its tasks know their procedures.
    return getattr(app.tasks.get(signature["task"]), "lrp_procedure", None)


def _options(signature: Signature) -> dict[str, Any]:
    """Return a signature's options in the words of `using`."""
    options = {name: value for name, value in signature.options.items() if value is not None and name not in _FROZEN}
    if "task_id" in options:
        options["call_id"] = options.pop("task_id")
    return options


def _make_owned(app: Any, drafts: Sequence[tuple[Order, Envelope]], *, are_new: bool) -> dict[str, Envelope]:
    """Make the rows of procedures' calls in the caller's transaction; return the messages that are to go out after it."""
    if not drafts:
        return {}
    runtime = runtime_of(app)
    runtime.check_transaction()
    store = runtime.of_new_call() if are_new else runtime.callers
    # Nobody else has ids that are new: where one is taken, a first try wrote the row, and its answer was lost.
    ours: dict[str, CallRecord] = {}

    def taken(order: Order, known: CallRecord) -> None:
        if are_new:
            ours[order.call_id] = known
        else:
            refuse_another(order, known)

    made = store.insert_all([order for order, _ in drafts], taken)
    ours.update((record.call_id, record) for record in made if record is not None)
    return {
        order.call_id: envelope.of_generation(ours[order.call_id].generation)
        for order, envelope in drafts
        if order.call_id in ours and ours[order.call_id].published_at is not None
    }


def _send(app: Any, producer: Any, held: Sequence[Held], also: Sequence[str]) -> None:
    """Send messages, and tell of them; `PublishFailed` says which did not go out. `also`: calls that were made besides."""
    sent = send_all(producer, [each.options for each in held])
    with publishing_as(app):
        for each in held[: sent.certain]:
            tell(app, each, producer)
    if sent.error is not None:
        _note_failure(app, held[sent.certain :], sent.error)
        raise _failure(held, sent, also) from sent.error


def _note_failure(app: Any, held: Sequence[Held], error: Exception) -> None:
    tracking = tracking_of(app)
    if tracking is not None:
        for each in held:
            observer.publish_failed(tracking, each.headers, error)


def _failure(held: Sequence[Held], sent: Sent, also: Sequence[str]) -> PublishFailed:
    ids = [each.call_id for each in held]
    until = sent.certain + sent.doubtful
    return PublishFailed(
        f"{sent.certain} of {len(held)} messages went out, of {sent.doubtful} that is not known, and "
        f"{len(held) - until} did not, for the broker did not take them: {type(sent.error).__name__}: {sent.error}",
        published=[*also, *ids[: sent.certain]],
        uncertain=ids[sent.certain : until],
        unpublished=ids[until:],
    )
