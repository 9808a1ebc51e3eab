"""Reads: what the dashboard shows a user, tenant by tenant."""

from __future__ import annotations

from dataclasses import dataclass

from engines import registry
from tenants.accounts.models import MemberRole, Tenant, User
from tenants.accounts.permissions import role_allows
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
    is_hibernated: bool


@dataclass(frozen=True, slots=True)
class TenantSection:
    """One tenant of the page."""

    tenant: Tenant
    role: MemberRole
    rows: list[InstanceRow]
    operations: list[Operation]


def dashboard_tenants(user: User) -> list[TenantSection]:
    """Return the user's tenants with the instances that its role may see."""
    memberships = user.memberships.select_related("tenant").order_by("tenant__handle")
    return [_section(m.tenant, MemberRole(m.role)) for m in memberships]


def _section(tenant: Tenant, role: MemberRole) -> TenantSection:
    may_connect = role_allows(role, "credentials.read")
    rows = [
        InstanceRow(
            instance=instance,
            engine_title=registry.load(instance.engine).title,
            connection=connection_of(instance=instance) if may_connect else None,
            is_hibernated=(
                instance.status == InstanceStatus.ACTIVE and instance.server_state == "hibernated"
            ),
        )
        for instance in instance_list(tenant=tenant).order_by("handle")
        if role_allows(role, "instances.read")
    ]
    may_follow = role_allows(role, "operations.read")
    newest = operation_list(tenant=tenant).order_by("-id")[:OPERATIONS_SHOWN] if may_follow else []
    return TenantSection(tenant, role, rows, list(newest))
