import pytest

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
