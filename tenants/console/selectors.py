"""Reads: what the dashboard's own pages show of a tenant."""

from __future__ import annotations

from dataclasses import dataclass

from engines import registry
from tenants.accounts.actors import Actor
from tenants.instances.models import Instance, InstanceStatus
from tenants.instances.selectors import Connection, connection_of, instance_list
from tenants.operations.models import Operation
from tenants.operations.selectors import operation_list

OPERATIONS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance of the page; the password is a placeholder, nobody keeps it."""

    instance: Instance
    engine_title: str
    connection: Connection | None
    state: str


def state_of(instance: Instance) -> str:
    """Return what a badge says: its status, or what its server does while it is active."""
    sleeps = instance.status == InstanceStatus.ACTIVE and instance.server_state == "hibernated"
    return "hibernated" if sleeps else instance.status


def instance_rows(actor: Actor) -> list[InstanceRow]:
    """Return the instances that the actor may see, by their names."""
    if not actor.may("instances.read"):
        return []
    may_connect = actor.may("credentials.read")
    return [
        InstanceRow(
            instance=instance,
            engine_title=registry.load(instance.engine).title,
            connection=connection_of(instance=instance) if may_connect else None,
            state=state_of(instance),
        )
        for instance in instance_list(tenant=actor.tenant).order_by("handle")
    ]


def operation_rows(actor: Actor) -> list[Operation]:
    """Return the newest operations, if the actor may follow them."""
    if not actor.may("operations.read"):
        return []
    return list(operation_list(tenant=actor.tenant).order_by("-id")[:OPERATIONS_SHOWN])
