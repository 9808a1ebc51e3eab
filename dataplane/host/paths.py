"""Where an instance's data, sockets and logs are: the single place that says so.

    <home>/instances/<hex>/          of the instance with that UUID
        data/                        PostgreSQL's data directory, or Redis' working directory
        server.log, server.log.1     what the server wrote; bounded in size
        workplace/                   of a task that makes new data for it, while that goes on
        archive/                     closed WAL segments that are not shipped; `archive.sh` fills it
        instance.json                which engine and server version made `data`
        hibernated                   there while the instance sleeps
    <home>/files/                    exports and imports, see `depot`
    <home>/templates/                ready-made PostgreSQL data directories
    <home>/host/records.json         the host's last known good records
    <run>/i/<hex>/.s.PGSQL.5432      PostgreSQL's socket, for clients
    <run>/i/<hex>/redis.sock         Redis' socket, for clients
    <run>/i/<hex>/own/               the same sockets while only the host shall connect (`door`)
    <run>/host/wake.sock             where the data plane asks for an instance to be woken
    <run>/host.json                  the host's own state, for `status`
    <run>/host.prom                  the host's metrics, shown by the data plane's admin port

The run directory is apart from the home because the path of a unix socket has 107 usable bytes.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

POSTGRES_PORT = 5432  # names the socket file; nothing listens on TCP
# For a socket as clients see it: sun_path has 108 with its NUL, and `own/` is added while the door
# is closed.
SOCKET_PATH_BYTES_MAX = 100


def instance_hex(instance_id: str) -> str:
    """Return the name of the instance's directories: its UUID without dashes."""
    return UUID(instance_id).hex


def instances_dir(home: Path) -> Path:
    """Return the directory of all instances."""
    return home / "instances"


def data_dir(home: Path, instance_id: str) -> Path:
    """Return the directory of all that belongs to one instance."""
    return instances_dir(home) / instance_hex(instance_id)


def workplace(instance_dir: Path) -> Path:
    """Return where a task makes new data of an instance, beside those that are served."""
    return instance_dir / "workplace"


def archive(instance_dir: Path) -> Path:
    """Return where a relational instance's closed WAL segments wait to be shipped."""
    return instance_dir / "archive"


def socket_dir(run_dir: Path, instance_id: str) -> Path:
    """Return the directory of the instance server's socket; mode 0700."""
    return run_dir / "i" / instance_hex(instance_id)


def postgres_socket(run_dir: Path, instance_id: str) -> Path:
    """Return the socket of a relational instance's server."""
    return socket_dir(run_dir, instance_id) / f".s.PGSQL.{POSTGRES_PORT}"


def redis_socket(run_dir: Path, instance_id: str) -> Path:
    """Return the socket of an inmemory instance's server."""
    return socket_dir(run_dir, instance_id) / "redis.sock"


def templates_dir(home: Path) -> Path:
    """Return the directory of ready-made PostgreSQL data directories."""
    return home / "templates"


def records_snapshot(home: Path) -> Path:
    """Return the host's file of last known good records."""
    return home / "host" / "records.json"


def host_state(run_dir: Path) -> Path:
    """Return the file in which the host says how it is."""
    return run_dir / "host.json"


def host_metrics(run_dir: Path) -> Path:
    """Return the file in which the host counts, in Prometheus' text format."""
    return run_dir / "host.prom"


def wake_socket(run_dir: Path) -> Path:
    """Return the socket on which the host takes wishes to wake an instance."""
    return run_dir / "host" / "wake.sock"
