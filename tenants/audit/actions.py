"""Every action of both planes that leaves an event, once.

A request that changes something must be here by method and address name: a test compares this
table with the API's addresses. What a row does not say follows from its name: a name is
`<service>.<object type>.<verb>`, and `VERBS` knows how grave a verb is and how it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

SERVICE = "weftkit"


class Severity(StrEnum):
    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


# CADF as IBM's services speak it: routine is normal, changes are warnings, and what concerns
# security or takes data away is critical.
VERBS: Mapping[str, Severity] = {
    **dict.fromkeys(
        [
            "begin", "create", "enable", "end", "execute", "query", "read", "start", "test",
            "verify", "write",
        ],
        Severity.NORMAL,
    ),
    **dict.fromkeys(
        [
            "cancel", "change", "clone", "decline", "export", "finish", "hibernate", "import",
            "pause", "pay", "redeliver", "reset", "resume", "retry", "scale", "send", "set",
            "suspend", "undelete", "update", "wake",
        ],
        Severity.WARNING,
    ),
    **dict.fromkeys(
        [
            "accept", "add", "assign", "delete", "disable", "download", "drop", "invite", "leave",
            "purge", "remove", "restore", "revoke", "rotate", "reroll", "unassign",
        ],
        Severity.CRITICAL,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Action:
    """One action. `made` is the field of the answer that names what was made.

    `message` begins with a verb, in lower case; the target's name is put behind it. `told` names
    fields of the request that its event may tell besides those of `details.TOLD`.
    """

    name: str
    made: str = ""
    severity: Severity | None = None
    message: str = ""
    is_data: bool = False
    told: tuple[str, ...] = ()

    @property
    def grade(self) -> Severity:
        """How grave a success is."""
        return VERBS.get(self.verb, Severity.WARNING) if self.severity is None else self.severity

    @property
    def text(self) -> str:
        """What people read before the target's name."""
        return self.message or f"{self.verb} {self.target_type}".replace("-", " ")

    @property
    def service(self) -> str:
        """Who offers it: `weftkit`, or `weftkit.<engine>`."""
        return self.name.rsplit(".", 2)[0]

    @property
    def target_type(self) -> str:
        """What it is done to."""
        return self.name.rsplit(".", 2)[1]

    @property
    def verb(self) -> str:
        return self.name.rsplit(".", 1)[1]


POLICY_SCOPE = ("scope", "instance", "resource_type", "value")
REQUESTS: Mapping[tuple[str, str], Action] = {
    ("DELETE", "api-key"): Action("weftkit.api-key.revoke", message="revoke API key"),
    ("DELETE", "backup"): Action("weftkit.backup.delete"),
    ("DELETE", "budget"): Action("weftkit.budget.delete", severity=Severity.WARNING),
    ("DELETE", "audit-drain"): Action("weftkit.audit-drain.delete"),
    ("DELETE", "credential"): Action("weftkit.credential.revoke"),
    ("DELETE", "file"): Action("weftkit.file.delete"),
    ("DELETE", "instance"): Action("weftkit.instance.delete"),
    ("DELETE", "invitation"): Action("weftkit.invitation.revoke"),
    ("DELETE", "member"): Action("weftkit.member.remove"),
    ("DELETE", "my-key"): Action("weftkit.api-key.revoke", message="revoke API key"),
    ("DELETE", "policy"): Action("weftkit.policy.delete"),
    ("DELETE", "service-id"): Action("weftkit.service-id.delete"),
    ("DELETE", "session"): Action("weftkit.session.revoke", message="end a session of"),
    ("DELETE", "webhook"): Action("weftkit.webhook.delete"),
    ("PATCH", "api-key"): Action("weftkit.api-key.update", severity=Severity.CRITICAL),
    ("PATCH", "audit-drain"): Action(
        "weftkit.audit-drain.update", severity=Severity.CRITICAL, told=("is_enabled",)
    ),
    ("PATCH", "backup"): Action("weftkit.backup.update"),
    ("PATCH", "backup-schedule"): Action("weftkit.backup-schedule.update"),
    ("PATCH", "budget"): Action("weftkit.budget.update"),
    ("PATCH", "instance"): Action("weftkit.instance.update"),
    ("PATCH", "instance-audit"): Action(
        "weftkit.instance-audit.update",
        severity=Severity.CRITICAL,
        message="switch data events of",
    ),
    ("PATCH", "member"): Action("weftkit.member.update", severity=Severity.CRITICAL),
    ("PATCH", "my-key"): Action("weftkit.api-key.update", severity=Severity.CRITICAL),
    ("PATCH", "policy"): Action(
        "weftkit.policy.update", severity=Severity.CRITICAL, told=POLICY_SCOPE
    ),
    ("PATCH", "service-id"): Action("weftkit.service-id.update", severity=Severity.CRITICAL),
    ("PATCH", "tenant"): Action(
        "weftkit.tenant.update", severity=Severity.CRITICAL, told=("requires_second_factor",)
    ),
    ("PATCH", "webhook"): Action("weftkit.webhook.update", told=("event_types", "is_enabled")),
    ("POST", "api-key-reroll"): Action("weftkit.api-key.reroll"),
    ("POST", "api-keys"): Action(
        "weftkit.api-key.create", made="id", severity=Severity.CRITICAL, message="create API key"
    ),
    ("POST", "backup-restore"): Action("weftkit.backup.restore", made="instance"),
    ("POST", "backup-verify"): Action("weftkit.backup.verify"),
    ("POST", "budgets"): Action("weftkit.budget.create", made="id"),
    ("POST", "audit-drains"): Action(
        "weftkit.audit-drain.create",
        made="id",
        severity=Severity.CRITICAL,
        told=("bucket", "endpoint_url"),
    ),
    ("POST", "credential-rotate"): Action("weftkit.credential.rotate"),
    ("POST", "credentials"): Action(
        "weftkit.credential.create", made="id", severity=Severity.CRITICAL
    ),
    ("POST", "files"): Action("weftkit.file.create", made="id"),
    ("POST", "instance-backups"): Action("weftkit.backup.create"),
    ("POST", "instance-clone"): Action("weftkit.instance.clone", made="instance"),
    ("POST", "instance-export"): Action("weftkit.instance.export"),
    ("POST", "instance-hibernate"): Action("weftkit.instance.hibernate"),
    ("POST", "instance-import"): Action("weftkit.instance.import"),
    ("POST", "instance-restore"): Action("weftkit.instance.restore", made="instance"),
    ("POST", "instance-resume"): Action("weftkit.instance.resume"),
    ("POST", "instance-scale"): Action("weftkit.instance.scale"),
    ("POST", "instance-suspend"): Action("weftkit.instance.suspend"),
    ("POST", "instance-undelete"): Action("weftkit.instance.undelete"),
    ("POST", "instance-wake"): Action("weftkit.instance.wake"),
    ("POST", "instances"): Action("weftkit.instance.create", made="instance"),
    ("POST", "invitation-resend"): Action("weftkit.invitation.send"),
    ("POST", "invitations"): Action(
        "weftkit.member.invite", made="id", message="invite", told=("role",)
    ),
    ("POST", "my-key-reroll"): Action("weftkit.api-key.reroll"),
    ("POST", "my-keys"): Action(
        "weftkit.api-key.create", made="id", severity=Severity.CRITICAL, message="create API key"
    ),
    ("PATCH", "operator-account"): Action(
        "weftkit.account.update", message="change how bills are paid of"
    ),
    ("POST", "operator-credit-notes"): Action("weftkit.credit-note.create"),
    ("POST", "operator-payments"): Action("weftkit.invoice.pay", message="record a payment for"),
    ("POST", "operator-price-lists"): Action("weftkit.price-list.create"),
    ("POST", "operation-cancel"): Action("weftkit.operation.cancel"),
    ("POST", "operation-reset"): Action("weftkit.operation.reset"),
    ("POST", "operation-retry"): Action("weftkit.operation.retry"),
    ("POST", "policies"): Action(
        "weftkit.policy.create", made="id", severity=Severity.CRITICAL, told=POLICY_SCOPE
    ),
    ("POST", "service-ids"): Action("weftkit.service-id.create", made="id"),
    ("POST", "sessions-revoke-others"): Action(
        "weftkit.session.revoke", message="end a session of"
    ),
    ("POST", "tenant-leave"): Action("weftkit.tenant.leave"),
    ("POST", "tenant-transfer"): Action(
        "weftkit.tenant.assign", message="transfer ownership of", told=("member",)
    ),
    ("POST", "webhook-redeliver"): Action("weftkit.webhook.redeliver"),
    ("POST", "webhook-rotate"): Action("weftkit.webhook.rotate"),
    ("POST", "webhook-test"): Action("weftkit.webhook.test"),
    ("POST", "webhooks"): Action("weftkit.webhook.create", made="id", told=("event_types",)),
}
# What no changing request below a tenant asks for. Parts of an upload leave no events:
# the making of the file and its import do.
OTHERS: tuple[Action, ...] = (
    Action("weftkit.backup.expire", severity=Severity.WARNING),
    Action("weftkit.audit.export"),
    Action("weftkit.file.download", severity=Severity.WARNING),
    Action("weftkit.instance.purge"),
    Action("weftkit.operation.end", message="end of"),
    Action("weftkit.email-address.remove"),
    Action("weftkit.email-address.update", severity=Severity.CRITICAL),
    Action("weftkit.password.reset", severity=Severity.CRITICAL),
    Action("weftkit.password.set", severity=Severity.CRITICAL),
    Action("weftkit.password.update", severity=Severity.CRITICAL),
    Action("weftkit.provider.add", message="sign in by a provider from"),
    Action("weftkit.provider.remove", message="no longer sign in by a provider from"),
    Action(
        "weftkit.recovery-code.create", severity=Severity.CRITICAL, message="renew recovery codes"
    ),
    Action("weftkit.second-factor.add"),
    Action("weftkit.second-factor.remove"),
    Action("weftkit.invitation.accept"),
    Action("weftkit.session.start", message="sign in to"),
    Action("weftkit.token.create", message="issue access token for"),
)
# Of the data plane, without the engine: their names are `weftkit.<engine>.<type>.<verb>`.
DATAPLANE: tuple[Action, ...] = (
    Action("session.start", message="sign in to"),
    Action("session.end", message="sign out of", is_data=True),
    Action("statement.read", message="read data of", is_data=True),
    Action("statement.write", message="write data of", is_data=True),
    Action("statement.query", message="query data of", is_data=True),
    Action("statement.execute", message="run a command at", is_data=True),
    Action("statement.cancel", message="cancel a statement at"),
    Action("event.drop", message="leave out audit events of"),
    # What clients do to the structure of an instance whose API has operations for that.
    Action("backup.create", message="back up table"),
    Action("backup.delete", message="delete table backup"),
    Action("table.create"),
    Action("table.delete"),
    Action("table.restore"),
    Action("table.update"),
    Action("table-tag.add", severity=Severity.WARNING, message="tag table"),
    Action("table-tag.remove", severity=Severity.WARNING, message="remove tags of table"),
    Action("time-to-live.update", message="change time to live of table"),
    # Of these there are only failures: the right to it was refused. Others are `statement`s.
    Action("table.read"),
    Action("table.write"),
)


def _by_name(actions: Iterable[Action]) -> Mapping[str, Action]:
    return {each.name: each for each in actions}


BY_NAME: Mapping[str, Action] = _by_name((*REQUESTS.values(), *OTHERS))
NAMES = frozenset(BY_NAME)
_BY_SUFFIX = _by_name(DATAPLANE)


def action_named(name: str) -> Action:
    """Return the action of this name, of either plane.

    Raises KeyError for one that is not registered.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    service, target_type, verb = name.rsplit(".", 2)
    if not service.startswith(f"{SERVICE}."):
        raise KeyError(name)
    return replace(_BY_SUFFIX[f"{target_type}.{verb}"], name=name)
