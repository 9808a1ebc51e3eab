"""Server processes: adoption by what they are, their end, their bounds, their logs."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dataplane.files import write_atomically
from dataplane.host import process
from dataplane.host.bounds import MOUNT, Bounds, Cgroups, apply_bounds, probe_cgroups
from dataplane.host.logfile import last_lines, rotate
from tests.servers import wait_until

WAITS = [
    "-c",
    "import os, signal, sys; os.chdir(sys.argv[1]); print('up', flush=True); signal.pause()",
]
BOUNDS = Bounds(memory_bytes=1 << 28, data_bytes=1 << 29, files=321, processes=12)


def spawn(directory: Path) -> process.ServerProcess:
    """Start a process that works in `directory`, and wait until it does."""
    log = directory / "server.log"
    arguments: list[str | Path] = [sys.executable, *WAITS, directory]
    started = process.spawn(arguments, environment={}, log=log)
    wait_until(lambda: log.exists() and log.read_text() == "up\n", "the process runs")
    return started


def proc(running: process.ServerProcess, name: str) -> str:
    """Return what the kernel says about a process."""
    return Path(f"/proc/{running.pid}/{name}").read_text().strip()


async def stop(running: process.ServerProcess) -> None:
    running.send(signal.SIGKILL)
    await running.wait()


async def test_spawned_process_leads_its_own_session_and_its_end_is_seen(tmp_path: Path) -> None:
    running = spawn(tmp_path)
    assert os.getsid(running.pid) == running.pid
    assert running.is_running
    assert not await running.wait_for(0.01)
    running.send(signal.SIGTERM)
    assert await running.wait_for(10)
    assert not running.is_running
    assert running.exit_code == -signal.SIGTERM
    running.send(signal.SIGTERM)  # to nobody


async def test_end_is_told_to_everybody_who_waits(tmp_path: Path) -> None:
    running = spawn(tmp_path)
    waits = [asyncio.create_task(running.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    await stop(running)
    await asyncio.gather(*waits[1:])
    assert waits[0].cancelled()


async def test_only_the_right_program_in_the_right_directory_is_adopted(tmp_path: Path) -> None:
    running = spawn(tmp_path)
    comm = proc(running, "comm")
    try:
        adopted = process.adopt(running.pid, programs=(comm,), directory=tmp_path)
        assert adopted is not None
        assert adopted.pid == running.pid
        adopted.release()
        other = tmp_path / "other"
        other.mkdir()
        assert process.adopt(running.pid, programs=(comm,), directory=other) is None
        assert process.adopt(running.pid, programs=("postgres",), directory=tmp_path) is None
        assert process.processes_in(tmp_path) == [running.pid]
    finally:
        await stop(running)
    assert process.adopt(running.pid, programs=(comm,), directory=tmp_path) is None


async def test_directory_is_cleared_of_processes(tmp_path: Path) -> None:
    running = spawn(tmp_path)
    ended = asyncio.create_task(running.wait())  # reaps, as an init does for orphans
    await process.clear_directory(tmp_path, number=signal.SIGTERM, seconds_max=10)
    assert process.processes_in(tmp_path) == []
    await ended


async def test_bounds_are_set_on_the_process(tmp_path: Path) -> None:
    running = spawn(tmp_path)
    try:
        apply_bounds(running.pid, BOUNDS)
        assert resource.prlimit(running.pid, resource.RLIMIT_CORE)[0] == 0
        assert resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[0] == 321
        assert resource.prlimit(running.pid, resource.RLIMIT_DATA)[0] == 1 << 29
        assert proc(running, "oom_score_adj") == "300"
        assert process.memory_bytes(running.pid) > 1 << 20
    finally:
        await stop(running)


def test_bounds_of_a_process_that_has_ended_are_no_error() -> None:
    apply_bounds(2**22 + 1, BOUNDS)  # above the kernel's largest pid


def test_cgroup_limits_are_skipped_with_a_reason_where_nothing_is_delegated(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/box\n")
    assert probe_cgroups(tmp_path, own) == (
        "no cgroup v2 subtree is delegated to us (No such file or directory)"
    )
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "cgroup.controllers").write_text("cpu io\n")
    assert probe_cgroups(tmp_path, own) == "the memory controller is not in our cgroup v2 subtree"
    own.write_text("5:memory:/\n")
    assert probe_cgroups(tmp_path, own) == "this system has no cgroup v2"


@pytest.mark.parametrize(
    ("controllers", "handed_down", "weight"),
    [("cpu memory pids", "+memory +pids +cpu", "100"), ("memory pids io", "+memory +pids", None)],
)
def test_delegated_cgroup_gets_a_leaf_for_us_and_a_group_an_instance(
    tmp_path: Path, controllers: str, handed_down: str, weight: str | None
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:cpu:/\n0::/box\n")
    box = tmp_path / "box"
    box.mkdir()
    (box / "cgroup.controllers").write_text(f"{controllers}\n")
    found = probe_cgroups(tmp_path, own)
    assert isinstance(found, Cgroups)
    assert (box / "weftkit-host" / "cgroup.procs").read_text() == str(os.getpid())
    for directory in (box, box / "weftkit-instances"):
        assert (directory / "cgroup.subtree_control").read_text() == handed_down
    found.place("abc", 42, BOUNDS)
    group = box / "weftkit-instances" / "abc"
    written = {file.name: file.read_text() for file in group.iterdir()}
    expected = {"memory.max": str(1 << 28), "pids.max": "12", "cgroup.procs": "42"}
    assert written == (expected | {"cpu.weight": weight} if weight else expected)


V1_CONTROLLERS = ("cpu", "memory", "pids")


@pytest.fixture
def delegated_v1() -> Iterator[Path]:
    """A file like /proc/self/cgroup that names groups of the real cgroup v1, made for this test."""
    name = f"weftkit-test-{os.getpid()}"
    groups = [MOUNT / controller / name for controller in V1_CONTROLLERS]
    own = Path("/proc/self/cgroup").read_text()
    if not all(f":{each}:" in own and os.access(MOUNT / each, os.W_OK) for each in V1_CONTROLLERS):
        pytest.skip("this machine has no writable cgroup v1")
    for group in groups:
        group.mkdir()
    with tempfile.NamedTemporaryFile("w") as lines:
        lines.write("0::/nothing\n" + "".join(f"4:{each}:/{name}\n" for each in V1_CONTROLLERS))
        lines.flush()
        yield Path(lines.name)
    for group in groups:
        for below in sorted(group.rglob("*/"), reverse=True):
            below.rmdir()
        group.rmdir()


async def test_groups_of_cgroup_v1_bound_a_process_and_its_children(
    delegated_v1: Path, tmp_path: Path
) -> None:
    found = probe_cgroups(MOUNT, delegated_v1)
    assert isinstance(found, Cgroups)
    assert {each.root.parents[1].name for each in found.subtrees} == set(V1_CONTROLLERS)
    running = spawn(tmp_path)
    try:
        found.place("abc", running.pid, BOUNDS)
        places = proc(running, "cgroup").splitlines()
        for controller in V1_CONTROLLERS:
            (place,) = (line for line in places if f":{controller}:" in line)
            assert place.endswith("/weftkit-instances/abc")
        written = {
            file: (each.root / "abc" / file).read_text().strip()
            for each in found.subtrees
            for file in each.files
        }
        assert written == {
            "memory.limit_in_bytes": str(1 << 28), "pids.max": "12", "cpu.shares": "1024",
        }  # fmt: skip
    finally:
        await stop(running)
    wait_until(lambda: not (found.subtrees[0].root / "abc" / "cgroup.procs").read_text(), "it left")
    found.remove("abc")
    assert not any((each.root / "abc").exists() for each in found.subtrees)


ALLOCATES = "import sys; sys.stdin.readline(); kept = bytearray(300 << 20); print(len(kept))"


def test_a_group_of_cgroup_v1_ends_what_takes_more_memory(delegated_v1: Path) -> None:
    found = probe_cgroups(MOUNT, delegated_v1)
    assert isinstance(found, Cgroups)
    child = subprocess.Popen(
        [sys.executable, "-c", ALLOCATES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    found.place("abc", child.pid, replace(BOUNDS, memory_bytes=64 << 20))
    printed, _ = child.communicate(b"\n")
    assert (child.returncode, printed) == (-signal.SIGKILL, b"")


def test_log_is_cut_and_the_writer_goes_on_at_its_new_end(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old " * 100)
        assert not rotate(log, 1000)
        assert rotate(log, 100)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "server.log.1").read_bytes() == b"old " * 100
    assert not rotate(tmp_path / "absent.log")


@pytest.mark.parametrize(
    ("content", "shown"),
    [(b"", ""), (b"one\n", "one"), (b"a\nb\nc\nd\n", "b | c | d"), (b"\xff\n", "\ufffd")],
)
def test_last_words_are_the_last_lines(tmp_path: Path, content: bytes, shown: str) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(content)
    assert last_lines(log) == shown


def test_log_that_cannot_be_copied_is_cut_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"x" * 200)
    (tmp_path / "server.log.1").mkdir()
    assert rotate(log, 100)
    assert log.read_bytes() == b""


def test_file_that_cannot_be_replaced_leaves_no_half_file_behind(tmp_path: Path) -> None:
    (tmp_path / "state" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "state", b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
