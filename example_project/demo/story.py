"""What the demo does with the atlas, and what must have become of each call."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shutil import copyfile
from uuid import uuid4

from celery import chain, chord
from celery.result import GroupResult
from config.celery import app
from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone
from places import tasks
from places.models import Import

from django_app.models import Call
from lrp_celery import CallSnapshot, CallStatus, calls

from .console import say
from .mirror import DATA

#: Where `watch_inbox` looks for files.
INBOX: Path = settings.VAR_DIR / "inbox"

#: Seconds that the worker is given to answer its first ping.
WORKER_START = 60.0

#: Seconds in which every call must have ended and be tracked.
PATIENCE = 60.0

#: Seconds between two looks.
GLANCE = 0.1

#: A line of the table: task, id, expected, tracked, runs, the call.
ROW = "{:<15} {:<8}  {:<20}  {:<20}  {:<4}  {}".format


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How a call must end. `runs` of None leaves open how often it ran."""

    status: CallStatus
    reason: str | None = None
    runs: int | None = None

    def __str__(self) -> str:
        return _outcome(self.status, self.reason)

    def fits(self, call: CallSnapshot) -> bool:
        """Tell whether the call ended like this."""
        return call.status is self.status and call.reason == self.reason and self.runs in (None, call.attempt)


SUCCEEDED = Expected(status=CallStatus.SUCCEEDED, runs=1)
SUCCEEDED_AT_THIRD = Expected(status=CallStatus.SUCCEEDED, runs=3)
FAILED = Expected(status=CallStatus.FAILED, runs=1)
PARKED = Expected(status=CallStatus.PARKED, reason="max_retries", runs=3)
ABORTED = Expected(status=CallStatus.ABORTED, reason="aborted", runs=1)
IGNORED = Expected(status=CallStatus.DISCARDED, reason="ignored", runs=1)
REJECTED = Expected(status=CallStatus.DISCARDED, reason="rejected", runs=1)
REVOKED = Expected(status=CallStatus.DISCARDED, reason="revoked", runs=0)
EXPIRED = Expected(status=CallStatus.DISCARDED, reason="expired", runs=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One call of the story. `find` gives its id, or None while nobody knows it."""

    title: str
    find: Callable[[], str | None]
    expected: Expected

    def look(self) -> CallSnapshot | None:
        """Return the call as it is tracked now."""
        call_id = self.find()
        return calls.get(call_id) if call_id else None


def tell(*, sends_calls: bool) -> int:
    """Wait for the worker, play the story, print what became of it, and return the exit code."""
    _let_in("admin", "admin")
    INBOX.mkdir(parents=True, exist_ok=True)
    if not _worker_answers(os.environ["DEMO_NODE"]):
        say("The worker does not answer.")
        return 1
    if not sends_calls:
        return 0
    scenes = _send(f"http://127.0.0.1:{os.environ['DEMO_PORT']}/mirror")
    _await_outcomes(scenes)
    return _review(scenes)


def _let_in(name: str, password: str) -> None:
    """Make sure that the login of the demo exists and works."""
    people = get_user_model().objects
    person = people.filter(username=name).first()
    if person is None:
        people.create_superuser(name, password=password)
    elif not person.check_password(password):
        person.set_password(password)
        person.save()


def _worker_answers(node: str) -> bool:
    deadline = time.monotonic() + WORKER_START
    while time.monotonic() < deadline:
        if app.control.ping(destination=[node], timeout=0.5):
            return True
    return False


def _send(mirror: str) -> list[Scene]:
    """Send the calls of the story."""
    began = timezone.now()
    _drop_into_inbox(DATA / "antarctica.csv")
    scenes = [
        *_calls_that_never_run(),
        *_calls_that_fetch(mirror),
        *_calls_that_go_wrong(),
        *_calls_of_beat(began),
    ]
    chain_of_calls = _calls_of_a_chain()
    _await_outcomes(chain_of_calls)  # the atlas is of the places that are imported there
    return [*chain_of_calls, *_calls_of_a_chord(), *_calls_that_are_aborted(), *scenes]


def _calls_that_never_run() -> Iterator[Scene]:
    late = tasks.write_continent.apply_async(("Europe",), countdown=3, expires=2)
    yield _scene("a chapter that was wanted before it could start", late.id, EXPIRED)
    withdrawn = tasks.import_places.apply_async((str(DATA / "places.csv"),), countdown=3)
    withdrawn.revoke()
    yield _scene("an import that was called off in time", withdrawn.id, REVOKED)


def _calls_of_a_chain() -> list[Scene]:
    places = str(DATA / "places.csv")
    drawn = chain(tasks.import_places.s(places), tasks.build_report.s(), tasks.draw_chart.s()).apply_async()
    titles = ("import all places", "... then report on them", "... then draw the report")
    ids = reversed(drawn.as_list())
    return [_scene(title, call_id, SUCCEEDED) for title, call_id in zip(titles, ids, strict=True)]


def _calls_of_a_chord() -> Iterator[Scene]:
    names = ("Africa", "Asia", "Europe")
    bound = chord(tasks.write_continent.s(name) for name in names)(tasks.bind_atlas.s())
    if isinstance(bound.parent, GroupResult):
        for name, chapter in zip(names, bound.parent.results or (), strict=True):
            yield _scene(f"write the chapter on {name}", chapter.id, SUCCEEDED)
    yield _scene("... then bind the atlas", bound.id, SUCCEEDED)


def _calls_that_are_aborted() -> Iterator[Scene]:
    """A report that takes its time is told to end once it runs."""
    number = Import.objects.latest("pk").pk
    slow = tasks.build_report.using(owner="admin").call(number, pause=PATIENCE)
    _await_start(slow)
    tasks.build_report.abort(slow, reason="the import was the wrong one", by="admin")
    yield _scene("a report that is called off while it is written", slow, ABORTED)


def _calls_that_fetch(mirror: str) -> Iterator[Scene]:
    patient = tasks.fetch_countries.delay(f"{mirror}/{uuid4()}/2/countries.csv")
    yield _scene("fetch from a mirror that is busy twice", patient.id, SUCCEEDED_AT_THIRD)
    in_vain = tasks.fetch_countries.delay(f"{mirror}/{uuid4()}/1000/countries.csv")
    yield _scene("fetch from a mirror that stays busy", in_vain.id, PARKED)


def _calls_that_go_wrong() -> Iterator[Scene]:
    smudged = tasks.import_places.delay(str(DATA / "smudged.csv"))
    yield _scene("import a file with an unreadable line", smudged.id, FAILED)
    lost = tasks.withdraw_place.delay("Atlantic/Atlantis")
    yield _scene("withdraw a place that does not exist", lost.id, IGNORED)
    moon = tasks.suggest_place.delay("Moon/Tranquility", "US", 0.67, 384.4)
    yield _scene("suggest a place that is not on Earth", moon.id, REJECTED)


def _calls_of_beat(began: datetime) -> Iterator[Scene]:
    """Beat finds the inbox filled within seconds; only the tracked calls tell which run it was."""

    def imported() -> Call | None:
        runs = Call.objects.filter(schedule="watch-inbox").values("call_id")
        found = Call.objects.filter(task=tasks.import_places.name, enqueued_at__gte=began)
        return found.filter(parent_id__in=runs).first()

    def run_of_beat() -> str | None:
        call = imported()
        return call.parent_id if call else None

    def import_of_beat() -> str | None:
        call = imported()
        return call.call_id if call else None

    yield Scene(title="by beat: look into the inbox", find=run_of_beat, expected=SUCCEEDED)
    yield Scene(title="... and import what is there", find=import_of_beat, expected=SUCCEEDED)


def _drop_into_inbox(file: Path) -> None:
    arriving = INBOX / f"{file.stem}.arriving"
    copyfile(file, arriving)
    arriving.rename(INBOX / file.name)  # whole or not at all: the watcher may look at any time


def _scene(title: str, call_id: str, expected: Expected) -> Scene:
    return Scene(title=title, find=lambda: call_id, expected=expected)


def _await_outcomes(scenes: list[Scene]) -> None:
    """Wait until every call has ended and is tracked; after PATIENCE, let the review tell."""
    deadline = time.monotonic() + PATIENCE
    waiting = list(scenes)
    while waiting and time.monotonic() < deadline:
        waiting = [scene for scene in waiting if not _has_ended(scene.look())]
        time.sleep(GLANCE)


def _await_start(call_id: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        call = calls.get(call_id)
        if call is not None and call.started_at is not None:
            return
        time.sleep(GLANCE)


def _has_ended(call: CallSnapshot | None) -> bool:
    return call is not None and call.is_terminal


def _review(scenes: list[Scene]) -> int:
    """Print a line for each call, and what is wrong; return 1 if anything is."""
    say("\n" + ROW("task", "id", "expected", "tracked", "runs", "the call"))
    wrong = [scene for scene in scenes if not _is_right(scene)]
    if wrong:
        say(f"\n{len(wrong)} of {len(scenes)} calls did not end as expected.")
    return 1 if wrong else 0


def _is_right(scene: Scene) -> bool:
    """Print the line of one call, and tell whether it ended as expected."""
    call, expected = scene.look(), str(scene.expected)
    if call is None:
        say(ROW("", "", expected, "no row", "", f"{scene.title}  <-- differs"))
        return False
    task, tracked = call.task.rpartition(".")[2], _outcome(call.status, call.reason)
    is_right = scene.expected.fits(call)
    verdict = "" if is_right else f"  <-- differs: {call.last_error or 'no error'}"
    say(ROW(task, call.call_id[-8:], expected, tracked, call.attempt, scene.title + verdict))
    return is_right


def _outcome(status: CallStatus, reason: str | None) -> str:
    return f"{status.value} ({reason})" if reason else status.value
