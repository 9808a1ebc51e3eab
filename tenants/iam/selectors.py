"""Reads: service ids, API keys and policies of a tenant; rows of policies for the decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from engines.kit.iam import (
    RESOURCE_KINDS,
    Match,
    Operator,
    Policy,
    Scope,
    Target,
    data_role,
    scoped_grants,
)
from engines.kit.records import Role, ScopedGrant
from tenants.accounts.models import Membership, Tenant
from tenants.accounts.selectors import member_list
from tenants.core.errors import NotFoundError
from tenants.iam.models import AccessPolicy, ApiKey, ServiceId
from tenants.instances.models import Credential, InstanceStatus

# A policy's attribute -> the field of `Scope`.
SCOPE_FIELDS = {
    "engine": "engine",
    "instance": "instance",
    "resource_type": "kind",
    "resource": "name",
}


@dataclass(frozen=True, slots=True)
class OwnedCredential:
    """A credential of a service id, and its role now, "" for none."""

    credential: Credential
    role: str


def api_key_list(*, tenant: Tenant) -> QuerySet[ApiKey]:
    """Return the keys of `tenant`, revoked ones included."""
    return (
        ApiKey.objects.filter(tenant=tenant)
        .select_related("service", "membership__user")
        .prefetch_related("secrets")
    )


def api_key_get(*, tenant: Tenant, key_id: UUID, member_id: UUID | None = None) -> ApiKey:
    """Return one key of `tenant`, or of one of its members."""
    found = api_key_list(tenant=tenant).filter(pk=key_id)
    if member_id is not None:
        found = found.filter(membership=member_id)
    api_key = found.first()
    if api_key is None:
        raise NotFoundError("there is no such API key")
    return api_key


def service_id_list(*, tenant: Tenant) -> QuerySet[ServiceId]:
    """Return the service ids of `tenant`; deleted ones are gone."""
    return ServiceId.objects.filter(tenant=tenant, deleted_at=None)


def service_id_get(*, tenant: Tenant, service_id: UUID) -> ServiceId:
    """Return one service id of `tenant`."""
    found = service_id_list(tenant=tenant).filter(pk=service_id).first()
    if found is None:
        raise NotFoundError("there is no such service id")
    return found


def service_id_overview(*, tenant: Tenant) -> QuerySet[ServiceId]:
    """Return the service ids with `policy_count`, `key_count` and `credential_count`."""
    return service_id_list(tenant=tenant).annotate(
        policy_count=Count("policies", distinct=True),
        key_count=Count("api_keys", filter=Q(api_keys__revoked_at=None), distinct=True),
        credential_count=Count(
            "credential_owners",
            filter=Q(credential_owners__credential__revoked_at=None),
            distinct=True,
        ),
    )


def service_id_credentials(*, service: ServiceId) -> list[OwnedCredential]:
    """Return the live credentials of a service id, each with what it may do now."""
    found = (
        Credential.objects.filter(ownership__service=service, revoked_at=None)
        .exclude(instance__status=InstanceStatus.PURGED)
        .select_related("instance", "ownership__service")
        .prefetch_related("ownership__service__policies")
        .order_by("instance__handle", "id")
    )
    rows = []
    for credential in found:
        instance = credential.instance
        target = Target(str(instance.tenant_id), instance.engine, instance.handle)
        role = credential_role(credential=credential, target=target)
        rows.append(OwnedCredential(credential, role.value if role else ""))
    return rows


def subject_choices(*, tenant: Tenant, limit: int) -> list[tuple[str, str]]:
    """Return whom policies can be given to, `<type>:<id>` with a name; at most `limit` of each."""
    services = service_id_list(tenant=tenant).order_by("name")[:limit]
    members = member_list(tenant=tenant).order_by("user__email")[:limit]
    keys = ApiKey.objects.filter(tenant=tenant, service=None, membership=None, revoked_at=None)
    return [
        *((f"service_id:{row.pk}", f"{row.name} (service id)") for row in services),
        *((f"member:{row.pk}", f"{row.user.email} (member)") for row in members),
        *((f"api_key:{row.pk}", f"{row.name} (API key)") for row in keys.order_by("name")[:limit]),
    ]


def policy_list(*, tenant: Tenant) -> QuerySet[AccessPolicy]:
    """Return the policies of `tenant`, but for those of what is gone."""
    return AccessPolicy.objects.filter(
        Q(service=None) | Q(service__deleted_at=None),
        Q(api_key=None) | Q(api_key__revoked_at=None),
        tenant=tenant,
    ).select_related("service", "membership__user", "api_key")


def policy_get(*, tenant: Tenant, policy_id: UUID) -> AccessPolicy:
    """Return one policy of `tenant`."""
    found = policy_list(tenant=tenant).filter(pk=policy_id).first()
    if found is None:
        raise NotFoundError("there is no such policy")
    return found


def policies_about(*, policies: QuerySet[AccessPolicy], subject_id: UUID) -> QuerySet[AccessPolicy]:
    """Return those of `policies` that are of one subject, whatever it is."""
    return policies.filter(Q(service=subject_id) | Q(membership=subject_id) | Q(api_key=subject_id))


def policies_of_key(*, api_key: ApiKey) -> tuple[Policy, ...]:
    """Return what the key was granted beside its role, or its service id; of a member: nothing."""
    if api_key.membership_id is not None:
        return ()
    if api_key.service_id is not None:
        return policies_of_service(service_id=api_key.service_id)
    return as_policies(AccessPolicy.objects.filter(api_key=api_key.pk))


def policies_of_member(*, membership: Membership) -> tuple[Policy, ...]:
    """Return what a member was granted beside the role."""
    return as_policies(AccessPolicy.objects.filter(membership=membership.pk))


def policies_of_service(*, service_id: UUID) -> tuple[Policy, ...]:
    """Return what a service id was granted."""
    return as_policies(AccessPolicy.objects.filter(service=service_id))


def credential_role(*, credential: Credential, target: Target) -> Role | None:
    """Return the role that a credential has in its whole instance now; None for none.

    One that belongs to a service id has what the policies of that give there, and never more than
    it was made for. Asks `ownership__service__policies`, which lists fetch before.
    """
    own = Role(credential.role)
    policies = owner_policies(credential)
    if policies is None:
        return own
    given = data_role(policies, target)
    return None if given is None else min(own, given, key=list(Role).index)


def credential_grants(*, credential: Credential, target: Target) -> tuple[ScopedGrant, ...] | None:
    """Return what the owner of a credential holds in an instance of an engine that has parts.

    None for one without an owner, and for engines that are one whole: there is its role.
    """
    policies = owner_policies(credential)
    if policies is None or not RESOURCE_KINDS.get(target.engine):
        return None
    return scoped_grants(policies, target)


def owner_policies(credential: Credential) -> tuple[Policy, ...] | None:
    """Return what the service id that a credential belongs to holds; None if it has no owner."""
    owner = getattr(credential, "ownership", None)
    if owner is None:
        return None
    service = owner.service
    if not service.is_enabled or service.deleted_at is not None:
        return ()
    return as_policies(service.policies.all())


def as_policies(rows: Iterable[AccessPolicy]) -> tuple[Policy, ...]:
    """Return rows as the decision takes them."""
    return tuple(as_policy(row) for row in rows)


def as_policy(row: AccessPolicy) -> Policy:
    """Return a row as the decision takes it."""
    scope = {
        SCOPE_FIELDS[name]: Match(part["value"], Operator(part["operator"]))
        for name, part in row.scope.items()
    }
    return Policy(
        str(row.tenant_id),
        frozenset(row.roles),
        frozenset(row.actions),
        Scope(**scope),
        str(row.pk),
    )
