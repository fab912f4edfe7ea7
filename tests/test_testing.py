"""What the docs say about testing procedures, run as a stranger would: in a project outside of the repository."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "procedures.md"
#: Seconds. Only a test that fails waits for so long.
PATIENCE = 60

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "for tests only"
USE_TZ = True
INSTALLED_APPS = ["django_app", "reports"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DATABASES["default"]["TEST"] = {"NAME": BASE_DIR / "test.sqlite3"}
CELERY_BROKER_URL = "memory://"
"""
CELERY = """
import os
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
TASKS = """
from celery import shared_task
from lrp_celery import AbortSignal, current_call, procedure

@procedure(timeout=60)
@shared_task
def build_report(signal: AbortSignal, month: str) -> dict[str, int]:
    if not month:
        raise ValueError("no month")
    for day in range(1, 32):
        signal.raise_if_aborted()
        current_call().progress(day, 31, "days")
    return {month: 31}
"""


def snippets():
    """Return the text of each file that the docs show, its pieces put together."""
    _before, found, section = DOCS.read_text().partition("\n## Testing your code\n")
    assert found
    files = {}
    for name, text in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        files[name] = files.get(name, "") + text + "\n\n"
    return files


@pytest.fixture
def project(tmp_path):
    files = {
        "shop/__init__.py": "from shop.celery import app as celery_app\n",
        "shop/settings.py": SETTINGS,
        "shop/celery.py": CELERY,
        "reports/__init__.py": "",
        "reports/tasks.py": TASKS,
        **snippets(),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_tests_of_the_docs_pass(project):
    options = ["-p", "no:cacheprovider", "-p", "no:valkey", "-q", "--ds=shop.settings", "--rootdir", project]
    command = [sys.executable, "-m", "pytest", *map(str, options), "reports/tests.py", "test_reports.py"]
    ours = ("PYTHON", "DJANGO", "LRP_", "PYTEST", "COV")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=project,
        env=theirs | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout, done.stdout
