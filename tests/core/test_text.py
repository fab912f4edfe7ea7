import pytest

from lrp_celery.core.text import clean, clean_tail


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("a\x00b", "ab"), ("a\ud800b\udfff", "ab"), ("\U0001f40d é ß", "\U0001f40d é ß"), ("", "")],
)
def test_clean_drops_only_what_databases_refuse(text: str, expected: str) -> None:
    assert clean(text) == expected
    assert clean_tail(text, 100) == expected


@pytest.mark.parametrize("length", [9, 10])
def test_a_text_that_fits_stays_whole(length: int) -> None:
    assert clean("x" * length, 10) == clean_tail("x" * length, 10) == "x" * length


def test_a_longer_text_is_cut_and_says_so_within_the_limit() -> None:
    assert clean("0123456789a", 10) == "012345678…"
    assert clean_tail("0123456789a", 10) == "…23456789a"


def test_what_is_dropped_does_not_count() -> None:
    assert clean("\x00" * 50 + "0123456789", 10) == "0123456789"
