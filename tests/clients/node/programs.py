"""Runs the small programs of this folder with Node.js, and the packages that they need.

The packages are pinned in package-lock.json and installed once, below the virtual environment:
the work tree stays as it is, and another lock file gets another folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PACKAGES = ("package.json", "package-lock.json")
INSTALL_SECONDS_MAX = 120
RUN_SECONDS_MAX = 60


@functools.cache
def installed_packages() -> Path:
    """Return the node_modules folder of package-lock.json, installed if it is not yet."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on PATH")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PACKAGES))
    target = Path(sys.prefix) / f"node-{digest.hexdigest()[:16]}"
    if not target.exists():
        # Installed beside it and renamed: what is there is whole, also after a broken run.
        with tempfile.TemporaryDirectory(prefix="node-", dir=target.parent) as parent:
            made = Path(parent, "packages")
            made.mkdir()
            for name in PACKAGES:
                shutil.copy(HERE / name, made)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=made, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            made.rename(target)
    return target / "node_modules"


def run_program(name: str, **environment: str) -> dict[str, Any]:
    """Run `name` with `environment` and return the JSON object that it printed."""
    printed: dict[str, Any] = _run([str(HERE / name)], environment)
    return printed


def run_source(text: str) -> Any:
    """Run a program that is given as text and return the JSON that it printed."""
    return _run(["-e", text], {})


def _run(arguments: list[str], environment: dict[str, str]) -> Any:
    done = subprocess.run(
        ["node", *arguments],
        env={**os.environ, "NODE_PATH": str(installed_packages()), **environment},
        capture_output=True, text=True, timeout=RUN_SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
