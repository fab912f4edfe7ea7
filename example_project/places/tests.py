"""Tests of the atlas, as a user of Celery and Django writes them: `python manage.py test`."""
# ruff: noqa: PT009, PT027 - Django's own test cases and their assertions

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree as ET

from celery import current_app, states
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import call_command
from django.test import TestCase, override_settings
from django.urls import reverse

from lrp_celery import CallAborted, CallNotCommitted, CallSnapshot, CallState, CallStatus, current_call

from . import tasks
from .mirrors import MirrorBusy, download
from .models import Country, Import, Place, Report
from .readers import MalformedFile, read_places
from .tokens import make_token

DATA = Path(__file__).parent / "data"


class AtlasTestCase(TestCase):
    """Tasks run in place, and files go to a folder of the test."""

    def setUp(self) -> None:
        """Give the test a folder of its own, and let tasks that send tasks run them at once."""
        folder = self.enterContext(TemporaryDirectory())
        self.enterContext(override_settings(VAR_DIR=Path(folder)))
        self.addCleanup(setattr, current_app.conf, "task_always_eager", current_app.conf.task_always_eager)
        current_app.conf.task_always_eager = True

    def _write(self, text: str) -> Path:
        path = Path(settings.VAR_DIR) / "places.csv"
        path.write_text(text)
        return path


class ReceiverTests(AtlasTestCase):
    """What follows when a call has ended. It follows the commit, which a `TestCase` has to be asked for."""

    def test_editors_are_written_to_when_a_call_has_failed(self) -> None:
        """They read of which call it was, and why."""
        with self.captureOnCommitCallbacks(execute=True):
            call_id = tasks.import_places.call(str(DATA / "smudged.csv"))
        (message,) = mail.outbox
        self.assertIn(call_id, message.subject)
        self.assertIn("MalformedFile", message.body)

    def test_nobody_is_written_to_of_a_success(self) -> None:
        """What went well is no news."""
        with self.captureOnCommitCallbacks(execute=True):
            tasks.import_places.call(str(DATA / "places.csv"))
        self.assertEqual(mail.outbox, [])


class ImportTests(AtlasTestCase):
    """Importing files of places."""

    def test_an_import_saves_every_place_and_its_progress(self) -> None:
        """The shipped file has 407 places, saved in steps."""
        number = tasks.import_places.apply((str(DATA / "places.csv"),)).get()
        record = Import.objects.get(pk=number)
        self.assertEqual((record.rows_done, record.rows_total), (407, 407))
        self.assertIsNotNone(record.finished_at)
        self.assertEqual(Place.objects.count(), 407)
        paris = Place.objects.get(zone="Europe/Paris")
        self.assertEqual((paris.name, paris.continent, paris.country), ("Paris", "Europe", "FR"))
        self.assertAlmostEqual(paris.latitude, 48.8667)

    def test_an_import_tells_how_far_it_is(self) -> None:
        """Eagerly, a call has run when it was made, and says the rest of what it said."""
        call_id = tasks.import_places.call(str(DATA / "places.csv"))
        call = tasks.import_places.get_call(call_id)
        assert call is not None and call.progress is not None  # noqa: PT018, S101 - for the type checker
        self.assertEqual((call.status, call.progress.done, call.progress.total), (CallStatus.SUCCEEDED, 407, 407))
        self.assertEqual(tasks.import_places.get_result(call_id), Import.objects.get().pk)

    def test_importing_again_corrects_and_does_not_double(self) -> None:
        """A zone is one place, however often it comes."""
        for latitude in ("1.5", "2.5"):
            path = self._write(f"zone,country,latitude,longitude\nAsia/Nowhere,XX,{latitude},3\n")
            tasks.import_places.apply((str(path),)).get()
        self.assertEqual(Place.objects.get().latitude, 2.5)

    def test_a_malformed_file_names_its_line_and_changes_nothing(self) -> None:
        """The whole file is read before a row is saved."""
        result = tasks.import_places.apply((str(DATA / "smudged.csv"),))
        self.assertEqual(result.state, states.FAILURE)
        self.assertIsInstance(result.result, MalformedFile)
        self.assertEqual(str(result.result), "smudged.csv, line 5: latitude 'north of here' is not a number")
        self.assertFalse(Place.objects.exists() or Import.objects.exists())

    def test_unreadable_files_are_refused_with_the_reason(self) -> None:
        """Each of these is a mistake that files of places have."""
        for text, reason in {
            "zone,country\nA/B,XX\n": "places.csv: no column latitude, longitude",
            "": "places.csv: no column country, latitude, longitude, zone",
            "zone,country,latitude,longitude\nA/B,XX,1\n": "places.csv, line 2: too few columns",
            "zone,country,latitude,longitude\nA/B,XX,91,0\n": "places.csv, line 2: 91.0, 0.0 is not on Earth",
        }.items():
            with self.subTest(reason), self.assertRaises(MalformedFile) as caught:
                read_places(self._write(text))
            self.assertEqual(str(caught.exception), reason)

    def test_the_inbox_is_emptied_and_imported(self) -> None:
        """A file is taken out of the inbox and imported once."""
        inbox = Path(settings.VAR_DIR) / "inbox"
        inbox.mkdir()
        (inbox / "new.csv").write_bytes((DATA / "antarctica.csv").read_bytes())
        (inbox / "half.arriving").touch()
        self.assertEqual(len(tasks.watch_inbox.apply().get()), 1)
        self.assertEqual(tasks.watch_inbox.apply().get(), [])
        self.assertEqual(Place.objects.count(), 11)
        self.assertEqual([path.name for path in inbox.iterdir()], ["half.arriving"])


class ReportTests(AtlasTestCase):
    """Reports, charts and the atlas."""

    def setUp(self) -> None:
        """Import the shipped places."""
        super().setUp()
        self.number = tasks.import_places.apply((str(DATA / "places.csv"),)).get()

    def test_a_report_counts_the_places_of_each_continent(self) -> None:
        """The largest continent comes first, the total last."""
        report = Report.objects.get(pk=tasks.build_report.apply((self.number,)).get())
        lines = Path(report.file).read_text().splitlines()
        self.assertEqual(lines[0], f"# Places after import {self.number}, places.csv")
        self.assertEqual(lines[4], "| America | 144 |")
        self.assertEqual(lines[-1], "| total | 407 |")

    def test_a_report_that_is_called_off_is_not_written(self) -> None:
        """Somebody asks for its end while the first continent is counted."""

        def count(continent: str) -> int:
            tasks.build_report.abort(current_call().id, reason="wrong import")
            return 1

        with patch.object(tasks, "count_places", count):
            call_id = tasks.build_report.call(self.number, pause=60)
        with self.assertRaisesRegex(CallAborted, "wrong import"):
            tasks.build_report.get_result(call_id)
        self.assertFalse(Report.objects.exists())

    def test_a_chart_has_a_bar_for_each_continent(self) -> None:
        """The chart is well-formed SVG, and its longest bar belongs to the largest count."""
        report = tasks.build_report.apply((self.number,)).get()
        chart = Path(tasks.draw_chart.apply((report,)).get())
        bars = ET.parse(chart).getroot().findall("{http://www.w3.org/2000/svg}rect")  # noqa: S314 - our own file
        self.assertEqual(len(bars), 9)
        self.assertEqual([bars[0].get("width"), Report.objects.get().chart], ["400.0", str(chart)])

    def test_the_atlas_has_a_chapter_for_each_continent(self) -> None:
        """The chapters are written side by side, then bound."""
        Country.objects.create(code="SJ", name="Svalbard & Jan Mayen")
        tasks.print_atlas.apply().get()
        folder = Path(settings.VAR_DIR) / "reports"
        self.assertIn("- [Arctic](atlas-arctic.md): 1 places", (folder / "atlas.md").read_text())
        self.assertIn("| Longyearbyen | Svalbard & Jan Mayen | 78.0 | 16.0 |", (folder / "atlas-arctic.md").read_text())


class ReportPageTests(AtlasTestCase):
    """The page on which a report is ordered, watched and called off."""

    def setUp(self) -> None:
        """Import a few places, and log in."""
        super().setUp()
        self.number = tasks.import_places.apply((str(DATA / "antarctica.csv"),)).get()
        self.page = reverse("report", args=[self.number])
        self.client.force_login(get_user_model().objects.create_user("ada", is_staff=True))

    def test_a_report_is_ordered_and_shown(self) -> None:
        """Eagerly it is written when the page comes back."""
        response = self.client.post(self.page, follow=True)
        self.assertContains(response, "The report is <strong>succeeded</strong>: counted Antarctica, 1 of 1.")
        self.assertContains(response, f"Report {Report.objects.get().pk}")
        self.assertEqual(self._call().owner, "ada")

    def test_the_message_goes_out_after_the_commit(self) -> None:
        """Until then the call is pending, and waiting for it in the same transaction is refused."""
        current_app.conf.task_always_eager = False
        with self.captureOnCommitCallbacks() as callbacks:
            response = self.client.post(self.page, follow=True)
        self.assertEqual(len(callbacks), 1)
        self.assertContains(response, "The report is <strong>submitted</strong>.")
        self.assertIs(tasks.build_report.get_state(self._call().call_id), CallState.PENDING)
        with self.assertRaises(CallNotCommitted):
            tasks.build_report.get_result(self._call().call_id)

    def test_an_order_that_fails_leaves_no_call(self) -> None:
        """What is called in a transaction is rolled back with it."""
        with patch.object(Import, "save", side_effect=OSError("disk full")), self.assertRaises(OSError):
            self.client.post(self.page)
        self.assertFalse(Report.objects.exists() or Import.objects.get().report_call)

    def test_a_report_is_called_off_before_it_has_begun(self) -> None:
        """No worker runs here, so it waits; called off, it never runs."""
        current_app.conf.task_always_eager = False
        self.client.post(self.page)
        response = self.client.post(reverse("abort-report", args=[self.number]), follow=True)
        self.assertContains(response, "The report is <strong>aborted</strong>.")

    def _call(self) -> CallSnapshot:
        call = tasks.build_report.get_call(Import.objects.get().report_call)
        assert call is not None  # noqa: S101 - for the type checker
        return call


class PlaceTests(AtlasTestCase):
    """Single places, suggested and withdrawn."""

    def test_a_suggested_place_is_added(self) -> None:
        """What is on Earth is taken."""
        number = tasks.suggest_place.apply(("Asia/Nowhere", "XX", 1.0, 2.0)).get()
        self.assertEqual(Place.objects.get(pk=number).zone, "Asia/Nowhere")

    def test_a_place_that_is_not_on_earth_is_rejected(self) -> None:
        """What is not on Earth is rejected."""
        result = tasks.suggest_place.apply(("Moon/Tranquility", "US", 0.67, 384.4))
        self.assertEqual((result.state, Place.objects.count()), (states.REJECTED, 0))

    def test_a_place_is_withdrawn_once(self) -> None:
        """Withdrawing it again is nothing to do."""
        Place.objects.create(zone="Asia/Nowhere", country="XX", latitude=1, longitude=2)
        states_seen = [tasks.withdraw_place.apply(("Asia/Nowhere",)).state for _ in range(2)]
        self.assertEqual(states_seen, [states.SUCCESS, states.IGNORED])


class FetchTests(AtlasTestCase):
    """Fetching from a server that is busy at times."""

    def test_a_busy_mirror_is_asked_again(self) -> None:
        """The third answer is the right one."""
        with _mirror([503, 502, 200]) as url:
            self.assertEqual(tasks.fetch_countries.apply((url,)).get(), 1)
        self.assertEqual(Country.objects.get().name, "Nowhere")

    def test_a_mirror_that_stays_busy_is_given_up(self) -> None:
        """After two retries the last refusal is the outcome, with its status."""
        with _mirror([503, 503, 504]) as url:
            result = tasks.fetch_countries.apply((url,))
        self.assertIsInstance(result.result, MirrorBusy)
        self.assertEqual(getattr(result.result, "status_code", None), 504)

    def test_an_answer_that_will_not_change_is_not_asked_for_again(self) -> None:
        """404 is no reason to retry."""
        with _mirror([404]) as url:
            self.assertEqual(tasks.fetch_countries.apply((url,)).state, states.FAILURE)

    def test_only_http_is_fetched(self) -> None:
        """A file of this machine is nobody's mirror."""
        with self.assertRaises(ValueError):
            download("file:///etc/hostname")


@contextmanager
def _mirror(answers: list[int]) -> Iterator[str]:
    """Serve a file of one country, answering with these statuses in turn."""
    left = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with the next status."""
            self.send_response(next(left))
            self.end_headers()
            self.wfile.write(b"code,name\nXX,Nowhere\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/countries.csv"
        server.shutdown()


class TokenTests(TestCase):
    """Other services order reports over HTTP."""

    def test_a_token_orders_a_report(self) -> None:
        """The user of the token may, and owns the call."""
        printed = StringIO()
        call_command("make_token", "press", stdout=printed, stderr=StringIO())
        answer = self._order(printed.getvalue().strip())
        self.assertEqual(answer.status_code, 202)
        call = tasks.build_report.get_call(answer.json()["id"])
        self.assertEqual(call and call.owner, "press")

    def test_a_token_that_was_tampered_with_orders_nothing(self) -> None:
        """Neither does one of somebody who is gone."""
        get_user_model().objects.create_user("press")
        for token in (make_token("press")[:-1], make_token("gone"), ""):
            self.assertEqual(self._order(token).status_code, 401)
        self.assertEqual(self._order(make_token("press")).status_code, 403)

    def _order(self, token: str) -> Any:
        path = reverse("lrp_celery:calls", args=["places.tasks.build_report"])
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.post(path, {"args": [1]}, content_type="application/json", headers=headers)
