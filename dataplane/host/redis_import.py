"""RDB import: a file's content takes the place of an instance's.

    fetch ─► check ─► load in a scratch server ─► its own append-only file     (prepare)
    stop the server ─► exchange the two directories ─► start ─► it answers      (commit)

All of `prepare` happens in `workplace/` beside the served data; `commit` is `data_switch`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataplane.host import paths, rdb
from dataplane.host.binaries import server_version
from dataplane.host.bounds import MEBIBYTE
from dataplane.host.clone import sync_file_system
from dataplane.host.data_switch import DataSwitch
from dataplane.host.depot import FileMissingError, Stored
from dataplane.host.redis_control import keys_counted
from dataplane.host.redis_scratch import ScratchServer
from dataplane.host.server import Site
from dataplane.host.work import NO_ROOM, Order, TaskError, remove_workplace
from engines.kit.records import Limits

# What must stay free on the disk beside the file and what is made of it.
FREE_BYTES_MIN = 64 * MEBIBYTE
# A pid file of the scratch server would be taken for the instance's.
SCRATCH_FILES = ("redis.pid", "dump.rdb")
OF_LOADING = {
    "loaded_keys": "rdb_last_load_keys_loaded",
    "expired_keys": "rdb_last_load_keys_expired",
}


class RdbImport:
    """Parameters: `file`, `size_bytes`, `sha256`.

    Result: `keys`, `memory_bytes`; from Redis 7 on `loaded_keys`, and `expired_keys`, which the
    file has but whose time was over when it was loaded.
    """

    commits = True

    def __init__(self, order: Order) -> None:
        self._order = order
        self._site = Site.of(order.settings, order.instance_id)
        self._workplace = paths.workplace(self._site.instance_dir)
        self._scratch = ScratchServer(order)
        version = server_version(order.settings.redis_server)
        self._switch = DataSwitch(order, self._site, self._scratch.data, version[:2])

    async def prepare(self) -> Mapping[str, Any]:
        """Load the file beside the running data, and leave it as data that can be served."""
        record = self._order.keeper.record
        if record is None:
            raise TaskError("not_in_service", "the instance is not in service")
        await self.discard()
        try:
            await self._fetch(record.limits)
            await self._scratch.start(record.limits)
            facts = await self._scratch.load()
            result = _measured(facts, record.limits)
            await self._scratch.write_append_only_file()
            await self._scratch.stop()
        finally:
            await self._scratch.kill()
        await asyncio.to_thread(self._finish)
        self._order.progress.done_bytes = self._order.progress.total_bytes
        return result

    async def commit(self) -> None:
        """Serve the new data; what is served after an error is the old."""
        await self._switch.commit()

    async def discard(self) -> None:
        """Remove the workplace: the new data before the exchange, the old after."""
        await remove_workplace(self._workplace)
        await asyncio.to_thread(self._switch.unmark)

    async def _fetch(self, limits: Limits) -> None:
        wanted = self._order.parameters
        expected = Stored(int(wanted["size_bytes"]), str(wanted["sha256"]))
        if expected.size_bytes > limits.memory_bytes:
            raise TaskError("too_large", "the file is larger than the plan's memory")
        self._scratch.data.mkdir(mode=0o700, parents=True)
        free = shutil.disk_usage(self._workplace).free
        # The file, the append-only file of its content, and what that is written to first.
        if free < 3 * expected.size_bytes + FREE_BYTES_MIN:
            raise NO_ROOM
        self._order.progress.total_bytes = 2 * expected.size_bytes
        try:
            await asyncio.to_thread(
                self._order.depot.fetch,
                wanted["file"],
                self._scratch.file,
                expected,
                self._order.progress.add,
            )
        except FileMissingError:
            raise TaskError(
                "file_incomplete", "the file is not what was uploaded: upload it again"
            ) from None
        rdb.check_header(await asyncio.to_thread(_head, self._scratch.file))

    def _finish(self) -> None:
        """Make the scratch server's directory one that an instance can be started on; blocks."""
        for name in SCRATCH_FILES:
            (self._scratch.data / name).unlink(missing_ok=True)
        self._switch.mark()
        sync_file_system(self._workplace)


def _measured(facts: Mapping[str, str], limits: Limits) -> dict[str, int]:
    """Return keys and memory of what was loaded. Raises TaskError where it is too much."""
    memory_bytes = int(facts["used_memory"])
    # Where keys may be evicted the server makes room by itself, as for any other write.
    if limits.eviction_policy == "noeviction" and memory_bytes > limits.memory_bytes:
        raise TaskError(
            "too_large",
            f"the content needs {memory_bytes} bytes of memory, the plan has {limits.memory_bytes}",
        )
    return {
        "keys": keys_counted(facts)["keys"],
        "memory_bytes": memory_bytes,
        **{name: int(facts[said]) for name, said in OF_LOADING.items() if said in facts},
    }


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(rdb.HEADER_BYTES)
