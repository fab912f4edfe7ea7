"""What a display shows of a call's arguments, and what it never shows."""

import json
import time
from collections import OrderedDict, defaultdict
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_celery.core.redaction import REDACTED, Redactor


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.fixture
def redactor():
    return Redactor()


def test_arguments_are_shown_as_python_would_write_them(redactor):
    assert redactor.arguments((1, "a"), {"flag": True}) == "1, 'a', flag=True"


def test_a_keyword_is_hidden_by_its_name_whatever_the_case(redactor):
    assert redactor.arguments((), {"API_KEY": "abc", "Password": "x", "name": "ada"}) == (
        f"API_KEY={REDACTED}, Password={REDACTED}, name='ada'"
    )


def test_a_positional_argument_is_hidden_by_the_name_of_its_parameter(redactor):
    assert redactor.arguments(("ada", "s3cret"), {}, ("user", "password")) == f"'ada', {REDACTED}"


def test_a_nested_key_is_hidden_at_any_depth_that_is_shown(redactor):
    shown = redactor.arguments(([{"user": {"token": "t0k3n", "id": 1}}],), {})
    assert shown == f"[{{'user': {{'token': {REDACTED}, 'id': 1}}}}]"


def test_a_header_is_hidden_however_it_is_hyphenated(redactor):
    assert "abc" not in redactor.arguments((), {"headers": {"X-Api-Key": "abc", "Set-Cookie": "abc"}})


def test_a_value_whose_repr_raises_is_named_and_does_no_harm(redactor):
    assert "Unshowable" in redactor.arguments((Unshowable(),), {"x": [Unshowable()]})


def test_a_long_display_is_cut_and_says_so(redactor):
    shown = redactor.arguments(("x" * 10_000,) * 20, {}, limit=100)
    assert len(shown) == 100
    assert shown.endswith("…")


def test_arguments_that_are_no_sequence_and_no_mapping_show_nothing(redactor):
    assert redactor.arguments(None, "no mapping") == ""


def test_a_hidden_value_is_blotted_out_of_errors_wherever_it_occurs(redactor):
    secrets = redactor.secrets(("hunter22",), {"nested": {"token": ["tok-1", {"deep": "tok-2"}]}}, ("password",))
    text = redactor.text("login hunter22 failed with tok-1 and tok-2", secrets)
    assert text == f"login {REDACTED} failed with {REDACTED} and {REDACTED}"


def test_a_short_secret_does_not_blot_out_half_of_the_text(redactor):
    assert redactor.text("1 of 11", redactor.secrets((1,), {}, ("pin",))) == "1 of 11"


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter22 is wrong",
        "{'password': 'hunter22', 'user': 'ada'}",
        '{"db_password": "hunter22"}',
        "Authorization: Bearer hunter22",
        "api-key: hunter22",
        "API_KEY: hunter22",
        # Regardless of case these letters are s, k and i.
        "pa\u017fsword=hunter22",
        "to\u212aen=hunter22",
        "\u0130ban=hunter22",
    ],
)
def test_a_text_loses_what_follows_a_hidden_key(redactor, text):
    assert "hunter22" not in redactor.text(text)
    assert REDACTED in redactor.text(text)


@pytest.mark.parametrize("text", ["author: Ada", "pinned: True", "spinning = 1"])
def test_a_text_keeps_what_follows_a_key_that_only_resembles_a_hidden_one(redactor, text):
    assert redactor.text(text) == text


_PIECES = ["pass", "word", "WD", "to", "k", "en", "api", "key", "pin", "\u017f", "\u212a", "é", *"=:_-'\"{}, x1"]


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_no_key_is_overlooked_by_looking_for_its_letters_first(text):
    searched, looked_at = Redactor(), Redactor()
    searched._words = None
    assert looked_at.text(text) == searched.text(text)


def test_a_traceback_keeps_its_end(redactor):
    assert redactor.tail("a" * 100 + "ValueError: x", limit=20).endswith("ValueError: x")


def test_own_patterns_replace_the_defaults():
    assert Redactor(["badge"]).arguments((), {"badge": 1, "token": 2}) == f"badge={REDACTED}, token=2"


def test_no_patterns_hide_nothing():
    assert Redactor([]).arguments((), {"password": "x"}) == "password='x'"
    assert Redactor([]).text("password=x") == "password=x"


@pytest.mark.parametrize("piece", ["a", "a-", "password", "password ", "token=", "token\n", "Bearer ", '"'])
def test_a_giant_text_costs_no_more_than_a_big_one(redactor, piece):
    began = time.perf_counter()
    redactor.text(piece * 1_000_000, limit=2000)
    redactor.tail(piece * 1_000_000, limit=20_000)
    assert time.perf_counter() - began < 2


def test_a_secret_cut_in_two_does_not_come_into_view(redactor):
    secret = "s3cret-" * 20
    text = redactor.text("x" * 90 + secret * 50, frozenset([secret]), limit=120)
    assert "s3cret" not in text
    assert "s3cret" not in redactor.tail(secret * 50 + "x" * 90, frozenset([secret]), limit=120)


class Login(NamedTuple):
    user: str
    password: str


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(password="hunter22"),
        defaultdict(str, password="hunter22"),
        MappingProxyType({"password": "hunter22"}),
        Login("ada", "hunter22"),
        {b"password": "hunter22"},
        {"privateKey": "hunter22"},
        '{"password": "hunter22"}',
        "https://example.org/?token=hunter22&x=1",
    ],
)
def test_a_key_is_found_in_every_kind_of_value(redactor, value):
    assert "hunter22" not in redactor.arguments((value,), {})


def test_a_pattern_may_be_spelled_with_dashes():
    assert "abc" not in Redactor(["x-api-key"]).arguments((), {"headers": {"X-Api-Key": "abc"}, "x_api_key": "abc"})


@pytest.mark.parametrize(
    "secret", ["two\nlines", 'it\'s "quoted"', "back\\slash", "grüße", UUID(int=7), b"\xffbytes", 12345.5]
)
def test_a_hidden_value_is_found_in_every_spelling(redactor, secret):
    secrets = redactor.secrets((), {"token": secret})
    for text in (f"bad {secret}", f"bad {secret!r}", str(KeyError(secret)), json.dumps({"x": str(secret)})):
        for form in (str(secret), repr(secret), json.dumps(str(secret))[1:-1]):
            assert form not in redactor.text(text, secrets)


def test_a_flag_under_a_hidden_key_blots_nothing_out(redactor):
    assert redactor.text("it is True", redactor.secrets((), {"send_token": True})) == "it is True"


@pytest.mark.parametrize(
    "text",
    [
        "password=b'hunter22'",
        "Authorization: Token hunter22",
        "'credentials': {'user': 'u', 'pass': 'hunter22'}",
        '"tokens": ["a", "hunter22"]',
        r"password='it\'s hunter22'",
        '{"private_key": "' + "hunter22" * 1000 + '"}',
    ],
)
def test_a_text_loses_the_whole_value(redactor, text):
    assert "hunter22" not in redactor.text(text)


def test_a_tree_loses_what_stands_under_hidden_keys_and_nothing_else():
    tree = {"user": {"password": {"a": 1}, "name": "ada"}, "rows": [{"api-token": "x"}, 2, None, "token"]}
    hidden = {"user": {"password": REDACTED, "name": "ada"}, "rows": [{"api-token": REDACTED}, 2, None, "token"]}
    assert Redactor().tree(tree) == hidden


def test_positional_arguments_are_hidden_by_their_parameters_and_all_of_them_where_these_are_unknown():
    redactor = Redactor()
    shown = redactor.tree_of_arguments(["ada", "x", {"pin": 1}], {"otp": 5, "n": 2}, ("user", "password"))
    assert shown == {"args": ["ada", REDACTED, {"pin": REDACTED}], "kwargs": {"otp": REDACTED, "n": 2}}
    assert redactor.tree_of_arguments(["ada"], {}, None) == {"args": [REDACTED], "kwargs": {}}
