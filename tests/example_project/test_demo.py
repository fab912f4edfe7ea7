"""`manage.py demo`: everything is shown, and nothing is left behind, whatever happens to it."""

import http.cookiejar
import os
import re
import signal
import sqlite3
import sys
import time
import urllib.parse
import urllib.request

import pytest

from tests import services
from tests.example_project.running import DemoInTerminal, closed_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
]

#: The calls of the story, of which two are never run, two fail and one is aborted.
CALLS = 17


def assert_all_is_right(demo):
    rows = [
        line for line in demo.output.splitlines() if re.search(r" (succeeded|failed|parked|aborted|discarded)\b", line)
    ]
    assert len(rows) == CALLS, demo.output
    assert "differs" not in demo.output
    assert re.search(r"^READY", demo.output, re.MULTILINE), demo.output


# --- What it shows


def test_two_demos_side_by_side_show_every_call_end_when_told_and_can_be_played_again(start_demo):
    demos = [start_demo(), start_demo()]
    for demo in demos:
        demo.wait_for("READY")
        assert_all_is_right(demo)
        assert_the_login_works(f"http://127.0.0.1:{demo.port}/admin")
    assert {demo.folder.name for demo in demos} == {"1", "2"}
    assert demos[0].port != demos[1].port
    for demo in demos:
        assert_the_work_was_done(demo.folder / "var")

    impatient, told = demos
    told.send(signal.SIGTERM)
    while impatient.process.poll() is None:
        impatient.send(signal.SIGINT)
        time.sleep(0.05)
    assert [demo.wait() for demo in demos] == [0, 0]
    for demo in demos:
        assert demo.left_behind() == []  # at once: it waited for all of them
        demo.assert_nothing_left()
        assert "worker: Warm shutdown" in (demo.folder / "worker.log").read_text()

    again = start_demo("--once", CELERY_BROKER_URL="filesystem://")
    assert again.wait() == 0, again.output
    assert_all_is_right(again)
    assert again.folder == again.home / "1", "on the database of the first one"
    again.assert_nothing_left()


def assert_the_work_was_done(var):
    assert outcomes_in(var / "demo.sqlite3") >= {
        ("places.tasks.import_places", "failed", None),
        ("places.tasks.import_places", "discarded", "revoked"),
        ("places.tasks.write_continent", "discarded", "expired"),
        ("places.tasks.fetch_countries", "parked", "max_retries"),
        ("places.tasks.build_report", "aborted", "aborted"),
        ("places.tasks.withdraw_place", "discarded", "ignored"),
        ("places.tasks.suggest_place", "discarded", "rejected"),
        ("places.tasks.bind_atlas", "succeeded", None),
    }
    assert (var / "reports/report-1.svg").read_text().startswith("<svg")
    assert "| America | 144 |" in (var / "reports/report-1.md").read_text()
    assert "[Africa](atlas-africa.md): 52 places" in (var / "reports/atlas.md").read_text()


def outcomes_in(database):
    connection = sqlite3.connect(database)
    try:
        return set(connection.execute("SELECT task, status, reason FROM lrp_celery_call"))
    finally:
        connection.close()


def assert_the_login_works(site):
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    browser.open(f"{site}/login/").close()
    (token,) = (cookie.value for cookie in jar if cookie.name == "csrftoken")
    form = {"username": "admin", "password": "admin", "csrfmiddlewaretoken": token, "next": "/admin/"}
    browser.open(f"{site}/login/", urllib.parse.urlencode(form).encode()).close()
    for page in ("places/place/", "lrp_celery/call/"):
        with browser.open(f"{site}/{page}") as answer:
            assert answer.url == f"{site}/{page}"
            assert b"Log out" in answer.read()


# --- Which broker it uses; test_broker.py has the rungs of the ladder


@pytest.mark.services
def test_two_demos_share_a_given_redis_without_taking_each_others_calls(start_demo):
    with services.private_redis() as server:
        demos = [start_demo("--once", CELERY_BROKER_URL=server.url) for _ in range(2)]
        assert [demo.wait() for demo in demos] == [0, 0], demos[0].output + demos[1].output
        for demo in demos:
            assert_all_is_right(demo)
            assert "because CELERY_BROKER_URL says so" in demo.output


@pytest.mark.services
def test_a_given_rabbitmq_serves_as_well(start_demo, rabbitmq_vhost):
    demo = start_demo("--once", CELERY_BROKER_URL=rabbitmq_vhost)
    assert demo.wait() == 0, demo.output
    assert_all_is_right(demo)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_given_broker_that_cannot_be_reached_is_an_error(start_demo, scheme):
    demo = start_demo("--once", CELERY_BROKER_URL=f"{scheme}://:secret@127.0.0.1:{closed_port()}//")
    assert demo.wait() == 1
    assert "CELERY_BROKER_URL is" in demo.output
    assert "refused" in demo.output
    assert "secret" not in demo.output
    assert "Traceback" not in demo.output
    demo.assert_nothing_left()


# --- How it ends


@pytest.mark.parametrize("moment", ["broker", "logs"])
def test_a_signal_before_it_is_ready_ends_it_too(start_demo, moment):
    demo = start_demo()
    demo.wait_for(moment)
    demo.send(signal.SIGTERM)
    assert demo.wait() == 128 + signal.SIGTERM, demo.output
    demo.assert_nothing_left()


def test_a_closed_terminal_ends_it(start_demo):
    demo = start_demo("--no-calls", kind=DemoInTerminal)
    demo.wait_for("READY")
    demo.close_terminal()
    assert demo.wait() == 0
    demo.assert_nothing_left()


def test_the_death_of_a_child_ends_it_with_an_error(start_demo):
    """The broker's: it leaves the others in the worst position. test_supervisor.py has any child's."""
    demo = start_demo("--no-calls")
    demo.wait_for("READY")
    os.kill(demo.child("-server ").pid, signal.SIGKILL)
    assert demo.wait() == 1
    assert "The demo failed: broker ended with -9" in demo.output
    assert demo.left_behind() == []
    demo.assert_nothing_left()


@pytest.mark.parametrize("moment", ["broker", "READY"])
def test_nothing_outlives_a_demo_that_is_killed(start_demo, moment):
    demo = start_demo(*(["--no-calls"] if moment == "READY" else []))
    demo.wait_for(moment)
    demo.send(signal.SIGKILL)
    demo.wait()
    demo.assert_nothing_left()
