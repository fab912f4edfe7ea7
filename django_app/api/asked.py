"""A request that has been admitted, and the forms of its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse

from django_app.api.visitors import Visitor
from lrp_celery.tracking.record import CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has been admitted and understood."""

    request: HttpRequest
    visitor: Visitor
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Later:
    """There is no answer yet: the call goes on, and the visitor is ready to wait."""

    record: CallRecord
    seconds: float


def as_json(body: Mapping[str, Any], *, status: int, headers: Mapping[str, str]) -> HttpResponse:
    """Return an answer with a body."""
    return HttpResponse(
        json.dumps(body, allow_nan=False), status=status, content_type="application/json", headers=dict(headers)
    )
