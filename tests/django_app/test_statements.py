"""What is said on a connection of our own to PostgreSQL is what its driver would say, and no answer is waited for for ever."""

import contextlib
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from functools import partial

import pytest
from django.db import DataError, IntegrityError, OperationalError, connections, transaction

from django_app.clock import read_clock
from django_app.executing import execute
from django_app.models import Call, Worker
from django_app.stores import DjangoTrackingStore, rows
from django_app.stores.sessions import OwnSession
from lrp_celery.core.errors import StoreUnavailable
from lrp_celery.core.ids import new_id
from lrp_celery.core.values import replace
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Ended, ErrorFacts, Outcome, RunFacts, Told
from lrp_celery.tracking.status import CallStatus

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True, databases="__all__")]

VALUES = [
    1,
    40_000,
    5_000_000_000,
    1.5,
    "ä'\"\\ %s %% $1",
    True,
    CallStatus.STARTED,
    datetime(2026, 1, 2, 3, tzinfo=UTC),
]
FAILED = Outcome(status=CallStatus.FAILED, error=ErrorFacts(type="E", message="m"))
KINDS = ["int", "int", "bigint", "float8", "text", "bool", "text", "timestamptz"]


@pytest.fixture
def session(postgres_alias):
    session = OwnSession(postgres_alias)
    yield session
    session.close()
    # Whoever sleeps does not hear that nobody waits for him any more.
    with connections[postgres_alias].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")


@pytest.fixture
def table(session):
    connection = session.connection()
    execute(connection, "CREATE TABLE lrp_test_said (id int PRIMARY KEY, said text)", [])
    yield connection
    session.close()
    execute(session.connection(), "DROP TABLE lrp_test_said", [])


def prepared(connection):
    found = execute(connection, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'lrp%%'", [])
    return found.fetchone()[0]


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize(("value", "kind"), list(zip(VALUES, KINDS, strict=True)), ids=map(str, range(len(VALUES))))
def test_values_come_back_as_they_were_given(session, value, kind, times):
    connection = session.connection()
    for _ in range(times):
        assert execute(connection, f"SELECT %s::{kind}, NULL, '%%'", [value]).fetchall() == [(value, None, "%")]


def test_a_statement_serves_values_of_different_sizes_and_none(session):
    connection = session.connection()
    for value in [1, 40_000, 5_000_000_000, None] * 6:
        assert execute(connection, "SELECT %s::bigint", [value]).fetchone() == (value,)


def test_what_is_said_again_and_again_is_prepared_and_what_is_said_once_is_not(session):
    connection = session.connection()
    execute(connection, "SELECT 1", [])
    assert prepared(connection) == 0
    for number in range(10):
        assert execute(connection, "SELECT %s::int + 1", [number]).fetchone() == (number + 1,)
    assert prepared(connection) == 1


def test_more_statements_than_are_remembered_are_said_all_the_same(session):
    connection = session.connection()
    for turn in range(2):
        for number in range(250):
            assert execute(connection, f"SELECT %s::int + {number}", [turn]).fetchone() == (turn + number,)


def test_rows_are_counted_and_no_row_is_none(table):
    assert execute(table, "INSERT INTO lrp_test_said VALUES (1, 'a'), (2, 'b')", []).rowcount == 2
    assert execute(table, "UPDATE lrp_test_said SET said = %s", ["c"]).rowcount == 2
    assert execute(table, "SELECT said FROM lrp_test_said WHERE id = %s", [3]).fetchone() is None
    assert list(execute(table, "DELETE FROM lrp_test_said RETURNING id", [])) == [(1,), (2,)]


def test_what_is_wrong_is_said_as_by_django_and_the_connection_serves_on(table):
    for _ in range(10):
        execute(table, "INSERT INTO lrp_test_said VALUES (%s, 'a') ON CONFLICT DO NOTHING", [1])
    with pytest.raises(IntegrityError) as duplicate:
        execute(table, "INSERT INTO lrp_test_said VALUES (%s, 'a')", [1])
    assert duplicate.value.__cause__.sqlstate == "23505"
    with pytest.raises(DataError):
        execute(table, "SELECT %s::text", ["\0"])
    assert execute(table, "SELECT 1", []).fetchone() == (1,)


def test_a_transaction_is_begun_and_ended_with_it(table, session):
    with pytest.raises(ZeroDivisionError), session.atomic():
        execute(table, "INSERT INTO lrp_test_said VALUES (1, 'a')", [])
        execute(table, "INSERT INTO lrp_test_said VALUES (2, 'a')", [])
        raise ZeroDivisionError
    with session.atomic():
        execute(table, "INSERT INTO lrp_test_said VALUES (3, 'a')", [])
    assert execute(table, "SELECT id FROM lrp_test_said", []).fetchall() == [(3,)]


def test_what_was_prepared_is_known_after_a_transaction_that_was_taken_back(session):
    connection = session.connection()
    for number in range(10):
        execute(connection, "SELECT %s::int", [number])
        read_clock(connection)
        rows.select(connection, Worker.objects.values_list("pk"))
    with pytest.raises(ZeroDivisionError), session.atomic():
        read_clock(connection)
        raise ZeroDivisionError
    assert execute(connection, "SELECT %s::int", [1]).fetchone() == (1,)
    assert prepared(connection) == 3


def test_a_report_whose_row_others_hold_costs_no_other_one(postgres_alias, session):
    store = DjangoTrackingStore(session=session)
    reports = [
        Told(Ended(call_id=new_id(), facts=CallFacts(task="t"), turn=Turn(), run=RunFacts(token="run"), outcome=FAILED))
        for _ in range(12)
    ]
    for told in reports:
        assert store.report_many([told]) == []
    with transaction.atomic(using=postgres_alias):
        Call.objects.using(postgres_alias).select_for_update().get(pk=reports[0].report.call_id)
        again = replace(reports[0].report, run=RunFacts(token="another"))
        assert len(store.report_many([Told(again)])) == 1
    assert store.report_many([Told(again)]) == []


def test_more_than_the_network_takes_at_once_arrives(session):
    # More than the buffers between client and server hold, in both directions.
    much = "x" * 20_000_000
    assert execute(session.connection(), "SELECT %s::text", [much]).fetchone() == (much,)


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(session, monkeypatch):
    monkeypatch.setattr(OwnSession, "SILENCE", 0.3)
    connection = session.connection()
    with pytest.raises(OperationalError, match=r"did not answer within 0\.3 s"):
        execute(connection, "SELECT pg_sleep(3)", [])
    assert session.failed(), "so that the next connection is a new one"
    assert execute(session.connection(), "SELECT 1", []).fetchone() == (1,)


def asleep(session, *, commits):
    """End a transaction while the server sleeps on its behalf: a trigger of its own, that is put off until the end."""
    connection = session.connection()
    with session.atomic():
        if commits:
            execute(connection, "CREATE TEMPORARY TABLE lrp_test_slow (id int)")
            execute(
                connection,
                "CREATE FUNCTION pg_temp.sleeps() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$",
            )
            execute(
                connection,
                "CREATE CONSTRAINT TRIGGER sleeps AFTER INSERT ON lrp_test_slow "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.sleeps()",
            )
            execute(connection, "INSERT INTO lrp_test_slow VALUES (1)")
        else:
            connection.connection.pgconn.send_query(b"SELECT pg_sleep(3)")
            raise ZeroDivisionError


def read(session):
    rows.select(session.connection(), Worker.objects.values_list("pk"))


@pytest.mark.parametrize(
    "waiting",
    [read, partial(asleep, commits=True), partial(asleep, commits=False), OwnSession.failed],
    ids=["query", "commit", "rollback", "question whether it is there"],
)
def test_nothing_that_is_said_is_waited_for_for_ever(session, monkeypatch, postgres_alias, waiting):
    monkeypatch.setattr(OwnSession, "SILENCE", 0.3)
    session.connection()
    with transaction.atomic(using=postgres_alias):
        with connections[postgres_alias].cursor() as cursor:
            cursor.execute("LOCK TABLE lrp_celery_worker")
        began = time.monotonic()
        with contextlib.suppress(OperationalError, ZeroDivisionError):
            waiting(session)
        assert time.monotonic() - began < 1.5
    session.failed()


def test_what_was_not_answered_is_not_said_again(session, monkeypatch):
    monkeypatch.setattr(OwnSession, "SILENCE", 0.3)
    said = []

    def sleep(connection):
        said.append(connection)
        return execute(connection, "SELECT pg_sleep(3)")

    with pytest.raises(StoreUnavailable, match="did not answer"):
        DjangoTrackingStore(session=session)._singly(sleep)
    assert len(said) == 1


@pytest.mark.parametrize("way", ["terminated", "cut"])
def test_a_connection_that_is_lost_is_an_operational_error(session, postgres_alias, way):
    connection = session.connection()
    driver = connection.connection
    if way == "cut":
        with socket.socket(fileno=driver.fileno()) as cut:
            cut.shutdown(socket.SHUT_RDWR)
            cut.detach()
    else:
        with connections[postgres_alias].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])
    with pytest.raises(OperationalError):
        execute(connection, "SELECT 1", [])
    assert session.failed()


def test_others_run_and_signals_are_heard_while_the_server_is_waited_for(session):
    heard, ran = [], threading.Event()

    def interrupt(*_):
        heard.append(1)
        raise InterruptedError

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        threading.Timer(0.2, ran.set).start()
        threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGUSR2]).start()
        with pytest.raises(InterruptedError):
            execute(session.connection(), "SELECT pg_sleep(4)", [])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (heard, ran.is_set()) == ([1], True)


def test_where_no_wait_can_be_bounded_the_drivers_cursor_is_used(monkeypatch, session):
    monkeypatch.delattr("select.poll")
    connection = session.connection()
    assert "lrp_celery_statements" not in vars(connection)
    assert execute(connection, "SELECT %s::int", [1]).fetchone() == (1,)
