"""Dumps of relational instances under the real host: exported, imported, hostile, killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dataplane.host import paths
from engines.kit.records import InstanceRecord, Limits
from engines.kit.tasks import Kind, State, Wish
from tests.host.conftest import ControlPlane, HostProcess
from tests.host.rdb_files import exported, new_export, upload
from tests.host.relational import (
    ARCHIVED,
    MEBIBYTE,
    commit,
    kept,
    running_instance,
    session,
    workplace,
)
from tests.servers import PostgresServer, as_service, server_binaries, wait_until


@pytest.fixture
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance with one table."""
    with running_instance(control, "demo-old", Limits()) as record:
        with session(host, record) as connection:
            connection.execute("CREATE TABLE old AS SELECT 1 AS id")
        yield record


@pytest.fixture
def foreign(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A database of a server that is none of ours, where we may do everything."""
    with psycopg.connect(postgres.create_database("foreign"), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield connection


def dump(servers_home: Path, postgres: PostgresServer, *options: str) -> bytes:
    """Dump the foreign database."""
    program = server_binaries(servers_home)[0] / "pg_dump"
    command = [program, *(options or ("--format=custom",)), "-d", postgres.dsn("foreign")]
    done = subprocess.run(command, check=True, capture_output=True, cwd="/", **as_service())
    return done.stdout


def load(control: ControlPlane, host: HostProcess, record: InstanceRecord, data: bytes) -> str:
    return control.start_task(record, Kind.PG_LOAD, **upload(host.home, data, 100_001))


def is_old(host: HostProcess, record: InstanceRecord) -> bool:
    """Say whether the instance has what it had before."""
    with session(host, record) as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relowner = 'owner'::regrole")
        return [row[0] for row in rows.fetchall()] == ["old"]


def test_dump_of_one_instance_loaded_into_another_is_the_same_content(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    with session(host, instance) as connection:
        connection.execute(
            "CREATE TABLE item (id serial PRIMARY KEY, v text UNIQUE, half int"
            " GENERATED ALWAYS AS (id / 2) STORED);"
            "INSERT INTO item (v) SELECT 'v' || n FROM generate_series(1, 1000) AS n;"
            "CREATE VIEW seen AS SELECT v FROM item; CREATE EXTENSION vector;"
            "CREATE TABLE place (at vector(2)); INSERT INTO place VALUES ('[1,2]')"
        )
    with session(host, instance, "readwrite") as connection:
        connection.execute("SELECT lo_from_bytea(4711, 'a writer''s large object')")
    name = new_export()
    done = control.wait_task(control.start_task(instance, Kind.PG_DUMP, file=name), State.DONE)
    data = exported(host.home, name)
    assert data.startswith(b"PGDMP")
    assert done["result"]["size_bytes"] == len(data) == done["done_bytes"] == done["total_bytes"]

    with running_instance(control, "demo-new", ARCHIVED) as other:
        with session(host, other) as connection:
            connection.execute("CREATE TABLE gone (id int)")
        task = load(control, host, other, data)
        result = control.wait_task(task, State.PREPARED)["result"]
        assert result["tables"] == 3
        with session(host, other) as connection:
            assert connection.execute("SELECT count(*) FROM gone").fetchone() == (0,)
        commit(control, task)
        with session(host, other) as connection:
            assert connection.execute("SELECT to_regclass('gone')").fetchone() == (None,)
            row = connection.execute("SELECT count(*), sum(half), max(v) FROM item").fetchone()
            assert row == (1000, 250000, "v999")
            assert connection.execute("SELECT at FROM place").fetchone() == ("[1,2]",)
            assert connection.execute("SELECT lo_get(4711)").fetchone() == (
                b"a writer's large object",
            )
            connection.execute("INSERT INTO item (v) VALUES ('after')")
        os.kill(host.postgres_pid(other), signal.SIGKILL)
        with session(host, other) as connection:
            assert connection.execute("SELECT max(id) FROM item").fetchone() == (1001,)
        with session(host, other, "weftkit") as connection:
            connection.execute("SELECT pg_switch_wal()")
        wait_until(lambda: bool(kept(host, other)), "the new log is archived")
        assert all(name.startswith("00000002") for name in kept(host, other)), "its own timeline"
        wait_until(lambda: not workplace(host, other).exists(), "the old data are removed")


def test_plain_dump_is_text_for_psql(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    name = new_export()
    task = control.start_task(instance, Kind.PG_DUMP, file=name, format="plain")
    control.wait_task(task, State.DONE)
    assert b"CREATE TABLE public.old" in exported(host.home, name)
    task = control.start_task(instance, Kind.PG_DUMP, file=new_export(), format="xml")
    assert control.wait_task(task, State.FAILED)["code"] == "unsupported"


def test_dump_of_another_server_loads_with_its_owners_and_grants_left_out(
    control: ControlPlane,
    host: HostProcess,
    instance: InstanceRecord,
    foreign: psycopg.Connection[Any],
    postgres: PostgresServer,
    servers_home: Path,
) -> None:
    foreign.execute("CREATE ROLE someone; CREATE TABLE t (id int); ALTER TABLE t OWNER TO someone")
    foreign.execute("GRANT SELECT ON t TO PUBLIC; INSERT INTO t VALUES (7)")
    task = load(control, host, instance, dump(servers_home, postgres))
    control.wait_task(task, State.PREPARED)
    commit(control, task)
    with session(host, instance) as connection:
        assert connection.execute("SELECT id, tableowner FROM t, pg_tables WHERE tablename = 't'"
        ).fetchall() == [(7, "owner")]  # fmt: skip
    foreign.execute("DROP TABLE t; DROP ROLE someone")


HOSTILE = {
    "a superuser's function": (
        "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
        "permission denied for language internal",
    ),
    "a file of the host": (
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT pg_read_file('/etc/passwd')$$;"
        "CREATE TABLE victim AS SELECT 1 AS id;"
        "CREATE MATERIALIZED VIEW v AS SELECT f() AS t FROM victim WITH DATA",
        "permission denied for function pg_read_file",
    ),
    "a program of the host": (
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " CREATE TEMP TABLE x (t text); COPY x FROM PROGRAM 'id'; RETURN 1; END $$;"
        "CREATE TABLE victim AS SELECT 1 AS id;"
        "CREATE MATERIALIZED VIEW v AS SELECT f() AS t FROM victim WITH DATA",
        "",
    ),
    "superuser from inside": (
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " ALTER ROLE owner SUPERUSER; RETURN 1; END $$;"
        "CREATE TABLE victim (id int); CREATE INDEX ON victim ((id));"
        "CREATE MATERIALIZED VIEW v AS SELECT f() AS t WITH DATA",
        "",
    ),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_dump_has_the_rights_of_an_owner_and_changes_nothing(
    control: ControlPlane,
    host: HostProcess,
    instance: InstanceRecord,
    foreign: psycopg.Connection[Any],
    postgres: PostgresServer,
    servers_home: Path,
    case: str,
) -> None:
    made, reason = HOSTILE[case]
    if "MATERIALIZED" in made:
        # Made without what it does, so that it happens only where the dump is loaded.
        harmless = made.replace("WITH DATA", "WITH NO DATA")
        foreign.execute(harmless)
        foreign.execute("CREATE OR REPLACE FUNCTION f_harmless() RETURNS int LANGUAGE sql"
                        " AS 'SELECT 1'")  # fmt: skip
        foreign.execute("UPDATE pg_class SET relispopulated = true WHERE relname = 'v'")
    else:
        foreign.execute(made)
    task = load(control, host, instance, dump(servers_home, postgres))
    row = control.wait_task(task, State.FAILED)
    assert row["code"] == "dump_failed"
    assert reason in row["detail"]
    assert is_old(host, instance)
    with session(host, instance, "weftkit") as connection:
        supers = connection.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall()
    assert supers == [("weftkit",)]
    wait_until(lambda: not workplace(host, instance).exists(), "nothing is left")


@pytest.mark.parametrize(
    "data", [b"\\! touch /tmp/x\n", b"", b"PGDMP" + bytes(500), b"PGDMP\x01\x63\x00" + bytes(99)],
    ids=["psql's words", "empty", "zeros", "newer"],
)  # fmt: skip
def test_file_that_is_no_dump_is_refused_with_a_sentence(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, data: bytes
) -> None:
    row = control.wait_task(load(control, host, instance, data), State.FAILED)
    assert row["code"] == "not_dump", row["detail"]
    assert is_old(host, instance)


def test_dump_that_grows_beyond_the_plans_storage_is_ended(
    control: ControlPlane,
    host: HostProcess,
    foreign: psycopg.Connection[Any],
    postgres: PostgresServer,
    servers_home: Path,
) -> None:
    foreign.execute(
        "CREATE TABLE wide (n int, v text GENERATED ALWAYS AS (repeat('x', 2000)) STORED);"
        "ALTER TABLE wide ALTER v SET STORAGE plain;"
        "INSERT INTO wide SELECT generate_series(1, 30000)"
    )
    data = dump(servers_home, postgres)
    assert len(data) < MEBIBYTE
    with running_instance(control, "demo-tiny", Limits(storage_bytes=24 * MEBIBYTE)) as record:
        task = load(control, host, record, data)
        assert control.wait_task(task, State.FAILED)["code"] == "too_large"
        wait_until(lambda: not workplace(host, record).exists(), "nothing is left")


@pytest.mark.parametrize("moment", ["loading", "prepared", "committing"])
def test_killed_host_finishes_the_import_when_it_is_back(
    control: ControlPlane,
    host: HostProcess,
    instance: InstanceRecord,
    foreign: psycopg.Connection[Any],
    postgres: PostgresServer,
    servers_home: Path,
    moment: str,
) -> None:
    foreign.execute("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 30000) AS n")
    task = load(control, host, instance, dump(servers_home, postgres))
    if moment == "loading":
        wait_until(lambda: (workplace(host, instance) / "server.log").exists(), "it loads")
    else:
        control.wait_task(task, State.PREPARED)
    if moment == "committing":
        control.wish(task, Wish.COMMIT)
        wait_until(lambda: control.task(task)["state"] in ("committing", "done"), "it commits")
    host.end(signal.SIGKILL)
    host.start()
    control.wait_task(task, State.PREPARED, State.DONE)
    commit(control, task)
    with session(host, instance) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (30000,)
        assert connection.execute("SELECT to_regclass('old')").fetchone() == (None,)
    wait_until(lambda: not workplace(host, instance).exists(), "nothing is left")


def test_neighbours_neither_see_the_scratch_server_nor_its_files(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    name = new_export()
    control.wait_task(control.start_task(instance, Kind.PG_DUMP, file=name), State.DONE)
    data = exported(host.home, name)
    task = load(control, host, instance, data)
    control.wait_task(task, State.PREPARED)
    place = workplace(host, instance)
    sockets = paths.socket_dir(host.run_dir, instance.instance_id)
    for directory in (place, sockets, sockets / "new"):
        assert directory.stat().st_mode & 0o077 == 0, directory
    control.wish(task, Wish.CANCEL)
    control.wait_task(task, State.CANCELLED)
    assert is_old(host, instance)
    assert replace(instance) == instance
