"""Whose key may do what: tenants, roles, suspension, rotation and the plan's units, with boto3."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.admin import Admin
from tests.clients.keyvalue.stack_clients import (
    SESSIONS,
    client_of,
    make_table,
    new_instance,
    refusal,
)
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

UNKNOWN_KEY = "UnrecognizedClientException: The security token included in the request is invalid."
SECONDS_MAX = 5.0
LITE_WRITES_PER_SECOND = 10


@pytest.fixture(scope="module")
def row(admin: Admin) -> Connection:
    """An instance of this module's own, so that suspending it disturbs nobody."""
    return new_instance(admin)


def session(name: str) -> dict[str, Any]:
    return {"sessionId": {"S": name}}


def test_the_other_tenants_key_sees_no_table_of_demo(stack: Stack, row: Connection) -> None:
    demo, other = client_of(row), client_of(stack.connection("other", "keyvalue"))
    make_table(demo, "secrets_of_demo", SESSIONS)
    demo.put_item(TableName="secrets_of_demo", Item=session("x"))
    assert "secrets_of_demo" in demo.list_tables()["TableNames"]
    assert "secrets_of_demo" not in other.list_tables()["TableNames"]
    with pytest.raises(ClientError) as refused:
        other.get_item(TableName="secrets_of_demo", Key=session("x"))
    assert refused.value.response["Error"] == {
        "Code": "ResourceNotFoundException",
        "Message": "Requested resource not found",
    }
    arn = demo.describe_table(TableName="secrets_of_demo")["Table"]["TableArn"]
    refusals = set()
    for name in (arn, arn.replace("secrets_of_demo", "nothing")):
        with pytest.raises(ClientError) as refused:
            other.get_item(TableName=name, Key=session("x"))
        error = refused.value.response["Error"]
        refusals.add((error["Code"], error["Message"].replace(name, "ARN")))
    # A name in another account is refused whether or not it is there.
    ((code, _),) = refusals
    assert code == "AccessDeniedException"


def test_a_wrong_secret_and_an_unknown_key_look_alike(stack: Stack, row: Connection) -> None:
    other = stack.connection("other", "keyvalue")
    assert refusal(replace(row, password="wrong")) == UNKNOWN_KEY
    assert refusal(replace(row, user="wk_aaaaaaaaaaaa")) == UNKNOWN_KEY
    assert refusal(replace(row, password=other.password)) == UNKNOWN_KEY
    # Anonymous access is off here.
    assert refusal(replace(row, user="any", password="any")) == UNKNOWN_KEY


def test_a_credential_that_reads_cannot_write(admin: Admin, row: Connection) -> None:
    owner = client_of(row)
    make_table(owner, "read_by_all", SESSIONS)
    owner.put_item(TableName="read_by_all", Item=session("x"))
    key = admin.new_credential(row, role="read")
    wait_until(lambda: refusal(key) == "", "the key is published", SECONDS_MAX)
    reader = client_of(key)
    assert reader.get_item(TableName="read_by_all", Key=session("x"))["Item"] == session("x")
    attempts = [
        lambda: reader.put_item(TableName="read_by_all", Item=session("y")),
        lambda: reader.delete_item(TableName="read_by_all", Key=session("x")),
        lambda: reader.transact_write_items(
            TransactItems=[{"Put": {"TableName": "read_by_all", "Item": session("y")}}]
        ),
        lambda: reader.execute_statement(
            Statement="""INSERT INTO read_by_all VALUE {'sessionId': 'y'}"""
        ),
        lambda: reader.delete_table(TableName="read_by_all"),
        lambda: reader.create_table(TableName="mine", **SESSIONS),
    ]
    for attempt in attempts:
        with pytest.raises(ClientError) as refused:
            attempt()
        assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    assert owner.scan(TableName="read_by_all")["Items"] == [session("x")]


def test_a_suspended_instance_says_so_and_resumes(admin: Admin, row: Connection) -> None:
    connected = client_of(row)
    make_table(connected, "kept", SESSIONS)
    connected.put_item(TableName="kept", Item=session("x"))
    admin.suspend(row.instance)
    assert refusal(row).startswith("AccessDeniedException: the instance is suspended")
    # Also over a connection that was open.
    with pytest.raises(ClientError, match="the instance is suspended"):
        connected.get_item(TableName="kept", Key=session("x"))
    admin.resume(row.instance)
    wait_until(lambda: refusal(row) == "", "it serves again", SECONDS_MAX)
    assert connected.get_item(TableName="kept", Key=session("x"))["Item"] == session("x")


def test_an_old_and_a_new_secret_both_work_until_the_key_is_revoked(
    admin: Admin, row: Connection
) -> None:
    old = admin.new_credential(row)
    wait_until(lambda: refusal(old) == "", "the first secret works", SECONDS_MAX)
    new = admin.rotate(old)
    assert new.user == old.user
    assert new.password != old.password
    wait_until(lambda: refusal(new) == "", "the second secret works", SECONDS_MAX)
    assert refusal(old) == ""
    admin.revoke(new)
    for each in (old, new):
        wait_until(lambda each=each: refusal(each) == UNKNOWN_KEY, "it is revoked", SECONDS_MAX)


@pytest.mark.parametrize(
    ("billing", "code"),
    [
        ({"BillingMode": "PAY_PER_REQUEST"}, "ThrottlingException"),
        (
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
            },
            "ProvisionedThroughputExceededException",
        ),
    ],
)
def test_over_the_plans_units_requests_are_throttled_with_a_hint_and_retries_get_through(
    stack: Stack, billing: dict[str, Any], code: str
) -> None:
    lite = stack.connection("other", "keyvalue")
    once, patient = client_of(lite), client_of(lite, attempts=12)
    name = f"throttled_{code}"
    make_table(patient, name, {**SESSIONS, **billing})
    with pytest.raises(ClientError) as refused:
        for number in range(10 * LITE_WRITES_PER_SECOND):
            once.put_item(TableName=name, Item=session(f"once{number}"))
    answer = refused.value.response
    assert answer["Error"]["Code"] == code
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert 0 < int(headers["x-amz-retry-after"]) <= 1000
    assert headers["retry-after"] == "1"
    if code == "ThrottlingException":
        assert re.search(
            r"10 write units per second\b.*Retry after \d+ ms", answer["Error"]["Message"]
        )
    started = time.monotonic()
    done = [
        patient.put_item(TableName=name, Item=session(f"patient{number}"))
        for number in range(3 * LITE_WRITES_PER_SECOND)
    ]
    # Two seconds' worth cannot be had sooner: they were refused and came again.
    assert time.monotonic() - started > 1
    assert sum(each["ResponseMetadata"]["RetryAttempts"] for each in done) > 0
    pages = patient.get_paginator("scan").paginate(
        TableName=name, FilterExpression="begins_with(sessionId, :p)",
        ExpressionAttributeValues={":p": {"S": "patient"}},
    )  # fmt: skip
    assert sum(page["Count"] for page in pages) == 3 * LITE_WRITES_PER_SECOND
    patient.delete_table(TableName=name)
