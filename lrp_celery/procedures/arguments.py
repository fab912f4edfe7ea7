"""What a procedure's function takes and gives: its parameters, the abort signal among them, and its result."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, Signature
from types import SimpleNamespace
from typing import Annotated, Any, Final, get_args, get_origin

from lrp_celery.core.codec import Codec, Tree
from lrp_celery.core.errors import ConfigurationError

_VARIADIC: Final = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
_POSITIONAL: Final = frozenset({Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD})


@dataclass(frozen=True)
class Parameters:
    """A procedure's function as its callers see it: without `self` (the task) and without the abort signal.

    The signal's parameter is found by its annotation, wherever it stands. Annotations are
    resolved when the first value is encoded; one that cannot be is taken for Any.
    """

    function: Callable[..., Any]
    signature: Signature
    """What callers pass."""
    signal: Parameter | None
    """The parameter that takes the signal."""
    _place: int = field(repr=False)
    """How many positional parameters of callers stand before the signal."""
    _signal_type: type = field(repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any], *, bound: bool, signal_type: type) -> Parameters:
        """Describe `function`; `bound`: its first parameter takes the task, as with Celery's `bind=True`.

        `ConfigurationError` if more than one parameter takes a signal, or one that cannot.
        """
        given = _without_self(function, bound=bound, signal_type=signal_type)
        hints = _hints(function, signal_type)
        signals = [each for each in given if _is_signal(hints.get(each.name), signal_type)]
        if len(signals) > 1:
            names = ", ".join(each.name for each in signals)
            raise ConfigurationError(
                f"{_name(function)} takes more than one {signal_type.__name__}: {names}. Keep one."
            )
        signal = signals[0] if signals else None
        if signal is not None and signal.kind in _VARIADIC:
            raise ConfigurationError(
                f"{_name(function)} takes its {signal_type.__name__} among {_VARIADIC[signal.kind]}{signal.name}; "
                "give it a parameter of its own."
            )
        return cls(
            function=function,
            signature=Signature([each for each in given if each is not signal]),
            signal=signal,
            _place=0 if signal is None else given.index(signal),
            _signal_type=signal_type,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that callers fill."""
        return tuple(self.signature.parameters)

    @cached_property
    def positional(self) -> tuple[str, ...]:
        """The names that positional arguments fill, in their order; what a redacted display wants to know."""
        return tuple(name for name, each in self.signature.parameters.items() if each.kind in _POSITIONAL)

    @property
    def takes_any_name(self) -> bool:
        """Whether there is a `**kwargs`."""
        return self._others is not None

    @cached_property
    def header(self) -> Callable[..., Any]:
        """A function that takes what callers pass and does nothing, to be `task.__header__` for Celery's typing check.

        Python itself compares arguments with it, and words the `TypeError`.
        """
        plain = [
            each.replace(annotation=each.empty, default=each.empty if each.default is each.empty else None)
            for each in self.signature.parameters.values()
        ]
        space: dict[str, Any] = {}
        # As Celery does. The text holds names of parameters, and nothing else.
        exec(f"def header{Signature(plain)}: pass", space)  # noqa: S102
        header: Callable[..., Any] = space["header"]
        header.__name__ = header.__qualname__ = _name(self.function)
        header.__module__ = self.function.__module__
        return header

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise `TypeError`, in Python's own words, if these arguments do not fit; a signal is none of them."""
        signal = self.signal
        if signal is not None and signal.name in kwargs and signal.kind is not Parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"{_name(self.function)}() takes no argument {signal.name!r} from its callers: "
                f"the worker passes the {self._signal_type.__name__}; to end a call, abort it"
            )
        self.header(*args, **kwargs)

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Tree], dict[str, Tree]]:
        """Return the arguments as JSON trees; `NotEncodable` names the argument that has none."""
        return (
            [codec.encode(value, where=where) for codec, where, value in self._at_positions(args)],
            {name: self._at_name(name).encode(value, where=f"argument {name!r}") for name, value in kwargs.items()},
        )

    def decode(self, args: Sequence[Tree], kwargs: Mapping[str, Tree]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that `encode` wrote; `NotDecodable` names the argument that does not fit."""
        return (
            tuple(codec.decode(tree, where=where) for codec, where, tree in self._at_positions(args)),
            {name: self._at_name(name).decode(tree, where=f"argument {name!r}") for name, tree in kwargs.items()},
        )

    def inject(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], signal: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with the signal where the function takes it; they need not fit."""
        parameter, args = self.signal, tuple(args)
        if parameter is None:
            return args, dict(kwargs)
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            # Whatever stands before it can only be left out where it has a default.
            args += tuple(each.default for each in self._before_signal()[len(args) :] if each.default is not each.empty)
        elif parameter.kind is Parameter.KEYWORD_ONLY or len(args) < self._place:
            return args, {**kwargs, parameter.name: signal}
        return (*args[: self._place], signal, *args[self._place :]), dict(kwargs)

    def encode_result(self, value: Any) -> Tree:
        """Return the result as a JSON tree; `NotEncodable` names the place in it that has none."""
        return self._result.encode(value, where="result")

    def decode_result(self, tree: Tree) -> Any:
        """Return the result that `encode_result` wrote, and None where none was kept."""
        return None if tree is None else self._result.decode(tree, where="result")

    # --- which parameter an argument fills

    def _at_positions(self, values: Sequence[Any]) -> Iterator[tuple[Codec, str, Any]]:
        names, rest = self.positional, self._rest
        for position, value in enumerate(values):
            if position < len(names):
                yield self._codecs[names[position]], f"argument {names[position]!r}", value
            else:
                # Too many, unless there is a *args: that is for Python to say when it is called.
                yield self._codecs[rest] if rest else _ANY, f"argument {position + 1}", value

    def _at_name(self, name: str) -> Codec:
        parameter = self.signature.parameters.get(name)
        if parameter is None or parameter.kind in {Parameter.POSITIONAL_ONLY, *_VARIADIC}:
            return self._codecs.get(self._others or "", _ANY)
        return self._codecs[name]

    @cached_property
    def _rest(self) -> str | None:
        return self._var(Parameter.VAR_POSITIONAL)

    @cached_property
    def _others(self) -> str | None:
        return self._var(Parameter.VAR_KEYWORD)

    def _var(self, kind: Any) -> str | None:
        return next((name for name, each in self.signature.parameters.items() if each.kind is kind), None)

    def _before_signal(self) -> list[Parameter]:
        return list(self.signature.parameters.values())[: self._place]

    # --- what the annotations say

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        return _hints(self.function, self._signal_type)

    @cached_property
    def _codecs(self) -> dict[str, Codec]:
        return {name: Codec(self._resolved.get(name, Any)) for name in self.names}

    @cached_property
    def _result(self) -> Codec:
        return Codec(self._resolved.get("return", Any))


_ANY: Final = Codec()


def _without_self(function: Callable[..., Any], *, bound: bool, signal_type: type) -> list[Parameter]:
    given = list(_signature(function).parameters.values())
    if not bound:
        return given
    if not given or given[0].kind not in {*_POSITIONAL, Parameter.VAR_POSITIONAL}:
        raise ConfigurationError(f"{_name(function)} is bound, so its first parameter must take the task: add `self`.")
    if _is_signal(_hints(function, signal_type).get(given[0].name), signal_type):
        raise ConfigurationError(
            f"{_name(function)} is bound, so its first parameter takes the task, "
            f"not the {signal_type.__name__}: put `self` before {given[0].name!r}."
        )
    return given if given[0].kind in _VARIADIC else given[1:]


def _signature(function: Callable[..., Any]) -> Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _hints(function: Callable[..., Any], signal_type: type) -> dict[str, Any]:
    """Return the annotations of a function, resolved; those that cannot be are left out.

    The signal is recognised by its name too: what is imported for type checkers only
    cannot be resolved.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001, S110 - an annotation may be any text, or raise anything
        pass
    signature = _signature(function)
    found = {each.name: each.annotation for each in signature.parameters.values()}
    found["return"] = signature.return_annotation
    space = getattr(inspect.unwrap(function), "__globals__", {})
    resolved = {}
    for name, annotation in found.items():
        if annotation is Signature.empty:
            continue
        holder = SimpleNamespace(__annotations__={name: annotation})
        for names in ({}, {signal_type.__name__: signal_type}):
            try:
                resolved.update(typing.get_type_hints(holder, space, names, include_extras=True))
                break
            except Exception:  # noqa: BLE001, S112 - see above
                continue
    return resolved


def _is_signal(annotation: Any, signal_type: type) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_signal(get_args(annotation)[0], signal_type)
    if isinstance(annotation, type) and issubclass(annotation, signal_type):
        return True
    return any(_is_signal(member, signal_type) for member in get_args(annotation) if _is_union(annotation))


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in {typing.Union, type(int | None)}


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
