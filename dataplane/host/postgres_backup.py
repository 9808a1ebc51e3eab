"""A base backup: `pg_basebackup` writes a tar to us, which passes compressed into the depot.

Nothing is kept in memory or on disk beside it. A replication slot that ends with our session keeps
the log that the backup needs until the log is in the tar too, so each backup can be restored alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dataplane.host import paths, template
from dataplane.host.depot import FileMissingError, Stored
from dataplane.host.door import Door
from dataplane.host.feed import Connection
from dataplane.host.postgres_archive import compressed
from dataplane.host.postgres_manifest import Manifest, MemberTap
from dataplane.host.postgres_program import ProgramError, connection_arguments, running
from dataplane.host.postgres_task import (
    AWAY,
    connect,
    demand_awake,
    door_of,
    now,
    parameters,
    site_of,
)
from dataplane.host.postgres_wal import SEGMENT_BYTES, segment_name
from dataplane.host.work import Order, TaskError, remove_workplace
from engines.kit.pg_tasks import BaseBackup, BaseBackupDone, lsn_number

# A server that is stopped or ends in the middle is waited for, and the backup begun again.
ATTEMPTS_MAX = 3
# What a server says that can be no parent's child: no summaries, or of another history.
NOT_INCREMENTAL = ("summar", "manifest", "timeline", "incremental")
SLOT = "SELECT pg_create_physical_replication_slot($1, true, true)"
STARTED = "SELECT pg_postmaster_start_time()"
SIZE = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database"


class PgBaseBackup:
    """Parameters: `BaseBackup`. Result: `BaseBackupDone`."""

    commits = False

    def __init__(self, order: Order) -> None:
        self._order = order
        self._door: Door = door_of(order)
        self._workplace = paths.workplace(site_of(order).instance_dir)
        self._parent = self._workplace / "parent_manifest"
        self._segment_bytes = 0  # the server says it

    async def prepare(self) -> Mapping[str, Any]:
        """Take the backup. Raises TaskError, TaskCancelledError."""
        wanted = parameters(self._order, BaseBackup.from_json)
        await remove_workplace(self._workplace)
        await asyncio.to_thread(self._workplace.mkdir, mode=0o700, parents=True)
        try:
            if wanted.parent_manifest is not None:
                await asyncio.to_thread(self._fetch_parent, wanted)
            for _ in range(ATTEMPTS_MAX):
                await demand_awake(self._order)
                done = await self._attempt(wanted)
                if done is not None:
                    return done.to_json()
        finally:
            await remove_workplace(self._workplace)
        raise TaskError("not_ready", "the instance's server ended while it was backed up")

    async def commit(self) -> None:
        """Do nothing: the instance is as it was."""

    async def discard(self) -> None:
        """Remove what was stored."""
        await remove_workplace(self._workplace)
        for name in ("file", "manifest_file"):
            stored = str(self._order.parameters.get(name, ""))
            await asyncio.to_thread(self._order.depot.remove, stored)

    def _fetch_parent(self, wanted: BaseBackup) -> None:
        parent = wanted.parent_manifest
        assert parent is not None
        expected = Stored(parent.size_bytes, parent.sha256)
        try:
            self._order.depot.fetch(parent.file, self._parent, expected, lambda _: None)
        except FileMissingError as error:
            raise TaskError("file_incomplete", "the manifest is not what was saved") from error

    async def _attempt(self, wanted: BaseBackup) -> BaseBackupDone | None:
        """Take the backup; None where the server went away, which says nothing about the next."""
        started_at = now()
        started: datetime | None = None
        try:
            connection = await connect(self._door)
        except AWAY:
            return None
        try:
            try:
                started = await self._begin(connection, wanted)
            except AWAY:
                return None
            return await asyncio.to_thread(self._save, wanted, started_at)
        except ProgramError as error:
            is_increment = wanted.parent_manifest is not None
            if error.code == "disk_full":
                raise
            if is_increment and any(word in error.said for word in NOT_INCREMENTAL):
                raise TaskError(
                    "incremental_unavailable",
                    "what changed since the earlier backup is not known; take a full one",
                ) from error
            if await _is_same(self._door, started):
                raise
            return None
        finally:
            connection.terminate()

    async def _begin(self, connection: Connection, wanted: BaseBackup) -> datetime:
        """Have the log kept while our session lasts; return when the server was started."""
        progress = self._order.progress
        await connection.execute(SLOT, f"task_{self._order.task_id.replace('-', '')}")
        progress.done_bytes = 0
        # Of an increment nobody knows the size before its end.
        size = await connection.fetchval(SIZE)
        progress.total_bytes = size if wanted.parent_manifest is None else 0
        self._segment_bytes = await connection.fetchval(SEGMENT_BYTES)
        started: datetime = await connection.fetchval(STARTED)
        return started

    def _save(self, wanted: BaseBackup, started_at: datetime) -> BaseBackupDone:
        tap = MemberTap()
        arguments: list[str | Path] = [
            *connection_arguments(self._door.path),
            "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-sync",
            "--manifest-checksums=SHA256", "--no-estimate-size", "--label=weftkit",
        ]  # fmt: skip
        if wanted.parent_manifest is not None:
            arguments.append(f"--incremental={self._parent}")
        order = self._order
        program = order.settings.postgres_bin / "pg_basebackup"
        with running(program, arguments, self._workplace, is_read=True) as backup:
            chunks = compressed(self._counted(tap.through(backup.chunks())))
            stored = order.depot.write(wanted.file, chunks, lambda _: order.progress.check())
        manifest = Manifest.parse(tap.content)
        listed = order.depot.write(wanted.manifest_file, [tap.content], lambda _: None)
        order.progress.total_bytes = order.progress.done_bytes
        version = template.postgres_version(order.settings.postgres_bin)
        start, stop = lsn_number(manifest.start_lsn), lsn_number(manifest.stop_lsn)
        return BaseBackupDone(
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            unpacked_bytes=tap.passed_bytes,
            manifest_size_bytes=listed.size_bytes,
            manifest_sha256=listed.sha256,
            mode="full" if wanted.parent_manifest is None else "incremental",
            start_lsn=manifest.start_lsn,
            stop_lsn=manifest.stop_lsn,
            start_segment=segment_name(manifest.timeline, start, self._segment_bytes),
            # A position that is a border belongs to the segment before it.
            stop_segment=segment_name(manifest.timeline, stop - 1, self._segment_bytes),
            timeline=manifest.timeline,
            system_identifier=manifest.system_identifier,
            postgres_version=".".join(map(str, version)),
            started_at=started_at.isoformat(),
            finished_at=now().isoformat(),
            wal_segment_bytes=self._segment_bytes,
        )

    def _counted(self, chunks: Any) -> Any:
        for chunk in chunks:
            self._order.progress.add(len(chunk))
            yield chunk


async def _is_same(door: Door, started: datetime | None) -> bool:
    """Say whether the server is still the one that was started then."""
    try:
        connection = await connect(door)
        try:
            return bool(await connection.fetchval(STARTED) == started)
        finally:
            connection.terminate()
    except AWAY:
        return False
