"""Where a drain delivers to: a webhook, a bucket, a folder of this installation.

Each kind checks its configuration, may make a secret of its own, and delivers one batch. The same
batch has the same name every time: the webhook's message id, or the object's key.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Protocol

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from storages.backends.s3 import S3Storage

from tenants.audit.exports import gzipped, json_lines
from tenants.audit.models import AuditDrain, DrainKind
from tenants.audit.selectors import Placed
from tenants.core.errors import invalid_field
from tenants.instances.depot import DurableStorage
from tenants.webhooks.sending import Message, send
from tenants.webhooks.services import SECRET_BYTES, SECRET_PREFIX
from tenants.webhooks.targets import TargetError, resolve, url_check

GONE = 410
RETRY_AFTER_MAX_S = 86_400.0
S3_SECONDS = 20
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9_.=/-]{0,200}")
REGION = re.compile(r"[a-z0-9-]{0,40}")
ACCESS_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")


class DeliveryError(Exception):
    """A batch was not delivered; `is_final`: it is of no use to try again."""

    def __init__(
        self, message: str, *, is_final: bool = False, retry_after: timedelta = timedelta()
    ) -> None:
        super().__init__(message)
        self.is_final = is_final
        self.retry_after = retry_after


class Target(Protocol):
    """One kind of drain."""

    events_max: int

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration as it is kept; raises InvalidError by field."""
        ...

    def new_secret(self) -> str:
        """Return a secret of our making, or "" if the tenant brings its own."""
        ...

    def deliver(self, drain: AuditDrain, secret: str, events: Sequence[Placed]) -> None:
        """Deliver a batch; raises DeliveryError."""
        ...


class WebhookTarget:
    """POSTs batches as JSON, signed after Standard Webhooks."""

    events_max = 100

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Take `url`."""
        try:
            return {"url": url_check(str(config.get("url", "")))}
        except TargetError as error:
            raise invalid_field("url", str(error)) from error

    def new_secret(self) -> str:
        """Return what messages are signed with."""
        return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()

    def deliver(self, drain: AuditDrain, secret: str, events: Sequence[Placed]) -> None:
        """Send one message; any answer of 2xx is a receipt."""
        first, last = events[0].sequence, events[-1].sequence
        lines = ",".join(json_lines(events).decode().splitlines())
        head = {"type": "audit.events", "timestamp": _iso(events[-1])}
        about = json.dumps({"drain_id": str(drain.pk), "first": first, "last": last})
        body = f'{json.dumps(head)[:-1]}, "data": {about[:-1]}, "events": [{lines}]}}}}'
        message = Message(
            url=drain.config["url"],
            message_id=f"audit_{drain.pk.hex}_{first}_{last}",
            body=body,
            secrets=[secret],
        )
        outcome = asyncio.run(send(message))
        if not outcome.is_success:
            asked = timedelta(seconds=min(outcome.retry_after_s or 0, RETRY_AFTER_MAX_S))
            raise DeliveryError(outcome.error, is_final=outcome.status == GONE, retry_after=asked)


class _ObjectTarget:
    """Stores batches as gzipped JSON Lines, one object each."""

    events_max = 1000

    def new_secret(self) -> str:
        return ""

    def deliver(self, drain: AuditDrain, secret: str, events: Sequence[Placed]) -> None:
        """Store one object; one of the same name is the same batch, and is replaced."""
        data = b"".join(gzipped([json_lines(events)]))
        try:
            self.storage(drain, secret).save(object_name(drain, events), ContentFile(data))
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            raise DeliveryError(_said(error)) from error

    def storage(self, drain: AuditDrain, secret: str) -> Storage:
        raise NotImplementedError


class S3Target(_ObjectTarget):
    """A bucket of S3, or of what speaks like it."""

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Take `bucket`, `access_key_id`, and perhaps `prefix`, `region`, `endpoint_url`."""
        patterns = {
            "bucket": BUCKET, "access_key_id": ACCESS_KEY, "prefix": PREFIX, "region": REGION,
        }  # fmt: skip
        checked = {name: str(config.get(name, "")) for name in patterns}
        for name, pattern in patterns.items():
            if not pattern.fullmatch(checked[name]) or ".." in checked[name]:
                raise invalid_field(name, "it is not one")
        endpoint = str(config.get("endpoint_url", ""))
        try:
            checked["endpoint_url"] = url_check(endpoint) if endpoint else ""
        except TargetError as error:
            raise invalid_field("endpoint_url", str(error)) from error
        return checked

    def storage(self, drain: AuditDrain, secret: str) -> Storage:
        """Return the bucket; its address is looked at each time."""
        config = drain.config
        if config["endpoint_url"]:
            try:
                asyncio.run(resolve(config["endpoint_url"]))
            except TargetError as error:
                raise DeliveryError(str(error)) from error
        bucket: Storage = S3Storage(
            access_key=config["access_key_id"],
            secret_key=secret,
            bucket_name=config["bucket"],
            location=config["prefix"],
            region_name=config["region"] or None,
            endpoint_url=config["endpoint_url"] or None,
            file_overwrite=True,
            client_config=Config(
                connect_timeout=S3_SECONDS // 2,
                read_timeout=S3_SECONDS,
                retries={"max_attempts": 1},
                signature_version="s3v4",
            ),
        )
        return bucket


class FolderTarget(_ObjectTarget):
    """A folder on the control plane's own disk, for who runs WeftKit to pick up."""

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Take nothing: each drain has a folder of its own."""
        if not settings.AUDIT_DRAIN_FOLDER:
            raise invalid_field("kind", "this installation has no folder for drains")
        return {}

    def storage(self, drain: AuditDrain, secret: str) -> Storage:
        """Return the drain's folder."""
        folder = Path(settings.AUDIT_DRAIN_FOLDER) / str(drain.tenant_id) / str(drain.pk)
        return DurableStorage(
            location=folder,
            allow_overwrite=True,
            file_permissions_mode=0o600,
            directory_permissions_mode=0o700,
        )


TARGETS: Mapping[DrainKind, Target] = {
    DrainKind.WEBHOOK: WebhookTarget(),
    DrainKind.S3: S3Target(),
    DrainKind.FOLDER: FolderTarget(),
}


def object_name(drain: AuditDrain, events: Sequence[Placed]) -> str:
    """Return a batch's key: by tenant and day, and in the order of the chain by name."""
    first, last = events[0], events[-1]
    day = first.stored_at.astimezone(UTC)
    span = f"{first.sequence:012d}-{last.sequence:012d}"
    return f"tenant={drain.tenant.handle}/{day:%Y/%m/%d}/{span}.jsonl.gz"


def _iso(event: Placed) -> str:
    return event.stored_at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _said(error: Exception) -> str:
    """Say what went wrong, without paths of ours."""
    if isinstance(error, ClientError):
        told = error.response.get("Error", {})
        return f"{told.get('Code', 'error')}: {told.get('Message', '')}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
