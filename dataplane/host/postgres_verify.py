"""Verify: restore beside the instance, read all of it, compare each block, and throw it away.

The instance's own server is not needed and not touched.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from dataplane.host import paths, template
from dataplane.host.postgres_facts import TABLES, checksum_of, table_facts
from dataplane.host.postgres_program import ProgramError, running
from dataplane.host.postgres_restore import INVALID, Recovery
from dataplane.host.postgres_scratch import PostgresScratch
from dataplane.host.postgres_task import AWAY, NOT_IN_SERVICE, connect, parameters, site_of
from dataplane.host.work import Order, TaskError, remove_workplace
from engines.kit.pg_tasks import TABLES_LISTED_MAX, Restore, TableFacts, Verified

CHECK_SECONDS_MAX = 4 * 3600.0
BLOCKS = re.compile(r"Blocks scanned:\s+(\d+)")


class PgVerify:
    """Parameters: `Restore`. Result: `Verified`."""

    commits = False

    def __init__(self, order: Order) -> None:
        self._order = order
        self._site = site_of(order)
        self._workplace = paths.workplace(self._site.instance_dir)

    async def prepare(self) -> Mapping[str, Any]:
        """Restore, read, check. Raises TaskError, TaskCancelledError."""
        wanted = parameters(self._order, Restore.from_json)
        record = self._order.keeper.record
        if record is None:
            raise NOT_IN_SERVICE
        await self.discard()
        await asyncio.to_thread(self._workplace.mkdir, mode=0o700, parents=True)
        scratch = PostgresScratch(self._order, self._site, record)
        try:
            restored = await Recovery(self._order, wanted, scratch, self._workplace).run()
            tables = await self._read(scratch)
            await scratch.stop()
            blocks = await asyncio.to_thread(self._check_blocks, scratch)
        finally:
            await scratch.kill()
            await self.discard()
        return Verified(
            restored,
            tables=len(tables),
            rows=sum(each.rows for each in tables),
            checksum=checksum_of(tables),
            blocks=blocks,
            listed=tuple(tables[:TABLES_LISTED_MAX]),
        ).to_json()

    async def commit(self) -> None:
        """Do nothing: the instance is as it was."""

    async def discard(self) -> None:
        """Remove what was restored."""
        await remove_workplace(self._workplace)

    async def _read(self, scratch: PostgresScratch) -> list[TableFacts]:
        try:
            connection = await connect(scratch.door, template.DATABASE)
            try:
                rows = await connection.fetch(TABLES)
            finally:
                connection.terminate()
        except AWAY as error:
            raise INVALID from error
        tables = [(row["schema"], row["name"]) for row in rows]
        try:
            return await asyncio.to_thread(
                table_facts, self._order, scratch.door.path, self._workplace, tables
            )
        except ProgramError as error:
            raise INVALID from error

    def _check_blocks(self, scratch: PostgresScratch) -> int:
        program = self._order.settings.postgres_bin / "pg_checksums"
        try:
            with running(program, ["--check", "-D", scratch.data], self._workplace) as checking:
                said = checking.finish(CHECK_SECONDS_MAX, self._order.progress)
        except ProgramError as error:
            raise INVALID from error
        scanned = BLOCKS.search(said)
        if scanned is None:
            raise TaskError("host_failed", "the host could not check the blocks")
        return int(scanned[1])
