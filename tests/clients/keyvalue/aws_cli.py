"""The AWS CLI of requirements/awscli.txt, installed once below the virtual environment.

It is kept out of the environment itself, whose boto3 it need not agree with; another lock file
gets another folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).resolve().parents[3] / "requirements" / "awscli.txt"
INSTALL_SECONDS_MAX = 180
RUN_SECONDS_MAX = 60

COMMAND = """#!{python}
import sys

sys.path.insert(0, "{packages}")
from awscli.clidriver import main

sys.exit(main())
"""


@functools.cache
def installed_cli() -> Path:
    """Return the folder that holds the command `aws`, installed if it is not yet."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    target = Path(sys.prefix) / f"awscli-{digest}"
    if not target.exists():
        # Installed beside it and renamed: what is there is whole, also after a broken run.
        with tempfile.TemporaryDirectory(prefix="awscli-", dir=target.parent) as parent:
            made = Path(parent, "packages")
            done = subprocess.run(
                [
                    sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q",
                    "--require-hashes", "--target", made, "-r", LOCK,
                ],
                capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            # The command that pip wrote would look for its packages in the environment.
            command = made / "bin" / "aws"
            command.write_text(COMMAND.format(python=sys.executable, packages=target))
            made.rename(target)
    return target / "bin"


def run_shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line that calls `aws` as a person's shell would, with no settings but these."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    mine["PATH"] = f"{installed_cli()}{os.pathsep}{mine['PATH']}"
    # No settings of whoever runs the tests.
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env={**mine, **nothing, **environment},
        capture_output=True, text=True, timeout=RUN_SECONDS_MAX,
    )  # fmt: skip
