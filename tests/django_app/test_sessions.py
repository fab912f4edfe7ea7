"""Our own connections: bounded waits, healing, and no harm to the caller's transaction."""

import threading
import time
from datetime import timedelta

import pytest
from celery import Celery
from django.db import DataError, IntegrityError, OperationalError, ProgrammingError, connections, transaction
from django.test import override_settings

from django_app.models import Call
from django_app.stores import DjangoTrackingStore, rows
from django_app.stores.sessions import OwnSession
from lrp_celery.core.errors import StoreError, StoreUnavailable
from lrp_celery.tracking.reports import CallFacts, RunFacts, Started, Told

app = Celery("sessions", broker="memory://", backend="cache+memory://", set_as_current=False)
app.conf.task_default_queue = "sessions"


@app.task(name="sessions.add", shared=False)
def add(a, b):
    return a + b


@pytest.fixture(scope="session", params=["postgres", "mysql"])
def server_alias(request):
    return request.getfixturevalue(f"{request.param}_alias")


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_publish_does_not_wait_long_for_a_row_that_its_own_caller_has_locked(server_alias):
    with override_settings(LRP_CELERY={"DATABASE": server_alias}), transaction.atomic(using=server_alias):
        DjangoTrackingStore(server_alias).record_enqueue("mine", "t")
        began = time.monotonic()
        assert add.apply_async((1, 2), task_id="mine").id == "mine"
        assert time.monotonic() - began < 10
    assert Call.objects.using(server_alias).filter(pk="mine").count() == 1


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_fault_in_our_reading_does_not_poison_an_eager_callers_transaction(postgres_alias, monkeypatch):
    def broken(*_):
        with connections[postgres_alias].cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    monkeypatch.setattr(rows, "select", broken)
    with override_settings(LRP_CELERY={"DATABASE": postgres_alias}), transaction.atomic(using=postgres_alias):
        assert add.apply((1, 2)).get() == 3
        with connections[postgres_alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_connection_that_the_server_dropped_is_replaced(server_alias, monkeypatch):
    session = OwnSession(server_alias)
    monkeypatch.setattr(session, "release", lambda: None)
    store = DjangoTrackingStore(session=session)
    assert store.record_enqueue("one", "t")
    session.connection().connection.close()
    assert store.record_enqueue("two", "t")
    session.close()


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_the_connection_of_a_thread_ends_with_it(postgres_alias, monkeypatch):
    session = OwnSession(postgres_alias)
    monkeypatch.setattr(session, "release", lambda: None)
    thread = threading.Thread(target=lambda: DjangoTrackingStore(session=session).get_status("x"))
    thread.start()
    thread.join()
    assert not session._kept


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_server_that_does_not_answer_is_told_apart(postgres_alias, monkeypatch):
    session = OwnSession(postgres_alias)
    monkeypatch.setitem(connections[postgres_alias].settings_dict, "PORT", "1")
    with pytest.raises(StoreUnavailable):
        DjangoTrackingStore(session=session).get_status("x")


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
@pytest.mark.parametrize(
    "closed",
    [
        "SET default_transaction_read_only = on",  # after a failover, by what was the primary
        "SET search_path = nowhere",  # before a migration
    ],
)
def test_a_database_that_takes_no_writes_for_now_refuses_no_report(postgres_alias, monkeypatch, closed):
    session = OwnSession(postgres_alias)
    monkeypatch.setattr(session, "release", lambda: None)
    store = DjangoTrackingStore(session=session)
    with session.connection().cursor() as cursor:
        cursor.execute(closed)
    told = Told(Started(call_id="a", facts=CallFacts(task="t"), run=RunFacts(token="r")), timedelta())
    with pytest.raises(StoreUnavailable):
        store.report_many([told])
    assert not store.report_many([told])
    assert store.get_status("a").status == "started"
    session.close()


@pytest.mark.parametrize(
    ("error", "codes", "is_away"),
    [
        (OperationalError, (2006, "MySQL server has gone away"), True),
        (ProgrammingError, (1146, "Table 'lrp.lrp_celery_call' doesn't exist"), True),
        (OperationalError, (1366, "Incorrect string value"), False),
        (DataError, (1406, "Data too long"), False),
        (IntegrityError, (1062, "Duplicate entry"), False),
    ],
)
def test_what_a_table_cannot_hold_is_told_apart_from_a_server_that_is_away(error, codes, is_away):
    raised = error(*codes)
    raised.__cause__ = Exception(*codes)
    assert rows.is_away(raised) is is_away


# --- A caller whose transaction sees the past


class Other:
    """Somebody else's connection, each time a new one in a thread of its own."""

    def __init__(self, alias):
        self.alias = alias

    def does(self, method, *args):
        def work():
            try:
                done.append(getattr(DjangoTrackingStore(self.alias), method)(*args))
            finally:
                connections[self.alias].close()

        done = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        (result,) = done
        return result


@pytest.fixture
def frozen():
    """Returns an alias whose transactions see what was there when they began to read."""
    changed = []

    def freeze(alias, level):
        connection = connections[alias]
        connection.close()
        options = connection.settings_dict.setdefault("OPTIONS", {})
        changed.append((connection, options, options.get("isolation_level")))
        options["isolation_level"] = level
        return alias

    yield freeze
    for connection, options, before in changed:
        options.pop("isolation_level")
        if before is not None:
            options["isolation_level"] = before
        connection.close()


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_write_in_a_transaction_that_sees_the_past_of_mysql_builds_on_the_present(mysql_alias, frozen):
    alias = frozen(mysql_alias, "repeatable read")
    store, other = DjangoTrackingStore(alias), Other(alias)
    store.record_enqueue("known", "t")
    with transaction.atomic(using=alias):
        assert store.get_status("known").retries == 0
        assert store.get_status("new") is None
        other.does("record_attempt", "known", "retrying", 1)
        other.does("record_enqueue", "new", "t")
        assert store.get_status("known").retries == 0, "it does see the past"
        assert not store.record_attempt("known", "started", 0), "late news of an earlier retry"
        assert store.record_attempt("known", "started", 2)
        assert not store.record_enqueue("new", "t")
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
    assert store.get_status("known").retries == 2
    assert other.does("record_terminal", "known", "succeeded"), "and nothing is locked any more"


@pytest.mark.services
@pytest.mark.django_db(transaction=True, databases="__all__")
@pytest.mark.parametrize("level", [3, 4], ids=["repeatable read", "serializable"])
def test_a_conflict_in_a_transaction_that_sees_the_past_of_postgresql_is_a_store_error(postgres_alias, frozen, level):
    alias = frozen(postgres_alias, level)
    store, other = DjangoTrackingStore(alias), Other(alias)
    store.record_enqueue("known", "t")
    with transaction.atomic(using=alias):
        store.record_enqueue("mine", "t")
        assert store.get_status("known").retries == 0
        assert other.does("record_attempt", "known", "retrying", 1)
        with pytest.raises(StoreError, match="serialize") as raised:
            store.record_attempt("known", "started", 2)
        # The server answers: it is no reason to leave it alone for a while.
        assert not isinstance(raised.value, StoreUnavailable)
        assert store.get_status("mine") is not None, "the caller's transaction goes on"
    assert store.get_status("mine") is not None
    assert store.get_status("known").retries == 1
