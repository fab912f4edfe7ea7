"""What a Celery decorator made of a function, found out without waking it.

`shared_task` and `app.task` return proxies: reading any attribute of one makes the task,
and with it finalises an app that is still being set up. What they were made from lies in
private attributes of the proxy; should Celery keep it elsewhere one day, the proxy is asked after all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from celery import _state as _celery_state
from celery.app.task import Task
from celery.local import PromiseProxy, Proxy

#: Celery's own, which its type stubs do not know of.
_finalizers: Any = vars(_celery_state)["_on_app_finalizers"]


@dataclass(frozen=True, slots=True)
class Behind:
    """The function behind a task, and the options that the task was declared with."""

    function: Callable[..., Any]
    name: str | None
    is_bound: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    app: Any = None
    """The app that the task was declared in; None: it is every app's."""

    def name_in(self, app: Any) -> str:
        """Return the name of the task in `app`."""
        if self.name is not None:
            return self.name
        name: str = app.gen_task_name(self.function.__name__, self.function.__module__)
        return name


def look_behind(target: Any) -> Behind:
    """Return what `target`, a task or a proxy of one, was made from."""
    kind = type(target)
    if kind is Proxy:
        return _behind_shared(target) or _behind_task(target._get_current_object())  # noqa: SLF001 - Celery's own way
    if kind is PromiseProxy:
        return _behind_promise(target) or look_behind(target._get_current_object())  # noqa: SLF001 - see above
    return replace(_behind_task(target), app=target.app)


def is_task(target: Any) -> bool:
    """Whether `target` is a task, or a proxy of one."""
    return type(target) in {Proxy, PromiseProxy} or isinstance(target, Task)


def function_of(task: Any) -> Any:
    """Return the function that Celery made a task of; None: it is none, or was made of no function."""
    wrapped = getattr(task, "__wrapped__", None)
    return getattr(wrapped, "__func__", wrapped)


def _behind_shared(proxy: Any) -> Behind | None:
    function: Any = _closed_over(object.__getattribute__(proxy, "_Proxy__local")).get("fun")
    if function is None:
        return None
    declarations = (_closed_over(announced) for announced in list(_finalizers))
    options = (kept.get("options") for kept in declarations if kept.get("fun") is function)
    return next((_from_options(function, found) for found in options if isinstance(found, dict)), None)


def _behind_promise(proxy: Any) -> Behind | None:
    try:
        (function,) = object.__getattribute__(proxy, "_Proxy__args")
        options = object.__getattribute__(proxy, "_Proxy__kwargs")
        app = object.__getattribute__(proxy, "_Proxy__local").__self__
    except (AttributeError, ValueError):
        return None
    return replace(_from_options(function, options), app=app)


def _behind_task(task: Any) -> Behind:
    # A bound method: its signature does not count the task itself.
    return Behind(task.run, task.name, is_bound=False, options=_set_by_class(task))


def _from_options(function: Callable[..., Any], options: Mapping[str, Any]) -> Behind:
    return Behind(function, options.get("name"), is_bound=bool(options.get("bind")), options=options)


def _closed_over(function: Any) -> dict[str, Any]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=False)}


def _set_by_class(task: Any) -> dict[str, Any]:
    """Return the attributes that the task's own class sets: binding writes Celery's defaults into it, too."""
    return {
        name: value for name, value in vars(type(task)).items() if value != getattr(task.app.conf, f"task_{name}", None)
    }
