"""Restore: a chain of base backups and the log since then become an instance's data.

    unpack, prove ─► recover to the target in a scratch server ─► stop ─► mark   (prepare)
    the data take the place of the instance's own                                (commit)

The result is a timeline of its own, so that the log of the new instance cannot be taken for its
source's. What lets somebody in is not in the data: clients are proven by the data plane, and roles
have no passwords.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from dataplane.host import paths, template
from dataplane.host.clone import sync_file_system
from dataplane.host.data_switch import MARK, DataSwitch
from dataplane.host.postgres_control import segment_bytes_of
from dataplane.host.postgres_manifest import Manifest
from dataplane.host.postgres_program import SAYS_NO_ROOM
from dataplane.host.postgres_roles import RESTORE_ACCESS
from dataplane.host.postgres_scratch import PostgresScratch, ServerEndedError
from dataplane.host.postgres_settings import restore_command
from dataplane.host.postgres_task import (
    AWAY,
    NOT_IN_SERVICE,
    connect,
    parameters,
    site_of,
)
from dataplane.host.postgres_unpack import demand_room, fetch_wal, unpack_chain
from dataplane.host.postgres_wal import (
    first_gap,
    is_segment,
    segment_name,
    segment_place,
)
from dataplane.host.work import NO_ROOM, Order, TaskError, remove_workplace
from engines.kit.pg_tasks import Restore, Restored, lsn_number

# Of the source, or written by a recovery before.
NOT_OURS = ("standby.signal", "backup_label.old", "tablespace_map.old", "postmaster.opts", MARK)
EMPTIED = ("postgresql.auto.conf", "pg_ident.conf")
TARGET_NOT_REACHED = "recovery ended before configured recovery target was reached"
TOO_EARLY = "before consistent recovery point"
INVALID = TaskError("backup_invalid", "the backup cannot be recovered with this log")
UNREACHABLE = TaskError("target_unreachable", "the backup ended after the wanted moment")
FACTS = """
    SELECT pg_last_xact_replay_timestamp() AS at, pg_last_wal_replay_lsn()::text AS lsn,
        (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline
"""

log = structlog.get_logger("host")


@dataclass(slots=True)
class Recovery:
    """Makes `workplace/data` of what is in the depot, by a scratch server that it leaves running.

    Raises TaskError, TaskCancelledError, OSError.
    """

    order: Order
    wanted: Restore
    scratch: PostgresScratch
    workplace: Path
    segment_bytes: int = 0  # once it is unpacked

    async def run(self) -> Restored:
        """Unpack, recover, and look how far that came."""
        total = sum(base.size_bytes for base in self.wanted.chain)
        total += sum(segment.size_bytes for segment in self.wanted.wal)
        self.order.progress.total_bytes = total
        settings = {
            "restore_command": restore_command(self.workplace / "wal"),
            "recovery_target_action": "promote",
            # Without readers meanwhile, fewer settings than the source's are enough.
            "hot_standby": "off",
        }
        if self.wanted.target_time is not None:
            target = datetime.fromisoformat(self.wanted.target_time).astimezone(UTC)
            if target < datetime.fromisoformat(self.wanted.chain[-1].finished_at):
                raise UNREACHABLE
            settings["recovery_target_time"] = target.isoformat(sep=" ")
        await asyncio.to_thread(self._unpack)
        await self.scratch.start(settings)
        try:
            await self.scratch.ready()
        except ServerEndedError as error:
            if TARGET_NOT_REACHED not in error.said:
                raise _failure(error.said) from error
            await self._recover_all(settings)
        return await self._facts()

    async def _recover_all(self, settings: dict[str, str]) -> None:
        """Go on to the end: the log has nothing behind the target, so that is the same moment."""
        del settings["recovery_target_time"]
        await self.scratch.kill()
        await self.scratch.start(settings)
        try:
            await self.scratch.ready()
        except ServerEndedError as error:
            raise _failure(error.said) from error

    def _unpack(self) -> None:
        wanted, data = self.wanted, self.scratch.data
        demand_room(self.workplace, wanted.chain, wanted.wal)
        manifest = unpack_chain(self.order, wanted.chain, self.workplace, data)
        bins = self.order.settings.postgres_bin
        self.segment_bytes = segment_bytes_of(bins, data, self.workplace)
        _demand_log(wanted, manifest, self.segment_bytes)
        fetch_wal(self.order, wanted.wal, self.workplace / "wal")
        for name in NOT_OURS:
            (data / name).unlink(missing_ok=True)
        for name in EMPTIED:
            (data / name).write_bytes(b"")
        (data / "pg_hba.conf").write_text(template.HBA)
        (data / "recovery.signal").touch(0o600)
        for marks in (data / "pg_wal" / "archive_status").glob("*"):
            marks.unlink()
        sync_file_system(self.workplace)

    async def _facts(self) -> Restored:
        try:
            connection = await connect(self.scratch.door)
            try:
                row = await connection.fetchrow(FACTS)
                await connection.execute(RESTORE_ACCESS)
                await connection.execute("CHECKPOINT")
                timeline = await connection.fetchrow(FACTS)
            finally:
                connection.terminate()
        except AWAY as error:
            raise INVALID from error
        assert row is not None
        assert timeline is not None
        self._demand_end(row["lsn"])
        return Restored(
            storage_bytes=await self.scratch.demand_size(),
            last_commit_at=row["at"].astimezone(UTC).isoformat() if row["at"] else None,
            timeline=timeline["timeline"],
            replayed_to=row["lsn"],
        )

    def _demand_end(self, replayed: str) -> None:
        """Without a target the last segment must have been reached: damage ends a log early."""
        segments = [each.name for each in self.wanted.wal if is_segment(each.name)]
        if segments and self.wanted.target_time is None:
            _, last = segment_place(max(segments), self.segment_bytes)
            if lsn_number(replayed) < last * self.segment_bytes:
                raise INVALID


class PgRestore:
    """Parameters: `Restore`. Result: `Restored`."""

    commits = True

    def __init__(self, order: Order) -> None:
        self._order = order
        self._site = site_of(order)
        self._workplace = paths.workplace(self._site.instance_dir)
        self._archive = paths.archive(self._site.instance_dir)
        version = template.postgres_version(order.settings.postgres_bin)
        self._switch = DataSwitch(
            order,
            self._site,
            self._workplace / "data",
            version[:1],
            leave=lambda: put_aside(self._archive, self._workplace),
            come_back=lambda: put_back(self._archive, self._workplace),
        )

    async def prepare(self) -> Mapping[str, Any]:
        """Make the data beside those that are served."""
        wanted = parameters(self._order, Restore.from_json)
        record = self._order.keeper.record
        if record is None:
            raise NOT_IN_SERVICE
        await self.discard()
        await asyncio.to_thread(self._workplace.mkdir, mode=0o700, parents=True)
        scratch = PostgresScratch(self._order, self._site, record)
        try:
            restored = await Recovery(self._order, wanted, scratch, self._workplace).run()
            await scratch.stop()
        finally:
            await scratch.kill()
        await asyncio.to_thread(self._finish)
        return restored.to_json()

    async def commit(self) -> None:
        """Serve the new data; what is served after an error is the old."""
        await self._switch.commit()

    async def discard(self) -> None:
        """Remove the workplace: the new data before the exchange, the old after."""
        await remove_workplace(self._workplace)
        await asyncio.to_thread(self._switch.unmark)

    def _finish(self) -> None:
        shutil.rmtree(self._workplace / "wal")
        self._switch.mark()
        sync_file_system(self._workplace)


def put_aside(archive: Path, workplace: Path) -> None:
    """Keep the log of the old data apart from the new data's; blocks."""
    aside = workplace / "archive"
    aside.mkdir(mode=0o700, exist_ok=True)
    # One by one: the old server may have run again since an attempt that was cut off.
    for path in archive.glob("*"):
        path.rename(aside / path.name)


def put_back(archive: Path, workplace: Path) -> None:
    """Archive the old data's log again, and nothing of the new data's; blocks."""
    for path in archive.glob("*"):
        path.unlink()
    for path in (workplace / "archive").glob("*"):
        path.rename(archive / path.name)


def _demand_log(wanted: Restore, manifest: Manifest, segment_bytes: int) -> None:
    """Refuse a log with a gap, or that begins behind the backup's end."""
    names = [each.name for each in wanted.wal]
    if any(map(is_segment, names)):
        # The segment in which it ends is in the backup itself.
        follows = lsn_number(manifest.stop_lsn) - 1 + segment_bytes
        needed = segment_name(manifest.timeline, follows, segment_bytes)
        missing = first_gap(names, needed, segment_bytes)
        if missing:
            raise TaskError("target_unreachable", f"the log lacks the segment {missing}")


def _failure(said: str) -> TaskError:
    """Read in a server's log why it ended."""
    log.warning("recovery_failed", said=said)
    if SAYS_NO_ROOM in said:
        return NO_ROOM
    return UNREACHABLE if TOO_EARLY in said else INVALID
