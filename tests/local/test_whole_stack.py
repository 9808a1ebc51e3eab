"""The embedded default as a whole: up, status, kills of every process, down, and what stays."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator

import psycopg
import pytest
import redis

from deploy.local.running import Found, processes_of
from tests.servers import temporary_home, wait_until
from tests.stack import Stack, free_offset, run_stack

pytestmark = pytest.mark.stack

SERVICES = ("postgres", "redis", "host", "dataplane", "worker", "web", "beat")


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """A stack of this module's own, which is killed and stopped."""
    with run_stack(WEFTKIT_WORKERS="1") as running:
        with psycopg.connect(uri(running, "relational"), autocommit=True) as session:
            session.execute("CREATE TABLE kept (n int)")
            session.execute("INSERT INTO kept VALUES (42)")
        client = redis.Redis.from_url(uri(running, "inmemory"))
        client.set("kept", "42")
        # Answered only when what was written before is in the append-only file.
        client.execute_command("PING")
        client.close()
        yield running


def uri(stack: Stack, engine: str) -> str:
    return stack.connection("demo", engine).uri


def leaders(stack: Stack) -> dict[str, Found]:
    return {each.program: each for each in processes_of(stack.home) if each.is_leader}


def keeps_everything(stack: Stack) -> bool:
    """Say whether both of demo's instances answer with what was written first."""
    try:
        with psycopg.connect(uri(stack, "relational")) as session:
            row = session.execute("SELECT n FROM kept").fetchone()
        client = redis.Redis.from_url(uri(stack, "inmemory"), retry=None)
        try:
            value = client.get("kept")
        finally:
            client.close()
    except (psycopg.OperationalError, redis.RedisError, OSError):
        return False
    return (row, value) == ((42,), b"42")


def is_ready(stack: Stack) -> bool:
    return stack.command("status").returncode == 0


def test_second_up_says_that_it_runs_and_prints_the_table_again(own_stack: Stack) -> None:
    before = leaders(own_stack)
    printed = own_stack.up()
    assert printed.startswith(f"WeftKit already runs in {own_stack.home}\n")
    assert uri(own_stack, "relational") in printed
    assert leaders(own_stack) == before


def test_static_files_have_their_digest_in_their_name_and_are_kept_for_ever(
    own_stack: Stack,
) -> None:
    with own_stack.api() as client:
        page = client.get(str(client.base_url.join("/sign-in")), headers={"Authorization": ""})
        names = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
        assert any(re.fullmatch(r"/static/css/console\.[0-9a-f]{12}\.css", name) for name in names)
        for name in names:
            answer = client.get(str(client.base_url.join(name)))
            assert answer.status_code == 200, name
            assert "immutable" in answer.headers["Cache-Control"], name
            assert "max-age=315360000" in answer.headers["Cache-Control"], name
            assert answer.headers.get("Content-Encoding") == "gzip", name


def test_status_names_every_process(own_stack: Stack) -> None:
    lines = own_stack.command("status").stdout.splitlines()
    assert {line.split()[0] for line in lines} == {
        "supervisor", "migrate", "static", "bootstrap", *SERVICES
    }  # fmt: skip
    assert all(line.split()[-1] in ("ready", "done") for line in lines)


def test_nothing_runs_as_root_and_nothing_is_open_to_others(own_stack: Stack) -> None:
    for each in processes_of(own_stack.home):
        assert os.stat(f"/proc/{each.pid}").st_uid != 0
    assert (own_stack.home / "connections.json").stat().st_mode & 0o777 == 0o600


def test_other_home_on_the_same_ports_is_told_which_port_is_taken(own_stack: Stack) -> None:
    other = Stack(own_stack.home.with_name(own_stack.home.name + "x"), own_stack.offset)
    try:
        done = other.command("up")
        assert done.returncode == 1
        assert f"port {5432 + own_stack.offset} (relational)" in done.stderr
        assert "is taken by" in done.stderr
        assert "WEFTKIT_PORT_OFFSET=" in done.stderr
        assert processes_of(other.home) == []
    finally:
        other.command("down")


def test_start_that_cannot_succeed_says_why_and_leaves_nothing() -> None:
    with temporary_home() as root:
        root.chmod(0o755)
        program = root / "bin" / "postgres"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.1'\n")
        program.chmod(0o755)
        stack = Stack(root / "home", free_offset(), WEFTKIT_POSTGRES_BIN=str(program.parent))
        done = stack.command("up")
        assert done.returncode == 1
        assert "is not PostgreSQL 17 or newer" in done.stderr
        assert str(stack.home / "logs") in done.stderr
        assert processes_of(stack.home) == []


@pytest.mark.parametrize("name", SERVICES)
def test_killed_process_comes_back_and_nothing_is_lost(own_stack: Stack, name: str) -> None:
    killed = leaders(own_stack)[name].pid
    os.kill(killed, signal.SIGKILL)

    def is_replaced() -> bool:
        now = leaders(own_stack).get(name)
        return now is not None and now.pid != killed

    wait_until(is_replaced, f"{name} runs again")
    wait_until(lambda: is_ready(own_stack), "all is ready again")
    wait_until(lambda: keeps_everything(own_stack), "both instances serve what they held")


def test_killed_supervisor_comes_back_and_disturbs_no_process(own_stack: Stack) -> None:
    before = leaders(own_stack)
    with psycopg.connect(uri(own_stack, "relational"), autocommit=True) as session:
        os.kill(before["supervisor"].pid, signal.SIGKILL)

        def is_replaced() -> bool:
            now = leaders(own_stack).get("supervisor")
            return now is not None and now.pid != before["supervisor"].pid

        wait_until(is_replaced, "the guard started another supervisor")
        wait_until(lambda: is_ready(own_stack), "it is ready")
        assert session.execute("SELECT n FROM kept").fetchone() == (42,)
    after = leaders(own_stack)
    assert {name: after[name] for name in SERVICES} == {name: before[name] for name in SERVICES}


def test_up_after_guard_and_supervisor_were_killed_takes_over_what_runs(own_stack: Stack) -> None:
    before = leaders(own_stack)
    for name in ("guard", "supervisor"):
        os.kill(before[name].pid, signal.SIGKILL)
    wait_until(lambda: not {"guard", "supervisor"} & leaders(own_stack).keys(), "both are gone")
    own_stack.up()
    after = leaders(own_stack)
    assert {name: after[name] for name in SERVICES} == {name: before[name] for name in SERVICES}


def test_program_that_cannot_be_started_for_a_while_disturbs_no_other(own_stack: Stack) -> None:
    before = leaders(own_stack)
    log = own_stack.home / "logs" / "beat.log"
    log.rename(log.with_suffix(".kept"))
    log.mkdir()
    os.kill(before["beat"].pid, signal.SIGKILL)
    supervisor_log = own_stack.home / "logs" / "supervisor.log"
    wait_until(
        lambda: "beat: [Errno 21] Is a directory" in supervisor_log.read_text(), "it is said why"
    )
    log.rmdir()
    wait_until(lambda: "beat" in leaders(own_stack), "beat runs again")
    after = leaders(own_stack)
    others = set(SERVICES) - {"beat"} | {"supervisor"}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}


def test_power_failure_of_everything_at_once_loses_nothing(own_stack: Stack) -> None:
    for each in processes_of(own_stack.home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGKILL)
    wait_until(lambda: processes_of(own_stack.home) == [], "nothing is left")
    own_stack.up()
    wait_until(lambda: keeps_everything(own_stack), "both instances serve what they held")


def test_down_stops_everything_and_the_next_up_has_every_row_and_key(own_stack: Stack) -> None:
    document = own_stack.document
    own_stack.down()
    assert processes_of(own_stack.home) == []
    assert own_stack.command("status").returncode == 1
    assert own_stack.down() == "WeftKit does not run\n"
    own_stack.up()
    assert own_stack.document == document
    assert keeps_everything(own_stack)


def test_down_also_stops_what_a_killed_supervisor_left(own_stack: Stack) -> None:
    running = leaders(own_stack)
    for name in ("guard", "supervisor", "host"):
        os.kill(running[name].pid, signal.SIGKILL)
    own_stack.down()
    assert processes_of(own_stack.home) == []
    own_stack.up()
    assert keeps_everything(own_stack)
