"""The example's own tests pass in a project of their own, as they would for its author."""

import os
import subprocess
import sys

from tests.example_project.running import EXAMPLE


def manage(*arguments, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "manage.py", *arguments],
        cwd=EXAMPLE,
        env=environment | {"ATLAS_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tasks_do_their_work(tmp_path):
    done = manage("test", tmp_path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 25 tests" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_example_has_no_complaints_of_the_system_checks(tmp_path):
    done = manage("check", tmp_path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues" in done.stdout


def test_the_migrations_are_complete(tmp_path):
    done = manage("makemigrations", "--check", "--dry-run", "places", tmp_path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
