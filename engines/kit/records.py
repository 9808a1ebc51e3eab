"""The published record of an instance: all that the data plane knows about it.

Written by the control plane (`tenants/publish`) as JSON into `publish.record`, read by
`dataplane/routing` and `dataplane/host`. Frozen: a change is a new record with a higher version.
Times are seconds since 1970 (UTC). Unknown JSON keys are ignored, so that the control plane can be
upgraded first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a credential may do inside its instance; each includes the one before."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Status(StrEnum):
    """An instance as clients see it; only `active` accepts work."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    QUARANTINED = "quarantined"
    FAILED = "failed"


class Desired(StrEnum):
    """What the instance host shall make true of the instance's own server process."""

    RUNNING = "running"
    STOPPED = "stopped"
    ABSENT = "absent"


class GrowthRefusal(StrEnum):
    """Why requests that grow an instance's data are refused while all others go on."""

    STORAGE = "storage"  # over the storage quota for longer than the plan's grace
    ARREARS = "arrears"  # the tenant has not paid


@dataclass(frozen=True, slots=True)
class Scram:
    """A SCRAM-SHA-256 verifier (RFC 5803); both live secrets of a credential share one salt."""

    salt: str  # base64
    iterations: int
    stored_key: str  # base64
    server_key: str  # base64


@dataclass(frozen=True, slots=True)
class Secret:
    """One live secret of a credential: never the secret itself."""

    pepper_id: int
    digest: str  # hex, HMAC-SHA256(pepper, secret)
    scram: Scram
    expires_at: float | None = None
    # Which of the secrets derived for the user name this is (SigV4); 0 for one that is not derived.
    access_version: int = 0


@dataclass(frozen=True, slots=True)
class ScopedGrant:
    """What one policy gives in the instance, or in parts of it (`engines/kit/iam/rights.py`)."""

    roles: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    kind: str = ""  # of the parts, such as "table"; "" for the whole instance
    name: str = ""  # of the part; "" for all of the kind
    is_pattern: bool = False  # whether `*` and `?` in the name are wildcards


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name with a role in one instance. `key_id` is unique everywhere."""

    key_id: str
    username: str  # `wk_<key_id>`, or the name given in weftkit.toml
    role: Role
    secrets: tuple[Secret, ...]
    enabled: bool = True
    expires_at: float | None = None
    cidrs: tuple[str, ...] = ()  # empty: every address
    # What its owner's policies give; the role bounds it. None: all that the role gives.
    grants: tuple[ScopedGrant, ...] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """A plan's bounds; None means unmetered. Units are per second and per request class."""

    read: int | None = None
    write: int | None = None
    query: int | None = None
    storage_bytes: int | None = None
    # Above this growth is refused at once, whatever the control plane says. None: above the quota.
    storage_ceiling_bytes: int | None = None
    connections: int = 100
    memory_bytes: int = 64 * 1024 * 1024
    statement_timeout_ms: int = 0  # 0: none
    eviction_policy: str = "noeviction"  # inmemory: noeviction | lru | lfu
    fsync: bool = True
    # A relayed engine's instance without clients for so long sleeps until one comes. None: never.
    hibernate_after_s: int | None = None
    # relational: closed WAL segments are kept for `pg_ship_wal`, for restores to any second.
    wal_archive: bool = False
    # relational: what incremental base backups need is written down; `wal_archive` implies it.
    wal_summaries: bool = False


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One instance at one version."""

    instance_id: str  # UUID, canonical text
    handle: str  # [a-z0-9-]{3,40}, unique everywhere: SNI label, routing name
    tenant_id: str
    tenant: str  # the tenant's handle
    engine: str
    status: Status
    plan: str
    limits: Limits
    credentials: tuple[Credential, ...]
    version: int
    auth_method: str = "password"  # password | jwt | mtls
    is_default: bool = False  # answers plain user names that name no instance
    allowlist: tuple[str, ...] = ()  # CIDRs; empty: every address
    host: str = "local"  # the instance host that runs its server
    cell: str = ""  # where its schema is; "" for an instance with a server of its own
    desired: Desired = Desired.RUNNING
    generation: int = 1  # raised whenever the host has something to do
    # Is it the newest, the host puts the server to sleep as soon as nobody is connected.
    sleep_generation: int = 0
    audit_data_events: bool = False
    growth_refused: GrowthRefusal | None = None

    @property
    def schema(self) -> str:
        """The name of its schema in the cell."""
        return "wk_" + self.instance_id.replace("-", "")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> InstanceRecord:
        """Read a published JSON object.

        Raises KeyError, TypeError or ValueError where it is not one.
        """
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in body.items() if name in known}
        values["status"] = Status(values["status"])
        values["desired"] = Desired(values.get("desired", Desired.RUNNING))
        refused = values.get("growth_refused")
        values["growth_refused"] = None if refused is None else GrowthRefusal(refused)
        limits = values["limits"]
        values["limits"] = Limits(
            **{f.name: limits[f.name] for f in fields(Limits) if f.name in limits}
        )
        values["credentials"] = tuple(_credential(item) for item in values["credentials"])
        values["allowlist"] = tuple(values.get("allowlist", ()))
        return cls(**values)


def _credential(body: Mapping[str, Any]) -> Credential:
    return Credential(
        key_id=body["key_id"],
        username=body["username"],
        role=Role(body["role"]),
        enabled=body.get("enabled", True),
        expires_at=body.get("expires_at"),
        cidrs=tuple(body.get("cidrs", ())),
        grants=_grants(body.get("grants")),
        secrets=tuple(
            Secret(
                pepper_id=secret["pepper_id"],
                digest=secret["digest"],
                scram=Scram(**secret["scram"]),
                expires_at=secret.get("expires_at"),
                access_version=secret.get("access_version", 0),
            )
            for secret in body["secrets"]
        ),
    )


def _grants(rows: Sequence[Mapping[str, Any]] | None) -> tuple[ScopedGrant, ...] | None:
    if rows is None:
        return None
    return tuple(
        ScopedGrant(
            roles=tuple(row["roles"]),
            actions=tuple(row["actions"]),
            kind=row["kind"],
            name=row["name"],
            is_pattern=row["is_pattern"],
        )
        for row in rows
    )
