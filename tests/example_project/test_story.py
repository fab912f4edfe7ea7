"""The story tells when a call did not end as it should; it is played in a process with its own settings."""

import os
import subprocess
import sys

from tests.example_project.running import EXAMPLE

REVIEW = """
from datetime import UTC, datetime
import django
django.setup()
from demo import story
from lrp_celery import CallSnapshot, CallStatus

now = datetime.now(UTC)
tracked = CallSnapshot(
    call_id="0123456789", task="places.tasks.{task}", status=CallStatus("{status}"), reason={reason},
    attempt={attempt}, last_error={error}, enqueued_at=now, updated_at=now,
)
story.calls.get = {{"there": tracked}}.get
scene = story.Scene(title="the call", find=lambda: "{call_id}", expected=story.{expected})
raise SystemExit(story._review([scene]))
"""


def review(tmp_path, *, call_id="there", status="succeeded", reason=None, attempt=1, error=None, expected="SUCCEEDED"):
    script = REVIEW.format(
        task="draw_chart",
        call_id=call_id,
        status=status,
        reason=repr(reason),
        attempt=attempt,
        error=repr(error),
        expected=expected,
    )
    surroundings = {
        "DJANGO_SETTINGS_MODULE": "demo.settings",
        "DEMO_RUN": str(tmp_path),
        "ATLAS_VAR": str(tmp_path),
        "CELERY_BROKER_URL": "filesystem://",
    }
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=EXAMPLE,
        env=os.environ | surroundings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_call_that_ended_as_expected_is_shown(tmp_path):
    done = review(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["draw_chart", "23456789", *["succeeded"] * 2, "1", "the", "call"]


def test_another_status_is_an_error(tmp_path):
    done = review(tmp_path, status="failed", error="out of ink")
    assert done.returncode == 1
    assert "<-- differs: out of ink" in done.stdout
    assert "1 of 1 calls did not end as expected." in done.stdout


def test_another_reason_is_an_error(tmp_path):
    assert review(tmp_path, status="discarded", reason="lost", attempt=0, expected="EXPIRED").returncode == 1


def test_another_number_of_runs_is_an_error(tmp_path):
    assert review(tmp_path, attempt=2).returncode == 1


def test_a_call_without_a_row_is_an_error(tmp_path):
    done = review(tmp_path, call_id="absent")
    assert done.returncode == 1
    assert "no row" in done.stdout
