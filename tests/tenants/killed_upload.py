"""A worker that ends by SIGKILL once a piece of a backup is stored and no row knows of it yet.

`python -m tests.tenants.killed_upload OPERATION PIECE` (PIECE counts from 0).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django

django.setup()  # what follows has models

from tenants.backups import vault  # noqa: E402
from tenants.operations.runner import operation_run  # noqa: E402


def dying_at(piece: int, write: Callable[..., None]) -> Callable[..., None]:
    """Return `chunk_write` that stores a piece and ends the process."""

    def write_and_die(file: Any, key: bytes, index: int, plain: bytes) -> None:
        write(file, key, index, plain)
        if index == piece:
            os.kill(os.getpid(), signal.SIGKILL)

    return write_and_die


if __name__ == "__main__":
    operation, piece = sys.argv[1:]
    vault.chunk_write = dying_at(int(piece), vault.chunk_write)
    operation_run(operation_id=operation)
