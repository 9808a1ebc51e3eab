"""What tests of relational instances' tasks share: instances, sessions, the archive."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from dataplane.host import paths
from engines.kit.pg_tasks import ShipWal
from engines.kit.records import Desired, InstanceRecord, Limits
from engines.kit.tasks import Kind, State, Wish
from tests.host.conftest import ControlPlane, HostProcess, make_record
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
