"""Any pytest suite of DynamoDB that takes an endpoint URL, in a virtual environment of its own.

The address and an access key of the demo instance are in the variables that boto3 reads, and in the
option of the suite's own, if its conftest has one of those that are usual.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.conformance.outcome import Case, Outcome, Verdict
from tests.conformance.psycopg_suite import verdict
from tests.stack import Stack

VENV = ".conformance-venv"
PER_TEST_SECONDS_MAX = 120
REASON_LENGTH_MAX = 400
NEEDS = ("boto3", "requests", "pytest", "pytest-timeout")
# Options by which suites are told where to go.
OPTIONS = ("--endpoint-url", "--dynamodb-endpoint", "--endpoint", "--url")


def environment(checkout: Path) -> Path:
    """Return the Python of a virtual environment with what the suite asks for."""
    python = checkout / VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        asked = [f"-r{path}" for path in sorted(checkout.glob("requirements*.txt"))]
        subprocess.run([python, "-m", "pip", "install", "-q", *NEEDS, *asked], check=True)
    return python


def option(checkout: Path) -> str:
    """Return the suite's own option for an endpoint; "" if it has none of the usual ones."""
    conftests = (path for path in checkout.rglob("conftest.py") if VENV not in path.parts)
    declared = "".join(path.read_text() for path in conftests)
    return next((name for name in OPTIONS if f"{name}'" in declared or f'{name}"' in declared), "")


def run(stack: Stack, checkout: Path, only: str) -> Outcome:
    """Run the suite against the demo instance."""
    row = stack.connection("demo", "keyvalue")
    return run_at(
        checkout,
        only,
        f"http://{row.host}:{row.port}",
        AWS_ACCESS_KEY_ID=row.user,
        AWS_SECRET_ACCESS_KEY=row.password,
    )


def run_at(checkout: Path, only: str, url: str, **variables: str) -> Outcome:
    """Run the suite against an address."""
    report = checkout / ".conformance-report.xml"
    report.unlink(missing_ok=True)
    own = option(checkout)
    done = subprocess.run(
        [
            environment(checkout), "-m", "pytest", "-q", f"--timeout={PER_TEST_SECONDS_MAX}",
            f"--junitxml={report}", *([own, url] if own else []), *only.split(),
        ],
        cwd=checkout, capture_output=True, text=True,
        env={
            **os.environ,
            "AWS_ENDPOINT_URL": url,
            "AWS_ENDPOINT_URL_DYNAMODB": url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": url,
            "AWS_DEFAULT_REGION": "us-east-1",
            **variables,
        },
    )  # fmt: skip
    if not report.exists():
        tail = (done.stdout + done.stderr)[-REASON_LENGTH_MAX:].replace("\n", " | ")
        return {"runs": Case(Verdict.FAILED, tail)}
    return {
        f"{case.get('classname')}::{case.get('name')}": verdict(case)
        for case in ElementTree.parse(report).iter("testcase")
    }
