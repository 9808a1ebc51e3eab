"""Ways of `keyvalue`'s works: our data plane over a cell of its own, dynalite, moto, the floor."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from engines.kit.auth import new_key_id, username_of
from engines.kit.records import InstanceRecord, Limits
from tests.benchmarks.keyvalue import TABLE, Keys, fill
from tests.benchmarks.measure import AbsentError, Way
from tests.benchmarks.peers import free_port
from tests.dataplane.keyvalue_plane import access_key, keyvalue_plane, new_instance, secret_of
from tests.dataplane.plane import Plane
from tests.servers import PostgresServer, run_postgres, run_redis, temporary_home, wait_until

ROOT = Path(__file__).resolve().parents[2]
DYNALITE = "dynalite@4"
# As an operator would set a cell up; what is acknowledged is on disk.
CELL = {"fsync": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}


class KeyvalueWays:
    """Opens ways by name and keeps them open until `held` ends."""

    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held
        self._open: dict[str, Way] = {}

    def __call__(self, name: str) -> Way:
        """Return a way. Raises AbsentError."""
        if name not in self._open:
            opener: Callable[[], Way] = {
                "weftkit": self._weftkit,
                "dynalite": self._dynalite,
                "moto": self._moto,
                "floor get": lambda: self._floor("get"),
                "floor put": lambda: self._floor("put"),
            }[name]
            self._open[name] = opener()
        return self._open[name]

    @cached_property
    def _postgres(self) -> PostgresServer:
        home = self._held.enter_context(temporary_home("wkk"))
        return self._held.enter_context(run_postgres(home, **CELL))

    @cached_property
    def _plane(self) -> Plane:
        home = self._held.enter_context(temporary_home("wkd"))
        redis = self._held.enter_context(run_redis(home))
        return self._held.enter_context(
            keyvalue_plane(home, self._postgres, redis, "bench_cell", bounds={})
        )

    @cached_property
    def _instance(self) -> tuple[InstanceRecord, Keys]:
        credential = access_key()
        record = new_instance(self._plane, credential, limits=Limits(connections=1000))
        self._plane.database.publish(record)
        keys = Keys(
            f"http://127.0.0.1:{self._plane.port}", credential.username, secret_of(credential)
        )

        def is_known() -> bool:
            try:
                keys.client.list_tables()
            except Exception:  # noqa: BLE001 - until the record has arrived
                return False
            return True

        wait_until(is_known, "the record is known")
        fill(keys)
        return record, keys

    def _weftkit(self) -> Way:
        _, keys = self._instance
        address = (keys.url, keys.key, keys.secret)
        return Way("weftkit", address, tuple(self._plane.worker_pids()), self._postgres.process.pid)

    def _floor(self, command: str) -> Way:
        record, keys = self._instance
        (row,) = self._plane.database.rows(
            f"SELECT table_id, shape FROM {record.schema}.catalogue WHERE name = '{TABLE}'"
        )
        table = f"{record.schema}.t{row[0]}_{row[1]}"
        port = free_port()
        process = self._run(
            [
                sys.executable, "-m", "tests.benchmarks.keyvalue_floor", str(port),
                self._postgres.dsn("bench_cell"), table, command,
            ],
            port,
        )  # fmt: skip
        address = (f"http://127.0.0.1:{port}", keys.key, keys.secret)
        return Way(f"floor {command}", address, (process.pid,), self._postgres.process.pid)

    def _dynalite(self) -> Way:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise AbsentError("apt-get install nodejs npm")
        home = Path(self._held.enter_context(tempfile.TemporaryDirectory()))
        installed = subprocess.run(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", home, DYNALITE],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if installed.returncode:
            raise AbsentError(f"npm install {DYNALITE} failed")
        port = free_port()
        program = home / "node_modules/dynalite/cli.js"
        options = ["--createTableMs", "0", "--deleteTableMs", "0"]
        process = self._run(["node", str(program), "--port", str(port), *options], port)
        return self._peer("dynalite", port, process)

    def _moto(self) -> Way:
        program = Path(sys.executable).with_name("moto_server")
        if not program.exists():
            raise AbsentError("pip install 'moto[server]'")
        port = free_port()
        return self._peer("moto", port, self._run([str(program), "-p", str(port)], port))

    def _peer(self, name: str, port: int, process: subprocess.Popen[bytes]) -> Way:
        keys = Keys(f"http://127.0.0.1:{port}", username_of(new_key_id()), "s" * 40)
        fill(keys)
        return Way(name, (keys.url, keys.key, keys.secret), (process.pid,))

    def _run(self, command: list[str], port: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "NODE_ENV": "production"},
        )  # fmt: skip
        self._held.callback(process.wait)
        self._held.callback(process.kill)
        wait_until(lambda: _answers(port), f"{command[1]} answers")
        return process


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
