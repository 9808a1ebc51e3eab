"""Writes: the record of an instance, in the transaction of the change that it publishes.

Versions come from one sequence. They rise in the order of commit, also between instances: who
publishes holds an advisory lock until its transaction ends. Lock order: instance row, then this.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction

from engines.kit import exchange, records
from engines.kit.iam import Target, rights_of
from tenants.audit.selectors import data_events_wanted
from tenants.backups.selectors import archive_flags
from tenants.billing.growth import growth_refusal
from tenants.iam.selectors import credential_grants, credential_role
from tenants.instances.models import Credential, CredentialSecret, Instance, InstanceStatus
from tenants.instances.status import PUBLISHED
from tenants.usage.limits import limits_of

VERSION_SEQUENCE = "publish.record_version"
# Any constant will do; this one is "weft" in ASCII.
PUBLISH_LOCK = 0x77656674

UPSERT = """
INSERT INTO publish.record (instance_id, version, body) VALUES (%s, %s, %s)
ON CONFLICT (instance_id) DO UPDATE
SET version = EXCLUDED.version, body = EXCLUDED.body, published_at = now()
"""

TAKE_KEY_SEEN = """
WITH batch AS MATERIALIZED (
    SELECT key_id FROM publish.key_seen ORDER BY key_id LIMIT 5000 FOR UPDATE SKIP LOCKED
), seen AS (
    DELETE FROM publish.key_seen USING batch WHERE key_seen.key_id = batch.key_id
    RETURNING key_seen.key_id, key_seen.last_used_at
)
UPDATE instances_credential AS credential SET last_used_at = seen.last_used_at FROM seen
WHERE seen.key_id = credential.key_id
    AND (credential.last_used_at IS NULL OR credential.last_used_at < seen.last_used_at)
"""


def record_publish(*, instance: Instance) -> int:
    """Publish the instance as it now is, and return the record's version.

    Must run inside the transaction that changed it. The row lock orders publications of one
    instance, so that a later version never holds older facts.
    """
    assert connection.in_atomic_block
    locked = (
        Instance.objects.select_for_update(of=("self",))
        .select_related("tenant", "plan")
        .get(pk=instance.pk)
    )
    assert locked.status != InstanceStatus.PURGED, "a purged instance has no record"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PUBLISH_LOCK])
        cursor.execute("SELECT nextval(%s)", [VERSION_SEQUENCE])
        version = int(cursor.fetchone()[0])
        body = json.dumps(_record(locked, version).to_json())
        cursor.execute(UPSERT, [locked.pk, version, body])
        cursor.execute("SELECT pg_notify(%s, %s)", [exchange.RECORD_CHANNEL, str(locked.pk)])
    return version


def record_refresh() -> int:
    """Publish every instance whose record is not what it would be now; return how many.

    weftkit.toml has its say in limits, and a new version of WeftKit in what a record holds.
    """
    living = Instance.objects.exclude(status=InstanceStatus.PURGED).values_list("pk", flat=True)
    return sum(_refresh_one(instance_id) for instance_id in living)


@transaction.atomic
def _refresh_one(instance_id: UUID) -> bool:
    instance = (
        Instance.objects.select_for_update(of=("self",))
        .select_related("tenant", "plan")
        .get(pk=instance_id)
    )
    if instance.status == InstanceStatus.PURGED:
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT body::text FROM publish.record WHERE instance_id = %s", [instance_id]
        )
        row = cursor.fetchone()
    published = json.loads(row[0]) if row else {}
    wanted = json.loads(json.dumps(_record(instance, published.get("version", 0)).to_json()))
    if published == wanted:
        return False
    record_publish(instance=instance)
    return True


def record_remove(*, instance: Instance) -> None:
    """Take the instance out of the data plane's sight, with what its host said of it."""
    assert connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PUBLISH_LOCK])
        cursor.execute("DELETE FROM publish.record WHERE instance_id = %s", [instance.pk])
        cursor.execute("DELETE FROM publish.observed WHERE instance_id = %s", [instance.pk])
        cursor.execute("DELETE FROM publish.task WHERE instance_id = %s", [instance.pk])
        cursor.execute("SELECT pg_notify(%s, %s)", [exchange.RECORD_CHANNEL, str(instance.pk)])


def key_seen_take() -> int:
    """Move "last used" from the data planes' reports to the credentials; return how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TAKE_KEY_SEEN)
        return int(cursor.rowcount)


def _limits(instance: Instance) -> records.Limits:
    limits = limits_of(plan=instance.plan, blocks=instance.blocks, engine=instance.engine)
    wal_archive, wal_summaries = archive_flags(instance=instance)
    return replace(limits, wal_archive=wal_archive, wal_summaries=wal_summaries)


def _record(instance: Instance, version: int) -> records.InstanceRecord:
    credentials = (
        instance.credentials.filter(revoked_at=None)
        .select_related("ownership__service")
        .prefetch_related("secrets", "ownership__service__policies")
    )
    target = Target(str(instance.tenant.pk), instance.engine, instance.handle)
    return records.InstanceRecord(
        instance_id=str(instance.pk),
        handle=instance.handle,
        tenant_id=str(instance.tenant.pk),
        tenant=instance.tenant.handle,
        engine=instance.engine,
        status=PUBLISHED[InstanceStatus(instance.status)],
        plan=instance.plan.name,
        limits=_limits(instance),
        credentials=tuple(
            _credential_now(credential, target) for credential in credentials.order_by("id")
        ),
        version=version,
        auth_method=instance.auth_method,
        is_default=instance.is_default,
        allowlist=tuple(instance.allowlist),
        host=instance.host,
        cell=instance.cell,
        desired=records.Desired(instance.desired),
        generation=instance.generation,
        sleep_generation=instance.sleep_generation,
        growth_refused=growth_refusal(instance=instance),
        audit_data_events=data_events_wanted(instance_id=instance.pk),
    )


def _credential_now(credential: Credential, target: Target) -> records.Credential:
    """Return a credential with what it may do now; without anything it may not sign in.

    Where an engine has parts, what its owner holds is decided in the data plane, call by call;
    elsewhere it is one role in the whole instance.
    """
    record = credential_record(credential)
    grants = credential_grants(credential=credential, target=target)
    if grants is not None:
        granted = replace(record, grants=grants)
        is_usable = not rights_of(granted, target.engine).is_none
        return replace(granted, enabled=record.enabled and is_usable)
    role = credential_role(credential=credential, target=target)
    if role is None:
        return replace(record, role=records.Role.READ, enabled=False)
    return replace(record, role=role)


def credential_record(credential: Credential) -> records.Credential:
    """Return a credential in the data plane's form, with the role that it was made for."""
    return records.Credential(
        key_id=credential.key_id,
        username=credential.username,
        role=records.Role(credential.role),
        secrets=tuple(_secret_record(secret) for secret in _newest_first(credential)),
        enabled=credential.is_enabled,
        expires_at=_seconds(credential.expires_at),
        cidrs=tuple(credential.cidrs),
    )


def _newest_first(credential: Credential) -> list[CredentialSecret]:
    return sorted(credential.secrets.all(), key=lambda secret: secret.issued_at, reverse=True)


def _secret_record(secret: CredentialSecret) -> records.Secret:
    return records.Secret(
        pepper_id=secret.pepper_id,
        digest=secret.digest,
        scram=records.Scram(
            salt=secret.scram_salt,
            iterations=secret.scram_iterations,
            stored_key=secret.scram_stored_key,
            server_key=secret.scram_server_key,
        ),
        expires_at=_seconds(secret.expires_at),
        access_version=secret.access_version,
    )


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
