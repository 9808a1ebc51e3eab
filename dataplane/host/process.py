"""One server process: spawn it apart from us, find it again, signal it, wait for its end.

An instance server outlives the host. It is started in a session of its own and found again by what
it cannot lie about: its program and its working directory (PostgreSQL and Redis both change into
their data directory). A number in a pid file alone proves nothing, because numbers are used again.
Signals and the end of the process go through a pidfd, which names one process for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

# Python ignores these; a server must not inherit that.
DEFAULTED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)

COMMAND_CHARACTERS = 15  # what the kernel keeps of a program's name (TASK_COMM_LEN)


class ServerProcess:
    """A process that runs, ours by birth or adopted."""

    def __init__(self, pid: int) -> None:
        """Take hold of `pid`. Raises ProcessLookupError if there is none."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._ended: asyncio.Future[None] | None = None
        self.exit_code: int | None = None  # once it has ended, of a child of ours; < 0: by a signal

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the process has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended; reaps it if it was our child."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(0):
            return True
        self._close()
        return False

    async def wait(self) -> None:
        """Return once the process has ended."""
        if not self.is_running:
            return
        if self._ended is None:
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_reader(self._pidfd, self._on_end)
        await asyncio.shield(self._ended)

    async def wait_for(self, seconds: float) -> bool:
        """Wait for the end at most so long; say whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()
        return not self.is_running

    def join(self, deadline: float) -> None:
        """Block until the process has ended or the monotonic clock reads `deadline`."""
        while self.is_running and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(left * 1000)

    def release(self) -> None:
        """Let go of a process that shall live on."""
        self._close(reap=False)

    def _on_end(self) -> None:
        self._close()

    def _close(self, *, reap: bool = True) -> None:
        if self._pidfd < 0:
            return
        if self._ended is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            if not self._ended.done():
                self._ended.set_result(None)
        os.close(self._pidfd)
        self._pidfd = -1
        if reap:
            # An adopted process is somebody else's child.
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.exit_code = os.waitstatus_to_exitcode(status)


def spawn(
    arguments: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    log: Path,
    name: str = "",
    standard_input: Path = Path(os.devnull),
) -> ServerProcess:
    """Start a program in a session of its own, its output appended to `log`.

    `name` is what it is told it was called as, instead of its path.
    """
    mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        arguments[0],
        [name or str(arguments[0]), *map(str, arguments[1:])],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, str(standard_input), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), mode, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=DEFAULTED_SIGNALS,
    )
    return ServerProcess(pid)


def adopt(pid: int, *, programs: Sequence[str], directory: Path) -> ServerProcess | None:
    """Take hold of `pid` if it is one of `programs` working in `directory`."""
    try:
        process = ServerProcess(pid)
    except (ProcessLookupError, ValueError):
        return None
    # Looked at after the pidfd is open, so the number cannot have changed hands in between.
    if (
        _program(pid) in [name[:COMMAND_CHARACTERS] for name in programs]
        and _working_directory(pid) == directory.resolve()
    ):
        return process
    process.release()
    return None


async def clear_directory(directory: Path, *, number: int, seconds_max: float) -> None:
    """Return once none of our processes works in `directory`.

    They get the signal `number` (0: none, they end by themselves), and SIGKILL after `seconds_max`.
    """
    left = await asyncio.to_thread(processes_in, directory)
    deadline = time.monotonic() + seconds_max
    _signal_all(left, number)
    while left := await asyncio.to_thread(processes_in, directory):
        if time.monotonic() > deadline:
            _signal_all(left, signal.SIGKILL)
        await asyncio.sleep(0.01)


def processes_in(directory: Path) -> list[int]:
    """Return the processes of our user whose working directory is `directory`."""
    wanted = directory.resolve()
    return [pid for pid in _own_pids() if _working_directory(pid) == wanted]


def memory_bytes(pid: int) -> int:
    """Return what a process and its children take of memory, shared pages divided by sharers."""
    return sum(_proportional_bytes(each) for each in (pid, *children(pid)))


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies too; none if it has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _own_pids() -> Iterator[int]:
    uid = os.geteuid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                yield int(name)


def _working_directory(pid: int) -> Path | None:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None


def _program(pid: int) -> str:
    try:
        # Not /proc/<pid>/exe: Debian's redis-server is a link to a file of another name.
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def _proportional_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
