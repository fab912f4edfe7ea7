import pickle
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime

import pytest

from lrp_celery.tracking.encoding import decode_call, encode
from lrp_celery.tracking.record import AttemptOutcome, CallRecord
from lrp_celery.tracking.snapshot import CallSnapshot, Progress
from lrp_celery.tracking.status import CallStatus, Reason

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
RECORD = CallRecord(
    call_id="x",
    task="t",
    status=CallStatus.FAILED,
    reason=Reason.WORKER_LOST,
    progress=Progress(done=1.5, total=3, text="half “way”"),
    enqueued_at=NOW,
    updated_at=NOW,
    terminal_at=NOW,
    run_outcome=AttemptOutcome.FAILED,
    run="1",
    version=7,
)


def test_a_snapshot_is_frozen_and_survives_pickling() -> None:
    snapshot = RECORD.snapshot()
    with pytest.raises(FrozenInstanceError):
        snapshot.task = "other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_a_snapshot_shows_what_the_record_holds_and_nothing_of_its_mechanics() -> None:
    snapshot = RECORD.snapshot()
    names = {field.name for field in fields(CallSnapshot)}
    assert all(getattr(snapshot, name) == getattr(RECORD, name) for name in names)
    assert names.isdisjoint({"version", "run", "runs", "nesting", "stop_reason"})
    assert snapshot.is_terminal


def test_progress_is_kept_as_text() -> None:
    assert RECORD.progress is not None
    assert Progress.from_json(RECORD.progress.to_json()) == RECORD.progress
    assert Progress.from_json(None) is Progress.from_json("") is None


def test_a_record_becomes_ascii_text_and_back_without_loss() -> None:
    text = encode(RECORD)
    assert text.isascii()
    assert decode_call(text) == RECORD


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{", "{}", '{"done": "x"}', '{"done": true}', '{"done": 1, "total": NaN}', '{"done": Infinity}'),
        *("[" * 9999, '{"done": 1, "text": 5}', '{"done": 1' + "0" * 400 + "}"),
    ],
)
def test_what_is_no_progress_is_none(text):
    assert Progress.from_json(text) is None
