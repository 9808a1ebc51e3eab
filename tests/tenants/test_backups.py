"""Backups: encrypted and stored piece by piece, restored, cloned, verified; with a played host."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.files.storage import storages
from django.utils import timezone

from tenants.backups import keys, services, shipping, vault
from tenants.backups.models import Backup, StagedFile, StoredFile
from tenants.backups.retention import backups_expire, backups_sweep
from tenants.core.errors import ConflictError, LimitError, LockedError
from tenants.instances.models import Instance
from tenants.instances.services import instance_resume
from tenants.operations.models import Operation
from tenants.operations.runner import operation_run
from tenants.operations.services import operation_cancel, operation_retry
from tests.tenants.cast import Cast, serving_instance, signed_in
from tests.tenants.host_part import HostPart, digest

CONTENT = b"REDIS0009" + os.urandom(300_000)
CHUNK = 64 * 1024


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "CHUNK_BYTES", CHUNK)


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return serving_instance(cast.acme, engine="inmemory", allowlist=["10.0.0.0/8"])


@pytest.fixture
def host(instance: Instance) -> HostPart:
    return HostPart(data={instance.pk: CONTENT})


def backed_up(host: HostPart, instance: Instance, **fields: Any) -> Backup:
    operation = host.settle(services.backup_create(instance=instance, actor="test", **fields))
    assert operation.state == "succeeded", operation.error_message
    return Backup.objects.get(pk=operation.params["backup_id"])


def steps_of(operation: Operation) -> dict[str, str]:
    return {step.name: step.state for step in operation.steps.all()}


def stored_objects() -> list[Path]:
    root = Path(storages["backups"].path(""))
    return sorted(path for path in root.rglob("*") if path.is_file())


def depot_objects() -> list[Path]:
    root = Path(storages["files"].path(""))
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_backup_is_stored_in_pieces_that_show_nothing_of_the_data(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance, label="first", keep_days=3)
    file = backup.files.get()
    assert (backup.state, backup.kind, backup.size_bytes) == ("ready", "rdb", len(CONTENT))
    assert (file.sha256, file.shipped_bytes) == (digest(CONTENT), len(CONTENT))
    pieces = stored_objects()
    assert len(pieces) == -(-len(CONTENT) // CHUNK)
    sealed = b"".join(path.read_bytes() for path in pieces)
    assert len(sealed) == backup.stored_bytes == len(CONTENT) + len(pieces) * 28
    assert CONTENT[:64] not in sealed
    assert b"REDIS0009" not in sealed
    assert backup.expires_at is not None
    assert timedelta(days=2.9) < backup.expires_at - timezone.now() < timedelta(days=3.1)


def test_a_restore_makes_a_new_instance_with_the_data_and_leaves_the_old_one(
    cast: Cast, host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    host.data[instance.pk] = b"REDIS0009 changed since"
    operation = host.settle(services.backup_restore(backup=backup, actor="test", name="again"))
    assert operation.state == "succeeded", operation.error_message
    made = operation.instance
    made.refresh_from_db()
    assert (made.handle, made.status, made.plan) == ("acme-again", "active", instance.plan)
    assert made.allowlist == ["10.0.0.0/8"], "a copy is not open to networks the old one refused"
    assert made.credentials.count() == 0
    assert host.data[made.pk] == CONTENT
    assert host.data[instance.pk] == b"REDIS0009 changed since"


def test_bytes_are_counted_while_they_move(
    cast: Cast, host: HostPart, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "SLICE_S", 0.0)
    seen = []
    alice = signed_in(cast.alice)
    operation = services.backup_create(instance=instance, actor="test")

    def look(file: StoredFile, *rest: Any) -> None:
        shown = alice.get(f"/api/v1/tenants/acme/operations/{operation.pk}").json()
        seen.append((shown["bytes_done"], shown["bytes_total"]))
        write(file, *rest)

    write = vault.chunk_write
    monkeypatch.setattr(vault, "chunk_write", look)
    host.settle(operation)
    assert seen[0] == (0, len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == ((len(seen) - 1) * CHUNK, len(CONTENT))


@pytest.mark.parametrize("damage", ["altered", "cut", "gone", "exchanged", "of another file"])
def test_a_damaged_backup_is_refused_and_known_as_such(
    cast: Cast, host: HostPart, instance: Instance, damage: str
) -> None:
    backup = backed_up(host, instance)
    first, second, *_ = stored_objects()
    if damage == "altered":
        first.write_bytes(first.read_bytes()[:-1] + b"\x00")
    elif damage == "cut":
        first.write_bytes(first.read_bytes()[:1000])
    elif damage == "gone":
        first.unlink()
    elif damage == "exchanged":
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    else:
        other = backed_up(host, instance)
        name = other.files.get().storage_name
        first.write_bytes(Path(storages["backups"].path(f"{name}/00000000")).read_bytes())
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "backup_damaged")
    backup.refresh_from_db()
    assert backup.verification == "failed"
    restore = host.settle(services.backup_restore(backup=backup, actor="test", name="again"))
    assert (restore.state, restore.error_code) == ("failed", "backup_damaged")
    restore.instance.refresh_from_db()
    assert restore.instance.status == "failed"


def test_a_verification_loads_compares_and_puts_nothing_in_place(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    host.data[instance.pk] = b"REDIS0009 changed since"
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert operation.state == "succeeded", operation.error_message
    backup.refresh_from_db()
    assert backup.verification == "passed"
    assert backup.verification_facts == {
        "keys": 3, "memory_bytes": 1000, "keys_saved": 3, "keys_expired": 0,
    }  # fmt: skip
    host.play()
    assert host.data[instance.pk] == b"REDIS0009 changed since"


def test_keys_that_have_expired_since_are_no_fault_of_the_backup(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    host.expired_keys = 1
    assert host.settle(services.backup_verify(backup=backup, actor="test")).state == "succeeded"
    backup.refresh_from_db()
    assert backup.verification_facts["keys"] == 2
    assert backup.verification_facts["keys_expired"] == 1


@pytest.mark.parametrize(("keys", "expired"), [(2, 0), (4, 1), (3, 2)])
def test_a_verification_that_finds_other_data_fails(
    host: HostPart, instance: Instance, keys: int, expired: int
) -> None:
    backup = backed_up(host, instance)
    host.keys, host.expired_keys = keys, expired
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "verification_failed")
    backup.refresh_from_db()
    assert backup.verification == "failed"


def test_a_full_disk_at_verification_says_nothing_about_the_backup(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    host.fails["rdb_import"] = ("disk_full", "the host has no room for the files")
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "disk_full")
    backup.refresh_from_db()
    assert (backup.verification, backup.verified_at) == ("none", None)
    host.fails.clear()
    operation_retry(operation=operation)
    assert host.settle(operation).state == "succeeded"


def test_a_clone_has_the_data_and_keeps_no_backup(
    cast: Cast, host: HostPart, instance: Instance
) -> None:
    clone = services.instance_clone(instance=instance, actor="test", name="copy", plan="standard")
    operation_run(operation_id=clone.pk)
    clone.refresh_from_db()
    assert steps_of(clone)["snapshot"] == "running"
    taken = Operation.objects.get(kind="backup")
    assert taken.instance == instance
    assert host.settle(taken).state == "succeeded"
    Operation.objects.filter(pk=clone.pk).update(run_after=timezone.now())
    assert host.settle(clone).state == "succeeded"
    clone.instance.refresh_from_db()
    assert (clone.instance.status, clone.instance.plan.name) == ("active", "standard")
    assert host.data[clone.instance.pk] == CONTENT
    listed = signed_in(cast.alice).get("/api/v1/tenants/acme/backups").json()["items"]
    assert listed == []
    backups_expire()
    while backups_sweep():
        pass
    assert not Backup.objects.exists()
    assert stored_objects() == depot_objects() == []


def test_a_clone_whose_source_cannot_be_saved_says_so_and_can_be_retried(
    host: HostPart, instance: Instance
) -> None:
    host.fails["rdb_export"] = ("save_failed", "the server could not save")
    clone = services.instance_clone(instance=instance, actor="test", name="copy")
    taken = Operation.objects.get(kind="backup")
    assert host.settle(taken).state == "failed"
    assert host.settle(clone).error_code == "snapshot_failed"
    host.fails.clear()
    operation_retry(operation=taken)
    assert host.settle(taken).state == "succeeded"
    operation_retry(operation=clone)
    assert host.settle(clone).state == "succeeded"


def test_a_failed_restore_never_comes_into_service_empty(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    host.fails["rdb_import"] = ("disk_full", "no room")
    restore = host.settle(services.backup_restore(backup=backup, actor="test", name="again"))
    assert restore.state == "failed"
    host.fails.clear()
    restore.instance.refresh_from_db()
    again = instance_resume(instance=restore.instance, actor="test")
    assert again.kind == "restore"
    assert host.settle(again).state == "succeeded"
    assert host.data[restore.instance.pk] == CONTENT


def test_a_cancelled_backup_leaves_no_backup_and_no_bytes(
    host: HostPart, instance: Instance
) -> None:
    operation = services.backup_create(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    with pytest.raises(LockedError):
        services.backup_create(instance=instance, actor="test")
    operation_cancel(operation=operation)
    assert host.settle(operation).state == "cancelled"
    backup = Backup.objects.get()
    assert backup.state == "failed"
    host.play()
    Backup.objects.update(finished_at=timezone.now() - timedelta(days=8))
    backups_expire()
    while backups_sweep():
        pass
    assert not Backup.objects.exists()
    assert stored_objects() == depot_objects() == []


def test_a_retry_goes_on_with_what_was_saved_or_saves_anew(
    host: HostPart, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError

    with monkeypatch.context() as patched:
        patched.setattr(vault, "chunk_write", broken)
        operation = host.settle(services.backup_create(instance=instance, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "internal")
    host.data[instance.pk] = b"REDIS0009 later"
    operation_retry(operation=operation)
    assert host.settle(operation).state == "succeeded"
    assert Backup.objects.get().size_bytes == len(CONTENT), "what the host saved was still there"

    with monkeypatch.context() as patched:
        patched.setattr(vault, "chunk_write", broken)
        operation = host.settle(services.backup_create(instance=instance, actor="test"))
    Backup.objects.filter(state="failed").update(finished_at=timezone.now() - timedelta(hours=2))
    while backups_sweep():
        pass
    host.data[instance.pk] = b"REDIS0009 later still"
    operation_retry(operation=operation)
    assert host.settle(operation).state == "succeeded"
    assert Backup.objects.latest("pk").size_bytes == len(b"REDIS0009 later still")


def test_a_storage_that_is_away_for_a_moment_is_waited_for(
    host: HostPart, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise vault.VaultAwayError

    operation = services.backup_create(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    host.play()
    with monkeypatch.context() as patched:
        patched.setattr(vault, "chunk_write", away)
        operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.lease_token) == ("running", None)
    assert host.settle(operation).state == "succeeded"


def test_two_workers_with_one_slice_leave_one_whole_backup(
    host: HostPart, instance: Instance
) -> None:
    operation = services.backup_create(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    host.play()
    file = StoredFile.objects.get()
    shipping.stored_file_announce(file=file, size_bytes=len(CONTENT), sha256=digest(CONTENT))
    slow, fast = StoredFile.objects.get(), StoredFile.objects.get()
    first = shipping.into_vault([fast])
    late = shipping.into_vault([slow])
    assert first is not None
    assert late is not None
    first.slice()
    late.slice()  # of a worker that was away meanwhile
    file.refresh_from_db()
    assert file.shipped_bytes == len(CONTENT)
    key = keys.data_key_of(file)
    pieces = [vault.chunk_read(file, key, index) for index in range(vault.chunk_count(file))]
    assert b"".join(pieces) == CONTENT


def test_keys_are_wrapped_anew_when_a_newer_master_key_is_there(
    host: HostPart, instance: Instance, settings: Any
) -> None:
    backup = backed_up(host, instance)
    old = dict(settings.BACKUP_KEYS)
    settings.BACKUP_KEYS = {**old, 2: os.urandom(32)}
    before = stored_objects()[0].read_bytes()
    assert keys.rewrap() == 1
    assert keys.rewrap() == 0
    del settings.BACKUP_KEYS[1]
    assert backup.files.get().key_id == 2
    assert stored_objects()[0].read_bytes() == before, "only keys were wrapped anew"
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert operation.state == "succeeded"
    settings.BACKUP_KEYS = old
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "backup_key_missing")
    backup.refresh_from_db()
    assert backup.verification == "none", "a missing key says nothing about the backup"
    settings.BACKUP_KEYS = {2: os.urandom(32)}
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert operation.error_code == "backup_key_wrong"


def test_a_held_backup_is_deleted_by_nobody(host: HostPart, instance: Instance) -> None:
    backup = backed_up(host, instance, keep_days=1)
    services.backup_change(backup=backup, is_held=True)
    Backup.objects.update(expires_at=timezone.now() - timedelta(days=1))
    with pytest.raises(ConflictError, match="held"):
        services.backup_delete(backup=backup)
    assert backups_expire() == 0
    services.backup_change(backup=backup, is_held=False)
    assert backups_expire() == 1
    while backups_sweep():
        pass
    assert not Backup.objects.exists()
    assert stored_objects() == []


def test_a_backup_in_use_is_not_deleted_under_its_reader(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    restore = services.backup_restore(backup=backup, actor="test", name="again")
    with pytest.raises(ConflictError, match="works with this backup"):
        services.backup_delete(backup=backup)
    Backup.objects.update(expires_at=timezone.now() - timedelta(days=1))
    assert backups_expire() == 0
    assert host.settle(restore).state == "succeeded"
    assert StagedFile.objects.count() == 1
    assert backups_expire() == 1
    while backups_sweep():
        pass
    assert not Backup.objects.exists()
    assert not StagedFile.objects.exists()
    assert depot_objects() == []


def test_a_plan_has_so_many_backups(
    host: HostPart, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenants.backups import plans

    monkeypatch.setitem(plans.PLANS, "lite", plans.BackupLimits(count_max=1, days_max=5))
    backed_up(host, instance)
    with pytest.raises(LimitError):
        services.backup_create(instance=instance, actor="test")
    with pytest.raises(Exception, match="takes 1 to 5"):
        services.backup_change(backup=Backup.objects.get(), keep_days=6)


def test_backups_of_a_purged_instance_are_kept_for_their_time_and_can_be_restored(
    cast: Cast, host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    Instance.objects.filter(pk=instance.pk).update(
        status="purged", quarantined_at=timezone.now(), handle="acme-gone"
    )
    assert backups_expire() == 0
    backup.refresh_from_db()
    assert backup.expires_at is not None
    (listed,) = signed_in(cast.alice).get("/api/v1/tenants/acme/backups").json()["items"]
    assert (listed["id"], listed["instance"]) == (str(backup.pk), "acme-gone")
    restore = host.settle(services.backup_restore(backup=backup, actor="test", name="again"))
    assert restore.state == "succeeded"
    assert host.data[restore.instance.pk] == CONTENT


def test_the_api_backs_up_restores_and_shows_it(
    cast: Cast, host: HostPart, instance: Instance
) -> None:
    bob = signed_in(cast.bob)
    at = f"/api/v1/tenants/acme/instances/{instance.handle}"
    body = {"label": "by bob", "keep_days": 2}
    started = bob.post(f"{at}/backups", body, content_type="application/json")
    assert started.status_code == 202, started.content
    operation = host.settle(Operation.objects.get(pk=started.json()["id"]))
    assert operation.state == "succeeded"
    (listed,) = bob.get(f"{at}/backups").json()["items"]
    assert (listed["label"], listed["state"], listed["kind"]) == ("by bob", "ready", "rdb")
    for secret in ("storage_name", "depot_name", "wrapped_key"):
        assert secret not in listed
    address = f"/api/v1/tenants/acme/backups/{listed['id']}"
    assert bob.delete(address).status_code == 403
    made = bob.post(f"{address}/restore", {"name": "new"}, content_type="application/json")
    assert (made.status_code, made.json()["instance"]) == (202, "acme-new")
    assert host.settle(Operation.objects.get(pk=made.json()["id"])).state == "succeeded"
    assert signed_in(cast.alice).delete(address).status_code == 204
    assert bob.get(address).status_code == 404
    assert UUID(listed["id"]) == Backup.objects.get().pk, "its bytes go first"
