"""What `python -m deploy.local` does when nobody reads it, or nobody should."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local import commands
from deploy.local.home import read_home
from tests.servers import temporary_home
from tests.stack import ROOT, Stack, free_offset


def test_reader_that_has_enough_ends_the_command_without_a_traceback() -> None:
    with temporary_home() as root:
        stack = Stack(root / "home", free_offset())
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "deploy.local", "status"],
            cwd=ROOT, env=stack.environment, stdout=writing, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")


def test_supervisor_goes_on_where_nothing_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left"):
        commands._say("text")
    commands._say_if_possible("text")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_table_of_passwords_is_for_a_terminal_and_not_for_a_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_terminal: bool
) -> None:
    (tmp_path / "weftkit.toml").write_text("")
    home = read_home(
        {"WEFTKIT_HOME": str(tmp_path / "w"), "WEFTKIT_CONFIG": str(tmp_path / "weftkit.toml")}
    )
    given: list[Callable[..., None] | None] = []

    def supervise(environ: Any, on_ready: Callable[..., None] | None = None) -> int:
        given.append(on_ready)
        return 0

    monkeypatch.setattr(commands, "read_home", lambda _: replace(home, account=None))
    monkeypatch.setattr(commands, "supervise", supervise)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert commands.run({}) == 0
    assert (given == [commands._print_table]) is is_terminal
