"""Ships closed WAL segments: copies into the depot, and the host's own removed at the commit.

Whoever is killed in between, each segment is in the archive or safe elsewhere; the same one may be
shipped twice, with equal content. The task never wakes an instance: what sleeps has written all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dataplane.files import sync_path, write_durably
from dataplane.host import paths
from dataplane.host.postgres_archive import (
    SUFFIX,
    UNNAMED_SUFFIX,
    chunks_of,
)
from dataplane.host.postgres_control import control_facts
from dataplane.host.postgres_settings import ARCHIVE_NOTHING
from dataplane.host.postgres_task import AWAY, connect, door_of, now, parameters, site_of
from dataplane.host.postgres_wal import SEGMENT_BYTES, segment_name, segment_place
from dataplane.host.work import Order
from engines.kit.pg_tasks import WAL_NAME, ShipWal, WalFile, WalShipped, lsn_number

ARCHIVED_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.05
RESTS_OLDER_THAN_S = 3600.0
# A transaction's time is taken before its last record is written.
SKEW = timedelta(seconds=1)
COVERED = ".covered.json"
# One transaction number further: somebody wrote; lower than the highest: somebody still writes.
WRITERS = (
    "SELECT pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() AS s"
)
# The position behind the last byte of a closed segment, and the name of the open one.
SWITCH = f"""
    SELECT pg_switch_wal()::text, pg_walfile_name(pg_current_wal_insert_lsn()), ({SEGMENT_BYTES})
"""
COMMAND = "SELECT current_setting('archive_command')"


class PgShipWal:
    """Parameters: `ShipWal`. Result: `WalShipped`."""

    commits = True

    def __init__(self, order: Order) -> None:
        self._order = order
        self._site = site_of(order)
        self._archive = paths.archive(self._site.instance_dir)
        self._list = self._archive / f".shipped-{order.task_id}.json"
        self._state = self._archive / COVERED

    async def prepare(self) -> Mapping[str, Any]:
        """Have the open segment closed, and copy what is in the archive."""
        wanted = parameters(self._order, ShipWal.from_json)
        covered = await self._cover()
        shipped = await asyncio.to_thread(self._copy, wanted, covered)
        return shipped.to_json()

    async def commit(self) -> None:
        """Forget what is safe elsewhere."""
        await asyncio.to_thread(self._forget)

    async def discard(self) -> None:
        """Remove the copies."""
        files = self._order.parameters.get("files", ())
        for name in files if isinstance(files, list) else ():
            await asyncio.to_thread(self._order.depot.remove, str(name))
        await asyncio.to_thread(self._list.unlink, missing_ok=True)

    async def _cover(self) -> datetime | None:
        """Return the moment before which everything is in closed segments; None: not known."""
        record = self._order.keeper.record
        if record is None or not record.limits.wal_archive:
            return None
        covered = now() - SKEW
        await asyncio.to_thread(self._archive.mkdir, mode=0o700, exist_ok=True)
        try:
            connection = await connect(door_of(self._order))
        except AWAY:
            return covered if await asyncio.to_thread(self._is_at_rest) else None
        try:
            oldest, newest = await connection.fetchrow(WRITERS) or ("", "")
            if oldest == newest == await asyncio.to_thread(self._last_written):
                return covered  # nobody has written since the last time
            if await connection.fetchval(COMMAND) == ARCHIVE_NOTHING:
                return None  # the record's word has not reached the server yet
            closed, open_name, segment_bytes = await connection.fetchrow(SWITCH) or ("0/0", "", 1)
        except AWAY:
            return None
        finally:
            connection.terminate()
        timeline, _ = segment_place(open_name, segment_bytes)
        last = segment_name(timeline, lsn_number(closed) - 1, segment_bytes)
        if not await self._is_archived(last):
            return None
        state = {"next_transaction": newest if oldest == newest else ""}
        await asyncio.to_thread(write_durably, self._state, json.dumps(state).encode())
        return covered

    async def _is_archived(self, name: str) -> bool:
        """Wait a while until the server's archiver has handled a segment and all before it."""
        deadline = time.monotonic() + ARCHIVED_SECONDS_MAX
        while await asyncio.to_thread(self._is_waiting, name):
            self._order.progress.check()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _is_waiting(self, name: str) -> bool:
        # The mark is made before the switch returns, and goes once the segment is kept.
        return any(path.stem <= name for path in self._ready())

    def _ready(self) -> Iterator[Path]:
        return (self._site.data / "pg_wal" / "archive_status").glob("*.ready")

    def _is_at_rest(self) -> bool:
        """Say whether the server was stopped cleanly and had everything archived before."""
        data = self._site.data
        if any(self._ready()):
            return False
        facts = control_facts(self._order.settings.postgres_bin, data, self._site.instance_dir)
        return facts.get("Database cluster state") == "shut down"

    def _last_written(self) -> str | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads(self._state.read_bytes())["next_transaction"])
        return None

    def _copy(self, wanted: ShipWal, covered: datetime | None) -> WalShipped:
        order = self._order
        found = self._segments()
        chosen = found[: len(wanted.files)]
        order.progress.total_bytes = sum(path.stat().st_size for path in chosen)
        copied: list[WalFile] = []
        for path, file in zip(chosen, wanted.files, strict=False):
            closed = datetime.fromtimestamp(path.stat().st_mtime, UTC) - SKEW
            stored = order.depot.write(file, chunks_of(path), order.progress.add)
            copied.append(
                WalFile(
                    path.name.removesuffix(SUFFIX),
                    file,
                    stored.size_bytes,
                    stored.sha256,
                    closed.isoformat(),
                )
            )
        if copied:
            names = json.dumps([each.name for each in copied])
            write_durably(self._list, names.encode())
        left = len(found) - len(chosen)
        is_all = covered is not None and not left
        return WalShipped(
            tuple(copied), left, covered.isoformat() if covered is not None and is_all else None
        )

    def _segments(self) -> list[Path]:
        """Return what is in the archive, oldest first; remove what killed writers left."""
        try:
            there = list(self._archive.iterdir())
        except FileNotFoundError:
            return []
        oldest = time.time() - RESTS_OLDER_THAN_S
        for path in there:
            if path.name.endswith(UNNAMED_SUFFIX) and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        return sorted(path for path in there if WAL_NAME.fullmatch(path.name.removesuffix(SUFFIX)))

    def _forget(self) -> None:
        try:
            names = json.loads(self._list.read_bytes())
        except FileNotFoundError:
            return  # a commit that was cut off after its end
        for name in names:
            (self._archive / f"{name}{SUFFIX}").unlink(missing_ok=True)
        sync_path(self._archive)
