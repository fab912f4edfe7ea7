"""Messages like the one before: made by changing what differs, where nobody else has a say in it.

Celery takes most of its time to find out for each call what it found out for the one before: the
task's options, its route, who calls. Where a task, its app and its signature are Celery's own
through and through, and only arguments and id differ, the answers are the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, Final

from celery import Celery
from celery.app import amqp as celerys_amqp
from celery.app import base as celerys_base
from celery.app import task as celerys_task
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute
from celery.canvas import Signature

from lrp_celery.core.ids import new_id
from lrp_celery.tracking.displays import celerys_own
from lrp_celery.tracking.holding import Holder, Sketch, StandIn

#: Options that mean the same for every call that has them.
_SAME: Final = frozenset(
    {
        *("queue", "exchange", "routing_key", "priority", "delivery_mode", "serializer", "compression", "headers"),
        *("ignore_result", "link", "link_error", "retry", "retry_policy", "time_limit", "soft_time_limit", "shadow"),
    }
)
#: Under which name a task has the stencil of its last call.
_KEPT: Final = "_lrp_celery_stencil"


@dataclass(frozen=True, slots=True)
class Stencil:
    """What messages of one task have in common that are published with the same options."""

    task: Any
    options: Mapping[str, Any]
    sketch: Sketch
    origin: Sequence[Any]
    """What else the message followed from."""

    @classmethod
    def of(cls, task: Any, options: Mapping[str, Any], sketch: Sketch | None) -> Stencil | None:
        """Return the stencil by which calls like one of which there is a sketch are published; None: each is Celery's to make."""
        if sketch is None or not options.keys() <= _SAME or sketch.headers["eta"] or sketch.headers["expires"]:
            return None
        return cls(task, deepcopy(options), sketch, _origin(task))

    def fits(self, options: Mapping[str, Any]) -> bool:
        """Whether a call that is published with these options now differs but by its id and arguments."""
        return self.options == options and self.origin == _origin(self.task)

    def send(self, producer: Any, call_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Do what the task's `apply_async` does."""
        task, sketch, app = self.task, self.sketch, self.task.app
        if task.typing:
            task.__header__(*args, **kwargs)
        args = args or ()
        is_root = sketch.headers["root_id"] == sketch.headers["id"]
        headers = {
            **sketch.headers,
            "id": call_id,
            "root_id": call_id if is_root else sketch.headers["root_id"],
            "argsrepr": celerys_own(app, "args", args),
            "kwargsrepr": celerys_own(app, "kwargs", kwargs),
            # Whoever hears the signal may write into them.
            "timelimit": list(sketch.headers["timelimit"]),
            "stamps": {},
        }
        properties = {**sketch.properties, "correlation_id": call_id, "reply_to": app.thread_oid}
        message = celerys_amqp.task_message(headers, properties, (args, kwargs, dict(sketch.around)), None)
        if not headers["ignore_result"]:
            app.backend.on_task_call(producer, call_id)
        app.amqp.send_task_message(producer, sketch.task, message, **sketch.options)


class Stencils:
    """Holds back the messages of one app's signatures, by a stencil where that is exact."""

    def __init__(self, app: Any, holder: Holder) -> None:
        self._app = app
        self._holder = holder
        self._parent = app.current_worker_task
        self._stencils: dict[str, Stencil | None] = {}

    def hold(self, signature: Any) -> str:
        """Hold back the message of a call; return the call's id."""
        name = signature["task"]
        options = dict(signature.options)
        call_id = options.pop("task_id", None) or new_id()
        stencil = self._stencils.get(name)
        if stencil is not None and stencil.options == options and type(signature) is Signature:
            stencil.send(self._holder, call_id, tuple(signature.args or ()), dict(signature.kwargs or {}))
            if self._parent is not None:
                self._parent.add_trail(stencil.task.AsyncResult(call_id))
            return str(call_id)
        self._holder.sketch, self._holder.sketches = None, True
        result = signature.apply_async(producer=self._holder, task_id=call_id)
        self._holder.sketches = False
        if name not in self._stencils or stencil is not None:
            self._stencils[name] = self._stencil_of(signature, options)
        return str(result.id)

    def _stencil_of(self, signature: Any, options: Mapping[str, Any]) -> Stencil | None:
        task = self._app._tasks.get(signature["task"])  # noqa: SLF001 - `tasks` may finalise
        is_plain = task is not None and type(signature) is Signature and _is_plain(task)
        return Stencil.of(task, options, self._holder.sketch) if is_plain else None


def publish_alike(
    task: Any, call_id: str, args: list[Any], kwargs: dict[str, Any], options: Mapping[str, Any], stand_in: StandIn
) -> None:
    """Do what `task.apply_async` does with a producer that is none, by the stencil of an earlier call where that is exact."""
    # What a task publishes follows from the call that it runs, too.
    is_plain = task.app.current_worker_task is None and _is_plain(task)
    known: Stencil | None = vars(task).get(_KEPT) if is_plain else None
    if known is not None and known.fits(options):
        known.send(stand_in, call_id, args, kwargs)
        return
    stand_in.sketches = is_plain and options.keys() <= _SAME
    task.apply_async(args, kwargs, task_id=call_id, producer=stand_in, **options)
    if stand_in.sketches:
        setattr(task, _KEPT, Stencil.of(task, options, stand_in.sketch))


def _origin(task: Any) -> tuple[Any, ...]:
    """Return what a message follows from besides its task's name and options, and what Celery itself keeps."""
    amqp = task.app.amqp
    return os.getpid(), amqp, amqp.router, task.app.conf.task_default_queue


def _is_plain(task: Any) -> bool:
    """Whether all of Celery that makes a task's messages is Celery's own."""
    return _is_plain_app(task.app) and _is_plain_task(task)


def _is_plain_app(app: Any) -> bool:
    routes: Sequence[Any] = app.amqp.router.routes
    return (
        type(app.amqp) is AMQP
        and getattr(app.amqp.create_task_message, "__func__", None) is AMQP.as_task_v2
        and _is_celerys(app.send_task, celerys_base)
        and isinstance(app, Celery)
        and not app.conf.task_send_sent_event
        and all(isinstance(route, MapRoute) for route in routes)
    )


def _is_plain_task(task: Any) -> bool:
    if getattr(task, "_dump_pydantic_arguments", None) is not None:
        return False
    return all(
        _is_celerys(getattr(task, name), celerys_task) for name in ("apply_async", "shadow_name", "_get_exec_options")
    )


def _is_celerys(method: Any, module: Any) -> bool:
    """Whether a method is the one that Celery's module defines: not overridden, and nothing wrapped around it."""
    function = getattr(method, "__func__", None)
    return type(method) is MethodType and type(function) is FunctionType and function.__globals__ is vars(module)
