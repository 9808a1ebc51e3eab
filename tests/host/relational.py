"""What tests of relational instances' tasks share: instances, sessions, the archive."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from dataplane.host import paths
from engines.kit.pg_tasks import BaseBackup, ShipWal
from engines.kit.records import Desired, InstanceRecord, Limits
from engines.kit.tasks import Kind, State, Wish
from tests.host.conftest import ControlPlane, HostProcess, make_record
from tests.host.rdb_files import upload
from tests.servers import wait_until

MEBIBYTE = 1024 * 1024
ARCHIVED = Limits(wal_archive=True)
Json = dict[str, Any]


@contextlib.contextmanager
def running_instance(
    control: ControlPlane, name: str, limits: Limits = ARCHIVED
) -> Iterator[InstanceRecord]:
    record = control.publish(make_record("relational", name, limits=limits))
    control.wait(record, "running")
    try:
        yield record
    finally:
        newest = max(record.generation, control.observed(record)["generation"])
        control.ask(replace(record, generation=newest), desired=Desired.ABSENT)


@contextlib.contextmanager
def session(
    host: HostProcess, record: InstanceRecord, user: str = "owner"
) -> Iterator[psycopg.Connection[Any]]:
    """Connect as soon as the server answers."""
    found: list[psycopg.Connection[Any]] = []

    def answers() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            found.append(psycopg.connect(host.postgres_dsn(record, user), autocommit=True))
        return bool(found)

    wait_until(answers, "the server answers")
    with contextlib.closing(found[0]) as connection:
        yield connection


@contextlib.contextmanager
def source_instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance whose WAL is archived, with an empty table `t`."""
    with running_instance(control, "demo-source") as record:
        with session(host, record) as connection:
            connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
        yield record


def commit(control: ControlPlane, task: str) -> Json:
    control.wish(task, Wish.COMMIT)
    return control.wait_task(task, State.DONE)


def archive(host: HostProcess, record: InstanceRecord) -> Path:
    return paths.archive(paths.data_dir(host.home, record.instance_id))


def kept(host: HostProcess, record: InstanceRecord) -> list[str]:
    folder = archive(host, record)
    return sorted(path.name for path in folder.glob("*.gz")) if folder.exists() else []


def workplace(host: HostProcess, record: InstanceRecord) -> Path:
    return paths.workplace(paths.data_dir(host.home, record.instance_id))


def new_name() -> str:
    return f"exports/{secrets.token_hex(16)}"


def content(host: HostProcess, name: str) -> bytes:
    return b"".join(part.read_bytes() for part in sorted((host.home / "files" / name).iterdir()))


def ship(control: ControlPlane, record: InstanceRecord, count: int = 64) -> tuple[str, Json]:
    """Ship the archive up to the commit, which stays to be wished."""
    names = tuple(new_name() for _ in range(count))
    task = control.start_task(record, Kind.PG_SHIP_WAL, **ShipWal(names).to_json())
    return task, control.wait_task(task, State.PREPARED)["result"]


def insert(host: HostProcess, record: InstanceRecord, first: int, last: int) -> datetime:
    """Insert rows and return the server's time just after their commit."""
    with session(host, record) as connection:
        connection.execute(
            "INSERT INTO t SELECT n, repeat('x', 100) || n FROM generate_series(%s::int, %s) AS n",
            (first, last),
        )
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def back_up(
    control: ControlPlane, host: HostProcess, record: InstanceRecord, parent: Json | None = None
) -> Json:
    """Take a base backup; return its result with the names of its files."""
    wanted = BaseBackup(new_name(), new_name()).to_json()
    if parent is not None:
        wanted["parent_manifest"] = {
            "file": parent["manifest_file"],
            "size_bytes": parent["manifest_size_bytes"],
            "sha256": parent["manifest_sha256"],
        }
    task = control.start_task(record, Kind.PG_BASE_BACKUP, **wanted)
    return wanted | control.wait_task(task, State.DONE)["result"]


def ids(host: HostProcess, record: InstanceRecord) -> list[int]:
    with session(host, record) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM t ORDER BY id").fetchall()]


def staged(host: HostProcess, *backups: Json) -> list[Json]:
    """Store backups in the depot once more, as the control plane brings them back."""
    return [
        upload(host.home, content(host, done["file"]), 700_001)
        | {name: done[name] for name in ("unpacked_bytes", "finished_at")}
        for done in backups
    ]


def shipped_wal(control: ControlPlane, host: HostProcess, record: InstanceRecord) -> list[Json]:
    """Ship all of the archive, and store it in the depot once more."""
    task, shipped = ship(control, record)
    found = [each | upload(host.home, content(host, each["file"])) for each in shipped["segments"]]
    assert shipped["left"] == 0
    commit(control, task)
    return found


def restore(control: ControlPlane, record: InstanceRecord, **wanted: Any) -> Json:
    """Restore into an instance and return the task's row."""
    task = control.start_task(record, Kind.PG_RESTORE, **wanted)
    control.wait_task(task, State.PREPARED)
    return commit(control, task)
