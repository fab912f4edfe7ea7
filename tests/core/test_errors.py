import copy
import pickle

import pytest

import lrp_celery
from lrp_celery.core import errors
from lrp_celery.core.errors import (
    CallAborted,
    CallDiscarded,
    CalledInTask,
    CallFailed,
    CallNotFound,
    CallPending,
    CallRejected,
    CallTimedOut,
    ConfigurationError,
    InvalidStatus,
    LrpError,
    NotDecodable,
    NotEncodable,
    PublishFailed,
    ResultTimeout,
    StoreError,
)

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LrpError)]
REJECTED = [kind for kind in ALL if issubclass(kind, CallRejected)]
ABOUT_A_CALL = [kind for kind in ALL if issubclass(kind, errors._CallError)]
TWINS = [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_an_lrp_error_and_says_something_by_itself(kind: type[LrpError]) -> None:
    assert issubclass(kind, LrpError)
    assert str(kind()).endswith(".")
    assert "\n" not in str(kind())


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("kind", ALL)
def test_every_error_survives_pickling_and_copying(kind, twin) -> None:
    error = twin(kind("what happened"))
    assert type(error) is kind
    assert str(error) == "what happened"


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("kind", ABOUT_A_CALL)
def test_an_error_about_a_call_keeps_and_names_its_id(kind, twin) -> None:
    error = twin(kind(call_id="report-7"))
    assert error.call_id == "report-7"
    assert str(error).startswith("Call 'report-7'")
    assert str(error).endswith(".")
    assert kind("plain").call_id is None


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("kind", REJECTED)
def test_a_rejection_keeps_all_that_is_known(kind, twin) -> None:
    known = {"call_id": "c1", "reason": "worker_lost", "type": "shop.NoStock", "traceback": "Traceback ..."}
    error = twin(kind("3 left", **known))
    assert {name: getattr(error, name) for name in known} == known
    assert error.message == "3 left"
    assert str(error) == str(kind("3 left", **known))
    assert "worker_lost" in str(error)
    assert str(error).endswith(": shop.NoStock: 3 left")


def test_what_is_not_known_is_none() -> None:
    error = CallFailed()
    assert (error.call_id, error.reason, error.type, error.message, error.traceback) == (None,) * 5


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (CallFailed(call_id="c1"), "Call 'c1' failed."),
        (CallFailed("boom", type="ValueError"), "ValueError: boom"),
        (CallFailed("boom", type="ValueError", call_id="c1"), "Call 'c1' failed: ValueError: boom"),
        (CallFailed(reason="worker_lost", call_id="c1"), "Call 'c1' failed (worker_lost)."),
        (CallAborted("wrong month", reason="aborted", call_id="c1"), "Call 'c1' was aborted: wrong month"),
        (CallTimedOut(reason="timeout", call_id="c1"), "Call 'c1' was aborted, its timeout has passed."),
        (CallDiscarded(reason="expired", call_id="c1"), "Call 'c1' was discarded (expired)."),
    ],
)
def test_a_rejection_says_what_befell_the_call(error, says) -> None:
    assert str(error) == says


def test_a_giant_id_does_not_make_a_giant_message() -> None:
    assert len(str(CallNotFound(call_id="x" * 100_000))) < 500


def test_they_are_caught_as_the_builtins_they_resemble() -> None:
    assert issubclass(InvalidStatus, ValueError)
    assert issubclass(ConfigurationError, TypeError)
    assert issubclass(ResultTimeout, TimeoutError)
    assert issubclass(CalledInTask, RuntimeError)
    assert issubclass(NotEncodable, TypeError)
    assert issubclass(NotDecodable, ValueError)
    assert {ConfigurationError, InvalidStatus, StoreError} <= set(ALL)


def test_the_tree_of_rejections() -> None:
    assert set(REJECTED) == {CallRejected, CallFailed, CallAborted, CallTimedOut, CallDiscarded}
    assert issubclass(CallTimedOut, CallAborted)
    assert not issubclass(CallPending, CallRejected)
    assert not issubclass(PublishFailed, CallRejected)


def test_every_error_that_a_user_may_meet_is_at_the_door() -> None:
    public = {kind.__name__ for kind in ALL if not kind.__name__.startswith("_")} - {"StoreUnavailable"}
    assert public <= set(lrp_celery.__all__)
    assert all(getattr(lrp_celery, name) is getattr(errors, name) for name in public)
