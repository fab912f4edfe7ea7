"""The account of the conformance suites: how many rows each store passed, and that none passed none.

A row counts for a store when every test of that row ran on it and passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from tests.conftest import required

#: The stores that must join each suite, and the service that each one needs.
STORES = {"memory": None, "redis": "redis", "sqlite": None, "postgres": "postgres", "mysql": "mysql"}
ROW = re.compile(r"test_(trk|lrp)_(\d\d)_")


@dataclass
class Account:
    """What became of the tests of each store and row."""

    rows: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    tests: dict[str, tuple[str, str]] = field(default_factory=dict)

    def expect(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            store = getattr(getattr(item, "cls", None), "store_name", None)
            row = ROW.match(item.name)
            if store is not None and row is not None:
                self.tests[item.nodeid] = (store, f"{row[1].upper()}-{row[2]}")

    def note(self, nodeid: str, outcome: str) -> None:
        store, row = self.tests[nodeid]
        self.rows.setdefault(store, {}).setdefault(row, []).append(outcome)

    def passed(self, store: str) -> int:
        return sum(set(outcomes) == {"passed"} for outcomes in self.rows.get(store, {}).values())

    def total(self) -> int:
        return len({row for _, row in self.tests.values()})

    def line(self) -> str:
        stores = sorted({store for store, _ in self.tests.values()}, key=[*STORES].index)
        return ", ".join(self._of(store) for store in stores)

    def _of(self, store: str) -> str:
        outcomes = {outcome for row in self.rows.get(store, {}).values() for outcome in row}
        return f"{store} {'skipped' if outcomes == {'skipped'} else f'{self.passed(store)}/{self.total()}'}"

    def faults(self, needed: set[str]) -> list[str]:
        """Say which stores passed nothing although they ran, or although they had to."""
        found = []
        for store, service in STORES.items():
            outcomes = {outcome for row in self.rows.get(store, {}).values() for outcome in row}
            must = service is None or service in needed or not outcomes <= {"skipped"}
            if must and self.passed(store) == 0:
                found.append(f"conformance: {store} passed no row ({', '.join(sorted(outcomes)) or 'nothing ran'})")
        return found


ACCOUNT = Account()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ACCOUNT.expect(items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test that is skipped or fails in its setup has no call.
    if report.nodeid in ACCOUNT.tests and (report.when == "call" or report.outcome != "passed"):
        ACCOUNT.note(report.nodeid, report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ACCOUNT.rows:
        terminalreporter.section("conformance")
        terminalreporter.line(f"rows passed: {ACCOUNT.line()}")
        for fault in _faults(terminalreporter.config):
            terminalreporter.line(fault, red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if ACCOUNT.rows and _faults(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _faults(config: pytest.Config) -> list[str]:
    return [] if _narrowed(config) else ACCOUNT.faults(required())


def _narrowed(config: pytest.Config) -> bool:
    """Whether the command asked for less than all tests of its folders."""
    options = config.option
    chosen = any(getattr(options, name, None) for name in ("keyword", "markexpr", "deselect", "lf", "maxfail"))
    return chosen or any("::" in argument or argument.endswith(".py") for argument in config.args)
