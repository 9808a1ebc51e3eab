"""The first start's set: tenants `demo` and `other`, an instance of every engine, keys to all.

May run at every start: it makes what is missing, keeps what the output file knows (a secret is only
known when it is made), and replaces what the file has lost.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections
from django.utils import timezone

from engines.kit import auth
from engines.kit.records import Role
from engines.kit.settings import Settings
from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.accounts.services import tenant_create
from tenants.billing.arrears import collection_set
from tenants.billing.models import Collection
from tenants.core.errors import ServiceError
from tenants.iam.models import ApiKey, ApiKeySecret
from tenants.iam.secrets import matches
from tenants.iam.services import api_key_create, api_key_revoke
from tenants.instances.configured import configured_users_sync
from tenants.instances.credentials import credential_create, credential_revoke
from tenants.instances.models import AuthMethod, Instance, InstanceStatus
from tenants.instances.selectors import connection_of, engine_list
from tenants.instances.services import instance_create, instance_resume
from tenants.operations.models import LIVE, Operation
from tenants.operations.runner import operation_run
from tenants.publish.services import credential_record, record_refresh

ACTOR = "system:bootstrap"
NAME = "bootstrap"
OWNER_EMAIL = "owner@demo.local"
# tenant -> plan: a laptop is not throttled, and a plan's limits can be seen.
PLANS = {"demo": "unmetered", "other": "lite"}
DEFAULT_TENANT = "default"
DEFAULT_PLAN = "unmetered"
PROVISION_AT_ONCE = 4
LOOK_EVERY_S = 0.1


class BootstrapError(Exception):
    """Not everything is in service; the message says what."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the output file of an earlier start holds."""

    document: dict[str, Any]

    @classmethod
    def read(cls, output: Path) -> Known:
        """Read the file; an absent or broken one knows nothing."""
        try:
            document = json.loads(output.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            document = {}
        return cls(document if isinstance(document, dict) else {})

    def password(self, instance: Instance) -> str:
        for row in self.document.get("connections", []):
            if row.get("instance") == instance.handle:
                return str(row.get("password", ""))
        return ""

    def text(self, section: str, key: str) -> str:
        return str(self.document.get(section, {}).get(key, ""))


def bootstrap(*, output: Path, wait_s: float) -> dict[str, Any]:
    """Make what is missing, wait until it is in service, write `output` and return its content."""
    known = Known.read(output)
    tenants = {handle: _tenant(handle) for handle in PLANS}
    instances = [i for handle, plan in PLANS.items() for i in _instances(tenants[handle], plan)]
    defaults = _default_instances()
    for instance in defaults:
        configured_users_sync(instance=instance)
    record_refresh()
    document = {
        "console": _console(tenants["demo"], known),
        "api": _api(tenants["demo"], known),
        "ca": settings.TLS_CA_PUBLIC,
        "connections": [_connection(instance, known) for instance in instances],
    }
    # Before the waiting: what was made now is known only here.
    write_private(output, json.dumps(document, indent=2) + "\n")
    _bring_into_service([*instances, *defaults], wait_s)
    return document


def write_private(path: Path, content: str) -> None:
    """Replace a file at once, readable by nobody else at any moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _tenant(handle: str) -> Tenant:
    found = Tenant.objects.filter(handle=handle).first()
    if found is None:
        found = tenant_create(handle=handle)
        # The installation's own: what they cost is shown, and nobody is asked to pay.
        collection_set(tenant=found, collection=Collection.INTERNAL)
    return found


def _instances(tenant: Tenant, plan: str, *, is_default: bool = False) -> Iterator[Instance]:
    config: Settings = settings.WEFTKIT
    for spec in engine_list():
        handle = f"{tenant.handle}-{spec.name}"
        # One that was deleted by hand is not made again.
        instance = Instance.objects.filter(handle=handle, tenant=tenant).order_by("-id").first()
        if instance is None:
            method = config.auth.method if is_default else AuthMethod.PASSWORD
            instance = instance_create(
                tenant=tenant,
                actor=ACTOR,
                name=spec.name,
                engine=spec.name,
                plan=plan,
                is_default=is_default,
                auth_method=AuthMethod(method),
            ).instance
        if instance.quarantined_at is None:
            yield instance


def _default_instances() -> list[Instance]:
    config: Settings = settings.WEFTKIT
    if not config.auth.users and not Tenant.objects.filter(handle=DEFAULT_TENANT).exists():
        return []
    return list(_instances(_tenant(DEFAULT_TENANT), DEFAULT_PLAN, is_default=True))


def _console(tenant: Tenant, known: Known) -> dict[str, str]:
    password = known.text("console", "password")
    user = User.objects.filter(email=OWNER_EMAIL).first() or User.objects.create_user(OWNER_EMAIL)
    if not password or not user.has_usable_password():
        password = secrets.token_urlsafe(18)
        user.set_password(password)
        user.save()
    Membership.objects.get_or_create(
        tenant=tenant, user=user, defaults={"role": MemberRole.OWNER.value}
    )
    return {"url": settings.CONSOLE_URL, "user": OWNER_EMAIL, "password": password}


def _api(tenant: Tenant, known: Known) -> dict[str, str]:
    token = known.text("api", "key")
    live = ApiKey.objects.filter(tenant=tenant, name=NAME, revoked_at=None)
    opens = ApiKeySecret.objects.filter(api_key__in=live)
    if not any(matches(token, secret.digest, secret.pepper_id) for secret in opens):
        for key in live:
            api_key_revoke(api_key=key)
        actor = Actor(tenant, MemberRole.OWNER, ACTOR)
        token = api_key_create(actor=actor, name=NAME, role=MemberRole.ADMIN).token
    return {"url": f"{settings.CONSOLE_URL}/api/v1", "key": token}


def _connection(instance: Instance, known: Known) -> dict[str, Any]:
    password = known.password(instance)
    live = instance.credentials.filter(label=NAME, revoked_at=None).prefetch_related("secrets")
    now = timezone.now().timestamp()
    proven = [
        credential
        for credential in live
        if auth.verify_password(credential_record(credential), password, settings.PEPPERS, now)
    ]
    if proven:
        username = proven[0].username
    else:
        for credential in live:
            credential_revoke(credential=credential)
        made = credential_create(instance=instance, actor=ACTOR, role=Role.ADMIN, label=NAME)
        username, password = made.credential.username, made.password
    reach = connection_of(instance=instance, username=username, password=password)
    return {
        "tenant": instance.tenant.handle,
        "engine": instance.engine,
        "instance": instance.handle,
        "uri": reach.uri,
        "uri_pooled": reach.uri_pooled,
        "host": reach.host,
        "port": reach.port,
        "user": username,
        "password": password,
    }


def _bring_into_service(instances: list[Instance], wait_s: float) -> None:
    """Run the operations here, a few at once: the workers of Celery may not be there yet."""
    deadline = time.monotonic() + wait_s
    with ThreadPoolExecutor(PROVISION_AT_ONCE) as pool:
        problems = [p for p in pool.map(lambda i: _serve_one(i, deadline), instances) if p]
    if problems:
        raise BootstrapError("; ".join(problems))


def _serve_one(instance: Instance, deadline: float) -> str:
    """Return "" once the instance serves (or someone took it out of service), else why not."""
    pause = threading.Event()
    try:
        instance.refresh_from_db()
        if instance.status == InstanceStatus.FAILED:
            instance_resume(instance=instance, actor=ACTOR)
        while True:
            for operation in Operation.objects.filter(instance=instance, state__in=LIVE):
                operation_run(operation_id=operation.pk)
            instance.refresh_from_db()
            if instance.status == InstanceStatus.FAILED:
                return f"{instance.handle}: {instance.status_detail}"
            if instance.status != InstanceStatus.PROVISIONING:
                return ""
            if time.monotonic() >= deadline:
                return f"{instance.handle} is still {instance.status}"
            pause.wait(LOOK_EVERY_S)
    except ServiceError as error:
        return f"{instance.handle}: {error.message}"
    finally:
        connections.close_all()  # this thread's
