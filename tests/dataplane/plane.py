"""A running data plane with the line engine, for tests: processes, records, clients, echo servers.

The processes are real ones; the test's own event loop runs the clients and the instances' servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from engines.kit import auth, exchange
from engines.kit.contract import EngineSpec
from engines.kit.records import Credential, InstanceRecord, Limits, Role, Status
from tests.dataplane.line_engine import ENGINE
from tests.servers import PostgresServer, RedisServer, wait_until

ROOT = Path(__file__).resolve().parents[2]
PEPPER = bytes(range(32))
MASTER_KEY = bytes(range(32, 64))
# A test that hangs is a failed test.
ANSWER_SECONDS_MAX = 10.0

_versions = itertools.count(1)


def free_offset() -> int:
    """Return an offset at which the line port and the admin port are free now."""
    for offset in range(10_000 + os.getpid() % 997, 50_000, 131):
        with contextlib.ExitStack() as held:
            try:
                for port in (ENGINE.port, 9090):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return offset
    raise AssertionError("no free ports")


def key(role: Role = Role.WRITE, **changes: Any) -> tuple[Credential, str]:
    """Make a credential; return it and its password."""
    key_id = auth.new_key_id()
    password = auth.password_of(key_id, auth.new_secret())
    secret = auth.make_secret(password, 1, PEPPER, auth.new_salt())
    credential = Credential(key_id, auth.username_of(key_id), role, (secret,))
    return dataclasses.replace(credential, **changes), password


def named_user(name: str, password: str, role: Role = Role.WRITE) -> Credential:
    """Make a credential as [[auth.users]] does: any name, any password."""
    secret = auth.make_secret(password, 1, PEPPER, auth.new_salt())
    return Credential(auth.new_key_id(), name, role, (secret,))


def instance(*credentials: Credential, **changes: Any) -> InstanceRecord:
    """Make the record of a new line instance."""
    instance_id = str(uuid4())
    record = InstanceRecord(
        instance_id=instance_id,
        handle=f"i-{instance_id[:8]}",
        tenant_id="t1",
        tenant="tenant",
        engine="line",
        status=Status.ACTIVE,
        plan="unmetered",
        limits=Limits(),
        credentials=credentials,
        version=next(_versions),
    )
    return dataclasses.replace(record, **changes)


class ControlDatabase:
    """The publish schema in a database of its own."""

    def __init__(self, postgres: PostgresServer, name: str) -> None:
        self.postgres = postgres
        self.name = name
        self.dsn = postgres.create_database(name)
        self.dataplane_dsn = postgres.dsn(name, exchange.DATAPLANE_ROLE)
        with self.connect() as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = %s", [exchange.DATAPLANE_ROLE]
            ).fetchone():
                connection.execute(f"CREATE ROLE {exchange.DATAPLANE_ROLE} LOGIN")
            for statement in (*exchange.DDL, *exchange.GRANTS):
                connection.execute(statement)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True)

    def publish(self, record: InstanceRecord, *, silently: bool = False) -> InstanceRecord:
        """Write a record as `tenants/publish` does; every call gives it a higher version."""
        record = dataclasses.replace(record, version=next(_versions))
        with self.connect() as connection, connection.transaction():
            connection.execute(
                "INSERT INTO publish.record (instance_id, version, body) VALUES (%s, %s, %s)"
                " ON CONFLICT (instance_id) DO UPDATE"
                " SET version = excluded.version, body = excluded.body",
                [record.instance_id, record.version, json.dumps(record.to_json())],
            )
            if not silently:
                connection.execute(
                    "SELECT pg_notify(%s, %s)", [exchange.RECORD_CHANNEL, record.instance_id]
                )
        return record

    def observe(self, record: InstanceRecord, storage_bytes: int) -> None:
        """Write what the instance host observes."""
        with self.connect() as connection, connection.transaction():
            connection.execute(
                "INSERT INTO publish.observed (instance_id, host, generation, state, storage_bytes)"
                " VALUES (%s, 'local', 1, 'running', %s) ON CONFLICT (instance_id)"
                " DO UPDATE SET storage_bytes = excluded.storage_bytes",
                [record.instance_id, storage_bytes],
            )
            connection.execute(
                "SELECT pg_notify(%s, %s)", [exchange.OBSERVED_CHANNEL, record.instance_id]
            )

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement, parameters or None).fetchall()

    def usage(self, record: InstanceRecord) -> dict[str, int]:
        """Return the sums of what has been taken in for an instance."""
        names = ["read", "write", "query", "unlimited", "refused"]
        columns = ", ".join(f"coalesce(sum({name}_units), 0)::int" for name in names)
        (row,) = self.rows(
            f"SELECT {columns}, coalesce(sum(bytes_in), 0)::int, coalesce(sum(bytes_out), 0)::int"
            " FROM publish.usage_intake WHERE instance_id = %s",
            record.instance_id,
        )
        return dict(zip([*names, "bytes_in", "bytes_out"], row, strict=True))


class Client:
    """A client of the line engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\n" for line in lines).encode())

    async def line(self) -> str:
        """Return the next line; "" at the end of the stream."""
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            return (await self.reader.readline()).decode().rstrip("\n")

    async def ask(self, line: str) -> str:
        self.send(line)
        return await self.line()

    async def rest(self) -> str:
        """Return everything until the end of the stream."""
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            try:
                return (await self.reader.read()).decode()
            except ConnectionResetError:
                return "reset"

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Plane:
    """One data plane: N workers under a master, or workers without one."""

    def __init__(
        self,
        home: Path,
        database: ControlDatabase,
        redis: RedisServer,
        *,
        workers: int = 1,
        engine: EngineSpec = ENGINE,
        tls: dict[str, Path] | None = None,
        toml: str = "",
        bounds: dict[str, float] | None = None,
        intervals: dict[str, float] | None = None,
        cells: str = "",
    ) -> None:
        self.home, self.run_dir = home / "home", home / "run"
        self.database = database
        self.workers = workers
        self.offset = free_offset()
        self.port = engine.port + self.offset
        secrets = home / "secrets"
        for directory in (self.home, self.run_dir, secrets):
            directory.mkdir(exist_ok=True)
        (secrets / "master.key").write_text(MASTER_KEY.hex())
        (secrets / "pepper.1").write_text(PEPPER.hex())
        (home / "weftkit.toml").write_text(toml)
        self.log = home / "dataplane.log"
        self._log_start = 0
        self.environment = {
            **{name: value for name, value in os.environ.items() if "WEFTKIT" not in name},
            "WEFTKIT_HOME": str(self.home),
            "WEFTKIT_RUN_DIR": str(self.run_dir),
            "WEFTKIT_SECRETS_DIR": str(secrets),
            "WEFTKIT_CONFIG": str(home / "weftkit.toml"),
            "WEFTKIT_DATAPLANE_DATABASE_URL": database.dataplane_dsn,
            "WEFTKIT_REDIS_URL": redis.url(2),
            "WEFTKIT_PORT_OFFSET": str(self.offset),
            "WEFTKIT_WORKERS": str(workers),
            "WEFTKIT_CELLS": cells,
            "TEST_ENGINE": engine.name,
            "TEST_BOUNDS": json.dumps(bounds or {}),
            "TEST_INTERVALS": json.dumps({"flush_s": 0.2, "snapshot_s": 0.05, **(intervals or {})}),
        }
        for name, path in (tls or {}).items():
            self.environment[f"WEFTKIT_TLS_{name.upper()}"] = str(path)
        self.master: subprocess.Popen[bytes] | None = None
        self._parts: list[Client | EchoServer] = []

    def start(self, *, until_ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self.master = subprocess.Popen(
                [sys.executable, "-m", "tests.dataplane.line_process", "master"],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
        if until_ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        def all_run() -> bool:
            assert self.master is not None
            assert self.master.poll() is None, self.log.read_text()
            status, text = self.admin("/metrics")
            return status == 200 and metric(text, "weftkit_workers_running") == self.workers

        wait_until(all_run, f"the workers serve; log: {self.log}")

    def stop(self) -> int:
        """Let it drain; return the exit code."""
        assert self.master is not None
        self.master.send_signal(signal.SIGTERM)
        return self.master.wait(60)

    def close(self) -> None:
        """Stop the processes."""
        if self.master is not None and self.master.poll() is None:
            self.stop()

    def begin_test(self) -> None:
        """Look only at log lines from here on."""
        self._log_start = self.log.stat().st_size

    async def close_parts(self) -> None:
        """Close clients and servers of a test; pytest shows the log if the test failed."""
        while self._parts:
            await self._parts.pop().close()
        print(self.log_text())

    def log_text(self) -> str:
        """Return what has been logged during this test."""
        if not self.log.exists():
            return ""
        with self.log.open() as log:
            log.seek(self._log_start)
            return log.read()

    def admin(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Return status and body of a page of the admin port; status 0 if nobody answers."""
        try:
            url = f"http://127.0.0.1:{9090 + self.offset}{path}"
            request = urllib.request.Request(url, method=method)
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def worker_pids(self) -> list[int]:
        assert self.master is not None
        children = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    async def kill_workers(self) -> None:
        """SIGKILL every worker and wait until the master has others that serve."""
        killed = set(self.worker_pids())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await until(
            lambda: (
                len(set(self.worker_pids()) - killed) == self.workers
                and not killed & set(self.worker_pids())
            ),
            "all workers are replaced",
        )
        self.wait_ready()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of this event."""
        lines = [line for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == event]

    async def know(self, record: InstanceRecord) -> InstanceRecord:
        """Publish a new record and wait until the workers have it."""
        record = self.database.publish(record)
        ((count,),) = self.database.rows("SELECT count(*) FROM publish.record")
        await until(
            lambda: metric(self.admin("/metrics")[1], "weftkit_records_known") == count,
            "the record is known",
        )
        return record

    async def serve(self, record: InstanceRecord) -> EchoServer:
        """Run the instance's own server in this test."""
        server = EchoServer(self.run_dir / "i" / record.instance_id.replace("-", ""))
        await server.start()
        self._parts.append(server)
        return server

    async def connect(self, *, tls: ssl.SSLContext | None = None, server_name: str = "") -> Client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname=server_name or None, limit=2**20
        )
        client = Client(reader, writer)
        self._parts.append(client)
        return client

    async def login(self, credential: Credential, password: str) -> Client:
        """Return a signed-in client."""
        client = await self.connect()
        answer = await client.ask(f"LOGIN {credential.username} {password}")
        assert answer.startswith("OK "), answer
        return client


class EchoServer:
    """An instance's server: answers each line with itself; holds back lines with "hold"."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.lines: list[str] = []
        self.release = asyncio.Event()

    async def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "redis.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(path))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self.lines.append(line.decode().rstrip("\n"))
                if b"hold" in line:
                    await self.release.wait()
                if line.startswith(b"u big "):
                    line = b"x" * int(line.split()[2]) + b"\n"
                writer.write(line)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        self.release.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for writer in self._writers:
            writer.close()


def metric(text: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that carry all these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{")) and all(label in line for label in wanted)
    )


async def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait for a condition without stopping the test's own loop."""
    await asyncio.to_thread(wait_until, condition, what, seconds)


def elapsed() -> Callable[[], float]:
    """Return a stopwatch."""
    started = time.monotonic()
    return lambda: time.monotonic() - started
