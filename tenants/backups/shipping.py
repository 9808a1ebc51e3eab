"""Bytes between the hosts' depot and the vault, in slices that a worker does between two commits.

A slice goes on from `shipped_bytes`, which moves only forward and only for the attempt that it
belongs to (the storage name): two workers with one slice write the same pieces. The way back counts
by the parts that are in the depot: a part is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from django.utils import timezone

from tenants.backups import vault
from tenants.backups.keys import data_key_new, data_key_of
from tenants.backups.models import StoredFile
from tenants.core.errors import ServiceError
from tenants.core.models import uuid7
from tenants.instances import depot
from tenants.operations.job import Work

SLICE_S = 1.0


class LostError(ServiceError):
    """What the host wrote is not in the depot any more."""

    status = 500
    code = "file_lost"


def stored_file_new(*, prefix: str, role: str, depot_name: str) -> StoredFile:
    """Return a new, unsaved file; `prefix` is its folder in the vault."""
    file = StoredFile(pk=uuid7(), role=role, depot_name=depot_name)
    file.chunk_bytes = vault.CHUNK_BYTES
    _begin(file, prefix)
    return file


def stored_file_announce(*, file: StoredFile, size_bytes: int, sha256: str) -> None:
    """Note what the host says that it wrote, and begin to ship it under a new name and key."""
    file.size_bytes, file.sha256, file.shipped_bytes = size_bytes, sha256, 0
    _begin(file, file.storage_name.partition("/")[0])
    file.save()


def into_vault(files: Sequence[StoredFile]) -> Work | None:
    """Return the next slice of the way into the vault; None when all is there."""
    total = sum(file.size_bytes for file in files)
    done = sum(file.shipped_bytes for file in files)
    file = next((file for file in files if file.shipped_bytes < file.size_bytes), None)
    return None if file is None else Work(lambda: _ship(file), done, total)


def into_depot(files: Sequence[StoredFile], names: Sequence[str]) -> Work | None:
    """Return the next slice of the way back, each file to its name; None when all is there."""
    have = [depot.content_size(name=name) for name in names]
    total = sum(file.size_bytes for file in files)
    for file, name, size in zip(files, names, have, strict=True):
        if size < file.size_bytes:
            return Work(_fetching(file, name, size), sum(have), total)
    return None


def _begin(file: StoredFile, prefix: str) -> None:
    key = data_key_new(file_id=file.pk)
    file.storage_name = vault.new_name(prefix)
    file.key_id, file.wrapped_key = key.key_id, key.wrapped


def _ship(file: StoredFile) -> None:
    key = data_key_of(file)
    offset = file.shipped_bytes
    until = time.monotonic() + SLICE_S
    while offset < file.size_bytes:
        size = min(file.chunk_bytes, file.size_bytes - offset)
        plain = _from_depot(file, offset, size)
        vault.chunk_write(file, key, offset // file.chunk_bytes, plain)
        moved = StoredFile.objects.filter(
            pk=file.pk, storage_name=file.storage_name, shipped_bytes=offset
        ).update(shipped_bytes=offset + size, updated_at=timezone.now())
        if not moved:  # another worker was faster, or another attempt has begun
            return
        offset += size
        if time.monotonic() > until:
            return


def _from_depot(file: StoredFile, offset: int, size: int) -> bytes:
    plain = b""
    with contextlib.suppress(FileNotFoundError):
        plain = depot.content_read(name=file.depot_name, offset=offset, size=size)
    if len(plain) != size:
        raise LostError("what the host wrote is gone: try again")
    return plain


def _fetching(file: StoredFile, name: str, offset: int) -> Callable[[], None]:
    def fetch() -> None:
        key, at = data_key_of(file), offset
        until = time.monotonic() + SLICE_S
        while at < file.size_bytes:
            # Parts are whole, so what is there ends where a chunk ends.
            plain = vault.chunk_read(file, key, at // file.chunk_bytes)
            depot.part_save(name=name, offset=at, data=plain)
            at += len(plain)
            if time.monotonic() > until:
                return

    return fetch
