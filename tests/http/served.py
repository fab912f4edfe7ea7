"""Settings of the servers that tests start: everybody is ada, who may call, unless a token says otherwise."""

from typing import Any

from tests.integration import app  # noqa: F401 - the room's, made first of all, as the package of a project does

# isort: split
from tests.http import anything  # noqa: F401 - it is to be known, and the worker includes it
from tests.integration.settings import *  # noqa: F403
from tests.integration.settings import LRP_CELERY as ROOMS

ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.http.served_urls"
WSGI_APPLICATION = "tests.http.wsgi.application"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]


class Known:
    """A user that needs no table."""

    is_active = is_authenticated = True

    def __init__(self, name: str, rights: frozenset[str]) -> None:
        self.name, self.rights = name, rights

    def get_username(self) -> str:
        return self.name

    def has_perm(self, right: str) -> bool:
        return right in self.rights


KNOWN = {
    "Bearer ada": Known("ada", frozenset({"lrp_celery.start_call"})),
    "Bearer eve": Known("eve", frozenset({"lrp_celery.start_call"})),
}


def user_of(request: Any) -> Known | None:
    return KNOWN.get(request.headers.get("Authorization", ""))


LRP_CELERY = {**ROOMS, "HTTP_AUTHENTICATE": user_of}
