"""Writes: a tenant's webhooks hear a week before that an API key expires, once for each date."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from tenants.iam.models import ApiKey
from tenants.webhooks.models import WebhookEndpoint, WebhookEvent
from tenants.webhooks.services import webhook_emit

AHEAD = timedelta(days=7)
EVENT = "api_key.expiring"
LOCK = 0x6B657973
KEYS_MAX = 1000


@transaction.atomic
def keys_expiring_tell(*, now: datetime | None = None) -> int:
    """Tell of keys that expire within a week and were not told of; return how many."""
    with connection.cursor() as cursor:
        # Beside itself it would tell twice.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    now = now or timezone.now()
    listening = WebhookEndpoint.objects.filter(is_enabled=True).values("tenant_id")
    keys = ApiKey.objects.filter(
        tenant__in=listening,
        revoked_at=None,
        is_enabled=True,
        expires_at__gt=now,
        expires_at__lte=now + AHEAD,
    )
    told = 0
    for key in keys.order_by("expires_at", "id")[:KEYS_MAX]:
        assert key.expires_at is not None
        which = {"key_id": key.key_id, "expires_at": key.expires_at.isoformat()}
        known = WebhookEvent.objects.filter(tenant=key.tenant_id, type=EVENT, data__contains=which)
        if known.exists():
            continue
        data = {**which, "name": key.name}
        told += webhook_emit(tenant=key.tenant_id, event_type=EVENT, data=data) is not None
    return told
