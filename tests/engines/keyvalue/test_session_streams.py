"""DynamoDB Streams: every acknowledged write is shown once, in order, for a day."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.session import stream_rows, streams
from tests.engines.keyvalue.made_tables import described, look, put, refused, settled, table
from tests.engines.keyvalue.rig import Rig, running
from tests.engines.keyvalue.test_session_updates import pass_leases
from tests.servers import PostgresServer

BOTH = "NEW_AND_OLD_IMAGES"


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_streams")


@pytest_asyncio.fixture
async def rigs(dsn: str) -> AsyncIterator[list[Rig]]:
    async with running(dsn, workers=2) as both:
        yield both


@pytest.fixture
def rig(rigs: list[Rig]) -> Rig:
    return rigs[0]


def on(view: str = BOTH) -> dict[str, Any]:
    return {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": view}}


OFF = {"StreamSpecification": {"StreamEnabled": False}}


async def arn_of(rig: Rig, name: str = "songs") -> str:
    return str((await described(rig, name))["LatestStreamArn"])


async def iterator(rig: Rig, arn: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
    shown = (await rig.perform("DescribeStream", StreamArn=arn))["StreamDescription"]
    (shard,) = shown["Shards"]
    answer = await rig.perform(
        "GetShardIterator",
        StreamArn=arn,
        ShardId=shard["ShardId"],
        ShardIteratorType=kind,
        **more,
    )
    return str(answer["ShardIterator"])


async def page(rig: Rig, place: str, **more: Any) -> tuple[list[dict[str, Any]], str | None]:
    answer = await rig.perform("GetRecords", ShardIterator=place, **more)
    return answer["Records"], answer.get("NextShardIterator")


def brief(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["eventName"], each["dynamodb"]["Keys"]["a"]["S"]) for each in records]


async def test_a_write_is_shown_with_its_images(rig: Rig) -> None:
    made = await rig.perform("CreateTable", **table("songs", **on()))
    arn = await arn_of(rig)
    assert made["TableDescription"]["LatestStreamArn"] == arn
    await put(rig, "songs", {"a": {"S": "x"}, "b": {"N": "1"}})
    await put(rig, "songs", {"a": {"S": "x"}, "b": {"N": "2"}})
    # What changes nothing is not shown.
    await put(rig, "songs", {"a": {"S": "x"}, "b": {"N": "2"}})
    await rig.perform("DeleteItem", TableName="songs", Key={"a": {"S": "x"}})
    records, following = await page(rig, await iterator(rig, arn))
    assert brief(records) == [("INSERT", "x"), ("MODIFY", "x"), ("REMOVE", "x")]
    first, second, third = (each["dynamodb"] for each in records)
    assert first["NewImage"] == {"a": {"S": "x"}, "b": {"N": "1"}}
    assert "OldImage" not in first
    assert (second["OldImage"]["b"], second["NewImage"]["b"]) == ({"N": "1"}, {"N": "2"})
    assert "NewImage" not in third
    assert first["SizeBytes"] == 2 + 2 + 3
    assert first["StreamViewType"] == BOTH
    assert abs(first["ApproximateCreationDateTime"] - rig.clock.now()) < 5
    assert records[0]["awsRegion"] == "us-east-1"
    assert records[0]["eventSource"] == "aws:dynamodb"
    assert len({each["eventID"] for each in records}) == 3
    numbers = [each["dynamodb"]["SequenceNumber"] for each in records]
    assert numbers == sorted(numbers)
    assert all(len(number) == 40 and number.isdigit() for number in numbers)
    assert following is not None
    assert (await page(rig, following))[0] == []


@pytest.mark.parametrize(
    ("view", "members"),
    [
        ("KEYS_ONLY", set()),
        ("NEW_IMAGE", {"NewImage"}),
        ("OLD_IMAGE", {"OldImage"}),
        (BOTH, {"NewImage", "OldImage"}),
    ],
)
async def test_a_view_shows_what_it_says(rig: Rig, view: str, members: set[str]) -> None:
    await rig.perform("CreateTable", **table("songs", **on(view)))
    await put(rig, "songs", {"a": {"S": "x"}}, {"a": {"S": "x"}, "b": {"N": "1"}})
    records, _ = await page(rig, await iterator(rig, await arn_of(rig)))
    assert set(records[1]["dynamodb"]) & {"NewImage", "OldImage"} == members


async def test_iterators_begin_where_they_are_told(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on()))
    arn = await arn_of(rig)
    await put(rig, "songs", *({"a": {"S": str(n)}} for n in range(4)))
    latest = await iterator(rig, arn, "LATEST")
    records, following = await page(rig, await iterator(rig, arn), Limit=3)
    assert [key for _, key in brief(records)] == ["0", "1", "2"]
    assert following is not None
    assert [key for _, key in brief((await page(rig, following))[0])] == ["3"]
    number = records[1]["dynamodb"]["SequenceNumber"]
    at = await iterator(rig, arn, "AT_SEQUENCE_NUMBER", SequenceNumber=number)
    after = await iterator(rig, arn, "AFTER_SEQUENCE_NUMBER", SequenceNumber=number)
    assert [key for _, key in brief((await page(rig, at))[0])] == ["1", "2", "3"]
    assert [key for _, key in brief((await page(rig, after))[0])] == ["2", "3"]
    await put(rig, "songs", {"a": {"S": "new"}})
    assert [key for _, key in brief((await page(rig, latest))[0])] == ["new"]
    past = await iterator(rig, arn, "AT_TIMESTAMP", Timestamp=rig.clock.now() - 60)
    assert len((await page(rig, past))[0]) == 5
    future = await iterator(rig, arn, "AT_TIMESTAMP", Timestamp=rig.clock.now() + 60)
    assert (await page(rig, future))[0] == []


async def test_records_come_in_pages_of_a_megabyte(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on("NEW_IMAGE")))
    sizes = [300_000, 300_000, 300_000, 300_000, 390_000, 10]
    for n, size in enumerate(sizes):
        await put(rig, "songs", {"a": {"S": str(n)}, "b": {"S": "x" * size}})
    place: str | None = await iterator(rig, await arn_of(rig))
    pages = []
    for _ in range(3):
        assert place is not None
        records, place = await page(rig, place)
        pages.append([key for _, key in brief(records)])
    assert pages == [["0", "1", "2"], ["3", "4", "5"], []]


async def test_large_records_behind_small_ones_do_not_come_all_at_once(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on()))
    await put(rig, "songs", *({"a": {"S": f"s{n}"}} for n in range(40)))
    for turn in "xy":
        large = ({"a": {"S": f"l{n}"}, "b": {"S": turn * 390_000}} for n in range(4))
        await put(rig, "songs", *large)
    place: str | None = await iterator(rig, await arn_of(rig))
    pages = []
    for _ in range(9):
        assert place is not None
        records, place = await page(rig, place)
        pages.append([key for _, key in brief(records)])
    assert pages[0] == [*(f"s{n}" for n in range(40)), "l0", "l1"]
    assert pages[1:] == [["l2", "l3"], ["l0"], ["l1"], ["l2"], ["l3"], [], [], []]


async def test_a_closed_stream_is_read_to_its_end_and_another_begins(rigs: list[Rig]) -> None:
    one, two = rigs
    await one.perform("CreateTable", **table("songs", **on()))
    first = await arn_of(one)
    await put(two, "songs", {"a": {"S": "x"}})
    error = await refused(one, "UpdateTable", TableName="songs", **on())
    assert error.message == "Table already has an enabled stream: songs"
    await one.perform("UpdateTable", TableName="songs", **OFF)
    await put(two, "songs", {"a": {"S": "unseen"}})
    shown = await described(one, "songs")
    assert "StreamSpecification" not in shown
    assert shown["LatestStreamArn"] == first
    await one.perform("UpdateTable", TableName="songs", **on("KEYS_ONLY"))
    second = await arn_of(one)
    await put(two, "songs", {"a": {"S": "y"}})
    assert brief((await page(one, await iterator(one, second)))[0]) == [("INSERT", "y")]
    records, following = await page(one, await iterator(one, first))
    assert brief(records) == [("INSERT", "x")]
    assert following is None
    old = (await one.perform("DescribeStream", StreamArn=first))["StreamDescription"]
    assert old["StreamStatus"] == "DISABLED"
    ends = old["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"]
    assert ends == records[0]["dynamodb"]["SequenceNumber"]
    listed = await one.perform("ListStreams", TableName="songs")
    assert [each["StreamArn"] for each in listed["Streams"]] == [first, second]
    listed = await one.perform("ListStreams", Limit=1)
    assert listed["LastEvaluatedStreamArn"] == first
    listed = await one.perform("ListStreams", ExclusiveStartStreamArn=first)
    assert [each["StreamArn"] for each in listed["Streams"]] == [second]


async def test_a_table_has_so_many_streams_a_day(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_rows, "STREAMS_MAX", 1)
    await rig.perform("CreateTable", **table("songs", **on()))
    await rig.perform("UpdateTable", TableName="songs", **OFF)
    error = await refused(rig, "UpdateTable", TableName="songs", **on())
    assert error.code == "LimitExceededException"
    assert "StreamSpecification" not in await described(rig, "songs")
    await put(rig, "songs", {"a": {"S": "x"}})


async def test_the_stream_of_a_deleted_table_can_be_read_for_a_day(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on()))
    arn = await arn_of(rig)
    await put(rig, "songs", {"a": {"S": "x"}})
    await rig.perform("DeleteTable", TableName="songs")
    records, following = await page(rig, await iterator(rig, arn))
    assert (brief(records), following) == ([("INSERT", "x")], None)
    rig.clock.ahead_s += streams.KEPT_SECONDS + 60
    await pass_leases(rig)
    await look(rig)
    error = await refused(rig, "DescribeStream", StreamArn=arn)
    assert error.code == "ResourceNotFoundException"


async def test_records_of_a_day_ago_are_trimmed(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on()))
    arn = await arn_of(rig)
    await put(rig, "songs", {"a": {"S": "old"}})
    records, _ = await page(rig, await iterator(rig, arn))
    number = records[0]["dynamodb"]["SequenceNumber"]
    horizon = await iterator(rig, arn)
    place = await iterator(rig, arn, "AT_SEQUENCE_NUMBER", SequenceNumber=number)
    rig.clock.ahead_s += streams.KEPT_SECONDS + 60
    await pass_leases(rig)
    await look(rig)
    rig.clock.ahead_s = 0
    await put(rig, "songs", {"a": {"S": "new"}})
    error = await refused(rig, "GetRecords", ShardIterator=place)
    assert error.code == "TrimmedDataAccessException"
    assert brief((await page(rig, horizon))[0]) == [("INSERT", "new")]
    assert brief((await page(rig, await iterator(rig, arn)))[0]) == [("INSERT", "new")]


async def test_iterators_expire_and_are_nobody_elses(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on()))
    arn = await arn_of(rig)
    place = await iterator(rig, arn)
    account = arn.split(":")[4]
    other = place.replace(account, "123456789012")
    assert (await refused(rig, "GetRecords", ShardIterator=other)).code == (
        "ResourceNotFoundException"
    )
    for garbage in ("x", place[:-4], "a|1|b", place.replace("|1|", "|2|"), arn + "|1|WzEsMl0="):
        error = await refused(rig, "GetRecords", ShardIterator=garbage)
        assert (error.code, error.message) == ("ValidationException", "Invalid ShardIterator")
    rig.clock.ahead_s += 901
    error = await refused(rig, "GetRecords", ShardIterator=place)
    assert error.code == "ExpiredIteratorException"


async def test_what_time_to_live_deletes_is_the_services(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", **on()))
    await put(rig, "songs", {"a": {"S": "x"}, "ends": {"N": str(int(rig.clock.now()) - 5)}})
    ttl = {"Enabled": True, "AttributeName": "ends"}
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=ttl)
    await settled(rig)
    records, _ = await page(rig, await iterator(rig, await arn_of(rig)))
    assert brief(records) == [("INSERT", "x"), ("REMOVE", "x")]
    assert "userIdentity" not in records[0]
    assert records[1]["userIdentity"] == {
        "Type": "Service",
        "PrincipalId": "dynamodb.amazonaws.com",
    }


async def test_streams_switched_under_load_lose_and_double_nothing(rigs: list[Rig]) -> None:
    """Each stream has all writes between its first and its last, in order."""
    one, two = rigs
    await one.perform("CreateTable", **table("songs", **on("NEW_IMAGE")))
    stop = False
    counts = dict.fromkeys("pqrs", 0)

    async def write(rig: Rig, key: str) -> None:
        while not stop:
            await put(rig, "songs", {"a": {"S": key}, "n": {"N": str(counts[key] + 1)}})
            counts[key] += 1

    writers = [asyncio.ensure_future(write(rigs[n % 2], key)) for n, key in enumerate(counts)]
    arns = [await arn_of(one)]
    for _ in range(3):
        before = sum(counts.values())
        while sum(counts.values()) < before + 40:
            await asyncio.wait(writers, timeout=random.random() / 50)
        await one.perform("UpdateTable", TableName="songs", **OFF)
        await two.perform("UpdateTable", TableName="songs", **on("NEW_IMAGE"))
        arns.append(await arn_of(one))
    stop = True
    await asyncio.gather(*writers)
    last = dict.fromkeys(counts, 0)
    for arn in arns:
        seen: dict[str, list[int]] = {key: [] for key in counts}
        place: str | None = await iterator(one, arn)
        while place is not None:
            records, place = await page(one, place)
            for each in records:
                image = each["dynamodb"]["NewImage"]
                seen[image["a"]["S"]].append(int(image["n"]["N"]))
            if not records:
                break
        for key, numbers in seen.items():
            # Between two streams there is a moment without one; within one nothing is missing.
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert numbers[0] > last[key]
            last[key] = numbers[-1]
    assert last == counts
