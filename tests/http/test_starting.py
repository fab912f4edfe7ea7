"""POST procedures/{name}/calls."""

import asyncio
import json

import httpx
import pytest
from django.core.asgi import get_asgi_application

from lrp_celery import calls
from lrp_celery.procedures.envelope import Envelope
from tests.http import shop
from tests.http.shop import JSON, REPORTS, of, report, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def eager():
    shop.app.conf.task_always_eager = True
    yield
    shop.app.conf.task_always_eager = False


def post(client, headers, body, path=REPORTS):
    return send(client, "POST", path, body, headers)


def arguments_of(call_id):
    envelope = Envelope.from_json(shop.DjangoTrackingStore().payload(call_id).message)
    return envelope.args, envelope.kwargs


def test_a_call_is_made_for_whoever_asks(client, ada):
    answer = post(client, ada, {"args": ["2026-10"], "kwargs": {"copies": 2}})
    assert answer.status_code == 202
    made = answer.json()
    assert made == {"id": made["id"], "procedure": "http.report"}
    assert answer["Location"] == of(made["id"])
    assert int(answer["Retry-After"]) >= 1
    call = report.get_call(made["id"])
    assert (call.owner, call.task, call.status) == ("ada", "http.report", "submitted")
    assert arguments_of(made["id"]) == (["2026-10"], {"copies": 2})
    assert client.get(answer["Location"], headers=ada).json()["owner"] == "ada"


def test_it_may_be_mounted_below_a_place_that_has_parameters(client, ada):
    answer = post(client, ada, {"args": ["2026-10"]}, f"/acme{REPORTS}")
    assert (answer.status_code, answer["Location"]) == (202, f"/acme{of(answer.json()['id'])}")
    assert client.get(answer["Location"], headers=ada).status_code == 200


def test_the_same_id_again_makes_nothing(client, ada):
    body = {"args": ["2026-10"], "id": "report of ä:1"}
    first, again = post(client, ada, body), post(client, ada, {**body, "args": ["2026-11"]})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert first["Location"] == again["Location"]
    assert "Retry-After" not in again
    assert arguments_of("report of ä:1")[0] == ["2026-10"]
    assert client.get(first["Location"], headers=ada).json()["id"] == "report of ä:1"


def test_an_id_of_another_owner_or_procedure_is_a_conflict(client, ada, tokens):
    bob = shop.user("bob", "start_call", "auth.add_group")
    post(client, bob, {"args": ["2026-10"], "id": "taken"})
    before = shop.row("taken")
    for headers, path, body in (
        (ada, REPORTS, {"args": ["2026-10"], "id": "taken"}),
        (bob, "/lrp/procedures/http.guarded/calls", {"id": "taken"}),
    ):
        answer = post(client, headers, body, path)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:lrp-celery:id-conflict")
        assert "send another one" in answer.json()["detail"]
    assert shop.row("taken") == before


def test_an_id_may_be_taken_by_a_call_that_was_only_observed(client, ada):
    shop.DjangoTrackingStore().record_enqueue("observed", "http.report")
    assert post(client, ada, {"args": ["2026-10"], "id": "observed"}).status_code == 409


def test_a_timeout_may_be_shorter_than_the_procedures(client, ada):
    assert post(client, ada, {"args": ["x"], "timeout": 601}).status_code == 422
    made = post(client, ada, {"args": ["x"], "timeout": 30}).json()["id"]
    call = report.get_call(made)
    assert (call.deadline_at - call.enqueued_at).total_seconds() == pytest.approx(30, abs=1)


@pytest.mark.parametrize("name", ["http.plain", "http.reprot", "celery.backend_cleanup", "os.system", "%00", "ä" * 300])
def test_only_procedures_can_be_called(client, ada, name):
    answer = post(client, ada, {}, f"/lrp/procedures/{name}/calls")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:lrp-celery:no-such-procedure")


def test_a_misspelt_procedure_is_answered_with_the_right_one(client, ada):
    answer = post(client, ada, {}, "/lrp/procedures/http.reprot/calls")
    assert "Did you mean 'http.report'?" in answer.json()["detail"]


def test_who_lacks_a_right_calls_nothing(client, tokens):
    none, starter = shop.user("none", "view_call", "auth.add_group"), shop.user("starter", "start_call")
    for headers, path, lacks in (
        (none, REPORTS, "lrp_celery.start_call"),
        (none, "/lrp/procedures/nothing/calls", "lrp_celery.start_call"),
        (none, "/lrp/procedures/http.guarded/calls", "lrp_celery.start_call"),
        (starter, "/lrp/procedures/http.guarded/calls", "auth.add_group"),
    ):
        answer = post(client, headers, {"id": "never"}, path)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:lrp-celery:forbidden")
        assert lacks in answer.json()["detail"]
    assert calls.get("never") is None


def test_a_procedures_own_permission_is_enough_with_the_right_to_call(client, tokens):
    headers = shop.user("manager", "start_call", "auth.add_group")
    assert post(client, headers, {}, "/lrp/procedures/http.guarded/calls").status_code == 202


def test_a_user_whose_name_cannot_own_a_call_makes_none(client, tokens):
    headers = {"Authorization": "Bearer long"}
    tokens.users["Bearer long"] = shop.User("x" * 256, frozenset({"lrp_celery.start_call"}))
    assert post(client, headers, {"args": ["x"]}).status_code == 403


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "missing 1 required positional argument: 'month'"),
        ({"args": ["x", 1, "y", 2]}, "positional arguments"),
        ({"kwargs": {"month": "x", "mont": "y"}}, "unexpected keyword argument 'mont'"),
        ({"args": [1]}, "argument 'month'"),
        ({"args": [{"__as__": ["*", 1]}]}, "need not fit"),
        ({"args": ["x"], "kwargs": {"copies": {"__as__": ["*", "many"]}}}, "need not fit"),
        ({"args": [{"__as__": 1}]}, "argument 'month'"),
        ({"args": ["x"], "kwargs": {"copies": "many"}}, "argument 'copies'"),
        ({"args": ["x"], "id": ""}, "'id' is ''"),
        ({"args": ["x"], "id": 1}, "'id' is 1; send a string"),
        ({"args": ["x"], "id": "a/b"}, "must match"),
        ({"args": ["x"], "id": ".."}, "must match"),
        ({"args": ["x"], "id": "a\x00"}, "must match"),
        ({"args": ["x"], "id": "\ud800"}, "surrogate"),
        ({"args": ["x"], "id": "i" * 201}, "may have 200 characters"),
        ({"args": ["x"], "timeout": 0}, "must be more than 0"),
        ({"args": ["x"], "timeout": -1}, "must be more than 0"),
        ({"args": ["x"], "timeout": True}, "'timeout' is true; send a number"),
        ({"args": ["x"], "timeout": None}, "'timeout' is null"),
        ({"args": "x"}, "'args' is 'x'; send a list"),
        ({"kwargs": ["x"]}, "'kwargs' is a list; send an object"),
        ({"arg": ["x"]}, "Did you mean 'args'?"),
        ({"args": ["x"], "owner": "eve"}, "'owner', which is not known"),
        ({"args": ["x"], "queue": "fast"}, "'queue', which is not known"),
        ([], "The body is a list; send an object"),
        ("text", "The body is 'text'"),
        (None, "The body is null"),
    ],
)
def test_a_body_that_does_not_fit_is_told_what_would(client, ada, body, says):
    answer = client.post(REPORTS, json.dumps(body), content_type=JSON, headers=ada)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:lrp-celery:invalid")
    assert says in answer.json()["detail"]


def test_a_refusal_is_short_whatever_it_speaks_of(client, ada):
    long = "m" * 100_000
    for body in ({"kwargs": {"month": "x", long: 1}}, {long: 1}, {"args": [long, long]}):
        answer = post(client, ada, body)
        assert (answer.status_code, len(answer.content) < 2000) == (422, True)


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"\xff\xfe\x00",
        b'{"args": ["x"], "args": ["y"]}',
        b'{"args": [NaN]}',
        b'{"args": [1e999]}',
        b'{"args": [' + b"9" * 5000 + b"]}",
        b"[" * 20_000,
        b'{"args": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b" ",
    ],
)
def test_a_body_that_is_no_json_is_refused_in_words(client, ada, text):
    answer = client.post(REPORTS, text, content_type=JSON, headers=ada)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


def test_a_body_is_bounded_before_it_is_read(client, ada, settings):
    settings.LRP_CELERY = {**settings.LRP_CELERY, "MAX_PAYLOAD": 3000}
    large = json.dumps({"args": ["x" * 3000]})
    answer = client.post(REPORTS, large, content_type=JSON, headers=ada)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:lrp-celery:too-large")
    # What fits here, but not into a message, is told so, too.
    nearly = client.post(REPORTS, json.dumps({"args": ["x" * 2900]}), content_type=JSON, headers=ada)
    assert (nearly.status_code, "MAX_PAYLOAD" in nearly.json()["detail"]) == (422, True)


@pytest.mark.django_db(transaction=True)
def test_a_body_is_bounded_that_does_not_say_how_large_it_is(ada, settings):
    settings.LRP_CELERY = {**settings.LRP_CELERY, "MAX_PAYLOAD": 3000}

    async def pieces():
        yield b'{"args": ["'
        for _ in range(100):
            yield b"x" * 100
        yield b'"]}'

    async def scenario():
        transport = httpx.ASGITransport(get_asgi_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.post(REPORTS, content=pieces(), headers={**ada, "Content-Type": JSON})

    answer = asyncio.run(scenario())
    assert "content-length" not in answer.request.headers
    assert answer.status_code == 413


@pytest.mark.parametrize("path", [REPORTS, "/lrp/procedures/http.guarded/calls", of("x", "/abort")])
def test_a_body_in_chunks_is_not_taken_for_none_under_wsgi(client, tokens, path):
    headers = shop.user("manager", "start_call", "auth.add_group")
    in_chunks = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_TYPE": JSON, "CONTENT_LENGTH": ""}
    answer = client.generic("POST", path, b"", headers=headers, **in_chunks)
    assert (answer.status_code, "Content-Length" in answer.json()["detail"]) == (400, True)
    assert not shop.Call.objects.exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_only_json_is_read(client, ada, kind):
    answer = client.post(REPORTS, b'{"args": ["x"]}', content_type=kind, headers=ada)
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:lrp-celery:media-type")


def test_what_is_secret_is_not_shown(client, ada):
    made = post(client, ada, {"args": ["2026-10"], "kwargs": {"password": "hunter2"}}).json()["id"]
    assert "hunter2" not in client.get(of(made), headers=ada).content.decode()
    assert arguments_of(made)[1] == {"password": "hunter2"}


def test_an_eager_call_has_settled_when_it_is_answered(client, ada, eager):
    made = post(client, ada, {"args": ["2026-10"]}).json()["id"]
    assert client.get(of(made, "/result"), headers=ada).json()["result"] == {"2026-10": 1}
