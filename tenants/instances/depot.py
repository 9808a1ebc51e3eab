"""The files that the planes hand to each other, through Django's storage API.

The other side is `dataplane/host/depot.py`. A file is a folder of parts that are named by their
offsets, which any storage can hold: no appending, no renaming. With one machine both sides look at
`<home>/files`; an S3 storage in the setting `STORAGES["files"]` needs its twin there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Any

from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage, storages

from engines.kit.tasks import part_name

READ_BYTES = 256 * 1024
FOLDERS = {"export": "exports", "upload": "imports"}


class DurableStorage(FileSystemStorage):
    """What was saved is on disk when `save` returns."""

    def _save(self, name: str, content: File[Any]) -> str:
        saved: str = super()._save(name, content)  # type: ignore[misc]
        path = self.path(saved)
        for each in (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
            descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return saved


def new_name(origin: str) -> str:
    """Return a name that nobody can guess."""
    return f"{FOLDERS[origin]}/{secrets.token_hex(16)}"


def part_save(*, name: str, offset: int, data: bytes) -> None:
    """Store one part; one of an earlier attempt at the same offset is replaced."""
    _storage().save(f"{name}/{part_name(offset)}", ContentFile(data))


def content_remove(*, name: str) -> None:
    """Remove all parts; none is fine."""
    storage = _storage()
    with contextlib.suppress(FileNotFoundError):
        for part in storage.listdir(name)[1]:
            storage.delete(f"{name}/{part}")
    storage.delete(name)


class Content:
    """The bytes of a file, in pieces of up to `READ_BYTES`; one open part at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts = iter(sorted(_storage().listdir(name)[1]))
        self._open: File[bytes] | None = None

    def __iter__(self) -> Content:
        return self

    def __next__(self) -> bytes:
        while True:
            if self._open is None:
                self._open = _storage().open(f"{self._name}/{next(self._parts)}", "rb")
            data: bytes = self._open.read(READ_BYTES)
            if data:
                return data
            self.close()

    def close(self) -> None:
        """Close what is open; also while another thread reads, which then fails."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _storage() -> Storage:
    return storages["files"]
