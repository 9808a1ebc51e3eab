"""Base backups and shipped WAL of relational instances under the real host, restored and killed."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from dataplane.host import paths
from engines.kit.pg_tasks import BaseBackup
from engines.kit.records import InstanceRecord, Limits
from engines.kit.tasks import Kind, State, Wish
from tests.host.conftest import ControlPlane, HostProcess
from tests.host.rdb_files import upload
from tests.host.relational import (
    ARCHIVED,
    MEBIBYTE,
    back_up,
    content,
    ids,
    insert,
    kept,
    new_name,
    restore,
    running_instance,
    session,
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
    with session(host, instance) as connection:
        (said,) = connection.execute("SHOW wal_segment_size").fetchone() or ("",)
    assert done["wal_segment_bytes"] == int(said.removesuffix("MB")) * MEBIBYTE
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


def facts(host: HostProcess, record: InstanceRecord) -> list[tuple[str, int]]:
    with session(host, record) as connection:
        return connection.execute("SELECT v, count(*) OVER () FROM t ORDER BY id").fetchall()  # type: ignore[return-value]


def test_data_of_a_moment_between_two_commits_are_restored_exactly(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 10)
    full = back_up(control, host, instance)
    moment = insert(host, instance, 11, 20)
    insert(host, instance, 21, 30)
    wal = shipped_wal(control, host, instance)
    with running_instance(control, "demo-target") as target:
        with session(host, target) as connection:
            connection.execute("CREATE TABLE old (id int)")
        row = restore(
            control, target, chain=staged(host, full), wal=wal, target_time=moment.isoformat()
        )
        assert ids(host, target) == list(range(1, 21))
        assert row["result"]["timeline"] == 2
        assert datetime.fromisoformat(row["result"]["last_commit_at"]) <= moment
        assert row["done_bytes"] == row["total_bytes"] > 0
        with session(host, target) as connection:
            assert connection.execute("SELECT to_regclass('old')").fetchone() == (None,)
            insert(host, target, 21, 21)
        os.kill(host.postgres_pid(target), signal.SIGKILL)
        assert ids(host, target) == list(range(1, 22)), "durable, and written to as any other"
        wait_until(lambda: not workplace(host, target).exists(), "the old data are removed")
        # Its own log is archived from now on, and nothing of what was before.
        assert all(name.startswith("00000002") for name in kept(host, target))
        again = back_up(control, host, target)
        insert(host, target, 22, 25)
        wal = shipped_wal(control, host, target)
    with running_instance(control, "demo-second") as second:
        restore(control, second, chain=staged(host, again), wal=wal)
        assert ids(host, second) == list(range(1, 26))
    assert ids(host, instance) == list(range(1, 31)), "the source is as it was"


def test_chain_of_three_is_restored_and_verified_as_its_source_is(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 5000)
    chain = [back_up(control, host, instance)]
    for number in range(1, 3):
        with session(host, instance) as connection:
            connection.execute("UPDATE t SET v = v || %s WHERE id < 50", (str(number),))
            connection.execute("DELETE FROM t WHERE id = %s", (number * 1000,))
        insert(host, instance, 5000 + number, 5000 + number)
        chain.append(back_up(control, host, instance, chain[-1]))
    before = facts(host, instance)
    task = control.start_task(instance, Kind.PG_VERIFY, chain=staged(host, *chain))
    found = control.wait_task(task, State.DONE)["result"]
    assert (found["tables"], found["rows"]) == (1, len(before)) == (1, 5000)
    assert found["blocks"] > 500
    assert not workplace(host, instance).exists()
    with running_instance(control, "demo-chain") as target:
        restore(control, target, chain=staged(host, *chain))
        assert facts(host, target) == before
        chain = [back_up(control, host, target)]
        task = control.start_task(target, Kind.PG_VERIFY, chain=staged(host, *chain))
        again = control.wait_task(task, State.DONE)["result"]
        assert again["checksum"] == found["checksum"]
        insert(host, target, 9000, 9000)
        chain = [back_up(control, host, target)]
        task = control.start_task(target, Kind.PG_VERIFY, chain=staged(host, *chain))
        other = control.wait_task(task, State.DONE)["result"]
        assert other["checksum"] != found["checksum"]


def test_moment_after_the_last_commit_is_the_end_of_the_log(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    full = back_up(control, host, instance)
    moment = insert(host, instance, 1, 10) + timedelta(seconds=3)
    wal = shipped_wal(control, host, instance)
    with running_instance(control, "demo-end") as target:
        restore(control, target, chain=staged(host, full), wal=wal, target_time=moment.isoformat())
        assert ids(host, target) == list(range(1, 11))


def test_moment_before_the_backup_and_log_with_a_gap_are_refused(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    early = insert(host, instance, 1, 10)
    insert(host, instance, 11, 20)
    full = back_up(control, host, instance)
    for number in range(3):
        insert(host, instance, 100 + number, 100 + number)
        with session(host, instance, "weftkit") as connection:
            connection.execute("SELECT pg_switch_wal()")
    wal = shipped_wal(control, host, instance)
    chain = staged(host, full)
    task = control.start_task(instance, Kind.PG_RESTORE, chain=chain, target_time=early.isoformat())
    assert control.wait_task(task, State.FAILED)["code"] == "target_unreachable"
    task = control.start_task(instance, Kind.PG_RESTORE, chain=chain, wal=[*wal[:-2], wal[-1]])
    row = control.wait_task(task, State.FAILED)
    assert row["code"] == "target_unreachable"
    assert wal[-2]["name"] in row["detail"]
    assert len(ids(host, instance)) == 23


def spoiled(data: bytes) -> bytes:
    """Return another valid gzipped tar: one byte of one table's file is different."""
    tar = bytearray(gzip.decompress(data))
    with tarfile.open(fileobj=io.BytesIO(bytes(tar))) as members:
        member = next(each for each in members if each.name.startswith("base/") and each.size)
        tar[member.offset_data + 100] ^= 1
    return gzip.compress(bytes(tar))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (spoiled, "backup_invalid"),
        (lambda data: data[: len(data) // 2], "backup_invalid"),
        (lambda data: data + b"more", "backup_invalid"),
        (lambda data: secrets.token_bytes(5000), "backup_invalid"),
        (lambda data: gzip.compress(bytes(200 * MEBIBYTE)), "backup_invalid"),
    ],
    ids=["flipped bit", "truncated", "longer", "other", "bomb"],
)
def test_backup_that_is_not_what_was_saved_is_found_out_and_changes_nothing(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, spoil: Any, code: str
) -> None:
    insert(host, instance, 1, 10)
    full = back_up(control, host, instance)
    data = spoil(content(host, full["file"]))
    base = staged(host, full)[0] | upload(host.home, data)
    for kind in (Kind.PG_RESTORE, Kind.PG_VERIFY):
        task = control.start_task(instance, kind, chain=[base])
        assert control.wait_task(task, State.FAILED)["code"] == code
    (wrong,) = staged(host, full)
    task = control.start_task(instance, Kind.PG_RESTORE, chain=[wrong | {"sha256": "0" * 64}])
    assert control.wait_task(task, State.FAILED)["code"] == "file_incomplete"
    wait_until(lambda: not workplace(host, instance).exists(), "nothing is left")
    assert ids(host, instance) == list(range(1, 11))


def of_another_version(data: bytes) -> bytes:
    """Return the backup as PostgreSQL 17 would have made it: its files say so, and the manifest."""
    ours, theirs = io.BytesIO(gzip.decompress(data)), io.BytesIO()
    with tarfile.open(fileobj=ours) as old, tarfile.open(fileobj=theirs, mode="w") as new:
        for member in old:
            if not member.isreg():
                new.addfile(member)
                continue
            body = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == "PG_VERSION":
                listed, body = hashlib.sha256(body).hexdigest(), b"17\n"
                listed_now = hashlib.sha256(body).hexdigest()
            elif member.name == "backup_manifest":
                entry = body.index(b'"Path": "PG_VERSION"')
                changed = body[entry:].replace(listed.encode(), listed_now.encode(), 1)
                head, _, _ = (body[:entry] + changed).partition(b'"Manifest-Checksum"')
                digest = hashlib.sha256(head).hexdigest()
                body = head + f'"Manifest-Checksum": "{digest}"}}\n'.encode()
            member.size = len(body)
            new.addfile(member, io.BytesIO(body))
    return gzip.compress(theirs.getvalue(), 1)


def test_backup_of_another_major_version_says_so(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    full = back_up(control, host, instance)
    data = of_another_version(content(host, full["file"]))
    base = staged(host, full)[0] | upload(host.home, data)
    base["unpacked_bytes"] = len(gzip.decompress(data))
    for kind in (Kind.PG_RESTORE, Kind.PG_VERIFY):
        row = control.wait_task(control.start_task(instance, kind, chain=[base]), State.FAILED)
        assert row["code"] == "backup_version"
        assert row["detail"].startswith("the backup is of PostgreSQL 17, the host has ")


def test_content_above_the_plans_storage_is_refused(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 50_000)
    full = back_up(control, host, instance)
    small = replace(ARCHIVED, storage_bytes=8 * MEBIBYTE)
    with running_instance(control, "demo-small", small) as target:
        task = control.start_task(target, Kind.PG_RESTORE, chain=staged(host, full))
        assert control.wait_task(task, State.FAILED)["code"] == "too_large"
        with session(host, target) as connection:
            assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


@pytest.mark.parametrize("name", ["../secrets/master.key", "exports/../../x", "/etc/passwd"])
def test_names_that_nobody_made_up_reach_no_file(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, name: str
) -> None:
    done = back_up(control, host, instance)
    base = staged(host, done)[0] | {"file": name}
    task = control.start_task(instance, Kind.PG_RESTORE, chain=[base])
    assert control.wait_task(task, State.FAILED)["code"] == "file_incomplete"
    wal = [{"name": f"../{name}", "file": name, "size_bytes": 1, "sha256": "0" * 64}]
    task = control.start_task(instance, Kind.PG_RESTORE, chain=[base], wal=wal)
    assert control.wait_task(task, State.FAILED)["code"] == "unsupported"


def test_cancelled_restore_leaves_the_old_data_and_no_rests(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    insert(host, instance, 1, 10)
    chain = staged(host, back_up(control, host, instance))
    insert(host, instance, 11, 20)
    pid = host.postgres_pid(instance)
    task = control.start_task(instance, Kind.PG_RESTORE, chain=chain)
    control.wait_task(task, State.PREPARED)
    control.wish(task, Wish.CANCEL)
    control.wait_task(task, State.CANCELLED)
    assert ids(host, instance) == list(range(1, 21))
    assert host.postgres_pid(instance) == pid
    assert not workplace(host, instance).exists()


def test_what_a_reader_has_locked_itself_out_with_does_not_come_along(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    with session(host, instance, "readonly") as connection:
        connection.execute("ALTER ROLE readonly PASSWORD 'of the source'")
        connection.execute("ALTER ROLE readonly SET local_preload_libraries = 'nothing'")
    insert(host, instance, 1, 10)
    chain = staged(host, back_up(control, host, instance))
    with running_instance(control, "demo-roles") as target:
        restore(control, target, chain=chain)
        with session(host, target, "readonly") as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)
        with session(host, target, "weftkit") as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL"
            ).fetchone()
            assert found == (0,)
            assert connection.execute("SHOW cluster_name").fetchone() == ("demo-roles",)
            hba = connection.execute("SELECT count(*) FROM pg_hba_file_rules").fetchone()
            assert hba == (2,)


def test_odd_names_and_large_rows_are_verified_without_calling_what_the_tenant_defined(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    with session(host, instance) as connection:
        connection.execute(
            """
            CREATE SCHEMA "s; DROP"; CREATE TABLE "s; DROP"."a""b\\c :x" (v text);
            INSERT INTO "s; DROP"."a""b\\c :x"
                VALUES (repeat('line' || chr(10), 5000000)), (NULL), ('');
            CREATE FUNCTION steal(t) RETURNS text LANGUAGE plpgsql
                AS $$ BEGIN ALTER ROLE owner SUPERUSER; RETURN ''; END $$;
            CREATE CAST (t AS text) WITH FUNCTION steal(t) AS ASSIGNMENT;
            ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
            """
        )
        connection.execute("CREATE UNLOGGED TABLE u AS SELECT 1")
        connection.execute("ALTER DATABASE weftkit SET statement_timeout = 1")
        connection.execute("ALTER DATABASE weftkit SET client_encoding = 'LATIN1'")
    with session(host, instance, "readwrite") as connection:
        connection.execute("SELECT lo_from_bytea(4711, 'large object')")
    chain = staged(host, back_up(control, host, instance))
    task = control.start_task(instance, Kind.PG_VERIFY, chain=chain)
    found = control.wait_task(task, State.DONE)["result"]
    listed = {(each["schema"], each["name"]): each["rows"] for each in found["listed"]}
    assert listed == {
        ("s; DROP", 'a"b\\c :x'): 3,
        ("public", "t"): 0,
        ("pg_catalog", "pg_largeobject"): 1,
    }
