"""The long poll: it wakes, it is bounded, and it holds nothing meanwhile."""

import asyncio
import threading
import time

import httpx
import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.db import connections
from django.test import AsyncClient, Client

from django_app.api import lookout, views, waits
from django_app.stores import DjangoTrackingStore
from lrp_celery.procedures import results
from tests.conformance.item_store import until
from tests.http import shop
from tests.http.shop import of, report

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def async_middleware(settings):
    """That of the other tests holds a thread for each request, for it is not async."""
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if each.startswith("django.")]


@pytest.fixture
def waiting(monkeypatch):
    """Counts the requests that wait at this moment, and have looked once."""
    counted = []
    looked = results.Waiting.pause

    def pause(self):
        if self not in counted:
            counted.append(self)
        return looked(self)

    monkeypatch.setattr(results.Waiting, "pause", pause)
    return counted


async def come(what, within=30.0):
    end = time.monotonic() + within
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def over_asgi():
    return httpx.AsyncClient(transport=httpx.ASGITransport(get_asgi_application()), base_url="http://testserver")


@sync_to_async
def apart(work, *args, **kwargs):
    try:
        return work(*args, **kwargs)
    finally:
        connections.close_all()


def test_a_long_poll_wakes_up_when_the_call_ends(ada, waiting):
    call_id = report.using(owner="ada").call("2026-10")

    async def scenario():
        async with over_asgi() as client:
            poll = asyncio.create_task(client.get(of(call_id, "/result?wait=60"), headers=ada))
            await come(lambda: waiting)
            began = time.monotonic()
            await apart(shop.ended, call_id, result="done")
            answer = await poll
            return answer, time.monotonic() - began

    answer, took = asyncio.run(scenario())
    assert (answer.status_code, answer.json()["result"]) == (200, "done")
    assert took < 20


def test_it_wakes_up_for_an_abort_and_for_a_removal_too(ada, waiting):
    aborted, removed = (report.using(owner="ada").call("2026-10") for _ in range(2))
    shop.running(aborted)

    async def scenario():
        async with over_asgi() as client:
            polls = [client.get(of(each, "/result?wait=60"), headers=ada) for each in (aborted, removed)]
            polling = asyncio.gather(*polls)
            await come(lambda: len(waiting) == 2)
            await client.post(of(aborted, "/abort"), json={"reason": "enough"}, headers=ada)
            await client.post(of(removed, "/abort"), json={}, headers=ada)
            return await polling

    one, other = asyncio.run(scenario())
    assert (one.status_code, one.json()["abort"]["reason"]) == (202, "enough")
    assert (other.status_code, other.json()["status"]) == (200, "aborted")


def test_whoever_waits_does_not_get_what_another_owner_has_called_by_the_same_id(ada, waiting, monkeypatch):
    call_id = report.using(owner="ada", call_id="shared").call("2026-10")
    # News may be lost.
    monkeypatch.setattr("lrp_celery.tracking.news.Newsroom.tell", lambda *_: None)

    def hand_over():
        shop.ended(call_id, result="ada's")
        report.remove(call_id)
        report.using(owner="bob", call_id=call_id).call("2026-10")
        report.abort(call_id, "bob's own reasons")

    async def scenario():
        async with over_asgi() as client:
            poll = asyncio.create_task(client.get(of(call_id, "/result?wait=60"), headers=ada))
            await come(lambda: waiting)
            with monkeypatch.context() as patched:
                looked = threading.Event()
                look = DjangoTrackingStore.look_with_result

                def late(*args):
                    assert looked.wait(30)
                    return look(*args)

                patched.setattr(DjangoTrackingStore, "look_with_result", late)
                await apart(hand_over)
                looked.set()
            return await poll

    answer = asyncio.run(scenario())
    assert "bob" not in answer.text
    assert answer.status_code == 404


def test_it_is_bounded_by_max_wait(ada, settings):
    settings.LRP_CELERY = {**settings.LRP_CELERY, "MAX_WAIT": 0.2}
    call_id = report.using(owner="ada").call("2026-10")
    for ask in (lambda path: Client().get(path, headers=ada), lambda path: asyncio.run(asked(path, ada))):
        began = time.monotonic()
        answer = ask(of(call_id, "/result?wait=1000"))
        assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
        assert 0.2 <= time.monotonic() - began < 20


async def asked(path, headers):
    async with over_asgi() as client:
        return await client.get(path, headers=headers)


def test_under_asgi_those_who_wait_hold_neither_threads_nor_connections(ada, waiting):
    call_id = report.using(owner="ada").call("2026-10")
    many = 16

    async def scenario():
        async with over_asgi() as client:
            before = set(threading.enumerate())
            polls = [client.get(of(call_id, "/result?wait=60"), headers=ada) for _ in range(many)]
            polling = asyncio.gather(*polls)
            await come(lambda: len(waiting) == many)
            # Those who look, one that listens to the database or looks out, and this test's own.
            await come(lambda: len(set(threading.enumerate()) - before) <= waits.LOOKERS + 2)
            await apart(shop.ended, call_id, result="done")
            return await polling

    answers = asyncio.run(scenario())
    assert [answer.json()["result"] for answer in answers] == ["done"] * many


def test_where_the_database_does_not_tell_one_statement_asks_for_all_who_wait(ada, waiting, monkeypatch):
    if connections["default"].vendor == "postgresql":
        pytest.skip("it tells")
    ids = [report.using(owner="ada").call("2026-10") for _ in range(8)]
    looks, glances = [], []
    look, glance = DjangoTrackingStore.look_with_result, DjangoTrackingStore.still_open

    def still_open(self, call_ids):
        glances.append(set(call_ids))
        return glance(self, call_ids)

    monkeypatch.setattr(DjangoTrackingStore, "look_with_result", lambda *args: (looks.append(None), look(*args))[1])
    monkeypatch.setattr(DjangoTrackingStore, "still_open", still_open)

    async def scenario():
        async with over_asgi() as client:
            polls = [asyncio.create_task(client.get(of(each, "/result?wait=60"), headers=ada)) for each in ids]
            await come(lambda: len(waiting) == len(ids))
            glances.clear()
            looks.clear()
            began = time.monotonic()
            await come(lambda: len(glances) > 10)
            assert set(ids) in glances
            # Each for itself looks every two seconds, in case that news gets lost.
            assert len(looks) <= len(ids) * ((time.monotonic() - began) / 2 + 1)
            await apart(shop.ended, ids[0], result="first")
            first = await polls[0]
            assert not any(poll.done() for poll in polls[1:])
            for each in ids[1:]:
                await apart(shop.ended, each, result="done")
            return first, await asyncio.gather(*polls[1:])

    first, others = asyncio.run(scenario())
    assert first.json()["result"] == "first"
    assert {other.json()["result"] for other in others} == {"done"}


def test_whoever_looks_out_stays_for_those_who_are_about_to_wait(monkeypatch):
    monkeypatch.setattr(lookout, "IDLE", 0.5)
    one = lookout.Lookout(DjangoTrackingStore())
    one.ensure()
    looking, began = one._thread, time.monotonic()
    while time.monotonic() - began < 1.5:
        one.ensure()
        assert one._thread is looking
        time.sleep(0.02)
    until(lambda: not looking.is_alive())
    one.ensure()
    assert one._thread is not looking


def test_many_who_come_at_once_are_answered_by_a_few_threads_in_turn(ada, monkeypatch):
    call_id = report.using(owner="ada").call("2026-10")
    inside, most, may_go = [], [], threading.Event()
    answer = views._answer

    def slow(*args):
        inside.append(None)
        most.append(len(inside))
        assert may_go.wait(30)
        try:
            return answer(*args)
        finally:
            inside.pop()

    monkeypatch.setattr(views, "_answer", slow)

    async def scenario():
        async with over_asgi() as client:
            reads = asyncio.gather(*[client.get(of(call_id), headers=ada) for _ in range(3 * views.AT_ONCE)])
            await come(lambda: len(inside) >= views.AT_ONCE)
            await asyncio.sleep(0.1)
            may_go.set()
            return await reads

    assert {answer.status_code for answer in asyncio.run(scenario())} == {200}
    assert max(most) == views.AT_ONCE


def test_a_client_that_goes_away_is_waited_for_no_longer(ada, waiting):
    call_id = report.using(owner="ada").call("2026-10")
    newsroom = waits.current_runtime().own.newsroom

    async def scenario():
        scope = {"type": "http", "method": "GET", "path": of(call_id, "/result"), "query_string": b"wait=60"}
        headers = {"host": "testserver", **ada}
        scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        poll = ApplicationCommunicator(get_asgi_application(), scope)
        await poll.send_input({"type": "http.request", "body": b""})
        await come(lambda: waiting)
        assert not newsroom.is_empty
        await poll.send_input({"type": "http.disconnect"})
        began = time.monotonic()
        await poll.wait(20)
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 20
    assert newsroom.is_empty


def test_beneath_a_middleware_that_is_not_async_only_so_many_wait(ada, settings, monkeypatch):
    settings.MIDDLEWARE = ["tests.browser.csp.content_security_policy", *settings.MIDDLEWARE]
    monkeypatch.setattr(waits, "_held", threading.BoundedSemaphore(1))
    assert waits._held.acquire()
    call_id = report.using(owner="ada").call("2026-10")
    began = time.monotonic()
    assert asyncio.run(asked(of(call_id, "/result?wait=60"), ada)).status_code == 202
    assert time.monotonic() - began < 20


def test_under_wsgi_only_so_many_wait_and_the_others_are_told_to_ask_again(ada, waiting, monkeypatch):
    monkeypatch.setattr(waits, "_held", threading.BoundedSemaphore(1))
    call_id = report.using(owner="ada").call("2026-10")
    answers = []

    def poll():
        try:
            answers.append(Client().get(of(call_id, "/result?wait=60"), headers=ada))
        finally:
            connections.close_all()

    first = threading.Thread(target=poll)
    first.start()
    until(lambda: len(waiting) == 1)
    began = time.monotonic()
    second = Client().get(of(call_id, "/result?wait=60"), headers=ada)
    assert (second.status_code, second["Retry-After"]) == (202, "1")
    assert time.monotonic() - began < 20
    shop.ended(call_id, result="done")
    first.join(30)
    assert [answer.json()["result"] for answer in answers] == ["done"]


@pytest.mark.django_db
def test_nobody_waits_for_what_only_a_test_sees(client, ada):
    call_id = report.using(owner="ada").call("2026-10")
    began = time.monotonic()
    assert client.get(of(call_id, "/result?wait=60"), headers=ada).status_code == 202
    assert time.monotonic() - began < 20


def test_djangos_own_async_client_is_served_too(ada):
    call_id = report.using(owner="ada").call("2026-10")
    shop.ended(call_id, result="done")

    async def scenario():
        try:
            return await AsyncClient().get(of(call_id, "/result?wait=60"), headers=ada)
        finally:
            await apart(lambda: None)

    assert asyncio.run(scenario()).json()["result"] == "done"
