"""A Redis server beside an instance's own, which reads a file that nobody has proven yet.

It works in a directory and on a socket that only the host knows, within the memory of the plan, and
checks the file as deeply as Redis can. What it could read it then writes as its own append-only
file, in the layout of its own version: nothing of the uploaded bytes is served later.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import signal
import time
from dataclasses import replace
from pathlib import Path

from dataplane.files import write_atomically
from dataplane.host import paths, rdb
from dataplane.host.bounds import MEBIBYTE, Bounds
from dataplane.host.process import ServerProcess
from dataplane.host.redis import FIXED, KILL_SECONDS_MAX, STOP_SECONDS_MAX
from dataplane.host.redis_control import SERVICE_USER, RedisReplyError, Reply, exchange, facts_of
from dataplane.host.server import Site
from dataplane.host.work import Order, TaskError
from engines.kit.records import Limits

LOOK_SECONDS = 0.05
LOAD_SECONDS_MAX = 1800.0
FILE = "dump.rdb"
SAID_BYTES_MAX = 256 * 1024
# Later words of the same name win over FIXED's.
DIFFERENT = {
    "appendonly": "no",
    "dbfilename": FILE,
    "sanitize-dump-payload": "yes",
    # Loading evicts nothing: the content is measured whole, whatever the instance's policy is.
    "maxmemory": "0",
    "maxclients": "16",
}


class ScratchServer:
    """One scratch server; `data` is its working directory, and becomes the instance's."""

    def __init__(self, order: Order) -> None:
        site = Site.of(order.settings, order.instance_id)
        self._program = order.settings.redis_server
        # In no cgroup of the instance: its bounds are the instance's own server's.
        self._site = replace(site, instance_dir=paths.workplace(site.instance_dir), cgroups=None)
        self._socket = site.socket_dir / "scratch.sock"
        self._secret = secrets.token_hex(32)
        self._progress = order.progress
        self._process: ServerProcess | None = None

    @property
    def data(self) -> Path:
        """Its working directory."""
        return self._site.data

    @property
    def file(self) -> Path:
        """What it reads when it starts."""
        return self._site.data / FILE

    async def start(self, limits: Limits) -> None:
        """Start it; it begins to read at once. Raises OSError."""
        path = self._site.instance_dir / "redis.conf"
        await asyncio.to_thread(write_atomically, path, self._render().encode())
        self._socket.unlink(missing_ok=True)
        self._process = self._site.launch([self._program, path], _bounds(limits))

    async def load(self) -> dict[str, str]:
        """Wait until the file is read; return the server's facts about memory and keys.

        Raises TaskError where it could not read the file.
        """
        deadline = time.monotonic() + LOAD_SECONDS_MAX
        before = self._progress.done_bytes
        while True:
            facts = await self._facts(deadline)
            if facts.get("loading") == "0":
                return facts
            self._progress.done_bytes = before + int(facts.get("loading_loaded_bytes", 0))
            await asyncio.sleep(LOOK_SECONDS)

    async def write_append_only_file(self) -> None:
        """Have the server write its own append-only file, whole. Raises TaskError."""
        deadline = time.monotonic() + LOAD_SECONDS_MAX
        await self._say(("CONFIG", "SET", "appendonly", "yes"))
        while True:
            facts = await self._facts(deadline)
            if facts.get("aof_last_bgrewrite_status") not in (None, "ok"):
                raise TaskError("save_failed", "the host could not write the loaded content")
            # -1 until the first rewrite has ended.
            written = int(facts.get("aof_last_rewrite_time_sec", -1)) >= 0
            if written and facts.get("aof_rewrite_in_progress") == "0":
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        """Stop it: what it holds is then on disk. Raises TaskError where it does not end well."""
        process = self._process
        assert process is not None
        process.send(signal.SIGTERM)
        if not await process.wait_for(STOP_SECONDS_MAX):
            await self.kill()
            raise TaskError("save_failed", "the host could not write the loaded content")
        self._process = None
        self._socket.unlink(missing_ok=True)

    async def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.send(signal.SIGKILL)
            await self._process.wait_for(KILL_SECONDS_MAX)
            self._process = None
        self._socket.unlink(missing_ok=True)

    async def _facts(self, deadline: float) -> dict[str, str]:
        """Ask how it is; nothing where it does not answer yet. Raises TaskError if it ended."""
        self._progress.check()
        if self._process is None or not self._process.is_running:
            raise await asyncio.to_thread(self._refusal)
        if time.monotonic() > deadline:
            raise TaskError("too_slow", "the file took too long to load")
        try:
            replies = await self._say(("INFO", "persistence"), ("INFO", "memory"))
            replies += await self._say(("INFO", "keyspace"))
        except (OSError, RedisReplyError):
            return {}
        return {name: fact for reply in replies for name, fact in facts_of(reply).items()}

    async def _say(self, *commands: tuple[str, ...]) -> list[Reply]:
        return await exchange(self._socket, self._secret, commands)

    def _refusal(self) -> TaskError:
        """Read in the server's log why it ended."""
        try:
            with self._site.log.open("rb") as log:
                said = log.read(SAID_BYTES_MAX).decode(errors="replace")
            with self.file.open("rb") as file:
                file.seek(-rdb.END_BYTES, os.SEEK_END)
                is_whole = rdb.has_end(file.read())
        except OSError:
            return rdb.refusal("", is_whole=False)
        return rdb.refusal(said, is_whole=is_whole)

    def _render(self) -> str:
        digest = hashlib.sha256(self._secret.encode()).hexdigest()
        settings = {**dict(FIXED), **DIFFERENT}
        lines = [
            "# Written by the instance host, for a server that lives as long as an import.",
            f'dir "{self._site.data}"',
            f'unixsocket "{self._socket}"',
            *(f"{name} {value}" for name, value in settings.items()),
            "user default off -@all",
            f"user {SERVICE_USER} on #{digest} ~* &* +@all",
        ]
        return "\n".join(lines) + "\n"


def _bounds(limits: Limits) -> Bounds:
    # What the content needs at most to be taken, what reading it takes beside, and the program.
    data_bytes = limits.memory_bytes * 3 // 2 + 96 * MEBIBYTE
    return Bounds(memory_bytes=data_bytes, data_bytes=data_bytes, files=128, processes=16)
