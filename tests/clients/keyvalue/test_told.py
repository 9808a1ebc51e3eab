"""What the owner of a keyvalue instance sees of its use: audit events, series, used keys."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin import Admin
from tests.clients.keyvalue.stack_clients import SESSIONS, client_of, new_instance
from tests.servers import wait_until

pytestmark = pytest.mark.stack

KEY = {"sessionId": {"S": "s1"}}


def test_use_over_the_api_reaches_the_audit_trail_the_series_and_the_key(admin: Admin) -> None:
    row = new_instance(admin)
    instance = f"instances/{row.instance}"
    admin.call("PATCH", f"{instance}/audit", data_events=True)
    client = client_of(row)
    client.create_table(TableName="sessions", **SESSIONS)

    def events(target: str) -> list[dict[str, Any]]:
        client.get_item(TableName="sessions", Key=KEY)
        found: list[dict[str, Any]] = admin.call("GET", f"audit?target={target}")["items"]
        return [event for event in found if event["action"].startswith("weftkit.keyvalue.")]

    def actions() -> set[str]:
        return {event["action"] for event in events(instance) if event["is_data_event"]}

    wait_until(lambda: "weftkit.keyvalue.statement.read" in actions(), "reads are told", 30)
    client.delete_table(TableName="sessions")
    table = f"{instance}/tables/sessions"
    read: list[dict[str, Any]] = []

    def is_told() -> bool:
        read[:] = admin.call("GET", f"audit?target={table}")["items"]
        return len(read) >= 2

    wait_until(is_told, "what was done to the table is told", 30)
    told = [
        (event["action"], event["message"], event["severity"], event["reason_code"])
        for event in read
    ]
    assert told == [
        ("weftkit.keyvalue.table.delete", "weftkit: delete table sessions", "critical", 200),
        ("weftkit.keyvalue.table.create", "weftkit: create table sessions", "normal", 200),
    ]
    assert {(e["initiator"], e["address"], e["is_data_event"]) for e in read} == {
        (f"client:{row.user}", "127.0.0.1", False)
    }

    def series() -> dict[str, int]:
        points = admin.call("GET", f"{instance}/usage/series?step=60")["items"]
        names = ("read_units", "write_units", "bytes_in", "bytes_out")
        return {name: sum(point["figures"][name] for point in points) for name in names}

    wait_until(lambda: all(series().values()), "units and bytes are in the series", 30)

    def is_marked() -> bool:
        keys = admin.call("GET", f"{instance}/credentials")["items"]
        (mine,) = [each for each in keys if each["username"] == row.user]
        return mine["last_used_at"] is not None

    wait_until(is_marked, "the key is marked as used", 90)
