"""boto3's transactions and PartiQL: what is acknowledged is there once, whoever is killed."""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.clients.keyvalue.clients import Clients

ACCOUNTS = 5
OPENING_BALANCE = 100
# What a client tries again with the same token, as SDKs do.
AGAIN = {"InternalServerError", "ServiceUnavailable", "TransactionInProgressException"}


@pytest.fixture(autouse=True)
def bank(kv: Clients) -> None:
    """Make a table of accounts with money in them, and one of transfers."""
    for name in ("accounts", "transfers"):
        kv.client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    for number in range(ACCOUNTS):
        item = {"id": {"S": str(number)}, "n": {"N": str(OPENING_BALANCE)}}
        kv.client.put_item(TableName="accounts", Item=item)


def transfer(name: str, source: int, target: int, amount: int) -> list[dict[str, Any]]:
    def update(account: int, change: str, **more: Any) -> dict[str, Any]:
        return {
            "Update": {
                "TableName": "accounts",
                "Key": {"id": {"S": str(account)}},
                "UpdateExpression": f"SET n = n {change} :n",
                "ExpressionAttributeValues": {":n": {"N": str(amount)}},
                **more,
            }
        }

    return [
        update(source, "-", ConditionExpression="n >= :n"),
        update(target, "+"),
        {
            "Put": {
                "TableName": "transfers",
                "Item": {"id": {"S": name}},
                "ConditionExpression": "attribute_not_exists(id)",
            }
        },
    ]


def performed(client: Any, name: str, entries: list[dict[str, Any]]) -> bool:
    """Make a transfer until it is known whether it was made; False: there was no money."""
    while True:
        try:
            client.transact_write_items(TransactItems=entries, ClientRequestToken=name)
        except ClientError as error:
            if error.response["Error"]["Code"] in AGAIN:
                continue
            codes = {reason["Code"] for reason in error.response["CancellationReasons"]}
            if "TransactionConflict" not in codes:
                assert codes == {"ConditionalCheckFailed", "None"}
                return False
        except BotoCoreError:
            # The connection was lost: it may have been made or not.
            continue
        else:
            return True


def test_transfers_of_eight_clients_keep_the_sum_while_workers_are_killed(kv: Clients) -> None:
    are_killed = threading.Event()

    def work(seed: int) -> list[str]:
        client = kv.another()
        chance = random.Random(seed)
        made: list[str] = []
        attempts = 0
        while attempts < 20 or not are_killed.is_set():
            attempts += 1
            name = uuid.uuid4().hex
            source, target = chance.sample(range(ACCOUNTS), 2)
            if performed(client, name, transfer(name, source, target, chance.randint(1, 60))):
                made.append(name)
        client.close()
        return made

    with ThreadPoolExecutor(8) as threads:
        working = [threads.submit(work, seed) for seed in range(8)]
        for _ in range(2):
            asyncio.run(kv.plane.kill_workers())
        are_killed.set()
        made = [name for each in working for name in each.result()]
    items = kv.client.scan(TableName="accounts", ConsistentRead=True)["Items"]
    assert sum(int(item["n"]["N"]) for item in items) == ACCOUNTS * OPENING_BALANCE
    assert min(int(item["n"]["N"]) for item in items) >= 0
    recorded = kv.client.scan(TableName="transfers")["Items"]
    assert sorted(item["id"]["S"] for item in recorded) == sorted(made)
    assert len(made) > 0


def test_why_a_transaction_was_canceled_is_told_in_order(kv: Clients) -> None:
    entries = transfer("t", 0, 1, 1000)
    entries[0]["Update"]["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    with pytest.raises(kv.client.exceptions.TransactionCanceledException) as error:
        kv.client.transact_write_items(TransactItems=entries)
    assert error.value.response["CancellationReasons"] == [
        {
            "Code": "ConditionalCheckFailed",
            "Message": "The conditional request failed",
            "Item": {"id": {"S": "0"}, "n": {"N": "100"}},
        },
        {"Code": "None"},
        {"Code": "None"},
    ]
    got = kv.client.transact_get_items(
        TransactItems=[
            {"Get": {"TableName": "accounts", "Key": {"id": {"S": "1"}}}},
            {"Get": {"TableName": "transfers", "Key": {"id": {"S": "t"}}}},
        ]
    )
    assert got["Responses"] == [{"Item": {"id": {"S": "1"}, "n": {"N": "100"}}}, {}]


def test_a_token_with_another_request_is_refused(kv: Clients) -> None:
    token = {"ClientRequestToken": "token"}
    kv.client.transact_write_items(TransactItems=transfer("t", 0, 1, 1), **token)
    kv.client.transact_write_items(TransactItems=transfer("t", 0, 1, 1), **token)
    with pytest.raises(kv.client.exceptions.IdempotentParameterMismatchException):
        kv.client.transact_write_items(TransactItems=transfer("t", 0, 1, 2), **token)


def test_statements_take_and_give_values_of_python(kv: Clients) -> None:
    client = kv.resource.meta.client
    for number in range(12):
        client.execute_statement(
            Statement="INSERT INTO transfers VALUE {'id': ?, 'n': ?, 'tags': ?}",
            Parameters=[f"t{number:02}", number, {"red", "blue"}],
        )
    with pytest.raises(client.exceptions.DuplicateItemException):
        client.execute_statement(Statement="INSERT INTO transfers VALUE {'id': 't00'}")
    found: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = client.execute_statement(
            Statement='SELECT id, n FROM "transfers" WHERE n BETWEEN ? AND ?',
            Parameters=[3, 9],
            Limit=5,
            **more,
        )
        found += page["Items"]
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}
    assert sorted(item["n"] for item in found) == [*range(3, 10)]
    (item,) = client.execute_statement(
        Statement="UPDATE transfers SET n = n + ? WHERE id = 't00' RETURNING ALL NEW *",
        Parameters=[5],
    )["Items"]
    assert item == {"id": "t00", "n": 5, "tags": {"red", "blue"}}
    with pytest.raises(client.exceptions.ConditionalCheckFailedException):
        client.execute_statement(Statement="DELETE FROM transfers WHERE id = 't00' AND n = 4")


def test_batches_and_transactions_of_statements(kv: Clients) -> None:
    responses = kv.client.batch_execute_statement(
        Statements=[
            {"Statement": "UPDATE accounts SET n = 0 WHERE id = ?", "Parameters": [{"S": "0"}]},
            {"Statement": "UPDATE accounts SET n = 0 WHERE id = 'none'"},
        ]
    )["Responses"]
    assert responses[0] == {"TableName": "accounts"}
    assert responses[1]["Error"]["Code"] == "ConditionalCheckFailed"
    with pytest.raises(kv.client.exceptions.TransactionCanceledException) as error:
        kv.client.execute_transaction(
            TransactStatements=[
                {"Statement": "DELETE FROM accounts WHERE id = '1'"},
                {"Statement": "EXISTS(SELECT * FROM accounts WHERE id = '0' AND n > 0)"},
            ]
        )
    codes = [reason["Code"] for reason in error.value.response["CancellationReasons"]]
    assert codes == ["None", "ConditionalCheckFailed"]
    got = kv.client.execute_transaction(
        TransactStatements=[{"Statement": "SELECT n FROM accounts WHERE id = '1'"}]
    )
    assert got["Responses"] == [{"Item": {"n": {"N": "100"}}}]
