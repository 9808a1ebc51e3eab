"""Files that are replaced as a whole: readers, and a crash, see the old content or the new."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600
# What a killed writer leaves behind ends so; collectors of old rests look for it.
UNNAMED_SUFFIX = ".new"


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
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
