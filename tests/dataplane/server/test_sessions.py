"""The right to be connected, at sign-in and ever after, against a real worker."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from dataplane.server.sessions import objection
from engines.kit.errors import Reason
from engines.kit.records import Credential, InstanceRecord, Limits, Role, Status
from tests.dataplane.plane import Client, Plane, elapsed, instance, key, until

Change = Callable[[InstanceRecord], InstanceRecord]
NOW = 1_800_000_000.0
HERE = ip_address("192.0.2.7")
KEY, _ = key()


@pytest.mark.parametrize(
    ("record", "credential", "reason"),
    [
        (instance(), KEY, None),
        (None, KEY, Reason.SUSPENDED),
        (instance(status=Status.SUSPENDED), KEY, Reason.SUSPENDED),
        (instance(status=Status.PROVISIONING), KEY, Reason.SUSPENDED),
        (instance(), None, Reason.UNAUTHENTICATED),
        (instance(), dataclasses.replace(KEY, enabled=False), Reason.UNAUTHENTICATED),
        (instance(), dataclasses.replace(KEY, expires_at=NOW), Reason.EXPIRED),
        (instance(), dataclasses.replace(KEY, expires_at=NOW + 1), None),
        (instance(allowlist=("192.0.2.0/24",)), KEY, None),
        (instance(allowlist=("192.0.2.9/24",)), KEY, None),
        (instance(allowlist=("198.51.100.0/24",)), KEY, Reason.ADDRESS),
        (instance(allowlist=("2001:db8::/32",)), KEY, Reason.ADDRESS),
        (instance(allowlist=("no network",)), KEY, Reason.ADDRESS),
        (instance(), dataclasses.replace(KEY, cidrs=("192.0.2.7/32",)), None),
        (instance(), dataclasses.replace(KEY, cidrs=("192.0.2.8/32",)), Reason.ADDRESS),
        (
            instance(allowlist=("192.0.2.0/24",)),
            dataclasses.replace(KEY, cidrs=("10.0.0.0/8",)),
            Reason.ADDRESS,
        ),
    ],
)
def test_objections(
    record: InstanceRecord | None, credential: Credential | None, reason: Reason | None
) -> None:
    error = objection(record, credential, HERE, NOW)
    assert (error.reason if error else None) is reason


class Live:
    """A published instance with one live session."""

    def __init__(self, plane: Plane, record: InstanceRecord, client: Client) -> None:
        self.plane = plane
        self.record = record
        self.client = client


@pytest.fixture
async def live(plane: Plane) -> Live:
    credential, password = key()
    record = await plane.know(instance(credential))
    await plane.serve(record)
    client = await plane.login(credential, password)
    assert await client.ask("r before") == "r before"
    return Live(plane, record, client)


def changed_credential(**changes: object) -> Change:
    def change(record: InstanceRecord) -> InstanceRecord:
        credential = dataclasses.replace(record.credentials[0], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(record, credentials=(credential,))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: dataclasses.replace(record, credentials=()), "unauthenticated"),
        (changed_credential(enabled=False), "unauthenticated"),
        (changed_credential(expires_at=1.0), "expired"),
        (changed_credential(cidrs=("192.0.2.0/24",)), "address"),
        (changed_credential(role=Role.READ), "denied"),
        (lambda record: dataclasses.replace(record, allowlist=("192.0.2.0/24",)), "address"),
        (lambda record: dataclasses.replace(record, status=Status.SUSPENDED), "suspended"),
        (lambda record: dataclasses.replace(record, status=Status.QUARANTINED), "suspended"),
    ],
)
async def test_a_change_ends_a_live_session_within_a_second(
    live: Live, change: Change, reason: str
) -> None:
    took = elapsed()
    live.plane.database.publish(change(live.record))
    assert await live.client.rest() == f"BYE {reason}\n"
    assert took() < 1.0


async def test_a_deleted_record_ends_a_live_session(live: Live) -> None:
    with live.plane.database.connect() as connection, connection.transaction():
        connection.execute(
            "DELETE FROM publish.record WHERE instance_id = %s", [live.record.instance_id]
        )
        connection.execute("SELECT pg_notify('weftkit_record', %s)", [live.record.instance_id])
    assert await live.client.rest() == "BYE suspended\n"


async def test_a_session_ends_when_its_credential_expires(live: Live) -> None:
    took = elapsed()
    live.plane.database.publish(changed_credential(expires_at=time.time() + 0.5)(live.record))
    assert await live.client.ask("r not yet") == "r not yet"
    assert await live.client.rest() == "BYE expired\n"
    assert 0.3 < took() < 2.0


async def test_other_changes_leave_a_session_alone(live: Live) -> None:
    other, _ = key()
    published = live.plane.database.publish(
        dataclasses.replace(live.record, plan="lite", credentials=(*live.record.credentials, other))
    )
    published = live.plane.database.publish(
        changed_credential(expires_at=time.time() + 600)(published)
    )
    marker = await live.plane.know(instance())
    assert marker.version > published.version
    assert await live.client.ask("r after") == "r after"


async def test_a_plan_change_takes_effect_on_an_open_connection(live: Live) -> None:
    live.plane.database.publish(dataclasses.replace(live.record, limits=Limits(query=1)))
    answers: list[str] = []
    took = elapsed()
    while not any(answer.startswith("ERR rate") for answer in answers):
        answers.append(await live.client.ask("q count"))
        assert took() < 1.0
    live.plane.database.publish(dataclasses.replace(live.record, limits=Limits()))
    took = elapsed()
    while (await live.client.ask("q count")) != "q count":
        assert took() < 1.0
    assert [await live.client.ask("q count") for _ in range(20)] == ["q count"] * 20


async def test_over_the_storage_quota_growth_is_refused_until_there_is_room(live: Live) -> None:
    record = live.plane.database.publish(
        dataclasses.replace(live.record, limits=Limits(storage_bytes=1000))
    )
    live.plane.database.observe(record, 1001)
    took = elapsed()
    while (await live.client.ask("g grow")) != "ERR quota -":
        assert took() < 2.0
    assert await live.client.ask("w shrink") == "w shrink"
    assert await live.client.ask("r read") == "r read"
    live.plane.database.observe(record, 999)
    took = elapsed()
    while (await live.client.ask("g grow")) != "g grow":
        assert took() < 2.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": Status.SUSPENDED}, "suspended"),
        ({"allowlist": ("192.0.2.0/24",)}, "address"),
    ],
)
async def test_sign_in_is_refused_after_the_proof_only(
    plane: Plane, changes: dict[str, object], reason: str
) -> None:
    credential, password = key()
    await plane.know(instance(credential, **changes))
    proven = await plane.connect()
    answer = await proven.ask(f"LOGIN {credential.username} {password}")
    assert answer.startswith(f"ERR {reason} ")
    unproven = await plane.connect()
    answer = await unproven.ask(f"LOGIN {credential.username} wrong")
    assert answer.startswith("ERR unauthenticated ")


async def test_an_expired_credential_is_told_so_after_the_proof(
    plane: Plane,
) -> None:
    credential, password = key(expires_at=1.0)
    await plane.know(instance(credential))
    client = await plane.connect()
    answer = await client.ask(f"LOGIN {credential.username} {password}")
    assert answer.startswith("ERR expired ")


async def test_failures_and_refusals_are_audited(plane: Plane) -> None:
    credential, password = key()
    record = await plane.know(instance(credential, status=Status.SUSPENDED))
    for given in ("wrong", password):
        client = await plane.connect()
        await client.ask(f"LOGIN {credential.username} {given}")

    def codes() -> list[int]:
        rows = plane.database.rows(
            "SELECT (body->>'reason_code')::int FROM publish.audit_intake"
            " WHERE body->>'instance_id' = %s",
            record.instance_id,
        )
        return sorted(code for (code,) in rows)

    await until(lambda: codes() == [401, 403], "both events arrive")


async def test_a_used_key_is_marked_as_seen(live: Live) -> None:
    key_id = live.record.credentials[0].key_id
    await until(
        lambda: (key_id,) in live.plane.database.rows("SELECT key_id FROM publish.key_seen"),
        "the key is marked",
    )


async def test_data_events_are_switched_on_and_off_in_an_open_session(live: Live) -> None:
    plane, record, client = live.plane, live.record, live.client

    def told() -> dict[str, int]:
        rows = plane.database.rows(
            "SELECT body->>'action', sum(coalesce((body->>'units')::int, 1))::int"
            " FROM publish.audit_intake WHERE body->>'instance_id' = %s GROUP BY 1",
            record.instance_id,
        )
        return {str(action).removeprefix("weftkit.line."): count for action, count in rows}

    audited = await plane.know(dataclasses.replace(record, audit_data_events=True))
    for number in range(5):
        assert await client.ask(f"r {number}") == f"r {number}"
    await until(lambda: told() == {"statement.read": 5}, "five reads are told")
    await plane.know(dataclasses.replace(audited, audit_data_events=False))
    assert await client.ask("r after") == "r after"
    await plane.know(dataclasses.replace(audited, audit_data_events=True))
    assert await client.ask("r 6") == "r 6"
    await client.close()
    await until(lambda: told() == {"statement.read": 6, "session.end": 1}, "and the end")
