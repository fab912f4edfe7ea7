"""Values as JSON, there and back: by annotation, through kombu's own JSON, and what is refused."""

import collections
import enum
import json
import math
import re
import sys
import typing
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu

from lrp_celery.core import codec
from lrp_celery.core.errors import NotDecodable, NotEncodable

T = TypeVar("T")
#: On a busy machine the first draws take long.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
#: Floats without a JSON form, and characters that are given as two halves.
NO_JSON = re.compile(r"\bnan\b|\binf\b|NaN|\\ud[89ab]", re.IGNORECASE)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "y"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Odd(enum.Enum):
    PAIR = (1, 2)
    DAY = date(2026, 1, 1)


@dataclass
class Item:
    name: str
    price: Decimal
    color: Color = Color.RED
    tags: set[str] = field(default_factory=set)
    made: date | None = None


@dataclass(frozen=True)
class Node:
    name: str
    children: "tuple[Node, ...]" = ()


@dataclass(frozen=True)
class Cat:
    name: str


@dataclass(frozen=True)
class Dog:
    name: str


@dataclass(frozen=True)
class Puppy(Dog):
    age: int = 0


@dataclass
class Made:
    given: int
    twice: int = field(init=False)

    def __post_init__(self):
        self.twice = 2 * self.given


@dataclass
class Unmakable:
    given: int
    seed: InitVar[int]


@dataclass
class Marked:
    __type__: str
    __value__: int


@dataclass
class Box(Generic[T]):
    content: T


class Point(NamedTuple):
    x: int
    when: date


class Movie(TypedDict):
    title: str
    seen: typing.NotRequired[date]


UserId = NewType("UserId", uuid.UUID)
BARE_TUPLE = collections.namedtuple("BARE_TUPLE", "a b")  # noqa: PYI024 - one without annotations

# What JSON may hold, as text keys and plain values; marks included, for users may have such keys.
KEYS = st.text(max_size=5) | st.sampled_from(["__type__", "__value__", "__entries__", "__as__"])
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    # Halves of characters, as in file names that are no UTF-8. JSON joins a first half and a second one.
    | st.text(alphabet=st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"]), max_size=2)
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.binary()
    | st.frozensets(st.integers() | st.tuples(st.integers(), st.dates()), max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text(alphabet="abc\u00e9\x00", max_size=3)
st.register_type_strategy(
    Item,
    st.builds(
        Item,
        NAMES,
        st.decimals(allow_nan=False, allow_infinity=False),
        st.sampled_from(Color),
        st.sets(NAMES, max_size=2),
        st.none() | st.dates(),
    ),
)
st.register_type_strategy(
    Node,
    st.recursive(
        st.builds(Node, NAMES),
        lambda inner: st.builds(Node, NAMES, st.lists(inner, max_size=3).map(tuple)),
        max_leaves=5,
    ),
)
ANNOTATIONS = [
    None,
    bool,
    int,
    str,
    datetime,
    date,
    time,
    timedelta,
    Decimal,
    uuid.UUID,
    bytes,
    Color,
    Level,
    Word,
    Odd,
    UserId,
    Literal["a", 1, True, None, Color.RED],  # noqa: PYI061 - it may say so
    list[date],
    set[int],
    frozenset[date],
    tuple[int, date],
    tuple[date, ...],
    tuple[()],
    Sequence[int],
    dict[str, Decimal],
    dict[int, date],
    dict[bool, int],
    dict[date, int],
    dict[uuid.UUID, int],
    dict[Level, int],
    dict[Color, list[int]],
    dict[int | str, int],
    dict[tuple[int, int], str],
    Optional[date],  # noqa: UP045 - old code says so
    int | float | str | None,
    date | datetime | str,
    str | bytes | uuid.UUID | Decimal,
    list[int] | list[str] | list[date],
    Union[set[int], list[int], tuple[int, ...]],  # noqa: UP007 - likewise
    Cat | Dog | Puppy,
    list[Cat] | list[Dog],
    dict[str, int] | Cat,
    Annotated[int, "positive"] | None,
    Item,
    Node,
    Point,
    Movie,
    dict[str, list[Item | None]],
]


def there_and_back(value, annotation=Any):
    tree = codec.encode(value, annotation)
    text = codec.dumps(tree)
    assert text.isascii()
    by_row = codec.decode(codec.loads(text), annotation)
    by_message = codec.decode(kombu.loads(kombu.dumps(tree)), annotation)
    assert_same(by_row, by_message)
    return by_row


def assert_same(one, other):
    """Equal, and of equal types all the way down: 1 is not True, and no list a tuple."""
    assert type(one) is type(other)
    assert one == other
    if isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
@settings(PATIENT, max_examples=25)
@given(data=st.data())
def test_what_an_annotation_describes_comes_back_as_it_was(annotation, data):
    strategy = st.none() if annotation is None else st.from_type(annotation)
    value = data.draw(strategy)
    assume(not NO_JSON.search(repr(value)))
    assert_same(there_and_back(value, annotation), value)


@settings(PATIENT)
@given(PLAIN)
def test_what_no_annotation_describes_comes_back_as_it_was(value):
    assert_same(there_and_back(value), value)


@settings(PATIENT)
@given(PLAIN)
def test_a_dict_or_list_without_more_is_treated_alike(value):
    assert_same(there_and_back({"x": value}, dict), {"x": value})
    assert_same(there_and_back([value], list), [value])
    assert_same(there_and_back((value,), tuple), (value,))


@pytest.mark.parametrize("annotation", [int, str, date, list[int], dict[int, str], Color, Cat, Movie, int | str])
@settings(PATIENT, max_examples=40)
@given(value=PLAIN)
def test_a_value_that_does_not_fit_its_annotation_is_sent_as_it_is(annotation, value):
    assert_same(there_and_back(value, annotation), value)


# --- The trees


@pytest.mark.parametrize(
    ("value", "annotation", "tree"),
    [
        (date(2026, 10, 1), date, "2026-10-01"),
        (date(2026, 10, 1), date | None, "2026-10-01"),
        (datetime(2026, 10, 1, tzinfo=UTC), datetime, "2026-10-01T00:00:00+00:00"),
        (timedelta(minutes=1), timedelta, 60),
        (timedelta(milliseconds=1), timedelta, 0.001),
        (Decimal("1.50"), Decimal, "1.50"),
        (uuid.UUID(int=1), uuid.UUID, "00000000-0000-0000-0000-000000000001"),
        (b"\xff", bytes, "/w=="),
        (Color.RED, Color, "red"),
        (Odd.PAIR, Odd, "PAIR"),
        (Access.READ | Access.WRITE, Access, 3),
        ({7: date(2026, 10, 1)}, dict[int, date], {"7": "2026-10-01"}),
        ({(1, 2): 3}, dict[tuple[int, int], int], {"__entries__": [[[1, 2], 3]]}),
        (Point(1, date(2026, 10, 1)), Point, {"x": 1, "when": "2026-10-01"}),
        ((1, "a"), tuple[int, str], [1, "a"]),
        ((1, "a"), Any, [1, "a"]),
        (3, int | float, 3),
        (True, int | bool, True),
        ("2026-10-01", date | str, "2026-10-01"),
        (date(2026, 10, 1), date | str, {"__as__": ["datetime.date", "2026-10-01"]}),
        (date(2026, 10, 1), Any, {"__type__": "date", "__value__": "2026-10-01"}),
        (date(2026, 10, 1), str, {"__as__": ["*", {"__type__": "date", "__value__": "2026-10-01"}]}),
        ({"__as__": 1}, Any, {"__entries__": [["__as__", 1]]}),
        (Marked("a", 1), Marked, {"__entries__": [["__type__", "a"], ["__value__", 1]]}),
    ],
)
def test_trees_are_as_plain_as_can_be(value, annotation, tree):
    assert codec.encode(value, annotation) == tree
    assert_same(
        there_and_back(value, annotation), (list(value) if annotation is Any and type(value) is tuple else value)
    )


@pytest.mark.parametrize(
    "value",
    [datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), time(1), uuid.UUID(int=1), Decimal("1.0"), b"a", b"\xff"],
)
def test_without_an_annotation_marks_are_kombus_own(value):
    assert codec.encode(value) == json.loads(kombu.dumps(value))
    assert codec.decode(value) == codec.decode(value, type(value)) == value


def test_a_type_that_users_registered_with_kombu_needs_no_annotation(monkeypatch):
    monkeypatch.setattr(kombu, "_encoders", dict(kombu._encoders))
    monkeypatch.setattr(kombu, "_decoders", dict(kombu._decoders))
    kombu.register_type(Cat, "cat", lambda cat: cat.name, Cat)
    assert there_and_back([Cat("tom")]) == [Cat("tom")]


def test_a_value_that_brings_its_own_json_needs_no_annotation():
    class Money:
        def __json__(self):
            return {"cents": 5, "day": date(2026, 1, 1)}

    assert there_and_back(Money()) == {"cents": 5, "day": date(2026, 1, 1)}


def test_what_others_write_plainly_is_read():
    tree = {"name": "ink", "price": 9.99, "color": "blue", "tags": ["a"], "made": "2026-10-01"}
    assert codec.decode(tree, Item) == Item("ink", Decimal("9.99"), Color.BLUE, {"a"}, date(2026, 10, 1))
    assert codec.decode("2026-10-01T00:00:00Z", datetime) == datetime(2026, 10, 1, tzinfo=UTC)
    assert codec.decode(90, timedelta) == timedelta(seconds=90)
    assert codec.decode([1, "2026-10-01"], Point) == Point(1, date(2026, 10, 1))
    assert codec.decode(1, float) == 1


def test_defaults_stand_in_for_fields_that_others_leave_out():
    assert codec.decode({"name": "ink", "price": "1"}, Item) == Item("ink", Decimal(1))


def test_a_field_that_is_made_is_made_again():
    assert codec.encode(Made(2), Made) == {"given": 2}
    assert there_and_back(Made(2), Made).twice == 4


def test_annotations_that_say_nothing_are_plain():
    for annotation in (object, T, Cat | Any, "Cat", typing.Callable[[], int], complex):
        assert there_and_back({"day": date(2026, 1, 1)}, annotation) == {"day": date(2026, 1, 1)}
    assert there_and_back(Box(date(2026, 1, 1)), Box[date]) == Box(date(2026, 1, 1))


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ([1], Collection[int]),
        ([1], Iterable[int]),
        ({1}, AbstractSet[int]),
        ({1: 2}, Mapping[int, int]),
        ([date(2026, 1, 1)], typing.List[date]),  # noqa: UP006 - old code says so
        ((date(2026, 1, 1),), typing.Tuple[date]),  # noqa: UP006
        ((1, date(2026, 1, 1)), tuple[int, *tuple[date, ...]]),
        (BARE_TUPLE(1, date(2026, 1, 1)), BARE_TUPLE),
        ({"__type__": "x", "__value__": 1}, dict[str, Any] | Cat),
        (Cat("x"), Annotated[Cat, object()] | Annotated[Dog, object()]),
        (Dog("x"), Annotated[Cat, object()] | Annotated[Dog, object()]),
    ],
)
def test_old_and_odd_spellings(value, annotation):
    assert_same(there_and_back(value, annotation), value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is of 3.12")
def test_an_alias_may_speak_of_itself():
    space: dict[str, Any] = {"date": date}
    exec("type Tree = date | list[Tree]", space)
    assert there_and_back([date(2026, 1, 1), [date(2026, 1, 2)]], space["Tree"]) == [
        date(2026, 1, 1),
        [date(2026, 1, 2)],
    ]


def test_the_name_under_which_a_tree_knows_a_member_is_the_same_everywhere():
    assert codec.encode(Dog("x"), Annotated[Cat, object()] | Annotated[Dog, object()]) == {
        "__as__": [f"{__name__}.Dog", {"name": "x"}]
    }


def test_an_instant_keeps_its_offset():
    there = datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert there_and_back(there, datetime).utcoffset() == there.utcoffset()
    assert there_and_back(datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Paris"))).utcoffset() == timedelta(hours=2)


# --- What is refused

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        ([1, {"a": print}], Any, "value, item 1, field 'a': builtin_function_or_method has no JSON form"),
        ({1: 2}, Any, "a key of type int"),
        ({1: 2}, dict, "annotated, as dict[int, ...]"),
        (Cat("s3cret"), Any, "Cat has a JSON form only where it is annotated"),
        (Color.RED, Any, "Color has a JSON form only where it is annotated"),
        ([Item("s3cret", Decimal(1)), Cat("s3cret")], list[Item], "item 1: "),
        (
            Item("x", Decimal(1), tags=typing.cast("Any", {object})),
            Item,
            "field 'tags', item 0: type where str is expected",
        ),
        (Puppy("x"), Dog, "Puppy where "),
        (Unmakable(1, 2), Unmakable, "cannot be made from its fields"),
        (math.nan, float, "infinite or not a number"),
        ({"a": [math.inf]}, Any, "value, field 'a', item 0: a float that is infinite"),
        ([10**5000], list[int], "item 0: an int of so many digits"),
        ({"x": 10**5000}, Any, "field 'x': an int of so many digits"),
        (CYCLE, Any, "nested too deeply, or it holds itself"),
        (CYCLE, list[Any], "nested too deeply, or it holds itself"),
        (object(), int | str, "object where int | str is expected"),
        ({"x": object()}, dict[str, Any] | None, "field 'x': object has no JSON form"),
        (collections.UserDict(), Any, "UserDict has no JSON form"),
    ],
)
def test_what_has_no_json_form_is_refused_with_its_place(value, annotation, says):
    with pytest.raises(NotEncodable) as caught:
        codec.encode(value, annotation)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("tree", "annotation", "says"),
    [
        ("s3cret", date, "value: str is not one that datetime.date is written as"),
        ("s3cret", int, "str where int is expected"),
        (None, str, "NoneType where str is expected"),
        (True, Decimal, "bool where decimal.Decimal"),
        ("s3cret", Color, "that is no "),
        ("s3cret", Literal["a"], "none of the literals"),
        ([1, "s3cret"], list[int], "item 1: str where int"),
        ([1], tuple[int, int], "1 items where 2 are expected"),
        ([[]], set[list[int]], "cannot hold|holds what no set"),
        ({"name": "x"}, Item, "field 'price': is missing"),
        ({"name": "x", "nmae": 1}, Cat, "field 'nmae': is no field here"),
        ({"title": "x", "seen": "s3cret"}, Movie, "field 'seen': str is not one"),
        ({"x": 1}, dict[int, int], "a key is not what it is annotated"),
        ({"1": "s3cret"}, dict[int, int], "field '1': str where int"),
        ("s3cret", Cat, "str is no object"),
        ("1e999999999", timedelta, "is not one that"),
        ({"__type__": "datetime", "__value__": "s3cret"}, Any, "marked as a type that it is not"),
        ({"__type__": "s3cret", "__value__": 1}, int, "marked as a type that it is not"),
        ({"__as__": ["s3cret", 1]}, Any, "marked as something unknown"),
        ({"__as__": ["s3cret", 1]}, int | str, "marked as none of int | str"),
        ({"__as__": 1}, Any, "holds no name and value"),
        ({"__as__": 1}, int, "dict where int|holds no name"),
        ({"__as__": ["set", [[]]]}, Any, "holds what that cannot"),
        ({"__entries__": 1}, Any, "holds no pairs"),
        ({"__entries__": [[[], 1]]}, Any, "a key of type list"),
        ({"__entries__": [[[], 1]]}, dict[list[int], int], "cannot be the key"),
    ],
)
def test_a_tree_that_does_not_fit_is_refused_with_its_place(tree, annotation, says):
    with pytest.raises(NotDecodable) as caught:
        codec.decode(tree, annotation)
    assert any(choice in str(caught.value) for choice in says.split("|")) or says in str(caught.value)
    assert "s3cret" not in str(caught.value)


@settings(PATIENT, max_examples=40)
@given(tree=PLAIN | st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner) | st.lists(inner)))
@pytest.mark.parametrize("annotation", [Any, int | list[int] | dict[int, int], Item, Movie, Point, set[int], Color])
def test_whatever_comes_only_one_error_does(annotation, tree):
    try:
        codec.decode(tree, annotation)
    except NotDecodable as error:
        assert str(error).startswith("value")  # noqa: PT017 - it need not be raised


def test_where_it_is_begins_with_what_the_caller_says():
    with pytest.raises(NotEncodable, match=r"^argument 'rows', item 0: "):
        codec.encode([print], where="argument 'rows'")
    with pytest.raises(NotDecodable, match=r"^result, item 0: "):
        codec.decode(["x"], list[int], where="result")


def test_a_deep_tree_is_refused_and_not_a_crash():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotEncodable):
        codec.encode(deep)
    with pytest.raises(NotDecodable, match="nested too deeply"):
        codec.decode(deep)
    with pytest.raises(NotEncodable):
        codec.dumps(deep)
    with pytest.raises(NotDecodable):
        codec.loads("[" * 100_000)


# --- Texts


def test_texts_are_compact_ascii_and_keep_the_order_of_keys():
    assert codec.dumps({"b": 1, "a": ["é", "\x00", "\ud800"]}) == r'{"b":1,"a":["\u00e9","\u0000","\ud800"]}'
    assert codec.loads(codec.dumps({"b": 1, "a": "\ud800"})) == {"b": 1, "a": "\ud800"}


@pytest.mark.parametrize("tree", [math.nan, object(), {"a": {1}}, CYCLE])
def test_what_is_no_tree_has_no_text(tree):
    with pytest.raises(NotEncodable):
        codec.dumps(tree)


@pytest.mark.parametrize("text", ["", "{", "s3cret", b"\xff", None])
def test_what_is_no_json_has_no_tree(text):
    with pytest.raises(NotDecodable) as caught:
        codec.loads(text)
    assert "s3cret" not in str(caught.value)
