"""The works of `keyvalue`: signed requests prepared ahead, over wrk and over boto3.

Ours is durable (fsync on, synchronous commits), signed, metered and multi-tenant; dynalite and moto
hold everything in memory and check no signature. The floor is ours without all of that:
`keyvalue_floor`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from tests.benchmarks.measure import AbsentError, Measured, Way, Work

SCRIPT = Path(__file__).with_name("keyvalue.lua")
CONNECTIONS, KEYS, PAGE_ITEMS, BATCH_ITEMS = 16, 1000, 100, 25
TABLE, PAGES = "bench", "pages"
VALUE = "v" * 100
# What a way has to be told before its first work: (operation, fields).
Call = tuple[str, dict[str, Any]]


def key_of(number: int) -> str:
    """Return a key; all have 12 characters, as the floor expects."""
    return f"key-{number:08d}"


def item_of(number: int) -> dict[str, Any]:
    """Return the item of a key."""
    return {"id": {"S": key_of(number)}, "n": {"N": str(number)}, "text": {"S": VALUE}}


def _page_key(number: int) -> dict[str, Any]:
    return {"id": {"S": "page"}, "at": {"N": str(number)}}


def setup() -> Iterator[Call]:
    """Yield what makes the tables and fills them."""
    schemas = {TABLE: (("id", "S", "HASH"),), PAGES: (("id", "S", "HASH"), ("at", "N", "RANGE"))}
    for name, keys in schemas.items():
        yield (
            "CreateTable",
            {
                "TableName": name,
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [
                    {"AttributeName": key, "AttributeType": kind} for key, kind, _ in keys
                ],
                "KeySchema": [{"AttributeName": key, "KeyType": role} for key, _, role in keys],
            },
        )
    for start in range(0, KEYS, BATCH_ITEMS):
        yield _batch(start)
    for start in range(0, PAGE_ITEMS, BATCH_ITEMS):
        puts = [
            {"PutRequest": {"Item": _page_key(number) | {"text": {"S": VALUE}}}}
            for number in range(start, start + BATCH_ITEMS)
        ]
        yield "BatchWriteItem", {"RequestItems": {PAGES: puts}}


def _batch(start: int) -> Call:
    puts = [
        {"PutRequest": {"Item": item_of(number % KEYS)}}
        for number in range(start, start + BATCH_ITEMS)
    ]
    return "BatchWriteItem", {"RequestItems": {TABLE: puts}}


def _key(number: int) -> dict[str, Any]:
    return {"TableName": TABLE, "Key": {"id": {"S": key_of(number)}}}


# Name -> the calls that are repeated.
CALLS: dict[str, Callable[[], Sequence[Call]]] = {
    "GetItem": lambda: [("GetItem", _key(number)) for number in range(KEYS)],
    "PutItem": lambda: [
        ("PutItem", {"TableName": TABLE, "Item": item_of(number)}) for number in range(KEYS)
    ],
    "UpdateItem ADD": lambda: [
        (
            "UpdateItem",
            _key(number)
            | {"UpdateExpression": "ADD n :d", "ExpressionAttributeValues": {":d": {"N": "1"}}},
        )
        for number in range(KEYS)
    ],
    "Query 100": lambda: [
        (
            "Query",
            {
                "TableName": PAGES,
                "KeyConditionExpression": "id = :i",
                "ExpressionAttributeValues": {":i": {"S": "page"}},
            },
        )
    ],
    "BatchWrite 25": lambda: [_batch(start) for start in range(0, KEYS, BATCH_ITEMS)],
}


@dataclass(frozen=True)
class Keys:
    """What a way signs with; part of its address, behind the URL."""

    url: str
    key: str
    secret: str

    @property
    def client(self) -> Any:
        """A boto3 client."""
        return boto3.client(
            "dynamodb",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, parameter_validation=False),
        )


def signed(keys: Keys, calls: Sequence[Call]) -> list[bytes]:
    """Return the bytes of requests, as botocore signs them."""
    credentials = Credentials(keys.key, keys.secret)
    found = []
    for operation, fields in calls:
        body = json.dumps(fields, separators=(",", ":")).encode()
        request = AWSRequest(
            "POST",
            f"{keys.url}/",
            {
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            },
            body,
        )
        SigV4Auth(credentials, "dynamodb", "us-east-1").add_auth(request)
        host = keys.url.removeprefix("http://")
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        found.append(head.encode() + body)
    return found


def over_wrk(way: Way, seconds: int, *, name: str) -> Measured:
    """Load a way with signed requests for so long."""
    program = shutil.which("wrk")
    if program is None:
        raise AbsentError("apt-get install wrk")
    keys = Keys(*way.address)
    with tempfile.NamedTemporaryFile() as file:
        for request in signed(keys, CALLS[name]()):
            file.write(b"%d\n%s" % (len(request), request))
        file.flush()
        done = subprocess.run(
            [
                program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), keys.url,
                "--", file.name,
            ],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    requests, microseconds, errors, _ = map(int, line.split()[1:])
    if errors:
        raise AbsentError(f"{errors} of {requests} requests failed")
    return Measured(requests, requests / microseconds * 1e6)


def over_boto3(way: Way, seconds: int, *, name: str) -> Measured:
    """Ask one thing after the other for so long, as a program with one client does."""
    client = Keys(*way.address).client
    calls = CALLS[name]()
    methods = {operation: _method(client, operation) for operation, _ in calls}
    requests, start = 0, time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        operation, fields = calls[requests % len(calls)]
        methods[operation](**fields)
        requests += 1
    return Measured(requests, requests / passed)


def _method(client: Any, operation: str) -> Callable[..., Any]:
    names = {value: name for name, value in client.meta.method_to_api_mapping.items()}
    method: Callable[..., Any] = getattr(client, names[operation])
    return method


def fill(keys: Keys) -> None:
    """Make and fill the tables."""
    client = keys.client
    with contextlib.closing(client):
        for operation, fields in setup():
            _method(client, operation)(**fields)
            if operation == "CreateTable":
                client.get_waiter("table_exists").wait(
                    TableName=fields["TableName"], WaiterConfig={"Delay": 1}
                )


_FLOORS = {"GetItem": ("floor get",), "PutItem": ("floor put",)}
WORKS = (
    *(
        Work(
            f"keyvalue {name} wrk c={CONNECTIONS}",
            "requests",
            functools.partial(over_wrk, name=name),
            (*_FLOORS.get(name, ()), "dynalite", "moto", "weftkit"),
        )
        for name in CALLS
    ),
    *(
        Work(
            f"keyvalue {name} boto3 c=1",
            "requests",
            functools.partial(over_boto3, name=name),
            ("dynalite", "moto", "weftkit"),
        )
        for name in CALLS
    ),
)
