"""The ladder: what it finds, what it starts, and that it leaves no trace."""

import json
import os

import pytest

from tests import conftest, services
from tests.services import ladder, mysql_server, postgres_server, rabbitmq_server
from tests.services.model import Kind, Service, ServiceError, ServiceMissing

# --- Without any server


@pytest.fixture
def fresh(monkeypatch):
    """A ladder that has not looked yet."""
    monkeypatch.setattr(ladder, "_found", {})
    for name in services.NAMES:
        monkeypatch.delenv(f"TEST_{name.upper()}_URL", raising=False)


def refuses(*arguments):
    raise ConnectionRefusedError


def absent(name):
    def private():
        raise ServiceMissing(name, "no server program was found", "install it")

    return Kind(
        name=name, default_urls=["x"], handshake=refuses, binary=lambda: None, private=private, fix="install it"
    )


@pytest.mark.parametrize("name", services.NAMES)
def test_a_named_server_that_does_not_answer_is_an_error_and_no_skip(fresh, monkeypatch, name):
    monkeypatch.setenv(f"TEST_{name.upper()}_URL", "scheme://127.0.0.1:1/")
    for _ in range(2):
        with pytest.raises(ServiceError, match=f"TEST_{name.upper()}_URL does not work"):
            services.find(name)
    assert "ERROR" in services.describe(name)


@pytest.mark.parametrize("name", services.NAMES)
def test_an_absent_server_says_how_to_get_it(fresh, monkeypatch, name):
    monkeypatch.setitem(ladder.KINDS, name, absent(name))
    assert services.describe(name) == f"{name}: MISSING, install it"
    with pytest.raises(ServiceMissing, match="to run this: install it"):
        services.find(name)


def test_a_running_server_is_preferred_to_a_private_one(fresh, monkeypatch):
    kind = Kind(
        name="redis", default_urls=["a", "b"], handshake=lambda url, seconds: {"b": "7"}[url],
        binary=refuses, private=refuses, fix="",
    )  # fmt: skip
    monkeypatch.setitem(ladder.KINDS, "redis", kind)
    assert services.find("redis") == Service(name="redis", url="b", source="running", version="7")


def test_a_missing_service_skips_unless_it_is_required(monkeypatch):
    missing = ServiceMissing("redis", "gone", "install it")
    monkeypatch.setenv("REQUIRE_SERVICES", "postgres")
    with pytest.raises(pytest.skip.Exception, match="install it"):
        conftest.skip_or_fail(missing)
    monkeypatch.setenv("REQUIRE_SERVICES", "postgres, redis")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_SERVICES: redis: gone"):
        conftest.skip_or_fail(missing)


def test_requiring_an_unknown_service_is_refused(monkeypatch):
    monkeypatch.setenv("REQUIRE_SERVICES", "postgres,reddis")
    with pytest.raises(pytest.UsageError, match="reddis"):
        conftest.required()


def test_a_database_can_be_handed_down_to_a_child(monkeypatch, tmp_path):
    database = services.sqlite_database(tmp_path / "x.sqlite3")
    environment = services.as_environment({**database, "TEST": {}, "CONN_MAX_AGE": 0})
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert services.default_database() == database
    assert json.loads(environment["LRP_TEST_DATABASE"])["NAME"].endswith("x.sqlite3")


def test_an_unknown_test_database_is_refused(monkeypatch):
    monkeypatch.delenv("LRP_TEST_DATABASE", raising=False)
    monkeypatch.setenv("LRP_TEST_DB", "oracle")
    with pytest.raises(ValueError, match="expected sqlite, postgres or mysql"):
        services.default_database()


# --- With real ones

PRIVATE = [
    "postgres",
    "redis",
    "mysql",
    pytest.param("rabbitmq", marks=pytest.mark.slow),
]


@pytest.mark.services
@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_server_can_be_killed_comes_back_and_leaves_nothing(name):
    with ladder.KINDS[name].private() as server:
        assert server.handshake(server.url, 2.0) == server.version
        server.kill()
        with pytest.raises(Exception):  # noqa: B017  each driver has errors of its own
            server.handshake(server.url, 2.0)
        server.launch()
        assert server.handshake(server.url, 2.0) == server.version
        pid, folder = server.pid, server.folder
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
    assert not folder.exists()


@pytest.mark.services
def test_a_redis_space_deletes_its_own_keys_and_no_others():
    import redis

    with services.redis_space() as mine, services.redis_space() as other:
        client = redis.Redis.from_url(mine.url)
        client.set(f"{other.prefix}kept", 1)
        with services.redis_space() as space:
            client.mset({f"{space.prefix}{number}": number for number in range(1200)})
        assert list(client.scan_iter(f"{space.prefix}*")) == []
        assert client.get(f"{other.prefix}kept") == b"1"
        client.close()


@pytest.mark.services
def test_celery_over_redis_stays_inside_its_prefix():
    import redis
    from celery import Celery

    with services.private_redis() as server, redis.Redis.from_url(server.url) as client:
        space = services.RedisSpace(url=server.url, prefix="mine:")
        app = Celery("prefixed", set_as_current=False)
        app.conf.update(services.celery_over_redis(space))
        app.send_task("anything")
        app.backend.store_result("id", 1, "SUCCESS")
        keys = [key.decode() for key in client.scan_iter("*")]
        app.close()
    assert len(keys) >= 2
    assert [key for key in keys if not key.startswith("mine:")] == []


@pytest.mark.services
def test_a_postgres_database_is_dropped_even_while_somebody_is_connected():
    import psycopg

    with services.postgres_database() as database:
        connection = psycopg.connect(
            host=database["HOST"], port=database["PORT"], user=database["USER"],
            password=database["PASSWORD"], dbname=database["NAME"],
        )  # fmt: skip
    with psycopg.connect(services.find("postgres").url) as admin:
        assert admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database["NAME"]]).fetchone() is None
    connection.close()


@pytest.mark.services
def test_a_mysql_database_is_dropped():
    with services.mysql_database() as database:
        mysql_server.execute(services.find("mysql").url, f"USE `{database['NAME']}`")
    with pytest.raises(Exception, match="Unknown database"):
        mysql_server.execute(services.find("mysql").url, f"USE `{database['NAME']}`")


@pytest.mark.services
def test_a_rabbitmq_vhost_is_usable_and_then_gone():
    with services.rabbitmq_vhost() as url:
        rabbitmq_server.handshake(url, 2.0)
    if url != services.find("rabbitmq").url:  # unless the vhost was given to us from outside
        with pytest.raises(Exception):  # noqa: B017  refused in one of several words
            rabbitmq_server.handshake(url, 2.0)


@pytest.mark.services
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql"])
def test_an_alias_is_migrated_and_usable_beside_the_default_database(kind, request, django_db_blocker):
    from django.apps import apps
    from django.db import connections

    name = request.getfixturevalue(f"{kind}_alias")
    with django_db_blocker.unblock():
        tables = connections[name].introspection.table_names()
        connections[name].close()
    assert {model._meta.db_table for model in apps.get_models()} <= set(tables)


@pytest.mark.services
def test_the_postgres_binaries_can_be_read_by_the_user_who_runs_them():
    found = postgres_server.binary()
    if found is None:
        raise ServiceMissing("postgres", "no server program was found", postgres_server.KIND.fix)
    assert os.access(found.folder, os.R_OK)
