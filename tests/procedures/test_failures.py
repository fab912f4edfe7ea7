"""How an exception is kept, and raised again."""

import json
import pickle
import traceback
from datetime import UTC, datetime

import pytest

from lrp_celery.core.errors import (
    CallAborted,
    CallDiscarded,
    CallFailed,
    CallTimedOut,
    InvalidStatus,
    NotDecodable,
)
from lrp_celery.core.redaction import REDACTED, Redactor
from lrp_celery.procedures.failures import StoredError, of_outcome, of_record, raise_again
from lrp_celery.tracking.outcomes import error_facts
from lrp_celery.tracking.record import CallRecord
from lrp_celery.tracking.reports import ErrorFacts
from lrp_celery.tracking.status import CallStatus, Reason

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

REDACTOR = Redactor()
SECRET = frozenset({"hunter22"})


class NoStock(Exception):
    """A user's own."""

    def __init__(self, sku, left=0):
        super().__init__(sku, left)
        self.sku = sku
        self.left = left


class Peculiar(Exception):
    """Cannot be made from its args."""

    def __init__(self, *, code):
        super().__init__(code)


class Hostile(Exception):
    """Whose methods are no help."""

    def __str__(self):
        raise RuntimeError("no")

    @property
    def args(self):
        raise RuntimeError("no")


class Fatal(BaseException):
    pass


def caught(make):
    try:
        raise make()
    except BaseException as error:
        return error


def kept(error, secrets=frozenset()):
    text = "".join(traceback.format_exception(error)) if not isinstance(error, Hostile) else "Traceback"
    stored = StoredError.of(error, error_facts(error, text, REDACTOR, secrets), REDACTOR, secrets)
    again = StoredError.from_json(stored.to_json())
    assert again == stored
    return again


def missing_file():
    try:
        open("/does/not/exist")  # noqa: PTH123, SIM115 - it cannot be opened
    except OSError as error:
        return error


# --- as itself


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad month"),
        ValueError(),
        ValueError("a", 1, 2.5, None, True),
        KeyError("month"),
        IndexError(3),
        missing_file(),
        PermissionError(13, "Permission denied", "a", None, "b"),
        OSError("plain"),
        TimeoutError("late"),
        ZeroDivisionError("division by zero"),
        UnicodeEncodeError("ascii", "é", 0, 1, "no"),
        ModuleNotFoundError("No module named 'x'"),
        RuntimeError("x" * 1999),
        Exception("plain"),
        UserWarning("careful"),
    ],
    ids=repr,
)
def test_a_builtin_is_raised_as_itself(error):
    again = raise_again(kept(error), (), "c1")
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert getattr(again, "filename", None) == getattr(error, "filename", None)


def test_its_cause_tells_of_the_call():
    again = raise_again(kept(caught(lambda: ValueError("bad month"))), (), "c1")
    cause = again.__cause__
    assert isinstance(cause, CallFailed)
    assert (cause.call_id, cause.type, cause.message) == ("c1", "ValueError", "bad month")
    assert "in caught" in (cause.traceback or "")


def test_what_the_caller_names_is_raised_as_itself():
    again = raise_again(kept(NoStock("ink", 3)), (KeyError, NoStock), "c1")
    assert type(again) is NoStock
    assert (again.sku, again.left) == ("ink", 3)


# --- as CallFailed


@pytest.mark.parametrize(
    ("error", "raises"),
    [
        (NoStock("ink", 3), ()),
        (NoStock("ink", 3), (Peculiar,)),
        (Peculiar(code=5), (Peculiar,)),
        (Hostile(), (Hostile,)),
        (Fatal("x"), (Fatal,)),
        (SystemExit(1), ()),
        (KeyboardInterrupt(), (KeyboardInterrupt,)),
        (StopIteration(1), (StopIteration,)),
        (StopAsyncIteration("x"), ()),
        (GeneratorExit(), ()),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"), ()),
        (ExceptionGroup("several", [ValueError(1)]), ()),
        (ValueError(object()), ()),
        (ValueError([1]), ()),
        (ValueError(float("nan"), 1), ()),
        (ValueError(*range(11)), ()),
        (json.JSONDecodeError("bad", "doc", 0), (json.JSONDecodeError,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_a_call_failed(error, raises):
    again = raise_again(kept(error), raises, "c1", reason=None)
    assert type(again) is CallFailed
    assert again.type is not None
    assert again.type.rpartition(".")[2] == type(error).__name__
    assert again.traceback is not None
    assert again.call_id == "c1"
    assert str(pickle.loads(pickle.dumps(again))) == str(again)


@pytest.mark.parametrize(
    "stored",
    [
        StoredError(type="print", args=("x",)),
        StoredError(type="object", args=()),
        StoredError(type="os.system", args=("x",)),
        StoredError(type="__import__", args=("os",)),
        StoredError(type="ValueError"),
        StoredError(type="UnicodeDecodeError", args=("x",)),
        StoredError(type="OSError.__init__", args=("x",)),
        StoredError(),
        None,
    ],
)
def test_no_name_leads_anywhere_else(stored):
    assert type(raise_again(stored, (), "c1")) is CallFailed


# --- what is secret


def test_a_lone_text_is_kept_without_what_is_secret():
    stored = kept(caught(lambda: ValueError("login hunter22 failed")), SECRET)
    again = raise_again(stored, (), "c1")
    assert type(again) is ValueError
    assert again.args == (f"login {REDACTED} failed",)
    assert "hunter22" not in stored.to_json()


@pytest.mark.parametrize(
    "args",
    [("hunter22", 1), (1, "login hunter22 failed"), ("password=hunter33", 1), ("x" * 3000, 1), (12345678, "pin")],
)
def test_of_several_arguments_none_is_kept_if_one_is_secret_or_too_long(args):
    stored = kept(ValueError(*args), SECRET | {"12345678"})
    assert stored.args is None
    assert not any(secret in stored.to_json() for secret in ("hunter22", "hunter33", "12345678"))


def test_the_name_of_a_file_is_an_argument_too():
    stored = kept(FileNotFoundError(2, "No such file", "/home/hunter22"), SECRET)
    assert stored.args is None
    assert "hunter22" not in stored.to_json()


def test_a_long_text_is_cut():
    again = raise_again(kept(ValueError("x" * 100_000)), (), "c1")
    assert type(again) is ValueError
    assert len(str(again)) == 2000


def test_without_a_redactor_no_argument_is_kept():
    facts = ErrorFacts(type="ValueError", message="bad")
    assert StoredError.of(ValueError("bad"), facts) == StoredError.of_facts(facts)
    assert StoredError.of_facts(facts).args is None


# --- as JSON


def test_what_a_later_version_adds_is_no_harm():
    assert StoredError.from_json('{"type":"ValueError","args":["x"],"new":1}') == StoredError(
        type="ValueError", args=("x",)
    )
    assert StoredError.from_json(None) is None


@pytest.mark.parametrize("text", ["", "[]", "5", "{", '{"args": 5}', '{"type": 5}'])
def test_what_is_no_stored_error_is_refused(text):
    with pytest.raises(NotDecodable):
        StoredError.from_json(text)


# --- by outcome


@pytest.mark.parametrize(
    ("status", "reason", "kind", "says"),
    [
        (CallStatus.FAILED, None, ValueError, "bad month"),
        (CallStatus.PARKED, Reason.MAX_RETRIES, ValueError, "bad month"),
        ("failed", "bad_result", ValueError, "bad month"),
        (CallStatus.ABORTED, Reason.ABORTED, CallAborted, "Call 'c1' was aborted: bad month"),
        (CallStatus.ABORTED, None, CallAborted, "Call 'c1' was aborted: bad month"),
        (CallStatus.ABORTED, Reason.TIMEOUT, CallTimedOut, "Call 'c1' was aborted, its timeout has passed: bad month"),
        ("aborted", "timeout", CallTimedOut, "Call 'c1' was aborted, its timeout has passed: bad month"),
        (CallStatus.DISCARDED, Reason.REVOKED, CallDiscarded, "Call 'c1' was discarded (revoked): bad month"),
    ],
)
def test_each_outcome_has_its_error(status, reason, kind, says):
    error = of_outcome(status, reason, call_id="c1", error=kept(ValueError("bad month")))
    assert type(error) is kind
    assert str(error) == says


def test_a_success_has_none():
    assert of_outcome(CallStatus.SUCCEEDED) is None


@pytest.mark.parametrize("status", [CallStatus.SUBMITTED, CallStatus.STARTED, CallStatus.RETRYING, "nonsense"])
def test_an_open_call_has_no_outcome(status):
    with pytest.raises(InvalidStatus):
        of_outcome(status)


def test_where_no_exception_is_known_the_reason_says_what_happened():
    error = of_outcome(CallStatus.FAILED, Reason.WORKER_LOST, call_id="c1")
    assert isinstance(error, CallFailed)
    assert error.reason == "worker_lost"
    assert str(error).startswith("Call 'c1' failed (worker_lost): the worker that ran it died")
    assert type(error.reason) is str
    assert "had not begun when it expired" in str(of_outcome(CallStatus.DISCARDED, Reason.EXPIRED, call_id="c1"))


# --- by row


def record(**known):
    return CallRecord(call_id="c1", task="t", enqueued_at=NOON, updated_at=NOON, **known)


def test_a_row_with_what_was_kept_raises_that():
    error = of_record(record(status=CallStatus.FAILED), kept(NoStock("ink", 3)).to_json(), (NoStock,))
    assert type(error) is NoStock
    assert of_record(record(status=CallStatus.SUCCEEDED), None) is None


@pytest.mark.parametrize("text", [None, "no json"])
def test_a_row_without_says_what_it_knows(text):
    error = of_record(record(status=CallStatus.FAILED, error_type="ValueError", last_error="bad"), text)
    assert type(error) is CallFailed
    assert (error.type, error.message, error.call_id) == ("ValueError", "bad", "c1")


def test_an_aborted_row_says_what_whoever_asked_said():
    error = of_record(
        record(status=CallStatus.ABORTED, reason=Reason.ABORTED, abort_reason="wrong month", last_error="x"), None
    )
    assert type(error) is CallAborted
    assert error.message == "wrong month"
