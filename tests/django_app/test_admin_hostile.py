"""No page breaks, runs anything or grows without bounds, whatever stands in the tables."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_app.admin.calls import CallAdmin
from django_app.admin.detail import MOST_TRACED
from django_app.models import ActionLog, Attempt, Call, LogLine, Payload

LIST = "/admin/lrp_celery/call/"
WEIGHT = 150_000
EVIL = "<script>alert(1)</script>\"'>{{ 7 }}{% x %}&amp;\u202e\u0085\U0001f4a5%s%(x)s{0}\\"
TEXTS = [field.name for field in Call._meta.get_fields() if field.get_internal_type() in {"CharField", "TextField"}]


def pages(call):
    there = quote(call.pk)
    yield f"{LIST}{there}/change/"
    yield f"{LIST}{there}/change/?attempt=3"
    yield f"{LIST}{there}/tree/"
    yield LIST
    yield f"{LIST}?attention=failed"
    yield f"{LIST}?q={there}"
    yield "/admin/lrp_celery/actionlog/"


def look(client, path, limit=WEIGHT):
    answer = client.get(path)
    assert answer.status_code == 200, path
    markup = answer.content.decode()
    assert "<script>alert" not in markup, path
    assert len(answer.content) <= limit, (path, len(answer.content))
    return markup


def hostile(story, **values):
    texts = dict.fromkeys(
        (name for name in TEXTS if name not in {"call_id", "task", "status", "reason", "run_outcome"}), EVIL
    )
    known = {**texts, "run": EVIL[:60], "stop_reason": "?", "reason": "<b>", "run_outcome": "<i>", **values}
    status = known.pop("status", "failed")
    call = story.call(EVIL, status, age=50, **{**known, "call_id": f"{EVIL}/..;?#"})
    Call.objects.filter(pk=call.pk).update(task=EVIL)
    ActionLog.objects.create(at=story.now, by=EVIL, deed="abort", call_id=call.pk, reason=EVIL, outcome=EVIL)
    return call


def test_every_text_of_a_call_may_be_anything(admin_client, story):
    call = hostile(story)
    story.attempt(call, 1, EVIL[:16], after=0, took=1, last_error=EVIL, error_type=EVIL, traceback=EVIL)
    LogLine.objects.create(call=call, number=1, at=story.now, text=EVIL)
    Payload.objects.create(call=call, message=EVIL, result=json.dumps({EVIL: EVIL}), error=EVIL)
    for path in pages(call):
        look(admin_client, path)


@pytest.mark.parametrize("status", ["submitted", "started", "retrying", "succeeded", "aborted", "discarded", "parked"])
@pytest.mark.parametrize(
    "progress", ["", "[]", "{", '{"done": "x"}', '{"done": 1e999, "total": 0}', '{"done": -5, "total": 3}']
)
def test_progress_that_is_none_and_texts_in_any_status(admin_client, story, status, progress):
    call = hostile(story, status=status, progress=progress, owned=True)
    for path in pages(call):
        look(admin_client, path)


def test_times_may_be_in_any_order_and_far_away(admin_client, story):
    past, future = story.now - timedelta(days=400_000), story.now + timedelta(days=2_000_000)
    for number, (first, second) in enumerate([(past, future), (future, past)]):
        call = story.call("import_places", "succeeded", age=5, call_id=f"odd-{number}", due_at=first, expires_at=second)
        story.attempt(call, 1, "retried", after=-500, took=-3)
        times = {"enqueued_at": first, "started_at": second, "terminal_at": first, "updated_at": second}
        Call.objects.filter(pk=call.pk).update(**times, abort_requested_at=second, deadline_at=first)
        Call.objects.filter(pk=call.pk, purge_at=None).update(handled_at=future)
        for path in pages(call):
            look(admin_client, path)


def test_ten_thousand_attempts_with_long_tracebacks_are_a_page_of_bounded_weight(admin_client, story):
    call = story.call("import_places", "failed", age=90_000, attempt=10_000, runs=10_000, last_error="e" * 2000)
    frame = '  File "/srv/app.py", line 1, in f\n    g()\n  File "/x/site-packages/a.py", line 1, in g\n    h()\n'
    traceback = "Traceback (most recent call last):\n" + frame * 200 + "ValueError: no"
    Attempt.objects.bulk_create(
        Attempt(call=call, run=f"r{n}", number=n, outcome="retried", last_error="e" * 2000, traceback=traceback)
        for n in range(1, 10_001)
    )
    with CaptureQueriesContext(connection) as captured:
        markup = look(admin_client, f"{LIST}{call.pk}/change/")
    assert len(captured) <= 12
    assert markup.count("<details") == 2 * MOST_TRACED
    assert "?attempt=9960#lrp-attempt-9960" in markup
    asked = look(admin_client, f"{LIST}{call.pk}/change/?attempt=9960")
    assert asked.count("<details") == 2 * (MOST_TRACED + 1)
    assert asked.count("<details open") == 1


@pytest.fixture
def as_staff(client):
    """A client of somebody who has every right on calls, one by one."""
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(content_type__app_label="lrp_celery"))
    client.force_login(person)
    return client


@pytest.mark.parametrize("status", ["failed", "retrying"])
@pytest.mark.parametrize("who", ["admin_client", "as_staff"])
def test_a_page_that_has_everything_makes_a_dozen_queries(request, story, who, status):
    person = request.getfixturevalue(who)
    call = story.call(
        *("import_places", status),
        age=500,
        owned=True,
        runs=2,
        attempt=2,
        lines=1,
        root_id="root",
        parent_id="parent",
        rerun_of="before",
        group_id="group",
    )
    story.call("import_places", "failed", age=900)
    story.attempt(call, 1, "retried", after=0, took=1, traceback="Traceback (most recent call last):\nValueError")
    LogLine.objects.create(call=call, number=1, at=story.now, text="said")
    Payload.objects.create(call=call, message='{"body": [[1], {}]}', result="2", error="3")
    ActionLog.objects.create(at=story.now, by="ada", deed="abort", call_id=call.pk, outcome="asked")
    with CaptureQueriesContext(connection) as captured:
        markup = look(person, f"{LIST}{call.pk}/change/")
    for words in ("Traceback of attempt 1", "said", "Arguments in full", "Who did what", "Rerun of", "Group"):
        assert words in markup, words
    assert len(captured) <= 12, len(captured)


@pytest.mark.parametrize("number", ["", "x", "-1", "9" * 400, "\uff11", "1.5", "<b>"])
def test_whatever_is_asked_for_as_an_attempt_does_no_harm(admin_client, story, number):
    call = story.call("import_places", "failed", age=5)
    assert admin_client.get(f"{LIST}{call.pk}/change/", {"attempt": number}).status_code == 200


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("end", ["", "Z", "-14:00", "+14:00"])
def test_an_instant_may_be_the_first_or_the_last_there_is(admin_client, story, settings, zone, end):
    settings.TIME_ZONE = zone
    story.call("import_places", "failed", age=5)
    for instant in (f"0001-01-01T00:00:00{end}", f"9999-12-31T23:59:59{end}", "0001-01-02T12:00:00Z"):
        for query in ({"before": f"{instant}_x"}, {"enqueued": f"{instant}.."}, {"enqueued": f"..{instant}"}):
            assert admin_client.get(LIST, query).status_code == 200, query


def test_ten_thousand_children_and_calls_whose_task_is_gone(admin_client, story):
    root = story.call("gone_from_the_code", "succeeded", age=500)
    row = {"task": "t" * 255, "status": "failed", "enqueued_at": story.now, "updated_at": story.now}
    row |= {"terminal_at": story.now, "last_error": "e" * 2000, "error_type": "E" * 255, "target_summary": "a" * 1000}
    Call.objects.bulk_create(
        Call(call_id=f"child-{number:0190}", root_id=root.pk, parent_id=root.pk, **row) for number in range(10_000)
    )
    look(admin_client, f"{LIST}{root.pk}/change/")
    # So long names and so many rows weigh more, and that is bounded all the same.
    look(admin_client, LIST, limit=2 * WEIGHT)
    look(admin_client, f"{LIST}{root.pk}/tree/", limit=4 * WEIGHT)


def test_a_large_tree_and_a_list_that_is_shown_as_a_whole_weigh_no_more_than_other_pages(admin_client, story):
    root = story.call("import_places", "succeeded", age=500)
    row = {"task": root.task, "status": "failed", "enqueued_at": story.now, "updated_at": story.now, "attempt": 1}
    row |= {
        "started_at": story.now,
        "terminal_at": story.now,
        "last_error": "no such place",
        "error_type": "ValueError",
    }
    calls = (Call(call_id=str(uuid4()), root_id=root.pk, parent_id=root.pk, **row) for _ in range(1_000))
    Call.objects.bulk_create(calls)
    look(admin_client, f"{LIST}{root.pk}/tree/")
    Call.objects.filter(pk__in=Call.objects.values("pk")[CallAdmin.list_max_show_all :]).delete()
    assert admin_client.get(LIST, {"all": ""}).context["cl"].show_all
    look(admin_client, f"{LIST}?all=")
