import pytest
from django.conf import settings
from django.contrib.auth import get_user_model

from tests.browser.chromium import MISSING, chromium, find_chromium


@pytest.fixture(scope="session")
def browse():
    path = find_chromium()
    if path is None:
        pytest.skip(MISSING)
    with chromium(path) as use:
        yield use


@pytest.fixture(scope="session")
def live_server(django_db_setup, live_server):
    """The live server, started when the test database is known.

    Before that it takes the database for one in memory, and shares the test's connection
    with every thread of the server.
    """
    assert not live_server.thread.connections_override
    return live_server


@pytest.fixture
def look(browse, live_server, client):
    """Return `look(use, path, **options)`: log in, open `path`, return `use(page)`; the console must stay silent.

    `user` is who looks: a superuser, if nobody is named.
    """
    ada = get_user_model().objects.create_superuser("ada", password="ada")

    def look(use, path="/admin/lrp_celery/call/", *, logged_in=True, user=None, **options):
        complaints = []
        client.force_login(user or ada)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value

        def run(context):
            if logged_in:
                context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
            page = context.new_page()
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text} {message.location}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            answer = page.goto(live_server.url + path)
            assert answer.headers["content-security-policy"] == "default-src 'self'"
            return use(page)

        result = browse(run, **options)
        assert [line for line in complaints if "favicon" not in line] == []
        return result

    return look


def follow(page, locator):
    with page.expect_navigation():
        locator.click()
