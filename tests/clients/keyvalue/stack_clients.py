"""boto3 with a key of the whole stack: the settings that the printed connection stands for."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection

SESSIONS: dict[str, Any] = {
    "AttributeDefinitions": [{"AttributeName": "sessionId", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "sessionId", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def keys_of(row: Connection) -> dict[str, str]:
    """Return the three arguments that say where to and who."""
    return {
        "endpoint_url": f"http://{row.host}:{row.port}",
        "aws_access_key_id": row.user,
        "aws_secret_access_key": row.password,
    }


def client_of(row: Connection, *, attempts: int = 1) -> Any:
    """Return a client; it tries each request `attempts` times."""
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    config = Config(retries=retries, max_pool_connections=20, read_timeout=30)
    session = boto3.session.Session()
    return session.client("dynamodb", region_name="us-east-1", config=config, **keys_of(row))


def refusal(row: Connection) -> str:
    """Return how a request is refused, code and message; "" if it is not."""
    try:
        client_of(row).list_tables()
    except ClientError as error:
        return f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
    return ""


def new_instance(admin: Admin, *, plan: str = "unmetered") -> Connection:
    """Make an instance and wait until the data plane knows its key."""
    row = admin.new_instance("keyvalue", plan=plan)
    wait_until(lambda: refusal(row) == "", "the new key works", 10)
    return row


def make_table(client: Any, name: str, schema: dict[str, Any]) -> None:
    """Make a table and wait until it is there."""
    client.create_table(TableName=name, **schema)
    client.get_waiter("table_exists").wait(TableName=name)
