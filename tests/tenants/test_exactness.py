"""From clients to the invoice: 100,000 units over two real workers, with everything being killed.

The workers are killed the moment the last answer is there, with their counts handed in or not;
hand-ins and roll-ups lose their database connections in the middle and are tried again; what was
handed in is handed in once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import psycopg
from django.db import DatabaseError, connection, connections

from engines.kit import exchange
from engines.kit.records import InstanceRecord
from tenants.accounts.models import Tenant
from tenants.billing.invoices import month_close
from tenants.billing.models import Invoice
from tenants.billing.months import month_after, month_start
from tenants.instances.models import Instance
from tenants.usage.services import usage_roll_up
from tests.dataplane.plane import Client, ControlDatabase, Plane, instance, key, until
from tests.servers import PostgresServer, RedisServer, temporary_home
from tests.tenants.cast import Cast, serving_instance
from tests.tenants.months import LATE_ENOUGH
from tests.tenants.own_plane import DjangoDatabase

UNITS = 100_000
ROUNDS = 5
CLIENTS = 4
AT_ONCE = 250

# Whoever hands usage in or rolls it up is cut off.
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (usename = %s OR application_name = 'roll-up')
"""
# What was handed in is handed in again, as by a data plane that never heard that it arrived.
SEEN = "SELECT to_jsonb(intake) FROM publish.usage_intake AS intake LIMIT 20"
AGAIN = """
INSERT INTO publish.usage_intake
SELECT * FROM jsonb_populate_recordset(NULL::publish.usage_intake, %s::jsonb)
ON CONFLICT DO NOTHING RETURNING idempotency_key
"""
WAITING = "SELECT FROM publish.usage_intake LIMIT 1"


class RollUps:
    """Rolls up without a pause in a thread of its own, whatever happens to its connection."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures = 0

    def __enter__(self) -> RollUps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET application_name = 'roll-up'")
                usage_roll_up(rows=3)
            except (DatabaseError, psycopg.Error):
                self.failures += 1
                connection.close()
        connections.close_all()


async def ask(client: Client, count: int) -> int:
    """Have so many requests answered, many at once; return how many were."""
    answered = 0
    while answered < count:
        batch = min(AT_ONCE, count - answered)
        client.send(*["r x"] * batch)
        for _ in range(batch):
            assert await client.line() == "r x"
        answered += batch
    return answered


async def trouble(database: ControlDatabase, done: asyncio.Event) -> tuple[int, int]:
    """Cut connections and repeat hand-ins until `done`; return how many of each."""
    cut = repeated = 0
    seen: dict[str, Any] = {}
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.15)
        new = await asyncio.to_thread(database.rows, SEEN)
        again = json.dumps(list(seen.values()))
        repeated += len(await asyncio.to_thread(database.rows, AGAIN, again))
        seen |= {row["idempotency_key"]: row for (row,) in new}
        cut += len(await asyncio.to_thread(database.rows, CUT, exchange.DATAPLANE_ROLE))
    return cut, repeated


async def play(
    plane: Plane, record: InstanceRecord, username: str, password: str
) -> tuple[int, int]:
    """Ask for all units in rounds, each of which ends with the workers' death."""
    server = await plane.serve(record)
    done = asyncio.Event()
    troubling = asyncio.create_task(trouble(plane.database, done))
    for _ in range(ROUNDS):
        clients = [await plane.connect() for _ in range(CLIENTS)]
        for client in clients:
            answer = await client.ask(f"LOGIN {username} {password}")
            assert answer.startswith("OK "), answer
        share = UNITS // ROUNDS // CLIENTS
        await asyncio.gather(*(ask(client, share) for client in clients))
        await plane.kill_workers()
    done.set()
    troubles = await troubling
    assert len(server.lines) == UNITS
    return troubles


async def measured(postgres: PostgresServer, redis: RedisServer, row: Instance) -> tuple[int, int]:
    """Run the data plane; return how many connections were cut, and hand-ins repeated."""
    credential, password = key()
    database = DjangoDatabase(postgres)
    record = dataclasses.replace(
        instance(credential), instance_id=str(row.pk), handle=row.handle, tenant="acme"
    )
    async with AsyncExitStack() as stack:
        home = stack.enter_context(temporary_home("wkx"))
        plane = Plane(home, database, redis, workers=2)
        stack.callback(plane.close)
        stack.push_async_callback(plane.close_parts)
        database.publish(record)
        plane.start()
        troubles = await play(plane, record, credential.username, password)
        assert await asyncio.to_thread(plane.stop) == 0
        await until(lambda: not database.rows(WAITING), "all is rolled up", 30)
    return troubles


def invoice_of(tenant: Tenant) -> Invoice:
    start = month_start(datetime.now(UTC))
    while month_close(tenant=tenant, now=month_after(start) + LATE_ENOUGH):
        pass
    return Invoice.objects.get(tenant=tenant, period_start=start)


def test_a_hundred_thousand_units_are_a_hundred_thousand_on_the_invoice(
    lasting_cast: Cast, postgres: PostgresServer, redis: RedisServer, settings: Any
) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    row = serving_instance(lasting_cast.acme, plan="unmetered")
    with RollUps() as roll_ups:
        cut, repeated = asyncio.run(measured(postgres, redis, row))
    assert cut > 10
    assert repeated > 10
    invoice = invoice_of(lasting_cast.acme)
    (line,) = invoice.lines.filter(meter="read_units")
    assert int(line.quantity) == int(line.billable_quantity) == UNITS
    assert line.amount_micros == UNITS * 250_000 // 10**6
    print(f"cut {cut} connections, repeated {repeated} hand-ins")
    print(f"{roll_ups.failures} roll-ups failed in the middle")
