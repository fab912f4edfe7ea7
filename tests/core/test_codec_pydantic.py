"""What pydantic has a say in is validated, written and read by pydantic."""

import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic
import pytest

from lrp_celery.core import codec
from lrp_celery.core.errors import NotDecodable, NotEncodable
from tests.core.test_codec import there_and_back


class Line(pydantic.BaseModel):
    sku: str
    price: Decimal
    day: date | None = None


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64")
    day: date
    data: bytes


class Aliased(pydantic.BaseModel):
    unit_price: int = pydantic.Field(alias="unitPrice")


class HalfAliased(pydantic.BaseModel):
    price: int = pydantic.Field(serialization_alias="shownPrice")


class Computed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator] # mypy knows no decorated properties
    @property
    def area(self) -> int:
        return self.side**2


class Circle(pydantic.BaseModel):
    kind: Literal["circle"] = "circle"
    r: int


class Square(pydantic.BaseModel):
    kind: Literal["square"] = "square"
    a: int


class Discounted(Line):
    percent: int = 5


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


class Free(pydantic.BaseModel):
    anything: Any


@dataclass
class Order:
    lines: list[Line]


LINE = Line(sku="a", price=Decimal("1.50"), day=date(2026, 10, 1))
Shape = Annotated[Circle | Square, pydantic.Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (LINE, Line),
        (None, Line | None),
        ([LINE], list[Line]),
        ({"x": (LINE, 1)}, dict[str, tuple[Line, int]]),
        (Order([LINE]), Order),
        (Strict(day=date(2026, 10, 1), data=b"\xff"), Strict),
        (Aliased(unitPrice=3), Aliased),
        (HalfAliased(price=3), HalfAliased),
        (Computed(side=3), Computed),
        (Circle(r=1), Shape),
        (Square(a=1), Shape),
        (5, Annotated[int, pydantic.Field(gt=0)]),
        (Free(anything={"__type__": "x", "__value__": 1}), Free),
        (pydantic.HttpUrl("https://example.org/"), pydantic.HttpUrl),
    ],
    ids=str,
)
def test_it_comes_back_as_it_was(value, annotation):
    again = there_and_back(value, annotation)
    assert again == value
    assert type(again) is type(value)


def test_the_tree_is_what_pydantic_writes():
    assert codec.encode(LINE, Line) == {"sku": "a", "price": "1.50", "day": "2026-10-01"}


def test_a_dict_becomes_the_model_that_is_annotated():
    assert there_and_back({"sku": "a", "price": 2}, Line) == Line(sku="a", price=Decimal(2))


def test_what_kombu_has_restored_is_read_too():
    assert codec.decode({"sku": "a", "price": Decimal(1), "day": date(2026, 1, 1)}, Line).day == date(2026, 1, 1)


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        ({"sku": "s3cret"}, Line, "argument 'x', field 'price': pydantic refuses it (missing)"),
        ([LINE, {"sku": ["s3cret"], "price": 1}], list[Line], "argument 'x', item 1, field 'sku': pydantic refuses"),
        (Discounted(sku="s3cret", price=Decimal(1)), Line, "Discounted where "),
        (Login(password=pydantic.SecretStr("s3cret")), Login, "a secret of pydantic has no JSON form"),
        (Free(anything=print), Free, "pydantic cannot write it as JSON"),
        (Free(anything={1, 2}), list[Free] | set[Line], "pydantic refuses"),
    ],
    ids=str,
)
def test_what_pydantic_refuses_is_refused_and_not_shown(value, annotation, says):
    with pytest.raises(NotEncodable) as caught:
        codec.encode(value, annotation, where="argument 'x'")
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_reading_is_as_strict():
    with pytest.raises(NotDecodable, match=r"field 'price': pydantic refuses it \(decimal_parsing\)"):
        codec.decode({"sku": "a", "price": "s3cret"}, Line)


def test_an_annotation_that_pydantic_does_not_know_is_refused_in_words():
    class Foreign:
        pass

    with pytest.raises(NotEncodable, match="pydantic cannot describe its annotation"):
        codec.encode([LINE], list[Line | Foreign])


def test_a_model_without_an_annotation_says_what_to_do():
    with pytest.raises(NotEncodable, match="Line has a JSON form only where it is annotated"):
        codec.encode(LINE)


def test_pydantic_is_not_imported_for_those_who_do_not_use_it():
    source = """
import sys
from datetime import date
from lrp_celery.core import codec
assert codec.decode(codec.encode(date(2026, 1, 1), date), date) == date(2026, 1, 1)
print("pydantic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
