"""Finding the processes of one home, also those that an earlier supervisor started.

No pid file has to be right. Every process that we start leads a session of its own and carries
three variables: WEFTKIT_HOME, WEFTKIT_PROGRAM (its name in the table of programs, or `instance`)
and WEFTKIT_START (a digest of command and settings: what was started otherwise is not adopted).
Redis and PostgreSQL's children write their titles over their environment; they are known by their
name and the directory in which they work. WEFTKIT_HOME alone means nothing: a shell may have it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataplane.host.process import ServerProcess

PROGRAM_VARIABLE = "WEFTKIT_PROGRAM"
START_VARIABLE = "WEFTKIT_START"
KILL_SECONDS_MAX = 10.0

INSTANCE = "instance"  # as dataplane.host.server has it
# Working directory below the home -> program; below `instances` it is an instance server.
DIRECTORIES = {"postgres": "postgres", "redis": "redis", "instances": INSTANCE}
SERVERS = ("postgres", "redis-server", "valkey-server")
# Without readable variables these are the program itself; PostgreSQL's are its children.
SELF_TITLED = SERVERS[1:]


@dataclass(frozen=True, slots=True)
class Found:
    """A process of this home."""

    pid: int
    program: str
    start: str  # "" where it cannot be read
    is_leader: bool  # the program itself, not one of its children
    command: str  # the kernel's name of it


def marks(
    home: Path, program: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that a process of ours carries."""
    settings = {
        name: value
        for name, value in environment.items()
        if name.startswith("WEFTKIT_") and name not in (PROGRAM_VARIABLE, START_VARIABLE)
    }
    text = json.dumps([list(arguments), sorted(settings.items())])
    return {
        "WEFTKIT_HOME": str(home),
        PROGRAM_VARIABLE: program,
        START_VARIABLE: hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def processes_of(home: Path) -> list[Found]:
    """Return every living process that was started for `home`, but for this one."""
    return [found for pid in _pids() if (found := _look(pid, home)) is not None]


def stop_all(signals: Mapping[int, signal.Signals], seconds_max: float) -> list[int]:
    """Send each process its signal and wait for their end, side by side. Blocks.

    Returns those that had to be killed after `seconds_max`.
    """
    held = {pid: each for pid in signals if (each := _hold(pid)) is not None}
    deadline = time.monotonic() + seconds_max
    for pid, process in held.items():
        process.send(signals[pid])
    killed = []
    for pid, process in held.items():
        process.join(deadline)
        if process.is_running:
            killed.append(pid)
            process.send(signal.SIGKILL)
            process.join(deadline + KILL_SECONDS_MAX)
        process.release()
    return killed


def _hold(pid: int) -> ServerProcess | None:
    try:
        return ServerProcess(pid)
    except ProcessLookupError:
        return None


def _pids() -> Iterator[int]:
    own = os.getpid()
    yield from (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own)


def _look(pid: int, home: Path) -> Found | None:
    directory = Path(f"/proc/{pid}")
    try:
        # A zombie has neither variables nor directory, so the dead are not found.
        variables = _variables(directory)
        command = (directory / "comm").read_text().strip()
        leads = os.getsid(pid) == pid
        program = variables.get(PROGRAM_VARIABLE, "")
        if program and variables.get("WEFTKIT_HOME") == str(home):
            return Found(pid, program, variables.get(START_VARIABLE, ""), leads, command)
        place = Path(os.readlink(directory / "cwd"))
    except OSError:
        return None
    if command in SERVERS and place.is_relative_to(home) and place != home:
        below = place.relative_to(home).parts[0]
        if below in DIRECTORIES:
            leads = leads and command in SELF_TITLED
            return Found(pid, DIRECTORIES[below], "", leads, command)
    return None


def _variables(directory: Path) -> dict[str, str]:
    pairs = (directory / "environ").read_bytes().split(b"\0")
    return dict(each.decode(errors="replace").split("=", 1) for each in pairs if b"=" in each)
