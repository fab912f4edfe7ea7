"""A stranger's project: the wheel, installed in an environment of its own, outside the repository."""

import contextlib
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests import services

pytestmark = [pytest.mark.integration, pytest.mark.services, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that one command may take. Only a test that fails waits for so long.
PATIENCE = 60
#: What strangers have installed beside us, where there is a version for this Python.
NEIGHBOURS = [name for name in ("django_celery_results", "django_celery_beat") if importlib.util.find_spec(name)]

CELERY = """
import os
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
SETTINGS = """
INSTALLED_APPS += {apps}
DATABASES["default"]["TEST"] = {{"NAME": BASE_DIR / "test.sqlite3"}}
CELERY_BROKER_URL = {broker_url!r}
CELERY_BROKER_TRANSPORT_OPTIONS = {broker_transport_options}
CELERY_RESULT_BACKEND = {backend!r}
"""
TASKS = """
from celery import shared_task

@shared_task
def price(amount, each=2):
    return amount * each
"""
TESTS = """
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import TestCase
from django.utils import translation
from lrp_celery import calls
from shop.celery import app
from orders.tasks import price

class OrderTests(TestCase):
    def setUp(self):
        app.conf.task_always_eager = True
        self.addCleanup(setattr, app.conf, "task_always_eager", False)

    def test_a_price(self):
        result = price.delay(3)
        self.assertEqual(result.get(), 6)
        self.assertEqual(calls.get(result.id).status, "succeeded")

    def test_the_admin(self):
        call_id = price.delay(3).id
        self.client.force_login(User.objects.create_superuser("ada"))
        for page in ("/admin/lrp_celery/call/", f"/admin/lrp_celery/call/{call_id}/change/"):
            self.assertContains(self.client.get(page), "orders.tasks.price")
        self.assertIsNotNone(finders.find("lrp_celery/admin.css"))
        with translation.override("de"):
            self.assertEqual(apps.get_app_config("lrp_celery").verbose_name, "Celery-Aufrufe")
"""
CALLING = """
import time
from lrp_celery import calls
from orders.tasks import price

result = price.delay(21)
deadline = time.monotonic() + 30
while not calls.get(result.id).is_terminal and time.monotonic() < deadline:
    time.sleep(0.05)
call = calls.get(result.id)
print(call.task, call.status, call.target_summary, call.attempt, result.get(timeout=5))
"""
WHERE = "import lrp_celery, django_app; print(lrp_celery.__file__); print(django_app.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An interpreter that has the wheel, and of this environment only what others wrote."""
    pytest.importorskip("uv")
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, folder], folder)
    interpreter = folder / "bin" / "python"
    install = ["pip", "install", "--quiet", "--offline", "--no-deps", "--python", interpreter, wheel]
    run([sys.executable, "-m", "uv", *install], folder)
    (packages,) = folder.glob("lib/*/site-packages")
    # Searched last, and its own .pth files, one of which leads to the checkout, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.fixture(scope="module")
def project(python, tmp_path_factory, redis_space):
    """A project as Django makes it, with one task and its test."""
    folder = tmp_path_factory.mktemp("project")
    run([python, "-m", "django", "startproject", "shop", folder], folder)
    celery = services.celery_over_redis(redis_space)
    backend = "django-db" if "django_celery_results" in NEIGHBOURS else celery["result_backend"]
    apps = ["django_app", *NEIGHBOURS, "orders"]
    with (folder / "shop/settings.py").open("a") as settings:
        settings.write(SETTINGS.format(apps=apps, backend=backend, **celery))
    (folder / "shop/celery.py").write_text(CELERY)
    (folder / "shop/__init__.py").write_text("from shop.celery import app as celery_app\n")
    (folder / "orders").mkdir()
    for name, text in {"__init__": "", "tasks": TASKS, "tests": TESTS}.items():
        (folder / f"orders/{name}.py").write_text(text)
    run([python, "manage.py", "migrate", "--verbosity", "0"], folder)
    return folder


def run(command, folder):
    """Return what a command prints; its failure is the test's."""
    result = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def environment():
    """Nothing of this test run may lead a stranger to the checkout."""
    ours = ("PYTHON", "DJANGO", "LRP_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextlib.contextmanager
def worker(python, folder):
    """A worker of the project; its log when it has ended."""
    command = [python, "-m", "celery", "-A", "shop", "worker", "--concurrency", "1", "--loglevel", "INFO"]
    log = folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command), "--without-gossip", "--without-mingle"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def rows(database):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT task, status FROM lrp_celery_call").fetchall()


def test_the_wheel_holds_our_two_packages_and_all_they_need(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    tops = {name.partition("/")[0] for name in shipped}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lrp_celery", "django_app"}
    assert len(tops) == 3
    assert {"lrp_celery/py.typed", "django_app/py.typed", "django_app/migrations/0001_initial.py"} <= shipped
    for place, ending in [("templates", ".html"), ("static", ".css"), ("locale", ".mo")]:
        assert any(name.startswith(f"django_app/{place}/") and name.endswith(ending) for name in shipped), place


def test_the_stranger_runs_what_the_wheel_brought_and_not_the_checkout(python, project):
    places = run([python, "-c", WHERE], project).splitlines()
    assert len(places) == 2
    assert all(Path(place).is_relative_to(python.parent.parent) for place in places), places


def test_a_task_that_knows_nothing_of_us_is_tracked_and_its_tests_leave_no_rows(python, project):
    with worker(python, project) as log:
        # While the worker starts: --keepdb keeps what the tests leave in their database.
        run([python, "manage.py", "test", "--keepdb", "--verbosity", "0"], project)
        told = run([python, "manage.py", "shell", "--verbosity", "0", "--command", CALLING], project)
    assert told.splitlines()[-1] == "orders.tasks.price succeeded 21 1 42", told + log.read_text()
    assert rows(project / "db.sqlite3") == [("orders.tasks.price", "succeeded")]
    assert rows(project / "test.sqlite3") == []
    assert [trouble for trouble in ("Traceback", "Tracking lost") if trouble in log.read_text()] == []
