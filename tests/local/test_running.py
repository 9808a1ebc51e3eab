"""Finding our own processes, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.running import marks, processes_of, stop_all

WAITING = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITING}"


def start(code: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start Python code in a session of its own and wait until it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was started for the home `tmp_path` as the program `web`."""
    process = start(WAITING, marks(tmp_path, "web", ["x"], {}))
    yield process
    process.kill()
    process.communicate()


def test_program_is_found_by_what_it_carries(
    tmp_path: Path, program: subprocess.Popen[bytes]
) -> None:
    (found,) = processes_of(tmp_path)
    assert (found.pid, found.program, found.is_leader) == (program.pid, "web", True)
    assert found.start == marks(tmp_path, "web", ["x"], {})["WEFTKIT_START"]
    assert processes_of(tmp_path / "other") == []


def test_shell_that_only_has_weftkit_home_set_is_not_ours(tmp_path: Path) -> None:
    process = start(WAITING, {"WEFTKIT_HOME": str(tmp_path)})
    try:
        assert processes_of(tmp_path) == []
    finally:
        process.kill()
        process.communicate()


def test_digest_follows_command_and_settings_and_nothing_else(tmp_path: Path) -> None:
    def digest(arguments: list[str], **environment: str) -> str:
        return marks(tmp_path, "web", arguments, environment)["WEFTKIT_START"]

    first = digest(["a"], WEFTKIT_BIND="1")
    assert first == digest(["a"], WEFTKIT_BIND="1", SHELL="zsh", WEFTKIT_PROGRAM="up")
    assert first != digest(["b"], WEFTKIT_BIND="1")
    assert first != digest(["a"], WEFTKIT_BIND="2")


def test_stop_waits_for_the_end(tmp_path: Path, program: subprocess.Popen[bytes]) -> None:
    assert stop_all({program.pid: signal.SIGTERM}, 10.0) == []
    assert processes_of(tmp_path) == []


def test_process_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    process = start(STUBBORN, marks(tmp_path, "web", ["x"], {}))
    assert stop_all({process.pid: signal.SIGTERM}, 0.1) == [process.pid]
    process.communicate()
    assert processes_of(tmp_path) == []
