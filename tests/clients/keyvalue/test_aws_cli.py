"""The AWS CLI against the stack: tables, items, queries, and the command that is printed."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from engines.keyvalue.engine import one_liner
from engines.kit.contract import Endpoint
from tests.admin import Admin
from tests.clients.keyvalue.aws_cli import run_shell
from tests.clients.keyvalue.stack_clients import new_instance
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def row(admin: Admin) -> Connection:
    """An instance of this module's own."""
    return new_instance(admin)


@pytest.fixture
def environment(stack: Stack, row: Connection) -> dict[str, str]:
    """Key and authority, as a person exports them."""
    return {
        "AWS_ACCESS_KEY_ID": row.user,
        "AWS_SECRET_ACCESS_KEY": row.password,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": stack.ca,
    }


def test_tables_and_items_are_made_queried_and_scanned(
    row: Connection, environment: dict[str, str]
) -> None:
    def aws(*words: str) -> Any:
        line = shlex.join(["aws", "dynamodb", *words])
        done = run_shell(f"{line} --endpoint-url https://{row.host}:{row.port}", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    made = aws(
        "create-table", "--table-name", "orders", "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=customerId,AttributeType=N",
        "AttributeName=orderId,AttributeType=S",
        "--key-schema", "AttributeName=customerId,KeyType=HASH",
        "AttributeName=orderId,KeyType=RANGE",
    )  # fmt: skip
    assert made["TableDescription"]["TableName"] == "orders"
    aws("wait", "table-exists", "--table-name", "orders")
    assert aws("list-tables") == {"TableNames": ["orders"]}
    items = [
        {"customerId": {"N": customer}, "orderId": {"S": order}, "note": {"S": "naïve"}}
        for customer, order in (("42", "a"), ("42", "b"), ("43", "a"))
    ]
    for item in items:
        aws("put-item", "--table-name", "orders", "--item", json.dumps(item))
    queried = aws(
        "query", "--table-name", "orders", "--key-condition-expression", "customerId = :cid",
        "--expression-attribute-values", json.dumps({":cid": {"N": "42"}}),
    )  # fmt: skip
    assert queried["Items"] == items[:2]
    # The CLI asks for one page after the other.
    scanned = aws("scan", "--table-name", "orders", "--page-size", "1")
    assert scanned["Count"] == 3
    assert sorted(map(str, scanned["Items"])) == sorted(map(str, items))


def test_the_printed_command_lists_the_tables(stack: Stack) -> None:
    """The line is that of `make up`, over TLS; there may be tables of other tests."""
    row = stack.connection("demo", "keyvalue")
    line = one_liner(
        Endpoint(row.host, row.port, row.user, row.password, row.instance, True, stack.ca)
    )
    done = run_shell(line)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == ["TableNames"]
