"""Tokens by which other services call procedures: signed names of users, so that none has to be stored."""

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest

#: How long a token is good for.
MAX_AGE = timedelta(days=90)

_signer = TimestampSigner(salt="places.tokens")


def make_token(name: str) -> str:
    """Return a token for the user with this name."""
    return _signer.sign(name)


def user_of(request: HttpRequest) -> Any:
    """Return the user whose token the request brings, or None: this is what HTTP_AUTHENTICATE names."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer":
        return None
    try:
        name = _signer.unsign(token, max_age=MAX_AGE)
    except BadSignature:
        return None
    return get_user_model().objects.filter(username=name, is_active=True).first()
