"""What the supervisor says of itself: one small file, replaced whole, read by `up` and `status`."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dataplane.files import write_atomically
from deploy.local.home import Home


@dataclass(slots=True)
class ProgramStatus:
    """One line of `status`."""

    pid: int = 0
    state: str = "waiting"  # waiting, starting, ready, done, back-off, failed, stopped
    starts: int = 0


@dataclass(slots=True)
class Status:
    """The supervisor's own view."""

    pid: int
    is_ready: bool = False
    error: str = ""
    steps: list[tuple[float, str]] = field(default_factory=list)  # seconds since start, what
    programs: dict[str, ProgramStatus] = field(default_factory=dict)

    def save(self, home: Home) -> None:
        """Replace the file. Raises OSError."""
        write_atomically(_path(home), json.dumps(asdict(self)).encode())


def load(home: Home) -> Status | None:
    """Return what the newest supervisor said, or None where it said nothing."""
    try:
        body = json.loads(_path(home).read_bytes())
        programs = {name: ProgramStatus(**each) for name, each in body.pop("programs").items()}
        body["steps"] = [(seconds, text) for seconds, text in body["steps"]]
        return Status(**body, programs=programs)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def clear(home: Home) -> None:
    """Forget what an earlier supervisor said."""
    _path(home).unlink(missing_ok=True)


def take_lock(home: Home) -> int | None:
    """Become the one supervisor of this home; None if there is one.

    The kernel gives the lock back when the holder ends, however it ends.
    """
    descriptor = os.open(_lock_path(home), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(home: Home) -> bool:
    """Say whether a supervisor runs."""
    if not _lock_path(home).exists():
        return False
    descriptor = take_lock(home)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _path(home: Home) -> Path:
    return home.run_dir / "supervisor.json"


def _lock_path(home: Home) -> Path:
    return home.run_dir / "supervisor.lock"
