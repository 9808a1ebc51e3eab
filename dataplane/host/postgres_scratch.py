"""A PostgreSQL server beside an instance's own: it recovers or loads data that nobody serves yet.

It works in `workplace/data` and on a socket that only the host knows, within the bounds of the
plan. It archives nothing, so nothing of what it does mixes with the instance's own log.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dataplane.files import write_atomically
from dataplane.host import paths, template
from dataplane.host.door import Door
from dataplane.host.logfile import last_lines
from dataplane.host.postgres import bounds_of, postmaster_status
from dataplane.host.postgres_program import SAYS_NO_ROOM
from dataplane.host.postgres_settings import render, setting_lines
from dataplane.host.process import ServerProcess
from dataplane.host.server import Site, directory_bytes
from dataplane.host.work import NO_ROOM, Order, TaskError
from engines.kit.records import InstanceRecord

SOCKET_DIRECTORY = "new"
LOOK_SECONDS = 0.05
MEASURE_SECONDS = 1.0
READY_SECONDS_MAX = 4 * 3600.0  # recovery replays days of log
STOP_SECONDS_MAX = 600.0  # the last checkpoint writes all of the shared buffers
KILL_SECONDS_MAX = 10.0
SAID_LINES, SAID_BYTES_MAX = 40, 16 * 1024
APART = {"archive_command": "/bin/true", "archive_timeout": "0s", "summarize_wal": "off"}
TOO_LARGE = TaskError("too_large", "the content is larger than the plan's storage")


class ServerEndedError(Exception):
    """The server ended by itself; `said` is the end of its log."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class PostgresScratch:
    """One scratch server; `data` is its directory, and may become the instance's."""

    def __init__(self, order: Order, site: Site, record: InstanceRecord) -> None:
        self._order = order
        self._record = record
        # In no cgroup of the instance: its bounds are the instance's own server's.
        self._site = replace(site, instance_dir=paths.workplace(site.instance_dir), cgroups=None)
        name = f".s.PGSQL.{paths.POSTGRES_PORT}"
        self.door = Door(site.socket_dir / SOCKET_DIRECTORY / name)
        self._process: ServerProcess | None = None

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self._site.data

    async def start(self, settings: Mapping[str, str]) -> None:
        """Start it with `settings` beside those of the record. Raises OSError."""
        await asyncio.to_thread(self._write_settings, settings)
        directory = self.door.outer.parent
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        # The lock of a server that was killed with its host may name a number in use again.
        for left in directory.glob(f"{self.door.outer.name}*"):
            left.unlink(missing_ok=True)
        self._process = self._site.launch(
            [self._order.settings.postgres_bin / "postgres", "-D", self.data],
            bounds_of(self._record.limits),
        )

    async def ready(self) -> None:
        """Wait until it is open, recovered and promoted.

        Raises ServerEndedError, TaskError, TaskCancelledError.
        """
        deadline = time.monotonic() + READY_SECONDS_MAX
        measured_at = 0.0
        while postmaster_status(self.data) != "ready":
            self._order.progress.check()
            if self._process is None or not self._process.is_running:
                raise ServerEndedError(await asyncio.to_thread(self._said))
            if time.monotonic() > deadline:
                raise TaskError("too_slow", "the content took too long to load")
            if time.monotonic() - measured_at > MEASURE_SECONDS:
                measured_at = time.monotonic()
                await self.demand_size()
            await asyncio.sleep(LOOK_SECONDS)

    async def demand_size(self) -> int:
        """Return the size of tables and indexes, in bytes. Raises TaskError above the plan's."""
        size = await asyncio.to_thread(directory_bytes, self.data / "base")
        most = self._record.limits.storage_bytes
        if most is not None and size > most:
            raise TOO_LARGE
        return size

    async def stop(self) -> None:
        """Stop it with a last checkpoint: all is then on disk. Raises TaskError."""
        process = self._process
        assert process is not None
        process.send(signal.SIGINT)
        if not await process.wait_for(STOP_SECONDS_MAX):
            await self.kill()
            raise TaskError("too_slow", "the host could not write the loaded content")
        self._process = None
        said = await asyncio.to_thread(self._said)
        if "database system is shut down" not in said:
            raise _failure(said)

    async def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.send(signal.SIGQUIT)
            if not await self._process.wait_for(KILL_SECONDS_MAX):
                self._process.send(signal.SIGKILL)
                await self._process.wait_for(KILL_SECONDS_MAX)
            self._process = None

    def _said(self) -> str:
        return last_lines(self._site.log, SAID_LINES, SAID_BYTES_MAX)

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        bins, templates = (
            self._order.settings.postgres_bin,
            paths.templates_dir(self._order.settings.home),
        )
        text = render(
            self._record.limits,
            handle=self._record.handle,
            socket_dir=self.door.outer.parent,
            version=template.postgres_version(bins),
            extensions=template.extension_directory(bins, templates),
        )
        text += setting_lines({**APART, **settings})
        write_atomically(self.data / "postgresql.conf", text.encode())


def _failure(said: str) -> TaskError:
    if SAYS_NO_ROOM in said:
        return NO_ROOM
    return TaskError("host_failed", "the host could not write the loaded content")
