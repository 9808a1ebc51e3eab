"""The postgresql.conf of an instance, written whole from its plan's limits.

Every setting that differs from PostgreSQL's default stands here once, with its reason. Sizes follow
the plan's memory: a quarter for shared buffers, as PostgreSQL's manual recommends (19.4.1).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from dataplane.host import paths, postgres_archive
from dataplane.host.template import WAL_SEGMENT_MEGABYTES
from engines.kit.records import Limits

KIBIBYTE = 1024
MEBIBYTE = 1024 * 1024
SETTING_MAX = 2**31 - 1  # PostgreSQL's integer settings are C ints

CONNECTIONS_RESERVED = 10  # for the host, backups, and sign-ins that overlap with sign-outs
CONNECTIONS_STEP = 100  # doubled until the plan fits, so that few plan changes need a restart
CONNECTIONS_STEPS_MAX = 800  # from here on a connection's share of shared memory is felt
# A backend takes about 2 MB of its own; at a quarter of that the plan's memory is surely spent.
BYTES_PER_CONNECTION_MIN = 512 * KIBIBYTE
CONNECTIONS_CEILING_MIN = 50
CONNECTIONS_MAX = 20_000  # whatever the memory: each one is a process of its own

# So old an unfinished segment becomes: what a lost disk can cost at most.
ARCHIVE_SECONDS = 60
# Compressed segments that nobody fetches: from here on gaps, before the disk is full.
ARCHIVE_BYTES_MAX = 4096 * MEBIBYTE
ARCHIVE_NOTHING = "/bin/true"
# Everybody may SHOW it, so it names no path of the host; the server works in its data directory.
ARCHIVE_SCRIPT = "archive.sh"
ARCHIVE_COMMAND = f"/bin/sh ../{ARCHIVE_SCRIPT} %p"

FIXED = {
    # The socket is the only door (design.md section 3).
    "listen_addresses": "",
    "port": str(paths.POSTGRES_PORT),
    "unix_socket_permissions": "0700",
    "superuser_reserved_connections": "3",
    # A crash may lose no acknowledged write, whatever the session says about fsync's cost.
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A statement whose session was revoked or lost must not go on and commit later.
    "client_connection_check_interval": "1s",
    # For base backups and archives; slots and senders cannot be added without a restart.
    "wal_level": "replica",
    "max_wal_senders": "4",
    "max_replication_slots": "4",
    # Only a restart turns the archiver on; what it does, and whether at all, needs none.
    "archive_mode": "on",
    "min_wal_size": f"{WAL_SEGMENT_MEGABYTES * 4}MB",
    # Huge pages and compiled expressions do not pay for servers of this size.
    "huge_pages": "off",
    "jit": "off",
    # No role of an instance may subscribe; without this a launcher process would sit there idle.
    "max_logical_replication_workers": "0",
    "max_worker_processes": "4",
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "1",
    "autovacuum_max_workers": "2",
    # Client errors and statements are the tenant's own business and would fill the log.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "datestyle": "iso, mdy",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "default_text_search_config": "pg_catalog.english",
}

SINCE_17 = {
    # Whoever listens inside of a transaction keeps all later notifications on disk, where no quota
    # counts them, and even a reader may notify: 64 MB instead of 8 GB. Beyond, NOTIFY fails.
    "max_notify_queue_pages": "8192",
}

SINCE_18 = {
    # Three I/O worker processes an instance are too many for a small server.
    "io_method": "sync",
    "autovacuum_worker_slots": "4",
}


def server_connections(limits: Limits) -> int:
    """Return max_connections: the plan's figure, as far as its memory could ever carry it."""
    ceiling = max(CONNECTIONS_CEILING_MIN, limits.memory_bytes // BYTES_PER_CONNECTION_MIN)
    wanted = min(limits.connections, ceiling, CONNECTIONS_MAX)
    step = CONNECTIONS_STEP
    while step < wanted:
        step *= 2
    return min(step, max(wanted, CONNECTIONS_STEPS_MAX)) + CONNECTIONS_RESERVED


def render(
    limits: Limits,
    *,
    handle: str,
    socket_dir: Path,
    version: tuple[int, ...],
    extensions: Path,
) -> str:
    """Return the file's text."""
    memory = limits.memory_bytes
    settings = {
        **FIXED,
        "cluster_name": handle,
        "unix_socket_directories": str(socket_dir),
        "max_connections": str(server_connections(limits)),
        "shared_buffers": _kilobytes(memory // 4, 8 * MEBIBYTE, 8192 * MEBIBYTE),
        "work_mem": _kilobytes(memory // 32, MEBIBYTE, 64 * MEBIBYTE),
        "maintenance_work_mem": _kilobytes(memory // 8, 8 * MEBIBYTE, 1024 * MEBIBYTE),
        "effective_cache_size": _kilobytes(memory * 3 // 4, 32 * MEBIBYTE, memory),
        "max_wal_size": _kilobytes(memory * 2, 128 * MEBIBYTE, 4096 * MEBIBYTE),
        "statement_timeout": str(limits.statement_timeout_ms),
        "temp_file_limit": _temporary_kilobytes(limits.storage_bytes),
        "fsync": "on" if limits.fsync else "off",
        "dynamic_shared_memory_type": _dynamic_shared_memory(),
        "archive_command": ARCHIVE_COMMAND if limits.wal_archive else ARCHIVE_NOTHING,
        "archive_timeout": f"{ARCHIVE_SECONDS if limits.wal_archive else 0}s",
        "summarize_wal": "on" if limits.wal_archive or limits.wal_summaries else "off",
    }
    if version >= (17,):
        settings |= SINCE_17
    if version >= (18,):
        settings |= SINCE_18 | {"extension_control_path": f"{extensions}:$system"}
    return "# Written by the instance host; changes are lost.\n" + setting_lines(settings)


def setting_lines(settings: Mapping[str, str]) -> str:
    """Return lines of postgresql.conf; of two lines of one name the later is in force."""
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in sorted(settings.items()))


def archive_script(archive: Path) -> str:
    """Return what the server runs with each closed segment."""
    words = shlex.join([str(archive), str(ARCHIVE_BYTES_MAX)])
    return f'exec {_archive_program()} keep "$1" {words}\n'


def restore_command(archive: Path) -> str:
    """Return what a recovering server runs for each segment that it wants."""
    words = f"{_archive_program()} fetch {shlex.quote(str(archive))}"
    return words.replace("%", "%%") + " %f %p"


def _archive_program() -> str:
    # -I -S: nothing of the environment, no site packages; 15 ms instead of 40.
    program = Path(postgres_archive.__file__).resolve()
    return shlex.join([sys.executable, "-I", "-S", str(program)])


def _kilobytes(wanted: int, low: int, high: int) -> str:
    return f"{min(max(low, min(wanted, high)) // KIBIBYTE, SETTING_MAX)}kB"


def _temporary_kilobytes(storage_bytes: int | None) -> str:
    # A sort that spills must not fill the host's disk beyond what the plan may store.
    return "-1" if storage_bytes is None else _kilobytes(storage_bytes, MEBIBYTE, storage_bytes)


def _dynamic_shared_memory() -> str:
    # Containers often get 64 MB of /dev/shm: parallel queries would fail there with "no space".
    try:
        state = os.statvfs("/dev/shm")
    except OSError:
        return "mmap"
    return "posix" if state.f_bavail * state.f_frsize >= 256 * MEBIBYTE else "mmap"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
