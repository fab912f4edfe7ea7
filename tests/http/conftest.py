import json
from pathlib import Path

import pytest
from celery import Celery
from django.test import override_settings

from tests.http import shop


@pytest.fixture(autouse=True)
def mounted(settings):
    settings.ROOT_URLCONF = "tests.http.urls"


@pytest.fixture(autouse=True)
def current_app():
    """The shop's Celery app is the project's, in all threads."""
    shop.app.set_current()
    shop.app.set_default()
    yield shop.app
    Celery("default").set_default()


@pytest.fixture
def tokens():
    """Users are known by their tokens."""
    shop.DOORMAN.users.clear()
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": shop.DOORMAN, "MAX_WAIT": 60}):
        yield shop.DOORMAN


@pytest.fixture
def ada(tokens):
    """Headers of a user who may call."""
    return shop.user("ada", "start_call")


@pytest.fixture(scope="session")
def described():
    """The document as it is checked in."""
    return json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
