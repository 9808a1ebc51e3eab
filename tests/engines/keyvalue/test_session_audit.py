"""What auditors are told: every control operation and refused right, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.session.context import WRITE_STRUCTURE
from engines.keyvalue.session.elsewhere import OPERATIONS_ELSEWHERE
from engines.keyvalue.session.service import OPERATIONS
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Candidate, Grant
from engines.kit.records import Role, ScopedGrant
from tests.engines.keyvalue.made_tables import refused, settled, table
from tests.engines.keyvalue.rig import ADDRESS, Rig, running
from tests.servers import PostgresServer

KEY = {"a": {"S": "x"}}
PLACE = "instances/alice-kv"


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_audit")


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        yield rigs[0]


def told(rig: Rig) -> list[tuple[str, str, int]]:
    """Return (action, target, code) of the events since the last call."""
    events, rig.audit.events = rig.audit.events, []
    for event in events:
        assert event["outcome"] == ("success" if event["reason_code"] == 200 else "failure")
        assert event["initiator"] == rig.grant_.credential.username
        assert (event["address"], event["record"]) == (str(ADDRESS), rig.record)
    return [
        (
            event["action"].removeprefix("weftkit.keyvalue."),
            event["target"].removeprefix(PLACE),
            event["reason_code"],
        )
        for event in events
    ]


def held(rig: Rig, *grants: ScopedGrant, role: Role = Role.ADMIN) -> None:
    credential = replace(rig.record.credentials[0], role=role, grants=grants)
    rig.grant_ = Grant(Candidate(rig.record, credential, is_mock=False), rig.gate)


def test_every_operation_that_changes_structure_is_told() -> None:
    ours = OPERATIONS.keys() - OPERATIONS_ELSEWHERE.keys()
    changing = {name for name in ours if OPERATIONS[name].action == WRITE_STRUCTURE}
    assert changing == {name for name, each in OPERATIONS.items() if each.event}
    assert len(changing) == 9


async def test_each_control_operation_is_told_once_with_what_it_was_done_to(rig: Rig) -> None:
    shown = (await rig.perform("CreateTable", **table("songs")))["TableDescription"]
    arn = shown["TableArn"]
    expiry = {"AttributeName": "e", "Enabled": True}
    await rig.perform("UpdateTable", TableName=arn, DeletionProtectionEnabled=False)
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=expiry)
    await rig.perform("TagResource", ResourceArn=arn, Tags=[{"Key": "k", "Value": "v"}])
    await rig.perform("UntagResource", ResourceArn=arn, TagKeys=["k"])
    made = await rig.perform("CreateBackup", TableName="songs", BackupName="first")
    await settled(rig)
    backup = made["BackupDetails"]["BackupArn"]
    await rig.perform("RestoreTableFromBackup", TargetTableName="back", BackupArn=backup)
    await settled(rig)
    await rig.perform("DeleteBackup", BackupArn=backup)
    await rig.perform("DeleteTable", TableName="songs")
    backup_id = backup.rpartition("/")[2]
    assert told(rig) == [
        ("table.create", "/tables/songs", 200),
        ("table.update", "/tables/songs", 200),
        ("time-to-live.update", "/tables/songs", 200),
        ("table-tag.add", "/tables/songs", 200),
        ("table-tag.remove", "/tables/songs", 200),
        ("backup.create", "/tables/songs", 200),
        ("table.restore", "/tables/back", 200),
        ("backup.delete", f"/tables/songs/backups/{backup_id}", 200),
        ("table.delete", "/tables/songs", 200),
    ]


async def test_reading_and_writing_items_is_not_told(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    told(rig)
    await rig.perform("PutItem", TableName="songs", Item=KEY)
    await rig.perform("GetItem", TableName="songs", Key=KEY)
    await rig.perform("DescribeTable", TableName="songs")
    await refused(rig, "GetItem", TableName="ghost", Key=KEY)
    assert told(rig) == []


async def test_one_that_fails_is_told_with_what_http_calls_it(rig: Rig) -> None:
    await refused(rig, "DeleteTable", TableName="ghost")
    await rig.perform("CreateTable", **table("songs"))
    await refused(rig, "CreateTable", **table("songs"))
    for reason in (Reason.RATE, Reason.QUOTA):
        rig.gate.refusal = RequestError(reason, "no more")
        with pytest.raises(RequestError):
            await rig.perform("CreateTable", **table("more"))
    assert told(rig) == [
        ("table.delete", "/tables/ghost", 404),
        ("table.create", "/tables/songs", 200),
        ("table.create", "/tables/songs", 409),
        ("table.create", "/tables/more", 429),
        ("table.create", "/tables/more", 402),
    ]


async def test_what_the_rights_do_not_allow_is_told_of_every_table(rig: Rig) -> None:
    for name in ("mine", "theirs"):
        await rig.perform("CreateTable", **table(name))
    told(rig)
    held(rig, ScopedGrant(("Reader",), (), "table", "mine"))
    await refused(rig, "DeleteTable", TableName="mine")
    await refused(rig, "PutItem", TableName="mine", Item=KEY)
    await refused(rig, "DescribeTable", TableName="theirs")
    await refused(rig, "ListTables")
    statements: list[dict[str, Any]] = [
        {"Statement": f"SELECT * FROM \"{name}\" WHERE a = 'x'"}
        for name in ("theirs", "mine", "theirs", "ghost")
    ]
    await rig.perform("BatchExecuteStatement", Statements=statements)
    foreign = "arn:aws:dynamodb:us-east-1:000000000000:table/mine"
    await refused(rig, "GetItem", TableName=foreign, Key=KEY)
    assert told(rig) == [
        ("table.delete", "/tables/mine", 403),
        ("table.write", "/tables/mine", 403),
        ("table.read", "/tables/theirs", 403),
        ("table.read", "", 403),
        ("table.read", "/tables/ghost", 403),
        ("table.read", "/tables/theirs", 403),
        ("table.read", "", 403),
    ]
