"""PostgreSQL instances under the real host: clone, adopt, crash, rights, settings, removal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from dataplane.host import paths
from engines.kit.records import Desired, InstanceRecord, Limits
from tests.host.conftest import ControlPlane, HostProcess, make_record
from tests.servers import wait_until

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance that the module's tests share."""
    record = control.publish(make_record("relational", "demo-relational"))
    control.wait(record, "running")
    yield record
    control.ask(latest(control, record), desired=Desired.ABSENT)


def latest(control: ControlPlane, record: InstanceRecord) -> InstanceRecord:
    """Return the record with a generation that is above everything observed."""
    return replace(
        record, generation=max(record.generation, control.observed(record)["generation"])
    )


def accepts(host: HostProcess, record: InstanceRecord) -> bool:
    try:
        psycopg.connect(host.postgres_dsn(record, "owner")).close()
    except psycopg.OperationalError:
        return False
    return True


def test_provisioned_instance_answers_only_in_a_directory_of_mode_0700(
    instance: InstanceRecord, host: HostProcess
) -> None:
    socket = paths.postgres_socket(host.run_dir, instance.instance_id)
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    with psycopg.connect(host.postgres_dsn(instance, "weftkit")) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
        rows = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
    assert rows == [("template0",), ("template1",), ("weftkit",)]


def test_owner_makes_tables_and_the_others_only_read_or_write_them(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with psycopg.connect(host.postgres_dsn(instance, "owner"), autocommit=True) as owner:
        owner.execute("CREATE TABLE fruit (id serial PRIMARY KEY, name text)")
        owner.execute("CREATE SCHEMA garden CREATE TABLE garden.tree (name text)")
    with psycopg.connect(host.postgres_dsn(instance, "readwrite"), autocommit=True) as writer:
        writer.execute("INSERT INTO fruit (name) VALUES ('fig')")
        writer.execute("CREATE TEMP TABLE basket (name text)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("CREATE TABLE other (id int)")
    with psycopg.connect(host.postgres_dsn(instance, "readonly"), autocommit=True) as reader:
        assert reader.execute("SELECT name FROM fruit").fetchall() == [("fig",)]
        assert reader.execute("SELECT count(*) FROM garden.tree").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x (id int)",
        "CREATE TEMP TABLE x (id int)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_logical_emit_message(true, 'a', 'b')",
    ],
)
def test_readonly_can_write_nothing_at_all(
    statement: str, instance: InstanceRecord, host: HostProcess
) -> None:
    with (
        psycopg.connect(host.postgres_dsn(instance, "readonly"), autocommit=True) as reader,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        reader.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/x'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_ls_dir('/')",
        "SHOW data_directory",
        "SHOW unix_socket_directories",
        "SET ROLE weftkit",
        "CREATE SUBSCRIPTION s CONNECTION 'host=/tmp' PUBLICATION p",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/x', 'f'",
        "LOAD '/tmp/x'",
        "SELECT pg_reload_conf()",
        "SELECT pg_create_physical_replication_slot('x')",
    ],
)
def test_owner_cannot_leave_the_instance(
    statement: str, instance: InstanceRecord, host: HostProcess
) -> None:
    with (
        psycopg.connect(host.postgres_dsn(instance, "owner"), autocommit=True) as owner,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        owner.execute(statement)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("readonly", "ALTER ROLE current_user SET local_preload_libraries = 'nothing'"),
        ("readonly", "ALTER ROLE current_user IN DATABASE weftkit SET statement_timeout = 1"),
        ("owner", "ALTER ROLE current_user SET local_preload_libraries = 'nothing'"),
        ("owner", "ALTER DATABASE weftkit SET local_preload_libraries = 'nothing'"),
        ("owner", "ALTER DATABASE weftkit CONNECTION LIMIT 0"),
    ],
)
def test_a_role_that_was_locked_out_comes_in_after_the_next_record(
    role: str, statement: str, control: ControlPlane, instance: InstanceRecord, host: HostProcess
) -> None:
    with psycopg.connect(host.postgres_dsn(instance, role), autocommit=True) as session:
        session.execute(statement)
    control.ask(latest(control, instance))
    with psycopg.connect(host.postgres_dsn(instance, role)) as again:
        assert again.execute("SELECT pg_sleep(0.01)").fetchone() == ("",)
        assert again.execute("SHOW statement_timeout").fetchone() != ("1ms",)


@pytest.mark.parametrize("role", ["owner", "readwrite", "readonly"])
def test_no_role_writes_to_the_log_of_the_server(
    role: str, instance: InstanceRecord, host: HostProcess
) -> None:
    with psycopg.connect(host.postgres_dsn(instance, role), autocommit=True) as session:
        session.execute("ALTER ROLE current_user RESET ALL")
    with psycopg.connect(host.postgres_dsn(instance, role), autocommit=True) as session:
        session.execute("SET debug_print_parse = on")
        session.execute("DO $$ BEGIN RAISE LOG 'much ado'; END $$")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SET log_min_messages = log")
    log = paths.data_dir(host.home, instance.instance_id) / "server.log"
    assert "much ado" not in log.read_text()
    assert "parse tree" not in log.read_text()


def test_no_role_enters_the_maintenance_database(
    instance: InstanceRecord, host: HostProcess
) -> None:
    for role in ("owner", "readwrite", "readonly"):
        dsn = host.postgres_dsn(instance, role).replace("/weftkit?", "/template1?")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(dsn)


def test_owner_creates_the_vector_extension(instance: InstanceRecord, host: HostProcess) -> None:
    with psycopg.connect(host.postgres_dsn(instance, "owner"), autocommit=True) as owner:
        owner.execute("CREATE EXTENSION vector")
        assert owner.execute("SELECT '[1,2]'::vector <-> '[1,5]'").fetchone() == (3.0,)


def test_killed_host_finds_the_same_server_again(
    instance: InstanceRecord, host: HostProcess, control: ControlPlane
) -> None:
    before = host.postgres_pid(instance)
    with psycopg.connect(host.postgres_dsn(instance, "owner"), autocommit=True) as session:
        host.end(signal.SIGKILL)
        assert session.execute("SELECT 1").fetchone() == (1,)
        host.start()
        asked = control.ask(latest(control, instance))
        assert host.postgres_pid(asked) == before
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_sighup_ends_the_host_and_leaves_the_server(
    instance: InstanceRecord, host: HostProcess, control: ControlPlane
) -> None:
    before = host.postgres_pid(instance)
    host.end(signal.SIGHUP)
    assert accepts(host, instance)
    host.start()
    control.ask(latest(control, instance))
    assert host.postgres_pid(instance) == before


def test_sigterm_stops_the_server_and_the_next_host_starts_it(
    instance: InstanceRecord, host: HostProcess, control: ControlPlane
) -> None:
    host.end(signal.SIGTERM)
    assert not accepts(host, instance)
    assert control.observed(instance)["state"] == "stopped"
    host.start()
    wait_until(lambda: control.observed(instance)["state"] == "running", "it runs again")
    assert accepts(host, instance)


def test_killed_server_loses_no_acknowledged_write(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with psycopg.connect(host.postgres_dsn(instance, "owner"), autocommit=True) as owner:
        owner.execute("CREATE TABLE ledger (n int PRIMARY KEY)")
    acknowledged: list[int] = []
    enough = threading.Event()

    def write() -> None:
        with psycopg.connect(host.postgres_dsn(instance, "readwrite"), autocommit=True) as writer:
            for n in range(1_000_000):
                try:
                    writer.execute("INSERT INTO ledger VALUES (%s)", (n,))
                except psycopg.OperationalError:
                    return
                acknowledged.append(n)
                if n == 300:
                    enough.set()

    writing = threading.Thread(target=write)
    writing.start()
    assert enough.wait(30)
    killed = host.postgres_pid(instance)
    os.kill(killed, signal.SIGKILL)
    writing.join(30)
    wait_until(lambda: accepts(host, instance), "the server is back")
    assert host.postgres_pid(instance) != killed
    with psycopg.connect(host.postgres_dsn(instance, "owner")) as owner:
        kept = {row[0] for row in owner.execute("SELECT n FROM ledger")}
    assert kept >= set(acknowledged)


def test_lock_file_that_names_a_stranger_does_not_stop_the_start(
    instance: InstanceRecord, host: HostProcess, control: ControlPlane
) -> None:
    data = paths.data_dir(host.home, instance.instance_id) / "data"
    killed = host.postgres_pid(instance)
    host.end(signal.SIGKILL)
    os.kill(killed, signal.SIGKILL)
    # A program of the same user, as after a reboot when numbers are given out again.
    stranger = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, user=data.stat().st_uid
    )
    try:
        lock = data / "postmaster.pid"
        lines = lock.read_text().splitlines()
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        host.start()
        control.ask(latest(control, instance))
        assert host.postgres_pid(instance) != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


def test_stopped_instance_stays_stopped_until_it_is_wanted_again(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    stopped = control.ask(latest(control, instance), desired=Desired.STOPPED)
    assert not accepts(host, stopped)
    control.ask(stopped, desired=Desired.RUNNING)
    assert accepts(host, stopped)


def test_plan_change_applies_what_it_can_and_restarts_when_nobody_is_connected(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    limits = Limits(memory_bytes=128 * MEBIBYTE, statement_timeout_ms=1234)
    with psycopg.connect(host.postgres_dsn(instance, "owner"), autocommit=True) as session:
        asked = control.ask(latest(control, instance), limits=limits)

        def says_it_waits() -> bool:
            return "shared_buffers" in str(control.observed(asked)["detail"])

        wait_until(says_it_waits, "the detail names what waits for a restart")
        wait_until(
            lambda: session.execute("SHOW statement_timeout").fetchone() == ("1234ms",),
            "the timeout is there without reconnecting",
        )
        assert session.execute("SHOW shared_buffers").fetchone() == ("16MB",)

    def has_new_memory() -> bool:
        try:
            with psycopg.connect(host.postgres_dsn(asked, "owner")) as owner:
                return owner.execute("SHOW shared_buffers").fetchone() == ("32MB",)
        except psycopg.OperationalError:
            return False

    # Between the looks of this condition nobody is connected.
    wait_until(has_new_memory, "the server was restarted")
    wait_until(lambda: control.observed(asked)["detail"] == "", "nothing waits")


def test_absent_instance_leaves_nothing(control: ControlPlane, host: HostProcess) -> None:
    record = control.publish(make_record("relational", "short-lived"))
    row = control.wait(record, "running")
    assert row["storage_bytes"] > MEBIBYTE
    gone = control.ask(record, desired=Desired.ABSENT)
    assert control.observed(gone)["storage_bytes"] == 0
    assert not paths.data_dir(host.home, record.instance_id).exists()
    assert not paths.socket_dir(host.run_dir, record.instance_id).exists()


def test_lost_data_are_not_answered_with_an_empty_database(
    control: ControlPlane, host: HostProcess
) -> None:
    record = control.publish(make_record("relational", "lost-disk"))
    control.wait(record, "running")
    host.end(signal.SIGTERM)
    instance_dir = paths.data_dir(host.home, record.instance_id)
    aside = instance_dir.with_name("aside")
    instance_dir.rename(aside)
    host.start()
    asked = control.publish(replace(record, generation=2))
    row = control.wait(asked, "failed")
    assert row["detail"] == "the instance's data are missing on its host"
    assert not instance_dir.exists()
    aside.rename(instance_dir)
    control.ask(asked)
    control.ask(replace(asked, generation=3), desired=Desired.ABSENT)
