"""A logical import: a dump in custom format takes the place of an instance's data.

    fetch ─► an empty cluster ─► pg_restore as `owner` in a scratch server ─► stop   (prepare)
    stop the server ─► exchange the two directories ─► start ─► it answers            (commit)

A dump is a program that somebody else wrote. It runs as the role that the tenant has anyway, never
as superuser, in a server that holds nothing but itself, within the plan's memory and storage; dumps
in plain text would be run by psql, which obeys more than SQL, and are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg

from dataplane.host import paths, template
from dataplane.host.clone import clone_tree, sync_file_system
from dataplane.host.data_switch import DataSwitch
from dataplane.host.depot import FileMissingError, Stored
from dataplane.host.postgres_control import SEGMENT_SIZE, control_facts
from dataplane.host.postgres_program import ProgramError, connection_arguments, running
from dataplane.host.postgres_restore import put_aside, put_back
from dataplane.host.postgres_roles import OWNER_ROLE
from dataplane.host.postgres_scratch import PostgresScratch, ServerEndedError
from dataplane.host.postgres_task import AWAY, NOT_IN_SERVICE, connect, parameters, site_of
from dataplane.host.postgres_unpack import FREE_BYTES_MIN
from dataplane.host.postgres_wal import segment_name, segment_place
from dataplane.host.work import NO_ROOM, Order, Progress, TaskError, remove_workplace
from engines.kit.pg_tasks import Loaded
from engines.kit.pg_tasks import Stored as StoredName

MAGIC = b"PGDMP"
LOAD_SECONDS_MAX = 3600.0
LOOK_SECONDS = 0.5
CONTROL_SECONDS_MAX = 60.0
# Nobody reads it before it is whole: one sync at the end makes all of it durable.
UNSYNCED = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
# The new data's log is a timeline of its own, and leaves a gap that tells it from the old one's.
SEGMENTS_BETWEEN = 16
REDO_FILE = "Latest checkpoint's REDO WAL file"
SAID = re.compile(r"error: (?:could not execute query: )?(.*)")
SAID_CHARACTERS_MAX = 300
ANALYZE = "SET SESSION AUTHORIZATION owner; SET statement_timeout = '60s'; ANALYZE"
TABLES = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relowner = 'owner'::regrole"


class PgLoad:
    """Parameters: `Stored`. Result: `Loaded`."""

    commits = True

    def __init__(self, order: Order) -> None:
        self._order = order
        self._site = site_of(order)
        self._workplace = paths.workplace(self._site.instance_dir)
        self._file = self._workplace / "dump"
        self._data = self._workplace / "data"
        version = template.postgres_version(order.settings.postgres_bin)
        archive = paths.archive(self._site.instance_dir)
        self._switch = DataSwitch(
            order,
            self._site,
            self._data,
            version[:1],
            leave=lambda: self._leave(archive),
            come_back=lambda: put_back(archive, self._workplace),
        )

    async def prepare(self) -> Mapping[str, Any]:
        """Load the dump beside the running data, and leave it as data that can be served."""
        wanted = parameters(self._order, StoredName.from_json)
        record = self._order.keeper.record
        if record is None:
            raise NOT_IN_SERVICE
        await self.discard()
        await asyncio.to_thread(self._workplace.mkdir, mode=0o700, parents=True)
        await asyncio.to_thread(self._fetch, wanted)
        scratch = PostgresScratch(self._order, self._site, record)
        try:
            await scratch.start(UNSYNCED)
            await scratch.ready()
            await self._load(scratch)
            loaded = await self._measured(scratch)
            await scratch.stop()
        except ServerEndedError as error:
            raise TaskError("host_failed", "the host could not load the dump") from error
        finally:
            await scratch.kill()
        await asyncio.to_thread(self._finish)
        return loaded.to_json()

    async def commit(self) -> None:
        """Serve the new data; what is served after an error is the old."""
        await self._switch.commit()

    async def discard(self) -> None:
        """Remove the workplace: the new data before the exchange, the old after."""
        await remove_workplace(self._workplace)
        await asyncio.to_thread(self._switch.unmark)

    def _fetch(self, wanted: StoredName) -> None:
        order = self._order
        if shutil.disk_usage(self._workplace).free < 2 * wanted.size_bytes + FREE_BYTES_MIN:
            raise NO_ROOM
        order.progress.total_bytes = wanted.size_bytes
        expected = Stored(wanted.size_bytes, wanted.sha256)
        try:
            order.depot.fetch(wanted.file, self._file, expected, order.progress.add)
        except FileMissingError:
            raise TaskError(
                "file_incomplete", "the file is not what was uploaded: upload it again"
            ) from None
        with self._file.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise TaskError("not_dump", "the file is not a dump in pg_dump's custom format")
        settings = order.settings
        templates = paths.templates_dir(settings.home)
        clone_tree(template.instance_cluster(settings.postgres_bin, templates), self._data)

    async def _load(self, scratch: PostgresScratch) -> None:
        """Run pg_restore, and look meanwhile how large it becomes."""
        inner = Progress()
        loading = asyncio.create_task(asyncio.to_thread(self._run, scratch, inner))
        try:
            while not loading.done():
                await asyncio.wait({loading}, timeout=LOOK_SECONDS)
                self._order.progress.check()
                await scratch.demand_size()
                if shutil.disk_usage(self._workplace).free < FREE_BYTES_MIN:
                    raise NO_ROOM
        except BaseException:
            inner.is_cancelled = True
            await asyncio.gather(loading, return_exceptions=True)
            raise
        await loading

    def _run(self, scratch: PostgresScratch, progress: Progress) -> None:
        arguments: list[str | Path] = [
            *connection_arguments(scratch.door.path, OWNER_ROLE),
            f"--dbname={template.DATABASE}", "--format=custom", "--exit-on-error", "--no-owner",
            "--no-privileges", "--no-publications", "--no-subscriptions", "--no-tablespaces",
            "--no-security-labels", self._file,
        ]  # fmt: skip
        program = self._order.settings.postgres_bin / "pg_restore"
        try:
            with running(program, arguments, self._workplace) as loading:
                loading.finish(LOAD_SECONDS_MAX, progress)
        except ProgramError as error:
            if error.code == "disk_full":
                raise
            raise _refusal(error.said) from error

    async def _measured(self, scratch: PostgresScratch) -> Loaded:
        try:
            connection = await connect(scratch.door, template.DATABASE)
            try:
                tables = await connection.fetchval(TABLES)
                # The planner knows nothing of the new tables yet. Indexes may call functions of the
                # dump, so it is tried as owner, and not for long.
                with contextlib.suppress(asyncpg.PostgresError):
                    await connection.execute(ANALYZE)
            finally:
                connection.terminate()
        except AWAY as error:
            raise TaskError("host_failed", "the host could not load the dump") from error
        return Loaded(tables, await scratch.demand_size())

    def _finish(self) -> None:
        self._file.unlink()
        self._switch.mark()
        sync_file_system(self._workplace)

    def _leave(self, archive: Path) -> None:
        """Put the new data's log behind the old one's, and keep the two apart; blocks."""
        bins = self._order.settings.postgres_bin
        old = control_facts(bins, self._site.data, self._workplace)
        if REDO_FILE not in old:
            raise TaskError("server_failed", "the old data cannot be read")
        old_bytes = int(old[SEGMENT_SIZE])
        timeline, number = segment_place(old[REDO_FILE], old_bytes)
        new_bytes = int(control_facts(bins, self._data, self._workplace)[SEGMENT_SIZE])
        first = segment_name(timeline + 1, (number + SEGMENTS_BETWEEN) * old_bytes, new_bytes)
        with running(
            bins / "pg_resetwal", ["-l", first, "-D", self._data], self._workplace
        ) as moving:
            moving.finish(CONTROL_SECONDS_MAX, Progress())
        put_aside(archive, self._workplace)


def _refusal(said: str) -> TaskError:
    """Say which statement the server refused, in the words of the server."""
    found = SAID.findall(said)
    if any("input file" in line or "file header" in line for line in found):
        return TaskError("not_dump", "the file is not a dump that this server's version can read")
    reason = found[0][:SAID_CHARACTERS_MAX] if found else "the dump ended too early"
    return TaskError("dump_failed", f"the server refused the dump: {reason}")
