"""What the two kinds of instance server have in common, and which engine needs which kind.

A `Server` does one step at a time and never decides: `keeper` compares and decides. All methods may
raise `ServerError`, whose message is safe to show to a tenant; the cause goes to the log.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from dataplane.host import paths
from dataplane.host.bounds import Bounds, Cgroups, apply_bounds
from dataplane.host.door import INNER_DIRECTORY, Door
from dataplane.host.hibernation import Activity
from dataplane.host.logfile import last_lines, rotate
from dataplane.host.process import ServerProcess, spawn
from dataplane.host.settings import HostSettings
from engines.kit.records import InstanceRecord

# What a server inherits, beside the two variables by which `deploy` and people find it.
SERVER_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}

log = structlog.get_logger("host")


class ServerError(Exception):
    """A step failed. `is_final`: trying again alone will not help."""

    def __init__(self, detail: str, *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.is_final = is_final


class Server(Protocol):
    """One instance's own server, its data and its process."""

    process: ServerProcess | None

    @property
    def site(self) -> Site:
        """Where it lives."""
        ...

    @property
    def door(self) -> Door:
        """Its socket's name; who starts the server opens it once the server is ready."""
        ...

    def has_data(self) -> bool:
        """Say whether the instance was provisioned here."""
        ...

    async def provision(self) -> None:
        """Make the data of an empty instance; all or nothing."""
        ...

    async def adopt(self) -> bool:
        """Take hold of a server that runs already; say whether there was one."""
        ...

    async def start(self, record: InstanceRecord) -> None:
        """Spawn the server behind a closed door; `is_ready` tells when it can be used."""
        ...

    async def is_ready(self) -> bool:
        """Say whether a connection is answered."""
        ...

    async def apply(self, record: InstanceRecord) -> str:
        """Bring a ready server to the record's limits; return what waits for a restart."""
        ...

    async def tidy(self, record: InstanceRecord) -> bool:
        """Remove what no record explains; called now and then while the server is ready.

        True asks for a restart: something waits for one, and no client would notice.
        """
        ...

    async def activity(self) -> Activity | None:
        """Look who uses the server; None if it does not say."""
        ...

    async def stop(self) -> None:
        """Close the door and stop the server, cleanly if it lets us; return when it has ended."""
        ...

    def storage_bytes(self) -> int:
        """Measure what the tenant's data takes on disk; blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """The directories of one instance on this host."""

    instance_id: str
    home: Path
    instance_dir: Path
    socket_dir: Path
    cgroups: Cgroups | None = None

    @classmethod
    def of(cls, settings: HostSettings, instance_id: str, cgroups: Cgroups | None = None) -> Site:
        """Name the directories; makes nothing."""
        return cls(
            instance_id,
            settings.home,
            paths.data_dir(settings.home, instance_id),
            paths.socket_dir(settings.run_dir, instance_id),
            cgroups,
        )

    @property
    def data(self) -> Path:
        """The server's working directory; it exists once the instance is provisioned."""
        return self.instance_dir / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.instance_dir / "server.log"

    def make_directories(self) -> None:
        """Make what a server needs around its data."""
        self.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.socket_dir / INNER_DIRECTORY).mkdir(mode=0o700, exist_ok=True)

    def launch(
        self,
        arguments: list[str | Path],
        bounds: Bounds,
        environment: dict[str, str] | None = None,
        *,
        name: str = "",
        standard_input: Path = Path(os.devnull),
    ) -> ServerProcess:
        """Spawn the server's program within its bounds. Raises OSError."""
        rotate(self.log)
        marks = {"WEFTKIT_HOME": str(self.home), "WEFTKIT_PROGRAM": "instance"}
        inherited = {**SERVER_ENVIRONMENT, **marks, **(environment or {})}
        process = spawn(
            arguments,
            environment=inherited,
            log=self.log,
            name=name,
            standard_input=standard_input,
        )
        apply_bounds(process.pid, bounds)
        if self.cgroups is not None:
            try:
                self.cgroups.place(paths.instance_hex(self.instance_id), process.pid, bounds)
            except OSError:
                # The bounds of each process hold all the same.
                log.exception("cgroup_limits_failed", instance_id=self.instance_id)
        return process

    def last_words(self) -> str:
        """Return the end of the server's log, for our own log."""
        return last_lines(self.log)

    def remove(self) -> None:
        """Remove data, log and sockets. The name goes first: a crash leaves no half instance."""
        if self.instance_dir.exists():
            trash = self.instance_dir.with_name(f".trash-{self.instance_dir.name}")
            shutil.rmtree(trash, ignore_errors=True)
            self.instance_dir.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
        shutil.rmtree(self.socket_dir, ignore_errors=True)
        if self.cgroups is not None:
            self.cgroups.remove(paths.instance_hex(self.instance_id))


def directory_bytes(directory: Path) -> int:
    """Add up what the files below `directory` take on disk."""
    total = 0
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            # The server removed it while we looked.
            continue
    return total


def safe_fields(record: InstanceRecord) -> dict[str, Any]:
    """Return what log lines about an instance carry."""
    return {"instance": record.handle, "instance_id": record.instance_id, "engine": record.engine}
