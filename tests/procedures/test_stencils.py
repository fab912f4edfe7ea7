"""Calls whose messages are made like the one before: nobody can tell them from Celery's own."""

import json
import os
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.signals import before_task_publish

from lrp_celery import LrpCelery, procedure
from lrp_celery.tracking import MemoryTrackingStore, stencils
from lrp_celery.tracking.stencils import Stencil

#: What differs from call to call, whoever makes the message; and who calls, for that is a fixture here.
MOVING = {"id", "root_id", "correlation_id", "at", "script"}


@pytest.fixture
def shop():
    app = Celery("stencils", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = "stencils"
    store = MemoryTrackingStore()
    lrp = LrpCelery(app, store=store)

    @procedure
    @app.task(name="stencils.report", shared=False)
    def report(month="may", password="", **named):
        return month

    @procedure
    @app.task(name="stencils.hurried", expires=60, shared=False)
    def hurried(month="may"):
        return month

    @procedure
    @app.task(name="stencils.limited", time_limit=60, soft_time_limit=50, compression="gzip", shared=False)
    def limited(month="may"):
        return month

    app.finalize()
    yield SimpleNamespace(app=app, store=store, report=report, hurried=hurried, limited=limited)
    lrp.close()
    app.close()


@pytest.fixture
def cut(monkeypatch):
    """The calls that went the short way."""
    ids = []
    honest = Stencil.send

    def send(self, producer, call_id, *arguments):
        ids.append(call_id)
        honest(self, producer, call_id, *arguments)

    monkeypatch.setattr(Stencil, "send", send)
    return ids


def message(shop, call_id):
    """What is kept of a call to be sent, without what moves."""
    return still(json.loads(shop.store.payload(call_id).message))


def still(value):
    if isinstance(value, dict):
        return {key: still(each) for key, each in value.items() if key not in MOVING}
    return [still(each) for each in value] if isinstance(value, list) else value


ARGUMENTS = [
    ((), {}),
    (("may",), {}),
    (("may", "secret"), {"count": 3}),
    ((), {"month": "it's"}),
    (("é",), {"rate": 0.1, "none": None, "yes": True}),
    (("x" * 3000,), {"list": [1, {"a": []}]}),
    ((["a"] * 20,), {f"key{n}": n for n in range(20)}),
]


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
@pytest.mark.parametrize(
    "options", [{}, {"queue": "other"}, {"priority": 5, "headers": {"trace": "abc"}}, {"owner": "ada", "timeout": 9}]
)
def test_the_short_way_leads_to_the_same_message(shop, cut, monkeypatch, args, kwargs, options):
    called = shop.report.using(**options)
    first, short = called.call("january"), called.call(*args, **kwargs)
    assert cut == [short]
    monkeypatch.setattr(stencils, "_is_plain", lambda task: False)
    long = called.call(*args, **kwargs)
    assert cut == [short]
    assert message(shop, short) == message(shop, long)
    assert message(shop, short) != message(shop, first)
    headers = json.loads(shop.store.payload(short).message)["options"]["headers"]
    assert (headers["id"], headers["root_id"]) == (short, short)


def test_a_task_with_options_of_its_own_keeps_them(shop, cut, monkeypatch):
    short = [shop.limited.call("may"), shop.limited.call("june")][1]
    assert cut == [short]
    monkeypatch.setattr(stencils, "_is_plain", lambda task: False)
    assert message(shop, short) == message(shop, shop.limited.call("june"))


def test_other_options_are_asked_of_celery_again(shop, cut):
    shop.report.call()
    other = shop.report.using(queue="other").call()
    assert cut == []
    assert message(shop, other)["options"]["routing_key"] == "other"
    back = shop.report.call()
    assert message(shop, back)["options"]["routing_key"] == "stencils"


def test_what_is_due_or_expires_at_a_time_of_its_own_goes_the_long_way(shop, cut):
    for _ in range(2):
        shop.hurried.call()
        shop.report.using(countdown=0.001).call()
        shop.report.using(expires=60).call()
    assert cut == []


def test_another_default_queue_counts_from_then_on(shop):
    shop.report.call()
    shop.app.conf.task_default_queue = "moved"
    assert message(shop, shop.report.call())["options"]["routing_key"] == "moved"


def test_new_routes_count_as_soon_as_celery_heeds_them(shop):
    shop.report.call()
    shop.app.conf.task_routes = {"stencils.*": {"queue": "routed"}}
    shop.app.amqp.flush_routes()
    shop.app.amqp.router = shop.app.amqp.Router()
    assert message(shop, shop.report.call())["options"]["routing_key"] == "routed"


def test_a_child_process_names_itself_as_the_origin(shop, monkeypatch):
    shop.report.call()
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    headers = message(shop, shop.report.call())["options"]["headers"]
    assert headers["origin"].startswith("gen4242@")


def test_a_call_inside_of_a_task_stems_from_that(shop, cut):
    inner = []

    @shop.app.task(name="stencils.outer", shared=False)
    def outer():
        inner.append(shop.report.call())

    shop.report.call()
    outer.apply(task_id="root")
    assert cut == []
    headers = json.loads(shop.store.payload(inner[0]).message)["options"]["headers"]
    assert (headers["root_id"], headers["parent_id"]) == ("root", "root")


def test_whoever_wraps_the_publishing_is_asked_each_time(shop, monkeypatch):
    shop.report.call()
    asked = []
    honest = shop.app.send_task
    monkeypatch.setattr(shop.app, "send_task", lambda *a, **k: asked.append(1) or honest(*a, **k))
    shop.report.call()
    shop.report.call()
    assert asked == [1, 1]


def test_receivers_of_the_signal_write_into_one_message_each(shop):
    def mark(headers, body, **_):
        assert "mark" not in headers
        assert "mark" not in headers["stamps"]
        assert "mark" not in body[2]
        headers["mark"] = headers["stamps"]["mark"] = body[2]["mark"] = "x"
        headers["timelimit"][0] = (headers["timelimit"][0] or 0) + 1

    before_task_publish.connect(mark)
    try:
        made = [shop.report.call() for _ in range(3)]
    finally:
        before_task_publish.disconnect(mark)
    kept = [message(shop, each) for each in made]
    assert kept[0] == kept[1] == kept[2]
    assert kept[2]["options"]["headers"]["timelimit"] == [1, None]
