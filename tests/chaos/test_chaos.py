"""A short run of random chaos for each broker and each database; `python -m tests.chaos.run` plays longer ones."""

import os

import pytest

# The cells of the matrix have no PostgreSQL, but collect this file, too.
pytest.importorskip("psycopg")

from tests.chaos.run import Plan, play

#: A server that is killed needs a minute to come back on a machine that is busy otherwise.
LONG = pytest.mark.skipif("LRP_TEST_LONG" not in os.environ, reason="takes long: set LRP_TEST_LONG")
SHORT = {
    "redis": Plan(seed=7, calls=200, broker="redis"),
    "rabbitmq": Plan(seed=8, calls=200, broker="rabbitmq"),
    "over http": Plan(seed=9, calls=200, broker="redis", http=True),
    "wrong clocks": Plan(seed=10, calls=200, broker="redis", clocks=True),
    "mysql": Plan(seed=11, calls=200, broker="redis", database="mysql"),
    "sqlite": Plan(seed=12, calls=200, broker="rabbitmq", database="sqlite"),
}


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.slow
@pytest.mark.chaos
@LONG
@pytest.mark.parametrize("plan", SHORT)
def test_whatever_is_killed_every_accepted_call_ends_once_and_right(plan, tmp_path, django_db_blocker):
    findings = play(SHORT[plan], tmp_path, django_db_blocker)
    print(findings)
    assert findings.violations == {}, f"{findings}\nlogs in {tmp_path}"
    # Without kills, copies and purges it would have proved nothing.
    struck = {fact.more["kind"] for fact in findings.evidence.of("fault")}
    assert struck == set(SHORT[plan].deck)
    assert {"doubled", "delayed", "rolled back", "raced", "asked"} <= {fact.what for fact in findings.evidence.facts}
    assert findings.evidence.deletions
    assert any(fact.more.get("over") == "http" for fact in findings.evidence.of("accepted")) is SHORT[plan].http
