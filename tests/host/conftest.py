"""A control plane's stand-in and the real `python -m dataplane.host`, as an unprivileged user."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dataplane.host import paths
from deploy.local.privilege import grant_search, service_account
from engines.kit import exchange
from engines.kit.auth import service_secret
from engines.kit.records import Credential, Desired, InstanceRecord, Limits, Role, Status
from engines.kit.tasks import ENDED, Kind, State, Wish
from tests.servers import PostgresServer, as_service, temporary_home, wait_until

ROOT = Path(__file__).resolve().parents[2]
MASTER_KEY = secrets.token_bytes(32)


class ControlPlane:
    """Writes records and reads observations, as tenants/publish does."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        for statement in (*exchange.DDL,):
            self._connection.execute(statement)
        self._version = 0

    def publish(self, record: InstanceRecord) -> InstanceRecord:
        """Store a record under a new version and announce it."""
        self._version += 1
        record = replace(record, version=self._version)
        with self._connection.transaction():
            self._connection.execute(
                "INSERT INTO publish.record (instance_id, version, body) VALUES (%s, %s, %s)"
                " ON CONFLICT (instance_id) DO UPDATE"
                " SET version = excluded.version, body = excluded.body",
                (record.instance_id, record.version, json.dumps(record.to_json())),
            )
            self._connection.execute(
                "SELECT pg_notify(%s, %s)", (exchange.RECORD_CHANNEL, record.instance_id)
            )
        return record

    def ask(self, record: InstanceRecord, **changes: Any) -> InstanceRecord:
        """Publish a change that the host has to do something about, and wait until it did."""
        asked = self.publish(replace(record, generation=record.generation + 1, **changes))
        self.wait(
            asked, {"running": "running", "stopped": "stopped", "absent": "absent"}[asked.desired]
        )
        return asked

    def observed(self, record: InstanceRecord) -> dict[str, Any]:
        """Return the row of one instance; an empty one if there is none."""
        with self._connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            found = cursor.execute(
                "SELECT * FROM publish.observed WHERE instance_id = %s", (record.instance_id,)
            ).fetchone()
        return found or {"state": "", "generation": 0, "detail": "", "storage_bytes": 0}

    def count(self, state: str) -> int:
        """Return how many instances are in `state`."""
        found = self._connection.execute(
            "SELECT count(*) FROM publish.observed WHERE state = %s", (state,)
        ).fetchone()
        assert found is not None
        return int(found[0])

    def wait(self, record: InstanceRecord, state: str) -> dict[str, Any]:
        """Wait until the host reached the record's generation in `state`."""

        def reached() -> bool:
            row = self.observed(record)
            return bool(row["generation"] >= record.generation and row["state"] == state)

        wait_until(reached, f"{record.handle} is {state}")
        return self.observed(record)

    def start_task(self, record: InstanceRecord, kind: Kind, **parameters: Any) -> str:
        """Give the host a task; return its id."""
        task_id = str(uuid.uuid4())
        with self._connection.transaction():
            self._connection.execute(
                "INSERT INTO publish.task (task_id, instance_id, host, kind, parameters)"
                " VALUES (%s, %s, %s, %s, %s)",
                (task_id, record.instance_id, record.host, kind, json.dumps(parameters)),
            )
            self._announce(record.instance_id)
        return task_id

    def wish(self, task_id: str, wish: Wish) -> None:
        """Wish something else of a task."""
        with self._connection.transaction():
            self._connection.execute(
                "UPDATE publish.task SET wish = %s WHERE task_id = %s", (wish, task_id)
            )
            self._announce(task_id)

    def put_task(self, task_id: str, state: State) -> None:
        """Put a task in the state in which a killed host left it."""
        self._connection.execute(
            "UPDATE publish.task SET state = %s WHERE task_id = %s", (state, task_id)
        )

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the row of a task."""
        with self._connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            found = cursor.execute(
                "SELECT * FROM publish.task WHERE task_id = %s", (task_id,)
            ).fetchone()
        assert found is not None
        return found

    def wait_task(self, task_id: str, *states: State) -> dict[str, Any]:
        """Wait until a task is in one of `states`; fail if it ends in another."""

        def is_there() -> bool:
            row = self.task(task_id)
            assert row["state"] in states or row["state"] not in ENDED, (row["code"], row["detail"])
            return row["state"] in states

        wait_until(is_there, f"the task is {' or '.join(states)}", 60)
        return self.task(task_id)

    def _announce(self, payload: str) -> None:
        self._connection.execute("SELECT pg_notify(%s, %s)", (exchange.TASK_CHANNEL, payload))

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


class HostProcess:
    """`python -m dataplane.host` with its home and run directories."""

    def __init__(self, home: Path, dsn: str, **environment: str) -> None:
        self.home, self.run_dir = home / "h", home / "r"
        self.environment = {
            "PATH": os.environ["PATH"],
            "WEFTKIT_HOME": str(self.home),
            "WEFTKIT_RUN_DIR": str(self.run_dir),
            "WEFTKIT_SECRETS_DIR": str(home / "secrets"),
            "WEFTKIT_DATAPLANE_DATABASE_URL": dsn,
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with (self.home.parent / "host.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dataplane.host"],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log, **as_service(),
            )  # fmt: skip

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal the process and wait for its end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    @property
    def log(self) -> str:
        """What the host has logged."""
        return (self.home.parent / "host.log").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the logged events of one name."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def postgres_pid(self, record: InstanceRecord) -> int:
        """Return the postmaster of an instance."""
        path = paths.data_dir(self.home, record.instance_id) / "data" / "postmaster.pid"
        return int(path.read_text().splitlines()[0])

    def redis_pid(self, record: InstanceRecord) -> int:
        """Return the redis-server of an instance."""
        path = paths.data_dir(self.home, record.instance_id) / "data" / "redis.pid"
        return int(path.read_text())

    def postgres_dsn(self, record: InstanceRecord, user: str) -> str:
        """Return the DSN of an instance's server for one of its roles."""
        sockets = paths.socket_dir(self.run_dir, record.instance_id)
        return f"postgresql://{user}@/weftkit?host={sockets}"

    def redis_arguments(self, record: InstanceRecord) -> dict[str, Any]:
        """Return what redis-py needs to be the service user of an instance."""
        return {
            "unix_socket_path": str(paths.redis_socket(self.run_dir, record.instance_id)),
            "username": "weftkit",
            "password": service_secret(MASTER_KEY, record.instance_id),
            "decode_responses": True,
            "retry": None,
        }


def make_record(engine: str, handle: str, **changes: Any) -> InstanceRecord:
    """Return a record of a running instance."""
    values: dict[str, Any] = {
        "instance_id": str(uuid.uuid4()),
        "handle": handle,
        "tenant_id": str(uuid.uuid4()),
        "tenant": "demo",
        "engine": engine,
        "status": Status.ACTIVE,
        "plan": "lite",
        "limits": Limits(),
        "credentials": (),
        "version": 0,
        "desired": Desired.RUNNING,
        **changes,
    }
    return InstanceRecord(**values)


def make_credential(username: str, **changes: Any) -> Credential:
    """Return a credential without secrets: the host only looks at its name."""
    values: dict[str, Any] = {
        "key_id": username, "username": username, "role": Role.WRITE, "secrets": (), **changes
    }  # fmt: skip
    return Credential(**values)


@pytest.fixture(scope="session")
def reachable_python() -> None:
    """Let the service account pass the directories above Python and the checkout."""
    if os.geteuid() == 0:
        targets = [ROOT, Path(sys.prefix), Path(sys.base_prefix)]
        grant_search(service_account(), targets)


@pytest.fixture(scope="module")
def control(postgres: PostgresServer) -> Iterator[ControlPlane]:
    """A control database with the tables in which the planes meet."""
    plane = ControlPlane(postgres.create_database("host"))
    yield plane
    plane.close()


@contextlib.contextmanager
def running_host(dsn: str, **environment: str) -> Iterator[HostProcess]:
    """Run a host in a new home for the length of the block; leave no server behind."""
    with temporary_home("wkh") as root:
        secrets_dir = root / "secrets"
        for directory in (secrets_dir, root / "h", root / "r"):
            subprocess.run(["mkdir", "-m", "700", directory], check=True, **as_service())
        (secrets_dir / "master.key").write_text(MASTER_KEY.hex())
        host = HostProcess(root, dsn, **environment)
        host.start()
        try:
            yield host
        finally:
            if host.process is None:
                host.start()
            host.end()


@pytest.fixture(scope="module")
def host(
    control: ControlPlane, postgres: PostgresServer, reachable_python: None
) -> Iterator[HostProcess]:
    """One host for the tests of a module; a test that ends it starts it again."""
    with running_host(postgres.dsn("host")) as running:
        yield running
