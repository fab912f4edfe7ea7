"""Reports as bytes: what is read is what was written, or seen not to be whole."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import Enqueued, NotRun, Outcome, Report, TerminalRecorded
from lrp_celery.tracking.spool import stamps, wire
from lrp_celery.tracking.spool.frames import Frame, Stop, framed, unframed
from lrp_celery.tracking.spool.stamps import Stamp
from lrp_celery.tracking.status import CallStatus, Reason
from tests.tracking.histories import FACTS, History, any_history

EVERY_REPORT = any_history()


def over_the_wire(report: Report) -> Report:
    return wire.decode(json.loads(wire.to_bytes(wire.encode(report))))


@given(history=EVERY_REPORT)
def test_every_report_is_read_as_it_was_written(history: History) -> None:
    assert [over_the_wire(report) for report in history.reports] == list(history.reports)


def test_there_is_no_report_that_cannot_be_written() -> None:
    assert set(wire._KINDS) == {kind.__name__ for kind in Report.__subclasses__()}


def test_a_report_whose_turn_nobody_knows_stays_one() -> None:
    outcome = Outcome(status=CallStatus.ABORTED, reason=Reason.REVOKED)
    for report in (
        TerminalRecorded(call_id="a", turn=None, outcome=outcome),
        NotRun(call_id="é\ud800", outcome=outcome),
    ):
        assert over_the_wire(report) == report


def test_what_a_later_version_says_besides_is_left_out() -> None:
    said: Any = json.loads(wire.to_bytes(wire.encode(Enqueued(call_id="a", turn=Turn(1, 2), facts=FACTS))))
    said[3]["mood"] = "good"
    said[3]["facts"]["colour"] = "blue"
    assert wire.decode(said) == Enqueued(call_id="a", turn=Turn(1, 2), facts=FACTS)


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        [],
        ["Started", "a", [0, 0]],
        ["Sung", "a", [0, 0], {}],
        ["Started", "a", [0, 0], {}],
        ["Ended", "a", [0, 0], {"run": None, "outcome": "vanished"}],
        ["Ended", "a", [0, 0], {"run": {"token": "t", "started_at": "noon"}, "outcome": "retried"}],
    ],
)
def test_what_is_no_report_is_refused_by_one_error(said: Any) -> None:
    with pytest.raises(ValueError, match="no report"):
        wire.decode(said)


@given(texts=st.lists(st.binary(max_size=200), max_size=6), data=st.data())
def test_a_file_that_is_cut_anywhere_gives_the_records_before_the_cut(texts: list[bytes], data: st.DataObject) -> None:
    records = [framed(text) for text in texts]
    whole = b"".join(records)
    cut = data.draw(st.integers(0, len(whole)))
    *frames, stop = unframed(whole[:cut])
    ends = [sum(map(len, records[: number + 1])) for number in range(len(records))]
    complete = [text for text, end in zip(texts, ends, strict=True) if end <= cut]
    assert [frame.said for frame in frames if isinstance(frame, Frame)] == complete
    assert stop is (Stop.END if cut in {0, *ends} else Stop.TORN)


@given(text=st.binary(min_size=1, max_size=200), data=st.data())
def test_a_damaged_record_is_never_read_as_another(text: bytes, data: st.DataObject) -> None:
    record = bytearray(framed(text))
    place, bit = data.draw(st.integers(1, len(record) - 1)), data.draw(st.integers(0, 7))
    record[place] ^= 1 << bit
    assert list(unframed(bytes(record))) == [Stop.TORN]


def test_a_record_of_another_version_is_known_for_one() -> None:
    record = bytearray(framed(b"hello"))
    record[0] = 99
    assert list(unframed(framed(b"first") + bytes(record)))[1:] == [Stop.UNKNOWN]


def test_zeros_that_a_disk_has_left_are_no_other_version() -> None:
    assert list(unframed(bytes(64))) == [Stop.TORN]


def test_within_a_boot_an_age_does_not_depend_on_the_wall_clock() -> None:
    said, later = Stamp(5_000_000_000, 0), Stamp(8_000_000_000, -(10**18))
    assert stamps.age(said, stamps.this_boot(), at=lambda: later) == timedelta(seconds=3)


def test_after_another_boot_the_wall_clock_counts_and_is_never_negative() -> None:
    said = Stamp(99_000_000_000, 1_000_000_000)
    assert stamps.age(said, "another boot", at=lambda: Stamp(1, 61_000_000_000)) == timedelta(minutes=1)
    assert stamps.age(said, "another boot", at=lambda: Stamp(1, 0)) == timedelta(0)
