"""What a kind of task is: work in stages that a host carries out, and how it fails.

`tasks` finds the rows and decides which stage is next; `redis_export` and `redis_import` are such
works. Every stage may be cut off by a kill and is then begun again, so each clears what an earlier
attempt left. Blocking parts run in threads and ask their `Progress` whether to go on.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dataplane.host.depot import Depot
from dataplane.host.keeper import Keeper
from dataplane.host.process import clear_directory
from dataplane.host.settings import HostSettings


class TaskError(Exception):
    """The task cannot be done. `code` is stable, `detail` is safe to show to the tenant."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


NO_ROOM = TaskError("disk_full", "the host has no room for the files")


class TaskCancelledError(Exception):
    """Nobody wants the task any more."""


@dataclass(slots=True)
class Progress:
    """How far a stage is, in bytes; read by the loop while the stage goes on."""

    done_bytes: int = 0
    total_bytes: int = 0  # 0: not known yet
    is_cancelled: bool = False

    def check(self) -> None:
        """Raise TaskCancelledError once the task is cancelled."""
        if self.is_cancelled:
            raise TaskCancelledError

    def add(self, count: int) -> None:
        """Count bytes that are done. Raises TaskCancelledError."""
        self.check()
        self.done_bytes += count


@dataclass(frozen=True, slots=True)
class Order:
    """One task with all that its work needs."""

    task_id: str
    instance_id: str
    parameters: Mapping[str, Any]
    settings: HostSettings
    keeper: Keeper
    depot: Depot
    progress: Progress = field(default_factory=Progress)


class Work(Protocol):
    """The stages of one kind of task; see `engines/kit/tasks.py` for their order."""

    commits: bool  # whether `prepare` is followed by `commit`, or is all

    async def prepare(self) -> Mapping[str, Any]:
        """Do all that changes nothing for the tenant; return the row's `result`.

        Raises TaskError, TaskCancelledError.
        """
        ...

    async def commit(self) -> None:
        """Put in place what was prepared; all or nothing. Raises TaskError."""
        ...

    async def discard(self) -> None:
        """Remove what only this task needed; after its end, whichever that is."""
        ...


async def remove_workplace(workplace: Path) -> None:
    """Remove the directory in which a task worked, and the processes that it left in it."""
    if await asyncio.to_thread(workplace.exists):
        for directory in (workplace, workplace / "data"):
            await clear_directory(directory, number=signal.SIGKILL, seconds_max=0)
        await asyncio.to_thread(shutil.rmtree, workplace, ignore_errors=True)
