"""What every `Store` of seed 000 promises: the rows LRP-30 to LRP-33 of docs/conformance.md.

A store joins by a class that inherits `ItemStoreConformance`, says its `store_name`, and has
a fixture `store`: a store under test, whose database others may share.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import pytest

from lrp_celery.core.errors import (
    CallAborted,
    CallDiscarded,
    CallFailed,
    CallTimedOut,
    ConfigurationError,
    NotEncodable,
)
from lrp_celery.procedures.failures import StoredError
from lrp_celery.procedures.stores import Pending, Rejected, Resolved, Store

SHORT = 0.05
VALUES: tuple[Any, ...] = (
    None,
    0,
    "",
    False,
    [],
    {},
    "any\x00text \ud800 \U0001f40d",
    2**70,
    1.5,
    {"b": 1, "a": [1, {"c": None}]},
    date(2026, 10, 1),
    datetime(2026, 10, 1, 12, tzinfo=UTC),
    uuid.UUID(int=7),
    timedelta(seconds=90),
)
TAKEN = Rejected.of(KeyError("month"))


def fresh_id() -> str:
    return f"item-{uuid.uuid4().hex}"


def until(is_so: Callable[[], bool], within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def until_expired(store: Store) -> None:
    """Return once every item has expired that was set with `SHORT` before."""
    probe = fresh_id()
    store.set(probe, Pending(), SHORT)
    until(lambda: store.get(probe) is None)


class ItemStoreConformance:
    store_name: ClassVar[str]

    # --- LRP-30: set, get and delete of tagged items

    def test_lrp_30_it_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store)

    def test_lrp_30_a_pending_item_is_got_as_it_was_set(self, store: Store) -> None:
        call_id = fresh_id()
        store.set(call_id, Pending())
        assert store.get(call_id) == Pending()

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    @pytest.mark.parametrize("after_pending", [True, False])
    def test_lrp_30_a_resolved_item_carries_its_value(self, store: Store, value: object, after_pending: bool) -> None:
        call_id = fresh_id()
        if after_pending:
            store.set(call_id, Pending())
        store.set(call_id, Resolved(value))
        assert store.get(call_id) == Resolved(value)

    def test_lrp_30_values_are_copies_as_json_makes_them(self, store: Store) -> None:
        call_id = fresh_id()
        value: dict[str, Any] = {"rows": [1], "pair": (1, 2)}
        store.set(call_id, Resolved(value))
        value["rows"] = "changed"
        first = store.get(call_id)
        assert first == Resolved({"rows": [1], "pair": [1, 2]})
        assert isinstance(first, Resolved)
        first.value["rows"].append(2)
        assert store.get(call_id) == Resolved({"rows": [1], "pair": [1, 2]})

    def test_lrp_30_a_value_without_a_json_form_is_refused_and_changes_nothing(self, store: Store) -> None:
        call_id = fresh_id()
        store.set(call_id, Pending())
        with pytest.raises(NotEncodable):
            store.set(call_id, Resolved(threading.Lock()))
        assert store.get(call_id) == Pending()

    @pytest.mark.parametrize(
        "error",
        [
            StoredError(type="shop.errors.NoStock", message="none left", traceback="Traceback …"),
            StoredError(type="KeyError", message="'x'", args=("x",)),
            StoredError(),
        ],
    )
    def test_lrp_30_a_rejected_item_carries_its_error(self, store: Store, error: StoredError) -> None:
        call_id = fresh_id()
        store.set(call_id, Pending())
        store.set(call_id, Rejected(error))
        assert store.get(call_id) == Rejected(error)

    @pytest.mark.parametrize(
        ("raised", "expected", "reason"),
        [
            (KeyError("month"), KeyError, None),
            (CallAborted("wrong month"), CallAborted, "aborted"),
            (CallTimedOut("too long"), CallTimedOut, "timeout"),
            (CallDiscarded("not needed"), CallDiscarded, None),
            (ZeroDivisionError("by zero"), ZeroDivisionError, None),
            (type("Strange", (Exception,), {})("odd"), CallFailed, None),
        ],
        ids=lambda case: repr(case)[:40],
    )
    def test_lrp_30_the_error_that_was_set_can_be_raised_again(
        self, store: Store, raised: Exception, expected: type[Exception], reason: str | None
    ) -> None:
        call_id = fresh_id()
        store.set(call_id, Pending())
        store.set(call_id, Rejected.of(raised))
        for _ in range(2):
            item = store.get(call_id)
            assert isinstance(item, Rejected)
            error = item.exception(call_id=call_id)
            assert type(error) is expected
            assert getattr(error, "reason", None) == reason
            if raised.args and expected is not KeyError:
                assert str(raised) in str(error)

    @pytest.mark.parametrize("bad", ["", "x" * 201, "a\x00b", 7])
    def test_lrp_30_what_cannot_be_an_id_is_refused(self, store: Store, bad: Any) -> None:
        for use in (store.get, store.delete, lambda call_id: store.set(call_id, Pending())):
            with pytest.raises(ConfigurationError):
                use(bad)

    # --- LRP-31: replacing, deleting, missing

    @pytest.mark.parametrize("first", [Pending(), Resolved(1), TAKEN])
    @pytest.mark.parametrize("second", [Pending(), Resolved([2]), Rejected(StoredError(type="ValueError"))])
    def test_lrp_31_set_replaces_what_was_there(self, store: Store, first: Any, second: Any) -> None:
        call_id = fresh_id()
        for item in (first, second, first):
            store.set(call_id, item)
            assert store.get(call_id) == item

    @pytest.mark.parametrize("item", [Pending(), Resolved(None), TAKEN])
    def test_lrp_31_a_deleted_item_is_gone_and_its_id_is_free(self, store: Store, item: Any) -> None:
        call_id = fresh_id()
        store.set(call_id, item)
        store.delete(call_id)
        assert store.get(call_id) is None
        store.delete(call_id)
        store.set(call_id, Resolved("again"))
        assert store.get(call_id) == Resolved("again")

    def test_lrp_31_a_missing_item_is_none_and_deleting_it_does_nothing(self, store: Store) -> None:
        call_id = fresh_id()
        assert store.get(call_id) is None
        store.delete(call_id)
        assert store.get(call_id) is None

    def test_lrp_31_items_are_independent(self, store: Store) -> None:
        one, other = fresh_id(), fresh_id()
        store.set(one, Resolved(1))
        store.set(other, Pending())
        store.delete(one)
        assert (store.get(one), store.get(other)) == (None, Pending())
        assert store.get(other.upper()) is None

    # --- LRP-32: each set replaces the expiry, too

    def test_lrp_32_settling_without_a_time_to_live_lifts_the_one_before(self, store: Store) -> None:
        call_id = fresh_id()
        store.set(call_id, Pending(), SHORT)
        store.set(call_id, Resolved(1))
        until_expired(store)
        assert store.get(call_id) == Resolved(1)

    def test_lrp_32_the_later_time_to_live_counts(self, store: Store) -> None:
        longer, shorter = fresh_id(), fresh_id()
        store.set(longer, Resolved(1), SHORT)
        store.set(longer, Resolved(2), 60)
        store.set(shorter, Pending(), 60)
        store.set(shorter, Pending(), SHORT)
        until(lambda: store.get(shorter) is None)
        assert store.get(longer) == Resolved(2)

    # --- LRP-33: what has expired reads as absent

    @pytest.mark.parametrize("item", [Pending(), Resolved(1), TAKEN])
    @pytest.mark.parametrize("ttl", [SHORT, timedelta(seconds=SHORT)])
    def test_lrp_33_an_expired_item_reads_as_absent(self, store: Store, item: Any, ttl: timedelta | float) -> None:
        call_id = fresh_id()
        store.set(call_id, item, 60)
        assert store.get(call_id) == item
        store.set(call_id, item, ttl)
        until(lambda: store.get(call_id) is None)
        store.set(call_id, Resolved("again"))
        assert store.get(call_id) == Resolved("again")

    @pytest.mark.parametrize("ttl", [0, -1, timedelta(0), timedelta(seconds=-1), float("nan"), True, "1"])
    def test_lrp_28_a_time_to_live_is_above_zero(self, store: Store, ttl: Any) -> None:
        call_id = fresh_id()
        with pytest.raises(ConfigurationError):
            store.set(call_id, Pending(), ttl)
        assert store.get(call_id) is None
