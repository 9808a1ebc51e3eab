"""up, down, status, run: what a person types, and what they read then."""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from dataplane.host.logfile import last_lines
from deploy.local import connections, running, status
from deploy.local.home import CHECKOUT, Home, HomeError, is_ours_or_empty, make_home, read_home
from deploy.local.privilege import (
    PrivilegeError,
    become,
    give_tree,
    grant_search,
    require_readable,
)
from deploy.local.programs import programs
from deploy.local.supervisor import STOP_STAGES, Supervisor

UP_SECONDS_MAX = 180.0
DOWN_SECONDS_MAX = 120.0
LEFT_SECONDS_MAX = 2.0
POLL_SECONDS = 0.03
SPACE_BYTES_LOW = 64 << 20
EXIT_RUNS_ALREADY = 75  # EX_TEMPFAIL and EX_CONFIG of sysexits.h; the guard ends on both
EXIT_START_FAILED = 78
PACKAGES = ("dataplane", "deploy", "engines", "tenants", "weftkit_site")


class CommandError(Exception):
    """The command cannot do what was asked; the message is all that is printed."""


def up(environ: Mapping[str, str]) -> int:
    """Start everything in the background, wait until it is ready, print the table."""
    home = read_home(environ)
    _hand_over(home)
    for package in PACKAGES:
        # Once here instead of in seven processes, six of which could not even keep the result.
        compileall.compile_dir(CHECKOUT / package, quiet=2)
    _enter(home)
    if status.is_locked(home):
        print(f"WeftKit already runs in {home.root}")
        return _follow(home, None)
    _say(f"starting WeftKit in {home.root}")
    status.clear(home)
    home.logs.mkdir(exist_ok=True)
    with _opened_log(home.logs / "supervisor.log") as log:
        guard = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.guard"],
            cwd=CHECKOUT,
            env={**home.environment(), running.PROGRAM_VARIABLE: "guard"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return _follow(home, guard)


def down(environ: Mapping[str, str]) -> int:
    """Stop everything and wait for it, also what a killed supervisor left."""
    home = read_home(environ)
    _enter(home)
    found = running.processes_of(home.root)
    known = status.load(home) if status.is_locked(home) else None
    if not found and known is None:
        print("WeftKit does not run")
        return 0
    # The guard passes the signal on; a supervisor without guard gets it itself.
    keepers = [each.pid for each in found if each.program == "guard"]
    keepers = keepers or [each.pid for each in found if each.program == "supervisor"]
    running.stop_all(dict.fromkeys(keepers, signal.SIGTERM), DOWN_SECONDS_MAX)
    if known is not None and status.is_locked(home):
        _end_foreground(home, known.pid)
    _stop_leftovers(home)
    print("WeftKit is stopped; the data stay in", home.root)
    return 0


def show_status(environ: Mapping[str, str]) -> int:
    """Print one line a process."""
    home = read_home(environ)
    _enter(home)
    known = status.load(home) if status.is_locked(home) else None
    if known is None:
        left = running.processes_of(home.root)
        print(
            f"WeftKit does not run in {home.root}" + (f" ({len(left)} left over)" if left else "")
        )
        return 1
    state = "ready" if known.is_ready else "starting"
    print(f"supervisor  pid {known.pid}  {state}")
    for name, program in known.programs.items():
        again = f"  started {program.starts} times" if program.starts > 1 else ""
        print(f"{name:10}  pid {program.pid or '-':<7} {program.state}{again}")
    return 0 if known.is_ready else 1


def run(environ: Mapping[str, str]) -> int:
    """Be the supervisor in the foreground; as root become the service account first."""
    home = read_home(environ)
    if home.account is not None:
        _hand_over(home)
        _enter(home)
        arguments = [sys.executable, "-m", "deploy.local", "run"]
        os.execve(sys.executable, arguments, home.environment())
    # A service manager keeps what we print, and the table has every password.
    return supervise(environ, on_ready=_print_table if sys.stdout.isatty() else None)


def supervise(environ: Mapping[str, str], on_ready: Callable[[Home], None] | None = None) -> int:
    """Be the supervisor until SIGTERM or SIGINT."""
    home = read_home(environ)
    _enter(home)
    make_home(home)
    if status.take_lock(home) is None:
        print(f"WeftKit already runs in {home.root}")
        return EXIT_RUNS_ALREADY

    async def keep() -> str:
        supervisor = Supervisor(home, _say_if_possible, on_ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.end)
        return await supervisor.run()

    return EXIT_START_FAILED if asyncio.run(keep()) else 0


def _opened_log(path: Path) -> BinaryIO:
    """Open a log that may be root's, from a version whose root opened it."""
    try:
        return path.open("ab")
    except PermissionError:
        path.unlink()
        return path.open("ab")


def _say(text: str) -> None:
    print(text, flush=True)


def _say_if_possible(text: str) -> None:
    """Print what nobody may be able to read: a full disk or a closed terminal stops no program."""
    with contextlib.suppress(OSError):
        _say(text)


def _enter(home: Home) -> None:
    """Be the user whose home it is, in the checkout, and make files for nobody else."""
    if home.account is not None:
        become(home.account)
    if home.root.exists() and not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        raise CommandError(
            f"{home.root} belongs to the user {home.root.stat().st_uid}:"
            " do this as that user or as root, or choose another WEFTKIT_HOME"
        )
    os.umask(0o077)
    os.chdir(CHECKOUT)


def _print_table(home: Home) -> None:
    _say("\n" + connections.render(home.connections_file, home.root))


def _hand_over(home: Home) -> None:
    """Make the home; as root, give it away."""
    account = home.account
    if account is not None and not is_ours_or_empty(home.root):
        raise CommandError(f"{home.root} holds other things; choose another WEFTKIT_HOME")
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is None:
        return
    for directory in (home.root, home.run_dir):
        if directory.exists():
            give_tree(account, directory)
    targets = [CHECKOUT, Path(sys.prefix), Path(sys.base_prefix), home.root]
    targets += [path.parent for path in _files_read(home)]
    for directory in grant_search(account, targets):
        print(
            f"root: the user '{account.name}' may now pass {directory} (an ACL entry, search only)"
        )
    require_readable(account, [CHECKOUT / "deploy", Path(sys.executable), *_files_read(home)])


def _files_read(home: Home) -> list[Path]:
    """Return the operator's files that our processes must be able to read."""
    given = home.settings.tls
    names = [given.cert_file, given.key_file, given.ca_file] if given.enabled else []
    return [path for path in (home.config, *(Path(name) for name in names if name)) if path]


def _follow(home: Home, guard: subprocess.Popen[bytes] | None) -> int:
    """Print what the supervisor reports until it is ready or has failed."""
    printed = 0
    deadline = time.monotonic() + UP_SECONDS_MAX
    while time.monotonic() < deadline:
        ended = guard is not None and guard.poll() is not None
        if ended and guard is not None and guard.returncode == EXIT_RUNS_ALREADY:
            # Another `up` was faster; what follows is the start of that one.
            guard, ended = None, False
        known = status.load(home)
        if known is not None:
            if guard is not None:
                for seconds, text in known.steps[printed:]:
                    _say(f"{seconds:7.2f} s  {text}")
                printed = max(printed, len(known.steps))
            if known.is_ready:
                _print_table(home)
                return 0
        if ended:
            reason = (
                known.error if known and known.error else last_lines(home.logs / "supervisor.log")
            )
            raise CommandError(
                f"WeftKit did not start: {reason}\nlogs are in {home.logs}{_space_left(home)}"
            )
        time.sleep(POLL_SECONDS)
    raise CommandError(f"WeftKit is not ready after {UP_SECONDS_MAX:g} s; logs are in {home.logs}")


def _space_left(home: Home) -> str:
    """Return what explains most failures of a full disk, whose logs end in the middle."""
    free = shutil.disk_usage(home.root).free
    return f"\nonly {free >> 20} MB are free there" if free < SPACE_BYTES_LOW else ""


def _end_foreground(home: Home, pid: int) -> None:
    """End a supervisor that somebody runs in a terminal."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS_MAX
    while status.is_locked(home) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _stop_leftovers(home: Home) -> None:
    """Stop what runs without a supervisor, those who ask first and those who answer last."""
    table = {program.name: program for program in programs(home)}
    for stage in STOP_STAGES:
        staged = [
            (each, program)
            for each in running.processes_of(home.root)
            if each.is_leader
            and (program := table.get(each.program)) is not None
            and program.stop_stage == stage
        ]
        signals = {each.pid: program.stop_signal for each, program in staged}
        patience = max((program.stop_seconds for _, program in staged), default=0.0)
        killed = running.stop_all(signals, patience)
        names = [each.program for each, _ in staged if each.pid in killed]
        if names:
            print(f"did not stop in {patience:g} s and was killed: {', '.join(names)}")
    instances = {
        each.pid: signal.SIGINT if each.command == "postgres" else signal.SIGTERM
        for each in running.processes_of(home.root)
        if each.is_leader and each.program == running.INSTANCE
    }
    running.stop_all(instances, DOWN_SECONDS_MAX)
    left = {each.pid: signal.SIGTERM for each in running.processes_of(home.root)}
    running.stop_all(left, LEFT_SECONDS_MAX)


ERRORS = (CommandError, HomeError, PrivilegeError, connections.ConnectionsError)
