"""The suite of owned calls on Django's databases, and what only these promise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_app.models import Attempt, Call, Payload
from django_app.stores import DjangoTrackingStore, rows
from lrp_celery.tracking.callstore import OwningStore
from lrp_celery.tracking.record import AttemptRecord, CallRecord
from tests.conformance.call_store import CallStoreConformance, ended, fresh_id, held, new, order_of, removed, row
from tests.conformance.on_django import OnDjangosDatabase


class OnDjango(OnDjangosDatabase, CallStoreConformance):
    """`alias` names a migrated database of Django's."""

    @pytest.fixture
    def leave(self, alias: str) -> Callable[[], None]:
        def close() -> None:
            connections[alias].close()

        return close

    def lay_down(
        self,
        store: OwningStore,
        records: Sequence[CallRecord],
        attempts: tuple[AttemptRecord, ...],
        payload: dict[str, str | None],
    ) -> None:
        assert isinstance(store, DjangoTrackingStore)
        alias = store._session.alias
        Call.objects.using(alias).bulk_create([Call(**rows.call_values(record)) for record in records])
        Attempt.objects.using(alias).bulk_create(
            [Attempt(call_id=each.call_id, **rows.attempt_values(one)) for each in records for one in attempts]
        )
        if payload:
            Payload.objects.using(alias).bulk_create([Payload(call_id=record.call_id, **payload) for record in records])

    # --- what a database promises besides ----------------------------------------------

    def test_insert_belongs_to_the_callers_transaction(self, store: DjangoTrackingStore, alias: str) -> None:
        call_id, gone = fresh_id(), removed(store)
        with transaction.atomic(using=alias):
            for each in (call_id, gone):
                assert store.insert(order_of(each)) is not None
                assert store.look(each) is not None
            transaction.set_rollback(True, using=alias)
        assert (store.look(call_id), store.payload(call_id)) == (None, None)
        assert (store.look(gone), store.payload(gone), row(store, gone).generation) == (None, None, 0)

    def test_insert_of_an_id_that_exists_does_not_poison_the_callers_transaction(
        self, store: DjangoTrackingStore, alias: str
    ) -> None:
        call_id, fresh = new(store), fresh_id()
        with transaction.atomic(using=alias):
            assert store.insert(order_of(call_id)) is None
            assert store.insert(order_of(fresh)) is not None
        assert store.look(fresh) is not None

    def test_the_database_itself_refuses_an_end_without_a_time(self, store: DjangoTrackingStore, alias: str) -> None:
        call_id = held(store)
        with pytest.raises(IntegrityError):
            Call.objects.using(alias).filter(pk=call_id).update(status="failed")

    def test_a_tombstone_costs_no_row_beside(self, store: DjangoTrackingStore, alias: str) -> None:
        call_id = removed(store)
        assert not Payload.objects.using(alias).filter(pk=call_id).exists()

    def test_what_a_call_costs(self, store: DjangoTrackingStore, alias: str) -> None:
        call_id = fresh_id()
        with CaptureQueriesContext(connections[alias]) as insert:
            assert store.insert(order_of(call_id)) is not None
        assert len(statements(insert)) <= 3, statements(insert)
        ended(store)

    def test_renew_costs_the_same_for_any_number_that_is_not_held(self, store: DjangoTrackingStore, alias: str) -> None:
        ids = [ended(store) for _ in range(3)]
        with CaptureQueriesContext(connections[alias]) as captured:
            assert store.renew((call_id, "b") for call_id in ids) == {}
        assert len(statements(captured)) <= 2, statements(captured)


def statements(captured: CaptureQueriesContext) -> list[str]:
    """What was asked of the database, without the borders of transactions."""
    borders = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    return [query["sql"] for query in captured if not query["sql"].startswith(borders)]


class TestSQLite(OnDjango):
    store_name = "sqlite"


class OnServers(OnDjango):
    """With several writers at once."""

    def test_renew_passes_over_a_row_that_somebody_has_locked(self, store: DjangoTrackingStore, alias: str) -> None:
        mine, locked = held(store), held(store)
        before, renewed, took = row(store, locked), {}, []

        def renew() -> None:
            began = time.monotonic()
            try:
                renewed.update(store.renew([(locked, "a"), (mine, "a")]))
            finally:
                took.append(time.monotonic() - began)
                connections[alias].close()

        with transaction.atomic(using=alias):
            list(Call.objects.using(alias).select_for_update().filter(pk=locked))
            thread = threading.Thread(target=renew)
            thread.start()
            thread.join(20)
            assert took, "it waits for the row"
        assert renewed.keys() == {mine}
        assert took[0] < 1
        assert row(store, locked) == before
        assert store.renew([(locked, "a"), (mine, "a")]).keys() == {mine, locked}


@pytest.mark.services
class TestPostgreSQL(OnServers):
    store_name = "postgres"
    can_tell = True
    rounds = 200

    def test_due_is_found_by_its_index_and_reads_no_more(self, store: DjangoTrackingStore, alias: str) -> None:
        with CaptureQueriesContext(connections[alias]) as captured:
            store.due(10)
        asked = [sql for sql in statements(captured) if "attend_at" in sql]
        with connections[alias].cursor() as cursor:
            cursor.execute("SET enable_seqscan = off")
            cursor.execute("EXPLAIN " + asked[0])
            plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "lrp_call_attend" in plan, plan
        assert "Index Cond: (attend_at" in plan, plan


@pytest.mark.services
class TestMariaDB(OnServers):
    store_name = "mysql"
