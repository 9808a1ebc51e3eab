"""Every body that the API takes has an example in its document, which its schema allows."""

from __future__ import annotations

from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tenants.api.examples import BODIES


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(SchemaGenerator().get_schema(request=None, public=True))


def bodies(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation["requestBody"]["content"]["application/json"]
        for path in document["paths"].values()
        for operation in path.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }


def test_every_body_has_an_example_that_its_schema_allows(document: dict[str, Any]) -> None:
    resource = DRAFT202012.create_resource(document)
    registry: Registry[Any] = Registry().with_resource("urn:api", resource)
    without, wrong = [], {}
    for name, body in bodies(document).items():
        examples = [each["value"] for each in body.get("examples", {}).values()]
        if not examples:
            without.append(name)
        reference = {"$ref": "urn:api" + body["schema"]["$ref"]}
        validator = Draft202012Validator(reference, registry=registry)
        found = [error.message for each in examples for error in validator.iter_errors(each)]
        if found:
            wrong[name] = found
    # Price lists are the staff's, and too long for an example.
    assert without == ["operator_price_list_publish"]
    assert wrong == {}


def test_no_example_is_left_over(document: dict[str, Any]) -> None:
    assert BODIES.keys() <= bodies(document).keys()


def test_the_example_of_a_problem_is_one(document: dict[str, Any]) -> None:
    problem = document["components"]["schemas"]["Problem"]
    (example,) = problem["examples"]
    assert list(Draft202012Validator(problem).iter_errors(example)) == []
