"""Messages like the one before: made by changing what differs, where nobody else has a say in it.

Celery takes most of its time to find out for each call what it found out for the one before: the
task's options, its route, who calls. Where a task, its app and its signature are Celery's own
through and through, and only arguments and id differ, the answers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from lrp_celery.tracking.holding import Holder, Sketch

#: Options that mean the same for every call that has them.
_SAME: Final = frozenset(
    {
        *("queue", "exchange", "routing_key", "priority", "delivery_mode", "serializer", "compression", "headers"),
        *("ignore_result", "link", "link_error", "retry", "retry_policy", "time_limit", "soft_time_limit", "shadow"),
    }
)


@dataclass(frozen=True, slots=True)
class _Stencil:
    task: Any
    options: Mapping[str, Any]
    sketch: Sketch


class Stencils:
    """Holds back the messages of one app's signatures, by a stencil where that is exact."""

    def __init__(self, app: Any, holder: Holder) -> None:
        self._app = app
        self._holder = holder
        self._parent = app.current_worker_task
        self._is_plain_app = _is_plain_app(app)
        self._stencils: dict[str, _Stencil | None] = {}

    def hold(self, signature: Any) -> str:
        """Hold back the message of a call; return the call's id."""
        name = signature["task"]
        options = dict(signature.options)
        call_id = options.pop("task_id", None) or new_id()
        stencil = self._stencils.get(name)
        if stencil is not None and stencil.options == options and type(signature) is Signature:
            self._cut(stencil, call_id, tuple(signature.args or ()), dict(signature.kwargs or {}))
            return str(call_id)
        self._holder.sketch, self._holder.sketches = None, True
        result = signature.apply_async(producer=self._holder, task_id=call_id)
        self._holder.sketches = False
        if name not in self._stencils or stencil is not None:
            self._stencils[name] = self._stencil_of(signature, options)
        return str(result.id)

    def _stencil_of(self, signature: Any, options: Mapping[str, Any]) -> _Stencil | None:
        """Return the stencil for calls like this one; None: each of them is Celery's to make."""
        sketch, task = self._holder.sketch, self._app._tasks.get(signature["task"])  # noqa: SLF001 - `tasks` may finalise
        is_exact = sketch is not None and self._is_plain_app and type(signature) is Signature and _is_plain_task(task)
        return _Stencil(task, options, sketch) if is_exact and sketch is not None and options.keys() <= _SAME else None

    def _cut(self, stencil: _Stencil, call_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        task, sketch = stencil.task, stencil.sketch
        if task.typing:
            task.__header__(*args, **kwargs)
        is_root = sketch.headers["root_id"] == sketch.headers["id"]
        headers = {
            **sketch.headers,
            "id": call_id,
            "root_id": call_id if is_root else sketch.headers["root_id"],
            "argsrepr": celerys_own(self._app, "args", args),
            "kwargsrepr": celerys_own(self._app, "kwargs", kwargs),
            # Whoever hears the signal may write into them.
            "timelimit": list(sketch.headers["timelimit"]),
            "stamps": {},
        }
        properties = {**sketch.properties, "correlation_id": call_id}
        message = celerys_amqp.task_message(headers, properties, (args, kwargs, dict(sketch.around)), None)
        if not headers["ignore_result"]:
            self._app.backend.on_task_call(self._holder, call_id)
        self._app.amqp.send_task_message(self._holder, sketch.task, message, **sketch.options)
        if self._parent is not None:
            self._parent.add_trail(task.AsyncResult(call_id))


def _is_plain_app(app: Any) -> bool:
    return (
        type(app.amqp) is AMQP
        and getattr(app.amqp.create_task_message, "__func__", None) is AMQP.as_task_v2
        and _is_celerys(app.send_task, celerys_base)
        and isinstance(app, Celery)
        and not app.conf.task_send_sent_event
        and all(isinstance(route, MapRoute) for route in app.amqp.routes)
    )


def _is_plain_task(task: Any) -> bool:
    if task is None or getattr(task, "_dump_pydantic_arguments", None) is not None:
        return False
    return all(
        _is_celerys(getattr(task, name), celerys_task) for name in ("apply_async", "shadow_name", "_get_exec_options")
    )


def _is_celerys(method: Any, module: Any) -> bool:
    """Whether a method is the one that Celery's module defines: not overridden, and nothing wrapped around it."""
    function = getattr(method, "__func__", None)
    return type(method) is MethodType and type(function) is FunctionType and function.__globals__ is vars(module)
