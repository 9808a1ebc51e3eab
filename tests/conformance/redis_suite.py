"""redis's own `runtest` in its external mode, one unit a run, against the demo instance.

The suite's client has no user names: it is told to sign in by one line that is put at the end of
its `proc redis`, in a copy of the checkout. What it does at each start (FLUSHALL, CONFIG GET) our
roles allow; CONFIG SET of its overrides they do not, so `--ignore-encoding --ignore-digest` and
units that need other settings stand in the report as they come out, directly and through us alike.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.redis import own_socket
from tests.conformance.bridge import bridge
from tests.conformance.outcome import Case, Outcome, Verdict
from tests.stack import Stack

UNITS = (
    "unit/keyspace", "unit/scan", "unit/info", "unit/type/string", "unit/type/incr",
    "unit/type/list", "unit/type/list-2", "unit/type/list-3", "unit/type/set", "unit/type/zset",
    "unit/type/hash", "unit/type/stream", "unit/type/stream-cgroups", "unit/sort", "unit/expire",
    "unit/multi", "unit/quit", "unit/pubsub", "unit/bitops", "unit/bitfield", "unit/geo",
    "unit/hyperloglog", "unit/scripting", "unit/tracking", "unit/protocol",
)  # fmt: skip
TAGS = "-needs:repl -needs:debug -needs:reset -needs:config-maxmemory -needs:save"
UNIT_SECONDS_MAX = 600
_LINE = re.compile(r"^\[(ok|err|ignore|skip|exception)\]: (.*?)(?: \(\d+ ms\))?(?: in tests/.*)?$")
_VERDICTS = {
    "ok": Verdict.PASSED,
    "err": Verdict.FAILED,
    "exception": Verdict.FAILED,
    "ignore": Verdict.SKIPPED,
    "skip": Verdict.SKIPPED,
}


def signed_in_copy(checkout: Path, into: Path, user: str, password: str) -> Path:
    """Copy the suite and let its client sign in."""
    copy = into / "redis"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "deps"))
    client = copy / "tests" / "support" / "redis.tcl"
    text = client.read_text()
    last = "    interp alias {} ::redis::redisHandle$id {} ::redis::__dispatch__ $id\n"
    assert last in text, "this version's proc redis ends differently"
    words = ("AUTH", user, password)
    command = f"*{len(words)}\\r\\n" + "".join(
        f"\\${len(word)}\\r\\n{word}\\r\\n" for word in words
    )
    sign_in = (
        f'{last}    puts -nonewline $fd "{command}"\n    flush $fd\n    gets $fd\n'
        "    return ::redis::redisHandle$id\n"
    )
    client.write_text(text.replace(last, sign_in))
    return copy


def run_unit(copy: Path, host: str, port: int, unit: str) -> Outcome:
    """Run one unit and read its lines."""
    command = [
        "./runtest", "--host", host, "--port", str(port), "--tags", TAGS, "--clients", "1",
        "--ignore-encoding", "--ignore-digest", "--single", unit,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, timeout=UNIT_SECONDS_MAX
        )
        printed = done.stdout
    except subprocess.TimeoutExpired as expired:
        printed = (expired.stdout or b"").decode(errors="replace") + "\n[exception]: timed out"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    outcome: dict[str, Case] = {}
    for line in plain.splitlines():
        match = _LINE.match(line.strip())
        if match:
            outcome[f"{unit}: {match[2]}"] = Case(_VERDICTS[match[1]], line.strip())
    if not outcome:
        outcome[f"{unit}: runs"] = Case(Verdict.FAILED, plain[-300:].replace("\n", " | "))
    return outcome


def run_units(copy: Path, host: str, port: int, units: tuple[str, ...]) -> Outcome:
    """Run several units, one after the other."""
    return {name: case for unit in units for name, case in run_unit(copy, host, port, unit).items()}


def run(stack: Stack, checkout: Path, only: str) -> tuple[Outcome, Outcome]:
    """Run the units on the demo instance, directly (over a TCP bridge) and through us."""
    row = stack.connection("demo", "inmemory")
    units = (only,) if only else UNITS
    path, user, password = own_socket(stack)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        with bridge(path) as port:
            copy = signed_in_copy(checkout, Path(first), user, password)
            direct = run_units(copy, "127.0.0.1", port, units)
        copy = signed_in_copy(checkout, Path(second), row.user, row.password)
        through = run_units(copy, row.host, row.port, units)
    return direct, through
