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
UNFINISHED = ".new"


class DurableStorage(FileSystemStorage):
    """What was saved is on disk when `save` returns; until then nothing has its name."""

    def _save(self, name: str, content: File[Any]) -> str:
        unnamed = f"{name}.{secrets.token_hex(8)}{UNFINISHED}"
        path = self.path(super()._save(unnamed, content))  # type: ignore[misc]
        _sync(path)
        os.replace(path, self.path(name))
        _sync(os.path.dirname(path))
        _sync(os.path.dirname(os.path.dirname(path)))
        return name


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


def content_size(*, name: str) -> int:
    """Return how many bytes of a file are there; 0 for none."""
    try:
        parts = _parts(name)
    except FileNotFoundError:
        return 0
    return int(parts[-1]) + int(_storage().size(f"{name}/{parts[-1]}")) if parts else 0


def content_read(*, name: str, offset: int, size: int) -> bytes:
    """Return up to `size` bytes from `offset` on, less only at the end of the file.

    Raises FileNotFoundError where the file, or the part that it needs, is not there.
    """
    parts = _parts(name)
    if not parts:
        raise FileNotFoundError(name)
    pieces: list[bytes] = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if following and int(following) <= offset:
            continue
        with _storage().open(f"{name}/{part}", "rb") as opened:
            opened.seek(offset - int(part))
            data: bytes = opened.read(size)
        pieces.append(data)
        offset, size = offset + len(data), size - len(data)
        if not size:
            break
    return b"".join(pieces)


class Content:
    """The bytes of a file, in pieces of up to `READ_BYTES`; one open part at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts = iter(_parts(name))
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


def _parts(name: str) -> list[str]:
    """Return the whole parts of a file in order. Raises FileNotFoundError."""
    return sorted(part for part in _storage().listdir(name)[1] if part.isdigit())


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage() -> Storage:
    return storages["files"]
