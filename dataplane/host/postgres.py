"""A PostgreSQL server of one instance: clone, start, adopt, configure, stop.

Rules kept here:
- data appear under their name only when they are complete; `running` is reported only when they are
  on disk (`keeper` awaits `provision`);
- a data directory is started by one postmaster at a time. A postmaster that was killed leaves
  backends that still write: they are waited for before the next one starts;
- a postmaster.pid whose number now belongs to another program is removed, any other is left to
  PostgreSQL, which checks more than we can (its shared memory block).
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

import asyncpg

from dataplane.files import write_atomically
from dataplane.host import paths, template
from dataplane.host.bounds import (
    BACKEND_DATA_BYTES_MIN,
    BACKEND_OOM_SCORE,
    MEBIBYTE,
    Bounds,
)
from dataplane.host.clone import clone_tree, sync_file_system
from dataplane.host.door import Door
from dataplane.host.hibernation import Activity
from dataplane.host.overdue import end_overdue
from dataplane.host.postgres_roles import RESTORE_ACCESS
from dataplane.host.postgres_settings import (
    ARCHIVE_SCRIPT,
    archive_script,
    render,
    server_connections,
)
from dataplane.host.process import ServerProcess, adopt, children, clear_directory
from dataplane.host.server import ServerError, Site, directory_bytes, log
from dataplane.host.settings import HostSettings
from engines.kit.records import InstanceRecord, Limits

PROGRAMS = ("postgres",)
CONNECT_SECONDS_MAX = 5.0
FAST_STOP_SECONDS_MAX = 20.0
IMMEDIATE_STOP_SECONDS_MAX = 10.0
ORPHANS_SECONDS_MAX = 5.0
FILES_MAX = 4096
# Sessions of tasks call themselves so: the server is not stopped while they work.
TASK_APPLICATION = "weftkit task"

# One row: which processes are the server's own or ours, whether it has work that must not be cut
# short, and how many sessions there were but ours.
ACTIVITY = f"""
    SELECT
        array_agg(pid) FILTER (
            WHERE usename = '{template.SUPERUSER}'
            OR backend_type NOT IN ('client backend', 'walsender')
        ) AS own,
        bool_or(
            backend_type IN ('autovacuum worker', 'walsender')
            OR usename = '{template.SUPERUSER}' AND application_name = '{TASK_APPLICATION}'
        ) AS is_working,
        (
            SELECT coalesce(sum(sessions), 0)::bigint FROM pg_stat_database
            WHERE datname <> '{template.MAINTENANCE_DATABASE}'
        ) AS sessions
    FROM pg_stat_activity
"""  # noqa: S608 - constants of ours


class PostgresServer:
    """The `Server` of an instance of a relational engine."""

    def __init__(self, settings: HostSettings, site: Site) -> None:
        self._settings = settings
        self._site = site
        self._templates = paths.templates_dir(settings.home)
        self._door = Door(paths.postgres_socket(settings.run_dir, site.instance_id))
        self._waiting = ""  # settings that the running server did not take
        self._last_pid = 0  # of our last connection's backend, which may still be leaving
        self.process: ServerProcess | None = None

    @property
    def site(self) -> Site:
        """Where it lives."""
        return self._site

    @property
    def door(self) -> Door:
        """Its socket's name."""
        return self._door

    def has_data(self) -> bool:
        """Say whether a complete data directory is there."""
        return (self._site.data / "PG_VERSION").exists()

    async def provision(self) -> None:
        """Clone the template; return when the copy is whole and on disk."""
        await asyncio.to_thread(self._clone)

    def _clone(self) -> None:
        try:
            source = template.instance_cluster(self._settings.postgres_bin, self._templates)
            self._site.make_directories()
            copy = self._site.instance_dir / ".new-data"
            shutil.rmtree(copy, ignore_errors=True)
            clone_tree(source, copy)
            sync_file_system(copy)
            copy.rename(self._site.data)
            sync_file_system(self._site.instance_dir)
        except template.TemplateError as error:
            raise ServerError("the data directory's template cannot be built") from error
        except OSError as error:
            raise ServerError("the data directory cannot be made") from error

    async def adopt(self) -> bool:
        """Take hold of a postmaster that runs in our data directory."""
        pid = _postmaster_pid(self._site.data)
        if pid is not None:
            self.process = adopt(pid, programs=PROGRAMS, directory=self._site.data)
        return self.process is not None

    async def start(self, record: InstanceRecord) -> None:
        """Start the postmaster. Raises ServerError."""
        try:
            await clear_leftovers(self._site.data, self._site.socket_dir)
            self._site.make_directories()
            self._door.clear()
            await asyncio.to_thread(self._write_settings, record)
            self.process = self._site.launch(
                [self._settings.postgres_bin / "postgres", "-D", self._site.data],
                bounds_of(record.limits),
                # The postmaster keeps its own score; a backend is the better victim.
                {
                    "PG_OOM_ADJUST_FILE": "/proc/self/oom_score_adj",
                    "PG_OOM_ADJUST_VALUE": str(BACKEND_OOM_SCORE),
                },
            )
        except OSError as error:
            raise ServerError("the server cannot be started") from error

    async def is_ready(self) -> bool:
        """Say whether the server answers a connection."""
        # Line 8 of postmaster.pid tells it without a connection, which would cost more than the
        # start itself. The file may be the one that a killed postmaster left.
        return (
            self.process is not None
            and _postmaster_pid(self._site.data) == self.process.pid
            and postmaster_status(self._site.data) == "ready"
        )

    async def apply(self, record: InstanceRecord) -> str:
        """Write the settings, reload them if they changed, and say what waits for a restart."""
        try:
            is_changed = await asyncio.to_thread(self._write_settings, record)
            connection = await self._connect()
            try:
                await self._restore_access(connection)
                if is_changed:
                    await _reload(connection)
                rows = await connection.fetch(
                    "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name"
                )
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ServerError("the server does not take its settings") from error
        self._waiting = ", ".join(row["name"] for row in rows)
        return f"waits for a restart: {self._waiting}" if self._waiting else ""

    async def _restore_access(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        try:
            await connection.execute(RESTORE_ACCESS)
        except asyncpg.PostgresError as error:
            # A tenant that changes its roles just now; the record must be applied all the same.
            log.warning("access_not_restored", error=str(error), instance_id=self._site.instance_id)

    async def tidy(self, record: InstanceRecord) -> bool:
        """End overdue statements; ask for a restart if settings wait for it and nobody is there."""
        if self.process is not None:
            await end_overdue(
                self._connect, self.process.pid, record.limits, self._site.instance_id
            )
        if not self._waiting:
            return False
        seen = await self.activity()
        return seen is not None and not seen.clients and not seen.is_working

    async def activity(self) -> Activity | None:
        """Look who uses the server.

        A backend exists before it tells of itself: whatever child of the postmaster is not known to
        be a process of its own counts as a client.
        """
        left = self._last_pid
        try:
            connection = await self._connect()
            try:
                row = await connection.fetchrow(ACTIVITY)
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        if row is None or self.process is None:
            return None
        unknown = set(children(self.process.pid)).difference(row["own"], (left,))
        return Activity(len(unknown), row["sessions"], row["is_working"])

    async def stop(self) -> None:
        """Stop fast: sessions end, a checkpoint is written; at once if that takes too long."""
        self._door.close()
        process = self.process
        if process is None:
            return
        process.send(signal.SIGINT)
        if not await process.wait_for(FAST_STOP_SECONDS_MAX):
            process.send(signal.SIGQUIT)  # no checkpoint; the next start recovers from the WAL
            if not await process.wait_for(IMMEDIATE_STOP_SECONDS_MAX):
                process.send(signal.SIGKILL)
                await process.wait_for(IMMEDIATE_STOP_SECONDS_MAX)
        self.process = None

    def storage_bytes(self) -> int:
        """Measure tables and indexes; the WAL is ours, not the tenant's."""
        return directory_bytes(self._site.data / "base")

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            host=str(self._door.path.parent),
            port=paths.POSTGRES_PORT,
            user=template.SUPERUSER,
            database=template.MAINTENANCE_DATABASE,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=CONNECT_SECONDS_MAX,
            statement_cache_size=0,
            server_settings={"application_name": "weftkit host"},
        )
        self._last_pid = connection.get_server_pid()
        return connection

    def _write_settings(self, record: InstanceRecord) -> bool:
        """Write postgresql.conf; say whether it changed."""
        text = render(
            record.limits,
            handle=record.handle,
            socket_dir=self._door.inner.parent,
            version=template.postgres_version(self._settings.postgres_bin),
            extensions=template.extension_directory(self._settings.postgres_bin, self._templates),
        ).encode()
        if record.limits.wal_archive:
            script = archive_script(paths.archive(self._site.instance_dir))
            write_atomically(self._site.instance_dir / ARCHIVE_SCRIPT, script.encode())
        path = self._site.data / "postgresql.conf"
        if path.read_bytes() == text:
            return False
        write_atomically(path, text)
        return True


async def clear_leftovers(data: Path, socket_dir: Path) -> None:
    """Wait for a killed postmaster's backends, and remove lock files that name strangers."""
    # Backends notice within a moment that their postmaster is gone.
    await clear_directory(data, number=0, seconds_max=ORPHANS_SECONDS_MAX)
    await asyncio.to_thread(_remove_lock_files, data, socket_dir)


def postmaster_status(data: Path) -> str:
    """Return what the postmaster says of itself: starting, ready, stopping, standby; or ""."""
    lines = _postmaster_lines(data)
    return lines[7].strip() if len(lines) > 7 else ""


def _remove_lock_files(data: Path, socket_dir: Path) -> None:
    pid = _postmaster_pid(data)
    if pid is not None and Path(f"/proc/{pid}").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)
    for name in socket_dir.glob(f".s.PGSQL.{paths.POSTGRES_PORT}*"):
        name.unlink(missing_ok=True)


async def _reload(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Have the settings read again, and return once our own session has read them."""
    before = await connection.fetchval("SELECT pg_conf_load_time()")
    await connection.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + CONNECT_SECONDS_MAX
    while await connection.fetchval("SELECT pg_conf_load_time()") == before:
        if time.monotonic() > deadline:
            raise ServerError("the server does not reload its settings")
        await asyncio.sleep(0.005)


def bounds_of(limits: Limits) -> Bounds:
    """Return what a server may take of the machine."""
    return Bounds(
        # Backends and their sorts live beside the shared buffers; the page cache is reclaimed.
        memory_bytes=limits.memory_bytes * 2 + 64 * MEBIBYTE,
        data_bytes=max(BACKEND_DATA_BYTES_MIN, limits.memory_bytes),
        files=FILES_MAX,
        processes=server_connections(limits) + 32,
    )


def _postmaster_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _postmaster_pid(data: Path) -> int | None:
    lines = _postmaster_lines(data)
    return int(lines[0]) if lines and lines[0].isdigit() else None
