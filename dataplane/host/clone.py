"""Copying a data directory, and making the copy durable.

`copy_file_range` shares the blocks where the file system can (XFS, btrfs) and copies inside the
kernel where it cannot. About a thousand small files make up an empty PostgreSQL cluster, so the
cost is the number of files: one pass, no metadata kept but the mode.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
CHUNK_BYTES = 1 << 30
# These say "not between these two files" (other file system, old kernel); a plain copy still works.
NOT_IN_KERNEL = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})

_libc = ctypes.CDLL(None, use_errno=True)


def clone_tree(source: Path, target: Path) -> None:
    """Copy a tree of plain files to `target`, which must not exist. Raises OSError."""
    _clone_directory(str(source), str(target))


def sync_file_system(path: Path) -> None:
    """Return once all that was written to the file system of `path` is on disk.

    One syncfs(2) instead of an fsync for each of a thousand files: 20 ms instead of 230 measured.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def _clone_directory(source: str, target: str) -> None:
    os.mkdir(target, DIRECTORY_MODE)
    with os.scandir(source) as entries:
        for entry in entries:
            destination = f"{target}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                _clone_directory(entry.path, destination)
            else:
                _clone_file(entry.path, destination)


def _clone_file(source: str, target: str) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            _copy_bytes(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_bytes(reading: int, writing: int) -> None:
    try:
        while os.copy_file_range(reading, writing, CHUNK_BYTES):
            pass
    except OSError as error:
        if error.errno not in NOT_IN_KERNEL:
            raise
        while os.sendfile(writing, reading, None, CHUNK_BYTES):
            pass
