"""Transactions of many clients at once, and of those that are killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from tests.engines.keyvalue import transfers
from tests.engines.keyvalue.rig import Rig, running
from tests.engines.keyvalue.tables import body, make_table
from tests.servers import PostgresServer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_transfers")


@pytest_asyncio.fixture
async def rigs(dsn: str) -> AsyncIterator[list[Rig]]:
    """Two workers, and accounts with money."""
    async with running(dsn, workers=2) as workers:
        hashed = body({"a": "S"}, has_range=False)
        await make_table(workers[0], "items", hashed)
        await make_table(workers[0], "transfers", hashed, table_id=2)
        await transfers.open_accounts(workers[0])
        yield workers


async def check_books(rig: Rig, made: list[str]) -> None:
    """What was acknowledged is there, nothing is there twice, and no money was made or lost."""
    recorded = await transfers.recorded(rig)
    assert set(made) <= set(recorded)
    assert await transfers.sum_of(rig) == transfers.ACCOUNTS * transfers.OPENING_BALANCE
    amounts: dict[str, int] = {}
    page = await rig.perform("Scan", TableName="items")
    for item in page["Items"]:
        amounts[item["a"]["S"]] = int(item["n"]["N"])
    assert min(amounts.values()) >= 0


@pytest.mark.asyncio
async def test_transfers_of_eight_clients_keep_the_sum(rigs: list[Rig]) -> None:
    made: list[str] = []
    counts = await asyncio.gather(
        *(transfers.client(rigs[seed % 2], seed, 25, made.append) for seed in range(8))
    )
    assert sum(counts) == len(made) > 0
    await check_books(rigs[0], made)
    assert sorted(await transfers.recorded(rigs[0])) == sorted(made)


@pytest.mark.asyncio
async def test_a_read_never_sees_half_of_a_transfer(rigs: list[Rig]) -> None:
    gets = [
        {"Get": {"TableName": "items", "Key": transfers.account(number)}}
        for number in range(transfers.ACCOUNTS)
    ]
    # A second table makes it a transaction of two statements.
    gets.append({"Get": {"TableName": "transfers", "Key": transfers.entry_of("none")}})
    writers = asyncio.gather(
        *(transfers.client(rigs[seed % 2], seed, 15, lambda name: None) for seed in range(4))
    )
    sums = set()
    while not writers.done():
        for some in (gets, gets[:-1]):
            got = await rigs[0].perform("TransactGetItems", TransactItems=some)
            sums.add(sum(int(r["Item"]["n"]["N"]) for r in got["Responses"] if r))
    await writers
    assert sums == {transfers.ACCOUNTS * transfers.OPENING_BALANCE}


@pytest.mark.asyncio
async def test_counters_of_single_writes_and_transactions_are_exact(rigs: list[Rig]) -> None:
    def update(name: str) -> dict[str, Any]:
        return {
            "TableName": "items",
            "Key": {"a": {"S": name}},
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }

    async def one_by_one(rig: Rig) -> None:
        for _ in range(15):
            for name in ("c1", "c2"):
                await rig.perform("UpdateItem", **update(name))

    async def together(rig: Rig, *names: str) -> None:
        entries = [{"Update": update(name)} for name in names]
        for number in range(15):
            name = f"{id(rig)}{names}{number}"[-36:]
            assert await transfers.perform(rig, name, entries)

    # In both orders, and of keys that are absent at first.
    await asyncio.gather(
        *(one_by_one(rig) for rig in rigs * 2),
        *(together(rigs[at], "c1", "c2") for at in range(2)),
        *(together(rigs[at], "c2", "c1") for at in range(2)),
    )
    for name in ("c1", "c2"):
        got = await rigs[0].perform("GetItem", TableName="items", Key={"a": {"S": name}})
        assert got["Item"]["n"] == {"N": "120"}


@pytest.mark.asyncio
async def test_one_of_many_that_make_the_same_item_wins(rigs: list[Rig]) -> None:
    async def make(rig: Rig, number: int) -> bool:
        entries = [
            {
                "Put": {
                    "TableName": "transfers",
                    "Item": {"a": {"S": "one"}, "n": {"N": str(number)}},
                    "ConditionExpression": "attribute_not_exists(a)",
                }
            },
            {"Put": {"TableName": "items", "Item": {"a": {"S": f"of-{number}"}}}},
        ]
        return await transfers.perform(rig, f"make-{number}", entries)

    async def make_alone(rig: Rig) -> bool:
        try:
            await rig.perform(
                "PutItem",
                TableName="transfers",
                Item={"a": {"S": "one"}},
                ConditionExpression="attribute_not_exists(a)",
            )
        except DynamoError as error:
            assert error.code == "ConditionalCheckFailedException"
            return False
        return True

    won = await asyncio.gather(
        *(make(rigs[number % 2], number) for number in range(6)),
        *(make_alone(rig) for rig in rigs),
    )
    assert sum(won) == 1
    for number in range(6):
        got = await rigs[0].perform("GetItem", TableName="items", Key={"a": {"S": f"of-{number}"}})
        assert bool(got) == won[number]


@pytest.mark.asyncio
async def test_killed_sessions_lose_and_double_nothing(rigs: list[Rig], dsn: str) -> None:
    made: list[str] = []
    progress = asyncio.Event()

    def acknowledged(name: str) -> None:
        made.append(name)
        progress.set()

    clients = asyncio.gather(
        *(transfers.client(rigs[seed % 2], seed, 20, acknowledged) for seed in range(8))
    )
    clients.add_done_callback(lambda done: progress.set())
    killer = await asyncpg.connect(dsn)
    killed = 0
    while not clients.done():
        # After each transfer a session in the middle of another one, if there is one.
        await progress.wait()
        progress.clear()
        killed += await killer.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND state <> 'idle' AND xact_start IS NOT NULL LIMIT 1) s"
        )
    await clients
    await killer.close()
    assert killed > 3
    await check_books(rigs[0], made)
    assert sorted(await transfers.recorded(rigs[0])) == sorted(made)


@pytest.mark.asyncio
async def test_a_killed_worker_leaves_no_half_and_no_lock(rigs: list[Rig], dsn: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.engines.keyvalue.transfers",
        dsn,
        rigs[0].record.instance_id,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    made = [(await process.stdout.readline()).decode().strip() for _ in range(40)]
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    rest, _ = await process.communicate()
    # The last line may be cut off.
    made += [line for line in rest.decode().split("\n")[:-1] if line]
    await check_books(rigs[0], made)
    # Whatever it had locked is free for the next one.
    assert await transfers.client(rigs[0], 1, 10, made.append) > 0
    await check_books(rigs[0], made)
