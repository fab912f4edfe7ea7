"""`HttpProcedure` against the API itself, in this process, and against servers that misbehave."""

import asyncio
import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import httpx
import pytest
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections

import lrp_celery
from lrp_celery import (
    CallAborted,
    CallDiscarded,
    CalledInTask,
    Caller,
    CallFailed,
    CallIdConflict,
    CallNotFound,
    CallPending,
    CallState,
    CallStatus,
    CallTimedOut,
    ConfigurationError,
    HttpProcedure,
    LrpError,
    NotAllowed,
    NotEncodable,
    PollingCaller,
    ResultTimeout,
    StoreError,
    calls,
)
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.procedures.http import wire
from tests.http import shop
from tests.http.shop import report

ROOT = Path(__file__).parents[2]
BASE = "http://testserver/lrp"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Pauses are noted instead of made."""
    paused = []
    monkeypatch.setattr(wire, "sleep", paused.append)
    return paused


def over(transport, name="http.report", headers=None, **more):
    """Return a procedure whose requests go through an httpx transport."""
    made = HttpProcedure(BASE, name, headers, **{"patience": 2.0, **more})
    made._wire._clients[os.getpid()] = httpx.Client(transport=transport)
    return made


@pytest.fixture
def remote(db, ada):
    # As Django's own test client does: the connection holds the test's transaction.
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    with over(httpx.WSGITransport(get_wsgi_application()), headers=ada) as made:
        yield made
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)


def answering(*answers):
    """Return a transport that answers so, the last one for ever, and what it was asked."""
    asked = []

    def handle(request):
        asked.append(request)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    return httpx.MockTransport(handle), asked


def problem(status, kind, detail="because"):
    body = {"type": f"urn:lrp-celery:{kind}", "title": "x", "status": status, "detail": detail}
    return httpx.Response(status, text=json.dumps(body), headers={"Content-Type": "application/problem+json"})


def told(status="succeeded", **more):
    done = CallStatus(status).is_terminal
    call = {"id": "x", "procedure": "http.report", "state": "settled" if done else "pending", "status": status}
    return httpx.Response(200 if done else 202, json={**call, "done": done, "abort": None, "reason": None, **more})


def typed_by_what_it_returns() -> None:
    """Read by mypy, never run."""
    assert_type(Caller(HttpProcedure(BASE, "x", returns=int)).call(1), int)
    assert_type(HttpProcedure(BASE, "x", returns=dict[str, date]).get_result("x"), dict[str, date])
    assert_type(PollingCaller(HttpProcedure(BASE, "x"), polling_interval=1).call(1), Any)
    assert_type(HttpProcedure(BASE, "x", returns=int | None).using(timeout=1).get_result("x"), Any)


# --- against the API


def test_a_call_goes_its_whole_way(remote):
    call_id = remote.call("2026-10", copies=2)
    assert remote.get_state(call_id) is CallState.PENDING
    with pytest.raises(ResultTimeout):
        remote.get_result(call_id, wait=0)
    with pytest.raises(CallPending):
        remote.remove(call_id)
    shop.ended(call_id, result={"2026-10": 2})
    assert remote.get_state(call_id) is CallState.SETTLED
    assert remote.get_result(call_id) == {"2026-10": 2}
    remote.remove(call_id)
    remote.remove(call_id)
    assert calls.get(call_id) is None
    assert remote.get_call(call_id) is None
    for ask in (remote.get_state, remote.get_result):
        with pytest.raises(CallNotFound):
            ask(call_id)


def test_what_is_told_of_a_call_is_what_is_known_at_home(remote):
    call_id = remote.using(timeout=timedelta(seconds=30)).call("2026-10")
    shop.ended(call_id, CallStatus.FAILED, error=KeyError("month"))
    far, here = remote.get_call(call_id), report.get_call(call_id)
    untold = {"queue", "worker", "source_instance_id", "source_script", "source_node", "root_id", "last_error"}
    for name in {each for each in here.__slots__ if each not in untold}:
        assert getattr(far, name) == getattr(here, name), name
    assert far.worker is None
    assert far.deadline_at.tzinfo is not None


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        ({"status": CallStatus.FAILED, "error": KeyError("month")}, KeyError),
        ({"status": CallStatus.FAILED, "error": ArithmeticError("a", 1)}, ArithmeticError),
        ({"status": CallStatus.PARKED, "error": shop.Odd("mine")}, CallFailed),
        ({"status": CallStatus.DISCARDED}, CallDiscarded),
    ],
)
def test_what_a_call_has_raised_is_raised_as_at_home(remote, end, raised):
    call_id = shop.ended(remote.call("2026-10"), **end)
    errors = []
    for made in (remote, report):
        with pytest.raises(raised) as caught:
            made.get_result(call_id)
        errors.append(caught.value)
    far, here = errors
    assert type(far) is type(here)
    assert far.args == here.args
    if isinstance(far, CallFailed):
        assert (far.type, far.message) == (here.type, here.message)
        # Where it was raised is nobody else's business.
        assert far.traceback is None


def test_exceptions_that_are_named_are_raised_as_themselves(remote):
    call_id = shop.ended(remote.call("2026-10"), CallStatus.FAILED, error=shop.Odd("mine"))
    remote._raises = (shop.Odd,)
    with pytest.raises(shop.Odd, match="mine") as caught:
        remote.get_result(call_id)
    assert isinstance(caught.value.__cause__, CallFailed)


def test_an_abort_releases_at_once_and_says_why(remote):
    call_id = shop.running(remote.call("2026-10"))
    remote.abort(call_id, "wrong month", by="somebody")
    with pytest.raises(CallAborted, match="wrong month") as caught:
        remote.get_result(call_id, wait=1)
    assert type(caught.value) is CallAborted
    assert (report.get_call(call_id).status, shop.DjangoTrackingStore().look(call_id).abort_by) == ("started", "ada")
    timed = remote.using(timeout=0.001).call("2026-10")
    with pytest.raises(CallTimedOut):
        remote.get_result(timed)
    remote.abort("unknown")


def test_a_long_reason_is_cut_as_at_home(remote):
    told = []
    for made in (remote, report):
        call_id = shop.running(remote.call("2026-10"))
        made.abort(call_id, "so \ud800 \x00 long" + "g" * 3000)
        told.append(shop.DjangoTrackingStore().look(call_id).abort_reason)
    assert told[0] == told[1]


def test_half_a_character_is_sent_as_at_home(remote):
    call_id = remote.call("\ud800")
    sent = (shop.DjangoTrackingStore().payload(each).message for each in (call_id, report.call("\ud800")))
    assert [Envelope.from_json(each).args for each in sent] == [["\ud800"]] * 2


def test_a_fixed_id_is_the_idempotency_key(remote):
    fixed = remote.using(call_id="report of 2026-10 & ?#+")
    assert fixed.call("2026-10") == fixed.call("2026-11") == "report of 2026-10 & ?#+"
    assert fixed.get_state("report of 2026-10 & ?#+") is CallState.PENDING
    report.using(call_id="taken", owner="bob").call("2026-10")
    with pytest.raises(CallIdConflict):
        remote.using(call_id="taken").call("2026-10")
    for bad in ("a/b", "..", "a\x00", "a\n"):
        with pytest.raises(ConfigurationError, match="call_id"):
            remote.using(call_id=bad)
        with pytest.raises(CallNotFound):
            remote.get_state(bad)
        assert remote.get_call(bad) is None
        remote.abort(bad)
        remote.remove(bad)


def test_a_procedure_knows_its_own_calls_only(remote):
    other = report.using(owner="ada").call("2026-10")
    remote.name = "http.guarded"
    assert remote.get_call(other) is None
    with pytest.raises(CallNotFound):
        remote.get_state(other)
    with pytest.raises(CallNotFound):
        remote.get_result(other)
    remote.abort(other)
    remote.remove(other, when_settled=True)
    record = shop.DjangoTrackingStore().look(other)
    assert (record.abort_requested_at, record.remove_when_settled) == (None, False)


def test_wrong_arguments_are_a_type_error_as_at_home(remote):
    for args, kwargs in (((), {}), (("x", 1, "y", 2), {}), (("x",), {"mont": 1}), ((1,), {})):
        with pytest.raises(TypeError):
            remote.call(*args, **kwargs)
    with pytest.raises(NotEncodable, match="argument 1"):
        remote.call(object())
    with pytest.raises(ConfigurationError, match="queue"):
        remote.using(queue="fast")
    remote.name = "http.plain"
    with pytest.raises(ConfigurationError, match="@procedure"):
        remote.call()


def test_who_may_not_is_told_so(remote, ada):
    shop.user("ada")
    with pytest.raises(NotAllowed, match="start_call"):
        remote.call("2026-10")
    shop.DOORMAN.users.clear()
    with pytest.raises(PermissionError, match="HTTP_AUTHENTICATE"):
        remote.get_state("x")


def test_values_keep_their_types_where_json_has_none(remote):
    call_id = shop.ended(remote.call("2026-10"), result={"$date": "no mark"})
    assert remote.get_result(call_id) == {"$date": "no mark"}
    made = over(answering(told(result=["2026-10-01"]))[0], returns=list[date])
    assert made.get_result("x") == [date(2026, 10, 1)]
    transport, asked = answering(httpx.Response(202, json={"id": "x"}))
    over(transport).call(datetime(2026, 10, 1, tzinfo=UTC), to={1, 2})
    sent = json.loads(asked[0].content)
    assert sent["args"] == [{"__type__": "datetime", "__value__": "2026-10-01T00:00:00+00:00"}]


def test_the_async_twins_do_the_same(transactional_db, ada):
    from tests.http.test_waiting import apart, get_asgi_application

    async def scenario():
        async with HttpProcedure(BASE, "http.report", ada) as remote:
            (opened,) = remote._wire._opened.values()
            await opened.client.aclose()
            opened.client = httpx.AsyncClient(transport=httpx.ASGITransport(get_asgi_application()))
            call_id = await remote.acall("2026-10")
            assert await remote.aget_state(call_id) is CallState.PENDING
            assert (await remote.aget_call(call_id)).owner == "ada"
            with pytest.raises(ResultTimeout):
                await remote.aget_result(call_id, wait=timedelta(milliseconds=50))
            await apart(shop.ended, call_id, result="done")
            assert await remote.aget_result(call_id) == "done"
            await remote.aabort(call_id)
            await remote.aremove(call_id)
            assert await remote.aget_call(call_id) is None

    asyncio.run(scenario())


# --- many at once


@contextlib.contextmanager
def listening(answer):
    """Serve each connection in a thread, with `answer`; yield where."""
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=500))

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    line = stack.enter_context(door.accept()[0])
                    threading.Thread(target=talk, args=(line,), daemon=True).start()

        def talk(line):
            with contextlib.suppress(OSError):
                while line.recv(65_536):
                    answer(line)

        host = threading.Thread(target=serve, daemon=True)
        host.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}/lrp"
        door.shutdown(socket.SHUT_RDWR)
        host.join()


def say(line, said):
    """Answer with a call."""
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said) + said)


def test_however_many_wait_in_one_event_loop_nobody_is_told_that_nothing_answers():
    many, free = 150, threading.Event()
    waiting = []

    def answer(line):
        waiting.append(line)
        if len(waiting) == many:
            free.set()
        assert free.wait(30)
        say(line, told(result="done").content)

    async def scenario(base):
        async with HttpProcedure(base, "x", patience=60) as remote:
            return await asyncio.gather(*[remote.aget_result("x") for _ in range(many)])

    with listening(answer) as base:
        assert asyncio.run(scenario(base)) == ["done"] * many


def test_whoever_leaves_the_context_leaves_the_connections_to_those_inside(monkeypatch):
    made = []
    make = httpx.AsyncClient

    def noted(**more):
        made.append(make(**more))
        return made[-1]

    monkeypatch.setattr(httpx, "AsyncClient", noted)

    async def scenario(base):
        procedure = HttpProcedure(base, "x")
        async with procedure:
            async with procedure.using(call_id="y") as other:
                assert await other.aget_result("x") == "done"
            assert await procedure.aget_result("x") == "done"
            # Each event loop has its own.
            assert await asyncio.to_thread(asyncio.run, procedure.aget_result("x")) == "done"
            assert not made[0].is_closed

    with listening(lambda line: say(line, told(result="done").content)) as base:
        asyncio.run(scenario(base))
    assert [each.is_closed for each in made] == [True, True]


def test_threads_that_ask_first_at_the_same_time_share_one_client(monkeypatch):
    made, together = [], threading.Barrier(3)
    make = httpx.Client

    def slow(**more):
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(5)
        made.append(make(**more))
        return made[-1]

    monkeypatch.setattr(httpx, "Client", slow)
    answers = []
    with listening(lambda line: say(line, told(result=1).content)) as base, HttpProcedure(base, "x") as remote:
        threads = [threading.Thread(target=lambda: answers.append(remote.get_result("x"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [each.is_closed for each in made].count(False) == 1
    assert answers == [1, 1, 1]
    assert all(each.is_closed for each in made)


# --- against servers that misbehave


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("went away"),
        httpx.Response(502, text="<html>"),
        httpx.Response(429),
        problem(503, "unavailable"),
    ],
)
def test_a_request_is_repeated_with_the_same_id(no_pause, trouble):
    transport, asked = answering(
        trouble, trouble, lambda request: httpx.Response(202, json=json.loads(request.content))
    )
    call_id = over(transport).call("2026-10")
    assert len(asked) == 3
    assert {json.loads(request.content)["id"] for request in asked} == {call_id}
    assert no_pause == [0.1, 0.2]


def test_a_call_whose_answer_got_lost_is_made_once(remote, monkeypatch, no_pause):
    honest, lost = remote._wire._ask, []

    def ask(request):
        answer = honest(request)
        if not lost:
            lost.append(answer)
            return wire.Answer(None, b"ReadError: gone")
        return answer

    monkeypatch.setattr(remote._wire, "_ask", ask)
    call_id = remote.call("2026-10")
    assert lost[0].status == 202
    assert shop.row(call_id)[0]["generation"] == 0
    assert [each.call_id for each in shop.Call.objects.all()] == [call_id]


def test_a_service_that_stays_away_is_given_up(no_pause):
    transport, asked = answering(httpx.ConnectError("refused"))
    with pytest.raises(StoreError, match=r"ConnectError: refused.*the same call_id"):
        over(transport, patience=0.05).call("2026-10")
    assert len(asked) == 1
    transport, _ = answering(httpx.Response(503, headers={"Retry-After": "3600"}), told())
    over(transport).get_result("x")
    # Not for as long as it says: it may be back before.
    assert no_pause == [5.0]


def test_nobody_insists_for_longer_than_they_wait(no_pause):
    transport, asked = answering(httpx.ConnectError("refused"))
    with pytest.raises(StoreError):
        over(transport, patience=3600).get_result("x", wait=0)
    assert (len(asked), no_pause) == (1, [])
    with pytest.raises(StoreError):
        over(transport, patience=3600).get_result("x", wait=0.05)
    assert (len(asked), no_pause) == (2, [])


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (httpx.Response(302, headers={"Location": "/login/"}), ConfigurationError),
        (httpx.Response(404, html="<h1>Not Found</h1>"), ConfigurationError),
        (httpx.Response(200, text="<html>"), ConfigurationError),
        (httpx.Response(200, json=[]), ConfigurationError),
        (httpx.Response(500, html="<h1>Server Error</h1>"), StoreError),
        (httpx.Response(200, json={"id": "x", "done": True, "status": "new"}), LrpError),
        (problem(418, "teapot"), LrpError),
        (problem(413, "too-large"), NotEncodable),
    ],
)
def test_answers_that_cannot_be_are_told_apart(answer, raised):
    transport, asked = answering(answer)
    with pytest.raises(raised):
        over(transport).get_result("x")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": None},
        {"status": "new"},
        {"status": []},
        {"done": None},
        {"abort": "x", "status": "started", "done": False},
        {"error": "x", "status": "failed"},
        {"error": {"args": 5}, "status": "failed"},
        {"error": {"type": 5}, "status": "failed"},
        {"error": {"message": {}}, "status": "failed"},
        {"progress": {}},
        {"progress": 3},
        {"enqueued_at": "x"},
        {"enqueued_at": 5},
    ],
)
@pytest.mark.parametrize("method", ["call", "get_state", "get_call", "get_result"])
def test_whatever_is_told_of_a_call_is_an_answer_or_an_error_of_ours(method, wrong):
    ask = getattr(over(answering(httpx.Response(200, json={**json.loads(told().content), **wrong}))[0]), method)
    with contextlib.suppress(LrpError):
        ask("x", **({"wait": 0} if method == "get_result" else {}))


@pytest.mark.parametrize("method", ["call", "get_state", "get_call", "get_result"])
@pytest.mark.parametrize("text", ["{}", '{"ok": true}', "[" * 100_000])
def test_another_api_is_told_from_ours(method, text):
    ask = getattr(over(answering(httpx.Response(200, text=text))[0]), method)
    with pytest.raises(ConfigurationError, match="base_url"):
        ask("x")


def test_a_wait_is_asked_for_in_pieces_and_at_once_again(no_pause, monkeypatch):
    monkeypatch.setattr("lrp_celery.procedures.http.procedure._NO_WAIT", 0.0)
    transport, asked = answering(told("started"), told("started"), told(result=1))
    assert over(transport).get_result("x") == 1
    assert [float(request.url.params["wait"]) for request in asked] == [20.0] * 3
    assert no_pause == []


def test_a_server_without_room_to_wait_is_asked_again_when_it_says(no_pause):
    full = told("started")
    full.headers["Retry-After"] = "2"
    transport, asked = answering(full, full, told(result=1))
    assert over(transport).get_result("x", wait=60) == 1
    assert no_pause == [2.0, 2.0]
    assert all(0 < float(request.url.params["wait"]) <= 20 for request in asked)


def test_headers_may_be_told_anew_for_each_request():
    tokens = iter("ab")
    transport, asked = answering(told())
    made = over(transport, headers=lambda: {"Authorization": next(tokens)})
    made.get_result("x")
    made.get_state("x")
    assert [request.headers["Authorization"] for request in asked] == ["a", "b"]


def test_no_cookie_is_kept_for_the_next_request():
    def answer(line):
        said = told(result=1).content
        line.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: sessionid=of-ada\r\nContent-Type: application/json\r\n")
        line.sendall(b"Content-Length: %d\r\n\r\n" % len(said) + said)

    with listening(answer) as base, HttpProcedure(base, "x") as remote:
        remote.get_result("x")
        remote.get_result("x")
        assert dict(remote._wire._mine().cookies) == {}


def test_whoever_forbids_it_does_not_wait_inside_a_task(monkeypatch):
    monkeypatch.setattr("lrp_celery.procedures.http.procedure._state.get_current_worker_task", lambda: report)
    made = over(answering(told(result=1))[0])
    assert made.get_result("x") == 1
    with pytest.raises(CalledInTask):
        made.get_result("x", allow_in_task=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "shop.example/lrp"},
        {"base_url": "ftp://shop.example/lrp"},
        {"base_url": "https://"},
        {"base_url": "https://["},
        {"base_url": "https://shop.example:99999999/"},
        {"base_url": "https://shop.example/lrp?tenant=1"},
        {"base_url": "https://shop.example/lrp#calls"},
        {"name": ""},
        {"request_timeout": 0},
        {"patience": -1},
    ],
)
def test_what_cannot_be_is_refused_at_once(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        HttpProcedure(**{"base_url": BASE, "name": "x", **wrong})


@pytest.mark.parametrize("value", ["Bearer SECRET\n", "Bearer SECRET ", "Bearer S\x00ECRET", "Bearer SECRETÄ"])
def test_a_header_that_cannot_be_sent_is_refused_at_once_and_not_shown(value):
    headers = {"Authorization": value}
    with pytest.raises(ConfigurationError, match="'Authorization'") as caught:
        HttpProcedure(BASE, "x", headers)
    assert "ECRET" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="'Authorization'"):
        over(answering(told())[0], headers=lambda: headers).get_state("x")


def test_a_password_in_the_address_is_not_shown():
    assert repr(HttpProcedure("https://ada:SECRET@shop.example/lrp/", "x")) == (
        "<procedure x at https://shop.example/lrp>"
    )


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(NotAllowed("no")))
    assert (type(error), str(error)) == (NotAllowed, "no")


LONELY = """
import sys
sys.modules["django"] = sys.modules["django_app"] = sys.modules["redis"] = None
from lrp_celery import Caller, HttpProcedure
Caller(HttpProcedure("https://shop.example/lrp", "reports.build"))
print(*{"kombu.transport.redis", "kombu.transport.pyamqp", "kombu.transport.memory"} & set(sys.modules))
"""


def test_it_needs_neither_django_nor_a_broker():
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LONELY], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_without_httpx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'lrp_celery\[http\]'"):
        HttpProcedure(BASE, "x")
    assert lrp_celery.HttpProcedure is HttpProcedure


def test_an_answer_that_does_not_end_is_no_answer():
    def dripping(line):
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(300):
            line.sendall(b" ")
            time.sleep(0.05)

    with listening(dripping) as base, HttpProcedure(base, "x", request_timeout=0.2, patience=0.1) as remote:
        began = time.monotonic()
        with pytest.raises(StoreError, match="does not end"):
            remote.get_state("x")
        with pytest.raises(StoreError, match="does not end"):
            asyncio.run(remote.aget_state("x"))
        assert time.monotonic() - began < 10


def test_an_answer_that_is_too_large_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(wire, "_LARGEST", 1000)
    read = []

    def flood():
        for n in range(100):
            read.append(n)
            yield b" " * 100

    transport, _ = answering(httpx.Response(200, content=flood()))
    with pytest.raises(LrpError, match="more than 1000 bytes"):
        over(transport).get_state("x")
    assert len(read) < 20


def test_whoever_wishes_no_timeout_has_none():
    with (
        listening(lambda line: say(line, told(result=1).content)) as base,
        HttpProcedure(base, "x", request_timeout=None, patience=None) as remote,
    ):
        assert remote.get_result("x") == 1
