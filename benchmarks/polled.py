"""What is polled by `benchmarks.polls`: the HTTP API of the measured project, for one user who may do all that is measured."""

from typing import Any

import benchmarks.shop  # noqa: F401 - sets Django up

from django.core.asgi import get_asgi_application  # isort: skip

TOKEN = "Bearer for-measurements-only"


class _User:
    is_active = is_authenticated = True

    def get_username(self) -> str:
        return "bench"

    def has_perm(self, right: str) -> bool:
        return True


def user_of(request: Any) -> _User | None:
    """Return the user, for the token."""
    return _User() if request.headers.get("Authorization") == TOKEN else None


application = get_asgi_application()
