"""What a server process may take: resource limits, OOM score, priority, and a cgroup where we may.

An instance must die before the system's own processes do, and one backend's runaway query before
its server: a failed allocation is a clean "out of memory" error in PostgreSQL, the kernel's OOM
killer is not. cgroup v2 bounds the whole instance, but only where the operator delegated a subtree
to us (systemd: `Delegate=yes`); elsewhere it is skipped and the log says so at start.
"""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1024 * 1024
# /proc/<pid>/oom_score_adj: system processes are at 0 or below, the kernel's range ends at 1000.
SERVER_OOM_SCORE = 300
BACKEND_OOM_SCORE = 600
SERVER_NICE = 1
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


class Cgroups:
    """A delegated cgroup v2 subtree with one group an instance."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, name: str, pid: int, bounds: Bounds) -> None:
        """Put a process into the group `name`, made with the bounds given. Raises OSError."""
        group = self._root / name
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(str(bounds.memory_bytes))
        (group / "pids.max").write_text(str(bounds.processes))
        (group / "cgroup.procs").write_text(str(pid))

    def remove(self, name: str) -> None:
        """Remove the group of an instance that is gone."""
        with contextlib.suppress(OSError):
            (self._root / name).rmdir()


def probe_cgroups(
    mount: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Cgroups | str:
    """Return the subtree that was delegated to us, or why there is none.

    Controllers can be handed down only by a group without processes (cgroup v2, "no internal
    process constraint"), so we first move ourselves into a leaf.
    """
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
        root = mount / line.removeprefix("0::").lstrip("/")
        if "memory" not in (root / "cgroup.controllers").read_text().split():
            return "the memory controller is not in our cgroup v2 subtree"
        leaf = root / "weftkit-host"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        (root / "cgroup.subtree_control").write_text("+memory +pids")
        group = root / "weftkit-instances"
        group.mkdir(exist_ok=True)
        (group / "cgroup.subtree_control").write_text("+memory +pids")
    except StopIteration:
        return "this system has no cgroup v2"
    except OSError as error:
        return f"no cgroup v2 subtree is delegated to us ({error.strerror})"
    return Cgroups(group)
