"""`@procedure`: a Celery task whose calls can be asked for, waited for, aborted and removed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from celery import shared_task

from lrp_celery.core.errors import CallAborted, CallNotFound, CallPending, ConfigurationError
from lrp_celery.core.ids import new_id
from lrp_celery.procedures import behind, declared
from lrp_celery.procedures.aborts import board
from lrp_celery.procedures.arguments import Parameters
from lrp_celery.procedures.bodies import make_plain
from lrp_celery.procedures.calling import Calling
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.local import LocalProcedure
from lrp_celery.procedures.options import UNSET, CallOptions, ProcedureOptions, Unset
from lrp_celery.procedures.results import await_result, wait_for_result
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.procedures.shell import Shell
from lrp_celery.procedures.signal import AbortSignal
from lrp_celery.procedures.state import CallState
from lrp_celery.procedures.stores import Store
from lrp_celery.tracking.callstore import CallStore
from lrp_celery.tracking.owned import AbortRequest, Order
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.snapshot import CallSnapshot
from lrp_celery.tracking.status import Reason

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Duration = timedelta | float | None


class LongRunningProcedure(Generic[P, R]):
    """A task whose calls are addressed by their id, from any process, and settle exactly once (seed 000).

    Still the task that it decorates: every attribute that is not its own is the task's.
    Called directly it runs in place, with a signal that never fires.
    """

    def __init__(self, target: Any, options: ProcedureOptions, call_options: CallOptions | None = None) -> None:
        self._target = target
        self._behind = behind.look_behind(target)
        self._call_options = call_options or CallOptions()
        self.options = options
        self.parameters = Parameters.of(self._behind.function, bound=self._behind.is_bound, signal_type=AbortSignal)
        options.check_sensitive(self.parameters.names, any_name=self.parameters.takes_any_name)
        functools.update_wrapper(self, self._behind.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in place, as calling the task does; no call is made."""
        result: R = self.task(*args, **kwargs)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __repr__(self) -> str:
        return f"<procedure {self._behind.function.__module__}.{self._behind.function.__qualname__}>"

    @property
    def task(self) -> Any:
        """The Celery task in the current app."""
        current = getattr(self._target, "_get_current_object", None)
        task = self._target if current is None else current()
        if getattr(task, "lrp_procedure", None) is None:
            # Only then do the tasks of an app run their procedures. Celery itself does so at the first message, so never eagerly.
            # An app counts as finalised as soon as somebody begins to: whoever comes then waits here for him to have done.
            task.app.finalize(auto=True)
        return task

    # --- calling

    def call(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Ask for a call and return its id at once (LRP-03, LRP-04).

        Its row is written in the caller's transaction, its message goes out after the commit:
        a rollback leaves neither. A broker that is down does not make it fail: the id is
        returned, and the message is sent later. Raises `TypeError` for arguments that the
        function does not take or that have no JSON form, `CallIdConflict` when a fixed id is
        another call's, and `StoreError` when the row cannot be written; then there is no call.
        """
        return self.call_or_find(args, kwargs)[0]

    def call_or_find(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, bool]:
        """Make a call as `call` does; return its id, and False if an earlier call has it and nothing was made."""
        self.parameters.check(args, kwargs)
        tree_args, tree_kwargs = self.parameters.encode(args, kwargs)
        return self._make(tree_args, tree_kwargs, self._call_options)

    def call_again(
        self, args: list[Any], kwargs: dict[str, Any], earlier: CallRecord, new_id: str | None = None
    ) -> tuple[str, bool]:
        """Make a new call of what the message of an earlier one held, for the same owner (RULES 13).

        Return its id, and whether it is new: with a `new_id` it may have been made before.
        """
        options = CallOptions(call_id=new_id, owner=earlier.owner)
        return self._make(args, kwargs, options, rerun_of=earlier.call_id)

    def draft(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Order, Envelope]:
        """Return what is to be written of a call, and its message, for whoever makes many; raises what `call` raises.

        `options` as `using` takes them.
        """
        self.parameters.check(args, kwargs)
        tree_args, tree_kwargs = self.parameters.encode(args, kwargs)
        calling, summary = self._calling(tree_args, tree_kwargs, self._call_options.merged(**options), None)
        return calling.prepare(tree_args, tree_kwargs, summary)

    def _make(
        self, args: list[Any], kwargs: dict[str, Any], options: CallOptions, rerun_of: str | None = None
    ) -> tuple[str, bool]:
        calling, summary = self._calling(args, kwargs, options, rerun_of)
        return calling.make(args, kwargs, summary), calling.is_new

    def _calling(
        self, args: list[Any], kwargs: dict[str, Any], options: CallOptions, rerun_of: str | None
    ) -> tuple[Calling, str]:
        task = self.task
        runtime = runtime_of(task.app)
        redactor = runtime.redactor.also(self.options.sensitive)
        summary = redactor.arguments(args, kwargs, self.parameters.positional)
        terms = self.options.terms(task.app, runtime.limits.grace, options)
        calling = Calling(task, runtime, terms, options, options.call_id or new_id(), rerun_of=rerun_of)
        return calling, summary

    def using(
        self,
        *,
        call_id: str | Unset | None = UNSET,
        timeout: Duration | Unset = UNSET,
        time_to_live: Duration | Unset = UNSET,
        owner: str | Unset | None = UNSET,
        detached: bool | Unset = UNSET,
        **celery_options: Any,
    ) -> LongRunningProcedure[P, R]:
        """Return a copy whose calls are made with these options; the procedure itself stays as it is.

        `call_id` fixes the id: a second call with it changes nothing and returns it again.
        `timeout` and `time_to_live` are seconds or a timedelta, None is unlimited. `owner` is
        whoever the call belongs to. `detached` makes the call at once, whatever becomes of the
        caller's transaction. The others are Celery's own: `queue, priority, countdown, eta,
        expires, headers`, ... A wrong one is a `ConfigurationError`.
        """
        own = {
            "call_id": call_id,
            "timeout": timeout,
            "time_to_live": time_to_live,
            "owner": owner,
            "detached": detached,
        }
        given = {name: value for name, value in own.items() if value is not UNSET}
        copy: LongRunningProcedure[P, R] = object.__new__(LongRunningProcedure)
        copy.__dict__.update(self.__dict__)
        copy._call_options = self._call_options.merged(**given, **celery_options)
        return copy

    # --- asking

    def get_state(self, call_id: str) -> CallState:
        """Return whether the call has settled; `CallNotFound` if this procedure has no such call (LRP-09, LRP-10)."""
        record = self._look(runtime_of(self.task.app).callers, call_id)
        if record is None:
            raise CallNotFound(call_id=call_id)
        return CallState.of(record.status)

    def get_call(self, call_id: str) -> CallSnapshot | None:
        """Return all that is known of the call at this moment, or None if this procedure has no such call."""
        record = self._look(runtime_of(self.task.app).callers, call_id)
        return None if record is None else record.snapshot()

    def get_result(self, call_id: str, *, wait: Duration = None, allow_in_task: bool = False) -> R:
        """Return what the call returned, waiting until it has settled (LRP-11 to LRP-15).

        `wait`: at most this long, in seconds or as a timedelta, then `ResultTimeout`; None waits
        for ever, 0 looks once. What the function raised is raised again: as itself if it is a
        builtin `Exception` or in the task's `throws`, else as `CallFailed`. `CallAborted` as
        soon as somebody has asked for the end of an open call, `CallTimedOut` when its timeout
        has passed, `CallDiscarded` when it was never run to an end. `CallNotFound` if there is
        no such call; `CallNotCommitted` if only the caller's open transaction sees it;
        `CalledInTask` inside a task, unless `allow_in_task`.
        """
        tree = wait_for_result(self, call_id, wait, allow_in_task=allow_in_task)
        result: R = self.parameters.decode_result(tree)
        return result

    def abort(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Ask for the end of a call; silent if it has settled, or is unknown (LRP-16 to LRP-20).

        One that does not run yet ends at once and never runs. One that runs is told through its
        signal, and interrupted if it goes on after the procedure's `grace`.
        """
        runtime = runtime_of(self.task.app)
        for store in (runtime.own, runtime.callers):
            known = self._look(store, call_id)
            if known is None:
                continue
            record = store.request_abort(call_id, AbortRequest(reason=reason, by=by, generation=known.generation))
            if record is not None and record.status.is_open:
                board.tell(call_id, record.run, reason, Reason.ABORTED)
            return

    def remove(self, call_id: str, *, when_settled: bool = False) -> None:
        """Forget a settled call and all that was kept of it (LRP-21 to LRP-24).

        Silent if it is unknown; `CallPending` if it is open, and nothing changes. `when_settled`:
        an open one is forgotten as soon as it has settled.
        """
        store = runtime_of(self.task.app).callers
        known = self._look(store, call_id)
        if known is None:
            return
        is_gone = store.remove(call_id, when_settled=when_settled, generation=known.generation)
        if not is_gone and not when_settled:
            raise CallPending(call_id=call_id)

    def _look(self, store: CallStore, call_id: str) -> CallRecord | None:
        record = store.look(call_id)
        if record is None or record.task != self.task.name:
            return None
        if record.status.is_open and record.deadline_at is not None and record.deadline_at <= datetime.now(UTC):
            # A timeout must not need a worker: whoever looks settles what is overdue.
            store.attend(call_id)
            return store.look(call_id)
        return record

    # --- the same for event loops

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Async twin of `call`."""
        return await self._apart(lambda: self.call(*args, **kwargs))

    async def aget_state(self, call_id: str) -> CallState:
        """Async twin of `get_state`."""
        return await self._apart(lambda: self.get_state(call_id))

    async def aget_call(self, call_id: str) -> CallSnapshot | None:
        """Async twin of `get_call`."""
        return await self._apart(lambda: self.get_call(call_id))

    async def aget_result(self, call_id: str, *, wait: Duration = None, allow_in_task: bool = False) -> R:
        """Async twin of `get_result`; it holds no thread while it waits."""
        tree = await await_result(self, call_id, wait, allow_in_task=allow_in_task)
        result: R = self.parameters.decode_result(tree)
        return result

    async def aabort(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Async twin of `abort`."""
        await self._apart(lambda: self.abort(call_id, reason, by=by))

    async def aremove(self, call_id: str, *, when_settled: bool = False) -> None:
        """Async twin of `remove`."""
        await self._apart(lambda: self.remove(call_id, when_settled=when_settled))

    async def _apart(self, work: Callable[[], T]) -> T:
        return await runtime_of(self.task.app).apart(work)

    # --- its tasks

    def find(self, app: Any) -> Any:
        """Return the procedure's task in a finalised app; None: it has none there."""
        task = app._tasks.get(self._behind.name_in(app))  # noqa: SLF001 - `tasks` would finalise the app
        # Celery shares tasks among apps; but one of the same name may also be another's.
        is_mine = self.is_at_home(app) or behind.function_of(task) is self._behind.function
        return task if is_mine else None

    def is_at_home(self, app: Any) -> bool:
        """Whether its task was declared in this app, or in all of them."""
        return self._behind.app in {None, app}

    def adopt(self, task: Any) -> None:
        """Let a task run this procedure's calls."""
        if getattr(task, "lrp_procedure", None) is not None:
            return
        make_plain(task)
        task.run = Shell(self, task)
        # The shell calls it, once the call is claimed: Celery would for every copy of its message.
        task.before_start = _do_nothing
        task.lrp_sensitive = self.options.sensitive
        task._lrp_celery_parameters = self.parameters.positional  # noqa: SLF001 - our own, see tracking.observer
        task.__header__ = self.parameters.header
        task.__trace__ = None
        task.replace = _refuse_replace
        task.throws = (*(task.throws or ()), CallAborted)
        if "acks_late" not in self._behind.options:
            task.acks_late = True
        if "reject_on_worker_lost" not in self._behind.options:
            task.reject_on_worker_lost = False
        # Last, for it says that all of this is done.
        task.lrp_procedure = self


def _do_nothing(*_: Any, **__: Any) -> None:
    pass


def _refuse_replace(*_: Any, **__: Any) -> Any:
    raise ConfigurationError(
        "A procedure cannot replace itself: its call would end as another task. Call that instead."
    )


class _Decorator:
    """`@procedure(...)`, waiting for what it decorates."""

    def __init__(self, options: ProcedureOptions) -> None:
        self._options = options

    @overload
    def __call__(
        self, target: Callable[Concatenate[AbortSignal, P], Coroutine[Any, Any, R]]
    ) -> LongRunningProcedure[P, R]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[AbortSignal, P], R]) -> LongRunningProcedure[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]]) -> LongRunningProcedure[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, R]) -> LongRunningProcedure[P, R]: ...
    def __call__(self, target: Any) -> LongRunningProcedure[Any, Any]:
        """Decorate a task, or a function, which becomes a task."""
        return _decorate(target, self._options)


class _LocalDecorator:
    """`@procedure(store=...)`, waiting for what it decorates."""

    def __init__(self, options: ProcedureOptions) -> None:
        self._options = options

    @overload
    def __call__(
        self, target: Callable[Concatenate[AbortSignal, P], Coroutine[Any, Any, R]]
    ) -> LocalProcedure[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]]) -> LocalProcedure[P, R]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[AbortSignal, P], R]) -> LocalProcedure[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, R]) -> LocalProcedure[P, R]: ...
    def __call__(self, target: Any) -> LocalProcedure[Any, Any]:
        """Decorate a function, which stays one of this process."""
        if isinstance(target, LongRunningProcedure | LocalProcedure) or behind.is_task(target) or not callable(target):
            raise ConfigurationError(
                f"@procedure(store=...) decorates a plain function, not {target!r:.100}: its calls run in this "
                "process, without Celery. Leave out store to let workers run them."
            )
        return LocalProcedure(target, self._options)


# A task is a callable, too. It is a Coroutine, not an Awaitable: by that mypy tells the overloads
# apart where an annotation holds Any.
@overload
def procedure(target: Callable[Concatenate[AbortSignal, P], Coroutine[Any, Any, R]]) -> LongRunningProcedure[P, R]: ...
@overload
def procedure(target: Callable[Concatenate[AbortSignal, P], R]) -> LongRunningProcedure[P, R]: ...
@overload
def procedure(target: Callable[P, Coroutine[Any, Any, R]]) -> LongRunningProcedure[P, R]: ...
@overload
def procedure(target: Callable[P, R]) -> LongRunningProcedure[P, R]: ...
@overload
def procedure(
    *,
    timeout: Duration = ...,
    time_to_live: Duration = ...,
    grace: timedelta | float = ...,
    idempotent: bool = ...,
    max_attempts: int = ...,
    keep_result: bool = ...,
    sensitive: tuple[str, ...] | list[str] = ...,
    permission: str | None = ...,
    store: None = ...,
) -> _Decorator: ...
@overload
def procedure(
    *,
    store: Store,
    timeout: Duration = ...,
    time_to_live: Duration = ...,
    grace: timedelta | float = ...,
) -> _LocalDecorator: ...
def procedure(target: Any = None, **options: Any) -> Any:
    """Make a long-running procedure of a task (on top of `@shared_task` or `@app.task`), or of a plain function.

    timeout: seconds or timedelta from the call after which it is aborted; None: never.
    time_to_live: how long a settled call is kept; None: until it is removed; unset: as RETENTION says.
    grace: how long a run may go on after an abort before it is interrupted (default: the setting GRACE).
    idempotent: it may run again when its worker was lost, up to `max_attempts` losses; else it fails.
    keep_result: whether what it returns is kept for `get_result`.
    sensitive: parameters that are never shown.
    permission: what a user needs besides `start_call` to call it over HTTP, such as "reports.add_report".
    store: a seed 000 `Store`; then it is a `LocalProcedure`, whose calls run in threads of this process.
    A wrong option is a `ConfigurationError`, which is a `TypeError`, at decoration.
    """
    chosen = ProcedureOptions.of(**options)
    if chosen.store is not None:
        return _LocalDecorator(chosen) if target is None else _LocalDecorator(chosen)(target)
    if target is None:
        return _Decorator(chosen)
    return _decorate(target, chosen)


def _decorate(target: Any, options: ProcedureOptions) -> LongRunningProcedure[Any, Any]:
    # `isinstance` would ask a proxy what it stands for, and so make Celery's default app before the project makes its own.
    if issubclass(type(target), LongRunningProcedure):
        raise ConfigurationError(f"{target!r} is decorated by @procedure twice; once is enough.")
    if not behind.is_task(target):
        if not callable(target):
            raise ConfigurationError(f"@procedure decorates a task or a function, not {target!r}.")
        target = shared_task(target)
    made: LongRunningProcedure[Any, Any] = LongRunningProcedure(target, options)
    declared.declare(made)
    return made
