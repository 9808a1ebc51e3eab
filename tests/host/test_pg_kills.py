"""Killed hosts and servers in each stage of backups, restores and shipping."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from dataplane.files import exchange_names
from dataplane.host import paths
from engines.kit.pg_tasks import BaseBackup
from engines.kit.records import InstanceRecord
from engines.kit.tasks import Kind, State, Wish
from tests.host.conftest import ControlPlane, HostProcess
from tests.host.relational import (
    back_up,
    commit,
    ids,
    insert,
    kept,
    new_name,
    running_instance,
    session,
    ship,
    shipped_wal,
    source_instance,
    staged,
    workplace,
)
from tests.servers import wait_until


@pytest.fixture
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance whose WAL is archived."""
    with source_instance(control, host) as record:
        yield record


def test_killed_host_takes_the_backup_when_it_is_back(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 50_000)
    wanted = BaseBackup(new_name(), new_name()).to_json()
    task = control.start_task(instance, Kind.PG_BASE_BACKUP, **wanted)
    wait_until(lambda: (host.home / "files" / f"{wanted['file']}.new").exists(), "it is written")
    host.end(signal.SIGKILL)
    assert not (host.home / "files" / wanted["file"]).exists(), "whole or not there"
    host.start()
    done = wanted | control.wait_task(task, State.DONE)["result"]
    task = control.start_task(instance, Kind.PG_VERIFY, chain=staged(host, done))
    assert control.wait_task(task, State.DONE)["result"]["rows"] == 50_000
    with session(host, instance, "weftkit") as connection:
        slots = connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone()
    assert slots == (0,), "nothing holds back the log"


def test_killed_server_is_backed_up_when_it_is_back(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 50_000)
    wanted = BaseBackup(new_name(), new_name()).to_json()
    task = control.start_task(instance, Kind.PG_BASE_BACKUP, **wanted)
    wait_until(lambda: (host.home / "files" / f"{wanted['file']}.new").exists(), "it is written")
    os.kill(host.postgres_pid(instance), signal.SIGKILL)
    done = wanted | control.wait_task(task, State.DONE)["result"]
    task = control.start_task(instance, Kind.PG_VERIFY, chain=staged(host, done))
    assert control.wait_task(task, State.DONE)["result"]["rows"] == 50_000


@pytest.mark.parametrize("moment", ["unpacking", "recovering", "prepared", "committing"])
def test_killed_host_finishes_the_restore_when_it_is_back(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, moment: str
) -> None:
    insert(host, instance, 1, 10)
    full = back_up(control, host, instance)
    insert(host, instance, 11, 20_000)
    wal = shipped_wal(control, host, instance)
    with running_instance(control, "demo-killed") as target:
        task = control.start_task(target, Kind.PG_RESTORE, chain=staged(host, full), wal=wal)
        place = workplace(host, target)
        if moment == "unpacking":
            wait_until((place / "chain-00" / "base").exists, "it unpacks")
        elif moment == "recovering":
            wait_until((place / "data" / "postmaster.pid").exists, "it recovers")
        else:
            control.wait_task(task, State.PREPARED)
        if moment == "committing":
            control.wish(task, Wish.COMMIT)
            wait_until(lambda: control.task(task)["state"] in ("committing", "done"), "it commits")
        host.end(signal.SIGKILL)
        host.start()
        control.wait_task(task, State.PREPARED, State.DONE)
        commit(control, task)
        assert ids(host, target) == list(range(1, 20_001))
        wait_until(lambda: not place.exists(), "the old data are removed")


@pytest.mark.parametrize("is_exchanged", [False, True])
def test_host_killed_at_the_exchange_goes_on_from_either_side_of_it(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, is_exchanged: bool
) -> None:
    insert(host, instance, 1, 10)
    chain = staged(host, back_up(control, host, instance))
    with running_instance(control, "demo-exchange") as target:
        task = control.start_task(target, Kind.PG_RESTORE, chain=chain)
        control.wait_task(task, State.PREPARED)
        host.end(signal.SIGKILL)
        served = paths.data_dir(host.home, target.instance_id) / "data"
        os.kill(host.postgres_pid(target), signal.SIGQUIT)
        wait_until(lambda: not (served / "postmaster.pid").exists(), "the server ended")
        if is_exchanged:
            exchange_names(served, workplace(host, target) / "data")
        control.wish(task, Wish.COMMIT)
        control.put_task(task, State.COMMITTING)
        host.start()
        control.wait_task(task, State.DONE)
        assert ids(host, target) == list(range(1, 11))
        wait_until(lambda: not workplace(host, target).exists(), "the old data are removed")


def test_new_data_on_which_the_server_does_not_start_are_exchanged_back(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 10)
    chain = staged(host, back_up(control, host, instance))
    insert(host, instance, 11, 20)
    there = kept(host, instance)
    task = control.start_task(instance, Kind.PG_RESTORE, chain=chain)
    control.wait_task(task, State.PREPARED)
    (workplace(host, instance) / "data" / "global" / "pg_control").write_bytes(b"a failing disk")
    control.wish(task, Wish.COMMIT)
    row = control.wait_task(task, State.FAILED)
    assert row["detail"] == "the server did not start with the new content; it serves the old"
    assert ids(host, instance) == list(range(1, 21))
    assert set(there) <= set(kept(host, instance)), "its log is archived as before"


def test_segment_shipped_twice_after_a_kill_is_the_same(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 10)
    task, first = ship(control, instance)
    host.end(signal.SIGKILL)
    control.put_task(task, State.RUNNING)
    host.start()
    second = control.wait_task(task, State.PREPARED)["result"]
    # The server may have cleaned up by itself meanwhile, which is one more.
    assert second["segments"][: len(first["segments"])] == first["segments"]
    control.put_task(task, State.COMMITTING)
    host.end(signal.SIGKILL)
    host.start()
    control.wish(task, Wish.COMMIT)
    control.wait_task(task, State.DONE)
    assert kept(host, instance) == []
