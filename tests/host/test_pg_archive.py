"""The archive of closed WAL segments: kept, shipped, covered, bounded."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dataplane.host import postgres_archive
from engines.kit.records import InstanceRecord, Limits
from engines.kit.tasks import State, Wish
from tests.host.conftest import ControlPlane, HostProcess
from tests.host.relational import (
    ARCHIVED,
    MEBIBYTE,
    archive,
    back_up,
    commit,
    content,
    ids,
    insert,
    kept,
    running_instance,
    session,
    ship,
    source_instance,
)
from tests.servers import wait_until


@pytest.fixture
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance whose WAL is archived."""
    with source_instance(control, host) as record:
        yield record


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


def test_segments_wait_in_the_server_while_the_archive_takes_none(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 10)
    task, shipped = ship(control, instance)
    commit(control, task)
    folder = archive(host, instance)
    folder.chmod(0o500)
    insert(host, instance, 11, 20)
    with session(host, instance, "weftkit") as connection:
        connection.execute("SELECT pg_switch_wal()")
        failed = "SELECT failed_count > 0 FROM pg_stat_archiver"
        wait_until(lambda: connection.execute(failed).fetchone() == (True,), "the archiver fails")
    assert ids(host, instance) == list(range(1, 21)), "served all the same"
    assert kept(host, instance) == []
    folder.chmod(0o700)
    insert(host, instance, 21, 21)
    task, shipped = ship(control, instance)
    assert len(shipped["segments"]) == 2
    assert shipped["covered_until"] is not None


def test_plan_without_backups_runs_as_before(control: ControlPlane, host: HostProcess) -> None:
    with running_instance(control, "demo-none", Limits()) as record:
        with session(host, record, "weftkit") as connection:
            connection.execute("CREATE TABLE t (id int)")
            connection.execute("SELECT pg_switch_wal()")
            waiting = "SELECT archived_count FROM pg_stat_archiver"
            wait_until(
                lambda: connection.execute(waiting).fetchone() == (1,), "the segment is let go"
            )
        assert kept(host, record) == []


def test_clients_see_no_path_of_the_host_in_the_settings(
    host: HostProcess, instance: InstanceRecord
) -> None:
    with session(host, instance, "readonly") as connection:
        rows = connection.execute("SELECT name, setting FROM pg_settings").fetchall()
    told = [name for name, setting in rows if setting and str(host.home.parent) in setting]
    assert told == []
