"""Workers of the engine `keyvalue` are killed in the middle of what they do by themselves.

Whatever was acknowledged is in the table, in its index and in its stream; work that was under way
ends all the same, also at an instance that nobody asks anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engines.kit.records import InstanceRecord
from tests.dataplane.keyvalue_plane import Signer, access_key, keyvalue_plane, new_instance
from tests.dataplane.plane import Plane, until
from tests.dataplane.server.web.http_client import RawClient
from tests.servers import PostgresServer, RedisServer, temporary_home

WORKERS = 2
HASH = {"AttributeName": "a", "KeyType": "HASH"}


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    with (
        temporary_home("wkd") as home,
        keyvalue_plane(
            home, postgres, redis, "kv_kills",
            workers=WORKERS, bounds={"linger_s": 0.5}, intervals={"look_s": 0.25},
        ) as plane,
    ):  # fmt: skip
        yield plane


@dataclasses.dataclass
class Case:
    plane: Plane
    record: InstanceRecord
    signer: Signer

    async def tried(self, operation: str, fields: Any) -> Any:
        """Ask once; None if there was no answer: done or not done."""
        client = None
        try:
            client = await RawClient.open(self.plane)
            answer = await client.ask(self.signer.request(operation, fields))
        except (OSError, EOFError):
            return None
        finally:
            if client is not None:
                await client.close()
        return answer.json if answer.status == 200 else None

    async def ask(self, operation: str, **fields: Any) -> Any:
        """Ask until there is an answer."""
        while True:
            client = None
            try:
                client = await RawClient.open(self.plane)
                answer = await client.ask(self.signer.request(operation, fields))
                if answer.status == 200:
                    return answer.json
                assert answer.status >= 500, answer.body
            except (OSError, EOFError):
                await until(lambda: self.plane.admin("/metrics")[0] == 200, "a worker serves")
            finally:
                if client is not None:
                    await client.close()

    def pass_leases(self) -> None:
        """Let the time of all leases pass."""
        text = f"UPDATE {self.record.schema}.work SET lease_until = 'epoch'"
        with self.plane.database.connect() as connection:
            connection.execute(text)

    async def create(self, **more: Any) -> None:
        await self.ask(
            "CreateTable",
            TableName="songs",
            AttributeDefinitions=[{"AttributeName": "a", "AttributeType": "S"}],
            KeySchema=[HASH],
            BillingMode="PAY_PER_REQUEST",
            **more,
        )

    async def scanned(self, **more: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        while True:
            page = await self.ask("Scan", TableName="songs", **more)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return items
            more["ExclusiveStartKey"] = page["LastEvaluatedKey"]


@pytest.fixture
async def case(served: Plane) -> AsyncIterator[Case]:
    served.begin_test()
    credential = access_key()
    record = await served.know(new_instance(served, credential))
    yield Case(served, record, Signer.of(credential))
    await served.close_parts()


async def test_an_index_is_complete_whoever_was_killed_while_it_was_made(case: Case) -> None:
    await case.create()
    for start in range(0, 3_000, 25):
        puts = [
            {"PutRequest": {"Item": {"a": {"S": str(n)}, "g": {"N": "0"}, "p": {"S": "x" * 500}}}}
            for n in range(start, start + 25)
        ]
        await case.ask("BatchWriteItem", RequestItems={"songs": puts})
    index = {
        "IndexName": "of_g",
        "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    stop = False

    async def write(first: int) -> None:
        n = first
        while not stop:
            await case.tried("UpdateItem", {
                "TableName": "songs",
                "Key": {"a": {"S": str(n % 3_000)}},
                "UpdateExpression": "ADD g :g",
                "ExpressionAttributeValues": {":g": {"N": "1"}},
            })  # fmt: skip
            n += 7

    writers = [asyncio.ensure_future(write(first)) for first in range(2)]
    await case.ask(
        "UpdateTable",
        TableName="songs",
        AttributeDefinitions=[{"AttributeName": "g", "AttributeType": "N"}],
        GlobalSecondaryIndexUpdates=[{"Create": index}],
    )
    kills = 0
    while True:
        shown = (await case.ask("DescribeTable", TableName="songs"))["Table"]
        if shown["TableStatus"] == "ACTIVE" and kills:
            break
        if kills < 3:
            kills += 1
            await case.plane.kill_workers()
        case.pass_leases()
    stop = True
    await asyncio.gather(*writers)
    items, entries = await case.scanned(), await case.scanned(IndexName="of_g")
    assert len(items) == 3_000
    assert {item["a"]["S"]: item["g"]["N"] for item in items} == {
        entry["a"]["S"]: entry["g"]["N"] for entry in entries
    }
    assert any(item["g"]["N"] != "0" for item in items)


async def test_a_stream_has_every_acknowledged_write_in_order(case: Case) -> None:
    await case.create(StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"})
    acknowledged: dict[str, list[int]] = {key: [] for key in "pqr"}
    stop = False

    async def count(key: str) -> None:
        while not stop:
            answer = await case.tried("UpdateItem", {
                "TableName": "songs",
                "Key": {"a": {"S": key}},
                "UpdateExpression": "ADD n :n",
                "ExpressionAttributeValues": {":n": {"N": "1"}},
                "ReturnValues": "UPDATED_NEW",
            })  # fmt: skip
            if answer is not None:
                acknowledged[key].append(int(answer["Attributes"]["n"]["N"]))

    counting = [asyncio.ensure_future(count(key)) for key in acknowledged]
    for _ in range(2):
        before = sum(map(len, acknowledged.values()))
        while sum(map(len, acknowledged.values())) < before + 60:
            await asyncio.wait(counting, timeout=0.02)
        await case.plane.kill_workers()
    stop = True
    await asyncio.gather(*counting)
    arn = (await case.ask("DescribeTable", TableName="songs"))["Table"]["LatestStreamArn"]
    seen = await _streamed(case, arn)
    final = {item["a"]["S"]: int(item["n"]["N"]) for item in await case.scanned()}
    for key, numbers in acknowledged.items():
        assert numbers == sorted(set(numbers))
        # Also what was done and not acknowledged is in it, and nothing twice.
        assert seen[key] == list(range(1, final[key] + 1))
        assert final[key] >= numbers[-1]


async def _streamed(case: Case, arn: str) -> dict[str, list[int]]:
    prefix = "DynamoDBStreams_20120810"
    shown = await case.ask(f"{prefix}.DescribeStream", StreamArn=arn)
    (shard,) = shown["StreamDescription"]["Shards"]
    place = await case.ask(
        f"{prefix}.GetShardIterator",
        StreamArn=arn,
        ShardId=shard["ShardId"],
        ShardIteratorType="TRIM_HORIZON",
    )
    seen: dict[str, list[int]] = {}
    following = place["ShardIterator"]
    while True:
        page = await case.ask(f"{prefix}.GetRecords", ShardIterator=following, Limit=100)
        for record in page["Records"]:
            image = record["dynamodb"]["NewImage"]
            seen.setdefault(image["a"]["S"], []).append(int(image["n"]["N"]))
        if not page["Records"]:
            return seen
        following = page["NextShardIterator"]


async def test_expired_items_go_though_nobody_asks(case: Case) -> None:
    await case.create()
    await case.ask(
        "UpdateTimeToLive",
        TableName="songs",
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "ends"},
    )
    ends = {"N": str(int(time.time()) - 1)}
    await case.ask("PutItem", TableName="songs", Item={"a": {"S": "x"}, "ends": ends})
    await case.plane.kill_workers()

    def is_empty() -> bool:
        case.pass_leases()
        rows = case.plane.database.rows(
            f"SELECT table_id, shape FROM {case.record.schema}.catalogue"
        )
        name = f"t{rows[0][0]}_{rows[0][1]}"
        return not case.plane.database.rows(f"SELECT 1 FROM {case.record.schema}.{name}")

    await until(is_empty, "the expired item is gone")
