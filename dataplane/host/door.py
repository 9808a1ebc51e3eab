"""The name under which clients find a server's socket: there exactly while they may connect.

A server listens on a socket inside `own/`. Renaming the socket opens and closes the door without
touching the server: a name that is gone refuses at once, and whoever got in before stays in. So
nobody meets a server that still starts, and a server can be stopped without a client slipping in
between the last look and the stop: close the door, look again through the inner name, then stop.
The kernel queues connections in order, so ours, made after the door closed, is taken last.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

INNER_DIRECTORY = "own"


@dataclass(frozen=True, slots=True)
class Door:
    """The two names of one server's socket; it has one of them at a time."""

    outer: Path

    @property
    def inner(self) -> Path:
        """The name that the server is configured with."""
        return self.outer.parent / INNER_DIRECTORY / self.outer.name

    @property
    def path(self) -> Path:
        """Where the host connects now."""
        # The outer name may be one that a killed server left behind; the inner one never is.
        return self.inner if self.inner.exists() else self.outer

    def open(self) -> None:
        """Let clients in; does nothing if they are."""
        with contextlib.suppress(FileNotFoundError):
            self.inner.rename(self.outer)

    def close(self) -> None:
        """Let nobody in any more; does nothing if the door is closed."""
        with contextlib.suppress(FileNotFoundError):
            self.outer.rename(self.inner)

    def clear(self) -> None:
        """Remove both names and PostgreSQL's lock beside them; for a server that has ended."""
        self.inner.parent.mkdir(mode=0o700, exist_ok=True)
        for directory in (self.inner.parent, self.outer.parent):
            for left in directory.glob(f"{self.outer.name}*"):
                left.unlink(missing_ok=True)
