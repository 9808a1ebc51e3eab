"""Reads: the API keys of a tenant."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from tenants.accounts.models import Tenant
from tenants.core.errors import NotFoundError
from tenants.iam.models import ApiKey


def api_key_list(*, tenant: Tenant) -> QuerySet[ApiKey]:
    """Return the keys of `tenant`, revoked ones included."""
    return ApiKey.objects.filter(tenant=tenant)


def api_key_get(*, tenant: Tenant, key_id: UUID) -> ApiKey:
    """Return one key of `tenant`."""
    found = api_key_list(tenant=tenant).filter(pk=key_id).first()
    if found is None:
        raise NotFoundError("there is no such API key")
    return found
