"""Ids that we make, and how they are known again."""

import time
import uuid

import pytest

from lrp_celery.core import ids


def test_later_ids_sort_after_earlier_ones(monkeypatch):
    made = []
    for second in range(1_790_000_000, 1_790_000_010):
        monkeypatch.setattr(time, "time_ns", lambda now=second: now * 10**9)
        made.append(ids.new_id())
    assert made == sorted(made)
    assert {uuid.UUID(each).version for each in made} == {7}


def test_an_id_is_fresh_for_a_minute(monkeypatch):
    now = time.time_ns()
    made = ids.new_id()
    for seconds, expected in ((0, True), (59, True), (-59, True), (61, False), (-61, False)):
        monkeypatch.setattr(time, "time_ns", lambda at=now + seconds * 10**9: at)
        assert ids.is_fresh(made) is expected, seconds


@pytest.mark.parametrize(
    "given", ["", "order-17", "6f1c0a52-7d0e-4a53-9d0b-3a1c5d7e9f10", "x" * 36, "zzzzzzzz-zzzz-7zzz-8zzz-zzzzzzzzzzzz"]
)
def test_what_others_name_a_call_is_never_fresh(given):
    assert not ids.is_fresh(given)
