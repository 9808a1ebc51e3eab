"""What a server process may take: resource limits, OOM score, priority, and a cgroup where we may.

An instance must die before the system's own processes do, and one backend's runaway query before
its server: a failed allocation is a clean "out of memory" error in PostgreSQL, the kernel's OOM
killer is not. A cgroup bounds the whole instance, and gives each instance the same share of the CPU
however many backends it keeps busy: without one, eight busy backends take eight times the CPU of a
neighbour's single one, and its p99 grows with them (tests/benchmarks/neighbours). It is there only
where the operator delegated groups to us (cgroup v2, systemd: `Delegate=yes`; cgroup v1: a group in
which our user may make others); elsewhere it is skipped and the log says so at start.

CPU is shared by weight, not capped: a quota would stop an instance in the middle of a statement
while cores stand idle, and does not shorten a neighbour's wait for the core that is taken.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1024 * 1024
# /proc/<pid>/oom_score_adj: system processes are at 0 or below, the kernel's range ends at 1000.
SERVER_OOM_SCORE = 300
BACKEND_OOM_SCORE = 600
SERVER_NICE = 1
MOUNT = Path("/sys/fs/cgroup")
# Controller -> file of a group -> a field of `Bounds`, or a figure: every instance weighs the same,
# as much as one process of the rest of the machine.
V2_FILES: Mapping[str, Mapping[str, str]] = {
    "memory": {"memory.max": "memory_bytes"},
    "pids": {"pids.max": "processes"},
    "cpu": {"cpu.weight": "100"},
}
V1_FILES: Mapping[str, Mapping[str, str]] = {
    "memory": {"memory.limit_in_bytes": "memory_bytes"},
    "pids": {"pids.max": "processes"},
    "cpu": {"cpu.shares": "1024"},
}
# One PostgreSQL backend: whatever the plan, a sort and a hash fit.
BACKEND_DATA_BYTES_MIN = 256 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one server; `data_bytes` 0 leaves private memory unlimited."""

    memory_bytes: int  # of the whole instance, for the cgroup
    data_bytes: int  # of each single process
    files: int
    processes: int


def apply_bounds(pid: int, bounds: Bounds) -> None:
    """Bound a process that has just been spawned, so that its children inherit it."""
    _limit(pid, resource.RLIMIT_CORE, 0)
    _limit(pid, resource.RLIMIT_NOFILE, bounds.files)
    if bounds.data_bytes:
        _limit(pid, resource.RLIMIT_DATA, bounds.data_bytes)
    # Each of these fails harmlessly where a container forbids it, or if the process has ended.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(SERVER_OOM_SCORE))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, SERVER_NICE)


def _limit(pid: int, kind: int, value: int) -> None:
    with contextlib.suppress(OSError):
        _, hard = resource.prlimit(pid, kind)
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, kind, (ceiling, hard))


@dataclass(frozen=True, slots=True)
class Subtree:
    """A directory of ours in a hierarchy of cgroups, and the files to write in each group."""

    root: Path
    files: Mapping[str, str]  # name -> a field of `Bounds`, or a figure as it is


class Cgroups:
    """Delegated subtrees with one group an instance: one of cgroup v2, or some of cgroup v1."""

    def __init__(self, subtrees: Sequence[Subtree]) -> None:
        self.subtrees = tuple(subtrees)

    def place(self, name: str, pid: int, bounds: Bounds) -> None:
        """Put a process into the group `name`, made with the bounds given. Raises OSError."""
        for subtree in self.subtrees:
            group = subtree.root / name
            group.mkdir(exist_ok=True)
            for file, value in subtree.files.items():
                (group / file).write_text(str(getattr(bounds, value, value)))
            (group / "cgroup.procs").write_text(str(pid))

    def remove(self, name: str) -> None:
        """Remove the groups of an instance that is gone."""
        for subtree in self.subtrees:
            with contextlib.suppress(OSError):
                (subtree.root / name).rmdir()


def probe_cgroups(mount: Path = MOUNT, own: Path = Path("/proc/self/cgroup")) -> Cgroups | str:
    """Return what was delegated to us, or why there is nothing."""
    lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    places = {controllers: path.lstrip("/") for _, controllers, path in lines}
    found = _probe_v2(mount, places)
    if isinstance(found, str) and (older := _probe_v1(mount, places)):
        return Cgroups(older)
    return found


def _probe_v2(mount: Path, places: Mapping[str, str]) -> Cgroups | str:
    """Take a subtree of cgroup v2.

    Controllers can be handed down only by a group without processes (cgroup v2, "no internal
    process constraint"), so we first move ourselves into a leaf.
    """
    if "" not in places:
        return "this system has no cgroup v2"
    root = mount / places[""]
    try:
        present = (root / "cgroup.controllers").read_text().split()
        if "memory" not in present:
            return "the memory controller is not in our cgroup v2 subtree"
        wanted = [name for name in V2_FILES if name in present]
        leaf = root / "weftkit-host"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        group = root / "weftkit-instances"
        group.mkdir(exist_ok=True)
        for directory in (root, group):
            control = directory / "cgroup.subtree_control"
            control.write_text(" ".join(f"+{name}" for name in wanted))
    except OSError as error:
        return f"no cgroup v2 subtree is delegated to us ({error.strerror})"
    files = {file: value for name in wanted for file, value in V2_FILES[name].items()}
    return Cgroups([Subtree(group, files)])


def _probe_v1(mount: Path, places: Mapping[str, str]) -> list[Subtree]:
    """Take the hierarchies of cgroup v1 in which we may make groups.

    Nothing moves here: a group of version 1 may hold processes and groups at once.
    """
    found = []
    for controllers, path in places.items():
        named = [name for name in controllers.split(",") if name in V1_FILES]
        group = mount / controllers / path / "weftkit-instances"
        if named:
            with contextlib.suppress(OSError):
                group.mkdir(exist_ok=True)
                files = {file: value for name in named for file, value in V1_FILES[name].items()}
                found.append(Subtree(group, files))
    return found
