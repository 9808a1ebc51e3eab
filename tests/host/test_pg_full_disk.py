"""Tasks of relational instances on a disk that is full: a small file system of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.kit.pg_tasks import BaseBackup
from engines.kit.records import InstanceRecord
from engines.kit.tasks import Kind, State
from tests.host.conftest import ControlPlane, HostProcess, running_host
from tests.host.rdb_files import new_export, upload
from tests.host.relational import (
    MEBIBYTE,
    content,
    new_name,
    running_instance,
    session,
    workplace,
)
from tests.servers import PostgresServer, service_account, wait_until

DISK_MEGABYTES = 400


@pytest.fixture(scope="module")
def host(
    control: ControlPlane, postgres: PostgresServer, reachable_python: None
) -> Iterator[HostProcess]:
    """A host whose home is a disk of 400 MB."""
    account = service_account()
    if account is None:
        pytest.skip("only root mounts file systems")
    with running_host(postgres.dsn("host")) as running, contextlib.ExitStack() as stack:
        running.end()
        options = f"size={DISK_MEGABYTES}m,uid={account[0]},gid={account[1]},mode=700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", running.home],
            capture_output=True, check=False,
        )  # fmt: skip
        if mounted.returncode != 0:
            pytest.skip("no file system may be mounted here")
        stack.callback(subprocess.run, ["umount", "-l", running.home], check=True)
        stack.callback(running.end)
        running.start()
        yield running


@pytest.fixture
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance with 20 MB of rows that do not compress."""
    with running_instance(control, "demo-full") as record:
        with session(host, record) as connection:
            connection.execute(
                "CREATE TABLE t AS SELECT n AS id, (SELECT string_agg(md5(n::text || m), '')"
                " FROM generate_series(1, 30) AS m) AS v FROM generate_series(1, 20000) AS n"
            )
        yield record


@contextlib.contextmanager
def full_disk(host: HostProcess, left_bytes: int) -> Iterator[None]:
    """Leave so much of the disk for the length of the block."""
    filler = host.home / "filler"
    state = os.statvfs(host.home)
    size = state.f_bavail * state.f_frsize - left_bytes
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    try:
        yield
    finally:
        filler.unlink()


def files(host: HostProcess) -> list[Path]:
    return [path for path in (host.home / "files").rglob("*") if path.is_file()]


def test_backup_and_dump_on_a_full_disk_fail_and_leave_nothing(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    wanted = BaseBackup(new_name(), new_name()).to_json()
    with full_disk(host, 6 * MEBIBYTE):
        task = control.start_task(instance, Kind.PG_BASE_BACKUP, **wanted)
        assert control.wait_task(task, State.FAILED)["code"] == "disk_full"
        assert files(host) == []
        task = control.start_task(instance, Kind.PG_DUMP, file=new_export())
        assert control.wait_task(task, State.FAILED)["code"] == "disk_full"
        assert files(host) == []
    with session(host, instance) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (20000,)
    task = control.start_task(instance, Kind.PG_BASE_BACKUP, **wanted)
    control.wait_task(task, State.DONE)


def test_restore_and_load_are_refused_before_the_disk_is_full(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    wanted = BaseBackup(new_name(), new_name()).to_json()
    task = control.start_task(instance, Kind.PG_BASE_BACKUP, **wanted)
    done = wanted | control.wait_task(task, State.DONE)["result"]
    base = upload(host.home, content(host, done["file"])) | {
        name: done[name] for name in ("unpacked_bytes", "finished_at")
    }
    dumped = new_export()
    control.wait_task(control.start_task(instance, Kind.PG_DUMP, file=dumped), State.DONE)
    dump = upload(host.home, content(host, dumped))
    with full_disk(host, 32 * MEBIBYTE):
        for kind in (Kind.PG_RESTORE, Kind.PG_VERIFY):
            task = control.start_task(instance, kind, chain=[base])
            assert control.wait_task(task, State.FAILED)["code"] == "disk_full"
        task = control.start_task(instance, Kind.PG_LOAD, **dump)
        assert control.wait_task(task, State.FAILED)["code"] == "disk_full"
        wait_until(lambda: not workplace(host, instance).exists(), "nothing is left")
    with session(host, instance) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (20000,)
