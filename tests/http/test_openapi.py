"""The document: the one that is served, the one that is checked in, and what the views really answer."""

import json
from pathlib import Path

import pytest

from django_app.api import contract, openapi, problems, schemas
from django_app.api.views import VIEWS
from tests.http import shop
from tests.http.shop import of, report, send

ROOT = Path(__file__).parents[2]


def test_the_document_that_is_checked_in_is_the_one_that_is_served(client, ada, described):
    assert (ROOT / "docs" / "openapi.json").read_text() == openapi.text()
    answer = client.get("/lrp/openapi.json", headers=ada)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == described


def test_every_view_is_described_and_everything_described_has_a_view(described):
    assert {path.removeprefix("/") for path in described["paths"]} | {contract.DOCUMENT} == {
        form for form, _ in VIEWS.values()
    }
    for form, view in VIEWS.values():
        if form != contract.DOCUMENT:
            assert {method.lower() for method in view._by_method} == set(described["paths"][f"/{form}"])


def test_bodies_are_compared_by_rules_that_exist():
    def keywords(schema):
        yield from (key for key in schema if key not in schemas._WORDS)
        for inner in schema.get("properties", {}).values():
            yield from keywords(inner)

    for schema in (contract.START_BODY, contract.ABORT_BODY, *contract.RESULT.query.values()):
        # `items` asks for nothing here: whatever a list holds will do.
        assert set(keywords(schema)) - {"items"} <= set(schemas._RULES)


def test_every_problem_is_described_by_a_type_of_its_own():
    assert len({kind.uri for kind in problems.KINDS}) == len(problems.KINDS)


@pytest.mark.django_db
def test_answers_are_what_the_document_says(client, ada, described):
    jsonschema = pytest.importorskip("jsonschema_rs")

    def check(answer, path, method):
        responses = described["paths"][path][method]["responses"]
        content = responses[str(answer.status_code)].get("content", {})
        if not answer.content:
            assert content == {}
            return
        schema = content[answer["Content-Type"]]["schema"]
        jsonschema.validate({**schema, "components": described["components"]}, json.loads(answer.content))

    made = send(client, "POST", shop.REPORTS, {"args": ["x"]}, ada)
    check(made, "/procedures/{procedure}/calls", "post")
    call_id = made.json()["id"]
    check(client.get(of(call_id), headers=ada), "/calls/{id}", "get")
    check(client.get(of(call_id, "/result"), headers=ada), "/calls/{id}/result", "get")
    check(client.delete(of(call_id), headers=ada), "/calls/{id}", "delete")
    check(send(client, "POST", of(call_id, "/abort"), {}, ada), "/calls/{id}/abort", "post")
    check(client.get(of(call_id), headers=ada), "/calls/{id}", "get")
    failed = shop.ended(report.using(owner="ada").call("x"), "failed", error=KeyError("x"))
    check(client.get(of(failed, "/result"), headers=ada), "/calls/{id}/result", "get")
    check(client.get(of("unknown"), headers=ada), "/calls/{id}", "get")
