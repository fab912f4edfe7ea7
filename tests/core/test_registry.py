"""What belongs to which app."""

import gc

import pytest
from celery import Celery
from celery.local import Proxy

from lrp_celery.core.registry import PerApp


@pytest.fixture
def registry():
    return PerApp()


def test_an_app_given_by_a_proxy_is_the_app(registry):
    app = Celery("proxied", set_as_current=False)
    registry.install(lambda: "mine", Proxy(lambda: app))
    assert registry.of(app) == "mine"
    registry.uninstall(Proxy(lambda: app))
    assert registry.of(app) is None


def test_an_app_of_its_own_goes_before_what_is_for_all(registry):
    app = Celery("own", set_as_current=False)
    registry.install(lambda: "all")
    registry.install(lambda: "own", app)
    assert (registry.of(app), registry.of(Celery("other", set_as_current=False))) == ("own", "all")
    registry.uninstall()
    assert registry.of(Celery("other", set_as_current=False)) is None


def test_an_app_that_is_gone_is_forgotten(registry):
    app = type("App", (), {})()
    registry.install(lambda: "gone", app)
    del app
    gc.collect()
    assert not registry._sources
