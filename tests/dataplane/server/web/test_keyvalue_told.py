"""What a worker tells of keyvalue's requests: audit events, units and bytes, used keys."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engines.kit.records import InstanceRecord, ScopedGrant
from tests.dataplane.keyvalue_plane import Signer, access_key, keyvalue_plane, new_instance
from tests.dataplane.plane import ANSWER_SECONDS_MAX, Plane, until
from tests.dataplane.server.web.http_client import Answer, RawClient
from tests.servers import PostgresServer, RedisServer, temporary_home

TABLE = {
    "TableName": "people",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
KEY = {"TableName": "people", "Key": {"id": {"S": "x"}}}
ITEM = {"TableName": "people", "Item": {"id": {"S": "x"}}}
READER = ScopedGrant(("Reader",), (), "table", "people")


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    with (
        temporary_home("wkd") as home,
        keyvalue_plane(home, postgres, redis, "kv_told") as plane,
    ):
        yield plane


@dataclasses.dataclass
class Case:
    plane: Plane
    record: InstanceRecord
    signer: Signer
    client: RawClient

    async def ask(self, operation: str, fields: Any = None) -> Answer:
        return await self.client.ask(self.signer.request(operation, fields or {}))

    async def hold(self, *grants: ScopedGrant) -> None:
        """Have the credential hold other grants, which do not allow to list tables."""
        credential = dataclasses.replace(self.record.credentials[0], grants=grants)
        self.record = dataclasses.replace(self.record, credentials=(credential,))
        self.plane.database.publish(self.record)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while (await self.ask("ListTables")).status == 200:
                pass

    def told(self) -> list[tuple[str, str, int, int, bool]]:
        """Return (action, target, code, units, is data) of the events, as they came."""
        rows = self.plane.database.rows(
            "SELECT body->>'action', body->>'target', (body->>'reason_code')::int,"
            " coalesce((body->>'units')::int, 0), (body->>'is_data_event')::bool"
            " FROM publish.audit_intake WHERE body->>'instance_id' = %s"
            " ORDER BY (body->>'at')::float8, body->>'action'",
            self.record.instance_id,
        )
        place = f"instances/{self.record.handle}"
        return [
            (action.removeprefix("weftkit.keyvalue."), target.removeprefix(place), *more)
            for action, target, *more in rows
        ]

    async def until_told(self, *expected: tuple[str, str, int, int, bool]) -> None:
        await until(
            lambda: sorted(self.told()) == sorted(expected), f"{expected}, not {self.told()}"
        )


@asynccontextmanager
async def opened(served: Plane, **changes: Any) -> AsyncIterator[Case]:
    served.begin_test()
    credential = access_key()
    record = await served.know(new_instance(served, credential, **changes))
    client = await RawClient.open(served)
    yield Case(served, record, Signer.of(credential), client)
    await client.close()
    await served.close_parts()


@pytest.fixture
async def case(served: Plane) -> AsyncIterator[Case]:
    async with opened(served) as case:
        yield case


@pytest.fixture
async def audited(served: Plane) -> AsyncIterator[Case]:
    """One whose owner wants data events."""
    async with opened(served, audit_data_events=True) as case:
        yield case


async def test_control_operations_and_refused_rights_are_told_without_being_asked_for(
    case: Case,
) -> None:
    assert (await case.ask("CreateTable", TABLE)).status == 200
    assert (await case.ask("PutItem", ITEM)).status == 200
    await case.hold(READER)
    assert (await case.ask("PutItem", ITEM)).status == 400
    assert (await case.ask("DeleteTable", {"TableName": "people"})).status == 400
    await case.until_told(
        ("table.create", "/tables/people", 200, 0, False),
        ("table.read", "", 403, 0, False),
        ("table.write", "/tables/people", 403, 0, False),
        ("table.delete", "/tables/people", 403, 0, False),
    )
    who = case.plane.database.rows(
        "SELECT DISTINCT body->>'initiator', body->>'address' FROM publish.audit_intake"
        " WHERE body->>'instance_id' = %s",
        case.record.instance_id,
    )
    assert who == [(case.signer.key, "127.0.0.1")]


async def test_a_wrong_signature_is_told_and_a_flood_of_them_is_counted(case: Case) -> None:
    thief = dataclasses.replace(case.signer, secret="guessed")
    for _ in range(15):
        answer = await case.client.ask(thief.request("ListTables", {}))
        assert answer.status == 400
    failed = ("session.start", "", 401, 0, False)
    await case.until_told(*[failed] * 10)


async def test_requests_are_told_as_counts_where_the_owner_wants_it(audited: Case) -> None:
    case = audited
    assert (await case.ask("CreateTable", TABLE)).status == 200
    for _ in range(3):
        assert (await case.ask("PutItem", ITEM)).status == 200
    for _ in range(4):
        assert (await case.ask("GetItem", KEY | {"ConsistentRead": True})).status == 200
    await case.client.close()

    def counts() -> dict[str, int]:
        found: dict[str, int] = {}
        for action, target, code, units, is_data in case.told():
            if action.startswith("statement."):
                assert (target, code, is_data) == ("", 200, True)
                found[action] = found.get(action, 0) + units
        return found

    await until(
        lambda: counts() == {"statement.write": 4, "statement.read": 4}, "all units are told"
    )


async def test_a_session_is_a_credential_on_a_connection(audited: Case) -> None:
    case = audited
    for _ in range(3):
        assert (await case.ask("ListTables")).status == 200
    # Another version of the record is no other session.
    await case.hold(READER)
    other = await RawClient.open(case.plane)
    assert (await other.ask(case.signer.request("ListTables", {}))).status == 400
    await other.close()

    def sessions() -> list[tuple[str, int, bool]]:
        told = [row for row in case.told() if row[0].startswith("session.")]
        return sorted((verb, code, is_data) for verb, _, code, _, is_data in told)

    start, end = ("session.start", 200, True), ("session.end", 200, True)
    await until(lambda: sessions() == [end, start, start], "two begin, and one has ended")


async def test_units_and_bytes_are_metered_and_the_key_is_marked_as_used(case: Case) -> None:
    sent = received = 0
    kilobytes = {"id": {"S": "x"}, "b": {"S": "x" * 2_500}}
    for operation, fields in (
        ("CreateTable", TABLE),
        ("PutItem", {"TableName": "people", "Item": kilobytes}),
        ("GetItem", KEY | {"ConsistentRead": True}),
    ):
        request = case.signer.request(operation, fields)
        case.client.send(request)
        answer = await case.client.answer()
        assert answer.status == 200
        sent += len(request)
        head = sum(len(name) + len(value) + 4 for name, value in answer.headers.items())
        received += len(b"HTTP/1.1 200 OK\r\n\r\n") + head + len(answer.body)
    usage = {}

    def is_metered() -> bool:
        usage.update(case.plane.database.usage(case.record))
        return usage["bytes_out"] >= received

    await until(is_metered, f"{received} bytes, not {usage}")
    # One for the table, three for an item of up to 3 KB; a read of up to 4 KB is one.
    assert (usage["write"], usage["read"], usage["query"]) == (4, 1, 0)
    assert (usage["bytes_in"], usage["bytes_out"]) == (sent, received)
    key_id = case.record.credentials[0].key_id
    seen = case.plane.database.rows("SELECT key_id FROM publish.key_seen")
    assert (key_id,) in seen
