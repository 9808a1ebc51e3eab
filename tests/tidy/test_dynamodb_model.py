"""The tables of keyvalue's operations hold every operation and member of DynamoDB's service models.

The oracle is botocore, which is installed for the tests; a new version of it that has more fails
here, with the names of what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import Loader

from engines.keyvalue.parse.operations import OPERATIONS, STREAM_OPERATIONS
from engines.keyvalue.parse.shapes import Shape

VERSION = "2012-08-10"
MODELS = {"dynamodb": OPERATIONS, "dynamodbstreams": STREAM_OPERATIONS}

# Required by the service, though its model does not say so; or told of in another way.
ALSO_REQUIRED = {
    "CreateTable.AttributeDefinitions",
    "CreateTable.KeySchema",
    # Without OnDemandThroughput and WarmThroughput.
    "UpdateTable.GlobalSecondaryIndexUpdates[].Update.ProvisionedThroughput",
}
# Keys of more than two attributes (global indexes of several) are not offered.
KEY_SCHEMA_MAX = 2


def model(service: str) -> dict[str, Any]:
    """Return a service model as botocore has it."""
    loaded: dict[str, Any] = Loader().load_service_model(service, "service-2", VERSION)
    return loaded


def places(
    path: str, shape: Shape, name: str, shapes: dict[str, Any]
) -> Iterator[tuple[str, Shape, str, dict[str, Any]]]:
    """Walk a table and the model together: path, ours, the model's name and shape."""
    theirs = shapes[name]
    yield path, shape, name, theirs
    if name == "AttributeValue":
        return
    if theirs["type"] == "structure":
        for member, reference in theirs["members"].items():
            if shape.members and member in shape.members:
                below = shape.members[member]
                yield from places(f"{path}.{member}", below, reference["shape"], shapes)
    elif theirs["type"] in ("list", "map"):
        element = theirs["member" if theirs["type"] == "list" else "value"]["shape"]
        assert shape.element is not None, path
        yield from places(f"{path}[]", shape.element, element, shapes)


def all_places(service: str) -> Iterator[tuple[str, Shape, str, dict[str, Any]]]:
    """Walk all operations of a service."""
    loaded = model(service)
    for operation, declared in loaded["operations"].items():
        shape = MODELS[service][operation].shape
        yield from places(operation, shape, declared["input"]["shape"], loaded["shapes"])


@pytest.mark.parametrize("service", MODELS)
def test_every_operation_has_its_table(service: str) -> None:
    assert set(MODELS[service]) == set(model(service)["operations"])


@pytest.mark.parametrize("service", MODELS)
def test_every_structure_has_its_name_and_members(service: str) -> None:
    for path, shape, name, theirs in all_places(service):
        if theirs["type"] == "structure" and name != "AttributeValue":
            assert shape.members is not None, path
            assert set(shape.members) == set(theirs["members"]), path
            assert shape.java.rpartition(".")[2] == name, path


@pytest.mark.parametrize("service", MODELS)
def test_the_required_members_are_the_models(service: str) -> None:
    more = set()
    for path, shape, _, theirs in all_places(service):
        if shape.members is None:
            continue
        required = {name for name, member in shape.members.items() if member.is_required}
        assert required >= set(theirs.get("required", ())), path
        more |= {f"{path}.{name}" for name in required - set(theirs.get("required", ()))}
    assert more <= ALSO_REQUIRED


@pytest.mark.parametrize("service", MODELS)
def test_the_words_of_an_enumeration_are_the_models(service: str) -> None:
    for path, shape, _, theirs in all_places(service):
        if "enum" in theirs:
            assert shape.check is not None, path
            errors: list[str] = []
            shape.check("no such word", "", errors)
            words = errors[0].rpartition("[")[2].rstrip("]").split(", ")
            assert sorted(words) == sorted(theirs["enum"]), path


@pytest.mark.parametrize("service", MODELS)
def test_lists_and_maps_have_the_models_limits(service: str) -> None:
    for path, shape, name, theirs in all_places(service):
        if theirs["type"] in ("list", "map") and name != "WriteRequests":
            limit = KEY_SCHEMA_MAX if name == "KeySchema" else theirs.get("max")
            assert shape.size_max == limit, path
