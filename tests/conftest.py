"""Fixtures for the whole suite, and the honest account of which servers it met."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from pytest_django import DjangoDbBlocker

from tests import services
from tests.services import PrivateServer, RedisSpace, Service, ServiceMissing

# Explaining traces every line of a test that has failed, which takes minutes where threads run beside it.
settings.register_profile("lrp_celery", phases=[phase for phase in Phase if phase is not Phase.explain])
settings.load_profile("lrp_celery")


def required() -> set[str]:
    """The services that REQUIRE_SERVICES names: there a skip would be a lie."""
    names = {name.strip() for name in os.environ.get("REQUIRE_SERVICES", "").split(",")} - {""}
    if unknown := names - {*services.NAMES, *services.ONLY_PRIVATE}:
        raise pytest.UsageError(f"REQUIRE_SERVICES: unknown {', '.join(sorted(unknown))}")
    return names


def pytest_configure(config: pytest.Config) -> None:
    from tests.conformance import report

    # Here and not in its own folder: where pytest-xdist divides the tests, the process that writes the account
    # collects none of them.
    config.pluginmanager.register(report, "conformance")


# --- The account


def pytest_report_header() -> list[str]:
    needed = required()
    return [services.describe(name) + (" (required)" if name in needed else "") for name in services.NAMES]


#: What the processes among which pytest-xdist divides the tests have met and missed: name to words.
_met_elsewhere: dict[str, str] = {}
_missed_elsewhere: dict[str, str] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    met, missed = _met_elsewhere | _met(), _missed_elsewhere | _missed()
    terminalreporter.section("services")
    terminalreporter.line("exercised: " + (", ".join(met.values()) or "none"))
    for name in services.NAMES:
        if name not in met:
            reason = missed.get(name, "no test that ran asked for it")
            terminalreporter.line(f"NOT exercised: {name} ({reason})", yellow=True)


def _met() -> dict[str, str]:
    found = services.asked().items()
    return {name: f"{s.name} {s.version} ({s.source})" for name, s in found if isinstance(s, Service)}


def _missed() -> dict[str, str]:
    return {name: str(s) for name, s in services.asked().items() if not isinstance(s, Service)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["services"] = (_met(), _missed())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    met, missed = getattr(node, "workeroutput", {}).get("services", ({}, {}))
    _met_elsewhere.update(met)
    _missed_elsewhere.update(missed)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    services.close()


# --- A missing service skips, or fails where it is required


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    except ServiceMissing as missing:
        skip_or_fail(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    except ServiceMissing as missing:
        skip_or_fail(missing)


def skip_or_fail(missing: ServiceMissing) -> None:
    if missing.name in required():
        pytest.fail(f"REQUIRE_SERVICES: {missing}", pytrace=False)
    pytest.skip(str(missing))


# --- Own room on each service, for the whole session


@pytest.fixture(scope="session")
def redis_space() -> Iterator[RedisSpace]:
    """A Redis server and a key prefix of this run."""
    with services.redis_space() as space:
        yield space


@pytest.fixture(scope="session")
def redis_url(redis_space: RedisSpace) -> str:
    """The Redis server; whatever is written there must carry `redis_prefix`."""
    return redis_space.url


@pytest.fixture(scope="session")
def redis_prefix(redis_space: RedisSpace) -> str:
    """The key prefix of this run; its keys are deleted at the end."""
    return redis_space.prefix


@pytest.fixture(scope="session")
def celery_over_redis(redis_space: RedisSpace) -> dict[str, Any]:
    """Celery settings with broker and results inside the prefix."""
    return services.celery_over_redis(redis_space)


@pytest.fixture(scope="session")
def rabbitmq_vhost() -> Iterator[str]:
    """The amqp URL of a virtual host of this run."""
    with services.rabbitmq_vhost() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[dict[str, Any]]:
    """Django settings of an empty PostgreSQL database."""
    with services.postgres_database() as database:
        yield database


@pytest.fixture(scope="session")
def mysql_database() -> Iterator[dict[str, Any]]:
    """Django settings of an empty MariaDB database."""
    with services.mysql_database() as database:
        yield database


# --- The same databases as aliases of Django, migrated, beside the default one, for which Django makes a test database:
# once there is that, lest it makes one for these, too.
# A test that uses one names it: @pytest.mark.django_db(databases=["default", "postgres"]).


@pytest.fixture(scope="session")
def sqlite_alias(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """An alias on a SQLite file."""
    path = tmp_path_factory.mktemp("sqlite") / "alias.sqlite3"
    with alias("sqlite", services.sqlite_database(path), django_db_blocker) as name:
        yield name


@pytest.fixture(scope="session")
def postgres_alias(
    postgres_database: dict[str, Any],
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """An alias on PostgreSQL."""
    with alias("postgres", postgres_database, django_db_blocker) as name:
        yield name


@pytest.fixture(scope="session")
def mysql_alias(
    mysql_database: dict[str, Any],
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """An alias on MariaDB."""
    with alias("mysql", mysql_database, django_db_blocker) as name:
        yield name


@contextlib.contextmanager
def alias(name: str, database: dict[str, Any], blocker: DjangoDbBlocker) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        # Migrating uses the database; tests ask for that right by their own mark.
        with blocker.unblock():
            stack.enter_context(services.database_alias(name, database))
        yield name


# --- Servers that a test may kill


@pytest.fixture
def private_redis() -> Iterator[PrivateServer]:
    with services.private_redis() as server:
        yield server


@pytest.fixture
def private_rabbitmq() -> Iterator[PrivateServer]:
    with services.private_rabbitmq() as server:
        yield server


@pytest.fixture
def private_postgres() -> Iterator[PrivateServer]:
    with services.private_postgres() as server:
        yield server


@pytest.fixture
def private_mysql() -> Iterator[PrivateServer]:
    with services.private_mysql() as server:
        yield server
