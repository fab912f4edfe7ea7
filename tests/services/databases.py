"""Databases for Django: fresh ones, and the one that the suite runs on."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.services import ladder, mysql_server, postgres_server
from tests.services.model import RUN, random_name

Database = dict[str, Any]

#: A JSON database, for processes that tests start: they must meet the data of the test.
HANDED_DOWN = "LRP_TEST_DATABASE"


@contextlib.contextmanager
def postgres_database() -> Iterator[Database]:
    """Yield the Django settings of a new, empty PostgreSQL database, dropped afterwards."""
    url, name = ladder.find("postgres").url, random_name()
    postgres_server.execute(url, "CREATE DATABASE {}", name)
    try:
        yield postgres_settings(url, name)
    finally:
        # FORCE: workers of a failed test may still be connected.
        postgres_server.execute(url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextlib.contextmanager
def mysql_database() -> Iterator[Database]:
    """Yield the Django settings of a new, empty MariaDB database, dropped afterwards."""
    url, name = ladder.find("mysql").url, random_name()
    mysql_server.execute(url, f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    try:
        yield mysql_settings(url, name)
    finally:
        mysql_server.execute(url, f"DROP DATABASE IF EXISTS `{name}`")


@contextlib.contextmanager
def database_alias(alias: str, database: Database) -> Iterator[str]:
    """Give Django one more database, migrated, under this alias for a while."""
    from django.core.management import call_command
    from django.db import connections

    # Filling in defaults is done for all databases at once, before the first connection.
    complete = connections.configure_settings({"default": {}, alias: {**database}})
    connections.settings[alias] = complete[alias]
    try:
        call_command("migrate", database=alias, verbosity=0, interactive=False)
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def sqlite_database(path: Path | str) -> Database:
    """Return the Django settings of a SQLite file, with Django's own defaults."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}


def postgres_settings(url: str, name: str) -> Database:
    """Translate a URL into Django's words, for another database of that server."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or "postgres"),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "127.0.0.1",
        "PORT": str(parts.port or 5432),
    }


def mysql_settings(url: str, name: str) -> Database:
    """Translate a URL into Django's words, for another database of that server."""
    use_pymysql()
    target = mysql_server.arguments(url)
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": name,
        "USER": target["user"],
        "PASSWORD": target["password"],
        # Django takes a host with a slash for a socket.
        "HOST": target.get("unix_socket") or target["host"],
        "PORT": str(target.get("port", "")),
        "OPTIONS": {"charset": "utf8mb4"},
        "TEST": {"CHARSET": "utf8mb4"},
    }


def use_pymysql() -> None:
    """Let PyMySQL stand in for mysqlclient, which Django imports by name."""
    import pymysql

    pymysql.install_as_MySQLdb()


def default_database() -> Database:
    """Return the database that the suite runs on: LRP_TEST_DB=sqlite, postgres or mysql."""
    if handed_down := os.environ.get(HANDED_DOWN):
        database: Database = json.loads(handed_down)
        if database["ENGINE"].endswith("mysql"):
            use_pymysql()
        return database
    kind = os.environ.get("LRP_TEST_DB", "sqlite")
    if kind == "sqlite":
        # A file rather than memory: races need two connections that are really two.
        path = Path(tempfile.gettempdir()) / f"{RUN}.sqlite3"
        # Commands that only look at the models leave no file behind.
        return {**sqlite_database(":memory:"), "TEST": {"NAME": str(path)}}
    if kind == "postgres":
        url = ladder.find("postgres").url
        base = postgres_settings(url, urlsplit(url).path[1:] or "postgres")
        return {**base, "TEST": {"NAME": RUN}}
    if kind == "mysql":
        base = mysql_settings(ladder.find("mysql").url, "mysql")
        return {**base, "TEST": {"NAME": RUN, "CHARSET": "utf8mb4"}}
    raise ValueError(f"LRP_TEST_DB={kind}: expected sqlite, postgres or mysql")


def as_environment(database: Database) -> dict[str, str]:
    """Return what a child process needs so that tests.settings means this very database."""
    keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    chosen = {key: database[key] for key in keys if database.get(key)}
    return {HANDED_DOWN: json.dumps(chosen), "DJANGO_SETTINGS_MODULE": "tests.settings"}
