"""The control plane's own PostgreSQL: a cluster in the home, on a unix socket only.

It holds the database `weftkit` (the control plane) and `cell` (for the schema engines). It is made
from the same plain template as the instances' clusters, so that initdb runs once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import asyncpg

from dataplane.files import write_atomically
from dataplane.host import paths, template
from dataplane.host.clone import clone_tree, sync_file_system
from dataplane.host.postgres import clear_leftovers, postmaster_status
from deploy.local.home import CELL_DATABASE, CELL_ROLE, Home

DATABASES = ("weftkit", CELL_DATABASE)
# Whatever the cluster was made by; each start says it again.
CELL_SQL = (
    f"DO $$ BEGIN CREATE ROLE {CELL_ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    f"ALTER DATABASE {CELL_DATABASE} OWNER TO {CELL_ROLE}",
    f"REVOKE ALL ON DATABASE {CELL_DATABASE} FROM PUBLIC",
)
CONNECT_SECONDS_MAX = 2.0

SETTINGS = {
    "listen_addresses": "",
    "port": str(paths.POSTGRES_PORT),
    "unix_socket_permissions": "0700",
    "cluster_name": "weftkit control",
    # Daphne's and Celery's threads, and for each data-plane worker its sessions with the cell.
    "max_connections": "200",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "32MB",
    "min_wal_size": f"{template.WAL_SEGMENT_MEGABYTES * 8}MB",
    "max_wal_size": "256MB",
    "huge_pages": "off",
    "jit": "off",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "2",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "datestyle": "iso, mdy",
    "default_text_search_config": "pg_catalog.english",
}


def make_cluster(home: Home) -> None:
    """Make the cluster with its databases, unless it is there; all or nothing. Blocks."""
    final = cluster_dir(home)
    if not final.exists():
        base = template.base_cluster(home.postgres_bin, paths.templates_dir(home.root))
        copy = final.with_name(".new-postgres")
        shutil.rmtree(copy, ignore_errors=True)
        clone_tree(base, copy)
        template.run_single_user(
            home.postgres_bin,
            copy,
            template.MAINTENANCE_DATABASE,
            [f"CREATE DATABASE {name} STRATEGY file_copy" for name in DATABASES],
        )
        sync_file_system(copy)
        copy.rename(final)
        sync_file_system(home.root)
    values = {**SETTINGS, "unix_socket_directories": str(home.postgres_socket_dir)}
    text = "".join(f"{name} = '{value}'\n" for name, value in values.items())
    write_atomically(final / "postgresql.conf", text.encode())


def cluster_dir(home: Home) -> Path:
    """Return the cluster's data directory."""
    return home.root / "postgres"


def identity(home: Home) -> str:
    """Return what tells this cluster from one that was made in its place later."""
    try:
        state = (cluster_dir(home) / "PG_VERSION").stat()
    except FileNotFoundError:
        return ""
    return f"{state.st_ino}-{state.st_mtime_ns}"


async def prepare(home: Home) -> None:
    """Remove what a killed server left behind; called right before each start."""
    await clear_leftovers(cluster_dir(home), home.postgres_socket_dir)


async def is_ready(home: Home) -> bool:
    """Say whether the control database answers; the cell beside it then has its owner."""
    if postmaster_status(cluster_dir(home)) != "ready":
        return False
    try:
        connection = await asyncpg.connect(
            home.database_url(template.SUPERUSER), timeout=CONNECT_SECONDS_MAX
        )
        try:
            for text in CELL_SQL:
                await connection.execute(text)
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True
