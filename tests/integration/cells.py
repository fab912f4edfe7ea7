"""Where a scenario is played: `@on(BASE, RABBITMQ)` above a test that takes `cell`."""

from typing import Any

import pytest

from tests.integration.harness import Plan

BASE = Plan()
RABBITMQ = Plan(broker="rabbitmq")
THREADS = Plan(pool="threads")
SOLO = Plan(pool="solo")
#: Not on PostgreSQL, where a worker more for each process of the test run would be too many connections.
GEVENT = Plan(pool="gevent", database="mysql")
MARIADB = Plan(database="mysql")
SQLITE = Plan(database="sqlite")
#: SQLite as well, and one of the few that every cell of the version matrix plays: it needs
#: no server but a broker, which comes as a wheel where there is none.
MATRIX = (SQLITE, pytest.mark.matrix)


def on(*plans: Any) -> pytest.MarkDecorator:
    """Play a test in each of these cells."""
    return pytest.mark.parametrize("cell", [_parameter(plan) for plan in plans], indirect=True)


def _parameter(chosen: Any) -> Any:
    plan, marks = (chosen[0], [chosen[1]]) if isinstance(chosen, tuple) else (chosen, [])
    if plan.database != "sqlite":
        marks.append(pytest.mark.services)
    return pytest.param(plan, id=f"{plan.pool}-{plan.broker}-{plan.database}", marks=[pytest.mark.integration, *marks])
