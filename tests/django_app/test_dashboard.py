"""The dashboard: what it tells, what it links to, who may look, and what it costs."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, _state
from celery.beat import ScheduleEntry
from celery.schedules import crontab
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from django_app.admin import tasks, values
from django_app.admin.dashboard import DashboardAdmin
from django_app.beat import beat_schedule, until_next
from django_app.models import Call, HourlyRollup, Worker
from django_app.purge import purge_older_than
from django_app.rollup import roll_up
from tests.browser.story import WORKER

PAGE = "/admin/lrp_celery/hourlyrollup/"
LIST = "/admin/lrp_celery/call/"
HOUR, DAY = 3600, 86_400


@pytest.fixture(autouse=True)
def _fresh():
    tasks.forget()
    values.forget()


@pytest.fixture
def viewer(db):
    """Somebody who may view calls and nothing else."""
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    return person


@pytest.fixture
def as_viewer(client, viewer):
    client.force_login(viewer)
    return client


def seen(client, over="24h"):
    response = client.get(PAGE, {"over": over})
    assert response.status_code == 200
    return response.context["dashboard"]


def tile(dashboard, label):
    (found,) = [tile for tile in (*dashboard.troubles, *dashboard.work, *dashboard.tracking) if tile.label == label]
    return found


def listed(client, link):
    """The calls to which a link leads."""
    response = client.get(link)
    assert response.status_code == 200, link
    return {call.pk for call in response.context["cl"].result_list}


def worker(name=WORKER, silence=1, **more):
    now = timezone.now()
    known = {"host": "h", "pid": 7, "pool": "prefork", "started_at": now - timedelta(hours=1), **more}
    return Worker.objects.create(
        boot_id=f"{name} {silence}", name=name, seen_at=now - timedelta(seconds=silence), **known
    )


# --- what it tells


def test_where_nothing_has_happened_it_says_so(as_viewer, db):
    dashboard = seen(as_viewer)
    assert (dashboard.trends.total, list(dashboard.paces), list(dashboard.workers)) == (0, [], [])
    text = as_viewer.get(PAGE).content.decode()
    for words in (
        *("Nothing that has ended is counted yet.", "Nothing has failed within 7 days."),
        *("Nothing waits for a worker.", "No worker has been heard of within a day."),
    ):
        assert words in text


def test_calls_are_shown_in_the_hour_they_ended_in_and_by_outcome(as_viewer, story):
    for _ in range(3):
        story.call("a", "succeeded", age=5 * HOUR)
    story.call("a", "failed", age=5 * HOUR)
    story.call("a", "aborted", age=30 * HOUR)
    story.call("a", "started", age=5 * HOUR)
    roll_up()
    day, week = seen(as_viewer), seen(as_viewer, "7d")
    assert [len(each.trends.rows) for each in (day, week)] == [24, pytest.approx(56, abs=1)]
    assert [numbers for _stretch, numbers in day.trends.rows if set(numbers) != {"0"}] == [["3", "0", "0", "0", "1"]]
    (stretch,) = [stretch for stretch, numbers in day.trends.rows if set(numbers) != {"0"}]
    ended = Call.objects.filter(status="failed").get().terminal_at
    assert stretch.begin <= ended < stretch.end
    assert (day.trends.total, week.trends.total) == (4, 5)
    everything, troubles = week.trends.pictures
    assert [(share.kind, share.number) for share in everything.legend] == [
        *(("succeeded", "3"), ("discarded", "0"), ("aborted", "1"), ("parked", "0"), ("failed", "1"))
    ]
    assert [share.kind for share in troubles.legend] == ["discarded", "aborted", "parked", "failed"]


def test_pictures_and_their_table_say_the_same(as_viewer, story):
    story.dashboard(days=1)
    trends = seen(as_viewer).trends
    everything = trends.pictures[0].chart.columns
    for column, (stretch, numbers) in zip(reversed(everything), trends.rows, strict=True):
        assert [f"{number:,}" for _kind, number in column.bar.parts] == list(numbers)
        assert column.bar.title.startswith(stretch.name)


def test_columns_begin_at_full_hours_of_the_readers_day(as_viewer, story):
    story.call("a", "succeeded", age=HOUR)
    roll_up()
    with override_settings(TIME_ZONE="America/New_York"), timezone.override("America/New_York"):
        rows = seen(as_viewer, "7d").trends.rows
    local = [timezone.localtime(stretch.begin, ZoneInfo("America/New_York")) for stretch, _ in rows]
    assert {begin.hour % 3 for begin in local[:-1]} == {0}


def test_failures_are_told_by_task_and_by_exception_and_window_and_each_number_leads_to_them(as_viewer, story):
    now_failed = [story.call("a", "failed", age=600, error_type="shop.Torn").pk for _ in range(2)]
    story.call("a", "failed", age=7 * HOUR, error_type="shop.Lost")
    parked = story.call("b", "parked", age=3 * DAY, error_type="shop.Torn").pk
    story.call("b", "succeeded", age=60)
    story.call("c", "failed", age=9 * DAY)
    roll_up()
    failures = seen(as_viewer).failures
    told = [(line.name, [cell.text for cell in line.cells]) for line in failures.by_task]
    assert told == [("a", ["2", "3", "3"]), ("b", ["", "", "1"])]
    told = [(line.name, [cell.text for cell in line.cells]) for line in failures.by_error]
    assert told == [("Torn", ["2", "2", "3"]), ("Lost", ["", "1", "1"])]
    (a, b), (torn, _) = failures.by_task, failures.by_error
    assert listed(as_viewer, a.cells[0].link) == set(now_failed)
    assert len(listed(as_viewer, a.cells[1].link)) == 3
    assert listed(as_viewer, b.cells[2].link) == {parked}
    assert listed(as_viewer, torn.cells[2].link) == {*now_failed, parked}
    assert listed(as_viewer, torn.cells[0].link) == set(now_failed)


def test_what_somebody_has_handled_is_none_of_the_last_hours_any_more(as_viewer, story):
    for _ in range(3):
        call = story.call("a", "failed", age=600)
    Call.objects.filter(pk=call.pk).update(handled_at=timezone.now())
    roll_up()
    dashboard = seen(as_viewer)
    assert [cell.text for cell in dashboard.failures.by_task[0].cells] == ["2", "3", "3"]
    assert tile(dashboard, "failed in the last hour").text == "2"


def test_failures_that_were_purged_still_count(as_viewer, story):
    for _ in range(3):
        story.call("a", "failed", age=2 * DAY, error_type="shop.Torn")
    purge_older_than(timezone.now() - timedelta(days=1), using="default")
    assert not Call.objects.exists()
    dashboard = seen(as_viewer, "7d")
    assert [cell.text for cell in dashboard.failures.by_task[0].cells] == ["", "", "3"]
    assert (dashboard.trends.total, dashboard.trends.failed) == (3, 3)


def test_a_table_of_failures_has_a_line_for_all_that_it_has_no_line_for(as_viewer, story):
    for number in range(30):
        for _ in range(1 + (number < 5)):
            story.call(f"t{number:02}", "failed", age=2 * DAY)
    roll_up()
    lines = seen(as_viewer).failures.by_task
    assert (len(lines), lines[0].name, lines[-1].name) == (10, "t00", "all others")
    assert sum(int(line.cells[2].text) for line in lines) == 35
    (none,) = seen(as_viewer).failures.by_error
    assert (none.name, none.cells[2].text) == ("no exception", "35")


def test_waits_and_runs_are_told_by_task_the_busiest_first(as_viewer, story):
    for number in range(1, 101):
        story.call("long", "succeeded", age=3 * HOUR, wait=number / 100, took=number)
    for _ in range(120):
        story.call("short", "succeeded", age=3 * HOUR, took=0.02)
    story.call("old", "succeeded", age=2 * DAY)
    story.call("never", "discarded", age=HOUR, attempt=0, run=None)
    roll_up()
    short, long, never = seen(as_viewer).paces
    assert [pace.name for pace in (short, long, never)] == ["short", "long", "never"]
    assert (short.calls, long.calls) == ("120", "100")
    seconds = [_seconds(text) for text in long.run.texts]
    assert seconds == [pytest.approx(50, rel=0.1), pytest.approx(95, rel=0.1), pytest.approx(99, rel=0.1)]
    assert _seconds(long.wait.texts[0]) == pytest.approx(0.5, rel=0.1)
    assert (never.wait, never.run) == (None, None)
    assert len(listed(as_viewer, long.link)) == 50


def _seconds(text):
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
    numbers = re.findall(r"([\d.]+) (ms|s|min|h)", text)
    return sum(float(number) * units[unit] for number, unit in numbers)


def test_what_has_waited_longest_comes_first_and_what_is_not_due_does_not_wait(as_viewer, story):
    first = story.call("a", "submitted", age=900, queue="slow")
    story.call("b", "submitted", age=300)
    story.call("c", "submitted", age=800, due_at=timezone.now() + timedelta(hours=1))
    story.call("d", "submitted", age=9 * HOUR, due_at=timezone.now() - timedelta(seconds=600))
    story.call("e", "started", age=2000)
    waiting = seen(as_viewer).waiting
    assert [call.name for call in waiting] == ["a", "d", "b"]
    assert (waiting[0].place, waiting[0].link) == ("slow", f"{LIST}{first.pk.replace('_', '_5F')}/change/")
    assert waiting[0].took.startswith("15 min")
    assert tile(seen(as_viewer), "oldest waiting").text.startswith("15 min")


def test_what_runs_longer_than_usual_stands_out(as_viewer, story):
    for _ in range(30):
        story.call("a", "succeeded", age=2 * HOUR, took=10)
        story.call("b", "succeeded", age=2 * HOUR, took=1000)
    for task in ("a", "b", "new"):
        story.call(task, "started", age=500, name=task)
    roll_up()
    dashboard = seen(as_viewer)
    assert {call.name for call in dashboard.running} == {"a", "b", "new"}
    (unusual,) = dashboard.unusual
    assert (unusual.name, unusual.took[:5]) == ("a", "8 min")
    assert _seconds(unusual.usually) == pytest.approx(10, rel=0.1)


def test_of_much_that_is_unusual_the_longest_is_named_and_the_rest_counted(as_viewer, story):
    for _ in range(30):
        story.call("a", "succeeded", age=2 * HOUR, took=10)
    for number in range(20):
        story.call("a", "started", age=500 + number)
    roll_up()
    dashboard = seen(as_viewer)
    assert (len(dashboard.unusual), dashboard.more_unusual) == (8, 12)
    lengths = [call.length for call in dashboard.unusual]
    assert lengths == sorted(lengths, reverse=True)
    assert "and 12 more" in as_viewer.get(PAGE).content.decode()


def test_workers_are_told_with_their_last_sign_of_life_and_what_they_run(as_viewer, story):
    worker("celery@alive", 1), worker("celery@late", 20), worker("celery@gone", 40, waiting=2048, dropped=3)
    for number in range(5):
        story.call("a", "started", age=100 + number, worker="celery@alive")
    dashboard = seen(as_viewer)
    alive, gone, late = dashboard.workers
    assert [each.state for each in (alive, late, gone)] == ["alive", "late", "gone"]
    assert (len(alive.runs), alive.more, late.runs) == (3, 2, [])
    assert len(listed(as_viewer, alive.link)) == 5
    assert (tile(dashboard, "workers alive").text, tile(dashboard, "workers alive").level) == ("1 of 3", "warning")
    assert (tile(dashboard, "reports dropped").text, tile(dashboard, "reports dropped").level) == ("3", "bad")
    assert tile(dashboard, "bytes in spools").text == "2,048"
    with override_settings(LRP_CELERY={"LEASE": 100}):
        assert {each.state for each in seen(as_viewer).workers} == {"alive"}


def test_each_number_on_top_leads_to_as_many_calls(as_viewer, story):
    story.tell()
    dashboard = seen(as_viewer)
    assert [each.label for each in dashboard.troubles if each.text != "0"] == [
        *("failed in the last hour", "failed, not handled", "overdue", "silent")
    ]
    for each in dashboard.troubles:
        assert len(listed(as_viewer, each.link)) == int(each.text), each


def test_what_has_ended_and_is_not_counted_is_told(as_viewer, story):
    story.call("a", "succeeded", age=60)
    assert tile(seen(as_viewer), "not counted yet").text == "1"
    roll_up()
    assert tile(seen(as_viewer), "not counted yet").text == "0"


@pytest.fixture
def app():
    before = _state.get_current_app()
    made = Celery("dashboard", broker="memory://")
    made.set_current()
    yield made
    before.set_current()


def test_the_next_purge_is_read_off_beats_schedule(as_viewer, app, db):
    assert (tile(seen(as_viewer), "next purge").text, tile(seen(as_viewer), "next purge").level) == ("never", "warning")
    app.conf.beat_schedule = beat_schedule()
    assert re.fullmatch(r"in (\d+ min( \d+ s)?|[\d.]+ m?s|1 h)", tile(seen(as_viewer), "next purge").text)
    app.conf.beat_schedule = {
        "often": {"task": "lrp_celery.purge", "schedule": 600},
        "other": {"task": "x", "schedule": 1},
    }
    assert tile(seen(as_viewer), "next purge").text in {"in 10 min", "in 9 min 59 s"}
    app.conf.beat_scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
    assert tile(seen(as_viewer), "next purge").text == "?"


def test_of_several_entries_of_beat_the_next_one_counts(app):
    app.conf.beat_schedule = {
        "rarely": {"task": "t", "schedule": crontab(minute="0", hour="3")},
        "often": {"task": "t", "schedule": timedelta(minutes=1)},
    }
    assert timedelta(0) < until_next(app, "t") <= timedelta(minutes=1)
    assert until_next(app, "unknown") is None


def test_an_entry_of_celerys_own_class_counts_too(app):
    app.conf.beat_schedule = {"often": ScheduleEntry(name="often", task="t", schedule=timedelta(minutes=1), app=app)}
    assert timedelta(0) < until_next(app, "t") <= timedelta(minutes=1)


# --- who may look, and how


def test_whoever_may_not_view_calls_may_not_look(client, db):
    client.force_login(get_user_model().objects.create_user("eve", is_staff=True))
    assert client.get(PAGE).status_code == 403
    assert "hourlyrollup" not in client.get("/admin/").content.decode()


def test_only_looking_is_possible(client, admin_user):
    client.force_login(admin_user)
    for method in ("post", "put", "patch", "delete"):
        assert getattr(client, method)(PAGE).status_code == 403
    for path in ("add/", "1/", "1/change/", "1/delete/", "1/history/"):
        assert client.get(PAGE + path).status_code == 404


def test_the_admins_index_and_the_list_of_calls_lead_to_it(as_viewer, db):
    assert f'href="{PAGE}"' in as_viewer.get("/admin/").content.decode()
    assert f'href="{PAGE}"' in as_viewer.get(LIST).content.decode()


def test_calls_that_a_person_may_not_see_are_not_named(as_viewer, story, monkeypatch):
    story.call("secret", "submitted", age=900), story.call("secret", "started", age=900)
    story.call("mine", "submitted", age=800, owner="vera")
    kind = type(admin.site.get_model_admin(Call))
    everything = kind.get_queryset
    monkeypatch.setattr(kind, "get_queryset", lambda self, request: everything(self, request).filter(owner="vera"))
    dashboard = seen(as_viewer)
    assert [call.name for call in (*dashboard.waiting, *dashboard.running)] == ["mine"]


def test_a_subclass_may_change_what_is_shown(rf, admin_user, db):
    class Mine(DashboardAdmin):
        refresh_every = None
        dashboard_template = "admin/lrp_celery/dashboard.html"

    request = rf.get(PAGE, {"over": "nonsense"})
    request.user = admin_user
    page = Mine(HourlyRollup, admin.site).changelist_view(request, {"title": "Our calls"}).render()
    text = page.content.decode()
    assert "<h1>Our calls</h1>" in text
    assert "refresh.js" not in text
    assert "data-lrp-every" not in text


def test_everything_can_be_said_in_german(as_viewer, story):
    story.tell().dashboard(days=1, pace=4)
    with translation.override("de"), override_settings(LANGUAGE_CODE="de"):
        text = as_viewer.get(PAGE).content.decode()
    for words in (
        *("Übersicht", "Aufrufe je Stunde", "Fehlschläge nach Ausnahme", "Läuft länger als üblich"),
        *("zuletzt", "nächstes Aufräumen", "auf 9 % genau", "gescheitert"),
    ):
        assert words.casefold() in text.casefold(), words
    for words in ("Calls per hour", "Oldest waiting", "as of", "Dropped", "no exception"):
        assert words not in text


class Marks(HTMLParser):
    """What of a page a strict content security policy, a reader without eyes or a script would stumble over."""

    def __init__(self):
        super().__init__()
        self.complaints, self.ids, self.drawn = [], [], 0

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "style" in given or tag == "style" or any(name.startswith("on") for name in given):
            self.complaints.append((tag, given))
        if tag == "script" and not given.get("src"):
            self.complaints.append((tag, given))
        if tag == "svg" and "lrp" in given.get("class", ""):
            self.drawn += 1
            if given.get("role") != "img" or not given.get("aria-label"):
                self.complaints.append((tag, given))
        if "data-lrp-refresh" in given and not given.get("id"):
            self.complaints.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []


def test_nothing_stands_in_the_page_that_a_strict_policy_forbids(as_viewer, story):
    story.tell().dashboard(days=1, pace=4)
    marks = Marks()
    marks.feed(re.sub(r'(?s)<body.*?<div id="content-main">', "", as_viewer.get(PAGE).content.decode()))
    assert marks.complaints == []
    assert marks.drawn == 2
    assert len(marks.ids) == len(set(marks.ids))


def test_hostile_names_are_shown_as_they_are(as_viewer, story):
    evil = '<script>alert("x")</script>&"\'%s{{x}}'
    enqueued_at = timezone.now() - timedelta(seconds=400)
    known = {"task": evil, "queue": evil, "worker": evil, "enqueued_at": enqueued_at, "updated_at": enqueued_at}
    Call.objects.create(call_id="1" + evil, status="submitted", **known)
    Call.objects.create(call_id="2" + evil, status="started", started_at=enqueued_at, run="r", attempt=1, **known)
    Call.objects.create(call_id="3" + evil, status="failed", terminal_at=enqueued_at, error_type=evil, **known)
    worker(evil)
    roll_up()
    text = as_viewer.get(PAGE).content.decode()
    assert "<script>alert" not in text
    dashboard = seen(as_viewer)
    assert listed(as_viewer, dashboard.failures.by_task[0].cells[1].link) == {"3" + evil}
    assert as_viewer.get(dashboard.waiting[0].link).status_code == 200
    assert parse_qs(urlsplit(dashboard.workers[0].link).query)["worker"] == [evil]


# --- what it costs


@pytest.mark.parametrize("over", ["24h", "7d"])
def test_it_takes_at_most_twelve_queries_and_no_more_for_more_calls(as_viewer, story, over):
    story.tell(hours=3).dashboard(days=1, pace=1)
    asked = []
    for pace in (1, 20):
        Call.objects.bulk_create(call for hour in range(24) for call in story.busy_hour(hour, pace))
        roll_up()
        tasks.forget()
        with CaptureQueriesContext(connection) as captured:
            page = as_viewer.get(PAGE, {"over": over})
        asked.append(len(captured))
        assert len(page.content) < 150_000
    assert asked[0] == asked[1] <= 12, asked


def test_no_number_is_counted_to_its_end(as_viewer, story, monkeypatch):
    for _ in range(5):
        story.call("a", "failed", age=60)
    monkeypatch.setattr("django_app.admin.failures._RECENT", 3)
    dashboard = seen(as_viewer)
    assert dashboard.failures.by_task[0].cells[0].text == "4+"
