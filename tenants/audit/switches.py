"""Writes: whether an instance's data events are kept; the data plane follows within a second."""

from __future__ import annotations

from django.db import transaction

from tenants.audit.models import InstanceAudit
from tenants.core.errors import ConflictError
from tenants.instances.models import Instance
from tenants.publish.services import record_publish


@transaction.atomic
def data_events_set(*, instance: Instance, data_events: bool) -> InstanceAudit:
    """Switch an instance's data events on or off."""
    locked = Instance.objects.select_for_update(of=("self",)).get(pk=instance.pk)
    if locked.quarantined_at is not None:
        raise ConflictError(f"the instance is {locked.status}", code="instance_status")
    wanted, _ = InstanceAudit.objects.update_or_create(
        instance_id=locked.pk, defaults={"data_events": data_events}
    )
    record_publish(instance=locked)
    return wanted
