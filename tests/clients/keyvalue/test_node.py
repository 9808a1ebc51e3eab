"""The AWS SDK for JavaScript, version 3: commands, documents, paginators, waiters, transactions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin import Admin
from tests.clients.keyvalue.stack_clients import new_instance
from tests.clients.node.programs import run_program
from tests.stack import Stack

pytestmark = pytest.mark.stack

X1 = {"sessionId": {"S": "x1"}, "data": {"S": "{}"}}
ANSWERS: dict[str, Any] = {
    "tables": {"states": ["SUCCESS", "SUCCESS"], "listed": ["node-orders", "node-sessions"]},
    "crud": {
        "put": {
            "sessionId": {"S": "abc123"}, "userId": {"N": "42"},
            "data": {"S": '{"theme":"dark"}'}, "ttl": {"N": "4000000000"},
        },
        "deleted": True,
    },
    "batches": {"unprocessed": [{}, {}], "found": [X1]},
    "timeToLive": {"changed": {"Enabled": True, "AttributeName": "ttl"}, "attribute": "ttl"},
    "documents": {
        "item": {
            "customerId": 42, "orderId": "a", "price": 19.99, "paid": True, "note": None,
            "wares": [{"sku": "x", "count": 2}], "tags": ["one"], "raw": [0, 255],
        },
        "pages": [10, 10, 5], "ordered": True,
        "wares": [{"sku": "x", "count": 3}], "hasNote": False,
    },
    "transaction": {
        "name": "TransactionCanceledException", "codes": ["None", "ConditionalCheckFailed"],
        "found": [{"sessionId": "t1"}, {"sessionId": "t2"}, None],
    },
    "errors": {
        "nowhere": ["ResourceNotFoundException", True],
        "condition": ["ConditionalCheckFailedException", X1],
        "unknown": ["UnrecognizedClientException", 400],
    },
    "tls": "ACTIVE",
    "removal": ["SUCCESS", "SUCCESS"],
}  # fmt: skip


@pytest.fixture(scope="module")
def printed(stack: Stack, admin: Admin) -> dict[str, Any]:
    """What dynamodb.js printed."""
    row = new_instance(admin)
    return run_program(
        "dynamodb.js",
        WEFTKIT_TEST_URI=f"http://{row.host}:{row.port}",
        WEFTKIT_TEST_CA=stack.ca,
        WEFTKIT_TEST_USER=row.user,
        WEFTKIT_TEST_PASSWORD=row.password,
    )


@pytest.mark.parametrize("feature", ANSWERS)
def test_the_sdk_answers_as_from_dynamodb(printed: dict[str, Any], feature: str) -> None:
    assert printed[feature] == ANSWERS[feature]
