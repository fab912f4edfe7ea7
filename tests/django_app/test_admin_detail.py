import html
import json
import re
from datetime import timedelta
from gettext import GNUTranslations
from pathlib import Path

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import translation

import django_app
from django_app.admin.detail import MOST_ATTEMPTS, MOST_DEEDS, MOST_LINES, detail_of
from django_app.admin.history import runs_of, spans_of
from django_app.admin.payloads import MOST_PAYLOAD
from django_app.admin.relatives import MOST_EARLIER, MOST_LISTED, MOST_RELATIVES
from django_app.admin.sentence import sentence
from django_app.durations import NOTHING
from django_app.models import ActionLog, Attempt, Call, LogLine, Payload
from lrp_celery.tracking.status import CallStatus, Reason

LIST = "/admin/lrp_celery/call/"


def page(client, call):
    response = client.get(f"{LIST}{quote(call.pk)}/change/")
    assert response.status_code == 200
    return response.content.decode()


def text_of(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def runs(call):
    return runs_of(call, list(call.attempts.all()))


# --- The page


def test_the_page_answers_what_happened(admin_client, told):
    call = told.calls["parked"]
    text = text_of(page(admin_client, call))
    expected = [
        "fetch_countries parked max_retries",
        call.pk,
        "Gave up on attempt 3, after 2 retries, and waits for a person to decide: MirrorBusy: https://mirror.example.org",
        "HTTP 503",
        "Traceback of attempt 1",
        "Traceback of attempt 3",
        "celery@atlas-worker-2",
        "places.views:upload",
    ]
    for words in expected:
        assert words in text, words


def test_every_call_of_the_story_has_a_page(client, told):
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    client.force_login(person)
    for call in told.calls.values():
        markup = page(client, call)
        assert "<svg" in markup
        assert "<script" not in markup.replace("<script src=", "")
        assert "style=" not in markup
        assert "/delete/" not in markup
        assert "/history/" not in markup


def test_every_status_and_reason_has_a_sentence(story):
    for status in CallStatus:
        for reason in (None, *Reason):
            for attempt, run in ((0, None), (1, "a-run"), (2, None), (2, "a-run")):
                call = story.call(
                    "import_places",
                    status,
                    age=30,
                    reason=reason,
                    attempt=attempt,
                    run=run,
                    retries=max(0, attempt - 1),
                    last_error="broken" if reason else None,
                )
                words = sentence(call, story.now)
                assert words, (status, reason, attempt)
                assert "%(" not in words
                assert "None" not in words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quick", r"Succeeded at the first attempt, in 21 ms after a wait of 30 ms\."),
        ("patient", r"Succeeded on attempt 2, after 1 retry, which took 900 ms\."),
        (
            "failed",
            r"Failed on the first attempt: MalformedFile: smudged.csv, line 14: latitude '48\?12' is not a number",
        ),
        (
            "lost",
            r"Lost its worker process on the first attempt, after 31\.0 s on celery@atlas-worker-\d: WorkerLostError: .*",
        ),
        ("running", r"Runs for 10 min 39 s on celery@atlas-worker-\d\."),
        ("retrying", r"Attempt 1 asked for a retry, due in 1 min: MirrorBusy: .*"),
        ("waiting", r"Waits in queue “celery” for a worker, so far for 1\.2 s\."),
        ("overdue", r"Has been waiting in queue “reports” for 3 min 10 s: no worker takes it\."),
        ("due", r"Is meant to begin in 7 h\."),
        ("unpublished", r"Could not be published; it will not run unless .*: OperationalError: .*refused"),
        ("silent", r"Began 1 d 5 h ago on celery@atlas-worker-\d and has not been heard of since\."),
    ],
)
def test_the_sentence_says_what_happened(told, name, expected):
    call = Call.objects.get(pk=told.calls[name].pk)
    assert re.fullmatch(expected, sentence(call, told.now)), sentence(call, told.now)


def test_what_is_shown_is_escaped(admin_client, story):
    evil = '"><script>alert(1)</script>'
    names = (
        "target_summary",
        "last_error",
        "error_type",
        "queue",
        "worker",
        "schedule",
        "source_script",
        "source_node",
    )
    call = story.call(evil, "failed", age=5, call_id=f"{evil}/?&#_2F", owner=evil, **dict.fromkeys(names, evil))
    story.attempt(call, 1, "failed", after=0, took=1, last_error=evil, error_type=evil, traceback=evil)
    child = story.call("import_places", "succeeded", age=4, root_id=call.pk, parent_id=call.pk)
    assert evil not in page(admin_client, call)
    assert evil not in page(admin_client, child)


def test_ids_of_every_kind_have_a_page(admin_client, story):
    for call_id in ("a/b", "ü ö", "x" * 200, "100%", "a?b#c", "_2F", "/", "."):
        call = story.call("import_places", "succeeded", age=5, call_id=call_id)
        assert html.escape(call_id) in page(admin_client, call), call_id


@pytest.mark.parametrize("call_id", ["unknown", "%00", "x" * 300])
def test_a_call_that_is_not_there_leads_back_to_the_list(admin_client, story, call_id):
    response = admin_client.get(f"{LIST}{call_id}/change/", follow=True)
    assert response.redirect_chain[-1][0] == LIST
    assert "It may have been purged" in response.content.decode()


# --- Attempts


def test_the_newest_run_stands_on_the_row_and_is_shown_as_the_last_attempt(admin_client, told):
    call = told.calls["patient"]
    shown = runs(call)
    assert [(run.number, run.outcome, run.late) for run in shown] == [
        (1, "retried", False),
        (2, "succeeded", False),
        (3, "failed", True),
    ]
    assert shown[1].length == timedelta(seconds=0.9)
    assert shown[1].worker == call.worker
    assert "Traceback of attempt 1" in page(admin_client, call)


def test_a_call_that_simply_succeeded_shows_one_run(told):
    (run,) = runs(told.calls["quick"])
    assert (run.number, run.outcome, run.label) == (1, "succeeded", "succeeded")


def test_a_call_that_never_ran_shows_none(admin_client, told):
    call = Call.objects.filter(reason="expired").first()
    assert runs(call) == []
    assert "It has not run." in page(admin_client, call)


def test_a_run_of_which_nobody_heard_the_end_is_told_from_one_that_goes_on(story):
    call = story.call("import_places", "started", age=60, attempt=2, runs=2, wait=30)
    story.attempt(call, 1, None, after=1, took=None)
    first, second = runs(call)
    assert (first.label, second.label) == ("no end reported", "running")


def test_a_run_that_was_recorded_by_hand_is_shown(story):
    call = story.call("import_places", "failed", age=60, run=None, last_error="broken")
    Call.objects.filter(pk=call.pk).update(run=None, run_outcome=None)
    call.refresh_from_db()
    (run,) = runs(call)
    assert (run.outcome, run.last_error) == ("failed", "broken")


def test_no_more_attempts_are_read_than_fit_a_page(admin_client, story):
    call = story.call("import_places", "failed", age=6000, attempt=80, runs=80)
    for number in range(1, 81):
        story.attempt(call, number, "retried", after=number, took=0.5)
    text = text_of(page(admin_client, call))
    assert f"{80 - MOST_ATTEMPTS} earlier attempts are not shown." in text


# --- The timeline


def kinds(call, now):
    return [(span.kind, round((span.end - span.start).total_seconds(), 1)) for span in spans_of(call, runs(call), now)]


def test_the_timeline_shows_waits_and_runs(told):
    call = told.calls["parked"]
    took = round((call.terminal_at - call.started_at).total_seconds(), 1)
    assert kinds(call, told.now) == [
        ("queued", 0.2),
        ("run lrp-retried", 2.1),
        ("held", 18.2),
        ("run lrp-retried", 1.7),
        ("held", 18.8),
        ("queued", 0.3),
        ("run lrp-parked", took),
    ]


def test_the_timeline_of_an_open_call_goes_on_until_now(told):
    assert kinds(told.calls["running"], told.now) == [("queued", 0.0), ("run lrp-started", 640.0)]
    assert kinds(told.calls["overdue"], told.now) == [("queued", 190.0)]
    assert kinds(told.calls["due"], told.now) == [("held", 45.0)]
    retrying = Call.objects.get(pk=told.calls["retrying"].pk)
    assert kinds(retrying, told.now) == [("queued", 0.1), ("run lrp-retried", 2.3), ("held", 72.6)]


def test_a_countdown_is_told_from_waiting_for_a_worker(story):
    call = story.call("import_places", "succeeded", age=100, wait=30, took=1, due_at=story.now - timedelta(seconds=80))
    assert kinds(call, story.now) == [("held", 20.0), ("queued", 10.0), ("run lrp-succeeded", 1.0)]


# --- Other calls


def test_lineage_shows_each_call_below_the_one_it_came_from(admin_client, told):
    atlas = told.calls["atlas"]
    calls = Call.objects.all()
    lineage = detail_of(atlas, told.now, calls).lineage
    assert (lineage.root, lineage.parent) == (None, None)
    first, *others = lineage.tree
    assert (first.call_id, first.depth, first.is_this) == (atlas.pk, 0, True)
    assert {(one.depth, one.is_this) for one in others} == {(1, False)}
    assert [one.call.task.rpartition(".")[2] for one in others] == ["write_continent"] * 5 + ["bind_atlas"]
    child = Call.objects.get(pk=others[0].call_id)
    markup = page(admin_client, atlas)
    assert [int(level) for level in re.findall(r'aria-level="(\d+)"', markup)] == [
        each.depth + 1 for each in lineage.tree
    ]
    of_child = detail_of(child, told.now, calls).lineage
    assert of_child.root is not None
    assert of_child.root == of_child.parent
    assert of_child.root.call_id == atlas.pk
    assert of_child.group_size == 5
    markup = page(admin_client, child)
    assert f"{LIST}{quote(atlas.pk)}/change/" in markup
    assert f"{LIST}{quote(child.pk)}/tree/" in markup
    assert "5 succeeded" in text_of(markup)


def test_a_call_that_stands_alone_says_so(admin_client, story):
    call = story.call("import_places", "succeeded", age=5)
    markup = page(admin_client, call)
    assert "Root this call, and nothing came of it" in text_of(markup)
    assert "/tree/" not in markup


def test_a_relative_without_a_row_is_named_without_a_link(admin_client, story):
    call = story.call(
        "import_places", "succeeded", age=5, root_id="gone/root", parent_id="gone/parent", rerun_of="gone"
    )
    markup = page(admin_client, call)
    assert "gone/parent" in markup
    assert "(not tracked, or purged)" in markup
    assert f"{LIST}{quote('gone/parent')}" not in markup


def test_a_huge_tree_is_cut(admin_client, story):
    root = story.call("watch_inbox", "succeeded", age=500)
    row = {"task": "t", "status": "submitted", "enqueued_at": story.now, "updated_at": story.now}
    Call.objects.bulk_create(
        Call(call_id=f"child-{number}", root_id=root.pk, parent_id=root.pk, **row)
        for number in range(MOST_RELATIVES + 50)
    )
    lineage = detail_of(root, story.now, Call.objects.all()).lineage
    assert lineage.is_cut
    assert len(lineage.tree) == 1 + MOST_LISTED
    assert lineage.unlisted == MOST_RELATIVES - MOST_LISTED
    text = text_of(page(admin_client, root))
    assert "it is large" in text
    assert f"({MOST_RELATIVES - MOST_LISTED} more calls)" in text


def test_earlier_calls_of_the_task_are_listed_newest_first(told):
    call = told.calls["parked"]
    earlier = detail_of(call, told.now, Call.objects.all()).earlier
    expected = (
        Call.objects.for_task(call.task)
        .filter(enqueued_at__lt=call.enqueued_at)
        .order_by("-enqueued_at")[:MOST_EARLIER]
    )
    assert [one.call_id for one in earlier] == [one.pk for one in expected] != []
    assert any(one.share == "100.0%" for one in earlier)


def test_a_page_takes_a_fixed_number_of_bounded_queries(admin_client, told):
    for name in ("atlas", "parked", "quick", "chain"):
        with CaptureQueriesContext(connection) as captured:
            page(admin_client, told.calls[name])
        seen = [made["sql"] for made in captured if "lrp_celery" in made["sql"]]
        assert len(seen) <= 9, "\n".join(seen)
        for sql in seen:
            assert any(bound in sql for bound in ("LIMIT", '"call_id" IN', '"id" IN')), sql
            assert "COUNT" not in sql
            assert "DISTINCT" not in sql


def test_attempts_have_no_page_of_their_own(admin_client, told):
    assert admin_client.get("/admin/lrp_celery/attempt/").status_code == 404
    assert Attempt.objects.exists()


# --- Procedures


def owned(story, status="started", **values):
    known = {"owned": True, "idempotent": True, "max_attempts": 3, "losses": 1, "sends": 2, **values}
    return story.call("build_report", status, age=60, **known)


def log(call, *numbers):
    LogLine.objects.bulk_create(
        LogLine(call=call, number=number, at=call.enqueued_at, text=f"line {number} <b>") for number in numbers
    )
    Call.objects.filter(pk=call.pk).update(lines=numbers[-1])


def test_a_call_of_a_procedure_shows_what_is_known_of_it(admin_client, story):
    call = owned(
        story,
        progress='{"done": 4070, "total": 5000.5, "text": "rows <saved>"}',
        abort_requested_at=story.now,
        abort_by="ada",
        abort_reason="wrong <month>",
    )
    text = text_of(page(admin_client, call))
    expected = [
        "Procedure Progress 4070 of 5000.5: rows <saved> Idempotent yes Workers lost 1 of 3 Sent again 2",
        "By ada Reason wrong <month>",
    ]
    for words in expected:
        assert words in text, words


def test_a_call_of_another_task_shows_who_asked_for_its_end_but_no_procedure(admin_client, story):
    call = story.call("import_places", "started", age=60, abort_requested_at=story.now, abort_by="ada")
    text = text_of(page(admin_client, call))
    assert f"By ada Reason {NOTHING}" in text
    assert "Idempotent" not in text
    assert "Abort requested" not in text_of(page(admin_client, story.call("import_places", "started", age=60)))


@pytest.mark.parametrize(
    ("said", "shown"),
    [(None, NOTHING), ('{"done": 0.3333}', "0.33"), ('{"done": 2, "total": null, "text": "pages"}', "2: pages")],
)
def test_progress_is_shown_as_far_as_it_is_known(admin_client, story, said, shown):
    assert f"Progress {shown} Idempotent" in text_of(page(admin_client, owned(story, progress=said)))


def test_the_newest_lines_of_the_log_are_shown(admin_client, story):
    call = owned(story)
    log(call, *range(1, MOST_LINES + 6))
    text = text_of(page(admin_client, call))
    assert "5 earlier lines are not shown." in text
    assert "line 5 <b>" not in text
    assert text.index("line 6 <b>") < text.index(f"line {MOST_LINES + 5} <b>")
    Call.objects.filter(pk=call.pk).update(lines=MOST_LINES + 6)
    assert "1 later line was not kept." in text_of(page(admin_client, call))


def test_what_a_procedure_was_given_and_returned_is_shown_only_to_who_may_view_payloads(client, story):
    succeeded, failed = owned(story, "succeeded"), owned(story, "failed")
    message = {"body": [[], {"month": "2026-10", "api_token": "secret"}, {}]}
    Payload.objects.create(
        call=succeeded, message=json.dumps(message), result='{"file": "\\u00fc<b>.md\\ud800", "password": "secret"}'
    )
    Payload.objects.create(call=failed, error='{"type": "ValueError", "args": ["no such month"]}')
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    client.force_login(person)
    for shown in ("ü<b>", "2026-10"):
        assert shown not in text_of(page(client, succeeded)).partition("Times")[0]
    person.user_permissions.add(Permission.objects.get(codename="view_payload"))
    text = text_of(page(client, succeeded)).replace("&lt;", "<")
    assert 'Result { "file": "ü<b>.md", "password": "[redacted]" }' in text
    assert 'Arguments in full { "args": [], "kwargs": { "month": "2026-10", "api_token": "[redacted]" } }' in text
    assert "no such month" in text_of(page(client, failed))


def test_arguments_whose_names_are_unknown_here_are_hidden(admin_client, story):
    call = owned(story)
    Payload.objects.create(call=call, message=json.dumps({"body": [["a secret", 2], {"n": 1}, {}]}))
    text = text_of(page(admin_client, call))
    assert '"args": [ "[redacted]", "[redacted]" ], "kwargs": { "n": 1 }' in text
    assert "a secret" not in text


@pytest.mark.parametrize("message", ["", "[", "[1]", '{"body": 5}', '{"body": []}', "null", "[" * 10_000])
def test_a_message_that_cannot_be_read_is_not_shown(admin_client, story, message):
    call = owned(story)
    Payload.objects.create(call=call, message=message)
    assert "Arguments in full" not in page(admin_client, call)


def test_who_did_what_is_shown_to_those_who_may_see_actions(client, story):
    call = story.call("import_places", "failed", age=60)
    for number in range(MOST_DEEDS + 1):
        ActionLog.objects.create(
            at=story.now - timedelta(seconds=number),
            by=f"ada{number}",
            deed="handle",
            call_id=call.pk,
            outcome="handled",
        )
    ActionLog.objects.create(at=story.now, by="bob", deed="rerun", call_id=call.pk, outcome="runs again as a/new-one")
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    client.force_login(person)
    assert "Who did what" not in page(client, call)
    person.user_permissions.add(Permission.objects.get(codename="view_actionlog"))
    markup = page(client, call)
    assert f"bob rerun runs again as a/new-one {NOTHING}" in text_of(markup)
    assert f"{LIST}{quote('a/new-one')}/change/" in markup
    assert markup.count("ada") == MOST_DEEDS - 1


def test_whoever_views_a_call_finds_the_ones_that_ran_in_its_stead(client, story):
    call = story.call("fetch_countries", "failed", age=100)
    again = story.call("fetch_countries", "succeeded", age=50, rerun_of=call.pk)
    ActionLog.objects.create(at=story.now, by="bob", deed="rerun", call_id=call.pk, outcome=f"runs again as {again.pk}")
    person = get_user_model().objects.create_user("vera", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    client.force_login(person)
    markup = page(client, call)
    assert re.search(f"<dt>Reruns</dt><dd>.*{quote(again.pk)}/change/", markup, re.DOTALL)
    assert "bob" not in markup
    assert "<dt>Reruns</dt>" not in page(client, again)


def test_a_traceback_shows_the_application_first_and_all_of_it_on_demand(admin_client, told):
    markup = page(admin_client, told.calls["failed"])
    text = text_of(markup)
    assert text.index("… 2 frames of libraries") < text.index("With the frames of libraries")
    assert markup.count("celery/app/trace.py") == 2


def test_a_call_that_returned_nothing_shows_null_unless_its_result_is_not_kept(admin_client, story):
    call = owned(story, "succeeded")
    Payload.objects.create(call=call, message="{}")
    Call.objects.filter(pk=call.pk).update(keep_result=True)
    assert "Result null" in text_of(page(admin_client, call))
    Call.objects.filter(pk=call.pk).update(keep_result=False)
    assert "Result null" not in text_of(page(admin_client, call))


def test_what_is_kept_is_cut_to_a_bound_and_may_be_any_text(admin_client, story):
    call = owned(story, "succeeded")
    for result in ("[" * 10_000, "x" * 2 * MOST_PAYLOAD, "[" + "1," * MOST_PAYLOAD + "1]"):
        Payload.objects.update_or_create(call=call, defaults={"result": result})
        markup = page(admin_client, call)
        assert ("The rest is not shown." in markup) is (len(result) > MOST_PAYLOAD)
        assert len(markup) < 3 * MOST_PAYLOAD


def test_the_page_of_a_procedures_call_takes_one_query_more(admin_client, story):
    call = owned(story, "succeeded")
    log(call, 1)
    Payload.objects.create(call=call, message="m" * 1000, result="1")
    with CaptureQueriesContext(connection) as captured:
        page(admin_client, call)
    seen = [made["sql"] for made in captured if "lrp_celery" in made["sql"]]
    assert len(seen) <= 9, "\n".join(seen)
    for sql in seen:
        assert "LIMIT" in sql or '"call_id" IN' in sql, sql


# --- Languages


def test_the_pages_speak_german(client, told, settings):
    settings.LANGUAGE_CODE = "de"
    client.force_login(get_user_model().objects.create_superuser("ada"))
    with translation.override("de"):
        text = text_of(page(client, told.calls["parked"]))
        assert "Gab bei Versuch 3 (nach 2 Wiederholungen) auf und wartet auf die Entscheidung" in text
        assert "Frühere Aufrufe dieses Tasks" in text
        listed = text_of(client.get(LIST).content.decode())
    assert "Aufrufe" in listed
    assert "gescheitert" in listed


def test_every_sentence_in_the_code_has_a_german_one():
    folder = Path(django_app.__file__).parent
    catalogue = (folder / "locale" / "de" / "LC_MESSAGES" / "django.po").read_text(encoding="utf-8")
    known = set(re.findall(r'^msgid "(.+)"$', catalogue, re.MULTILINE))
    said = set()
    for path in folder.rglob("*.py"):
        said |= set(re.findall(r'\b(?:_|gettext_lazy|gettext)\(\s*"([^"\\]+)"\s*\)', path.read_text(encoding="utf-8")))
    for path in folder.rglob("*.html"):
        said |= set(re.findall(r'{% translate "([^"]+)" %}', path.read_text(encoding="utf-8")))
    assert len(said) > 200
    with translation.override("de"):
        # Django's own catalogue has some of them.
        assert [words for words in said if words not in known and translation.gettext(words) == words] == []


def test_the_german_catalogue_is_complete_and_compiled():
    folder = Path(django_app.__file__).parent / "locale" / "de" / "LC_MESSAGES"
    source = (folder / "django.po").read_text(encoding="utf-8")
    assert 'msgstr ""\n\n' not in source
    with (folder / "django.mo").open("rb") as file:
        compiled = GNUTranslations(file)
    entries = re.findall(r'^msgid "(.+)"\nmsgstr "(.+)"$', source, re.MULTILINE)
    assert len(entries) > 150
    for english, german in entries:
        context = "days" if english.startswith("%(large)s d") else None
        found = compiled.pgettext(context, english) if context else compiled.gettext(english)
        assert found == german
