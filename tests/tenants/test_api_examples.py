"""Every body that the API takes or gives has an example in its document that its schema allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tenants.api.examples import BODIES
from tenants.api.samples import EXCEPTIONS, FIELDS


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
    assert without == []
    assert wrong == {}


def answers(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (operation["operationId"], status): answer["content"]["application/json"]
        for path in document["paths"].values()
        for operation in path.values()
        for status, answer in operation["responses"].items()
        if status.startswith("2") and "application/json" in answer.get("content", {})
    }


def test_every_answer_has_an_example_that_its_schema_allows(document: dict[str, Any]) -> None:
    resource = DRAFT202012.create_resource(document)
    registry: Registry[Any] = Registry().with_resource("urn:api", resource)
    found = answers(document)
    assert len(found) > 100
    wrong = {}
    for name, content in found.items():
        schema = json.loads(json.dumps(content["schema"]).replace("#/comp", "urn:api#/comp"))
        checker = Draft202012Validator(
            schema, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        (example,) = [each["value"] for each in content["examples"].values()]
        if errors := [error.message for error in checker.iter_errors(example)]:
            wrong[name] = errors
        if "next" in example:
            assert len(example["items"]) == 1, name
    assert wrong == {}


def test_examples_of_answers_tell_of_one_story(document: dict[str, Any]) -> None:
    found = {name: content["examples"] for (name, _), content in answers(document).items()}
    (shown,) = found["instance_get"].values()
    assert (shown["value"]["handle"], shown["value"]["engine"]) == ("acme-shop", "relational")
    (shown,) = found["tenant_get"].values()
    assert shown["value"]["handle"] == "acme"


def test_every_field_of_the_table_of_samples_is_used(document: dict[str, Any]) -> None:
    names = {
        name
        for schema in document["components"]["schemas"].values()
        for name in schema.get("properties", {})
    }
    assert FIELDS.keys() <= names
    for component, name in EXCEPTIONS:
        assert name in document["components"]["schemas"][component]["properties"], component


def test_no_example_is_left_over(document: dict[str, Any]) -> None:
    assert BODIES.keys() <= bodies(document).keys()


def test_the_example_of_a_problem_is_one(document: dict[str, Any]) -> None:
    problem = document["components"]["schemas"]["Problem"]
    (example,) = problem["examples"]
    assert list(Draft202012Validator(problem).iter_errors(example)) == []


def test_links_name_operations_and_parameters_that_there_are(document: dict[str, Any]) -> None:
    operations = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }
    led_to = set()
    for operation in operations.values():
        for answer in operation["responses"].values():
            for link in answer.get("links", {}).values():
                target = operations[link["operationId"]]
                known = {each["name"] for each in target["parameters"] if each["in"] == "path"}
                assert link["parameters"].keys() == known, (operation["operationId"], link)
                led_to.add(link["operationId"])
    for name in ("instance_get", "credential_get", "operation_get", "backup_get"):
        assert name in led_to
