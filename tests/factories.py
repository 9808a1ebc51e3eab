"""Rows in bulk, as factory-boy makes them: many tenants with members, instances, operations.

Nothing is run for them, so they say nothing of behaviour: they are there to be listed and found.
"""

from __future__ import annotations

from typing import Any

import factory
from django.db import connection
from django.utils import timezone

from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.instances.models import Instance
from tenants.operations.models import Operation
from tenants.usage.models import Plan

CHUNK = 2_000


class TenantFactory(factory.django.DjangoModelFactory[Tenant]):
    class Meta:
        model = Tenant

    handle = factory.Sequence(lambda number: f"scale{number}")
    name = factory.LazyAttribute(lambda tenant: tenant.handle.title())


class InstanceFactory(factory.django.DjangoModelFactory[Instance]):
    class Meta:
        model = Instance

    handle = factory.LazyAttributeSequence(lambda row, number: f"{row.tenant.handle}-i{number}")
    engine = factory.Iterator(["relational", "inmemory"])
    region = "local"
    host = "local"
    status = "active"
    created_by = "system"


class OperationFactory(factory.django.DjangoModelFactory[Operation]):
    class Meta:
        model = Operation

    tenant = factory.SelfAttribute("instance.tenant")
    kind = "provision"
    state = "succeeded"
    progress_done = 3
    progress_total = 3
    deadline_at = factory.LazyFunction(timezone.now)
    finished_at = factory.LazyFunction(timezone.now)
    actor = "system"


def population(tenants: int, instances: int, owner: User) -> list[Tenant]:
    """Make `tenants` tenants that share `instances` instances evenly, each with its operation.

    `owner` owns the first one.
    """
    made = Tenant.objects.bulk_create(TenantFactory.build_batch(tenants), batch_size=CHUNK)
    Membership.objects.create(tenant=made[0], user=owner, role=MemberRole.OWNER)
    plan = Plan.objects.get(name="standard")
    rows = [
        InstanceFactory.build(tenant=made[number % tenants], plan=plan)
        for number in range(instances)
    ]
    Instance.objects.bulk_create(rows, batch_size=CHUNK)
    done: list[Any] = [OperationFactory.build(instance=row, tenant=row.tenant) for row in rows]
    Operation.objects.bulk_create(done, batch_size=CHUNK)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return made
