"""Tags, limits, endpoints, and what DynamoDB has and WeftKit has not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.parse import requests
from engines.keyvalue.session.elsewhere import OPERATIONS_ELSEWHERE
from engines.keyvalue.session.service import OPERATIONS
from tests.engines.keyvalue.made_tables import described, refused, table
from tests.engines.keyvalue.rig import ADDRESS, REGION, Rig, running
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_settings")


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        yield rigs[0]


def tags(**pairs: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


async def test_tags_are_added_replaced_and_taken_away(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", Tags=tags(a="1", b="2")))
    arn = (await described(rig, "songs"))["TableArn"]
    await rig.perform("TagResource", ResourceArn=arn, Tags=tags(b="3", c="4"))
    listed = await rig.perform("ListTagsOfResource", ResourceArn=arn)
    assert listed == {"Tags": tags(a="1", b="3", c="4")}
    await rig.perform("UntagResource", ResourceArn=arn, TagKeys=["a", "none"])
    assert await rig.perform("ListTagsOfResource", ResourceArn=arn) == {"Tags": tags(b="3", c="4")}
    many = tags(**{f"k{n}": "v" for n in range(49)})
    error = await refused(rig, "TagResource", ResourceArn=arn, Tags=many)
    assert error.code == "ValidationException"
    assert await rig.perform("ListTagsOfResource", ResourceArn=arn) == {"Tags": tags(b="3", c="4")}


async def test_a_resource_of_nobody_has_no_tags(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    arn = (await described(rig, "songs"))["TableArn"]
    none = arn.replace("songs", "none")
    error = await refused(rig, "TagResource", ResourceArn=none, Tags=tags(a="1"))
    assert error.message == f"Requested resource not found: ResourcArn: {none} not found"
    error = await refused(rig, "UntagResource", ResourceArn=none, TagKeys=["a"])
    assert error.message == "Requested resource not found"
    error = await refused(rig, "ListTagsOfResource", ResourceArn=none)
    assert error.message == f"Requested resource not found: ResourcArn: {none} not found"
    other = arn.replace(arn.split(":")[4], "123456789012")
    for operation, more in (
        ("ListTagsOfResource", {}),
        ("TagResource", {"Tags": tags(a="1")}),
        ("UntagResource", {"TagKeys": ["a"]}),
    ):
        error = await refused(rig, operation, ResourceArn=other, **more)
        assert error.code == "AccessDeniedException"


async def test_limits_and_endpoints_are_those_of_the_instance(rig: Rig) -> None:
    limits = await rig.perform("DescribeLimits")
    assert limits["AccountMaxReadCapacityUnits"] == 80_000
    body = await rig.service.perform(
        rig.grant_, "DescribeEndpoints", REGION, b"{}", address=ADDRESS, host="db.example:8000"
    )
    (endpoint,) = json.loads(body)["Endpoints"]
    assert endpoint["Address"] == "db.example:8000"


async def test_backups_of_every_moment_are_off_and_stay_off(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    off = {
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "DISABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
        }
    }
    assert await rig.perform("DescribeContinuousBackups", TableName="songs") == off
    switch: dict[str, Any] = {"TableName": "songs"}
    wanted = {"PointInTimeRecoveryEnabled": False}
    assert off == await rig.perform(
        "UpdateContinuousBackups", **switch, PointInTimeRecoverySpecification=wanted
    )
    wanted = {"PointInTimeRecoveryEnabled": True}
    error = await refused(
        rig, "UpdateContinuousBackups", **switch, PointInTimeRecoverySpecification=wanted
    )
    assert "does not support point-in-time recovery" in error.message


REQUESTS: dict[str, dict[str, Any]] = {
    "CreateGlobalTable": {"GlobalTableName": "songs", "ReplicationGroup": []},
    "DescribeGlobalTable": {"GlobalTableName": "songs"},
    "DescribeExport": {"ExportArn": "arn:aws:dynamodb:us-east-1:123456789012:table/x/export/y"},
    "DescribeImport": {"ImportArn": "arn:aws:dynamodb:us-east-1:123456789012:table/x/import/y"},
    "GetResourcePolicy": {"ResourceArn": "arn:aws:dynamodb:us-east-1:123456789012:table/songs"},
    "UpdateContributorInsights": {
        "TableName": "songs",
        "ContributorInsightsAction": "ENABLE",
    },
}
CODES = {
    "CreateGlobalTable": "ValidationException",
    "DescribeGlobalTable": "GlobalTableNotFoundException",
    "DescribeExport": "ExportNotFoundException",
    "DescribeImport": "ImportNotFoundException",
    "GetResourcePolicy": "PolicyNotFoundException",
    "UpdateContributorInsights": "ValidationException",
}


@pytest.mark.parametrize("operation", REQUESTS)
async def test_what_is_not_offered_says_so(rig: Rig, operation: str) -> None:
    error = await refused(rig, operation, **REQUESTS[operation])
    assert error.code == CODES[operation]
    assert error.message


@pytest.mark.parametrize(
    "operation", ["ListExports", "ListImports", "ListGlobalTables", "ListBulkOperations"]
)
async def test_what_cannot_be_there_is_listed_as_nothing(rig: Rig, operation: str) -> None:
    (members,) = (await rig.perform(operation)).values()
    assert members == []


def test_every_operation_of_the_model_is_answered() -> None:
    known = set(requests.OPERATIONS) | set(requests.STREAM_OPERATIONS)
    assert set(OPERATIONS) == known


def test_the_readme_has_every_operation() -> None:
    text = Path("engines/keyvalue/README.md").read_text(encoding="utf-8")
    missing = [name for name in OPERATIONS if f"`{name}`" not in text]
    assert missing == []
    for name in OPERATIONS_ELSEWHERE:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
        assert "works" not in line
