"""redis's own `runtest` in its external mode, one unit a run, against the demo instance.

The suite's client has no user names: in a copy of the checkout it is told to sign in, by some lines
at the end of its `proc redis`. As `redis` the same lines then open a door past the data plane and
give the user every right (`ACL SETUSER ... +@all`), so that the units meet the relay and not the
product's ACL, which each sign-in sets anew. As `redis-as-admin` they leave the ACL as it is. Both
runs of a unit, directly (on a TCP port that the server gets for it) and through us, do the same.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from engines.inmemory.plan import SERVICE_USER
from tests.benchmarks.peers import free_port
from tests.benchmarks.redis import own_socket
from tests.conformance.outcome import Case, Outcome, Verdict
from tests.stack import Stack

# Every unit but those that ask for a server of their own (replicas, cluster, TLS, a configuration
# file, DEBUG), which the suite itself leaves out in external mode; modules; and `integration/`.
UNITS = (
    "unit/dump", "unit/protocol", "unit/keyspace", "unit/scan", "unit/info-command",
    "unit/type/string", "unit/type/incr", "unit/type/list", "unit/type/list-2", "unit/type/list-3",
    "unit/type/set", "unit/type/zset", "unit/type/hash", "unit/type/stream",
    "unit/type/stream-cgroups", "unit/sort", "unit/expire", "unit/other", "unit/multi", "unit/quit",
    "unit/latency-monitor", "unit/pubsub", "unit/slowlog", "unit/scripting", "unit/functions",
    "unit/introspection", "unit/introspection-2", "unit/bitops", "unit/bitfield", "unit/geo",
    "unit/hyperloglog", "unit/lazyfree", "unit/pause", "unit/querybuf", "unit/tracking",
)  # fmt: skip
UNIT_SECONDS_MAX = 300
BASEPORT_ABOVE = 32  # the suite's own processes meet at a port so far below its base port
REASON_LENGTH_MAX = 400
_LINE = re.compile(r"^\[(ok|err|ignore|skip|exception)\]: (.*?)(?: \(\d+ ms\))?(?: in tests/.*)?$")
_VERDICTS = {
    "ok": Verdict.PASSED,
    "err": Verdict.FAILED,
    "exception": Verdict.FAILED,
    "ignore": Verdict.SKIPPED,
    "skip": Verdict.SKIPPED,
}
# Where the suite's client has a new connection `fd`: the first time, and when it comes again.
_CONNECTED = "    interp alias {} ::redis::redisHandle$id {} ::redis::__dispatch__ $id\n"
_RECONNECTED = "        set fd $::redis::fd($id)\n"
# What differs because we mean it to, with the README's reason.
_ONE_USER = "a connection belongs to the credential it signed in with; AUTH as another is refused"
_OUR_SOCKET = "the server sees our unix socket: flags=U and the socket's address"
BY_DESIGN = {
    "unit/introspection: CLIENT INFO": _OUR_SOCKET,
    "unit/introspection: CLIENT LIST": _OUR_SOCKET,
    "unit/scripting: Script ACL check": _ONE_USER,
    "unit/scripting: Script ACL check #2": _ONE_USER,
}


@dataclass(frozen=True)
class Rights:
    """With which rights the suite runs, and what it is told to leave out for the lack of them."""

    is_widened: bool
    tags: str
    options: tuple[str, ...]


# DEBUG is off in the server's configuration, whatever a user may do.
WIDENED = Rights(True, "-needs:repl -needs:debug", ("--ignore-digest", "--durable"))
AS_ADMIN = Rights(
    False,
    "-needs:repl -needs:debug -needs:reset -needs:config-maxmemory -needs:save",
    ("--ignore-digest", "--ignore-encoding"),
)


@dataclass(frozen=True)
class Target:
    """Where one run goes: a copy of the suite that knows how to sign in there, and the address."""

    copy: Path
    host: str
    port: int


def run(stack: Stack, checkout: Path, only: str) -> tuple[Outcome, Outcome]:
    """Run the units with every right."""
    return _run(stack, checkout, only, WIDENED)


def run_as_admin(stack: Stack, checkout: Path, only: str) -> tuple[Outcome, Outcome]:
    """Run the units with the rights that the role admin has."""
    return _run(stack, checkout, only, AS_ADMIN)


def _run(stack: Stack, checkout: Path, only: str, rights: Rights) -> tuple[Outcome, Outcome]:
    """Run each unit directly, then through us."""
    outcomes: tuple[dict[str, Case], dict[str, Case]] = ({}, {})
    path, user, secret = own_socket(stack)
    server = redis.Redis(unix_socket_path=path, username=SERVICE_USER.decode(), password=secret)
    port = free_port()
    # Redis' own defaults, which the units expect where the instance's plan has others.
    server.config_set("maxmemory", 0)
    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("port", port)
    with tempfile.TemporaryDirectory() as directory:
        targets = _targets(
            stack, checkout, Path(directory), (port, user, secret), is_widened=rights.is_widened
        )
        for unit in (only,) if only else UNITS:
            for target, outcome in zip(targets, outcomes, strict=True):
                with _settings_kept(server):
                    outcome.update(_run_unit(target, unit, rights))
            counts = [_passed(outcome, unit) for outcome in outcomes]
            sys.stderr.write(f"{unit}: {counts[0]} pass directly, {counts[1]} through us\n")
    return outcomes


@contextlib.contextmanager
def _settings_kept(server: redis.Redis) -> Iterator[None]:
    """Undo what a unit leaves changed of the server's configuration: in external mode it all stays.

    Users that it has made stay; nobody signs in as one of them.
    """
    before = server.config_get("*")
    yield
    for name, value in server.config_get("*").items():
        if value != before[name]:
            server.config_set(name, before[name])


def _passed(outcome: Outcome, unit: str) -> int:
    return sum(
        case.verdict is Verdict.PASSED
        for name, case in outcome.items()
        if name.startswith(f"{unit}: ")
    )


def _targets(
    stack: Stack, checkout: Path, directory: Path, own: tuple[int, str, str], *, is_widened: bool
) -> tuple[Target, Target]:
    """Return the way past the data plane (port, user, password) and the way through it."""
    row = stack.connection("demo", "inmemory")
    port, user, secret = own
    door = widening(*own) if is_widened else ""
    direct = _copy(checkout, directory / "direct", sign_in(user, secret) + door)
    through = _copy(checkout, directory / "through", sign_in(row.user, row.password) + door)
    return Target(direct, "127.0.0.1", port), Target(through, row.host, row.port)


def _tcl(*words: str) -> str:
    """Return a command in RESP as the text of a Tcl string."""
    parts = (f"\\${len(word)}\\r\\n{word}\\r\\n" for word in words)
    return f"*{len(words)}\\r\\n" + "".join(parts)


def sign_in(user: str, password: str) -> str:
    """Return the lines that sign the suite's client in on its connection `fd`."""
    return (
        f'    puts -nonewline $fd "{_tcl("AUTH", user, password)}"\n    flush $fd\n    gets $fd\n'
    )


def widening(port: int, user: str, secret: str) -> str:
    """Return the lines that give `user` every right, as the service user at its server's port."""
    commands = _tcl("AUTH", SERVICE_USER.decode(), secret) + _tcl("ACL", "SETUSER", user, "+@all")
    return (
        f"    set door [socket 127.0.0.1 {port}]\n    fconfigure $door -translation binary\n"
        f'    puts -nonewline $door "{commands}"\n    flush $door\n'
        "    gets $door\n    gets $door\n    close $door\n"
    )


def _copy(checkout: Path, copy: Path, lines: str) -> Path:
    """Copy the suite, with `lines` where its client has connected."""
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "deps"))
    client = copy / "tests" / "support" / "redis.tcl"
    text = client.read_text()
    handle = "    return ::redis::redisHandle$id\n"
    for place, more in ((_CONNECTED, lines + handle), (_RECONNECTED, lines)):
        assert text.count(place) == 1, "this version's client connects in another way"
        text = text.replace(place, place + more)
    client.write_text(text)
    return copy


def _run_unit(target: Target, unit: str, rights: Rights) -> Outcome:
    """Run one unit and read what it prints."""
    command = [
        "./runtest", "--host", target.host, "--port", str(target.port), "--tags", rights.tags,
        "--clients", "1", "--baseport", str(free_port() + BASEPORT_ABOVE), *rights.options,
        "--single", unit,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=target.copy, capture_output=True, text=True, timeout=UNIT_SECONDS_MAX
        )
        printed = done.stdout
    except subprocess.TimeoutExpired as expired:
        printed = (expired.stdout or b"").decode(errors="replace") + "\n[exception]: timed out"
    return read(unit, re.sub(r"\x1b\[[0-9;]*m", "", printed))


def read(unit: str, printed: str) -> Outcome:
    """Return the outcome of each case; a name that comes again gets a number."""
    outcome: dict[str, Case] = {}
    seen: Counter[str] = Counter()
    lines = [line.strip() for line in printed.splitlines()]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        match = _LINE.match(line)
        if not match:
            continue
        seen[match[2]] += 1
        number = f" #{seen[match[2]]}" if seen[match[2]] > 1 else ""
        reason = line if _LINE.match(following) else f"{line} {following}"
        outcome[f"{unit}: {match[2]}{number}"] = Case(
            _VERDICTS[match[1]], reason[:REASON_LENGTH_MAX]
        )
    if not outcome:
        tail = printed[-REASON_LENGTH_MAX:].replace("\n", " | ")
        outcome[f"{unit}: runs"] = Case(Verdict.FAILED, tail)
    return outcome
