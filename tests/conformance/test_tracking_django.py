"""The tracking conformance suite on Django's databases."""

from __future__ import annotations

import time

import pytest
from django.db import transaction

from django_app.models import Call
from django_app.stores import DjangoTrackingStore
from django_app.stores.sessions import OwnSession
from lrp_celery.tracking.reports import Told
from tests.conformance.on_django import OnDjangosDatabase
from tests.conformance.tracking_store import TrackingStoreConformance, fresh_id, seen


class OnDjango(OnDjangosDatabase, TrackingStoreConformance):
    """The suite, on one of them."""


class OnServers(OnDjango):
    """A server has rows that others lock."""

    def test_rows_that_others_hold_are_left_for_later_and_keep_nobody_waiting(
        self, store: DjangoTrackingStore, alias: str
    ) -> None:
        told = [Told(report) for number in range(6) for report in self.a_life(fresh_id(), number)]
        ids = [each.report.call_id for each in told[::2]]
        for call_id in ids[:5]:
            store.record_enqueue(call_id, "t")
        ours = DjangoTrackingStore(session=OwnSession(alias))
        with transaction.atomic(using=alias):
            held = Call.objects.using(alias).select_for_update().filter(pk=ids[2])
            assert len(held) == 1
            began = time.monotonic()
            left = ours.report_many(told)
            assert time.monotonic() - began < OwnSession.LOCK_TIMEOUT * 2
        assert {each.report.call_id for each in left} == {ids[2]}
        assert [seen(ours, call_id).is_terminal for call_id in ids] == [True, True, False, True, True, True]
        assert list(ours.report_many(left)) == []
        assert seen(ours, ids[2]).is_terminal


class TestSQLite(OnDjango):
    store_name = "sqlite"


@pytest.mark.services
class TestPostgreSQL(OnServers):
    store_name = "postgres"


@pytest.mark.services
class TestMariaDB(OnServers):
    store_name = "mysql"
