"""What is kept of a call beside its row, for those who may view payloads: without what keys hide."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from celery._state import get_current_app
from django.utils.translation import gettext as _

from django_app.conf import options
from django_app.models import Call, Payload
from lrp_celery.core.redaction import Redactor
from lrp_celery.core.text import clean
from lrp_celery.tracking.displays import Arguments
from lrp_celery.tracking.status import CallStatus

#: Characters of what was passed, or returned, or is kept of an error.
MOST_PAYLOAD: Final = 20_000
#: Where a call keeps its payload in mind.
_KEPT: Final[Any] = Call._meta.get_field("payload")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a call was given, returned or raised, as JSON to be read by a person."""

    title: str
    text: str
    is_cut: bool


def kept_of(call: Call, alias: str) -> list[Kept]:
    """Return what is kept of `call` in the database `alias`, by one query, and let the call keep it in mind."""
    payload = Payload.objects.using(alias).filter(pk=call.pk).first()
    _KEPT.set_cached_value(call, payload)
    return [] if payload is None else list(_kept(call, payload))


def with_message(calls: Sequence[Call], alias: str) -> frozenset[str]:
    """Return the ids of those calls whose message is kept, by one query, or none if `kept_of` has read them."""
    if all(map(_KEPT.is_cached, calls)):
        payloads = [_KEPT.get_cached_value(call) for call in calls]
        return frozenset(payload.pk for payload in payloads if payload is not None and payload.message is not None)
    kept = Payload.objects.using(alias).filter(pk__in=[call.pk for call in calls], message__isnull=False)
    return frozenset(kept.values_list("pk", flat=True))


def _kept(call: Call, payload: Payload) -> Iterator[Kept]:
    # A worker that knows the task has to hide more than its keys; here it may be unknown.
    redactor = Arguments(get_current_app(), call.task, (), {}).hidden_by(_redactor(tuple(options().REDACT)))
    arguments = _arguments(payload.message, call.task, redactor)
    if arguments is not None:
        yield _readable(_("Arguments in full"), arguments)
    # Null is not kept: a call that succeeded and has nothing has returned it.
    returned = call.owned and call.keep_result and call.status == CallStatus.SUCCEEDED
    nothing = "null" if returned else None
    for title, text in ((_("Result"), payload.result or nothing), (_("What get_result raises"), payload.error)):
        if text is not None:
            yield _of_text(title, text, redactor)


@lru_cache(maxsize=4)
def _redactor(patterns: tuple[str, ...]) -> Redactor:
    return Redactor(patterns)


def _arguments(message: str | None, task: str, redactor: Redactor) -> Any:
    """Return the arguments in a message; None: there is no message, or none that can be read."""
    try:
        args, kwargs = json.loads(message or "null")["body"][:2]
        names = Arguments(get_current_app(), task, args, kwargs).names
        return redactor.tree_of_arguments(args, kwargs, names)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _of_text(title: str, text: str, redactor: Redactor) -> Kept:
    try:
        return _readable(title, redactor.tree(json.loads(text)))
    except (ValueError, RecursionError):
        return _cut(title, redactor.text(text, limit=MOST_PAYLOAD + 1))


def _readable(title: str, tree: Any) -> Kept:
    return _cut(title, json.dumps(tree, indent=2, ensure_ascii=False))


def _cut(title: str, text: str) -> Kept:
    return Kept(title, clean(text, MOST_PAYLOAD), is_cut=len(text) > MOST_PAYLOAD)
