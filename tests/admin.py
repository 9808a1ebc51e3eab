"""The REST admin API as a script uses it: from nothing to a connection, and the changes after."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from typing import Any

import httpx

from tests.servers import wait_until
from tests.stack import Connection, Stack

OPERATION_SECONDS_MAX = 60.0


class Admin:
    """The owner of one tenant, signed in with an API key."""

    def __init__(self, stack: Stack, tenant: str = "demo") -> None:
        self._client = stack.api()
        self._root = f"tenants/{tenant}"
        self._tenant = tenant
        self._names = (f"test-{number}" for number in itertools.count(1))

    def close(self) -> None:
        """Close the connection to the API."""
        self._client.close()

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Make one request below the tenant; fail on anything but success."""
        answer = self._client.request(method, f"{self._root}/{path}", json=body or None)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}

    def start_instance(self, engine: str, *, plan: str) -> dict[str, Any]:
        """Ask for an instance; return the operation that makes it."""
        return self.call("POST", "instances", name=next(self._names), engine=engine, plan=plan)

    def finish(
        self, operation: dict[str, Any], seconds: float = OPERATION_SECONDS_MAX
    ) -> dict[str, Any]:
        """Wait until the operation has succeeded."""
        now = operation

        def is_over() -> bool:
            nonlocal now
            try:
                now = self.call("GET", f"operations/{operation['id']}")
            except (httpx.TransportError, AssertionError):
                return False
            return now["state"] in {"succeeded", "failed", "cancelled"}

        wait_until(is_over, f"the operation {operation['kind']} is over", seconds)
        assert now["state"] == "succeeded", now
        return now

    def new_instance(self, engine: str, *, plan: str) -> Connection:
        """Make an instance and a credential with the role admin."""
        made = self.finish(self.start_instance(engine, plan=plan))
        reach = self.call("GET", f"instances/{made['instance']}/connection")
        row = Connection(
            self._tenant, engine, made["instance"], "", reach["host"], reach["port"], "", ""
        )
        return self.new_credential(row)

    def new_credential(
        self,
        row: Connection,
        *,
        role: str = "admin",
        expires_at: datetime.datetime | None = None,
        cidrs: list[str] | None = None,
    ) -> Connection:
        """Make another credential for the instance of `row`."""
        made = self.call(
            "POST",
            f"instances/{row.instance}/credentials",
            role=role,
            expires_at=expires_at.isoformat() if expires_at else None,
            cidrs=cidrs or [],
        )
        return replace(row, uri=made["uri"], user=made["username"], password=made["password"])

    def _credential(self, row: Connection) -> str:
        listed = self.call("GET", f"instances/{row.instance}/credentials")
        for item in listed["items"]:
            if item["username"] == row.user:
                return f"instances/{row.instance}/credentials/{item['id']}"
        raise AssertionError(f"no credential {row.user}")

    def rotate(self, row: Connection) -> Connection:
        """Issue a second secret."""
        made = self.call("POST", f"{self._credential(row)}/rotate")
        return replace(row, uri=made["uri"], password=made["password"])

    def revoke(self, row: Connection) -> None:
        """Revoke the credential of `row`."""
        self.call("DELETE", self._credential(row))

    def change(self, instance: str, **changes: Any) -> None:
        """Change plan, blocks, allowlist or protection."""
        self.call("PATCH", f"instances/{instance}", **changes)

    def suspend(self, instance: str) -> None:
        """Suspend an instance and wait until it is."""
        self.finish(self.call("POST", f"instances/{instance}/suspend"))

    def resume(self, instance: str) -> None:
        """Resume an instance and wait until it serves again."""
        self.finish(self.call("POST", f"instances/{instance}/resume"))

    def units(self, instance: str) -> dict[str, int]:
        """Return the metered units of an instance by request class."""
        usage = self.call("GET", f"instances/{instance}/usage")
        names = ("read", "write", "query")
        return {name: sum(hour[f"{name}_units"] for hour in usage["items"]) for name in names}
