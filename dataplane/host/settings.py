"""The environment of the instance host, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataplane.cells import CELLS_VARIABLE, cells_from
from dataplane.host.binaries import find_postgres_bin, find_redis_server


class SettingsError(Exception):
    """The environment lacks something or says something impossible; the message names it."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What the host needs to know before it starts."""

    home: Path
    run_dir: Path
    database_url: str
    master_key: bytes
    postgres_bin: Path
    redis_server: Path
    host_name: str = "local"
    log_level: str = "info"
    keeps_servers: bool = False  # SIGTERM leaves the instance servers running
    cells: Mapping[str, str] = field(default_factory=dict)  # name -> DSN, for schema engines


def settings_from(environ: Mapping[str, str] = os.environ) -> HostSettings:
    """Read the settings. Raises SettingsError."""
    if os.geteuid() == 0:
        raise SettingsError("PostgreSQL refuses root: run the instance host as another user")
    return HostSettings(
        home=Path(_required(environ, "WEFTKIT_HOME")).resolve(),
        run_dir=Path(_required(environ, "WEFTKIT_RUN_DIR")).resolve(),
        database_url=_required(environ, "WEFTKIT_DATAPLANE_DATABASE_URL"),
        master_key=_master_key(Path(_required(environ, "WEFTKIT_SECRETS_DIR"))),
        postgres_bin=find_postgres_bin(environ.get("WEFTKIT_POSTGRES_BIN", "")),
        redis_server=find_redis_server(environ.get("WEFTKIT_REDIS_SERVER", "")),
        host_name=environ.get("WEFTKIT_HOST_NAME") or "local",
        log_level=environ.get("WEFTKIT_LOG_LEVEL") or "info",
        keeps_servers=environ.get("WEFTKIT_HOST_KEEP", "") == "1",
        cells=_cells(environ.get(CELLS_VARIABLE, "")),
    )


def _cells(text: str) -> dict[str, str]:
    try:
        return cells_from(text)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _master_key(secrets_dir: Path) -> bytes:
    path = secrets_dir / "master.key"
    try:
        return bytes.fromhex(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} does not hold hexadecimal digits") from error
