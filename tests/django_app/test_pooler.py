"""A connection to PostgreSQL of our own: what it prepares and sets, and that a pooler in between makes it do without."""

import pytest
from django.db import connections

from django_app.models import Call
from django_app.stores import DjangoTrackingStore
from django_app.stores.news import Listener
from django_app.stores.sessions import OwnSession
from lrp_celery.tracking.news import Newsroom
from tests import services
from tests.integration.harness import eventually

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.fixture(scope="session")
def pgbouncer(postgres_alias):
    with services.private_pgbouncer(services.find("postgres").url) as server:
        yield server


@pytest.fixture
def pooled_alias(pgbouncer, postgres_alias, monkeypatch):
    """The alias, reached through a pooler of which its settings say nothing."""
    settings = connections[postgres_alias].settings_dict
    monkeypatch.setitem(settings, "HOST", "127.0.0.1")
    monkeypatch.setitem(settings, "PORT", pgbouncer.url.rpartition(":")[2].partition("/")[0])
    return postgres_alias


@pytest.fixture
def sessions(monkeypatch):
    """Return sessions that keep their connections, as they do outside tests."""
    opened = []

    def session(alias):
        opened.append(OwnSession(alias))
        monkeypatch.setattr(opened[-1], "release", lambda: None)
        return opened[-1]

    yield session
    for each in opened:
        each.close()


def asked(session, statement):
    with session.connection().cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_what_is_asked_often_is_prepared_on_a_direct_connection(postgres_alias, sessions):
    session = sessions(postgres_alias)
    store = DjangoTrackingStore(session=session)
    for number in range(6):
        assert store.record_enqueue(f"prepared-{number}", "t")
    assert asked(session, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%'") == 1
    assert asked(session, "SHOW lock_timeout") == "2s"


def test_callers_who_share_a_session_of_the_server_do_not_run_each_others_statements(pooled_alias, sessions):
    first, second = (DjangoTrackingStore(session=sessions(pooled_alias)) for _ in range(2))
    # What is prepared gets a number in the order of first use, which here is another one for each.
    second.get_status("none")
    for number in range(12):
        assert first.record_enqueue(f"one-{number}", "t")
        assert second.get_status(f"one-{number}").status == "submitted"
        assert second.record_enqueue(f"two-{number}", "t")
        assert first.get_status(f"two-{number}").status == "submitted"
    assert Call.objects.using(pooled_alias).filter(pk__contains="-").count() == 24


def test_nothing_is_set_for_those_who_get_the_servers_session_next(pooled_alias, sessions):
    ours, theirs = sessions(pooled_alias), sessions(pooled_alias)
    before = asked(ours, "SELECT current_setting('lock_timeout')")
    assert before == "0"
    assert asked(theirs, "SELECT count(*) FROM pg_prepared_statements") == 0


def test_nobody_believes_that_he_would_be_told_through_a_pooler(pooled_alias):
    newsroom = Newsroom()
    listener = Listener(pooled_alias, newsroom)
    with listener.watching("x"):
        eventually("it is found out", lambda: listener.is_in_vain, within=10)
        eventually("nobody tries again", lambda: listener._thread is None, within=10)
        assert not listener.is_listening
    with listener.watching("y"):
        assert listener._thread is None
