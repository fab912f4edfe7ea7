"""The account of the conformance suites: how many rows each store and ground passed, and that none passed none.

A row counts for a store when every test of that row ran on it and passed. What a test is about
travels with its report, so that the account is whole where pytest-xdist divides the tests, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import required

#: The stores that must join the suites of stores, and the services that each one needs.
STORES = {
    "memory": set(),
    "redis": {"redis"},
    "sqlite": set(),
    "postgres": {"postgres"},
    "mysql": {"mysql"},
}
#: The grounds that must join the suite of procedures, likewise.
GROUNDS = {
    "memory-eager": set(),
    "memory-threads": set(),
    "local-memory": set(),
    "local-redis": {"redis"},
    "redis": {"redis"},
    "sqlite+redis": {"redis"},
    "sqlite+rabbitmq": {"rabbitmq", "redis"},
    "postgres+redis": {"postgres", "redis"},
    "postgres+rabbitmq": {"postgres", "rabbitmq", "redis"},
}
#: The servers over which callers must pass their rows.
SERVERS = {"runserver": {"redis"}, "gunicorn": {"redis"}, "uvicorn": {"redis", "postgres"}}
PROPERTY = "conformance"


@dataclass
class Account:
    """What became of the tests of one suite: of each row, on each member."""

    title: str
    attribute: str
    """The attribute of a test's class that names the member."""
    pattern: str
    """What its tests are called; the groups make the name of the row."""
    members: Mapping[str, set[str]]
    """Who must join, and the services that each one needs."""
    rows: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def place(self, item: pytest.Item) -> tuple[str, str] | None:
        """Return the member and the row of a test; None: it belongs to another suite."""
        member = getattr(getattr(item, "cls", None), self.attribute, None)
        row = re.match(self.pattern, item.name)
        return None if member is None or row is None else (member, "-".join(row.groups()).upper())

    def note(self, member: str, row: str, outcome: str) -> None:
        self.rows.setdefault(member, {}).setdefault(row, []).append(outcome)

    def passed(self, member: str) -> int:
        return sum(set(outcomes) == {"passed"} for outcomes in self.rows.get(member, {}).values())

    def total(self) -> int:
        return len({row for rows in self.rows.values() for row in rows})

    def line(self) -> str:
        return f"{self.title}: " + ", ".join(map(self._of, sorted(self.rows, key=[*self.members].index)))

    def _of(self, member: str) -> str:
        is_skipped = self._outcomes(member) == {"skipped"}
        return f"{member} {'skipped' if is_skipped else f'{self.passed(member)}/{self.total()}'}"

    def _outcomes(self, member: str) -> set[str]:
        return {outcome for row in self.rows.get(member, {}).values() for outcome in row}

    def faults(self, needed: set[str]) -> Iterator[str]:
        """Say which members passed nothing although they ran, or although they had to."""
        for member, services in self.members.items() if self.rows else ():
            outcomes = self._outcomes(member)
            must = services <= needed or not outcomes <= {"skipped"}
            if must and self.passed(member) == 0:
                why = ", ".join(sorted(outcomes)) or "nothing ran"
                yield f"conformance: {self.title}: {member} passed none ({why})"


ACCOUNTS = {
    account.title: account
    for account in (
        Account("rows passed", "store_name", r"test_(trk|lrp)_(\d\d)_", STORES),
        Account("procedure rows passed", "ground_name", r"test_(lrp)_(\d\d)_", GROUNDS),
        Account("caller rows passed over HTTP", "server_name", r"test_(lrp)_(\d\d)_", SERVERS),
        Account("faults of the original kept out", "ground_name", r"test_(fault)_(\d)_", GROUNDS),
    )
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for account in ACCOUNTS.values():
            place = account.place(item)
            if place is not None:
                item.user_properties.append((PROPERTY, [account.title, *place]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test that is skipped or fails in its setup has no call.
    if report.when != "call" and report.outcome == "passed":
        return
    properties: list[tuple[str, Any]] = report.user_properties
    for name, place in properties:
        if name == PROPERTY:
            title, member, row = map(str, place)
            ACCOUNTS[title].note(member, row, report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    accounts = [account for account in ACCOUNTS.values() if account.rows]
    if accounts:
        terminalreporter.section("conformance")
        for account in accounts:
            terminalreporter.line(account.line())
        for fault in _faults(terminalreporter.config):
            terminalreporter.line(fault, red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _faults(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _faults(config: pytest.Config) -> list[str]:
    # Among several processes only the one that hears of all tests can tell.
    if _narrowed(config) or hasattr(config, "workerinput"):
        return []
    return [fault for account in ACCOUNTS.values() for fault in account.faults(required())]


def _narrowed(config: pytest.Config) -> bool:
    """Whether the command asked for less than all tests of its folders."""
    options = config.option
    chosen = any(getattr(options, name, None) for name in ("keyword", "markexpr", "deselect", "lf", "maxfail"))
    return chosen or any("::" in argument or argument.endswith(".py") for argument in config.args)
