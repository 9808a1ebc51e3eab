"""Keys of backups: a master key of the installation wraps one data key for each stored file.

    <secrets>/backup.<id>   64 hexadecimal digits; the highest id wraps what is new
    data key                AES-256-GCM(master key, 32 random bytes, AAD: the file's id, the key id)

To rotate, add `backup.<id + 1>` beside the old one: files are wrapped anew in the background
(`rewrap`), and when none names the old id any more, its file may go. Data are not written again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import transaction

from tenants.backups.models import StoredFile
from tenants.core.errors import ServiceError

KEY_BYTES = 32
NONCE_BYTES = 12
REWRAP_ROWS = 500


class KeyMissingError(ServiceError):
    """The master key that wrapped a data key is not (any more) in the secrets directory."""

    status = 500
    code = "backup_key_missing"


class KeyWrongError(ServiceError):
    """A data key cannot be unwrapped: the master key of this id is another one."""

    status = 500
    code = "backup_key_wrong"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A new data key: plain for use, wrapped for the row."""

    plain: bytes
    key_id: int
    wrapped: bytes


def data_key_new(*, file_id: UUID) -> DataKey:
    """Return a new key for one file, wrapped by the newest master key."""
    key_id = max(settings.BACKUP_KEYS, default=0)
    plain = os.urandom(KEY_BYTES)
    return DataKey(plain, key_id, _wrap(plain, key_id, file_id))


def data_key_of(file: StoredFile) -> bytes:
    """Return a file's data key. Raises KeyMissingError, KeyWrongError."""
    wrapped = bytes(file.wrapped_key)
    try:
        return AESGCM(_master(file.key_id)).decrypt(
            wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _about(file.pk, file.key_id)
        )
    except InvalidTag as error:
        raise KeyWrongError(
            f"the key backup.{file.key_id} is not the one of this backup"
        ) from error


def rewrap(*, rows: int = REWRAP_ROWS) -> int:
    """Wrap up to `rows` data keys by the newest master key; return how many. Safe beside itself."""
    newest = max(settings.BACKUP_KEYS, default=0)
    with transaction.atomic():
        old = StoredFile.objects.select_for_update(skip_locked=True).exclude(key_id=newest)
        files = list(old.filter(key_id__in=settings.BACKUP_KEYS).order_by("pk")[:rows])
        for file in files:
            plain = data_key_of(file)
            file.key_id, file.wrapped_key = newest, _wrap(plain, newest, file.pk)
            file.save(update_fields=["key_id", "wrapped_key", "updated_at"])
    return len(files)


def _wrap(plain: bytes, key_id: int, file_id: UUID) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(_master(key_id)).encrypt(nonce, plain, _about(file_id, key_id))


def _master(key_id: int) -> bytes:
    found = settings.BACKUP_KEYS.get(key_id)
    if found is None:
        raise KeyMissingError(f"the secrets directory has no key backup.{key_id}")
    return bytes(found)


def _about(file_id: UUID, key_id: int) -> bytes:
    return b"weftkit.data-key" + file_id.bytes + key_id.to_bytes(4, "big")
