"""Reads: a tenant's instances, their credentials, their connection strings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from engines import registry
from engines.kit.contract import Endpoint, EngineSpec
from engines.kit.settings import Settings
from tenants.accounts.actors import Actor
from tenants.accounts.models import Tenant
from tenants.core.errors import NotFoundError
from tenants.instances.models import Credential, Instance, InstanceStatus
from tenants.publish.selectors import SERVER_STATE

# What stands in a connection string where only the owner knows the word.
USERNAME_PLACEHOLDER = "USERNAME"
PASSWORD_PLACEHOLDER = "PASSWORD"


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach an instance. `uri` works with and without TLS, on the same port.

    `uri_pooled` leads to where clients share connections; "" for engines that have no such thing.
    """

    host: str
    port: int
    username: str
    uri: str
    uri_tls: str
    uri_pooled: str
    one_liner: str
    password: str = field(default="", repr=False)


def engine_list() -> list[EngineSpec]:
    """Return the engines that are registered and enabled."""
    config: Settings = settings.WEFTKIT
    return [registry.load(name) for name in registry.names() if config.engine(name).enabled]


def instance_list(*, tenant: Tenant) -> QuerySet[Instance]:
    """Return the tenant's instances, each with its `server_state`; purged ones are gone."""
    return (
        Instance.objects.filter(tenant=tenant)
        .exclude(status=InstanceStatus.PURGED)
        .select_related("tenant", "plan")
        .annotate(**SERVER_STATE)
    )


def instances_allowed(*, actor: Actor, action: str) -> QuerySet[Instance]:
    """Return the instances on which `actor` may do `action`."""
    return _allowed(instance_list(tenant=actor.tenant), actor, action)


def instance_ever_list(*, tenant: Tenant) -> QuerySet[Instance]:
    """Return the tenant's instances with the purged ones: their usage still counts."""
    return Instance.objects.filter(tenant=tenant).order_by("handle")


def instances_ever_allowed(*, actor: Actor, action: str) -> QuerySet[Instance]:
    """Return the instances, purged ones among them, on which `actor` may do `action`."""
    return _allowed(instance_ever_list(tenant=actor.tenant), actor, action)


def _allowed(rows: QuerySet[Instance], actor: Actor, action: str) -> QuerySet[Instance]:
    if actor.may(action):
        return rows
    named = Instance.objects.filter(pk__in=rows.values("pk"))
    allowed = [
        pk
        for pk, engine, handle in named.values_list("pk", "engine", "handle")
        if actor.may(action, actor.target(engine=engine, instance=handle))
    ]
    return rows.filter(pk__in=allowed)


def instance_get(*, tenant: Tenant, handle: str) -> Instance:
    """Return one instance of `tenant` by its handle."""
    found = instance_list(tenant=tenant).filter(handle=handle).first()
    if found is None:
        raise NotFoundError("there is no such instance")
    return found


def credential_list(*, instance: Instance) -> QuerySet[Credential]:
    """Return the credentials of an instance, revoked ones included."""
    return (
        Credential.objects.filter(instance=instance)
        .select_related("instance", "ownership__service")
        .prefetch_related("secrets", "ownership__service__policies")
    )


def credential_get(*, instance: Instance, credential_id: UUID) -> Credential:
    """Return one credential of an instance."""
    found = credential_list(instance=instance).filter(pk=credential_id).first()
    if found is None:
        raise NotFoundError("there is no such credential")
    return found


def username_checked(*, instance: Instance, username: str) -> str:
    """Return `username` if it is one of the instance's live ones, the placeholder for ""."""
    if not username:
        return USERNAME_PLACEHOLDER
    if not instance.credentials.filter(username=username, revoked_at=None).exists():
        raise NotFoundError("there is no such credential")
    return username


def port_of(*, engine: str) -> int:
    """Return the port on which clients reach an engine."""
    config: Settings = settings.WEFTKIT
    return config.engine(engine).port + int(settings.PORT_OFFSET)


def pool_port_of(*, engine: str) -> int:
    """Return the port on which clients of an engine share connections; 0 for none."""
    config: Settings = settings.WEFTKIT
    port = config.pool_port(engine)
    return port + int(settings.PORT_OFFSET) if port else 0


def connection_of(
    *,
    instance: Instance,
    username: str = USERNAME_PLACEHOLDER,
    password: str = PASSWORD_PLACEHOLDER,
) -> Connection:
    """Return the connection strings for a user of the instance."""
    spec = registry.load(instance.engine)

    def endpoint(tls: bool) -> Endpoint:
        return Endpoint(
            host=settings.PUBLIC_HOST,
            port=port_of(engine=instance.engine),
            username=username,
            password=password,
            handle=instance.handle,
            tls=tls,
            ca_path=settings.TLS_CA_PUBLIC,
        )

    pool_port = pool_port_of(engine=instance.engine)
    plain, over_tls = endpoint(tls=False), endpoint(tls=bool(settings.TLS_CERT))
    return Connection(
        host=plain.host,
        port=plain.port,
        username=username,
        uri=spec.uri(plain),
        uri_tls=spec.uri(over_tls) if over_tls.tls else "",
        uri_pooled=spec.uri(replace(plain, port=pool_port)) if pool_port else "",
        one_liner=spec.one_liner(plain),
        password=password,
    )
