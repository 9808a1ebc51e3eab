"""PostgreSQL's own client programs as parts of a task: bounded, cancelled with it, and read safely.

A program works in a directory of its task's workplace, so that the successor of a killed host finds
and ends it; one that writes to us ends with us. All that it says goes into a file without a name.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import structlog

from dataplane.host import paths, template
from dataplane.host.bounds import MEBIBYTE, Bounds, apply_bounds
from dataplane.host.postgres import TASK_APPLICATION
from dataplane.host.server import SERVER_ENVIRONMENT
from dataplane.host.work import Progress, TaskError

CHUNK_BYTES = 1 << 20
SAID_BYTES_MAX = 16 * 1024
END_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.05
SAYS_NO_ROOM = "No space left on device"
# Dumps keep a list of everything in memory, combined backups a map of every block.
BOUNDS = Bounds(memory_bytes=0, data_bytes=1024 * MEBIBYTE, files=4096, processes=64)

log = structlog.get_logger("host")


class ProgramError(TaskError):
    """A program failed; `said` is the end of what it wrote, for us only."""

    def __init__(self, program: str, said: str) -> None:
        if SAYS_NO_ROOM in said:
            super().__init__("disk_full", "the host has no room for the files")
        else:
            super().__init__("host_failed", f"{program} failed; the host's log has the reason")
        self.said = said


class Program:
    """A program that runs; see `running`."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes], name: str) -> None:
        self._process = process
        self._said = said
        self._name = name

    def chunks(self) -> Iterator[bytes]:
        """Yield what it writes to its standard output; then as `finish`."""
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read(CHUNK_BYTES):
            yield chunk
        self.finish(END_SECONDS_MAX, Progress())

    def finish(self, seconds_max: float, progress: Progress) -> str:
        """Wait for the end; return what it said. Raises ProgramError, TaskCancelledError."""
        deadline = time.monotonic() + seconds_max
        while True:
            progress.check()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(LOOK_SECONDS)
                break
            if time.monotonic() > deadline:
                raise TaskError("too_slow", f"{self._name} took too long")
        self._said.seek(max(0, self._said.seek(0, 2) - SAID_BYTES_MAX))
        said = self._said.read().decode(errors="replace")
        if status != 0:
            log.warning("program_failed", program=self._name, status=status, said=said[-1000:])
            raise ProgramError(self._name, said)
        return said


@contextlib.contextmanager
def running(
    program: Path,
    arguments: Sequence[str | Path],
    directory: Path,
    *,
    is_read: bool = False,
    data_bytes: int = BOUNDS.data_bytes,
) -> Iterator[Program]:
    """Start a program in `directory`, and see to it that it has ended afterwards. Raises OSError.

    `is_read`: its standard output goes to `chunks`; else to what it says.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if is_read else said,
            stderr=said,
            cwd=directory,
            env={**SERVER_ENVIRONMENT, "PGAPPNAME": TASK_APPLICATION, "PGCONNECT_TIMEOUT": "10"},
            start_new_session=True,
        )
        try:
            apply_bounds(process.pid, replace(BOUNDS, data_bytes=data_bytes))
            yield Program(process, said, program.name)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def connection_arguments(socket: Path, user: str = template.SUPERUSER) -> list[str]:
    """Return the options of every client program for a server's socket."""
    return ["-h", str(socket.parent), "-p", str(paths.POSTGRES_PORT), "-U", user, "-w"]
