"""New data take the place of an instance's: the last stage of imports and restores.

    stop the server ─► exchange the two directories ─► start ─► it answers

The exchange is one system call, so that at any moment `data/` is whole: the old or the new, told
apart by a mark in the new one. If the server does not come up with the new data, they are exchanged
back. Each step can be repeated after a kill.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from dataplane.files import exchange_names, write_durably
from dataplane.host.server import Server, ServerError, Site
from dataplane.host.work import Order, TaskError
from engines.kit.records import InstanceRecord

READY_SECONDS_MAX = 600.0
LOOK_SECONDS = 0.02
MARK = "imported.json"

log = structlog.get_logger("host")


class DataSwitch:
    """The switch of one task: `new_data` becomes what is served."""

    def __init__(
        self,
        order: Order,
        site: Site,
        new_data: Path,
        version: tuple[int, ...],
        *,
        leave: Callable[[], None] = lambda: None,
        come_back: Callable[[], None] = lambda: None,
    ) -> None:
        """`version` is how much of the server's version must not be older than what made the data.

        `leave` is called between stop and exchange, `come_back` when the old data are back; both
        block and may be repeated.
        """
        self._order = order
        self._site = site
        self._new = new_data
        self._version = list(version)
        self._leave = leave
        self._come_back = come_back

    def mark(self) -> None:
        """Mark the new data as this task's; blocks."""
        mark = {"task": self._order.task_id, "server_version": self._version}
        write_durably(self._new / MARK, json.dumps(mark).encode())

    def unmark(self) -> None:
        """Remove the mark of the served data; blocks."""
        (self._site.data / MARK).unlink(missing_ok=True)

    async def commit(self) -> None:
        """Serve the new data; what is served after an error is the old. Raises TaskError."""
        try:
            await self._order.keeper.hold(self._switch)
        except ServerError as error:
            raise TaskError("server_failed", error.detail) from error

    async def _switch(self, server: Server, record: InstanceRecord) -> None:
        if not await asyncio.to_thread(self._is_mine, self._site.data):
            if not await asyncio.to_thread(self._is_mine, self._new):
                raise ServerError("the loaded content is not on the host any more")
            await server.adopt()
            await server.stop()
            await asyncio.to_thread(self._leave)
            await asyncio.to_thread(exchange_names, self._site.data, self._new)
        try:
            await self._comes_up(server, record)
        except Exception as error:  # whatever it is, the old data are served again
            log.warning("import_taken_back", task_id=self._order.task_id, cause=repr(error))
            await server.stop()
            await asyncio.to_thread(exchange_names, self._site.data, self._new)
            await asyncio.to_thread(self._come_back)
            raise ServerError(
                "the server did not start with the new content; it serves the old"
            ) from error

    async def _comes_up(self, server: Server, record: InstanceRecord) -> None:
        """Start the server, unless its keeper did, and wait for its first answer."""
        if server.process is None and not await server.adopt():
            await server.start(record)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not await server.is_ready():
            if server.process is None or not server.process.is_running:
                server.process = None
                raise ServerError("the server ended while it started")
            if time.monotonic() > deadline:
                raise ServerError("the server does not answer")
            await asyncio.sleep(LOOK_SECONDS)

    def _is_mine(self, directory: Path) -> bool:
        """Say whether these are the data of this task, and of no newer server than ours."""
        try:
            mark = json.loads((directory / MARK).read_bytes())
            return bool(
                mark["task"] == self._order.task_id and mark["server_version"] <= self._version
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False
