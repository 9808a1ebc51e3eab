"""Whose CPU time it was: ticks of processes, of a server with its children, and of the machine.

Shared machines make throughput doubtful; the CPU time of a process is not stolen by its neighbours.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the command's name (proc(5)): state is the first.
_PARENT, _OWN, _REAPED = 1, slice(11, 13), slice(13, 15)
# Fields of /proc/stat's first line: time in processes, and time that the hypervisor gave to others.
# Interrupts are left out: over loopback they are the measured programs' own.
_USER, _NICE, _SYSTEM, _STEAL = 1, 2, 3, 8


def _fields(pid: int) -> list[str]:
    """Return the fields behind the name; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds that these processes have used themselves."""
    ticks = sum(int(field) for pid in pids for field in _fields(pid)[_OWN])
    return ticks / TICKS_PER_SECOND


def family_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, its living children and those that it saw end.

    Exact for a server that forks a process a session: a child's time moves to its parent.
    """
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = _fields(int(entry.name))
        if fields and pid in (int(entry.name), int(fields[_PARENT])):
            ticks += sum(int(field) for field in [*fields[_OWN], *fields[_REAPED]])
    return ticks / TICKS_PER_SECOND


def parent(pid: int) -> int:
    """Return the parent of a living process."""
    return int(_fields(pid)[_PARENT])


def machine_cpu_seconds() -> float:
    """Return the CPU seconds that all processes have used, and what the host stole."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[i]) for i in (_USER, _NICE, _SYSTEM, _STEAL)) / TICKS_PER_SECOND


def client_cpu_seconds() -> float:
    """Return the CPU seconds of the load generators that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
