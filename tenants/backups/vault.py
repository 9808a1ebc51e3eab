"""The vault: encrypted pieces of files in the storage `STORAGES["backups"]`.

    <storage name>/<index, 8 digits>   nonce (12 bytes), AES-256-GCM of one chunk, tag (16 bytes)

What is authenticated with each chunk is its file, its place and how long the file is, so that a
chunk that was altered, moved, exchanged or left out is noticed when it is read. Nothing here holds
more than one chunk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages

from tenants.backups.keys import NONCE_BYTES
from tenants.backups.models import StoredFile
from tenants.core.errors import ServiceError

CHUNK_BYTES = 8 * 1024 * 1024
TAG_BYTES = 16
REMOVE_AT_ONCE = 200

# S3's words for "there is no such object".
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})


class VaultAwayError(OSError):
    """The storage does not answer now."""


class DamagedError(ServiceError):
    """What is stored is not what was written."""

    status = 500
    code = "backup_damaged"


def new_name(prefix: str) -> str:
    """Return a name in the vault that nobody can guess."""
    return f"{prefix}/{secrets.token_hex(16)}"


def chunk_count(file: StoredFile) -> int:
    """Return of how many chunks a file is made; an empty one has none."""
    return -(-file.size_bytes // file.chunk_bytes)


def stored_size(file: StoredFile) -> int:
    """Return how many bytes a whole file takes in the vault."""
    return file.size_bytes + chunk_count(file) * (NONCE_BYTES + TAG_BYTES)


def chunk_write(file: StoredFile, key: bytes, index: int, plain: bytes) -> None:
    """Store one chunk, durably; one of an earlier attempt is replaced. Raises VaultAwayError."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(key).encrypt(nonce, plain, _about(file, index))
    with _away():
        _storage().save(_chunk_name(file, index), ContentFile(sealed))


def chunk_read(file: StoredFile, key: bytes, index: int) -> bytes:
    """Return one chunk. Raises DamagedError, VaultAwayError."""
    size = min(file.chunk_bytes, file.size_bytes - index * file.chunk_bytes)
    wanted = size + NONCE_BYTES + TAG_BYTES
    try:
        with _away(), _storage().open(_chunk_name(file, index), "rb") as stored:
            sealed = stored.read(wanted + 1)
    except FileNotFoundError as error:
        raise DamagedError(f"piece {index} of the backup is missing") from error
    try:
        plain = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _about(file, index))
    except (InvalidTag, ValueError) as error:
        raise DamagedError(f"piece {index} of the backup is damaged") from error
    if len(plain) != size:
        raise DamagedError(f"piece {index} of the backup is damaged")
    return plain


def remove(storage_name: str, *, at_once: int = REMOVE_AT_ONCE) -> bool:
    """Remove up to `at_once` pieces of a file; True when none is left. Raises VaultAwayError."""
    storage = _storage()
    with _away():
        try:
            names = storage.listdir(storage_name)[1]
        except FileNotFoundError:
            return True
        for name in names[:at_once]:
            storage.delete(f"{storage_name}/{name}")
        if len(names) <= at_once:
            storage.delete(storage_name)  # the folder, where a storage has such
            return True
    return False


@contextlib.contextmanager
def _away() -> Iterator[None]:
    """Raise FileNotFoundError where there is no such object, VaultAwayError for all else."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) in ABSENT:
            raise FileNotFoundError(str(error)) from error
        raise VaultAwayError(str(error)) from error
    except (BotoCoreError, OSError) as error:
        raise VaultAwayError(str(error)) from error


def _storage() -> Storage:
    return storages["backups"]


def _chunk_name(file: StoredFile, index: int) -> str:
    return f"{file.storage_name}/{index:08d}"


def _about(file: StoredFile, index: int) -> bytes:
    return (
        b"weftkit.chunk"
        + file.pk.bytes
        + file.size_bytes.to_bytes(8, "big")
        + index.to_bytes(8, "big")
    )
