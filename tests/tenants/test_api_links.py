"""Every link of the OpenAPI document, followed: what an answer names is there, for who was told."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from tenants.api.urls import ADDRESSES
from tests.tenants.cast import signed_in
from tests.tenants.test_api_isolation import ENDPOINTS, Endpoint, Scene, prepare, scene

__all__ = ["scene"]

ROUTES = {name: address for address, name, _ in ADDRESSES}


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@cache
def document() -> dict[str, Any]:
    return dict(SchemaGenerator().get_schema(request=None, public=True))


def path_of(endpoint: Endpoint) -> str:
    return "/api/v1/" + re.sub(r"<\w+:(\w+)>", r"{\1}", ROUTES[endpoint.name])


def links_of(endpoint: Endpoint) -> dict[str, Any]:
    operation = document()["paths"][path_of(endpoint)].get(endpoint.method.lower(), {})
    found: dict[str, Any] = operation.get("responses", {}).get(str(endpoint.alice), {})
    return dict(found.get("links", {}))


LINKED = [endpoint for endpoint in ENDPOINTS if links_of(endpoint)]
BY_OPERATION = {
    operation["operationId"]: (method.upper(), path)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
}


def value_of(expression: str, named: dict[str, Any], body: Any) -> str:
    """Return what a link's expression says (OpenAPI 3.1, "Runtime Expressions")."""
    if expression.startswith("$request.path."):
        return str(named[expression.removeprefix("$request.path.")])
    found = body
    for part in expression.removeprefix("$response.body#/").split("/"):
        found = found[int(part)] if part.isdecimal() else found[part]
    return str(found)


@pytest.mark.parametrize("endpoint", LINKED, ids=str)
def test_a_link_leads_to_what_the_answer_names(scene: Scene, endpoint: Endpoint) -> None:
    prepare(scene, endpoint.prepare)
    alice = signed_in(scene.cast.alice)
    answer = scene.ask(alice, endpoint)
    assert answer.status_code == endpoint.alice
    for name, link in links_of(endpoint).items():
        method, path = BY_OPERATION[name]
        named = {
            key: value_of(each, scene.arguments, answer.json())
            for key, each in link["parameters"].items()
        }
        # What is not there is 404 whatever the method is, so asking for a look is enough.
        asked = alice.get if method == "GET" else alice.delete
        status = asked(path.format(**named), headers={"If-Match": '"none"'}).status_code
        assert status in ({200} if method == "GET" else {405, 409, 412}), (name, named, status)


def test_chains_go_through_instances_credentials_operations_and_backups() -> None:
    led_to = {name for endpoint in LINKED for name in links_of(endpoint)}
    for noun in ("instance", "credential", "operation", "backup"):
        assert any(name.startswith(f"{noun}_") for name in led_to), noun
    assert len(LINKED) > 20
