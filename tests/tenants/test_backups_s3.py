"""Backups in a bucket: django-storages' S3 backend against moto's server, over HTTP.

The instance host is played by its rows and by files in the depot; all else is the real way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from django.db import connection
from django.utils import timezone
from moto.server import ThreadedMotoServer

from tenants.backups import services, vault, wal
from tenants.backups.models import Backup, BackupSchedule, StoredFile, WalSegment
from tenants.backups.retention import backups_sweep
from tenants.backups.schedules import schedule_change
from tenants.backups.selection import next_name, window_of
from tenants.instances.models import Instance
from tenants.operations.models import Operation
from tenants.operations.runner import operation_run
from tests.servers import PostgresServer, wait_until
from tests.tenants.cast import Cast, serving_instance
from tests.tenants.host_part import SEGMENT_BYTES, HostPart, digest
from weftkit_site.settings import environment

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"rows of a table " + os.urandom(300_000)
CHUNK = 64 * 1024
PIECES = 5  # of CONTENT
SEAL_BYTES = 28  # nonce and tag of each piece
BUCKET, PREFIX = "vault", "here"
KEYS = {"ACCESS_KEY": "test", "SECRET_KEY": "test", "REGION": "eu-central-1"}


@dataclass
class Bucket:
    """The bucket, seen past the product; and what a process needs to find it."""

    client: Any
    environment: dict[str, str]

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", []))

    def read(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket that is the vault of this process."""
    said = {**KEYS, "BUCKET": BUCKET, "PREFIX": PREFIX, "ENDPOINT": endpoint}
    variables = {f"WEFTKIT_BACKUPS_S3_{name}": value for name, value in said.items()}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    storage = environment.backup_storage(Path("/nowhere"))
    settings.STORAGES = {**settings.STORAGES, "backups": storage}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=KEYS["REGION"],
        aws_access_key_id=KEYS["ACCESS_KEY"],
        aws_secret_access_key=KEYS["SECRET_KEY"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": KEYS["REGION"]}
    )
    bucket = Bucket(client, variables)
    yield bucket
    for name in bucket.names():
        client.delete_object(Bucket=BUCKET, Key=name)
    client.delete_bucket(Bucket=BUCKET)
    client.close()


@pytest.fixture(autouse=True)
def _small_and_impatient(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    monkeypatch.setattr(vault, "CHUNK_BYTES", CHUNK)


def made(cast: Cast) -> tuple[Instance, HostPart]:
    """Return an instance whose log is archived, and its host."""
    instance = serving_instance(cast.acme, plan="standard")
    schedule_change(instance=instance, archives_wal=True)
    return instance, HostPart(data={instance.pk: CONTENT})


def backed_up(host: HostPart, instance: Instance) -> Backup:
    operation = host.settle(services.backup_create(instance=instance, actor="test"))
    assert operation.state == "succeeded", operation.error_message
    return Backup.objects.get(pk=operation.params["backup_id"])


def close_segment(host: HostPart) -> datetime:
    now = timezone.now()
    host.closed.append((host.segment, now.isoformat()))
    host.segment = next_name(host.segment, SEGMENT_BYTES)
    return now


def ship(host: HostPart) -> None:
    while host.closed or BackupSchedule.objects.exclude(wal_task_id=None).exists():
        BackupSchedule.objects.update(wal_next_at=timezone.now())
        wal.wal_ship()
        host.play()


def pieces(bucket: Bucket, file: StoredFile) -> list[str]:
    return [name for name in bucket.names() if file.storage_name in name]


def test_the_whole_way_from_a_backup_through_a_bucket_to_a_moment_in_a_new_instance(
    cast: Cast, bucket: Bucket
) -> None:
    instance, host = made(cast)
    backup = backed_up(host, instance)
    moments = [close_segment(host) for _ in range(3)]
    ship(host)

    file = backup.files.get(role="data")
    sealed = [bucket.read(name) for name in pieces(bucket, file)]
    assert [len(each) for each in sealed] == [
        *[CHUNK + SEAL_BYTES] * (PIECES - 1),
        len(CONTENT) - CHUNK * (PIECES - 1) + SEAL_BYTES,
    ]
    assert all(name.startswith(f"{PREFIX}/") for name in bucket.names())
    everything = b"".join(map(bucket.read, bucket.names()))
    assert b"rows of a table" not in everything
    assert b"log of" not in everything
    assert (file.sha256, file.shipped_bytes) == (digest(CONTENT), len(CONTENT))
    assert WalSegment.objects.filter(is_stored=True).count() == 3

    verify = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert verify.state == "succeeded", verify.error_message
    host.data[instance.pk] = b"changed since"
    assert window_of(instance=instance).ranges[0].start == backup.covers_to
    restore = host.settle(
        services.instance_restore_at(
            instance=instance, time=moments[1], actor="test", name="before"
        )
    )
    assert restore.state == "succeeded", restore.error_message
    (order,) = (each for each in host.orders.values() if each.target_time is not None)
    assert datetime.fromisoformat(str(order.target_time)) == moments[1]
    assert len(order.wal) == 2
    assert host.data[restore.instance.pk] == CONTENT, "the played host checks every digest"


def test_what_was_altered_or_is_gone_in_the_bucket_is_never_restored(
    cast: Cast, bucket: Bucket
) -> None:
    instance, host = made(cast)
    backup = backed_up(host, instance)
    first, second, *_ = pieces(bucket, backup.files.get(role="data"))
    whole = bucket.read(first)
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:1000], bucket.read(second), None):
        if damaged is None:
            bucket.client.delete_object(Bucket=BUCKET, Key=first)
        else:
            bucket.write(first, damaged)
        operation = host.settle(services.backup_verify(backup=backup, actor="test"))
        assert (operation.state, operation.error_code) == ("failed", "backup_damaged")
    backup.refresh_from_db()
    assert backup.verification == "failed"
    bucket.write(first, whole)
    assert host.settle(services.backup_verify(backup=backup, actor="test")).state == "succeeded"


def test_retention_empties_the_bucket(cast: Cast, bucket: Bucket) -> None:
    instance, host = made(cast)
    first = backed_up(host, instance)
    for _ in range(2):
        close_segment(host)
    ship(host)
    second = backed_up(host, instance)
    kept = {name for file in second.files.all() for name in pieces(bucket, file)}
    assert len(bucket.names()) > len(kept) > PIECES
    services.backup_delete(backup=first)
    assert wal.wal_expire() == 2
    while backups_sweep():
        pass
    assert set(bucket.names()) == kept
    services.backup_delete(backup=second)
    while backups_sweep():
        pass
    assert bucket.names() == []


def test_an_upload_goes_on_after_its_worker_was_killed_in_the_middle(
    lasting_cast: Cast, bucket: Bucket, postgres: PostgresServer, tmp_path: Path
) -> None:
    instance, host = made(lasting_cast)
    operation = services.backup_create(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    host.play()
    worker = subprocess.run(
        [sys.executable, "-m", "tests.tenants.killed_upload", str(operation.pk), "2"],
        cwd=ROOT,
        env={
            **{key: value for key, value in os.environ.items() if "WEFTKIT" not in key},
            **bucket.environment,
            "DJANGO_SETTINGS_MODULE": "tests.tenants.killed_settings",
            "WEFTKIT_HOME": str(tmp_path),
            "WEFTKIT_DATABASE_URL": postgres.dsn(connection.settings_dict["NAME"]),
            "WEFTKIT_REDIS_URL": "unix:///nowhere",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == -signal.SIGKILL, worker.stderr.decode()
    file = StoredFile.objects.get(role="data")
    early = {name: bucket.read(name) for name in pieces(bucket, file)}
    assert (file.shipped_bytes, len(early)) == (2 * CHUNK, 3), "a piece that no row knows of"
    assert Backup.objects.get().state == "writing"

    def is_over() -> bool:
        return Operation.objects.filter(pk=operation.pk, lease_until__lt=timezone.now()).exists()

    wait_until(is_over, "the killed worker's lease is over", 10)
    assert host.settle(operation).state == "succeeded"
    assert operation.takeovers == 1
    file.refresh_from_db()
    late = pieces(bucket, file)
    assert len(late) == PIECES
    kept = [name for name in early if bucket.read(name) == early[name]]
    assert kept == sorted(early)[:2], "what rows know of is not sent again"
    verify = host.settle(services.backup_verify(backup=Backup.objects.get(), actor="test"))
    assert verify.state == "succeeded", verify.error_message


def test_a_bucket_that_does_not_answer_is_waited_for(
    cast: Cast, bucket: Bucket, settings: Any
) -> None:
    instance, host = made(cast)
    operation = services.backup_create(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    host.play()
    there = settings.STORAGES
    options = {**there["backups"]["OPTIONS"], "endpoint_url": "http://127.0.0.1:9"}
    settings.STORAGES = {**there, "backups": {**there["backups"], "OPTIONS": options}}
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.lease_token) == ("running", None)
    assert operation.run_after - timezone.now() < timedelta(minutes=5)
    assert bucket.names() == []
    settings.STORAGES = there
    assert host.settle(operation).state == "succeeded"
