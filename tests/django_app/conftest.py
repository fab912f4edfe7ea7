import pytest
from django.utils import timezone

from tests.browser.story import Story

SERVERS = {"sqlite", "postgres", "mysql"}


def pytest_collection_modifyitems(items):
    """Let a test that is given its database by name have it before pytest-django asks which ones there are.

    Else the first such test of a process may use its database, but threads of its own may not.
    """
    for item in items:
        if item.path.parent.name == "django_app" and hasattr(item, "callspec"):
            named = [value for value in item.callspec.params.values() if isinstance(value, str) and value in SERVERS]
            item.fixturenames = [*(f"{name}_alias" for name in named), *item.fixturenames]


@pytest.fixture
def story(db):
    return Story(timezone.now())


@pytest.fixture
def told(story):
    return story.tell()
