"""RDB export: the running server saves by itself, and its file becomes an export.

BGSAVE forks, so the file is one moment of all databases, functions included, and clients are served
meanwhile. Nobody else can ask for a save (`save ""`, and no role may), so a `dump.rdb` is ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataplane.host import paths
from dataplane.host.redis_control import RedisReplyError, Reply, exchange
from dataplane.host.server import Server, ServerError, Site
from dataplane.host.work import Order, TaskError
from engines.kit.auth import service_secret
from engines.kit.records import InstanceRecord

SAVE_SECONDS_MAX = 1800.0
LOOK_SECONDS = 0.05
# FLUSHALL ends a save that runs, and so does the end of the server: then it is asked for again.
SAVES_MAX = 5
# A scheduled save begins within a tenth of a second, or five seconds after one that failed.
QUIET_SECONDS_MAX = 6.0
READY_SECONDS_MAX = 600.0
FILE = "dump.rdb"


class RdbExport:
    """Parameters: `file`, the name in the depot. Result: `size_bytes`, `sha256`."""

    commits = False

    def __init__(self, order: Order) -> None:
        self._order = order
        self._site = Site.of(order.settings, order.instance_id)
        self._socket = paths.redis_socket(order.settings.run_dir, order.instance_id)
        self._secret = service_secret(order.settings.master_key, order.instance_id)

    async def prepare(self) -> Mapping[str, Any]:
        """Save, and move the file into the depot."""
        progress = self._order.progress
        try:
            await self._order.keeper.hold(self._has_running_server)
        except ServerError as error:
            raise TaskError("not_in_service", error.detail) from error
        saved = await self._save()
        progress.done_bytes = 0
        progress.total_bytes = saved.stat().st_size
        stored = await asyncio.to_thread(
            self._order.depot.put, self._order.parameters["file"], saved, progress.add
        )
        return {"size_bytes": stored.size_bytes, "sha256": stored.sha256}

    async def commit(self) -> None:
        """Do nothing: the instance is as it was."""

    async def discard(self) -> None:
        """Remove the file, saved or stored."""
        await asyncio.to_thread((self._site.data / FILE).unlink, missing_ok=True)
        await asyncio.to_thread(self._order.depot.remove, self._order.parameters["file"])

    async def _has_running_server(self, server: Server, record: InstanceRecord) -> None:
        """Start the server if it does not run (hibernated, or just ended), and wait for it."""
        is_there = server.process is not None and server.process.is_running
        if not is_there and not await server.adopt():
            await server.start(record)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not await server.is_ready():
            self._order.progress.check()
            if server.process is None or not server.process.is_running:
                raise ServerError("the instance's server ended while it started")
            if time.monotonic() > deadline:
                raise ServerError("the instance's server does not answer")
            await asyncio.sleep(LOOK_SECONDS)

    async def _save(self) -> Path:
        saved = self._site.data / FILE
        deadline = time.monotonic() + SAVE_SECONDS_MAX
        saves = 0
        while saves < SAVES_MAX and time.monotonic() < deadline:
            self._order.progress.check()
            # Of an export that was cut off; while it is absent, none is finished.
            await asyncio.to_thread(saved.unlink, missing_ok=True)
            if await self._say("BGSAVE", "SCHEDULE") is not None:
                saves += 1
                if await self._appears(saved, deadline):
                    return saved
        raise TaskError("save_failed", "the instance's server could not save its data")

    async def _appears(self, saved: Path, deadline: float) -> bool:
        """Wait for the saved file; False once the server is no more about to write it."""
        quiet_since = time.monotonic()
        while not await asyncio.to_thread(saved.exists):
            self._order.progress.check()
            said = await self._say("INFO", "persistence")
            now = time.monotonic()
            facts = _facts(said)
            if "1" in (facts.get("rdb_bgsave_in_progress"), facts.get("aof_rewrite_in_progress")):
                quiet_since = now
                self._order.progress.done_bytes = await asyncio.to_thread(self._written)
            elif now - quiet_since > QUIET_SECONDS_MAX:
                return False
            if now > deadline:
                raise TaskError("save_failed", "the instance's server took too long to save")
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _written(self) -> int:
        """Return how much of the unfinished file is there."""
        try:
            return sum(path.stat().st_size for path in self._site.data.glob("temp-*.rdb"))
        except FileNotFoundError:
            return 0

    async def _say(self, *command: str) -> Reply:
        """Return the reply; None where the server cannot answer now (a script, a restart)."""
        try:
            (reply,) = await exchange(self._socket, self._secret, (command,))
        except RedisReplyError as error:
            # Already saving, for an attempt that was cut off: as good as ours.
            return str(error) if "in progress" in str(error) else None
        except OSError:
            await asyncio.sleep(LOOK_SECONDS)
            return None
        return reply


def _facts(said: Reply) -> dict[str, str]:
    lines = said.splitlines() if isinstance(said, str) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)
