"""The words of policies: actions of each engine's service, and the roles that hold them.

`CLOUDANT` is IBM's own table ("Managing access for IBM Cloudant"), row by row. The other engines
share the few rows of `SHARED`, as `weftkit.<engine>.<action>`. The control plane adds its own
actions (`<noun>.<verb>`) to the platform roles: `tenants/accounts/permissions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from engines.kit.iam.decision import Policy, Target, decide
from engines.kit.records import Role


class PlatformRole(StrEnum):
    """What one may do to instances as a customer of the service."""

    ADMINISTRATOR = "Administrator"
    EDITOR = "Editor"
    OPERATOR = "Operator"
    VIEWER = "Viewer"


class ServiceRole(StrEnum):
    """What one may do inside an instance."""

    MANAGER = "Manager"
    WRITER = "Writer"
    READER = "Reader"
    MONITOR = "Monitor"
    CHECKPOINTER = "Checkpointer"


CLOUDANT_PREFIX = "cloudantnosqldb."
# What a policy may name inside an instance of an engine; engines that are not here are one whole.
RESOURCE_KINDS: Mapping[str, tuple[str, ...]] = {
    "botpress": ("table",),
    "cloudant": ("database",),
    "document": ("database", "collection"),
    "filestore": ("bucket",),
    "graph": ("database",),
    "keyvalue": ("table",),
    "markdown": ("collection",),
    "typedb": ("database",),
    "vector": ("collection",),
}
ENGINES = (*RESOURCE_KINDS, "inmemory", "relational", "unison")

# Letters of the roles that hold an action: A(dministrator), E(ditor), O(perator), V(iewer);
# M(anager), W(riter), R(eader), m(onitor), c(heckpointer).
LETTERS: Mapping[str, str] = {
    "A": PlatformRole.ADMINISTRATOR,
    "E": PlatformRole.EDITOR,
    "O": PlatformRole.OPERATOR,
    "V": PlatformRole.VIEWER,
    "M": ServiceRole.MANAGER,
    "W": ServiceRole.WRITER,
    "R": ServiceRole.READER,
    "m": ServiceRole.MONITOR,
    "c": ServiceRole.CHECKPOINTER,
}
# A line: roles, then actions of one noun, `noun.verb` or `noun.verb,verb`.
CLOUDANT = """
MWRm  account-meta-info.read account-all-dbs.read account-dbs-info.read database-info.read
MWRm  account-current-dbs.read account-capacity-dbs.read
MWR   any-document.read account-search-analyze.execute account-db-updates.read
MWR   session.read,write,delete iam-session.read,write,delete
MW    data-document.write cluster-uuids.execute account-uuids.read
MWc   database-ensure-full-commit.execute
MWmc  local-document.write
M     design-document.write database.create,delete database-security.read,write
M     replication.read,write replicator-database.create,delete replicator-database-info.read
M     users.read,write users-database.create,delete users-database-info.read
M     cluster-membership.read
Mm    replication-scheduler.read account-active-tasks.read account-up.read database-shards.read
Mm    current-throughput.read
AEOVMm  capacity-throughput.read
AEM   capacity-throughput.write
AEOVMWR  activity-tracker-event-types.read
AOM   activity-tracker-event-types.write
AEOVMm  sapi.usage-data-volume
AEOVM sapi.userplan,userinfo
M     sapi.apikeys,db-security,userccmdiagnostics,lastactivity,supporttickets,supportattachments
M     sapi.usage-requests limits-throughput.read db.any
AM    sapi.usercors legacy-credentials.revoke legacy-root-credential.revoke
Mm    account-deleted-dbs.list
M     account-deleted-dbs.restore,delete
"""
SHARED = """
MWR   session.start data.read changes.read
MWRm  structure.read
MW    data.write
M     structure.write access.write
MWc   checkpoint.write
AEOVMm  metrics.read
"""


def _table(text: str, prefix: str) -> dict[str, frozenset[str]]:
    """Return action -> the roles that hold it."""
    rows: dict[str, frozenset[str]] = {}
    for line in text.strip().splitlines():
        letters, *groups = line.split()
        roles = frozenset(LETTERS[letter] for letter in letters)
        for group in groups:
            noun, _, verbs = group.partition(".")
            rows |= {f"{prefix}{noun}.{verb}": roles for verb in verbs.split(",")}
    return rows


def prefix_of(engine: str) -> str:
    """Return how the names of an engine's actions begin."""
    return CLOUDANT_PREFIX if engine == "cloudant" else f"weftkit.{engine}."


SERVICE_ACTIONS: Mapping[str, frozenset[str]] = {
    action: roles
    for engine in ENGINES
    for action, roles in _table(
        CLOUDANT if engine == "cloudant" else SHARED, prefix_of(engine)
    ).items()
}
"""Action -> the roles that hold it."""

ROLE_ACTIONS: Mapping[str, frozenset[str]] = {
    role: frozenset(action for action, roles in SERVICE_ACTIONS.items() if role in roles)
    for role in LETTERS.values()
}
"""Role -> its actions on services."""

# What a credential's role lets its holder do, the strongest first. One action decides for each.
DATA_ROLES: tuple[tuple[Role, str, str], ...] = (
    (Role.ADMIN, "structure.write", "design-document.write"),
    (Role.WRITE, "data.write", "data-document.write"),
    (Role.READ, "data.read", "any-document.read"),
)


def data_action(role: Role, engine: str) -> str:
    """Return the action that stands for a credential's role in an instance of an engine."""
    shared, cloudant = next(
        (shared, cloudant) for found, shared, cloudant in DATA_ROLES if found is role
    )
    return prefix_of(engine) + (cloudant if engine == "cloudant" else shared)


def data_role(policies: tuple[Policy, ...], target: Target) -> Role | None:
    """Return the strongest role that policies give inside the whole of an instance.

    None where they give none. Manager -> admin, Writer -> write, Reader -> read.
    """
    return next(
        (
            role
            for role, _, _ in DATA_ROLES
            if decide(policies, data_action(role, target.engine), target, ROLE_ACTIONS).is_allowed
        ),
        None,
    )
