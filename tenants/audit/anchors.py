"""Signed heads: what a tenant keeps elsewhere, to prove later that its chain was not made anew.

The signature is Ed25519 by a key that is derived from SECRET_KEY, over the fields' canonical JSON.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.utils import timezone

from tenants.audit.chain import FIRST, moment
from tenants.audit.models import AuditCheckpoint, AuditLink
from tenants.audit.selectors import head_get


def anchor_make(*, chain_id: UUID) -> dict[str, Any]:
    """Return a chain's head as it is now, signed."""
    head = head_get(chain_id=chain_id)
    told = {
        "chain_id": str(chain_id),
        "sequence": head.sequence,
        "digest": head.digest,
        "signed_at": moment(timezone.now()),
    }
    key = _key()
    signature = key.sign(signed_text(told))
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {**told, "signature": _text(signature), "public_key": _text(public)}


def signed_text(told: dict[str, Any]) -> bytes:
    """Return what a signature is over: the four fields, sorted, without spaces."""
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def anchor_holds(*, chain_id: UUID, sequence: int, digest: str) -> bool | None:
    """Say whether the chain has this digest there; None if that place is not kept any more."""
    mark = AuditCheckpoint.objects.filter(chain_id=chain_id).order_by("-sequence").first()
    start, start_digest = (mark.sequence, mark.digest) if mark else (0, FIRST)
    if sequence <= start:
        return start_digest == digest if sequence == start else None
    return AuditLink.objects.filter(chain_id=chain_id, sequence=sequence, digest=digest).exists()


def _key() -> Ed25519PrivateKey:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"weftkit audit anchors")
    return Ed25519PrivateKey.from_private_bytes(derived.derive(settings.SECRET_KEY.encode()))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
