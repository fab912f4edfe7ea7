"""What a procedure's function takes: the signal, wherever it stands, and everything else as JSON."""

from __future__ import annotations

import functools
import inspect
import typing
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest

from lrp_celery.core.errors import ConfigurationError, NotDecodable, NotEncodable
from lrp_celery.procedures.arguments import Parameters

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found] # the point


class Signal:
    """Stands in for the AbortSignal."""


class KindOfSignal(Signal):
    """A subclass is one too."""


@dataclass
class Later:
    day: date


SIGNAL = Signal()
TASK = object()


def parameters(function, *, bound=False):
    return Parameters.of(function, bound=bound, signal_type=Signal)


def ran(function, *args, **kwargs):
    """What the function gets when it is run as a worker would run it."""
    described = parameters(function)
    described.check(args, kwargs)
    full_args, full_kwargs = described.inject(args, kwargs, SIGNAL)
    return function(*full_args, **full_kwargs)


# --- Functions of every shape; each returns what it got


def none(a, b=2):
    return a, b


def first(signal: Signal, a, b=2):
    return signal, a, b


def middle(a, signal: Signal, b):
    return a, signal, b


def last(a, b, signal: Signal):
    return a, b, signal


def default(a, signal: Signal | None = None, b=2):
    return a, signal, b


def optional(a, b=2, stop: Optional[Signal] = None):  # noqa: UP045 - old code says so
    return a, b, stop


def annotated(a, stop: Annotated[Signal | None, "how to stop"] = None):
    return a, stop


def subclass(stop: KindOfSignal, a):
    return stop, a


def keyword_only(a, *, signal: Signal, b=2):
    return a, signal, b


def first_of_many(signal: Signal, *rest, key=0):
    return signal, rest, key


def middle_of_many(a, signal: Signal, *rest, **more):
    return a, signal, rest, more


def after_many(*rest, signal: Signal, **more):
    return rest, signal, more


def positional_only(a, signal: Signal, /, b=2):
    return a, signal, b


def positional_defaults(a=1, b=2, signal: Signal | None = None, /):
    return a, b, signal


def positional_and_any_name(signal: Signal, /, **more):
    return signal, more


def named_like_a_signal(signal, a):
    return signal, a


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (none, (1,), {}, (1, 2)),
        (first, (1,), {}, (SIGNAL, 1, 2)),
        (first, (1, 3), {}, (SIGNAL, 1, 3)),
        (first, (), {"a": 1, "b": 3}, (SIGNAL, 1, 3)),
        (middle, (1, 2), {}, (1, SIGNAL, 2)),
        (middle, (1,), {"b": 2}, (1, SIGNAL, 2)),
        (middle, (), {"a": 1, "b": 2}, (1, SIGNAL, 2)),
        (last, (1, 2), {}, (1, 2, SIGNAL)),
        (last, (1,), {"b": 2}, (1, 2, SIGNAL)),
        (default, (1,), {}, (1, SIGNAL, 2)),
        (default, (1, 3), {}, (1, SIGNAL, 3)),
        (default, (), {"a": 1, "b": 3}, (1, SIGNAL, 3)),
        (optional, (1,), {}, (1, 2, SIGNAL)),
        (annotated, (1,), {}, (1, SIGNAL)),
        (subclass, (1,), {}, (SIGNAL, 1)),
        (keyword_only, (1,), {"b": 3}, (1, SIGNAL, 3)),
        (first_of_many, (), {}, (SIGNAL, (), 0)),
        (first_of_many, (1, 2, 3), {"key": 4}, (SIGNAL, (1, 2, 3), 4)),
        (middle_of_many, (1,), {}, (1, SIGNAL, (), {})),
        (middle_of_many, (1, 2, 3), {"x": 4}, (1, SIGNAL, (2, 3), {"x": 4})),
        (middle_of_many, (), {"a": 1, "x": 4}, (1, SIGNAL, (), {"x": 4})),
        (after_many, (1, 2), {"x": 4}, ((1, 2), SIGNAL, {"x": 4})),
        (positional_only, (1,), {"b": 3}, (1, SIGNAL, 3)),
        (positional_only, (1, 3), {}, (1, SIGNAL, 3)),
        (positional_defaults, (), {}, (1, 2, SIGNAL)),
        (positional_defaults, (5,), {}, (5, 2, SIGNAL)),
        (positional_and_any_name, (), {"signal": 1}, (SIGNAL, {"signal": 1})),
        (named_like_a_signal, (1, 2), {}, (1, 2)),
    ],
)
def test_the_signal_gets_where_the_function_wants_it(function, args, kwargs, expected):
    assert ran(function, *args, **kwargs) == expected


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "says"),
    [
        (none, (), {}, "none() missing 1 required positional argument: 'a'"),
        (none, (1, 2, 3), {}, "none() takes from 1 to 2 positional arguments but 3 were given"),
        (first, (), {}, "first() missing 1 required positional argument: 'a'"),
        (first, (1, 2, 3), {}, "first() takes from 1 to 2 positional arguments but 3 were given"),
        (first, (1,), {"c": 3}, "first() got an unexpected keyword argument 'c'"),
        (first, (1,), {"a": 3}, "first() got multiple values for argument 'a'"),
        (last, (1,), {}, "last() missing 1 required positional argument: 'b'"),
        (keyword_only, (1, 2), {}, "keyword_only() takes 1 positional argument but 2 were given"),
        (positional_only, (), {"a": 1}, "positional_only() got some positional-only arguments passed as keyword"),
        (first, (1,), {"signal": SIGNAL}, "first() takes no argument 'signal' from its callers"),
        (middle_of_many, (1,), {"signal": None}, "middle_of_many() takes no argument 'signal' from its callers"),
        (first, (SIGNAL, 1, 2), {}, "first() takes from 1 to 2 positional arguments but 3 were given"),
        (lambda signal: signal, (), {}, "<lambda>() missing 1 required positional argument: 'signal'"),
    ],
)
def test_wrong_arguments_are_a_type_error_in_pythons_words(function, args, kwargs, says):
    with pytest.raises(TypeError) as caught:
        parameters(function).check(args, kwargs)
    assert str(caught.value).startswith(says)
    assert type(caught.value) is TypeError


def test_the_header_shows_what_callers_pass():
    header = parameters(middle_of_many).header
    assert str(inspect.signature(header)) == "(a, *rest, **more)"
    assert header.__name__ == "middle_of_many"
    assert str(inspect.signature(parameters(positional_only).header)) == "(a, /, b=None)"


# --- bound


def with_self(self, signal: Signal, a):
    return self, signal, a


def test_a_bound_function_takes_the_task_first():
    described = parameters(with_self, bound=True)
    described.check((1,), {})
    args, kwargs = described.inject((1,), {}, SIGNAL)
    assert with_self(TASK, *args, **kwargs) == (TASK, SIGNAL, 1)
    assert described.names == ("a",)
    with pytest.raises(TypeError, match=r"with_self\(\) takes 1 positional argument but 2 were given"):
        described.check((1, 2), {})


def test_a_bound_function_may_take_the_task_among_others():
    def function(*args: int, signal: Signal):
        return args, signal

    described = parameters(function, bound=True)
    args, kwargs = described.inject((1, 2), {}, SIGNAL)
    assert function(TASK, *args, **kwargs) == ((TASK, 1, 2), SIGNAL)


# --- at decoration


def two(signal: Signal, other: Signal | None = None): ...


def among(*signals: Signal): ...


def among_names(**signals: Signal): ...


def nothing(): ...


@pytest.mark.parametrize(
    ("function", "bound", "says"),
    [
        (two, False, "two takes more than one Signal: signal, other"),
        (among, False, r"among takes its Signal among \*signals; give it a parameter of its own"),
        (among_names, False, r"among \*\*signals"),
        (nothing, True, "nothing is bound, so its first parameter must take the task"),
        (
            first,
            True,
            "first is bound, so its first parameter takes the task, not the Signal: put `self` before 'signal'",
        ),
    ],
)
def test_a_function_that_cannot_be_served_is_refused_at_once(function, bound, says):
    with pytest.raises(ConfigurationError, match=says):
        parameters(function, bound=bound)


def test_a_signal_that_is_imported_for_type_checkers_only_is_found_by_its_name():
    def function(a: Unknown, stop: Signal | None = None): ...

    described = parameters(function)
    assert described.signal is not None
    assert described.signal.name == "stop"

    space: dict[str, Any] = {}
    exec("def function(signal: 'Signal', a: 'Unknown | None', b: 'int'): ...", space)
    described = parameters(space["function"])
    assert described.signal is not None
    assert described.names == ("a", "b")
    assert described.encode((date(2026, 1, 1), 1), {})[0][1] == 1


def test_a_value_is_frozen_and_says_what_it_describes():
    described = parameters(first)
    with pytest.raises(AttributeError):
        described.signal = None
    assert "first" in repr(described)
    assert described == parameters(first)


def test_names_and_places_are_told():
    described = parameters(middle_of_many)
    assert described.names == ("a", "rest", "more")
    assert described.positional == ("a",)
    assert described.takes_any_name
    assert not parameters(first).takes_any_name


# --- values


def typed(signal: Signal, day: date, *days: date, price: Decimal = Decimal(1), **more: set[int]) -> dict[int, date]:
    return {}


def test_arguments_go_as_json_and_come_back_by_their_annotations():
    described = parameters(typed)
    day = date(2026, 10, 1)
    args, kwargs = described.encode((day, day), {"price": Decimal("1.5"), "x": {1}})
    assert args == ["2026-10-01", "2026-10-01"]
    assert kwargs == {"price": "1.5", "x": [1]}
    assert described.decode(args, kwargs) == ((day, day), {"price": Decimal("1.5"), "x": {1}})


def test_the_result_goes_by_its_annotation():
    described = parameters(typed)
    tree = described.encode_result({1: date(2026, 10, 1)})
    assert tree == {"1": "2026-10-01"}
    assert described.decode_result(tree) == {1: date(2026, 10, 1)}
    assert described.decode_result(None) is None, "where it was not kept, whatever the annotation says"


def test_the_result_of_a_coroutine_is_what_it_returns():
    async def function(signal: Signal) -> date:
        return date(2026, 10, 1)

    described = parameters(function)
    assert described.decode_result(described.encode_result(date(2026, 10, 1))) == date(2026, 10, 1)
    assert described.encode_result(date(2026, 10, 1)) == "2026-10-01"


def test_what_has_no_annotation_goes_by_its_own_type():
    described = parameters(none)
    args, kwargs = described.encode((date(2026, 10, 1),), {"b": Decimal(1)})
    assert described.decode(args, kwargs) == ((date(2026, 10, 1),), {"b": Decimal(1)})
    assert described.decode_result(described.encode_result(date(2026, 10, 1))) == date(2026, 10, 1)


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((print,), {}, "argument 'day': "),
        ((date(2026, 1, 1), [print]), {}, "argument 2, item 0: "),
        ((), {"day": 1, "price": print}, "argument 'price': "),
        ((), {"x": {print}}, "argument 'x', item 0: "),
    ],
)
def test_an_argument_that_has_no_json_is_named(args, kwargs, says):
    with pytest.raises(NotEncodable) as caught:
        parameters(typed).encode(args, kwargs)
    assert str(caught.value).startswith(says)
    with pytest.raises(NotEncodable, match=r"^result"):
        parameters(typed).encode_result(print)


def test_an_argument_from_elsewhere_that_does_not_fit_is_named():
    with pytest.raises(NotDecodable, match=r"^argument 'day': "):
        parameters(typed).decode(["soon"], {})
    with pytest.raises(NotDecodable, match=r"^argument 'price': "):
        parameters(typed).decode([], {"price": "much"})


def test_arguments_that_do_not_fit_are_left_to_python():
    described = parameters(first)
    assert described.decode([1, 2, 3, 4], {"zzz": 1}) == ((1, 2, 3, 4), {"zzz": 1})


def test_an_annotation_may_name_what_is_defined_later():
    space: dict[str, Any] = {"Signal": Signal, "date": date}
    exec("def function(signal: 'Signal', x: 'Soon') -> 'Soon': ...", space)
    described = parameters(space["function"])
    space["Soon"] = Later
    assert described.encode((Later(date(2026, 10, 1)),), {})[0] == [{"day": "2026-10-01"}]


def test_a_function_behind_a_decorator_is_seen_through():
    def decorator(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    assert ran(decorator(middle), 1, 2) == (1, SIGNAL, 2)
    with pytest.raises(TypeError, match=r"middle\(\) missing 1 required"):
        parameters(decorator(middle)).check((1,), {})
    assert parameters(decorator(typed)).encode((date(2026, 1, 1),), {})[0] == ["2026-01-01"]


def test_annotations_that_are_values_already_are_taken_as_they_are():
    def function(signal, day): ...

    function.__annotations__ = {"signal": typing.Union[Signal, None], "day": date}  # noqa: UP007 - likewise
    assert parameters(function).encode((date(2026, 1, 1),), {})[0] == ["2026-01-01"]


def test_celerys_typing_check_accepts_what_callers_pass():
    from celery import Celery

    app = Celery("typing-check", broker="memory://", set_as_current=False)

    @app.task
    def report(signal: Signal, month): ...

    described = parameters(report.run)
    report.__header__ = described.header
    report.apply_async(("2026-10",), producer=None)
    with pytest.raises(TypeError, match=r"report\(\) missing 1 required positional argument: 'month'"):
        report.delay()
