"""Writes: credentials and their secrets. A secret's text is in the result, once, and nowhere else.

All lock the instance's row first (through `_locked`), then publish: a revoked key stops working
within a second, without any operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from engines import registry
from engines.kit import auth
from engines.kit.auth.sigv4 import access_secret
from engines.kit.records import Role
from tenants.core.errors import ConflictError, LimitError, invalid_field
from tenants.iam.addresses import cidrs_clean
from tenants.iam.models import CredentialOwner, ServiceId
from tenants.iam.service_ids import service_id_locked
from tenants.instances.models import (
    SECRETS_MAX,
    Credential,
    CredentialSecret,
    Instance,
    InstanceStatus,
)
from tenants.operations.models import Operation
from tenants.operations.services import operation_start
from tenants.publish.services import credential_record, record_publish

GRACE_MAX = timedelta(days=30)
CREDENTIALS_MAX = 200


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A credential, its password this one time, and the operation that retires the old one."""

    credential: Credential
    password: str
    operation: Operation | None = None


@transaction.atomic
def credential_create(
    *,
    instance: Instance,
    actor: str,
    role: Role,
    label: str = "",
    expires_at: datetime | None = None,
    cidrs: Sequence[str] = (),
    scram_iterations: int = auth.SCRAM_ITERATIONS,
    service: ServiceId | None = None,
) -> NewSecret:
    """Make a credential `wk_<key id>` with one secret.

    One of a service id has what its policies give in the instance, at most `role`.
    """
    if service is not None:
        # Before the instance, as whoever changes its policies does.
        service = service_id_locked(service.pk)
        assert service.tenant_id == instance.tenant_id
    instance = _locked(instance)
    if expires_at is not None and expires_at <= timezone.now():
        raise invalid_field("expires_at", "this time is past")
    if not 1 <= scram_iterations <= auth.SCRAM_ITERATIONS_MAX:
        raise invalid_field("scram_iterations", f"1 to {auth.SCRAM_ITERATIONS_MAX}")
    if instance.quarantined_at is not None:
        raise ConflictError(f"the instance is {instance.status}", code="instance_status")
    if instance.credentials.filter(revoked_at=None).count() >= CREDENTIALS_MAX:
        raise LimitError(f"an instance has at most {CREDENTIALS_MAX} credentials")
    key_id = auth.new_key_id()
    credential = Credential.objects.create(
        instance=instance,
        key_id=key_id,
        username=auth.username_of(key_id),
        label=label,
        role=role.value,
        expires_at=expires_at,
        cidrs=cidrs_clean(cidrs, field="cidrs"),
        created_by=actor,
    )
    if service is not None:
        CredentialOwner.objects.create(credential=credential, service=service)
    password = secret_issue(credential=credential, scram_iterations=scram_iterations).password
    record_publish(instance=instance)
    return NewSecret(credential, password)


@transaction.atomic
def credential_rotate(
    *, credential: Credential, actor: str, grace: timedelta | None = None, idempotency_key: str = ""
) -> NewSecret:
    """Issue a new secret now; the old one lives on for `grace`. An older one ends at once."""
    grace = settings.SECRET_GRACE if grace is None else grace
    if not timedelta(0) <= grace <= GRACE_MAX:
        raise invalid_field("grace_s", f"0 to {int(GRACE_MAX.total_seconds())}")
    instance = _locked(credential.instance)
    credential = _live(instance, credential)
    if credential.is_configured:
        raise ConflictError("weftkit.toml holds this password", code="credential_configured")
    now = timezone.now()
    old = credential.secrets.order_by("-issued_at").first()
    assert old is not None, "a credential that is not configured has a secret"
    credential.secrets.exclude(pk=old.pk).delete()
    old.expires_at = now + grace
    old.save(update_fields=["expires_at", "updated_at"])
    issued = secret_issue(credential=credential)
    password, new = issued.password, issued.secret
    record_publish(instance=instance)
    operation = operation_start(
        kind="rotate",
        instance=instance,
        actor=actor,
        params={
            "credential_id": str(credential.pk),
            "old_secret_id": str(old.pk),
            "new_secret_id": str(new.pk),
        },
        idempotency_key=idempotency_key,
    )
    return NewSecret(credential, password, operation)


@transaction.atomic
def credential_revoke(*, credential: Credential) -> None:
    """End a credential at once and for good; its secrets are deleted. Twice is fine."""
    instance = _locked(credential.instance)
    credential = Credential.objects.get(pk=credential.pk)
    if credential.revoked_at is not None:
        return
    credential.is_enabled = False
    credential.revoked_at = timezone.now()
    credential.save(update_fields=["is_enabled", "revoked_at", "updated_at"])
    credential.secrets.all().delete()
    if instance.status != InstanceStatus.PURGED:
        record_publish(instance=instance)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new secret: its text this one time, and what is kept of it."""

    password: str
    secret: CredentialSecret


def secret_issue(
    *, credential: Credential, scram_iterations: int = auth.SCRAM_ITERATIONS
) -> Issued:
    """Make a new secret: a random one, or the next one derived where clients sign with it."""
    version = 0
    engine = credential.instance.engine
    if engine in registry.names() and registry.load(engine).signs:
        version = credential.access_version = credential.access_version + 1
        credential.save(update_fields=["access_version", "updated_at"])
        password = access_secret(settings.MASTER_KEY, credential.username, version)
    else:
        password = auth.password_of(credential.key_id, auth.new_secret())
    secret = secret_add(
        credential=credential,
        password=password,
        scram_iterations=scram_iterations,
        access_version=version,
    )
    return Issued(password, secret)


def secret_add(
    *,
    credential: Credential,
    password: str,
    scram_iterations: int = auth.SCRAM_ITERATIONS,
    access_version: int = 0,
) -> CredentialSecret:
    """Store what is kept of a new secret, in the free slot.

    Salt and iterations are those of the credential's other secret, if there is one.
    """
    present = list(credential.secrets.all())
    if present:
        scram_iterations = present[0].scram_iterations
    free = set(range(SECRETS_MAX)) - {secret.slot for secret in present}
    assert free, "the caller makes room first"
    pepper_id = settings.PEPPER_ID
    kept = auth.make_secret(
        password,
        pepper_id,
        settings.PEPPERS[pepper_id],
        auth.salt_of(credential_record(credential).secrets),
        iterations=scram_iterations,
    )
    return CredentialSecret.objects.create(
        credential=credential,
        slot=min(free),
        pepper_id=kept.pepper_id,
        digest=kept.digest,
        scram_salt=kept.scram.salt,
        scram_iterations=kept.scram.iterations,
        scram_stored_key=kept.scram.stored_key,
        scram_server_key=kept.scram.server_key,
        access_version=access_version,
    )


def secret_sweep() -> int:
    """Delete secrets whose time is over, and publish their instances; return how many instances.

    The data plane refuses them by itself: the record holds their time.
    """
    due = Instance.objects.filter(
        ~Q(status=InstanceStatus.PURGED), credentials__secrets__expires_at__lte=timezone.now()
    ).distinct()
    count = 0
    for instance in due:
        with transaction.atomic():
            locked = _locked(instance)
            expired = CredentialSecret.objects.filter(
                credential__instance=locked, expires_at__lte=timezone.now()
            )
            if expired.delete()[0]:
                record_publish(instance=locked)
                count += 1
    return count


def _locked(instance: Instance) -> Instance:
    return Instance.objects.select_for_update().get(pk=instance.pk)


def _live(instance: Instance, credential: Credential) -> Credential:
    found = Credential.objects.get(pk=credential.pk, instance=instance)
    if found.revoked_at is not None:
        raise ConflictError("the credential is revoked", code="credential_revoked")
    return found
