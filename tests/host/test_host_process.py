"""The host as a whole: without its database, many instances at once, its files, its refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from dataplane.host import paths
from engines.kit.records import Desired
from tests.host.conftest import (
    ROOT,
    ControlPlane,
    HostProcess,
    make_record,
    running_host,
)
from tests.servers import PostgresServer, as_service, run_postgres, temporary_home, wait_until


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A control database server that a test may stop."""
    with temporary_home() as root, run_postgres(root) as server:
        yield server


def state(host: HostProcess) -> dict[str, Any]:
    """Return what the host says of itself; {} while it says nothing."""
    try:
        body: dict[str, Any] = json.loads(paths.host_state(host.run_dir).read_text())
    except FileNotFoundError:
        return {}
    return body


def test_several_instances_are_provisioned_side_by_side(
    control: ControlPlane, host: HostProcess
) -> None:
    records = [
        control.publish(make_record(engine, f"many-{engine}-{n}"))
        for engine in ("relational", "inmemory")
        for n in range(3)
    ]
    for record in records:
        control.wait(record, "running")
    wait_until(lambda: state(host).get("is_settled") is True, "the host says it is done")
    assert state(host)["states"]["running"] >= 6
    for record in records:
        control.ask(record, desired=Desired.ABSENT)


def test_restarted_host_serves_existing_instances_while_the_database_is_down(
    own_postgres: PostgresServer, reachable_python: None
) -> None:
    dsn = own_postgres.create_database("host")
    plane = ControlPlane(dsn)
    with running_host(dsn) as host:
        kept = plane.publish(make_record("relational", "kept"))
        plane.wait(kept, "running")
        wait_until(paths.records_snapshot(host.home).exists, "the snapshot is written")
        host.end(signal.SIGTERM)
        plane.close()
        own_postgres.process.send_signal(signal.SIGINT)
        own_postgres.process.wait(30)
        host.start()

        def answers() -> bool:
            try:
                psycopg.connect(host.postgres_dsn(kept, "owner")).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, "the instance runs without the control database")
        assert state(host)["control_database"] is False


def test_instance_that_lost_its_record_is_stopped_and_its_data_stay(
    control: ControlPlane, host: HostProcess
) -> None:
    record = control.publish(make_record("inmemory", "orphan"))
    control.wait(record, "running")
    pid = host.redis_pid(record)
    moved = control.publish(replace(record, host="elsewhere"))
    socket = paths.redis_socket(host.run_dir, record.instance_id)
    wait_until(lambda: not socket.exists(), f"server {pid} is stopped")
    assert paths.data_dir(host.home, record.instance_id).is_dir()
    back = control.publish(replace(moved, host="local", generation=2))
    control.wait(back, "running")
    control.ask(back, desired=Desired.ABSENT)


def test_server_that_cannot_start_is_failed_with_a_safe_detail_and_recovers_by_itself(
    control: ControlPlane, host: HostProcess
) -> None:
    record = control.publish(make_record("relational", "broken"))
    control.wait(record, "running")
    stopped = control.ask(record, desired=Desired.STOPPED)
    rules = paths.data_dir(host.home, record.instance_id) / "data" / "pg_hba.conf"
    good = rules.read_text()
    rules.write_text("nonsense\n")
    broken = control.publish(replace(stopped, desired=Desired.RUNNING, generation=3))
    row = control.wait(broken, "failed")
    assert row["detail"] == "the server ended while it started"
    failures = [each for each in host.events("step_failed") if each["instance"] == "broken"]
    assert len(failures) == 3
    assert "pg_hba.conf" in failures[-1]["said"]
    rules.write_text(good)
    control.wait(broken, "running")
    control.ask(broken, desired=Desired.ABSENT)


def test_host_that_is_told_to_keep_servers_leaves_them_running_at_sigterm(
    control: ControlPlane, postgres: PostgresServer, reachable_python: None
) -> None:
    with running_host(
        postgres.dsn("host"), WEFTKIT_HOST_KEEP="1", WEFTKIT_HOST_NAME="keeping"
    ) as host:
        record = control.publish(make_record("inmemory", "kept-running", host="keeping"))
        control.wait(record, "running")
        pid = host.redis_pid(record)
        host.end(signal.SIGTERM)
        assert host.redis_pid(record) == pid
        assert control.observed(record)["state"] == "running"
        host.start()
        control.ask(record, desired=Desired.ABSENT)


def test_wrong_environment_is_named_and_ends_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dataplane.host"],
        cwd=ROOT, env={"WEFTKIT_HOME": "/tmp"}, capture_output=True, text=True, **as_service(),
    )  # fmt: skip
    assert done.returncode == 78
    assert done.stderr == "dataplane.host: WEFTKIT_RUN_DIR is not set\n"
