import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_app.admin import counts, tasks, values
from django_app.admin.calls import CallAdmin
from django_app.admin.conditions import is_overdue, is_silent
from django_app.admin.paginator import CappedPaginator
from django_app.admin.windows import WindowFilter
from django_app.clock import read_clock
from django_app.models import Call
from lrp_celery.tracking.snapshot import Progress
from tests.browser.story import Story

LIST = "/admin/lrp_celery/call/"


@pytest.fixture(autouse=True)
def _fresh_names():
    tasks.forget()
    values.forget()


@pytest.fixture
def viewer(db):
    """Somebody who may view calls and nothing else."""
    person = get_user_model().objects.create_user("vera", password="vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    return person


@pytest.fixture
def as_viewer(client, viewer):
    client.force_login(viewer)
    return client


def shown(response):
    return {call.pk for call in response.context["cl"].result_list}


def ids(calls):
    return {call.pk for call in calls}


# --- Who may look


class OwnersAdmin(CallAdmin):
    """Shows calls to those to whom they belong, as a subclass might."""

    def get_queryset(self, request):
        return super().get_queryset(request).filter(owner=request.user.get_username())


def test_filters_offer_only_what_calls_have_that_may_be_seen(rf, viewer, story):
    mine = {"owner": "vera", "queue": "mine", "worker": "celery@mine", "schedule": "daily"}
    my_task = story.call("import_places", "failed", age=5, **mine).task
    theirs = {"owner": "eve", "queue": "theirs", "worker": "celery@theirs", "schedule": "of eve"}
    their_task = story.call("buy_islands", "failed", age=5, **theirs).task
    shown = {}
    for kind in (OwnersAdmin, CallAdmin):
        request = rf.get(LIST)
        request.user = viewer
        specs = kind(Call, admin.site).get_changelist_instance(request).filter_specs
        shown[kind] = {str(key) for spec in specs for key, _words in spec.lookup_choices}
    assert {*mine.values(), my_task} <= shown[OwnersAdmin]
    assert not {*theirs.values(), their_task} & shown[OwnersAdmin]
    assert {*theirs.values(), their_task} <= shown[CallAdmin]


def test_staff_without_the_permission_is_refused(client, django_user_model, told):
    client.force_login(django_user_model.objects.create_user("eve", is_staff=True))
    assert client.get(LIST).status_code == 403
    assert client.get(f"{LIST}{told.calls['failed'].pk}/change/").status_code == 403


def test_whoever_may_view_sees_the_list_and_no_way_to_change_it(as_viewer, told):
    response = as_viewer.get(LIST)
    assert response.status_code == 200
    text = response.content.decode()
    assert "/add/" not in text
    assert "delete_selected" not in text
    assert 'name="action"' not in text
    assert "places.tasks.import_places" in text


@pytest.mark.parametrize("path", ["add/", "{}/delete/", "{}/change/"])
def test_nothing_can_be_posted(admin_client, told, path):
    call = told.calls["failed"]
    response = admin_client.post(LIST + path.format(call.pk), {"task": "other", "post": "yes"})
    assert response.status_code == 403
    assert Call.objects.get(pk=call.pk).task == call.task


# --- What the list says


def test_the_list_shows_what_is_remarkable(admin_client, told):
    text = admin_client.get(LIST).content.decode()
    for words in ("publish failed", "overdue", "redelivered", "1 late run", "retries in 1 min", "due in 6 h", "rerun"):
        assert words in text, words
    assert '<span class="lrp-badge lrp-parked">parked</span>' in text
    assert "MirrorBusy" in text
    assert 'title="places.tasks.fetch_countries"' in text


def test_arguments_are_cut_to_one_short_line(admin_client, story):
    story.call("import_places", "succeeded", age=5, target_summary="(\n" + "x" * 500 + ")")
    text = admin_client.get(LIST).content.decode()
    (arguments,) = re.findall(r'lrp-arguments" title="[^"]*">(.*?)</span>', text)
    assert len(arguments) == 80
    assert "\n" not in arguments


def test_what_is_shown_is_escaped(admin_client, story):
    evil = "<script>alert(1)</script>"
    values = dict.fromkeys(("target_summary", "last_error", "error_type", "queue", "worker", "schedule"), evil)
    story.call(evil, "failed", age=5, call_id=f"{evil}/?&#", reason="<b>", **values)
    text = admin_client.get(LIST).content.decode()
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_an_empty_list_says_why(admin_client, story):
    assert "No call has been tracked yet" in admin_client.get(LIST).content.decode()
    story.call("import_places", "succeeded", age=5)
    assert "No call fits" in admin_client.get(LIST, {"status": "failed"}).content.decode()


# --- Filters


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "open"}, lambda calls: calls.open()),
        ({"status": "ended"}, lambda calls: calls.terminal()),
        ({"status": "parked"}, lambda calls: calls.filter(status="parked")),
        ({"status": "nonsense"}, lambda calls: calls.none()),
        ({"task": "places.tasks.draw_chart"}, lambda calls: calls.for_task("places.tasks.draw_chart")),
        ({"task": "nobody.knows"}, lambda calls: calls.none()),
        ({"enqueued": "1h"}, lambda calls: calls.filter(enqueued_at__gt=timezone.now() - timedelta(hours=1))),
        ({"attention": "failed"}, lambda calls: calls.filter(status__in=["failed", "parked"])),
        ({"attention": "overdue"}, lambda calls: calls.overdue()),
        ({"attention": "silent"}, lambda calls: calls.silent()),
        (
            {"attention": "any"},
            lambda calls: calls.filter(
                pk__in=ids(calls.filter(status__in=["failed", "parked"])) | ids(calls.overdue()) | ids(calls.silent())
            ),
        ),
        (
            {"status": "failed", "task": "places.tasks.draw_chart"},
            lambda calls: calls.filter(status="failed", task="places.tasks.draw_chart"),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "calls",
)
def test_filters_narrow_the_list(admin_client, told, query, expected):
    response = admin_client.get(LIST, {**query, "all": ""})
    assert response.status_code == 200
    wanted = ids(expected(Call.objects.all()))
    assert shown(response) == wanted
    assert wanted or "n" in str(query)


def test_a_tree_can_be_listed(admin_client, told):
    atlas = told.calls["atlas"]
    response = admin_client.get(LIST, {"root": atlas.pk})
    assert shown(response) == ids(Call.objects.filter(root_id=atlas.pk))
    assert len(shown(response)) == 7


@pytest.mark.parametrize(
    "parameter", ["last_error__icontains", "target_summary__contains", "pid", "attempts__traceback"]
)
def test_the_query_string_cannot_ask_for_a_scan(admin_client, told, parameter):
    assert admin_client.get(LIST, {parameter: "a"}).status_code == 400


@pytest.mark.parametrize(
    "query", [{"task": "a\x00b"}, {"root": "\x00"}, {"status": "\x00"}, {"q": "\x00"}, {"p": "x"}, {"o": "1.-2"}]
)
def test_a_strange_query_string_does_no_harm(admin_client, told, query):
    assert admin_client.get(LIST, query, follow=True).status_code == 200


def test_the_marks_of_a_line_agree_with_the_questions_of_the_queryset(told):
    now = timezone.now()
    calls = list(Call.objects.all())
    assert {call.pk for call in calls if is_overdue(call, now)} == ids(Call.objects.overdue(now=now)) != set()
    assert {call.pk for call in calls if is_silent(call, now)} == ids(Call.objects.silent(now)) != set()


# --- Search


def search(client, term):
    response = client.get(LIST, {"q": term, "all": ""})
    assert response.status_code == 200
    return shown(response)


def test_search_finds_a_call_by_its_id_or_the_beginning_of_it(admin_client, story):
    one = story.call("import_places", "succeeded", age=5, call_id="report-2026-10")
    other = story.call("import_places", "succeeded", age=5, call_id="report-2026-11")
    story.call("import_places", "succeeded", age=5, call_id="report")
    assert search(admin_client, f" {one.pk} ") == {one.pk}
    assert search(admin_client, "report-2026") == {one.pk, other.pk}
    assert search(admin_client, "report") == {"report"}
    assert search(admin_client, "REPORT-2026") == set()
    assert search(admin_client, "eport") == set()


def test_search_finds_a_task_that_was_first_called_just_now(admin_client, story):
    admin_client.get(LIST)
    call = story.call("brand_new", "succeeded", age=1)
    assert search(admin_client, call.task) == {call.pk}


def test_search_finds_calls_by_task(admin_client, told):
    charts = ids(Call.objects.for_task("places.tasks.draw_chart"))
    assert search(admin_client, "places.tasks.draw_chart") == charts
    assert search(admin_client, "places.tasks.dr") == charts
    assert search(admin_client, "Draw_") == charts
    assert search(admin_client, "chart") == set()
    assert search(admin_client, "places.") == ids(Call.objects.all())
    assert search(admin_client, "100%") == set()


def test_a_search_stays_within_the_filters(admin_client, told):
    response = admin_client.get(LIST, {"q": "import_places", "status": "failed"})
    assert shown(response) == ids(Call.objects.filter(status="failed", task="places.tasks.import_places"))


# --- What is not there any more


@pytest.fixture
def gone(story):
    """Calls that were removed, or whose time to live is over; and their neighbours, that are to be seen."""
    past, future = story.now - timedelta(seconds=1), story.now + timedelta(hours=1)
    root = story.call("import_places", "succeeded", age=30, call_id="seen-root").pk
    for call_id, how in {"removed": {"removed_at": past}, "expired": {"purge_at": past}}.items():
        story.call("import_places", "failed", age=20, call_id=call_id, owned=True, root_id=root, parent_id=root, **how)
    story.call("import_places", "failed", age=10, call_id="seen-lives", owned=True, purge_at=future, root_id=root)
    story.call("import_places", "started", age=5, call_id="seen-open", owned=True, purge_at=past)
    return {"removed", "expired"}


def test_what_was_removed_or_has_outlived_its_time_is_in_no_list_and_no_count(admin_client, gone):
    seen = {"seen-root", "seen-lives", "seen-open"}
    assert ids(Call.objects.visible()) == seen
    response = admin_client.get(LIST)
    assert shown(response) == seen
    assert response.context["cl"].paginator.count == 3
    assert shown(admin_client.get(LIST, {"attention": "any"})) <= seen
    assert shown(admin_client.get(LIST, {"status": "failed"})) == {"seen-lives"}
    assert shown(admin_client.get(LIST, {"root": "seen-root"})) == {"seen-root", "seen-lives"}


def test_nor_is_it_found_or_shown(admin_client, gone):
    for call_id in gone:
        assert search(admin_client, call_id) == set()
        response = admin_client.get(f"{LIST}{call_id}/change/", follow=True)
        assert f"There is no call “{call_id}”" in response.content.decode()
    text = admin_client.get(f"{LIST}seen-root/change/").content.decode()
    assert not [call_id for call_id in gone if f"{LIST}{call_id}/" in text]


def test_whether_a_call_is_seen_is_decided_by_the_clock_of_the_database(story):
    story.call(
        "import_places", "failed", age=10, call_id="soon", purge_at=read_clock(connection) + timedelta(seconds=1)
    )
    assert ids(Call.objects.visible()) == {"soon"}
    Call.objects.update(purge_at=read_clock(connection))
    assert ids(Call.objects.visible()) == set()


# --- The bar


def bar(response):
    """Return what the bar says: (choice, count)."""
    text = response.content.decode()
    return dict(re.findall(r'">([^<>]+) <b>([^<]*)</b></a>', text.partition('id="changelist-form"')[0]))


def test_the_bar_counts_each_status_and_each_trouble(as_viewer, told):
    said = bar(as_viewer.get(LIST))
    for status in ("submitted", "started", "retrying", "succeeded", "failed", "parked", "aborted", "discarded"):
        assert said[status] == str(Call.objects.filter(status=status).count()), status
    assert said["open"] == str(Call.objects.open().count())
    assert said["overdue"] == str(Call.objects.overdue().count())
    assert said["silent"] == str(Call.objects.silent().count())
    assert said["failed, not handled"] == str(Call.objects.unhandled().count())


def test_each_choice_of_the_bar_leads_to_as_many_calls_as_it_says(as_viewer, told):
    text = as_viewer.get(LIST).content.decode()
    choices = re.findall(r'<a href="([^"]+)"[^>]*>([^<>]+) <b>([^<]*)</b></a>', text)
    assert len(choices) == 14
    for path, choice, count in choices:
        assert as_viewer.get(LIST + path).context["cl"].paginator.count == int(count), choice


def test_the_bar_counts_what_everything_else_leaves(as_viewer, told):
    said = bar(as_viewer.get(LIST, {"task": "places.tasks.draw_chart", "status": "failed"}))
    here = Call.objects.for_task("places.tasks.draw_chart")
    assert said["succeeded"] == str(here.filter(status="succeeded").count())
    assert said["failed"] == str(here.filter(status="failed").count()) == "1"


def test_where_there_are_many_the_bar_says_at_least(as_viewer, story, monkeypatch):
    monkeypatch.setattr(counts, "LIMIT", 20)
    monkeypatch.setattr(counts.capped, "__defaults__", (20,))
    for age in range(30):
        story.call("import_places", "succeeded", age=age)
    for age in range(40, 65):
        story.call("import_places", "failed", age=age)
    story.call("import_places", "aborted", age=100)
    said = bar(as_viewer.get(LIST))
    assert (said["succeeded"], said["failed"], said["aborted"]) == ("20+", "20+", "1")
    # Here no index tells of aborted ones, and among the newest there is none.
    said = bar(as_viewer.get(LIST, {"task": "places.tasks.import_places"}))
    assert (said["succeeded"], said["failed"], said["aborted"]) == ("20+", "20+", "0+")


def test_one_look_tells_whether_anything_is_stuck(as_viewer, story):
    story.call("import_places", "failed", age=5)
    assert "Nothing is stuck." in as_viewer.get(LIST).content.decode()
    story.call("import_places", "submitted", age=600)
    assert "Something is stuck." in as_viewer.get(LIST).content.decode()


def test_why_calls_failed_is_summed_up_and_leads_to_them(as_viewer, story):
    for age in range(3):
        story.call("fetch", "failed", age=age, error_type="x.MirrorBusy")
    story.call("fetch", "failed", age=5, error_type="ValueError")
    story.call("draw", "failed", age=7200, error_type="OSError")
    response = as_viewer.get(LIST, {"attention": "recent"})
    causes = [(cause.task, cause.error, cause.count) for cause in response.context["cl"].causes]
    assert causes == [("fetch", "MirrorBusy", "3"), ("fetch", "ValueError", "1")]
    assert "MirrorBusy" in response.content.decode()
    narrowed = as_viewer.get(LIST + response.context["cl"].causes[0].query_string)
    assert narrowed.context["cl"].paginator.count == 3
    assert as_viewer.get(LIST).context["cl"].causes == []


# --- Pages beyond those that are numbered


def test_every_call_can_be_reached_by_turning_pages(as_viewer, story, monkeypatch):
    monkeypatch.setattr(CappedPaginator, "LIMIT", 50)
    monkeypatch.setattr(CallAdmin, "list_per_page", 20)
    at = story.now - timedelta(hours=1)
    for number in range(115):
        # Many at one moment: then the id decides.
        story.call(
            "import_places", "succeeded", age=3600 + number // 30, enqueued_at=at - timedelta(seconds=number // 30)
        )
    seen, path = [], "?task=places.tasks.import_places"
    while path:
        for number in (1, 2, 3):
            changelist = as_viewer.get(f"{LIST}{path}&p={number}").context["cl"]
            if number > changelist.paginator.num_pages:
                break
            seen += [call.pk for call in changelist.result_list]
            following = changelist.older
        path = following
    assert seen == [call.pk for call in Call.objects.order_by("-enqueued_at", "-call_id")]


def test_from_older_calls_one_gets_back_and_other_filters_begin_anew(as_viewer, story, monkeypatch):
    monkeypatch.setattr(CappedPaginator, "LIMIT", 50)
    monkeypatch.setattr(CallAdmin, "list_per_page", 25)
    for age in range(60):
        story.call("import_places", "succeeded", age=age)
    older = as_viewer.get(LIST, {"p": 2}).context["cl"].older
    response = as_viewer.get(LIST + older)
    assert response.context["cl"].paginator.count == 10
    assert "before" not in response.context["cl"].newest
    text = response.content.decode()
    assert "Back to the newest" in text
    assert [link for link in re.findall(r'href="(\?[^"]*status=failed[^"]*)"', text) if "before" in link] == []
    assert '<input type="hidden" name="before"' not in text


@pytest.mark.parametrize(
    "value", ["x", "2026-01-01", "2026-01-01_", "_x", "9999-99-99T00:00_x", "2026-01-01T00:00_\x00"]
)
def test_a_place_that_is_none_is_passed_over(as_viewer, told, value):
    assert as_viewer.get(LIST, {"before": value}, follow=True).status_code == 200


# --- What no index has


def test_queues_workers_and_the_like_are_looked_for_among_the_newest(as_viewer, story, monkeypatch):
    monkeypatch.setattr(WindowFilter, "WINDOW", 10)
    values.forget()
    for age in range(20):
        story.call("import_places", "succeeded", age=age, queue="slow" if age in {3, 15} else "celery", owner="ada")
    response = as_viewer.get(LIST, {"queue": "slow"})
    assert response.context["cl"].paginator.count == 1
    assert "the newest 10 calls that fit otherwise" in response.content.decode()
    # Of failed calls the window is one of its own.
    story.call("import_places", "failed", age=100, queue="slow")
    response = as_viewer.get(LIST, {"queue": "slow", "status": "failed", "owner": "eve"})
    assert response.context["cl"].paginator.count == 0
    response = as_viewer.get(LIST, {"queue": "slow", "status": "failed"})
    assert response.context["cl"].paginator.count == 1
    assert "that fit otherwise" not in response.content.decode().partition('id="changelist-form"')[2]
    assert as_viewer.get(LIST, {"kind": "rerun"}).context["cl"].paginator.count == 0


def test_a_stretch_of_time_can_be_asked_for(as_viewer, story):
    for age in (60, 600, 6000):
        story.call("import_places", "succeeded", age=age, name=str(age))
    since, until = ((story.now - timedelta(seconds=age)).isoformat() for age in (700, 500))
    assert shown(as_viewer.get(LIST, {"enqueued": f"{since}..{until}"})) == {story.calls["600"].pk}
    assert len(shown(as_viewer.get(LIST, {"enqueued": f"{since}.."}))) == 2
    assert len(shown(as_viewer.get(LIST, {"enqueued": "x..y"}))) == 3


def test_progress_is_a_bar_with_words(as_viewer, story):
    story.call(
        "import_places", "started", age=5, progress=Progress(done=1, total=4, text="pages").to_json(), owner="ada"
    )
    text = as_viewer.get(LIST).content.decode()
    assert 'aria-label="25 %: pages"' in text
    assert ">ada</span>" in text


# --- What it costs


FREE = ("django_session", "auth_", "SAVEPOINT", "BEGIN", "COMMIT")


def statements(client, query):
    with CaptureQueriesContext(connection) as captured:
        response = client.get(LIST, query)
    assert response.status_code == 200
    return [query["sql"] for query in captured if not any(part in query["sql"] for part in FREE)]


QUERIES = [
    ({}, 4),
    ({"status": "open"}, 4),
    ({"attention": "any"}, 4),
    ({"status": "failed", "task": "places.tasks.draw_chart", "enqueued": "24h"}, 5),
    ({"queue": "celery", "worker": "celery@atlas-worker-1", "attention": "failed"}, 8),
    ({"q": "places.tasks.draw_chart"}, 7),
    ({"q": "nothing"}, 7),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=str)
def test_a_page_takes_a_fixed_number_of_bounded_queries(admin_client, told, query, expected):
    admin_client.get(LIST)
    seen = statements(admin_client, query)
    assert len(seen) <= expected, "\n".join(seen)
    for sql in seen:
        assert "DISTINCT" not in sql.upper()
        assert "LIKE" not in sql.upper()
        # What has been counted to fit one page is read as it is.
        assert "LIMIT" in sql or "COUNT" not in sql, sql


def test_the_tasks_for_the_filter_are_found_by_one_statement(admin_client, told):
    tasks.forget()
    seen = [sql for sql in statements(admin_client, {}) if "RECURSIVE" in sql]
    assert len(seen) == 1


@pytest.fixture(scope="session", params=["postgres", "mysql"])
def elsewhere(request):
    # Of the session: a test that may use all databases must find this one among them.
    return request.getfixturevalue(f"{request.param}_alias")


@pytest.mark.services
@pytest.mark.django_db(databases="__all__")
def test_every_database_finds_the_tasks_and_counts(elsewhere):
    alias = elsewhere
    story = Story(timezone.now(), using=alias)
    for task, status in (("b", "failed"), ("a", "succeeded"), ("a", "submitted")):
        story.call(task, status, age=5)
    assert tasks.known_tasks(alias) == ("places.tasks.a", "places.tasks.b")
    calls = Call.objects.using(alias)
    kinds = {"all": calls.visible(), "failed": calls.unhandled(), "overdue": calls.overdue(), "none": calls.none()}
    assert counts.capped(kinds) == {name: counts.Count(n) for name, n in zip(kinds, (3, 1, 0, 0), strict=True)}
    assert counts.capped(kinds, limit=2)["all"] == counts.Count(2, is_more=True)


def test_the_list_never_counts_beyond_its_cap(admin_client, story, monkeypatch):
    monkeypatch.setattr(CappedPaginator, "LIMIT", 120)
    for age in range(130):
        story.call("import_places", "succeeded", age=age)
    response = admin_client.get(LIST)
    text = response.content.decode()
    assert "120+ calls" in text
    assert "leads to older calls" in text
    assert response.context["cl"].paginator.num_pages == 3
    assert admin_client.get(LIST, {"p": 3}).status_code == 200
    assert "1 call" in admin_client.get(LIST, {"q": Call.objects.latest("enqueued_at").pk}).content.decode()


def test_a_page_is_never_as_long_as_all_there_is(as_viewer, story, monkeypatch):
    monkeypatch.setattr(CappedPaginator, "LIMIT", 10)
    monkeypatch.setattr(CallAdmin, "list_per_page", 20)
    for age in range(50):
        story.call("import_places", "succeeded", age=age)
    assert len(as_viewer.get(LIST).context["cl"].result_list) == 20


def test_large_counts_are_readable():
    paginator = CappedPaginator(range(20_000), 50)
    assert paginator.shown == "1,000+"
    assert CappedPaginator(range(17), 50).shown == "17"


# --- Where it looks


@pytest.mark.django_db(databases=["default", "sqlite"])
def test_the_list_reads_the_database_of_the_setting(admin_client, sqlite_alias, settings):
    settings.LRP_CELERY = {"DATABASE": sqlite_alias}
    elsewhere = Story(timezone.now(), using=sqlite_alias)
    call = elsewhere.call("import_places", "failed", age=5)
    elsewhere.attempt(call, 1, "failed", after=0, took=1, last_error="over there")
    try:
        assert shown(admin_client.get(LIST)) == {call.pk}
        assert shown(admin_client.get(LIST, {"q": call.pk})) == {call.pk}
        assert "over there" in admin_client.get(f"{LIST}{call.pk}/change/").content.decode()
    finally:
        Call.objects.using(sqlite_alias).all().delete()
    assert not Call.objects.exists()


# --- The indexes, where there is a planner to be watched


@pytest.fixture(scope="module")
def crowded(postgres_alias, django_db_blocker):
    """An alias on PostgreSQL with some thousand calls, as a busy site has them."""
    with django_db_blocker.unblock():
        story = Story(timezone.now(), using=postgres_alias)
        rows = [crowd_row(story, number) for number in range(20_000)]
        Call.objects.using(postgres_alias).bulk_create(rows, batch_size=2000)
        with connections[postgres_alias].cursor() as cursor:
            cursor.execute("ANALYZE lrp_celery_call")
        yield postgres_alias
        Call.objects.using(postgres_alias).all().delete()


def crowd_row(story, number):
    at = story.now - timedelta(seconds=number * 7)
    status = "failed" if number % 97 == 0 else "submitted" if number % 499 == 0 else "succeeded"
    return Call(
        call_id=story.new_id(at),
        task=f"crowd.task_{number % 20}",
        status=status,
        enqueued_at=at,
        updated_at=at,
        terminal_at=None if status == "submitted" else at,
        root_id=None if number else "root",
        target_summary="x" * 200,
    )


@pytest.mark.services
@pytest.mark.django_db(databases=["default", "postgres"])
@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({}, "lrp_call_enqueued"),
        ({"p": "20"}, "lrp_call_enqueued"),
        ({"enqueued": "1h"}, "lrp_call_enqueued"),
        ({"status": "open"}, "lrp_call_open"),
        ({"status": "submitted"}, "lrp_call_open"),
        ({"status": "failed"}, "lrp_call_failed"),
        ({"attention": "failed"}, "lrp_call_unhandled"),
        ({"attention": "overdue"}, "lrp_call_open"),
        ({"attention": "any"}, "lrp_call_open"),
        ({"task": "crowd.task_3"}, "lrp_call_task"),
        ({"task": "crowd.task_none"}, "lrp_call_task"),
        ({"task": "crowd.task_none", "status": "failed"}, "lrp_call_failed_task"),
        ({"q": "crowd.task_4"}, "lrp_call_task"),
        ({"q": "id of nobody"}, "lrp_celery_call_pkey"),
        ({"root": "root"}, "lrp_call_descendants"),
    ],
    ids=str,
)
def test_postgresql_reads_each_page_by_an_index(admin_client, crowded, settings, query, index):
    settings.LRP_CELERY = {"DATABASE": crowded}
    admin_client.get(LIST)
    with CaptureQueriesContext(connections[crowded]) as captured:
        assert admin_client.get(LIST, query).status_code == 200
    plans = []
    with connections[crowded].cursor() as cursor:
        for made in captured:
            cursor.execute("EXPLAIN " + made["sql"])
            plan = "\n".join(row[0] for row in cursor.fetchall())
            plans.append(plan)
            assert "Seq Scan" not in plan or "COUNT" in made["sql"], plan
    assert any(index in plan for plan in plans), "\n\n".join(plans)
