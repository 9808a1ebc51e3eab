"""An instance host and a data plane with two workers, on the records of a test.

`Sleeper` is one instance with its credential: how it is used as a client, and what its host says.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import redis

from dataplane.host import paths
from engines import registry
from engines.kit import auth
from engines.kit.records import Credential, InstanceRecord, Limits, Role
from tests.host.conftest import ROOT, ControlPlane, HostProcess, make_record, running_host
from tests.servers import PostgresServer, RedisServer, as_service, wait_until
from tests.stack import free_offset

PEPPER = os.urandom(32)
WORKERS = 2
ENGINES = ("relational", "inmemory")


@dataclass
class Sleeper:
    """One instance of the rig."""

    rig: Rig
    record: InstanceRecord
    credential: Credential
    password: str

    @property
    def handle(self) -> str:
        return self.record.handle

    @property
    def port(self) -> int:
        return registry.load(self.record.engine).port + self.rig.offset

    def client(self) -> PostgresClient | RedisClient:
        """Connect through the data plane, or fail."""
        kind = PostgresClient if self.record.engine == "relational" else RedisClient
        return kind(self)

    def use(self) -> set[int]:
        """Connect, read what is there, disconnect."""
        with self.client() as client:
            return client.numbers()

    def wait(self, state: str) -> None:
        """Wait until the host says so of the newest generation; of sleep also the disk."""
        if state == "hibernated":
            # What is reported may be of the sleep before.
            wait_until(self.is_marked, f"{self.handle} sleeps")
        self.rig.control.wait(self.record, state)

    def is_marked(self) -> bool:
        """Say whether the host has put it to sleep, on disk."""
        return (paths.data_dir(self.rig.host.home, self.record.instance_id) / "hibernated").exists()

    @property
    def state(self) -> str:
        return str(self.rig.control.observed(self.record)["state"])

    def publish(self, **changes: Any) -> None:
        """Change the record without asking the host for anything."""
        self.record = self.rig.control.publish(replace(self.record, **changes))

    def ask(self, **changes: Any) -> None:
        """Change the record and ask the host to make it true."""
        self.record = self.rig.control.ask(self.record, **changes)

    @property
    def pids(self) -> list[int]:
        """The processes in its data directory."""
        data = paths.data_dir(self.rig.host.home, self.record.instance_id) / "data"
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd") == str(data.resolve()):
                    found.append(int(entry))
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the host's logged events of one name about this instance."""
        return [e for e in self.rig.host.events(name) if e.get("instance") == self.handle]


class PostgresClient:
    """A session of psycopg."""

    def __init__(self, sleeper: Sleeper) -> None:
        self._connection = psycopg.connect(
            host="127.0.0.1", port=sleeper.port, user=sleeper.credential.username,
            password=sleeper.password, autocommit=True, connect_timeout=20,
        )  # fmt: skip

    def write(self, number: int) -> None:
        self._connection.execute("CREATE TABLE IF NOT EXISTS written (n bigint)")
        self._connection.execute("INSERT INTO written VALUES (%s)", (number,))

    def first(self) -> None:
        self._connection.execute("SELECT 1")

    def numbers(self) -> set[int]:
        if self._connection.execute("SELECT to_regclass('written')").fetchone() == (None,):
            return set()
        return {row[0] for row in self._connection.execute("SELECT n FROM written")}

    def __enter__(self) -> PostgresClient:
        return self

    def __exit__(self, *_: object) -> None:
        # What is left inside a transaction is not kept warm for the next client: the session ends
        # now and not a minute later.
        self._connection.execute("BEGIN")
        self._connection.close()


class RedisClient:
    """A session of redis-py: one connection, no second try."""

    def __init__(self, sleeper: Sleeper) -> None:
        self._client = redis.Redis(
            host="127.0.0.1", port=sleeper.port, username=sleeper.credential.username,
            password=sleeper.password, single_connection_client=True, retry=None,
            socket_timeout=20,
        )  # fmt: skip

    def write(self, number: int) -> None:
        self._client.sadd("written", number)

    def first(self) -> None:
        self._client.get("nothing")

    def numbers(self) -> set[int]:
        return {int(n) for n in self._client.smembers("written")}

    def __enter__(self) -> RedisClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no size of process {pid}")


@dataclass
class Rig:
    """Host, data plane and the control plane's stand-in."""

    host: HostProcess
    control: ControlPlane
    offset: int
    plane: subprocess.Popen[bytes]
    log: Path
    _names: Iterator[int]

    def announce(self, engine: str, after_s: int | None, **limits: Any) -> Sleeper:
        """Publish an instance that has a client's credential."""
        key_id = auth.new_key_id()
        password = auth.password_of(key_id, auth.new_secret())
        secret = auth.make_secret(password, 1, PEPPER, auth.new_salt())
        credential = Credential(key_id, auth.username_of(key_id), Role.ADMIN, (secret,))
        record = make_record(
            engine,
            f"sleeper-{next(self._names)}",
            credentials=(credential,),
            limits=Limits(hibernate_after_s=after_s, connections=50, **limits),
        )
        return Sleeper(self, self.control.publish(record), credential, password)

    def sleeper(self, engine: str, after_s: int | None = 1, **limits: Any) -> Sleeper:
        """Make an instance, and wait until clients are served."""
        made = self.announce(engine, after_s, **limits)
        wait_until(lambda: made.state in ("running", "hibernated"), f"{made.handle} is made")
        # The workers read the record a moment after the host did.
        wait_until(lambda: self._is_known(made), f"the data plane knows {made.handle}")
        return made

    def _is_known(self, sleeper: Sleeper) -> bool:
        try:
            sleeper.use()
        except (psycopg.Error, redis.RedisError):
            return False
        return True

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the admin port's page; 0 if it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{9090 + self.offset}/metrics") as page:
            text = page.read().decode()
        wanted = name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}"
        for line in text.splitlines():
            if line.startswith(wanted):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def workers(self) -> list[int]:
        """Return the data plane's workers."""
        children = Path(f"/proc/{self.plane.pid}/task/{self.plane.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def memory_bytes(self) -> int:
        """Return what host, master and workers take, shared pages divided by those who share."""
        assert self.host.process is not None
        pids = (self.host.process.pid, self.plane.pid, *self.workers())
        return sum(proportional_bytes(pid) for pid in pids)

    def kill_worker(self, index: int) -> None:
        """Kill one worker; its master starts another."""
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.workers()[index], signal.SIGKILL)

    def wait_ready(self) -> None:
        """Wait until all workers serve."""

        def is_ready() -> bool:
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{9090 + self.offset}/metrics")
                with page:
                    return f"weftkit_workers_running {WORKERS}.0" in page.read().decode()
            return False

        wait_until(is_ready, f"the data plane serves; {self.log}")


@contextlib.contextmanager
def running_rig(postgres: PostgresServer, shared: RedisServer, name: str) -> Iterator[Rig]:
    """Run the whole for the length of the block."""
    control = ControlPlane(postgres.create_database(name))
    offset = free_offset()
    with running_host(postgres.dsn(name)) as host:
        (host.home.parent / "secrets" / "pepper.1").write_text(PEPPER.hex())
        environment = {
            **host.environment,
            "WEFTKIT_REDIS_URL": shared.url(3),
            "WEFTKIT_PORT_OFFSET": str(offset),
            "WEFTKIT_WORKERS": str(WORKERS),
        }
        log_path = host.home.parent / "dataplane.log"
        with log_path.open("ab") as log:
            plane = subprocess.Popen(
                [sys.executable, "-m", "dataplane"],
                cwd=ROOT, env=environment, stdout=log, stderr=log, **as_service(),
            )  # fmt: skip
        rig = Rig(host, control, offset, plane, log_path, itertools.count(1))
        try:
            rig.wait_ready()
            yield rig
        finally:
            plane.terminate()
            plane.wait(60)
            control.close()
