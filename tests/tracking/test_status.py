import pytest

from lrp_celery.core.errors import InvalidStatus
from lrp_celery.tracking.status import OPEN, TERMINAL, CallStatus, require_open, require_terminal


def test_every_status_is_either_open_or_terminal() -> None:
    assert {"submitted", "started", "retrying"} == OPEN
    assert {"succeeded", "failed", "parked", "aborted", "discarded"} == TERMINAL
    for status in CallStatus:
        assert status.is_open != status.is_terminal
        assert status.is_open == (status in OPEN)


def test_ranks_go_from_submitted_over_under_way_to_ended() -> None:
    assert CallStatus.SUBMITTED.rank < CallStatus.STARTED.rank == CallStatus.RETRYING.rank
    assert {CallStatus.STARTED.rank + 1} == {status.rank for status in TERMINAL}


def test_a_status_is_its_own_text() -> None:
    assert CallStatus("failed") is CallStatus.FAILED
    assert f"{CallStatus.FAILED}" == "failed"


@pytest.mark.parametrize("status", sorted(CallStatus))
def test_each_operation_takes_its_own_kind_of_status(status: CallStatus) -> None:
    takes, refuses = (require_open, require_terminal) if status in OPEN else (require_terminal, require_open)
    assert takes(status) is takes(status.value) is status
    with pytest.raises(InvalidStatus, match=status):
        refuses(status)


@pytest.mark.parametrize("status", ["Failed", "done", "", None])
def test_an_unknown_status_is_refused_with_those_there_are(status: str) -> None:
    with pytest.raises(InvalidStatus, match="started"):
        require_open(status)
    with pytest.raises(ValueError, match="succeeded"):
        require_terminal(status)
