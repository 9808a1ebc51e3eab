"""The files that the planes hand to each other: exports, imports, backups.

A file is a folder of parts (`engines/kit/tasks.py`); the control plane writes what is uploaded part
by part, we write one part. Names are unguessable and say nothing; who may have which is the control
plane's knowledge alone. `DirectoryDepot` is `<home>/files`, where one machine holds both planes; an
object store would be another class of this protocol.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataplane.files import sync_path
from engines.kit.tasks import FILES_DIRECTORY, PART_DIGITS, part_name

CHUNK_BYTES = 1 << 20
# What the control plane makes up; anything else in a row is a mistake or an attack.
NAME = re.compile(r"(?:exports|imports)/[0-9a-f]{32}")
PART = re.compile(rf"[0-9]{{{PART_DIGITS}}}")

Count = Callable[[int], None]


class FileMissingError(Exception):
    """There is no whole file of this name and content."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds."""

    size_bytes: int
    sha256: str  # hex


class Depot(Protocol):
    """Where files are kept. All methods block; `count` gets bytes as they pass and may raise."""

    def fetch(self, name: str, target: Path, expected: Stored, count: Count) -> None:
        """Copy a file to `target`, durably.

        Raises FileMissingError where size or digest are not as expected; OSError.
        """
        ...

    def put(self, name: str, source: Path, count: Count) -> Stored:
        """Move `source` into the depot, durably; replaces what is there. Raises OSError."""
        ...

    def read(self, name: str, expected: Stored, count: Count) -> Iterator[bytes]:
        """Yield a file chunk by chunk.

        Raises FileMissingError where size or digest are not as expected, maybe only at the end:
        what was made of the chunks is then worth nothing. Raises OSError.
        """
        ...

    def write(self, name: str, chunks: Iterable[bytes], count: Count) -> Stored:
        """Store what `chunks` yields, durably; replaces what is there.

        Whatever `chunks` raises goes through, and leaves no file. Raises OSError.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file; none is fine."""
        ...


class DirectoryDepot:
    """Files below the home of this machine."""

    def __init__(self, home: Path) -> None:
        self._root = home / FILES_DIRECTORY

    def fetch(self, name: str, target: Path, expected: Stored, count: Count) -> None:
        """Copy all parts of a file, in order, into one."""
        with target.open("wb") as file:
            for chunk in self.read(name, expected, count):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str, expected: Stored, count: Count) -> Iterator[bytes]:
        """Yield the chunks of all parts, in order."""
        digest, size = hashlib.sha256(), 0
        for part in self._parts(name):
            # A part that is not where the one before ended is not of this file.
            if part.name != part_name(size):
                break
            with part.open("rb") as reading:
                while chunk := reading.read(CHUNK_BYTES):
                    count(len(chunk))
                    size += len(chunk)
                    if size > expected.size_bytes:
                        raise FileMissingError(name)
                    digest.update(chunk)
                    yield chunk
        if (size, digest.hexdigest()) != (expected.size_bytes, expected.sha256):
            raise FileMissingError(name)

    def put(self, name: str, source: Path, count: Count) -> Stored:
        """Move a file in as its only part."""
        stored = _digest(source, count)
        part = self._begin(name)
        shutil.move(source, part)  # a rename; a copy where the home has several file systems
        part.chmod(0o600)
        self._finish(name)
        return stored

    def write(self, name: str, chunks: Iterable[bytes], count: Count) -> Stored:
        """Write a file as its only part."""
        digest, size = hashlib.sha256(), 0
        descriptor = os.open(self._begin(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                count(len(chunk))
                size += len(chunk)
                digest.update(chunk)
                file.write(chunk)
        self._finish(name)
        return Stored(size, digest.hexdigest())

    def remove(self, name: str) -> None:
        """Remove a file and what an interrupted `put` left of it."""
        folder = self._folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(f"{folder.name}.new"), ignore_errors=True)

    def _begin(self, name: str) -> Path:
        """Make an unnamed folder, and return where its only part goes."""
        folder = self._folder(name)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unnamed = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(unnamed, ignore_errors=True)
        unnamed.mkdir(mode=0o700)
        return unnamed / part_name(0)

    def _finish(self, name: str) -> None:
        """Let the folder appear under its name, whole and on disk."""
        folder = self._folder(name)
        unnamed = folder.with_name(f"{folder.name}.new")
        sync_path(unnamed / part_name(0))
        sync_path(unnamed)
        shutil.rmtree(folder, ignore_errors=True)
        unnamed.rename(folder)
        sync_path(folder.parent)

    def _folder(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise FileMissingError(name)
        return self._root / name

    def _parts(self, name: str) -> list[Path]:
        try:
            found = [path for path in self._folder(name).iterdir() if PART.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(found)


def _digest(path: Path, count: Count) -> Stored:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            count(len(chunk))
            size += len(chunk)
            digest.update(chunk)
    return Stored(size, digest.hexdigest())
