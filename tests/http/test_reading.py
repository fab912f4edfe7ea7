"""GET calls/{id}, GET calls/{id}/result, POST calls/{id}/abort, DELETE calls/{id}."""

from datetime import datetime

import pytest

from django_app.models import ActionLog
from lrp_celery import CallStatus, StoreError, calls
from lrp_celery.tracking.owned import Note
from lrp_celery.tracking.snapshot import Progress
from tests.http import shop
from tests.http.shop import of, report, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def call_id(ada):
    return report.using(owner="ada").call("2026-10")


def test_a_call_tells_how_it_stands(client, ada, call_id):
    shop.running(call_id)
    said = Note(progress=Progress(done=1, total=4, text="counted"))
    assert shop.DjangoTrackingStore().note(call_id, f"run-{call_id}", said)
    answer = client.get(of(call_id), headers=ada)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    told = answer.json()
    assert (told["id"], told["procedure"]) == (call_id, "http.report")
    assert (told["state"], told["status"], told["done"]) == ("pending", "started", False)
    assert told["progress"] == {"done": 1, "total": 4, "text": "counted"}
    assert datetime.fromisoformat(told["enqueued_at"]).tzinfo is not None
    assert "result" not in told
    assert "error" not in told
    # Where it runs is nobody's business.
    assert not {"worker", "queue", "source_instance_id", "pid"} & set(told)


def test_a_call_that_has_succeeded_tells_its_result(client, ada, call_id):
    shop.ended(call_id, result={"2026-10": 31})
    for path in (of(call_id), of(call_id, "/result"), of(call_id, "/result?wait=3")):
        answer = client.get(path, headers=ada)
        assert answer.status_code == 200
        told = answer.json()
        assert (told["state"], told["status"], told["done"]) == ("settled", "succeeded", True)
        assert told["result"] == {"2026-10": 31}


def test_a_call_that_has_failed_tells_why_and_no_traceback(client, ada, call_id):
    shop.ended(call_id, CallStatus.FAILED, error=KeyError("month"))
    told = client.get(of(call_id, "/result"), headers=ada).json()
    assert (told["status"], told["done"]) == ("failed", True)
    assert told["error"] == {"type": "KeyError", "message": "'month'", "args": ["month"]}
    assert "result" not in told


def test_whoever_may_not_see_the_payload_sees_neither_result_nor_what_an_error_was_made_with(client, call_id, tokens):
    viewer = shop.user("viewer", "view_call")
    failed = shop.ended(report.using(owner="ada").call("x"), CallStatus.FAILED, error=KeyError("month"))
    shop.ended(call_id, result={"2026-10": 31})
    assert "result" not in client.get(of(call_id), headers=viewer).json()
    assert client.get(of(failed), headers=viewer).json()["error"] == {"type": "KeyError", "message": "'month'"}


def test_an_aborted_call_says_who_wished_what(client, ada, call_id):
    shop.running(call_id)
    answer = send(client, "POST", of(call_id, "/abort"), {"reason": "wrong month"}, ada)
    assert (answer.status_code, answer.json()) == (202, {"id": call_id})
    told = client.get(of(call_id, "/result?wait=5"), headers=ada)
    # Whoever waits is released at the request, and told what was said.
    assert (told.status_code, told.json()["done"]) == (202, False)
    assert told.json()["abort"] == {"reason": "wrong month", "is_timeout": False}
    assert report.get_call(call_id).abort_requested_at is not None
    (entry,) = ActionLog.objects.filter(call_id=call_id)
    assert (entry.by, entry.deed, entry.reason) == ("ada", "abort", "wrong month")


def test_an_abort_before_it_runs_settles_the_call(client, ada, call_id):
    assert client.post(of(call_id, "/abort"), headers=ada, content_type="application/json").status_code == 202
    told = client.get(of(call_id), headers=ada).json()
    assert (told["status"], told["reason"]) == ("aborted", "aborted")
    assert told["error"] == {"type": None, "message": None}
    assert send(client, "POST", of(call_id, "/abort"), {"reason": None}, ada).status_code == 202


def test_a_timeout_is_settled_by_whoever_looks(client, ada):
    call_id = report.using(owner="ada", timeout=0.001).call("2026-10")
    told = client.get(of(call_id), headers=ada).json()
    assert (told["status"], told["reason"], told["abort"]["is_timeout"]) == ("aborted", "timeout", True)


def test_what_is_pending_is_answered_with_when_to_ask_again(client, ada, call_id):
    for path in (of(call_id, "/result"), of(call_id, "/result?wait=0")):
        answer = client.get(path, headers=ada)
        assert (answer.status_code, answer["Retry-After"], answer.json()["state"]) == (202, "1", "pending")


@pytest.mark.parametrize("wait", ["-1", "x", "", "1e3", "nan", "inf", "9" * 400, "1_0", "\u0661"])
def test_a_wait_is_a_number_of_seconds(client, ada, call_id, wait):
    answer = client.get(of(call_id, f"/result?wait={wait}"), headers=ada)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:lrp-celery:invalid")


def test_too_many_parameters_are_refused_in_our_own_words(client, ada, call_id):
    path = of(call_id, "?" + "&".join(f"a{n}" for n in range(1001)))
    answer = client.get(path, headers=ada)
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")


def test_a_call_is_forgotten_once_it_has_settled(client, ada, call_id):
    answer = client.delete(of(call_id), headers=ada)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lrp-celery:call-pending")
    assert "?when=settled" in answer.json()["detail"]
    shop.ended(call_id)
    answer = client.delete(of(call_id), headers=ada)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(of(call_id), headers=ada).status_code == 404
    assert client.delete(of(call_id), headers=ada).status_code == 204
    assert calls.get(call_id) is None


def test_a_call_that_is_pending_can_be_forgotten_later(client, ada, call_id):
    answer = client.delete(of(call_id, "?when=settled"), headers=ada)
    assert (answer.status_code, answer.json()) == (202, {"id": call_id})
    assert client.get(of(call_id), headers=ada).status_code == 200
    shop.ended(call_id)
    assert client.get(of(call_id), headers=ada).status_code == 404
    assert client.delete(of(call_id, "?when=settled"), headers=ada).status_code == 202
    assert client.delete(of(call_id, "?when=never"), headers=ada).status_code == 422


def test_what_somebody_else_forgets_is_on_record(client, call_id, tokens, django_capture_on_commit_callbacks):
    shop.ended(call_id)
    with django_capture_on_commit_callbacks(execute=True):
        assert client.delete(of(call_id), headers=shop.user("janitor", "remove_call")).status_code == 204
    (entry,) = ActionLog.objects.filter(call_id=call_id)
    assert (entry.by, entry.deed) == ("janitor", "remove")


def test_what_has_not_changed_is_not_sent_again(client, ada, call_id, monkeypatch):
    first = client.get(of(call_id), headers=ada)
    for known in (first["ETag"], f'"other", {first["ETag"]}', first["ETag"].removeprefix("W/"), "*"):
        again = client.get(of(call_id), headers={**ada, "If-None-Match": known})
        assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert client.get(of(call_id), headers={**ada, "If-None-Match": '"other"'}).status_code == 200
    shop.ended(call_id, result="done")
    changed = client.get(of(call_id), headers={**ada, "If-None-Match": first["ETag"]})
    assert (changed.status_code, changed.json()["result"]) == (200, "done")
    assert changed["ETag"] != first["ETag"]
    # The result, which may be large, is not even read.
    monkeypatch.delattr("django_app.stores.DjangoTrackingStore.look_with_result")
    assert client.get(of(call_id), headers={**ada, "If-None-Match": changed["ETag"]}).status_code == 304


def test_an_answer_is_no_bodys_but_the_visitors(client, ada, call_id):
    answer = client.get(of(call_id), headers=ada)
    assert "private" in answer["Cache-Control"]
    assert {"Cookie", "Authorization"} <= {each.strip() for each in answer["Vary"].split(",")}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/lrp/calls/x", "GET, DELETE"),
        ("POST", "/lrp/calls/x/result", "GET"),
        ("GET", "/lrp/calls/x/abort", "POST"),
        ("GET", shop.REPORTS, "POST"),
        ("OPTIONS", shop.REPORTS, "POST"),
    ],
)
def test_other_methods_are_told_which_there_are(client, ada, method, path, allowed):
    answer = client.generic(method, path, headers=ada)
    assert (answer.status_code, answer["Allow"]) == (405, allowed)
    assert answer["Content-Type"] == "application/problem+json"


def test_a_head_is_a_get_without_its_body(client, ada, call_id):
    assert client.head(of(call_id), headers=ada).status_code == 200


@pytest.mark.parametrize("bad", ["%00", "a" * 201, "%ED%A0%80", "%2e%2e", "a%0ab", "' OR 1=1 --"])
def test_an_id_that_cannot_be_one_is_unknown(client, ada, bad):
    assert client.get(of(bad), headers=ada).status_code == 404
    assert client.get(of(bad, "/result?wait=1"), headers=ada).status_code == 404
    assert send(client, "POST", of(bad, "/abort"), {}, ada).status_code == 202
    assert client.delete(of(bad), headers=ada).status_code == 204


def test_calls_that_are_only_observed_are_not_shown(client, tokens):
    everything = shop.user("root", "view_call", "view_payload", "abort_call", "remove_call")
    store = shop.DjangoTrackingStore()
    store.record_enqueue("observed", "http.plain")
    before = shop.row("observed")
    assert client.get(of("observed"), headers=everything).status_code == 404
    assert send(client, "POST", of("observed", "/abort"), {}, everything).status_code == 202
    assert client.delete(of("observed"), headers=everything).status_code == 204
    assert shop.row("observed") == before


def test_a_store_that_is_away_is_told_with_when_to_ask_again(client, ada, call_id, monkeypatch):
    def away(*_, **__):
        raise StoreError("away, at 10.0.0.7")

    monkeypatch.setattr("django_app.stores.DjangoTrackingStore.look", away)
    answer = client.get(of(call_id), headers=ada)
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert "10.0.0.7" not in answer.content.decode()
