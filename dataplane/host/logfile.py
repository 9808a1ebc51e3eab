"""Logs of servers that write to a file of ours and outlive us: bounded in size by copy and cut.

The server holds the file open with O_APPEND, so after the cut it goes on at the new end. What is
written between copy and cut is lost; that is the price of needing no logging process an instance.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

LOG_BYTES_MAX = 4 * 1024 * 1024


def rotate(log: Path, bytes_max: int = LOG_BYTES_MAX) -> bool:
    """Move the content of `log` to `<log>.1` once it is larger than `bytes_max`."""
    try:
        if log.stat().st_size <= bytes_max:
            return False
    except FileNotFoundError:
        return False
    # On a full disk the copy is cut short; the log gives its space back all the same.
    with contextlib.suppress(OSError):
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True


def last_lines(log: Path, count: int = 3, bytes_max: int = 4096) -> str:
    """Return the last lines, for our own log; never shown to a tenant."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - bytes_max))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return " | ".join(line.strip() for line in lines[-count:])
