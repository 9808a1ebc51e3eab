"""dynalite's own tests (mocha, raw HTTP) of a copy of its checkout, against the data plane.

The suite starts a dynalite of its own and talks to that; in the copy it is told the address of ours
instead. It signs with an access key of the demo instance. Nothing is compared: its expectations
were taken from DynamoDB itself, so each case that fails is ours, or stands in `BY_DESIGN`.
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

# What stands in test/helpers.js, and what the copy has instead.
_CHANGES = {
    "var port = 10000 + Math.round(Math.random() * 10000),": "var port = +process.env.DDB_PORT,",
    "{host: '127.0.0.1', port: port, method: 'POST'}": (
        "{host: process.env.DDB_HOST, port: port, method: 'POST', service: 'dynamodb', "
        "region: exports.awsRegion}"
    ),
    "dynaliteServer.listen(port, function(err) {": "process.nextTick(function(err) {",
    "dynaliteServer.close(done)": "done()",
}
# What differs because we mean it to, with the README's reason.
BY_DESIGN: dict[str, str] = {
    "dynalite connections basic should connect to SSL": (
        "starts a dynalite of its own and never meets the data plane"
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
    helpers = copy / "test" / "helpers.js"
    text = helpers.read_text()
    for before, after in _CHANGES.items():
        assert text.count(before) == 1, f"this version's helpers have no {before!r}"
        text = text.replace(before, after)
    helpers.write_text(text)
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
        # Hooks are no tests: where one fails, what it prepared did not run.
        if "hook" in failure["title"]:
            outcome[f"{name}: {failure['title']}"] = _case(failure, is_pending=False)
    return outcome


def _case(test: Mapping[str, Any], *, is_pending: bool) -> Case:
    if is_pending:
        return Case(Verdict.SKIPPED, "pending in the suite")
    if test["fullTitle"] in BY_DESIGN:
        return Case(Verdict.SKIPPED, BY_DESIGN[test["fullTitle"]])
    if not test["err"]:
        return Case(Verdict.PASSED)
    reason = str(test["err"].get("message") or test["err"].get("stack") or test["err"])
    return Case(Verdict.FAILED, re.sub(r"\s+", " ", reason)[:REASON_LENGTH_MAX])
