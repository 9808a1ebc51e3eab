"""Base backups and shipped WAL of relational instances under the real host, restored and killed."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import secrets
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dataplane.host import paths
from engines.kit.pg_tasks import BaseBackup, ShipWal
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


@pytest.fixture
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance whose WAL is archived."""
    with running_instance(control, "demo-source") as record:
        with session(host, record) as connection:
            connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
        yield record


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


def new_name() -> str:
    return f"exports/{secrets.token_hex(16)}"


def content(host: HostProcess, name: str) -> bytes:
    return b"".join(part.read_bytes() for part in sorted((host.home / "files" / name).iterdir()))


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


def ship(control: ControlPlane, record: InstanceRecord, count: int = 64) -> tuple[str, Json]:
    """Ship the archive up to the commit, which stays to be wished."""
    names = tuple(new_name() for _ in range(count))
    task = control.start_task(record, Kind.PG_SHIP_WAL, **ShipWal(names).to_json())
    return task, control.wait_task(task, State.PREPARED)["result"]


def commit(control: ControlPlane, task: str) -> Json:
    control.wish(task, Wish.COMMIT)
    return control.wait_task(task, State.DONE)


def archive(host: HostProcess, record: InstanceRecord) -> Path:
    return paths.archive(paths.data_dir(host.home, record.instance_id))


def kept(host: HostProcess, record: InstanceRecord) -> list[str]:
    folder = archive(host, record)
    return sorted(path.name for path in folder.glob("*.gz")) if folder.exists() else []


def test_base_backup_is_one_gzipped_tar_with_its_manifest_and_its_wal(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 1000)
    done = back_up(control, host, instance)
    data = content(host, done["file"])
    assert (done["size_bytes"], done["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert done["mode"] == "full"
    unpacked = gzip.decompress(data)
    assert done["unpacked_bytes"] == len(unpacked) > 2 * len(data)
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        names = set(tar.getnames())
        manifest = tar.extractfile("backup_manifest")
        assert manifest is not None
        assert manifest.read() == content(host, done["manifest_file"])
    assert {"backup_label", "global/pg_control", "PG_VERSION"} <= names
    for name in (done["start_segment"], done["stop_segment"]):
        assert f"pg_wal/{name}" in names, "it can be restored without an archive"
    assert done["started_at"] < done["finished_at"]


def test_incremental_backup_has_only_what_changed_since_its_parent(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 50_000)
    full = back_up(control, host, instance)
    insert(host, instance, 60_000, 60_100)
    increment = back_up(control, host, instance, full)
    assert increment["mode"] == "incremental"
    assert increment["unpacked_bytes"] < full["unpacked_bytes"] - 5 * MEBIBYTE
    assert increment["start_lsn"] > full["stop_lsn"]


def test_increment_without_summaries_says_that_a_full_one_is_needed(
    control: ControlPlane, host: HostProcess
) -> None:
    with running_instance(control, "demo-plain", Limits()) as record:
        full = back_up(control, host, record)
        wanted = BaseBackup(new_name(), new_name()).to_json()
        wanted["parent_manifest"] = {
            "file": full["manifest_file"],
            "size_bytes": full["manifest_size_bytes"],
            "sha256": full["manifest_sha256"],
        }
        task = control.start_task(record, Kind.PG_BASE_BACKUP, **wanted)
        assert control.wait_task(task, State.FAILED)["code"] == "incremental_unavailable"
        assert not (host.home / "files" / wanted["file"]).exists()
        wait_until(
            lambda: not paths.workplace(paths.data_dir(host.home, record.instance_id)).exists(),
            "nothing is left",
        )


def test_shipped_segments_leave_the_host_only_after_the_commit(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    written = insert(host, instance, 1, 100)
    task, shipped = ship(control, instance)
    names = [each["name"] for each in shipped["segments"]]
    assert names == sorted(names)
    assert [f"{name}.gz" for name in names] == kept(host, instance), "the archive has them still"
    assert datetime.fromisoformat(shipped["covered_until"]) > written - timedelta(seconds=1)
    assert shipped["left"] == 0
    for each in shipped["segments"]:
        data = content(host, each["file"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each["size_bytes"], each["sha256"])
        assert len(gzip.decompress(data)) == 4 * MEBIBYTE
    commit(control, task)
    assert kept(host, instance) == []
    folder = host.home / "files" / shipped["segments"][0]["file"]
    wait_until(lambda: not folder.exists(), "the copies are removed")


def test_cancelled_shipping_keeps_the_archive_and_few_names_take_the_oldest(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    for number in range(3):
        insert(host, instance, number * 10, number * 10 + 9)
        with session(host, instance, "weftkit") as connection:
            connection.execute("SELECT pg_switch_wal()")
    wait_until(lambda: len(kept(host, instance)) == 3, "three segments are archived")
    there = kept(host, instance)
    task, shipped = ship(control, instance, count=2)
    assert [f"{each['name']}.gz" for each in shipped["segments"]] == there[:2]
    assert (shipped["left"], shipped["covered_until"]) == (1, None)
    control.wish(task, Wish.CANCEL)
    control.wait_task(task, State.CANCELLED)
    assert kept(host, instance) == there


def test_nobody_writes_then_nothing_is_shipped_and_the_cover_goes_on(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 10)
    task, first = ship(control, instance)
    commit(control, task)
    task, second = ship(control, instance)
    commit(control, task)
    assert second["segments"] == []
    assert second["covered_until"] > first["covered_until"]


def test_open_transaction_is_covered_only_once_it_has_ended(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    with session(host, instance) as connection:
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (1, 'late')")
            task, first = ship(control, instance)
            commit(control, task)
        task, second = ship(control, instance)
    assert second["segments"], "its commit is in a later segment"
    assert second["covered_until"] > first["covered_until"]
    commit(control, task)


def test_sleeping_instance_is_covered_without_being_woken(
    control: ControlPlane, host: HostProcess
) -> None:
    limits = replace(ARCHIVED, hibernate_after_s=1)
    with running_instance(control, "demo-sleeper", limits) as record:
        with session(host, record) as connection:
            connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
        insert(host, record, 1, 10)
        control.wait(record, "hibernated")
        task, shipped = ship(control, record)
        assert shipped["segments"]
        assert shipped["covered_until"] is not None
        commit(control, task)
        assert control.observed(record)["state"] == "hibernated"


def test_backup_wakes_a_sleeping_instance(control: ControlPlane, host: HostProcess) -> None:
    with running_instance(control, "demo-asleep", Limits(hibernate_after_s=1)) as record:
        control.wait(record, "hibernated")
        assert back_up(control, host, record)["size_bytes"] > 0


def test_archive_without_reader_has_gaps_before_the_disk_is_full(tmp_path: Path) -> None:
    from dataplane.host import postgres_archive

    first, second = (tmp_path / f"0000000100000000000000{n:02X}" for n in (1, 2))
    first.write_bytes(secrets.token_bytes(1000))
    second.write_bytes(b"second")
    spool = tmp_path / "archive"
    assert postgres_archive.keep(first, spool, 100) == 0
    assert postgres_archive.keep(second, spool, 100) == 0
    assert [path.name for path in spool.iterdir()] == [f"{first.name}.gz"]
    assert postgres_archive.keep(first, spool, 100) == 0, "kept already, and the same"
    first.write_bytes(b"other")
    assert postgres_archive.keep(first, spool, 100) == 1
