"""From a payment or an upgrade to the clients of a real data plane: within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from engines.kit.records import InstanceRecord, Role
from tenants.billing.arrears import overdue_follow
from tenants.billing.invoices import payment_record
from tenants.billing.quotas import quotas_follow
from tenants.instances.credentials import credential_create
from tenants.instances.models import Instance
from tenants.instances.services import instance_change
from tests.dataplane.plane import Client, Plane
from tests.servers import PostgresServer, RedisServer, temporary_home
from tests.tenants.cast import Cast
from tests.tenants.months import OCTOBER, instance_since, owing
from tests.tenants.own_plane import DjangoDatabase

SECONDS_MAX = 1.0
GROWS, READS, DELETES = "g x", "r x", "w x"
REFUSED = "ERR quota"


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def credential_of(instance: Instance) -> tuple[str, str]:
    """Make the instance one of the tests' line engine; return a user and its password."""
    Instance.objects.filter(pk=instance.pk).update(engine="line")
    instance.refresh_from_db()
    made = credential_create(instance=instance, actor="test", role=Role.WRITE)
    return made.credential.username, made.password


async def changed(call: Callable[[], object]) -> float:
    """Have the control plane do something; return when it was durable."""

    def run() -> float:
        try:
            call()
            return time.monotonic()
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


async def seconds_until(client: Client, wanted: str, since: float) -> float:
    """Ask for growth until the answer begins so; return how long after `since` it did."""
    while not (await client.ask(GROWS)).startswith(wanted):
        assert time.monotonic() - since < 5 * SECONDS_MAX, f"never {wanted!r}"
    return max(time.monotonic() - since, 0.0)


async def in_the_plane(
    postgres: PostgresServer,
    redis: RedisServer,
    instance: Instance,
    user: tuple[str, str],
    refuse: list[Callable[[], object]],
    lift: Callable[[], object],
) -> tuple[float, float]:
    """Return how long the refusal and its end took to reach a connected client."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(temporary_home("wkg"))
        database = DjangoDatabase(postgres)
        plane = Plane(home, database, redis)
        stack.callback(plane.close)
        stack.push_async_callback(plane.close_parts)
        plane.start()
        rows = database.rows("SELECT body FROM publish.record")
        record = next(body for (body,) in rows if body["instance_id"] == str(instance.pk))
        await plane.serve(InstanceRecord.from_json(record))
        client = await plane.connect()
        assert (await client.ask(f"LOGIN {user[0]} {user[1]}")).startswith("OK ")
        assert await client.ask(GROWS) == GROWS
        durable = 0.0
        for step in refuse:
            durable = await changed(step)
        refused = await seconds_until(client, REFUSED, durable)
        for goes_on in (READS, DELETES):
            assert await client.ask(goes_on) == goes_on
        durable = await changed(lift)
        lifted = await seconds_until(client, GROWS, durable)
    return refused, lifted


def test_a_payment_lets_the_data_grow_again_within_a_second(
    lasting_cast: Cast, postgres: PostgresServer, redis: RedisServer
) -> None:
    invoice = owing(lasting_cast)
    instance = Instance.objects.get(tenant=lasting_cast.acme)
    user = credential_of(instance)
    assert invoice.due_at is not None
    due = invoice.due_at

    def pay() -> object:
        return payment_record(
            invoice=invoice, amount_micros=2_000_000, reference="bank-1", actor="operator:o"
        )

    refuse = [
        lambda: overdue_follow(now=due),
        lambda: overdue_follow(now=due + timedelta(days=8)),
    ]
    times = asyncio.run(in_the_plane(postgres, redis, instance, user, refuse, pay))
    print("arrears: refused after {:.3f} s, lifted after {:.3f} s".format(*times))
    assert max(times) < SECONDS_MAX


def test_a_larger_plan_lets_the_data_grow_again_within_a_second(
    lasting_cast: Cast, postgres: PostgresServer, redis: RedisServer
) -> None:
    instance = instance_since(lasting_cast.acme, OCTOBER, "standard", 100)
    user = credential_of(instance)
    over = instance.plan.storage_bytes or 0

    def hold() -> None:
        DjangoDatabase(postgres).rows(
            "UPDATE publish.observed SET storage_bytes = %s WHERE instance_id = %s"
            " RETURNING pg_notify('weftkit_observed', instance_id::text)",
            over + 1,
            instance.pk,
        )
        quotas_follow(now=instance.created_at)

    def end_of_grace() -> None:
        quotas_follow(now=instance.created_at + timedelta(hours=72))

    times = asyncio.run(
        in_the_plane(
            postgres,
            redis,
            instance,
            user,
            [hold, end_of_grace],
            lambda: instance_change(instance=instance, plan="dedicated"),
        )
    )
    print("quota: refused after {:.3f} s, lifted after {:.3f} s".format(*times))
    assert max(times) < SECONDS_MAX
