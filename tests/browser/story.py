"""Two days in the life of an atlas: calls of every kind, as rows, for tests and pictures."""

import random
from datetime import datetime, timedelta
from math import pi, sin
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from django_app.models import Attempt, Call, Worker
from django_app.rollup import roll_up
from lrp_celery.tracking.status import TERMINAL

WORKER = "celery@atlas-worker-1"
OTHER_WORKER = "celery@atlas-worker-2"

SMUDGED = """Traceback (most recent call last):
  File "/srv/atlas/.venv/lib/python3.12/site-packages/celery/app/trace.py", line 585, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/srv/atlas/.venv/lib/python3.12/site-packages/celery/app/trace.py", line 858, in __protected_call__
    return self.run(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/atlas/places/tasks.py", line 28, in import_places
    places = read_places(source)
             ^^^^^^^^^^^^^^^^^^^
  File "/srv/atlas/places/readers.py", line 58, in _degrees
    raise MalformedFile(f"{where}: {column} {text!r} is not a number") from None
places.readers.MalformedFile: smudged.csv, line 14: latitude '48?12' is not a number
"""

BUSY = """Traceback (most recent call last):
  File "/srv/atlas/.venv/lib/python3.12/site-packages/celery/app/autoretry.py", line 38, in run
    return task._orig_run(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/atlas/places/tasks.py", line 65, in fetch_countries
    countries = read_countries(url, download(url))
                                    ^^^^^^^^^^^^^
  File "/srv/atlas/places/mirrors.py", line 29, in download
    raise MirrorBusy(url, response.status) from None
places.mirrors.MirrorBusy: https://mirror.example.org/countries.csv answered 503
"""


class Story:
    """Writes calls as if they had happened before `now`."""

    def __init__(self, now: datetime, *, using: str = "default", seed: int = 7):
        self.now = now
        self.using = using
        self.random = random.Random(seed)
        self.calls: dict[str, Call] = {}

    def call(self, task, status, *, age, name=None, wait=0.03, took=0.4, **values):
        """Add a call that was asked for `age` seconds ago; `name` keeps it in `calls`."""
        enqueued_at = self.now - timedelta(seconds=age)
        known = {
            "call_id": self.new_id(enqueued_at),
            "task": f"places.tasks.{task}",
            "status": status,
            "queue": "celery",
            "source_instance_id": "atlas-web-1",
            "source_script": "places.views:upload",
            "source_node": "gen4711@atlas-web-1",
            "enqueued_at": enqueued_at,
            "published_at": enqueued_at,
            "updated_at": enqueued_at,
            **values,
        }
        known.setdefault("root_id", known["call_id"])
        if known.get("attempt", 1 if status in {"started", "succeeded", "failed", "parked", "retrying"} else 0):
            self.began(known, age, wait)
        if status in TERMINAL:
            known.setdefault("terminal_at", known.get("started_at", enqueued_at) + timedelta(seconds=took))
            known["updated_at"] = known["terminal_at"]
        if known.get("run") and status in TERMINAL:
            known.setdefault("run_outcome", status)
        made = Call.objects.using(self.using).create(**known)
        if name:
            self.calls[name] = made
        return made

    def began(self, known, age, wait):
        started_at = known["enqueued_at"] + timedelta(seconds=min(wait, age))
        known.setdefault("attempt", 1)
        known.setdefault("runs", known["attempt"])
        known.setdefault("started_at", started_at)
        known.setdefault("worker", self.random.choice((WORKER, OTHER_WORKER)))
        known.setdefault("pid", self.random.choice((4182, 4183, 4190, 4191)))
        known.setdefault("run", self.run(known["call_id"], known["attempt"]))
        known["updated_at"] = known["started_at"]

    def attempt(self, call, number, outcome, *, after, took, **values):
        """Add a run that began `after` seconds after the call was asked for."""
        started_at = call.enqueued_at + timedelta(seconds=after)
        known = {
            "run": self.run(call.pk, number),
            "worker": call.worker,
            "pid": call.pid,
            "started_at": started_at,
            "ended_at": None if took is None else started_at + timedelta(seconds=took),
            **values,
        }
        return Attempt.objects.using(self.using).create(call=call, number=number, outcome=outcome, **known)

    def run(self, call_id, number):
        return f"{call_id[-50:]}-{number}"

    def new_id(self, instant):
        """Return an id that begins with the time, as UUID version 7 does."""
        milliseconds = int(instant.timestamp() * 1000)
        tail = self.random.getrandbits(80) & ~(0xF << 76) | 0x7 << 76
        return str(UUID(int=milliseconds << 80 | tail & ~(0b11 << 62) | 0b10 << 62))

    def seconds(self, low, high):
        return self.random.uniform(low, high)

    # --- scenes

    def tell(self, hours=20):
        """Write the whole story: `hours` of ordinary days, then one of everything that may become of a call."""
        with transaction.atomic(using=self.using):
            self.tell_all(hours)
        return self

    def tell_all(self, hours):
        for hour in range(hours, 0, -1):
            self.ordinary_hour(hour * 3600)
        self.chain(2900)
        self.chord(2400)
        self.atlas_of_today()

    def dashboard(self, days=7, pace=40):
        """Write days of busy traffic, workers, and what runs now; then have all that ended counted."""
        made = [call for hour in range(days * 24) for call in self.busy_hour(hour, pace)]
        Call.objects.using(self.using).bulk_create(made, batch_size=500)
        self.call("write_continent", "started", age=700, name="slow", worker=WORKER, target_summary="('Asia',)")
        for name, silence, waiting, dropped in (
            (WORKER, 1, 0, 0),
            (OTHER_WORKER, 14, 51_300, 0),
            ("celery@atlas-slow-1", 260, 0, 3),
        ):
            seen_at = timezone.now() - timedelta(seconds=silence)
            Worker.objects.using(self.using).create(
                boot_id=f"{name}-boot",
                name=name,
                host=name.partition("@")[2],
                pid=4100,
                pool="prefork",
                started_at=self.now - timedelta(hours=31),
                seen_at=seen_at,
                waiting=waiting,
                dropped=dropped,
            )
        roll_up(using=self.using)
        return self

    def busy_hour(self, hour, pace):
        """Yield rows, not saved, of an hour so long ago: more by day than by night, and some that failed."""
        tasks = {
            "watch_inbox": 0.02,
            "suggest_place": 0.08,
            "import_places": 4,
            "draw_chart": 0.9,
            "write_continent": 12,
            "fetch_countries": 2,
        }
        errors = ("places.readers.MalformedFile", "places.mirrors.MirrorBusy", "django.db.utils.OperationalError")
        by_day = 0.35 + 0.65 * max(0.0, sin((hour % 24) / 24 * 2 * pi))
        for _ in range(int(pace * by_day * self.seconds(0.7, 1.3))):
            task, took = self.random.choice(list(tasks.items()))
            dice, terminal_at = self.random.random(), self.now - timedelta(hours=hour, seconds=self.seconds(1, 3500))
            status = (
                "failed" if dice < 0.04 else "parked" if dice < 0.05 else "discarded" if dice < 0.07 else "succeeded"
            )
            run, wait = took * self.random.lognormvariate(0, 0.7), 0.03 * self.random.lognormvariate(0, 1.2)
            started_at = terminal_at - timedelta(seconds=run)
            enqueued_at = started_at - timedelta(seconds=wait)
            call_id = self.new_id(enqueued_at)
            yield Call(
                call_id=call_id,
                root_id=call_id,
                task=f"places.tasks.{task}",
                status=status,
                queue="celery",
                worker=self.random.choice((WORKER, OTHER_WORKER)),
                attempt=1,
                runs=1,
                run=self.run(call_id, 1),
                run_outcome=status,
                error_type=self.random.choice(errors) if status in {"failed", "parked"} else None,
                enqueued_at=enqueued_at,
                published_at=enqueued_at,
                started_at=started_at,
                updated_at=terminal_at,
                terminal_at=terminal_at,
            )

    def ordinary_hour(self, age):
        self.call(
            "watch_inbox",
            "succeeded",
            age=age,
            took=self.seconds(0.01, 0.05),
            schedule="watch-inbox",
            source_script="watch-inbox",
            target_summary="()",
        )
        if self.random.random() < 0.4:
            self.chain(age - 600)
        if self.random.random() < 0.15:
            self.parked(age - 900)
        if self.random.random() < 0.1:
            self.failed_import(age - 1200, name=None)

    def chain(self, age):
        first = self.call(
            "import_places",
            "succeeded",
            age=age,
            took=self.seconds(1, 9),
            target_summary="('/srv/atlas/in/places.csv',)",
        )
        report = self.call(
            "build_report",
            "succeeded",
            age=age - 10,
            took=self.seconds(0.2, 1),
            root_id=first.pk,
            parent_id=first.pk,
            target_summary=f"({self.random.randint(20, 90)},)",
            source_script="places.tasks:import_places",
        )
        self.call(
            "draw_chart",
            "succeeded",
            age=age - 12,
            took=self.seconds(0.5, 2),
            root_id=first.pk,
            parent_id=report.pk,
            target_summary=f"({self.random.randint(20, 90)},)",
        )
        self.calls["chain"] = first

    def chord(self, age):
        atlas = self.call(
            "print_atlas", "succeeded", age=age, target_summary="()", schedule="nightly-atlas", name="atlas"
        )
        group = self.new_id(atlas.enqueued_at)
        for continent in ("Africa", "America", "Asia", "Europe", "Oceania"):
            self.call(
                "write_continent",
                "succeeded",
                age=age - 1,
                took=self.seconds(2, 20),
                root_id=atlas.pk,
                parent_id=atlas.pk,
                group_id=group,
                target_summary=f"('{continent}',)",
                queue="slow",
            )
        self.call(
            "bind_atlas", "succeeded", age=age - 25, root_id=atlas.pk, parent_id=atlas.pk, target_summary="([…],)"
        )

    def failed_import(self, age, *, name):
        call = self.call(
            "import_places",
            "failed",
            age=age,
            wait=0.04,
            took=0.12,
            name=name,
            target_summary="('/srv/atlas/in/smudged.csv',)",
            error_type="places.readers.MalformedFile",
            last_error="smudged.csv, line 14: latitude '48?12' is not a number",
        )
        self.attempt(
            call,
            1,
            "failed",
            after=0.04,
            took=0.12,
            error_type=call.error_type,
            last_error=call.last_error,
            traceback=SMUDGED,
        )
        return call

    def parked(self, age, *, name=None):
        url = "https://mirror.example.org/countries.csv"
        error = {"error_type": "places.mirrors.MirrorBusy", "last_error": f"{url} answered 503"}
        call = self.call(
            "fetch_countries",
            "parked",
            age=age,
            name=name,
            reason="max_retries",
            retries=2,
            attempt=3,
            due_at=self.now - timedelta(seconds=age - 41),
            started_at=self.now - timedelta(seconds=age - 41.3),
            took=self.seconds(0.4, 3),
            http_status=503,
            target_summary=f"('{url}',)",
            **error,
        )
        took = (call.terminal_at - call.started_at).total_seconds()
        self.attempt(call, 1, "retried", after=0.2, took=2.1, traceback=BUSY, **error)
        self.attempt(call, 2, "retried", after=20.5, took=1.7, retries=1, traceback=BUSY, worker=OTHER_WORKER, **error)
        self.attempt(call, 3, "parked", after=41.3, took=took, retries=2, traceback=BUSY, **error)
        return call

    def atlas_of_today(self):
        """One of everything that may become of a call."""
        url = "https://mirror.example.org/countries.csv"
        busy = {"error_type": "places.mirrors.MirrorBusy", "last_error": f"{url} answered 503"}
        self.failed_import(1500, name="failed")
        lost = self.call(
            "draw_chart",
            "failed",
            age=1300,
            took=31,
            reason="worker_lost",
            name="lost",
            error_type="billiard.exceptions.WorkerLostError",
            last_error="Worker exited prematurely: signal 9 (SIGKILL) Job: 117.",
            target_summary="(81,)",
        )
        self.attempt(lost, 1, "failed", after=0.03, took=31, error_type=lost.error_type, last_error=lost.last_error)
        self.call(
            "write_continent",
            "failed",
            age=1200,
            took=300,
            reason="time_limit",
            error_type="billiard.exceptions.SoftTimeLimitExceeded",
            last_error="SoftTimeLimitExceeded()",
            target_summary="('Antarctica',)",
            queue="slow",
        )
        self.call(
            "write_continent",
            "discarded",
            age=1100,
            reason="expired",
            took=61,
            target_summary="('Europe',)",
            queue="slow",
        )
        self.call(
            "import_places",
            "discarded",
            age=1000,
            reason="revoked",
            took=2,
            target_summary="('/srv/atlas/in/places.csv',)",
        )
        self.call(
            "withdraw_place",
            "discarded",
            age=900,
            reason="ignored",
            attempt=1,
            took=0.02,
            target_summary="('Atlantic/Atlantis',)",
            error_type="celery.exceptions.Ignore",
            last_error="there is no Atlantic/Atlantis",
        )
        self.call(
            "suggest_place",
            "discarded",
            age=800,
            reason="rejected",
            attempt=1,
            took=0.02,
            target_summary="('Moon/Tranquility', 'US', 0.67, 384.4), {'api_key': '********'}",
            error_type="celery.exceptions.Reject",
            last_error="0.67, 384.4 is not on Earth",
        )
        self.call("build_report", "aborted", age=700, reason="aborted", attempt=1, took=48, target_summary="(77,)")
        self.call(
            "import_places",
            "started",
            age=640,
            name="running",
            target_summary="('/srv/atlas/in/world-2.csv',)",
            queue="slow",
        )
        self.parked(420, name="parked")
        patient = self.call(
            "fetch_countries",
            "succeeded",
            age=300,
            name="patient",
            retries=1,
            attempt=2,
            redelivered=True,
            due_at=self.now - timedelta(seconds=290),
            started_at=self.now - timedelta(seconds=289.9),
            took=0.9,
            late_runs=1,
            target_summary=f"('{url}',)",
            acks_late=True,
        )
        self.attempt(patient, 1, "retried", after=0.1, took=3.2, traceback=BUSY, **busy)
        self.attempt(patient, 3, "failed", after=13.5, took=2, late=True, traceback=BUSY, **busy)
        retrying = self.call(
            "fetch_countries",
            "retrying",
            age=75,
            name="retrying",
            retries=1,
            run=None,
            due_at=self.now + timedelta(seconds=100),
            target_summary=f"('{url}',)",
            **busy,
        )
        Call.objects.using(self.using).filter(pk=retrying.pk).update(run=None)
        self.attempt(retrying, 1, "retried", after=0.1, took=2.3, traceback=BUSY, **busy)
        self.call("build_report", "submitted", age=190, name="overdue", target_summary="(82,)", queue="reports")
        self.call(
            "draw_chart",
            "submitted",
            age=60,
            name="unpublished",
            published_at=None,
            target_summary="(82,)",
            error_type="kombu.exceptions.OperationalError",
            last_error="[Errno 111] Connection refused",
        )
        self.call(
            "print_atlas",
            "submitted",
            age=45,
            name="due",
            due_at=self.now + timedelta(hours=7),
            schedule="nightly-atlas",
            target_summary="()",
        )
        self.call(
            "import_places",
            "started",
            age=38,
            target_summary="('/srv/atlas/in/europe.csv',)",
            rerun_of=self.calls["failed"].pk,
        )
        self.call("watch_inbox", "succeeded", age=20, took=0.014, schedule="watch-inbox", target_summary="()")
        self.call(
            "suggest_place",
            "succeeded",
            age=9,
            took=0.021,
            target_summary="('Europe/Vienna', 'AT', 48.2, 16.37)",
            name="quick",
        )
        self.call("build_report", "submitted", age=1.2, target_summary="(83,)", name="waiting")
        silent = self.call(
            "import_places", "started", age=30 * 3600, name="silent", target_summary="('/srv/atlas/in/old.csv',)"
        )
        Call.objects.using(self.using).filter(pk=silent.pk).update(updated_at=silent.started_at)
