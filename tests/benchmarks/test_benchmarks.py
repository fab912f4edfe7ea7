"""The measurements: that they count right, and that each runs, at a tiny size."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

# What is measured writes to PostgreSQL.
pytest.importorskip("psycopg")

from benchmarks.bars import Bar
from benchmarks.cost import Figures, Results
from benchmarks.loss import Row, compare
from benchmarks.tables import markdown, percentile, short, spread
from tests import services

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {"started": True, "ended": True, "succeeded": True, "running": False}
COST = {"publish_rate": 1, "recorded_rate": 1, "publish_cpu": 1, "worker_cpu": 1, "wal": 0, "commits": 0, "missing": 0}


def figures(total_cpu, **others):
    return Figures(total_cpu=total_cpu, **{**COST, **others})


# --- Counting


def test_a_ratio_is_taken_within_a_round_and_not_between_medians():
    results = Results([{"bare": figures(1), "spool": figures(2)}, {"bare": figures(10), "spool": figures(10)}])
    assert str(results.ratio("spool", "bare", "total_cpu")) == "1.50 (1.00 to 2.00)"


def test_a_round_in_which_one_of_both_failed_counts_for_neither():
    results = Results([{"bare": figures(1)}, {"bare": figures(2), "spool": figures(6)}])
    assert results.ratio("spool", "bare", "total_cpu").median == 3


@pytest.mark.parametrize(
    ("spool", "verdict"), [(figures(1.2), "yes"), (figures(1.3), "**NO**"), (figures(1, missing=1), "**NO**")]
)
def test_a_bar_is_held_by_the_median_and_never_by_what_loses_calls(spool, verdict):
    results = Results([{"bare": figures(1), "spool": spool}])
    assert f"| {verdict} |" in results.judged([Bar("spool", "total_cpu", "bare", at_most=1.25)])


def test_a_bar_on_what_was_not_measured_is_not_judged():
    assert "bulk" not in Results([{"bare": figures(1)}]).judged([Bar("bulk", "total_cpu", "bare", at_most=1)])


def test_the_truth_decides_what_was_lost():
    rows = {
        "whole": Row(**KNOWN),
        "start lost": Row(**{**KNOWN, "started": False}),
        "end lost": Row(**{**KNOWN, "ended": False, "succeeded": False, "running": True}),
        "otherwise": Row(**{**KNOWN, "succeeded": False}),
        "left": Row(**{**KNOWN, "ended": False, "succeeded": False, "running": True}),
        "settled": Row(**{**KNOWN, "succeeded": False}),
        "never ran": Row(started=False, ended=False, succeeded=False, running=False),
    }
    ended = {"whole", "start lost", "end lost", "otherwise", "no row"}
    lost = compare([*rows, "no row"], {*ended, "left", "settled"}, ended, rows)
    assert (lost.begun, lost.cut_off) == (7, 2)
    assert (lost.starts, lost.ends, lost.missing) == (2, 2, 1)
    assert (lost.left_started, lost.otherwise) == (1, 1)


def test_numbers_have_as_many_digits_as_mean_something():
    assert [short(value) for value in (0, 0.123, 1.234, 12.34, 123.4, 12345)] == [
        "0",
        "0.12",
        "1.23",
        "12.3",
        "123",
        "12345",
    ]


def test_percentiles_and_spreads():
    assert percentile(range(100), 50) == 50
    assert percentile(range(100), 99) == 99
    assert percentile([7], 99) == 7
    assert spread([]) is None
    assert spread([3, 1, 2]).median == 2


def test_a_table_is_markdown_with_a_dash_where_there_is_nothing():
    assert markdown(["a", "b"], [[1, None]]) == "| a | b |\n| --- | --- |\n| 1 | - |"


# --- Running


@pytest.fixture
def servers():
    """A database and a broker of its own, as a person would name them."""
    with services.postgres_database() as database, services.private_redis() as redis:
        named = urlsplit(services.find("postgres").url)._replace(path=f"/{database['NAME']}").geturl()
        yield {"BENCH_PG": named, "BENCH_BROKER": redis.url}


def run(name, *options, environment):
    shown = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout


def numbers(shown, *names):
    """Return the numbers in the one row of a table that begins with these names."""
    (line,) = (line for line in shown.splitlines() if line.startswith(f"| {' | '.join(names)} |"))
    return [float(cell) for cell in line.split("|")[1 + len(names) : -1]]


@pytest.mark.services
@pytest.mark.integration
@pytest.mark.slow
def test_the_cost_of_our_recorder_is_measured_beside_bare_celery(servers):
    shown = run("cost", "--rounds", "1", "--calls", "20", "--variants", "bare", "sync", environment=servers)
    assert "| bare Celery, results ignored | 1.00 (1.00 to 1.00) |" in shown
    assert "| lrp_celery, sync |" in shown
    assert "missing" not in shown
    assert "A commit of one row takes" in shown


@pytest.mark.services
@pytest.mark.integration
@pytest.mark.chaos
@pytest.mark.slow
def test_what_a_killed_worker_loses_is_counted(servers):
    options = ["--calls", "60", "--kills", "1", "--variants", "sync", "--targets", "all"]
    shown = run("loss", *options, environment=servers)
    begun, _, starts, _, missing, *_ = numbers(shown, "lrp_celery, sync", "all")
    assert begun > 30
    assert (starts, missing) == (0, 0)


@pytest.mark.services
@pytest.mark.integration
@pytest.mark.chaos
@pytest.mark.slow
def test_how_soon_a_call_runs_again_is_measured(servers):
    shown = run("rerun", "--targets", "child", "--turns", "1", "--calls", "2", environment=servers)
    calls, *seconds = numbers(shown, "child")
    assert calls == 2
    assert all(0 < each < 60 for each in seconds)


@pytest.mark.services
@pytest.mark.integration
@pytest.mark.slow
def test_how_soon_a_row_shows_an_end_is_measured(servers):
    shown = run("lag", "--calls", "3", "--load", "20", "--variants", "sync", environment=servers)
    assert all(0 < cell < 30_000 for cell in numbers(shown, "lrp_celery, sync"))


@pytest.mark.services
@pytest.mark.integration
@pytest.mark.slow
def test_long_polls_are_measured_beside_a_local_waiter_while_others_wait(servers):
    pytest.importorskip("uvicorn")
    shown = run("polls", "--waiting", "5", "--calls", "2", "--rounds", "2", environment=servers)
    assert "With 5 waiting: " in shown
    memory = shown.splitlines()[-1].partition(": ")[2].partition(" MB")[0].split(", ")
    assert len(memory) == 3
    assert all(10 < float(each) < 1000 for each in memory)


@pytest.mark.services
@pytest.mark.slow
def test_the_admin_is_measured_on_rows_that_look_real(servers):
    shown = run("admin", "--rows", "3000", "--repeat", "1", environment=servers)
    assert "| the list | " in shown
    assert "| status=failed | " in shown
    assert "| an old call that failed | " in shown
    assert " pages of 3000 calls, " in shown


@pytest.mark.services
@pytest.mark.slow
def test_a_purge_is_measured_beside_inserts(servers):
    shown = run("purge", "--rows", "3000", "--alone", "0.5", environment=servers)
    *_, row = (line for line in shown.splitlines() if line.startswith("| "))
    deleted, *_ = row.split("|")[1:]
    assert 1400 < int(deleted) <= 1500


@pytest.mark.services
def test_filling_keeps_to_the_rules_of_the_tables(servers):
    """The rows are those that tracking would have left: what checks and readers rely on holds."""
    import psycopg

    run("fill", "--rows", "3000", environment=servers)
    with psycopg.connect(servers["BENCH_PG"]) as connection:
        (calls, ordered, terminal), *_ = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE call_id > before OR before IS NULL),"
            " count(terminal_at) FROM (SELECT *, lag(call_id) OVER (ORDER BY enqueued_at) AS before"
            " FROM lrp_celery_call) AS c"
        ).fetchall()
        statuses = dict(connection.execute("SELECT status, count(*) FROM lrp_celery_call GROUP BY 1").fetchall())
        (attempts,) = connection.execute("SELECT count(*) FROM lrp_celery_attempt").fetchone()
    assert (calls, ordered) == (3000, 3000)
    assert terminal == 2699, "the newest 300 are open, and so is one that has been silent ever since"
    assert len(statuses) == 8
    assert attempts > statuses["failed"]
