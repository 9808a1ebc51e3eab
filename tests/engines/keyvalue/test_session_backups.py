"""Backups on demand: a copy of one moment, and new tables that are made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from engines.keyvalue.session import backups
from engines.keyvalue.session.background import run
from engines.keyvalue.sql import copying
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import HttpPorts
from tests.engines.keyvalue.made_tables import (
    HASH,
    RANGE,
    UNITS,
    definitions,
    described,
    given_up,
    index,
    look,
    new_index,
    put,
    refused,
    settled,
    table,
)
from tests.engines.keyvalue.rig import Rig, running
from tests.engines.keyvalue.test_session_updates import pass_leases
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_backups")


@pytest.fixture(params=[True, False], ids=["at_once", "in_pages"])
def copies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy by one statement, or page by page."""
    monkeypatch.setattr(copying, "ROWS_MAX", 7)
    if not request.param:
        monkeypatch.setattr(backups, "AT_ONCE_BYTES_MAX", 0)


@pytest_asyncio.fixture
async def rigs(dsn: str) -> AsyncIterator[list[Rig]]:
    async with running(dsn, workers=2) as both:
        yield both


@pytest.fixture
def rig(rigs: list[Rig]) -> Rig:
    return rigs[0]


def _no_work(*_: Any) -> None:
    """Leave work where it is."""


async def songs(rig: Rig) -> list[dict[str, Any]]:
    """Make a table with both kinds of indexes, and return its items."""
    await rig.perform(
        "CreateTable",
        **table(
            "songs",
            AttributeDefinitions=definitions(a="S", b="N", c="S"),
            KeySchema=[HASH, RANGE],
            LocalSecondaryIndexes=[index("by_c", "a", "c")],
            GlobalSecondaryIndexes=[index("of_c", "c"), index("of_b", "b", kind="KEYS_ONLY")],
            Tags=[{"Key": "k", "Value": "v"}],
            DeletionProtectionEnabled=True,
        ),
    )
    items: list[dict[str, Any]] = [
        {"a": {"S": f"x{n % 3}"}, "b": {"N": str(n)}, "c": {"S": str(n % 2)}} for n in range(30)
    ]
    await put(rig, "songs", *items)
    return items


async def backed_up(rig: Rig, name: str = "songs") -> str:
    """Make a backup, wait for it, and return its ARN."""
    made = await rig.perform("CreateBackup", TableName=name, BackupName="first")
    details = made["BackupDetails"]
    assert (details["BackupStatus"], details["BackupType"]) == ("CREATING", "USER")
    await settled(rig)
    return str(details["BackupArn"])


async def scanned(rig: Rig, name: str, **more: Any) -> list[dict[str, Any]]:
    got = await rig.perform("Scan", TableName=name, **more)
    return sorted(got["Items"], key=lambda item: int(item["b"]["N"]))


@pytest.mark.usefixtures("copies")
async def test_a_table_is_restored_as_it_was(rigs: list[Rig]) -> None:
    one, two = rigs
    items = await songs(one)
    arn = await backed_up(one)
    shown = (await two.perform("DescribeBackup", BackupArn=arn))["BackupDescription"]
    assert shown["BackupDetails"]["BackupStatus"] == "AVAILABLE"
    assert shown["SourceTableDetails"]["ItemCount"] == 30
    assert shown["BackupDetails"]["BackupSizeBytes"] == 239
    assert {each["IndexName"] for each in shown["SourceTableFeatureDetails"][
        "GlobalSecondaryIndexes"
    ]} == {"of_c", "of_b"}  # fmt: skip
    await put(one, "songs", {"a": {"S": "later"}, "b": {"N": "99"}})
    await one.perform("UpdateTable", TableName="songs", DeletionProtectionEnabled=False)
    await one.perform("DeleteTable", TableName="songs")
    answer = await two.perform("RestoreTableFromBackup", TargetTableName="restored", BackupArn=arn)
    made = answer["TableDescription"]
    assert made["TableStatus"] == "CREATING"
    assert made["RestoreSummary"]["RestoreInProgress"] is True
    await settled(two)
    shown = await described(one, "restored")
    assert shown["TableStatus"] == "ACTIVE"
    assert shown["RestoreSummary"]["RestoreInProgress"] is False
    assert shown["RestoreSummary"]["SourceBackupArn"] == arn
    assert "DeletionProtectionEnabled" not in shown
    assert shown["ItemCount"] == 30
    assert await scanned(one, "restored") == items
    got = await one.perform(
        "Query",
        TableName="restored",
        IndexName="of_c",
        KeyConditionExpression="c = :c",
        ExpressionAttributeValues={":c": {"S": "1"}},
    )
    assert got["Count"] == 15
    assert (await one.perform("Scan", TableName="restored", IndexName="of_b"))["Count"] == 30
    assert (await one.perform("Scan", TableName="restored", IndexName="by_c"))["Count"] == 30
    tags = await one.perform("ListTagsOfResource", ResourceArn=shown["TableArn"])
    assert tags == {"Tags": []}
    await put(two, "restored", items[0] | {"c": {"S": "new"}})
    await one.perform("DeleteItem", TableName="restored", Key={"a": items[1]["a"], "b": {"N": "1"}})
    assert len(await scanned(two, "restored")) == 29


async def test_a_restore_can_leave_out_indexes_and_change_the_billing_mode(rig: Rig) -> None:
    await songs(rig)
    arn = await backed_up(rig)
    await rig.perform(
        "RestoreTableFromBackup",
        TargetTableName="restored",
        BackupArn=arn,
        BillingModeOverride="PROVISIONED",
        ProvisionedThroughputOverride=UNITS,
        LocalSecondaryIndexOverride=[],
        GlobalSecondaryIndexOverride=[index("of_b", "b", kind="KEYS_ONLY")],
    )
    await settled(rig)
    shown = await described(rig, "restored")
    assert [each["IndexName"] for each in shown["GlobalSecondaryIndexes"]] == ["of_b"]
    assert "LocalSecondaryIndexes" not in shown
    assert shown["AttributeDefinitions"] == definitions(a="S", b="N")
    assert shown["ProvisionedThroughput"]["ReadCapacityUnits"] == 1
    assert (await rig.perform("Scan", TableName="restored", IndexName="of_b"))["Count"] == 30
    error = await refused(
        rig,
        "RestoreTableFromBackup",
        TargetTableName="another",
        BackupArn=arn,
        GlobalSecondaryIndexOverride=[index("of_none", "b")],
    )
    assert error.code == "ValidationException"


async def test_backups_are_listed_by_table_and_time_and_deleted(rig: Rig) -> None:
    await songs(rig)
    await rig.perform("CreateTable", **table("other"))
    arns = [await backed_up(rig) for _ in range(3)]
    other = await backed_up(rig, "other")
    listed = await rig.perform("ListBackups", TableName="songs", Limit=2)
    assert [each["BackupArn"] for each in listed["BackupSummaries"]] == arns[:2]
    listed = await rig.perform(
        "ListBackups", TableName="songs", ExclusiveStartBackupArn=listed["LastEvaluatedBackupArn"]
    )
    assert [each["BackupArn"] for each in listed["BackupSummaries"]] == arns[2:]
    assert "LastEvaluatedBackupArn" not in listed
    listed = await rig.perform("ListBackups", TimeRangeLowerBound=rig.clock.now() + 5)
    assert listed == {"BackupSummaries": []}
    gone = await rig.perform("DeleteBackup", BackupArn=other)
    assert gone["BackupDescription"]["BackupDetails"]["BackupStatus"] == "DELETED"
    assert len((await rig.perform("ListBackups"))["BackupSummaries"]) == 3
    for operation in ("DescribeBackup", "DeleteBackup"):
        error = await refused(rig, operation, BackupArn=other)
        assert (error.code, error.message) == (
            "BackupNotFoundException",
            f"Backup not found: {other}",
        )
    text = "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename ~ '^b[0-9]'"
    rows = await rig.store(rig.record).fetch(text, rig.record.schema)
    assert rows[0][0] == 3


async def test_what_is_under_way_is_in_use(rig: Rig) -> None:
    await songs(rig)
    await rig.perform("UpdateTable", TableName="songs", DeletionProtectionEnabled=False)
    ready = await backed_up(rig)
    spawn, rig.spawn = rig.spawn, _no_work  # type: ignore[method-assign]
    made = await rig.perform("CreateBackup", TableName="songs", BackupName="second")
    arn = made["BackupDetails"]["BackupArn"]
    assert (await refused(rig, "DeleteTable", TableName="songs")).code == "ResourceInUseException"
    restore = {"TargetTableName": "restored", "BackupArn": arn}
    error = await refused(rig, "RestoreTableFromBackup", **restore)
    assert error.code == "BackupInUseException"
    await rig.perform("RestoreTableFromBackup", TargetTableName="restored", BackupArn=ready)
    assert (await refused(rig, "DeleteBackup", BackupArn=ready)).code == "BackupInUseException"
    ttl = {"Enabled": True, "AttributeName": "t"}
    error = await refused(
        rig, "UpdateTimeToLive", TableName="restored", TimeToLiveSpecification=ttl
    )
    assert error.code == "ResourceInUseException"
    error = await refused(rig, "Scan", TableName="restored")
    assert error.code == "ResourceNotFoundException"
    error = await refused(rig, "RestoreTableFromBackup", TargetTableName="songs", BackupArn=ready)
    assert error.code == "TableAlreadyExistsException"
    rig.spawn = spawn  # type: ignore[method-assign]
    await look(rig)
    assert len(await scanned(rig, "restored")) == 30
    await rig.perform("DeleteBackup", BackupArn=ready)
    await rig.perform("DeleteBackup", BackupArn=arn)
    await rig.perform("DeleteTable", TableName="songs")


async def test_what_is_under_way_can_be_given_up(rig: Rig) -> None:
    await songs(rig)
    await rig.perform("UpdateTable", TableName="songs", DeletionProtectionEnabled=False)
    ready = await backed_up(rig)
    spawn, rig.spawn = rig.spawn, _no_work  # type: ignore[method-assign]
    await rig.perform("RestoreTableFromBackup", TargetTableName="restored", BackupArn=ready)
    made = await rig.perform("CreateBackup", TableName="songs", BackupName="second")
    await rig.perform("DeleteTable", TableName="restored")
    await rig.perform("DeleteBackup", BackupArn=made["BackupDetails"]["BackupArn"])
    await rig.perform("DeleteBackup", BackupArn=ready)
    await rig.perform("DeleteTable", TableName="songs")
    rig.spawn = spawn  # type: ignore[method-assign]
    await look(rig)
    text = "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename ~ '^[bt][0-9]'"
    assert list(await rig.store(rig.record).fetch(text, rig.record.schema)) == []
    rows = await rig.store(rig.record).fetch(f'SELECT kind FROM "{rig.record.schema}".work')
    assert list(rows) == []


@pytest.mark.usefixtures("copies")
async def test_a_copy_that_was_given_up_is_made_by_another_worker(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = rigs
    await songs(one)
    real = backups.done

    async def dies(*args: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(backups, "done", dies)
    made = await one.perform("CreateBackup", TableName="songs", BackupName="first")
    await given_up(one)
    monkeypatch.setattr(backups, "done", real)
    arn = made["BackupDetails"]["BackupArn"]
    shown = (await two.perform("DescribeBackup", BackupArn=arn))["BackupDescription"]
    assert shown["BackupDetails"]["BackupStatus"] == "CREATING"
    await pass_leases(two)
    await look(two)
    shown = (await two.perform("DescribeBackup", BackupArn=arn))["BackupDescription"]
    assert shown["SourceTableDetails"]["ItemCount"] == 30


async def test_there_is_a_limit_of_backups(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await songs(rig)
    monkeypatch.setattr(backups, "KEPT_MAX", 1)
    await backed_up(rig)
    error = await refused(rig, "CreateBackup", TableName="songs", BackupName="second")
    assert error.code == "LimitExceededException"
    assert len((await rig.perform("ListBackups"))["BackupSummaries"]) == 1


async def test_over_the_storage_quota_no_copies_are_made(rig: Rig) -> None:
    await songs(rig)
    rig.gate.refusal = RequestError(Reason.QUOTA, "full")
    with pytest.raises(RequestError) as error:
        await rig.perform("CreateBackup", TableName="songs", BackupName="first")
    assert error.value.reason is Reason.QUOTA
    with pytest.raises(RequestError) as error:
        await rig.perform("UpdateTable", **new_index("songs", index("of_d", "d"), d="S"))
    assert error.value.reason is Reason.QUOTA
    await rig.perform("UpdateTable", TableName="songs", DeletionProtectionEnabled=False)
    await rig.perform("DeleteTable", TableName="songs")


async def test_a_restore_that_was_given_up_goes_on_at_another_worker(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = rigs
    monkeypatch.setattr(copying, "ROWS_MAX", 4)
    items = await songs(one)
    arn = await backed_up(one)
    real, pages = backups._copy_page, 0

    async def dies(*args: Any, **how: Any) -> None:
        nonlocal pages
        pages += 1
        if pages in (3, 5):
            raise asyncio.CancelledError
        await real(*args, **how)

    monkeypatch.setattr(backups, "_copy_page", dies)
    await one.perform("RestoreTableFromBackup", TargetTableName="restored", BackupArn=arn)
    await given_up(one)
    for rig in (two, one):
        assert (await described(rig, "restored"))["TableStatus"] == "CREATING"
        await pass_leases(rig)
        await run_once(rig)
    assert (await described(two, "restored"))["TableStatus"] == "ACTIVE"
    assert await scanned(one, "restored") == items
    assert (await one.perform("Scan", TableName="restored", IndexName="of_c"))["Count"] == 30


async def run_once(rig: Rig) -> None:
    """Do what is due, which may be given up again."""
    await run(cast(HttpPorts, rig), rig.record)
    await given_up(rig)
