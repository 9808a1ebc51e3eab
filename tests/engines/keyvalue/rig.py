"""The engine over a real PostgreSQL without sockets: a service, its ports, and tables in a schema.

async with running(dsn) as rig:
    await rig.perform("PutItem", TableName="t", Item={...})
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from ipaddress import IPv4Address
from typing import Any, cast

import asyncpg
import orjson

from dataplane.backend.pool import CellPool
from dataplane.backend.store import InstanceStore
from engines.keyvalue.session.service import Service
from engines.keyvalue.storage import ddl
from engines.kit import auth
from engines.kit.errors import RequestError
from engines.kit.http.whole import Address, HttpPorts
from engines.kit.ports import (
    Candidate,
    Grant,
    RequestClass,
    Store,
    UsageLine,
    Wait,
)
from engines.kit.records import Credential, InstanceRecord, Limits, Role, Status

ADDRESS = IPv4Address("127.0.0.1")
REGION = "us-east-1"


class CountingGate:
    """A gate of an unmetered plan: everything is admitted and counted."""

    statement_timeout_ms = 0

    def __init__(self) -> None:
        self.units: dict[RequestClass, int] = defaultdict(int)
        self.refusal: RequestError | None = None

    def admit(
        self, request_class: RequestClass, units: int = 1, grows: bool = False
    ) -> RequestError | Wait | None:
        if self.refusal is not None:
            return self.refusal
        self.units[request_class] += units
        return None

    async def wait(self, request_class: RequestClass, units: int = 1) -> None:
        raise AssertionError("an unmetered plan never waits")

    def refund(self, request_class: RequestClass, units: int = 1) -> None:
        self.units[request_class] -= units

    def charge(self, request_class: RequestClass, units: int) -> None:
        self.units[request_class] += units

    def usage(self) -> tuple[UsageLine, ...]:
        return ()


class Clock:
    """The machine's time, moved by `ahead_s`."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic()


class Told:
    """`Audit`: keeps what it is told, newest last."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, action: str, **told: Any) -> None:
        self.events.append({"action": action, **told})


class Rig:
    """`HttpPorts` of one worker, and a service over them for one instance."""

    def __init__(self, pool: CellPool, record: InstanceRecord) -> None:
        self.record = record
        self.clock = Clock()
        self.gate = CountingGate()
        self.audit = Told()
        self.directory: Any = None
        self._pool = pool
        self._locks: dict[object, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.service = Service(cast(HttpPorts, self))
        credential = record.credentials[0]
        self.grant_ = Grant(Candidate(record, credential, is_mock=False), self.gate)

    def store(self, record: InstanceRecord, within_s: float | None = None) -> Store:
        if within_s is not None:
            return InstanceStore(self._pool, within_s, is_background=True)
        return InstanceStore(self._pool)

    def grant(self, candidate: Candidate, address: Address, connection_id: str) -> Grant:
        return self.grant_

    def login_failed(self, candidate: Candidate, address: Address, reason: str) -> None:
        raise AssertionError("nobody signs in here")

    def allows_anonymous(self, engine: str) -> bool:
        return False

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        async with self._locks[key]:
            yield

    def spawn(self, record: InstanceRecord, name: str, work: Callable[[], Awaitable[None]]) -> None:
        running = self.tasks.get(name)
        if running is None or running.done():
            self.tasks[name] = asyncio.ensure_future(work())

    async def perform(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Perform an operation and return the answer, decoded."""
        body = await self.service.perform(
            self.grant_, operation, REGION, orjson.dumps(fields), address=ADDRESS
        )
        answer: dict[str, Any] = orjson.loads(body) if body else {}
        return answer


def new_record(role: Role = Role.ADMIN) -> InstanceRecord:
    """Return the record of a new instance with one credential."""
    username = auth.username_of(auth.new_key_id())
    secret = auth.make_secret("secret", 1, b"p" * 32, auth.new_salt())
    credential = Credential(username[3:], username, role, (secret,))
    return InstanceRecord(
        instance_id=str(uuid.uuid4()),
        handle="alice-kv",
        tenant_id=str(uuid.uuid4()),
        tenant="alice",
        engine="keyvalue",
        status=Status.ACTIVE,
        plan="free",
        limits=Limits(),
        credentials=(credential,),
        version=1,
        cell="local",
    )


@contextlib.asynccontextmanager
async def running(dsn: str, workers: int = 1) -> AsyncIterator[list[Rig]]:
    """Make an instance in the database `dsn`, served by so many workers; it goes at the end."""
    record = new_record()
    connection = await asyncpg.connect(dsn)
    await connection.execute(f'CREATE SCHEMA "{record.schema}"')
    for text in ddl(record.schema):
        await connection.execute(text)
    pools = [CellPool(dsn, size=4, wait_s=10.0) for _ in range(workers)]
    rigs = [Rig(pool, record) for pool in pools]
    try:
        yield rigs
    finally:
        for rig in rigs:
            for task in rig.tasks.values():
                task.cancel()
            await asyncio.gather(*rig.tasks.values(), return_exceptions=True)
        for pool in pools:
            await pool.close()
        await connection.execute(f'DROP SCHEMA "{record.schema}" CASCADE')
        await connection.close()
