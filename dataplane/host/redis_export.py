"""RDB export: the running server saves by itself, and its file becomes an export.

BGSAVE forks, so the file is one moment of all databases, functions included, and clients are served
meanwhile. Nobody else can ask for a save (`save ""`, and no role may), so a `dump.rdb` is ours.

Keys are counted as the server forks: counting and BGSAVE are said in one write, which the server
obeys at one go, and its own count of commands before and after proves it. (In MULTI it would put
the fork off.) The counts are then those of the file. Both have keys whose time is over and that
nobody has removed yet; a server that loads the file says how many those were.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataplane.host import paths
from dataplane.host.redis_control import (
    RedisReplyError,
    Reply,
    exchange,
    facts_of,
    keys_counted,
)
from dataplane.host.server import Server, ServerError, Site
from dataplane.host.work import Order, TaskError
from engines.kit.auth import service_secret
from engines.kit.records import InstanceRecord

SAVE_SECONDS_MAX = 1800.0
LOOK_SECONDS = 0.05
# FLUSHALL ends a save that runs, and so does the end of the server: then it is asked for again.
SAVES_MAX = 5
# A server that does not answer may be in a script, and saves nevertheless; or it is another one.
QUIET_SECONDS_MAX = 6.0
READY_SECONDS_MAX = 600.0
FILE = "dump.rdb"
COUNT_AND_FORK = (("INFO", "stats"), ("INFO", "keyspace"), ("BGSAVE",), ("INFO", "stats"))
COMMANDS_BETWEEN = 3  # from one INFO stats up to the next, where nobody else was heard
# While one of these is said, a server forks for no save.
CHILDREN = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress")


class RdbExport:
    """Parameters: `file`, the name in the depot.

    Result: `size_bytes`, `sha256`; where they could be counted, `keys` and `expiring_keys` (of
    them those with an expiry).
    """

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
        saved, counts = await self._save()
        progress.done_bytes = 0
        progress.total_bytes = saved.stat().st_size
        stored = await asyncio.to_thread(
            self._order.depot.put, self._order.parameters["file"], saved, progress.add
        )
        return {"size_bytes": stored.size_bytes, "sha256": stored.sha256, **counts}

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

    async def _save(self) -> tuple[Path, dict[str, int]]:
        """Return the saved file and what is counted in it. Raises TaskError."""
        saved = self._site.data / FILE
        deadline = time.monotonic() + SAVE_SECONDS_MAX
        saves = 0
        while saves < SAVES_MAX and time.monotonic() < deadline:
            self._order.progress.check()
            counts = await self._fork(saved)
            if counts is None:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            saves += 1
            if await self._appears(saved, deadline):
                return saved, counts
        raise TaskError("save_failed", "the instance's server could not save its data")

    async def _fork(self, saved: Path) -> dict[str, int] | None:
        """Begin a save and count what it saves; None where the server cannot now.

        Nothing is counted where another client was heard in between.
        """
        facts = await self._facts()
        if facts is None or any(facts.get(name) == "1" for name in CHILDREN):
            return None  # among them the save of an attempt that was cut off, counted by nobody
        await asyncio.to_thread(saved.unlink, missing_ok=True)
        replies = await self._say(*COUNT_AND_FORK)
        if replies is None:
            return None
        before, keyspace, _, after = replies
        is_at_once = _commands(after) - _commands(before) == COMMANDS_BETWEEN
        return keys_counted(facts_of(keyspace)) if is_at_once else {}

    async def _appears(self, saved: Path, deadline: float) -> bool:
        """Wait for the saved file; False once the server writes it no more."""
        answered_at = time.monotonic()
        while True:
            self._order.progress.check()
            facts, now = await self._facts(), time.monotonic()
            if await asyncio.to_thread(saved.exists):
                return True
            if facts is not None:
                answered_at = now
                if facts.get("rdb_bgsave_in_progress") != "1":
                    return False
                self._order.progress.done_bytes = await asyncio.to_thread(self._written)
            elif now - answered_at > QUIET_SECONDS_MAX:
                return False
            if now > deadline:
                raise TaskError("save_failed", "the instance's server took too long to save")
            await asyncio.sleep(LOOK_SECONDS)

    def _written(self) -> int:
        """Return how much of the unfinished file is there."""
        try:
            return sum(path.stat().st_size for path in self._site.data.glob("temp-*.rdb"))
        except FileNotFoundError:
            return 0

    async def _facts(self) -> dict[str, str] | None:
        """Return what the server says of its saves; None where it does not answer now."""
        replies = await self._say(("INFO", "persistence"))
        return None if replies is None else facts_of(replies[0])

    async def _say(self, *commands: tuple[str, ...]) -> list[Reply] | None:
        """Return the replies; None where the server cannot answer now (a script, a restart)."""
        try:
            return await exchange(self._socket, self._secret, commands)
        except (RedisReplyError, OSError):
            return None


def _commands(said: Reply) -> int:
    return int(facts_of(said)["total_commands_processed"])
