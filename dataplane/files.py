"""Files that are replaced as a whole: readers, and a crash, see the old content or the new."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PRIVATE = 0o600
# What a killed writer leaves behind ends so; collectors of old rests look for it.
UNNAMED_SUFFIX = ".new"
# Of <fcntl.h> and <linux/fs.h>.
AT_FDCWD = -100
RENAME_EXCHANGE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def write_atomically(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Replace a file. Raises OSError, and then leaves nothing behind."""
    unnamed = path.with_name(f"{path.name}.{os.getpid()}{UNNAMED_SUFFIX}")
    descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unnamed.replace(path)
    except OSError:
        unnamed.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file, and return once the new name also survives a power failure."""
    write_atomically(path, content)
    sync_path(path.parent)


def exchange_names(first: Path, second: Path) -> None:
    """Let two files or directories have each other's name, at once and durably.

    renameat2(2): a crash leaves both names, before or after. Raises OSError, also where the file
    system cannot do it.
    """
    done = _libc.renameat2(
        AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(first))
    sync_path(first.parent)
    sync_path(second.parent)


def sync_path(path: Path) -> None:
    """Return once a file's content, or a directory's names, are on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
