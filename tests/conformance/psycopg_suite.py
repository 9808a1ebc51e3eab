"""psycopg 3's own tests (pytest, `--test-dsn`), in a virtual environment of their own.

The tests create and drop objects freely, so each of the two runs gets the same instance one after
the other. The role is the instance's `owner` in both: nothing here needs a superuser. Two-phase
commit, which instances do not have, is allowed on this one's server, so that the relay meets it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psycopg

from tests.benchmarks import machine
from tests.benchmarks.postgres_ways import own_socket
from tests.conformance.outcome import Case, Outcome, Verdict
from tests.servers import wait_until
from tests.stack import Stack

MARKERS = "not slow and not flakey and not mypy and not timing"
LEFT_OUT = ("tests/crdb", "tests/scripts", "tests/test_typing.py", "tests/pool")
PER_TEST_SECONDS_MAX = 60
PREPARED_TRANSACTIONS = "20"
REASON_LENGTH_MAX = 160


def environment(checkout: Path) -> Path:
    """Return the Python of a virtual environment with the checkout's version and its test needs."""
    python = checkout / ".conformance-venv" / "bin" / "python"
    if not python.exists():
        project = tomllib.loads((checkout / "psycopg" / "pyproject.toml").read_text())["project"]
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run(
            [
                python, "-m", "pip", "install", "-q", f"psycopg[binary]=={project['version']}",
                "psycopg-pool", "pytest", "anyio", "pytest-timeout", "pproxy", "dnspython",
            ],
            check=True,
        )  # fmt: skip
    return python


def run_once(python: Path, checkout: Path, dsn: str, only: str) -> Outcome:
    """Run the suite against one DSN."""
    report = checkout / ".conformance-report.xml"
    report.unlink(missing_ok=True)
    ignored = [f"--ignore={path}" for path in LEFT_OUT]
    subprocess.run(
        [
            python, "-m", "pytest", "-q", "-W", "ignore", "-m", MARKERS, f"--test-dsn={dsn}",
            f"--timeout={PER_TEST_SECONDS_MAX}", f"--junitxml={report}", *ignored, only or "tests",
        ],
        cwd=checkout, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return {
        f"{case.get('classname')}::{case.get('name')}": verdict(case)
        for case in ElementTree.parse(report).iter("testcase")
    }


def verdict(case: ElementTree.Element) -> Case:
    """Read one junit test case."""
    for tag, found in (
        ("failure", Verdict.FAILED),
        ("error", Verdict.FAILED),
        ("skipped", Verdict.SKIPPED),
    ):
        element = case.find(tag)
        if element is not None:
            reason = re.sub(r"\s+", " ", element.get("message") or "")
            return Case(found, reason[:REASON_LENGTH_MAX])
    return Case(Verdict.PASSED)


def allow_two_phase_commit(dsn: str) -> None:
    """Change the setting as the superuser and stop the server; the host starts it again."""
    with psycopg.connect(dsn.replace("owner@", "weftkit@"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET max_prepared_transactions = {PREPARED_TRANSACTIONS}")
        os.kill(machine.parent(connection.info.backend_pid), signal.SIGINT)

    def is_back() -> bool:
        try:
            with psycopg.connect(dsn) as connection:
                row = connection.execute("SHOW max_prepared_transactions").fetchone()
        except psycopg.OperationalError:
            return False
        return row == (PREPARED_TRANSACTIONS,)

    wait_until(is_back, "the instance's server is back")


def run(stack: Stack, checkout: Path, only: str) -> tuple[Outcome, Outcome]:
    """Run the suite on the demo instance, directly and through the data plane."""
    python = environment(checkout)
    uri = stack.connection("demo", "relational").uri
    own = own_socket(stack, uri)
    allow_two_phase_commit(own)
    direct = run_once(python, checkout, own, only)
    return direct, run_once(python, checkout, uri, only)
