"""When an instance may sleep, and the mark on disk that says that it does.

A server is looked at now and then. A look sees who is connected, and how many sessions there have
been since the server started: a client that came and went between two looks counts as well.

The mark is written once the server has ended, and removed before one is started. A host that is
killed in between finds a stopped server without a mark, and starts it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dataplane.files import write_atomically
from engines.kit.records import InstanceRecord

# Looking costs a connection: a few looks in the plan's time, and not too far apart.
LOOKS_PER_TIME = 8
LOOK_SECONDS = (0.05, 60.0)
# Something that must not be cut short is under way, or somebody was there at the last moment.
AGAIN_SECONDS = 5.0

# Who is told to sleep waits so long for a client that comes back between two requests.
TOLD_SECONDS = 2.0

FORMAT = 1
MARK = "hibernated"


@dataclass(frozen=True, slots=True)
class Activity:
    """What one look at a server saw."""

    clients: int  # connected now, without ourselves
    sessions: int  # of clients since the server started
    is_working: bool = False  # on its own: a vacuum, a rewrite of its file


@dataclass(slots=True)
class Idleness:
    """Since when nobody has used a server, as far as our looks tell; times are monotonic."""

    _since: float | None = None
    _sessions: int = -1

    def note(self, seen: Activity | None, now: float) -> None:
        """Take a look's result; None where the server did not answer."""
        if seen is None or seen.clients:
            self.forget()
        elif seen.sessions != self._sessions:
            self._since, self._sessions = now, seen.sessions

    def forget(self) -> None:
        """Begin anew: another server, or another wish."""
        self._since, self._sessions = None, -1

    def agrees(self, seen: Activity | None) -> bool:
        """Say whether nobody came since the last look, and nothing is under way."""
        return (
            seen is not None
            and not seen.clients
            and not seen.is_working
            and seen.sessions == self._sessions
        )

    def remaining(self, after_s: float, now: float) -> float:
        """Return the seconds until the plan's time is over; the whole time while somebody is in."""
        return after_s if self._since is None else max(0.0, self._since + after_s - now)


def sleeps_after(record: InstanceRecord) -> float | None:
    """Return after how many seconds without clients a server sleeps; None: never."""
    return TOLD_SECONDS if is_told_to_sleep(record) else record.limits.hibernate_after_s


def is_told_to_sleep(record: InstanceRecord) -> bool:
    """Say whether the newest that the control plane asked for is to sleep at once."""
    return record.sleep_generation == record.generation


def pause(after_s: float, remaining: float) -> float:
    """Return when to look again."""
    low, high = LOOK_SECONDS
    return min(max(low, min(after_s / LOOKS_PER_TIME, high)), max(low, remaining))


@dataclass(frozen=True, slots=True)
class Mark:
    """That an instance sleeps: up to which generation, how large it was, and if it was told to."""

    generation: int
    storage_bytes: int
    is_told: bool = False

    def allows(self, record: InstanceRecord) -> bool:
        """Say whether the instance may sleep on under `record`.

        Whoever asks the host for something (a newer generation) is shown a server that runs.
        """
        may = self.is_told or record.limits.hibernate_after_s is not None
        return may and record.generation <= self.generation


def read_mark(instance_dir: Path) -> Mark | None:
    """Return the mark of an instance that sleeps."""
    try:
        body = json.loads((instance_dir / MARK).read_bytes())
        is_told = bool(body.get("is_told", False))
        return Mark(int(body["generation"]), int(body["storage_bytes"]), is_told)
    except (OSError, ValueError, KeyError, TypeError):
        # Without a readable mark the server is started, which is never wrong.
        return None


def write_mark(instance_dir: Path, mark: Mark) -> None:
    """Put the mark on disk. Raises OSError."""
    body = {
        "generation": mark.generation,
        "storage_bytes": mark.storage_bytes,
        "is_told": mark.is_told,
    }
    write_atomically(instance_dir / MARK, json.dumps(body).encode())


def remove_mark(instance_dir: Path) -> None:
    """Take the mark away. Raises OSError."""
    (instance_dir / MARK).unlink(missing_ok=True)
