import pytest
from django.utils import timezone

from tests.browser.story import Story


@pytest.fixture
def story(db):
    return Story(timezone.now())


@pytest.fixture
def told(story):
    return story.tell()
