"""By enumeration: no user, right, owner, method and id shows or changes what it must not."""

from itertools import chain, combinations, product
from typing import Any

import pytest

from django_app.api import handlers
from lrp_celery import CallStatus
from tests.http import shop
from tests.http.shop import of, report, send

pytestmark = pytest.mark.django_db

RIGHTS = ("view_call", "view_payload", "abort_call", "remove_call", "rerun_call")
ALL = [frozenset(some) for some in chain.from_iterable(combinations(RIGHTS, n) for n in range(len(RIGHTS) + 1))]
SECRET = "the-secret-of-the-payload"


class Discreet(Exception):
    """Does not say all that it was made with."""

    def __str__(self):
        return str(self.args[0])


REQUESTS = {
    "read": ("GET", "", None),
    "result": ("GET", "/result", None),
    "abort": ("POST", "/abort", {"reason": "because"}),
    "remove": ("DELETE", "", None),
    "remove later": ("DELETE", "?when=settled", None),
}
STATES = {
    "waiting": lambda: report.using(owner="ada").call("2026-10"),
    "running": lambda: shop.running(report.using(owner="ada").call("2026-10")),
    "succeeded": lambda: shop.ended(report.using(owner="ada").call("2026-10"), result=SECRET),
    "failed": lambda: shop.ended(
        report.using(owner="ada").call("2026-10"), CallStatus.FAILED, error=Discreet("bad", SECRET)
    ),
}


def request(client, name, call_id, headers):
    method, rest, body = REQUESTS[name]
    return send(client, method, of(call_id, rest), body, headers)


def seen(answer, call_id):
    """Return all that an answer tells, as if it were about no call in particular."""
    headers = sorted((name, value.replace(call_id, "ID")) for name, value in answer.items())
    return answer.status_code, headers, answer.content.decode().replace(call_id, "ID")


def allowed(name, rights, *, is_owner, is_open):
    """Return (status, whether the row may change), as DESIGN says; None: it must look like an unknown id."""
    sees = is_owner or "view_call" in rights
    if name in {"read", "result"}:
        if not sees:
            return None
        may = is_owner or "view_payload" in rights or name == "read"
        return (202 if is_open and name == "result" else 200, False) if may else (403, False)
    if not is_owner and ("abort_call" if name == "abort" else "remove_call") not in rights:
        return (403, False) if sees else None
    return {
        "abort": (202, is_open),
        "remove": (409, False) if is_open else (204, True),
        "remove later": (202, True),
    }[name]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", REQUESTS)
def test_each_user_sees_and_changes_what_is_theirs_to(client, tokens, name, state):
    is_open = state in {"waiting", "running"}
    call_id = before = None
    for rights, is_owner in product(ALL, (False, True)):
        headers = shop.user("ada" if is_owner else "eve", *rights)
        if call_id is None or shop.row(call_id) != before:
            call_id = STATES[state]()
            before = shop.row(call_id)
        answer = request(client, name, call_id, headers)
        case = (name, state, sorted(rights), is_owner)
        expected = allowed(name, rights, is_owner=is_owner, is_open=is_open)
        if expected is None:
            assert seen(answer, call_id) == seen(request(client, name, UNKNOWN, headers), UNKNOWN), case
            assert shop.row(call_id) == before, case
            continue
        status, may_change = expected
        assert answer.status_code == status, case
        assert (shop.row(call_id) != before) == may_change, case
        if status == 403:
            assert answer["Content-Type"] == "application/problem+json"
        may_read = is_owner or {"view_call", "view_payload"} <= rights
        shows = SECRET in answer.content.decode()
        assert shows == (name in {"read", "result"} and status == 200 and not is_open and may_read), case


UNKNOWN = "0190c3b4-0000-7000-8000-000000000000"
METHODS = ("HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "GET")
PLACES = ("", "/result", "/result?wait=0.01", "/abort", "?procedure=http.report", "?procedure=http.guarded")
CONDITIONS: Any = ({}, {"If-None-Match": "*"}, {"If-None-Match": '"x"'}, {"If-Match": "*"}, {"Range": "bytes=0-1"})
BODIES: Any = ({}, {"reason": "x"}, {"reason": 5}, [], {"x": 1})


@pytest.mark.parametrize("state", STATES)
def test_whatever_is_asked_in_whatever_way_a_call_of_others_looks_like_an_unknown_one(client, tokens, state):
    call_id = STATES[state]()
    before = shop.row(call_id)

    def compare(headers, method, rest, body=None, **conditions):
        said = [
            seen(send(client, method, of(each, rest), body, {**headers, **conditions}), each)
            for each in (call_id, UNKNOWN)
        ]
        assert said[0] == said[1], (method, rest, body, conditions)

    for rights in ({"start_call"}, {"start_call", "view_payload", "rerun_call"}, {"abort_call", "remove_call"}):
        headers = shop.user("eve", *rights)
        for method, rest, conditions in product(METHODS, PLACES, CONDITIONS):
            compare(headers, method, rest, **conditions)
        for body in () if "abort_call" in rights else BODIES:
            compare(headers, "POST", "/abort", body)
    # Nor does anybody reach it as a call of another procedure.
    headers = shop.user("root", *RIGHTS, "start_call")
    for method, rest in product(("GET", "POST", "DELETE"), ("", "/result", "/abort")):
        compare(headers, method, f"{rest}?procedure=http.guarded")
    assert shop.row(call_id) == before


@pytest.mark.parametrize("is_owner", [True, False])
@pytest.mark.parametrize("name", ["abort", "remove", "remove later"])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_call_that_gets_the_id_of_another_meanwhile_is_left_alone(
    client, tokens, monkeypatch, name, is_owner, is_open
):
    call_id = shop.ended(report.using(owner="ada", call_id="shared").call("2026-10"))
    headers = shop.user("ada") if is_owner else shop.user("eve", "abort_call", "remove_call")
    honest = handlers._attended
    next_one = []

    def attended(record):
        report.remove(call_id)
        report.using(owner="bob", call_id=call_id).call("2026-11")
        if not is_open:
            report.abort(call_id)
        next_one.append(shop.row(call_id))
        return honest(record)

    monkeypatch.setattr(handlers, "_attended", attended)
    answer = request(client, name, call_id, headers)
    assert answer.status_code in {202, 204}, "as for one that is gone"
    assert [shop.row(call_id)] == next_one
    assert next_one[0][0]["generation"] == 1


def test_whoever_asks_for_a_call_by_an_id_of_others_is_told_the_same_whatever_it_is(client, tokens):
    taken = {
        "open-one": lambda call_id: report.using(owner="bob", call_id=call_id).call("x"),
        "ended-one": lambda call_id: shop.ended(report.using(owner="bob", call_id=call_id).call("x")),
        "watched-one": lambda call_id: shop.DjangoTrackingStore().record_enqueue(call_id, "http.report"),
        "nobodys-one": lambda call_id: report.using(call_id=call_id).call("x"),
    }
    headers = shop.user("eve", "start_call")
    said = []
    for call_id, take in taken.items():
        take(call_id)
        before = shop.row(call_id)
        answer = send(client, "POST", shop.REPORTS, {"args": ["x"], "id": call_id}, headers)
        said.append(seen(answer, call_id))
        assert answer.status_code == 409
        assert shop.row(call_id) == before
    assert all(each == said[0] for each in said)


@pytest.mark.parametrize("name", REQUESTS)
def test_not_even_a_timeout_is_noticed_by_whoever_may_not_know_of_the_call(client, tokens, name):
    call_id = report.using(owner="ada", timeout=0.001).call("2026-10")
    before = shop.row(call_id)
    request(client, name, call_id, shop.user("eve", "view_payload", "start_call"))
    assert shop.row(call_id) == before
    request(client, "read", call_id, shop.user("ada"))
    assert shop.row(call_id)[0]["status"] == CallStatus.ABORTED


@pytest.mark.parametrize("who", ["nobody", "inactive", "unknown token"])
@pytest.mark.parametrize("name", [*REQUESTS, "start", "document"])
def test_who_is_not_known_is_told_nothing(client, tokens, name, who):
    shop.user("ada", *RIGHTS, "start_call", is_active=False)
    headers = {"inactive": {"Authorization": "Bearer ada"}, "unknown token": {"Authorization": "Bearer guess"}}.get(who)
    call_id = STATES["succeeded"]()
    before = shop.row(call_id)
    answers = []
    for each in (call_id, "unknown"):
        if name == "start":
            answers.append(send(client, "POST", shop.REPORTS, {"args": ["x"], "id": each}, headers))
        elif name == "document":
            answers.append(client.get("/lrp/openapi.json", headers=headers))
        else:
            answers.append(request(client, name, each, headers))
    known, unknown = answers
    assert known.status_code == 401
    assert known["WWW-Authenticate"]
    assert known["Content-Type"] == "application/problem+json"
    assert seen(known, call_id) == seen(unknown, "unknown")
    assert shop.row(call_id) == before
    assert shop.row("unknown") is None


def test_a_call_without_an_owner_is_nobodys_own(client, tokens):
    call_id = report.call("2026-10")
    for name in ("", "None", "null"):
        shop.DOORMAN.users["Bearer x"] = shop.User(name)
        assert client.get(of(call_id), headers={"Authorization": "Bearer x"}).status_code == 404


def test_an_owner_is_known_by_the_whole_name(client, tokens):
    call_id = report.using(owner="ada").call("2026-10")
    for name in ("Ada", "ada ", "ad", "ada\x00", "adа"):  # noqa: RUF001 - the last one is no Latin letter
        shop.DOORMAN.users["Bearer x"] = shop.User(name)
        assert client.get(of(call_id), headers={"Authorization": "Bearer x"}).status_code == 404
