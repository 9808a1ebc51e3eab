"""From a chain of base backups in the depot to one data directory, each byte proven on the way.

    read ─► digest ─► gunzip ─► untar, with the digest of each file ─► as its manifest says
    several ─► pg_combinebackup ─► data/

Unpacked is only what PostgreSQL itself puts into a backup: plain files and directories.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import structlog

from dataplane.host import template
from dataplane.host.bounds import MEBIBYTE
from dataplane.host.depot import FileMissingError, Stored
from dataplane.host.postgres_archive import SUFFIX, unpacked
from dataplane.host.postgres_manifest import INVALID, MANIFEST, MANIFEST_BYTES_MAX, Manifest
from dataplane.host.postgres_program import running
from dataplane.host.work import NO_ROOM, Order, TaskError
from engines.kit.pg_tasks import BaseFile, WalFile
from engines.kit.pg_tasks import Stored as StoredName

CHUNK_BYTES = 1 << 20
FREE_BYTES_MIN = 128 * MEBIBYTE
COMBINE_SECONDS_MAX = 4 * 3600.0
LINKING_SINCE = 18  # pg_combinebackup --link
INCOMPLETE = TaskError("file_incomplete", "a file of the backup is not what was saved")

log = structlog.get_logger("host")


def demand_room(directory: Path, chain: Sequence[BaseFile], wal: Sequence[WalFile]) -> None:
    """Refuse what does not fit on the disk. Raises TaskError."""
    unpacked_bytes = sum(base.unpacked_bytes for base in chain)
    # Combining writes at most all of it once more, recovery what the log says.
    copies = 1 if len(chain) == 1 else 2
    needed = copies * unpacked_bytes + 2 * sum(each.size_bytes for each in wal) + FREE_BYTES_MIN
    if shutil.disk_usage(directory).free < needed:
        raise NO_ROOM


def unpack_chain(order: Order, chain: Sequence[BaseFile], workplace: Path, data: Path) -> Manifest:
    """Make `data` from a full backup and its increments; return the last one's manifest; blocks.

    Raises TaskError, TaskCancelledError, OSError.
    """
    parts = [workplace / f"chain-{number:02d}" for number in range(len(chain))]
    manifests = [unpack(order, base, part) for base, part in zip(chain, parts, strict=True)]
    if len(parts) == 1:
        parts[0].rename(data)
    else:
        _combine(order, parts, workplace, data)
        for part in parts:
            shutil.rmtree(part)
    return manifests[-1]


def unpack(order: Order, base: BaseFile, target: Path) -> Manifest:
    """Unpack one backup into `target`, which must not exist, and prove it; blocks."""
    found: dict[str, tuple[int, str]] = {}
    chunks = read(order, base)
    source = _Reader(unpacked(chunks), base.unpacked_bytes)
    target.mkdir(mode=0o700)
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK_BYTES) as tar:
            for member in tar:
                _unpack_member(tar, member, target, found)
        source.drain()
    except (tarfile.TarError, zlib.error, ValueError) as error:
        log.warning("backup_unreadable", cause=repr(error), file=base.file)
        # What is not what was saved is the better reason, and known only at its end.
        for _ in chunks:
            pass
        raise INVALID from error
    path = target / MANIFEST
    if not path.is_file() or path.stat().st_size > MANIFEST_BYTES_MAX:
        raise INVALID
    manifest = Manifest.parse(path.read_bytes())
    manifest.demand(found)
    _demand_version(order, target)
    return manifest


def read(order: Order, stored: StoredName | WalFile) -> Iterator[bytes]:
    """Yield a file's chunks; blocks. Raises TaskError where it is not what was saved."""
    try:
        expected = Stored(stored.size_bytes, stored.sha256)
        yield from order.depot.read(stored.file, expected, order.progress.add)
    except FileMissingError as error:
        raise INCOMPLETE from error


def fetch_wal(order: Order, wal: Sequence[WalFile], archive: Path) -> None:
    """Put the log where `restore_command` finds it, still compressed; blocks."""
    archive.mkdir(mode=0o700)
    for each in wal:
        with (archive / f"{each.name}{SUFFIX}").open("wb") as file:
            for chunk in read(order, each):
                file.write(chunk)


def _unpack_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: Path,
    found: dict[str, tuple[int, str]],
) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError("a path leads out of the backup")
    path = target / name
    if member.isdir():
        path.mkdir(mode=0o700, exist_ok=True)
        return
    body = tar.extractfile(member) if member.isreg() else None
    if body is None:
        raise ValueError("neither file nor directory")
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := body.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    found[str(name)] = (member.size, digest.hexdigest())


def _demand_version(order: Order, data: Path) -> None:
    """Refuse data of another major version: their files are of another kind."""
    ours = template.postgres_version(order.settings.postgres_bin)[0]
    theirs = (data / "PG_VERSION").read_text().strip()
    if theirs != str(ours):
        raise TaskError(
            "backup_version", f"the backup is of PostgreSQL {theirs}, the host has {ours}"
        )


def _combine(order: Order, parts: Sequence[Path], workplace: Path, data: Path) -> None:
    version = template.postgres_version(order.settings.postgres_bin)
    how = ["--link"] if version[0] >= LINKING_SINCE else []
    program = order.settings.postgres_bin / "pg_combinebackup"
    arguments: list[str | Path] = [*how, "--no-sync", "--no-manifest", "-o", data, *parts]
    try:
        with running(program, arguments, workplace) as combining:
            combining.finish(COMBINE_SECONDS_MAX, order.progress)
    except TaskError as error:
        if error.code == "host_failed":
            raise TaskError(
                "backup_invalid", "these backups do not build on one another"
            ) from error
        raise


class _Reader(io.RawIOBase):
    """Chunks as a file that is read once, at most `bytes_max` of them."""

    def __init__(self, chunks: Iterator[bytes], bytes_max: int) -> None:
        self._chunks = chunks
        self._left = bytes_max
        self._chunk = b""

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left -= len(chunk)
            if self._left < 0:
                raise ValueError("the backup is larger than it was when it was saved")
            self._chunk = chunk
        piece, self._chunk = self._chunk[:size], self._chunk[size:]
        return piece

    def drain(self) -> None:
        """Read to the end, where the file's digest is compared."""
        while self.read(CHUNK_BYTES):
            pass
