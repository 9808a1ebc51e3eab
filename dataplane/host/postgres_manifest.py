"""The manifest of a base backup: found in the tar as it passes, read, and held against the files.

PostgreSQL lists every file with size and SHA-256, which we compute while we unpack: so each byte is
read once, and `pg_verifybackup` (which some builds ship unusable) is not needed.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from dataplane.host.work import TaskError

MANIFEST = "backup_manifest"
MANIFEST_BYTES_MAX = 64 * 1024 * 1024  # 160 bytes a file
# What a manifest leaves out, for the most part: itself, and the log, which has its own checksums.
UNLISTED = (MANIFEST, "pg_wal/")

log = structlog.get_logger("host")

INVALID = TaskError("backup_invalid", "the backup is damaged or not complete")


class MemberTap:
    """Lets the chunks of a tar pass, and keeps the content of one member."""

    def __init__(self, name: str = MANIFEST, bytes_max: int = MANIFEST_BYTES_MAX) -> None:
        self._name = name
        self._bytes_max = bytes_max
        self._header = bytearray()
        self._left = 0  # of the body that passes, with its padding
        self._size = 0
        self._is_ours = False
        self._content = bytearray()
        self.passed_bytes = 0

    @property
    def content(self) -> bytes:
        """The member. Raises TaskError where none has passed."""
        if not self._size or len(self._content) < self._size:
            raise INVALID
        return bytes(self._content[: self._size])

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield all chunks as they are."""
        for chunk in chunks:
            self._see(chunk)
            self.passed_bytes += len(chunk)
            yield chunk

    def _see(self, chunk: bytes) -> None:
        at = 0
        while at < len(chunk):
            if self._left:
                end = min(len(chunk), at + self._left)
                if self._is_ours:
                    self._content += chunk[at:end]
                self._left -= end - at
            else:
                end = min(len(chunk), at + tarfile.BLOCKSIZE - len(self._header))
                self._header += chunk[at:end]
                if len(self._header) == tarfile.BLOCKSIZE:
                    self._begin(bytes(self._header))
                    self._header.clear()
            at = end

    def _begin(self, header: bytes) -> None:
        if not any(header):
            return  # the end of the tar
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        size = member.size if member.isreg() else 0
        self._left = -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        self._is_ours = member.name == self._name
        if self._is_ours:
            if size > self._bytes_max:
                raise TaskError("too_large", "the instance has too many files")
            self._size = size


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says."""

    system_identifier: str
    timeline: int
    start_lsn: str
    stop_lsn: str
    files: Mapping[str, tuple[int, str]]  # path -> size, SHA-256

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Read a manifest, and check its own checksum. Raises TaskError."""
        try:
            body: dict[str, Any] = json.loads(text)
            # It covers all before its own line.
            head = text[: text.rindex(b'"Manifest-Checksum"')]
            if hashlib.sha256(head).hexdigest() != body["Manifest-Checksum"]:
                raise INVALID
            last = body["WAL-Ranges"][-1]
            return cls(
                str(body["System-Identifier"]),
                int(last["Timeline"]),
                str(last["Start-LSN"]),
                str(last["End-LSN"]),
                {_path(each): (int(each["Size"]), str(each["Checksum"])) for each in body["Files"]},
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise INVALID from error

    def demand(self, found: Mapping[str, tuple[int, str]]) -> None:
        """Compare with what was unpacked: all of it and nothing else. Raises TaskError."""
        listed, wanted = (
            {path: fact for path, fact in files.items() if not path.startswith(UNLISTED)}
            for files in (found, self.files)
        )
        if listed != wanted:
            differing = [path for path, _ in listed.items() ^ wanted.items()]
            log.warning("backup_differs", count=len(differing), paths=sorted(differing)[:5])
            raise INVALID


def _path(entry: Mapping[str, str]) -> str:
    encoded = entry.get("Encoded-Path")
    return entry["Path"] if encoded is None else bytes.fromhex(encoded).decode()
