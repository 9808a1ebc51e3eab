"""Every control-plane action that leaves an event, once; the names follow the data plane's.

A request that changes something must be here by method and address name: a test compares this
table with the API's addresses. `made` is the field of the answer that names what was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """One action."""

    name: str
    made: str = ""


REQUESTS: Mapping[tuple[str, str], Action] = {
    ("DELETE", "api-key"): Action("weftkit.api-key.revoke"),
    ("DELETE", "credential"): Action("weftkit.credential.revoke"),
    ("DELETE", "file"): Action("weftkit.file.delete"),
    ("DELETE", "instance"): Action("weftkit.instance.delete"),
    ("DELETE", "member"): Action("weftkit.member.remove"),
    ("PATCH", "instance"): Action("weftkit.instance.update"),
    ("PATCH", "member"): Action("weftkit.member.update"),
    ("POST", "api-keys"): Action("weftkit.api-key.create", made="id"),
    ("POST", "credential-rotate"): Action("weftkit.credential.rotate"),
    ("POST", "credentials"): Action("weftkit.credential.create", made="id"),
    ("POST", "files"): Action("weftkit.file.create", made="id"),
    ("POST", "instance-export"): Action("weftkit.instance.export"),
    ("POST", "instance-import"): Action("weftkit.instance.import"),
    ("POST", "instance-resume"): Action("weftkit.instance.resume"),
    ("POST", "instance-suspend"): Action("weftkit.instance.suspend"),
    ("POST", "instance-undelete"): Action("weftkit.instance.undelete"),
    ("POST", "instances"): Action("weftkit.instance.create", made="instance"),
    ("POST", "members"): Action("weftkit.member.add", made="id"),
    ("POST", "operation-cancel"): Action("weftkit.operation.cancel"),
    ("POST", "operation-reset"): Action("weftkit.operation.reset"),
    ("POST", "operation-retry"): Action("weftkit.operation.retry"),
}
# What no changing request below a tenant asks for. Parts of an upload leave no events:
# the making of the file and its import do.
OTHERS = frozenset({"weftkit.file.download", "weftkit.instance.purge", "weftkit.session.start"})

NAMES = frozenset(action.name for action in REQUESTS.values()) | OTHERS
