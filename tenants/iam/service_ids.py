"""Writes: service ids, and that their instances hear at once when what they may do changes.

Lock order: service id, then instances by id, then the lock of publishing. Who makes a credential of
a service id takes the same locks in the same order, so no record keeps what is no longer so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import Tenant
from tenants.core.errors import ConflictError, LimitError
from tenants.iam.models import AccessPolicy, ApiKey, ApiKeySecret, ServiceId
from tenants.instances.models import Credential, CredentialSecret, Instance, InstanceStatus
from tenants.publish.services import record_publish

SERVICE_IDS_MAX = 200


@transaction.atomic
def service_id_create(*, actor: Actor, name: str, description: str = "") -> ServiceId:
    """Make a service id, which may do nothing until it has policies."""
    Tenant.objects.select_for_update(no_key=True).get(pk=actor.tenant.pk)
    live = ServiceId.objects.filter(tenant=actor.tenant, deleted_at=None)
    if live.count() >= SERVICE_IDS_MAX:
        raise LimitError(f"a tenant has at most {SERVICE_IDS_MAX} service ids")
    return ServiceId.objects.create(
        tenant=actor.tenant, name=name, description=description, created_by=actor.name
    )


@transaction.atomic
def service_id_change(*, service: ServiceId, changes: Mapping[str, Any]) -> ServiceId:
    """Change `name`, `description` or `is_enabled`; a disabled one can do nothing, at once."""
    service = service_id_locked(service.pk)
    was_enabled = service.is_enabled
    for name, value in changes.items():
        setattr(service, name, value)
    service.save(update_fields=[*changes, "updated_at"])
    if service.is_enabled != was_enabled:
        instances_republish(service_id=service.pk)
    return service


@transaction.atomic
def service_id_delete(*, service: ServiceId) -> None:
    """End a service id with its keys, policies and credentials, at once and for good."""
    service = service_id_locked(service.pk)
    now = timezone.now()
    service.deleted_at = now
    service.is_enabled = False
    service.save(update_fields=["deleted_at", "is_enabled", "updated_at"])
    AccessPolicy.objects.filter(service=service).delete()
    keys = ApiKey.objects.filter(service=service)
    keys.filter(revoked_at=None).update(revoked_at=now, is_enabled=False)
    ApiKeySecret.objects.filter(api_key__in=keys).delete()
    instances = _instances_locked(service.pk)
    credentials = Credential.objects.filter(ownership__service=service)
    credentials.filter(revoked_at=None).update(revoked_at=now, is_enabled=False)
    CredentialSecret.objects.filter(credential__in=credentials).delete()
    _publish(instances)


def service_id_locked(service_id: UUID) -> ServiceId:
    """Lock a service id, before its instances; refuse one that was deleted meanwhile."""
    service = ServiceId.objects.select_for_update(no_key=True).get(pk=service_id)
    if service.deleted_at is not None:
        raise ConflictError("the service id is deleted", code="service_id_deleted")
    return service


def instances_republish(*, service_id: UUID) -> None:
    """Publish all instances in which a service id has credentials; its row is locked already."""
    assert connection.in_atomic_block
    _publish(_instances_locked(service_id))


def _instances_locked(service_id: UUID) -> list[Instance]:
    """Lock the instances in the order of their ids: all of them before the lock of publishing."""
    owned = Credential.objects.filter(ownership__service=service_id, revoked_at=None)
    return list(
        Instance.objects.select_for_update()
        .filter(pk__in=owned.values("instance"))
        .exclude(status=InstanceStatus.PURGED)
        .order_by("pk")
    )


def _publish(instances: list[Instance]) -> None:
    for instance in instances:
        record_publish(instance=instance)
