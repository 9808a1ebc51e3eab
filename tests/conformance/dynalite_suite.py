"""dynalite's own tests (mocha, raw HTTP) of a copy of its checkout, against the data plane.

The suite starts a dynalite of its own and talks to that; in the copy it is told the address of ours
instead. It signs with an access key of the demo instance. Nothing is compared: its expectations
were taken from DynamoDB itself, so each case that fails is ours; the engine's README says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conformance.outcome import Case, Outcome, Verdict
from tests.stack import Stack

INSTALL_SECONDS_MAX = 300
CASE_SECONDS_MAX = 30
FILE_SECONDS_MAX = 1200
REASON_LENGTH_MAX = 400
# Not tests.
NO_TESTS = ("bench.js", "helpers.js")

# What stands in a file below test/, and what the copy has instead.
_CHANGES = {
    "helpers.js": {
        # A plan bounds the connections of an instance.
        "http.globalAgent.maxSockets = Infinity": "http.globalAgent.maxSockets = 64",
        "var port = 10000 + Math.round(Math.random() * 10000),": (
            "var port = +process.env.DDB_PORT,"
        ),
        "{host: '127.0.0.1', port: port, method: 'POST'}": (
            "{host: process.env.DDB_HOST, port: port, method: 'POST', service: 'dynamodb', "
            "region: exports.awsRegion}"
        ),
        "dynaliteServer.listen(port, function(err) {": "process.nextTick(function(err) {",
        "dynaliteServer.close(done)": "done()",
    },
    # The case over TLS, which has a server of its own.
    "connection.js": {
        "var port = 10000 + Math.round(Math.random() * 10000), "
        "dynaliteServer = dynalite({ssl: true})": (
            "var port = +process.env.DDB_PORT, dynaliteServer = {"
            "listen: function(port, cb) { cb() }, close: function(cb) { cb() }}"
        ),
        "{host: '127.0.0.1', port: port, rejectUnauthorized: false}": (
            "{host: process.env.DDB_HOST, port: port, rejectUnauthorized: false}"
        ),
    },
}

# Cases that shall not pass, with the README's reason.
_AT_ONCE = "a table is made, and is gone, when the answer is sent: nobody meets it on its way"
_CREATED = "validations should return ResourceNotFoundException if table is being created"
BY_DESIGN = {
    **{
        f"{operation} {_CREATED}": _AT_ONCE
        for operation in ("batchGetItem", "batchWriteItem", "getItem", "putItem", "updateItem")
    },
    "deleteTable functionality should eventually delete": _AT_ONCE,
    "listTables functionality should return 200 if using query string signing": (
        "signatures are taken from the Authorization header only, as all SDKs send them"
    ),
}


def run(stack: Stack, checkout: Path, only: str) -> Outcome:
    """Run all test files, or the one that is named, against the demo instance."""
    row = stack.connection("demo", "keyvalue")
    return run_at(
        checkout,
        only,
        DDB_HOST=row.host,
        DDB_PORT=str(row.port),
        AWS_ACCESS_KEY_ID=row.user,
        AWS_SECRET_ACCESS_KEY=row.password,
    )


def run_at(checkout: Path, only: str, **environment: str) -> Outcome:
    """Run the suite file by file against an address."""
    outcome: dict[str, Case] = {}
    with tempfile.TemporaryDirectory() as directory:
        copy = _copy(checkout, Path(directory) / "dynalite")
        files = sorted(path.name for path in (copy / "test").glob("*.js"))
        wanted = [name for name in files if name not in NO_TESTS and only in ("", name, name[:-3])]
        for name in wanted:
            found = _run_file(copy, name, environment)
            outcome.update(found)
            counts = Counter(case.verdict for case in found.values())
            sys.stderr.write(f"{name}: {counts[Verdict.PASSED]} of {len(found)} pass\n")
    return outcome


def _copy(checkout: Path, copy: Path) -> Path:
    """Copy the suite with its packages, and tell it where to go."""
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "node_modules"))
    (copy / "node_modules").symlink_to(_packages(checkout))
    for name, changes in _CHANGES.items():
        path = copy / "test" / name
        text = path.read_text()
        for before, after in changes.items():
            assert text.count(before) == 1, f"this version's {name} has no {before!r}"
            text = text.replace(before, after)
        path.write_text(text)
    return copy


def _packages(checkout: Path) -> Path:
    """Return the suite's node_modules, installed once below the virtual environment."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is not on PATH"
    files = [checkout / name for name in ("package.json", "package-lock.json")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    target = Path(sys.prefix) / f"dynalite-{digest.hexdigest()[:16]}"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix="dynalite-", dir=target.parent) as parent:
            made = Path(parent, "packages")
            made.mkdir()
            for path in files:
                shutil.copy(path, made)
            # No scripts: the optional LevelDB would be compiled, and nobody needs it.
            options = ("--ignore-scripts", "--no-audit", "--no-fund")
            subprocess.run(
                [npm, "ci", *options], cwd=made, check=True, capture_output=True,
                timeout=INSTALL_SECONDS_MAX,
            )  # fmt: skip
            made.rename(target)
    return target / "node_modules"


def _run_file(copy: Path, name: str, environment: Mapping[str, str]) -> Outcome:
    """Run one test file and read mocha's report."""
    report = copy / "report.json"
    report.unlink(missing_ok=True)
    with report.open("wb") as output:
        command = [
            "node", "node_modules/mocha/bin/mocha", "--require", "should", "--reporter", "json",
            "--exit", "-t", f"{CASE_SECONDS_MAX}s", "test/helpers.js", f"test/{name}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=copy, env={**os.environ, **environment}, stdout=output,
                stderr=subprocess.PIPE, timeout=FILE_SECONDS_MAX,
            )  # fmt: skip
            tail = done.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired:
            tail = f"not done within {FILE_SECONDS_MAX} s"
    return read(name, report.read_text(), tail)


def read(name: str, printed: str, tail: str = "") -> Outcome:
    """Return the outcome of each case of mocha's report; a name that comes again is counted."""
    # Cases print too: the report is what begins at its first line.
    start = printed.find('{\n  "stats"')
    if start < 0:
        reason = (printed + tail)[-REASON_LENGTH_MAX:].replace("\n", " | ")
        return {f"{name}: runs": Case(Verdict.FAILED, reason)}
    report = json.loads(printed[start:])
    pending = {test["fullTitle"] for test in report["pending"]}
    outcome: dict[str, Case] = {}
    seen: Counter[str] = Counter()
    for test in report["tests"]:
        title = test["fullTitle"]
        seen[title] += 1
        number = f" #{seen[title]}" if seen[title] > 1 else ""
        outcome[f"{title}{number}"] = _case(test, is_pending=title in pending)
    for failure in report["failures"]:
        # Hooks are no tests. Where the first one fails nothing ran; the last one only cleans up,
        # and meets tables that cases of its own file are deleting.
        if "before all" in failure["title"]:
            outcome[f"{name}: {failure['title']}"] = _case(failure, is_pending=False)
    return outcome


def _case(test: Mapping[str, Any], *, is_pending: bool) -> Case:
    if is_pending:
        return Case(Verdict.SKIPPED, "pending in the suite")
    if not test["err"]:
        return Case(Verdict.PASSED)
    reason = str(test["err"].get("message") or test["err"].get("stack") or test["err"])
    return Case(Verdict.FAILED, re.sub(r"\s+", " ", reason)[:REASON_LENGTH_MAX])
