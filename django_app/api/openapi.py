"""The OpenAPI document, made of the contract; `docs/openapi.json` is a copy of it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from django_app.api.contract import ENDPOINTS, HEADERS, SCHEMAS, Answer, Endpoint
from django_app.api.problems import MEDIA_TYPE, NO_METHOD, Kind

#: Of the contract, not of the package: it changes when clients must.
VERSION: Final = "1.0.0"
_NAMES: Final = {"procedure": "The name of a task that is a procedure.", "id": "The id of a call."}
_BODIES: Final = {
    endpoint.name: name for endpoint in ENDPOINTS for name, each in SCHEMAS.items() if each is endpoint.body
}


def document() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        paths[f"/{endpoint.path}"][endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Long-running procedures",
            "version": VERSION,
            "description": "Call a procedure, follow, await, abort and forget its call. Times are in UTC.",
        },
        "servers": [{"url": ".", "description": "Where this document is."}],
        "security": [{"session": []}, {"token": []}],
        "paths": dict(paths),
        "components": {
            "schemas": dict(SCHEMAS),
            "headers": dict(HEADERS),
            "securitySchemes": {
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "sessionid",
                    "description": "Django's session; whatever changes something needs the header X-CSRFToken, too.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Or whatever else the setting HTTP_AUTHENTICATE of this server understands.",
                },
            },
        },
    }


@cache
def text() -> str:
    """Return the document as it is served and checked in."""
    return json.dumps(document(), indent=2, ensure_ascii=True) + "\n"


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": endpoint.description,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint)],
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.is_body_required,
            "content": {"application/json": {"schema": _ref("schemas", _BODIES[endpoint.name])}},
        }
    return operation


def _path_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", endpoint.path):
        schema = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
        yield {"name": name, "in": "path", "required": True, "description": _NAMES[name], "schema": schema}


def _query_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for name, schema in endpoint.query.items():
        yield {"name": name, "in": "query", "required": False, "schema": dict(schema)}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses = {str(answer.status): _answer(answer) for answer in endpoint.answers}
    by_status: dict[int, list[Kind]] = defaultdict(list)
    for kind in (*endpoint.kinds, NO_METHOD):
        by_status[kind.status].append(kind)
    for status, kinds in by_status.items():
        responses[str(status)] = {
            "description": "; or: ".join(kind.title for kind in kinds) + ".",
            "content": {MEDIA_TYPE: {"schema": _ref("schemas", "Problem")}},
        }
    return dict(sorted(responses.items()))


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description or HTTPStatus(answer.status).phrase}
    if answer.headers:
        described["headers"] = {name: _ref("headers", name) for name in answer.headers}
    if answer.schema == "Started":
        described["links"] = {
            endpoint.name: {"operationId": endpoint.name, "parameters": {"id": "$response.body#/id"}}
            for endpoint in ENDPOINTS
            if "{id}" in endpoint.path
        }
    if answer.schema is not None:
        described["content"] = {"application/json": {"schema": _ref("schemas", answer.schema)}}
    return described


def _ref(section: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{section}/{name}"}
