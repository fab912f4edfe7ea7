from dataclasses import dataclass

import pytest

from lrp_celery.core.values import replace


@dataclass(frozen=True)
class Open:
    first: int
    second: str = "b"


@dataclass(frozen=True, slots=True)
class Slotted:
    first: int
    second: str = "b"


@pytest.mark.parametrize("kind", [Open, Slotted])
def test_a_copy_has_the_changes_and_the_original_does_not(kind):
    known = kind(1)
    changed = replace(known, second="c")
    assert (changed, known) == (kind(1, "c"), kind(1))
    assert type(changed) is kind
    assert hash(changed) == hash(kind(1, "c"))


@pytest.mark.parametrize("kind", [Open, Slotted])
def test_a_field_that_there_is_not_is_refused(kind):
    with pytest.raises(TypeError, match="third"):
        replace(kind(1), third=3)
