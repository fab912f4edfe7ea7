"""Which app is tracked with what."""

import gc

import pytest
from celery import Celery
from celery.local import Proxy

from lrp_celery.tracking import tracking
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import RunFacts
from lrp_celery.tracking.runs import Running, Runs, new_token


@pytest.fixture
def sources(monkeypatch):
    monkeypatch.setattr(tracking, "_sources", type(tracking._sources)())
    monkeypatch.setattr(tracking, "_for_others", [])
    return tracking._sources


def test_an_app_given_by_a_proxy_is_the_app(sources):
    app = Celery("proxied", set_as_current=False)
    tracking.install(lambda: "mine", Proxy(lambda: app))
    assert tracking.tracking_of(app) == "mine"
    tracking.uninstall(Proxy(lambda: app))
    assert tracking.tracking_of(app) is None


def test_an_app_of_its_own_goes_before_what_is_for_all(sources):
    app = Celery("own", set_as_current=False)
    tracking.install(lambda: "all")
    tracking.install(lambda: "own", app)
    assert (tracking.tracking_of(app), tracking.tracking_of(Celery("other", set_as_current=False))) == ("own", "all")


def test_an_app_that_is_gone_is_forgotten(sources):
    app = type("App", (), {})()
    tracking.install(lambda: "gone", app)
    del app
    gc.collect()
    assert not sources


def running(call_id):
    run = RunFacts(token=new_token())
    return Running(call_id=call_id, turn=Turn(), run=run, facts=None, secrets=frozenset(), inline=True)


def test_a_run_inside_a_run_of_the_same_call_ends_alone():
    runs, outer, inner = Runs(), running("a"), running("a")
    runs.begin(outer)
    runs.begin(inner)
    assert runs.find("a") is inner
    runs.end("a")
    assert runs.find("a") is outer
    runs.end("a")
    assert runs.find("a") is outer, "for the signals that come after the end"
    assert runs.find("b") is None


def test_tokens_differ_and_sort_by_time():
    tokens = [new_token() for _ in range(100)]
    assert len(set(tokens)) == 100
    assert tokens[0] < tokens[-1]
