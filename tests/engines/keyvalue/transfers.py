"""Clients that move money between accounts by transactions: the sum stays, whatever is killed.

`python -m tests.engines.keyvalue.transfers DSN RECORD` is a worker of its own with four of them; it
prints the name of each transfer that was acknowledged, and is killed in the middle of one.
"""

from __future__ import annotations

import asyncio
import random
import sys
import uuid
from collections.abc import Callable
from typing import Any

from dataplane.backend.pool import CellPool
from engines.keyvalue.errors import DynamoError
from engines.kit.errors import Reason, RequestError
from engines.kit.records import InstanceRecord
from tests.engines.keyvalue.rig import Rig, new_record

ACCOUNTS = 5
OPENING_BALANCE = 100
# What a client tries again: somebody else was first, or the server was lost.
_AGAIN = frozenset({"TransactionConflict"})


def account(number: int) -> dict[str, Any]:
    return {"a": {"S": f"account-{number}"}}


def entry_of(name: str) -> dict[str, Any]:
    return {"a": {"S": f"transfer-{name}"}}


async def open_accounts(rig: Rig) -> None:
    for number in range(ACCOUNTS):
        item = account(number) | {"n": {"N": str(OPENING_BALANCE)}}
        await rig.perform("PutItem", TableName="items", Item=item)


def transfer(name: str, source: int, target: int, amount: int) -> list[dict[str, Any]]:
    """Return the entries of a transfer: two accounts, and a record that it was made."""
    value = {":n": {"N": str(amount)}}
    return [
        {
            "Update": {
                "TableName": "items",
                "Key": account(source),
                "UpdateExpression": "SET n = n - :n",
                "ConditionExpression": "n >= :n",
                "ExpressionAttributeValues": value,
            }
        },
        {
            "Update": {
                "TableName": "items",
                "Key": account(target),
                "UpdateExpression": "SET n = n + :n",
                "ExpressionAttributeValues": value,
            }
        },
        {
            "Put": {
                "TableName": "transfers",
                "Item": entry_of(name) | {"n": {"N": str(amount)}},
                "ConditionExpression": "attribute_not_exists(a)",
            }
        },
    ]


async def perform(rig: Rig, name: str, entries: list[dict[str, Any]]) -> bool:
    """Make a transfer until it is known whether it was made; False: there was no money."""
    while True:
        try:
            await rig.perform("TransactWriteItems", TransactItems=entries, ClientRequestToken=name)
        except DynamoError as error:
            if error.code == "TransactionInProgressException":
                continue
            assert error.code == "TransactionCanceledException", error.code
            codes = {reason["Code"] for reason in error.extra["CancellationReasons"]}
            if not codes & _AGAIN:
                assert codes <= {"ConditionalCheckFailed", "None"}
                return False
        except RequestError as error:
            # The server was killed under it.
            assert error.reason is Reason.BACKEND, error.reason
        else:
            return True


async def client(rig: Rig, seed: int, count: int, made: Callable[[str], None]) -> int:
    """Make `count` random transfers; tell `made` each that was acknowledged."""
    chance = random.Random(seed)
    acknowledged = 0
    for _ in range(count):
        source, target = chance.sample(range(ACCOUNTS), 2)
        name = uuid.uuid4().hex
        entries = transfer(name, source, target, chance.randint(1, 60))
        if await perform(rig, name, entries):
            made(name)
            acknowledged += 1
    return acknowledged


async def sum_of(rig: Rig) -> int:
    page = await rig.perform("Scan", TableName="items", ConsistentRead=True)
    return sum(int(item["n"]["N"]) for item in page["Items"])


async def recorded(rig: Rig) -> list[str]:
    names, start = [], {}
    while True:
        page = await rig.perform("Scan", TableName="transfers", **start)
        names += [item["a"]["S"].removeprefix("transfer-") for item in page["Items"]]
        if "LastEvaluatedKey" not in page:
            return names
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


async def worker(dsn: str, instance_id: str) -> None:
    record = new_record()
    record = InstanceRecord(**{name: getattr(record, name) for name in record.__slots__} | {
        "instance_id": instance_id
    })  # fmt: skip
    rig = Rig(CellPool(dsn, size=4, wait_s=10.0), record)
    await asyncio.gather(
        *(client(rig, seed, 10_000, lambda name: print(name, flush=True)) for seed in range(4))
    )


if __name__ == "__main__":
    asyncio.run(worker(*sys.argv[1:]))
