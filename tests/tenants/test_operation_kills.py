"""A real Celery worker is killed at every step of every kind: each operation comes to its end.

The kinds are those of `KINDS`; one without a row in `STARTS` fails the first test. The instance
host is played by its rows and by files in the depot; the reaper's part is the real one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from engines.kit.records import Role
from tenants.backups import services as backups
from tenants.backups.models import Backup
from tenants.instances import services as instances
from tenants.instances.credentials import credential_create, credential_rotate
from tenants.instances.models import Instance
from tenants.instances.transfers import instance_export, instance_import
from tenants.operations import services
from tenants.operations.kinds import KINDS
from tenants.operations.models import LIVE, Operation
from tenants.operations.runner import operation_run
from tests.servers import PostgresServer, RedisServer, wait_until
from tests.tenants.cast import Cast, report, serving_instance, settle, uploaded
from tests.tenants.host_part import HostPart

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"REDIS0009" + bytes(range(256)) * 64
ALL_SECONDS_MAX = 200


@dataclass
class Scene:
    """The tenant's instances, and the host that they have."""

    cast: Cast
    host: HostPart = field(default_factory=HostPart)

    def instance(self, name: str, **fields: Any) -> Instance:
        values = {"engine": "inmemory", "deletion_protected": False, **fields}
        made = serving_instance(self.cast.acme, name, **values)
        self.host.data[made.pk] = CONTENT
        return made

    def backup(self, name: str) -> Backup:
        operation = backups.backup_create(instance=self.instance(name), actor="test")
        assert self.host.settle(operation).state == "succeeded"
        return Backup.objects.get(pk=operation.params["backup_id"])


def _resume(scene: Scene) -> Operation:
    instance = scene.instance("resumed")
    settle(instances.instance_suspend(instance=instance, actor="test"))
    return instances.instance_resume(instance=instance, actor="test")


def _undelete(scene: Scene) -> Operation:
    instance = scene.instance("undeleted")
    settle(instances.instance_delete(instance=instance, actor="test"))
    return instances.instance_undelete(instance=instance, actor="test")


def _purge(scene: Scene) -> Operation:
    instance = scene.instance("purged")
    settle(instances.instance_delete(instance=instance, actor="test"))
    Instance.objects.filter(pk=instance.pk).update(purge_after=timezone.now())
    assert instances.instance_purge_due() == 1
    return Operation.objects.get(kind="purge")


def _rotate(scene: Scene, grace: timedelta = timedelta(seconds=3)) -> Operation:
    credential = credential_create(
        instance=scene.instance("rotated"), actor="test", role=Role.READ
    ).credential
    issued = credential_rotate(credential=credential, actor="test", grace=grace)
    assert issued.operation is not None
    return issued.operation


def _import(scene: Scene) -> Operation:
    instance = scene.instance("imported")
    return instance_import(
        instance=instance,
        tenant=scene.cast.acme,
        file_id=uploaded(instance, CONTENT + b"imported").pk,
        actor="test",
    )


def _on(handle: str, service: Callable[..., Operation], **fields: Any) -> Callable[..., Operation]:
    return lambda scene: service(instance=scene.instance(handle), actor="test", **fields)


STARTS: dict[str, Callable[[Scene], Operation]] = {
    "backup": _on("backed-up", backups.backup_create),
    "clone": _on("source", backups.instance_clone, name="cloned"),
    "delete": _on("deleted", instances.instance_delete),
    "export": _on("exported", instance_export),
    "hibernate": _on("hibernated", instances.instance_hibernate),
    "import": _import,
    "provision": lambda scene: instances.instance_create(
        tenant=scene.cast.acme, actor="test", name="provisioned", engine="inmemory", plan="lite"
    ),
    "purge": _purge,
    "restore": lambda scene: backups.backup_restore(
        backup=scene.backup("kept"), actor="test", name="restored"
    ),
    "resume": _resume,
    "rotate": _rotate,
    "scale": _on("scaled", instances.instance_scale, plan="standard"),
    "suspend": _on("suspended", instances.instance_suspend),
    "undelete": _undelete,
    "verify": lambda scene: backups.backup_verify(backup=scene.backup("verified"), actor="test"),
    "wake": _on("woken", instances.instance_wake),
}
# How an instance is left; the others are active.
LEFT = {
    "delete": "quarantined",
    "purge": "purged",
    "suspend": "suspended",
}
# What moves bytes by itself, so that it can be killed with a slice done.
SLICED = {
    ("backup", "store"),
    ("clone", "fetch"),
    ("restore", "fetch"),
    ("verify", "fetch"),
}


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@dataclass
class Killed:
    """A worker that kills itself, and the messages that it gets."""

    kills: Path
    broker: Celery
    log: Path

    def points(self, operation: Operation) -> set[tuple[str, str]]:
        """Return at which step and moment of an operation a process was killed."""
        found = set()
        for mark in self.kills.iterdir():
            of, name, moment = mark.name.split()
            if of == str(operation.pk):
                found.add((name, moment))
        return found

    def drive(self, host: HostPart, operations: list[Operation]) -> None:
        """Play host, broker and reaper until all operations have ended."""
        ids = [operation.pk for operation in operations]

        def all_ended() -> bool:
            now = timezone.now()
            live = Operation.objects.filter(state__in=LIVE)
            live.filter(Q(lease_until=None) | Q(lease_until__lt=now)).update(run_after=now)
            services.operation_reap()
            for operation in live.filter(Q(lease_until=None) | Q(lease_until__lt=now)):
                self.broker.send_task("operations.run", args=[str(operation.pk)])
                asleep = operation.kind == "hibernate"
                report(operation.instance, "hibernated" if asleep else "")
            host.play()
            return not live.filter(pk__in=ids).exists()

        wait_until(all_ended, f"all operations end; {self.log}", ALL_SECONDS_MAX)


@pytest.fixture
def killed(postgres: PostgresServer, redis: RedisServer, tmp_path: Path) -> Iterator[Killed]:
    """A real worker of two processes on the test's database, storages and broker."""
    kills = tmp_path / "kills"
    kills.mkdir()
    name = connection.settings_dict["NAME"]
    environment = {
        **{key: value for key, value in os.environ.items() if "WEFTKIT" not in key},
        "DJANGO_SETTINGS_MODULE": "tests.tenants.killed_settings",
        "WEFTKIT_HOME": str(tmp_path),
        "WEFTKIT_DATABASE_URL": postgres.dsn(name),
        "WEFTKIT_REDIS_URL": redis.url(0),
        "KILLS": str(kills),
    }
    command = [
        sys.executable, "-m", "celery", "-A", "tests.tenants.killed_worker", "worker",
        "--concurrency", "2", "--without-mingle", "--without-gossip", "--without-heartbeat",
    ]  # fmt: skip
    broker = Celery(broker=f"redis+socket://{redis.socket}?virtual_host=0", set_as_current=False)
    broker.conf.broker_transport_options = {"global_keyprefix": "kills:"}
    log = tmp_path / "worker.log"
    with log.open("wb") as written:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=written, stderr=written,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield Killed(kills, broker, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)
        broker.close()


def test_every_kind_is_killed_here() -> None:
    assert set(STARTS) == set(KINDS)


def test_every_kind_comes_to_its_end_however_its_workers_are_killed(
    lasting_cast: Cast, killed: Killed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "TAKEOVERS_MAX", 1000)
    scene = Scene(lasting_cast)
    started = {kind: start(scene) for kind, start in STARTS.items()}
    killed.drive(scene.host, list(started.values()))
    for kind, operation in started.items():
        operation.refresh_from_db()
        operation.instance.refresh_from_db()
        assert operation.state == "succeeded", (kind, operation.error_message)
        assert operation.instance.status == LEFT.get(kind, "active"), kind
        # What the request itself did is no worker's.
        steps = [step for step in KINDS[kind].steps if not step.is_done_at_start]
        wanted = {(step.name, moment) for step in steps for moment in ("within", "after")}
        wanted |= {(step, "sliced") for of, step in SLICED if of == kind}
        assert killed.points(operation) == wanted, kind
        assert operation.takeovers >= len(steps)
    for kind in ("clone", "restore"):
        assert scene.host.data[started[kind].instance_id] == CONTENT
    assert scene.host.data[started["import"].instance_id] == CONTENT + b"imported"
    assert set(Backup.objects.values_list("state", flat=True)) == {"ready"}


def test_every_way_back_comes_to_its_end_however_its_workers_are_killed(
    lasting_cast: Cast, killed: Killed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "TAKEOVERS_MAX", 1000)
    scene = Scene(lasting_cast)
    # Once the old secret has expired a rotation cannot be taken back.
    starts = {**STARTS, "rotate": lambda scene: _rotate(scene, timedelta(hours=1))}
    started = {kind: starts[kind](scene) for kind, spec in KINDS.items() if spec.is_cancellable}
    for operation in started.values():
        operation_run(operation_id=operation.pk)
        services.operation_cancel(operation=operation)
    killed.drive(scene.host, list(started.values()))
    for kind, operation in started.items():
        operation.refresh_from_db()
        operation.instance.refresh_from_db()
        assert operation.state == "cancelled", (kind, operation.error_message)
        undone = set(operation.steps.filter(state="undone").values_list("name", flat=True))
        with_undo = {step.name for step in KINDS[kind].steps if step.undo is not None}
        assert killed.points(operation) == {(name, "undo") for name in undone & with_undo}, kind
        blocked = Operation.objects.filter(instance=operation.instance, state__in=LIVE)
        assert not blocked.exists()
