"""The archive of closed WAL segments, between an instance's server and `pg_ship_wal`.

PostgreSQL runs this file as a program, alone, for each segment that it closes (`archive_command`),
and, while it recovers, for each that it wants (`restore_command`); so it imports nothing but the
standard library. A segment is forgotten by the server only after we said that it is on disk here.

    python -I -S postgres_archive.py keep PATH ARCHIVE BYTES_MAX
    python -I -S postgres_archive.py fetch ARCHIVE NAME TARGET
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

# `engines/kit/pg_tasks.py` has the same; labels of backups and partial segments restore nothing.
NAME = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
SUFFIX = ".gz"
UNNAMED_SUFFIX = ".new"
CHUNK_BYTES = 1 << 20
GZIP = 31  # wbits: a gzip header, whose time stays 0, so that equal segments make equal files
LEVEL = 1  # most of a segment that was closed early is zeros
PRIVATE = 0o600

# What PostgreSQL takes the exit status for: try again; there is no such file; give recovery up.
FAILED = 1
MISSING = 1
BROKEN = 200


def compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Compress what `chunks` yields, in memory for one chunk."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack one gzip stream, in pieces of bounded size.

    Raises zlib.error where it is damaged or incomplete, or something follows it.
    """
    unpacker = zlib.decompressobj(GZIP)
    for chunk in chunks:
        if unpacker.eof:
            raise zlib.error("bytes follow the end")
        rest = chunk
        while rest and not unpacker.eof:
            if piece := unpacker.decompress(rest, CHUNK_BYTES):
                yield piece
            rest = unpacker.unconsumed_tail
        if unpacker.unused_data:
            raise zlib.error("bytes follow the end")
    # All that is left inside is smaller than a piece: it was asked for until no input was left.
    if piece := unpacker.flush():
        yield piece
    if not unpacker.eof:
        raise zlib.error("the end is missing")


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield a file's content."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def keep(segment: Path, archive: Path, bytes_max: int) -> int:
    """Put a segment into the archive, durably; return the exit status."""
    if not NAME.fullmatch(segment.name):
        return 0
    target = archive / f"{segment.name}{SUFFIX}"
    archive.mkdir(mode=0o700, exist_ok=True)
    if target.exists():  # the server was killed before it noted our success
        return _compare(segment, target)
    if _size(archive) > bytes_max:
        # Nobody has fetched any for days. A full disk would end the instance; a gap ends only the
        # restores across it, and whoever fetches the next ones sees it.
        _say(f"{segment.name} is not archived: {bytes_max} bytes wait to be fetched")
        return 0
    unnamed = archive / f".{segment.name}.{os.getpid()}{UNNAMED_SUFFIX}"
    try:
        _write(unnamed, compressed(chunks_of(segment)), like=segment)
        unnamed.rename(target)
    except OSError as error:
        unnamed.unlink(missing_ok=True)
        _say(f"{segment.name} cannot be archived: {error.strerror}")
        return FAILED
    _sync_directory(archive)
    return 0


def fetch(archive: Path, name: str, target: Path) -> int:
    """Give a recovering server a segment; return the exit status."""
    source = archive / f"{name}{SUFFIX}"
    if not NAME.fullmatch(name) or not source.exists():
        return MISSING
    try:
        _write(target, unpacked(chunks_of(source)), like=source)
    except (OSError, zlib.error) as error:
        _say(f"{name} cannot be fetched: {error}")
        return BROKEN  # not the end of the log: recovery must not stop here as if it were
    return 0


def _compare(segment: Path, target: Path) -> int:
    try:
        with segment.open("rb") as file:
            pieces = unpacked(chunks_of(target))
            is_same = all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)
    except (OSError, zlib.error):
        is_same = False
    if is_same:
        _sync_directory(target.parent)
        return 0
    _say(f"another {segment.name} is in the archive")
    return FAILED


def _size(archive: Path) -> int:
    total = 0
    for path in archive.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _write(path: Path, chunks: Iterator[bytes], *, like: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        # When the segment was written to for the last time tells what it covers.
        written = like.stat().st_mtime_ns
        os.utime(file.fileno(), ns=(written, written))
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    sys.stderr.write(f"archive: {text}\n")


def main(arguments: Sequence[str]) -> int:
    """Run as the program."""
    match arguments:
        case ["keep", segment, archive, bytes_max]:
            return keep(Path(segment), Path(archive), int(bytes_max))
        case ["fetch", archive, name, target]:
            return fetch(Path(archive), name, Path(target))
        case _:
            return BROKEN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
