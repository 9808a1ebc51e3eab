"""Backups of relational instances: chains, the archived log, restores to a moment, schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from tenants.backups import services, vault, wal
from tenants.backups.models import Backup, BackupSchedule, WalSegment
from tenants.backups.retention import backups_expire, backups_sweep
from tenants.backups.schedules import backups_start_due, next_after, schedule_change
from tenants.backups.selection import next_name, window_of
from tenants.core.errors import ConflictError, InvalidError
from tenants.instances.models import Instance
from tenants.operations.models import Operation
from tenants.operations.runner import operation_run
from tests.tenants.cast import Cast, published, serving_instance, signed_in
from tests.tenants.host_part import SEGMENT_BYTES, HostPart


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "CHUNK_BYTES", 64 * 1024)


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return serving_instance(cast.acme, plan="standard")


@pytest.fixture
def host(instance: Instance) -> HostPart:
    return HostPart(data={instance.pk: b"first " * 1000})


def backed_up(host: HostPart, instance: Instance, **fields: Any) -> Backup:
    operation = host.settle(services.backup_create(instance=instance, actor="test", **fields))
    assert operation.state == "succeeded", operation.error_message
    return Backup.objects.get(pk=operation.params["backup_id"])


def close_segment(host: HostPart) -> datetime:
    """Have the played server close the segment that it writes; return when."""
    now = timezone.now()
    host.closed.append((host.segment, now.isoformat()))
    host.segment = next_name(host.segment, SEGMENT_BYTES)
    return now


def ship(host: HostPart) -> None:
    """Let the archive go on until all that is closed has been shipped."""
    for _ in range(20):
        BackupSchedule.objects.update(wal_next_at=timezone.now())
        wal.wal_ship()
        host.play()
        schedule = BackupSchedule.objects.get()
        if not host.closed and schedule.wal_task_id is None:
            return
    raise AssertionError("the log is not shipped")


def archiving(instance: Instance) -> BackupSchedule:
    return schedule_change(instance=instance, archives_wal=True)


def test_a_chain_is_restored_from_its_full_backup_on(host: HostPart, instance: Instance) -> None:
    with pytest.raises(ConflictError) as refused:
        services.backup_create(instance=instance, actor="test", kind="incremental")
    assert refused.value.code == "no_parent"
    chain = [backed_up(host, instance)]
    for number in (2, 3):
        host.data[instance.pk] = f"state {number} ".encode() * 500
        chain.append(backed_up(host, instance, kind="incremental"))
    assert [each.kind for each in chain] == ["full", "incremental", "incremental"]
    assert chain[2].parent == chain[1]
    restore = host.settle(services.backup_restore(backup=chain[2], actor="test", name="again"))
    assert restore.state == "succeeded", restore.error_message
    (order,) = host.orders.values()
    assert [each.size_bytes for each in order.chain] == [
        each.files.get(role="data").size_bytes for each in chain
    ]
    assert host.data[restore.instance.pk] == b"state 3 " * 500


def test_what_others_build_on_goes_after_them(host: HostPart, instance: Instance) -> None:
    full = backed_up(host, instance)
    child = backed_up(host, instance, kind="incremental")
    with pytest.raises(ConflictError, match="build on"):
        services.backup_delete(backup=full)
    Backup.objects.filter(pk=full.pk).update(expires_at=timezone.now())
    assert backups_expire() == 0
    Backup.objects.filter(pk=child.pk).update(expires_at=timezone.now())
    assert backups_expire() == 2
    while backups_sweep():
        pass
    assert not Backup.objects.exists()


def test_a_scheduled_incremental_that_cannot_be_becomes_a_full_one(
    host: HostPart, instance: Instance
) -> None:
    schedule_change(instance=instance)
    for wanted in ("full", "incremental", "full"):
        BackupSchedule.objects.update(next_at=timezone.now())
        assert backups_start_due() == 1
        operation = Operation.objects.filter(kind="backup").latest("pk")
        if Backup.objects.count() == 3:
            host.fails["pg_base_backup"] = ("incremental_unavailable", "no summaries")
            for _ in range(4):
                run_once(host, operation)
            host.fails.clear()
        assert host.settle(operation).state == "succeeded", operation.error_message
        assert Backup.objects.latest("pk").kind == wanted
    assert Backup.objects.latest("pk").parent is None


def run_once(host: HostPart, operation: Operation) -> None:
    operation_run(operation_id=operation.pk)
    if Backup.objects.latest("pk").kind == "full":
        host.fails.clear()
    host.play()


def test_the_record_tells_the_host_to_archive(instance: Instance) -> None:
    record = published(instance)
    assert record is not None
    assert (record.limits.wal_archive, record.limits.wal_summaries) == (False, False)
    archiving(instance)
    record = published(instance)
    assert record is not None
    assert (record.limits.wal_archive, record.limits.wal_summaries) == (True, True)
    schedule_change(instance=instance, is_enabled=False)
    record = published(instance)
    assert record is not None
    assert (record.limits.wal_archive, record.limits.wal_summaries) == (False, False)


def test_any_moment_after_a_backup_can_be_restored_once_its_log_is_shipped(
    cast: Cast, host: HostPart, instance: Instance
) -> None:
    archiving(instance)
    assert window_of(instance=instance).ranges == []
    base = backed_up(host, instance)
    assert base.covers_to is not None
    moments = [close_segment(host) for _ in range(20)]  # more than one task takes
    ship(host)
    assert WalSegment.objects.filter(is_stored=True).count() == 20
    (reach,) = window_of(instance=instance).ranges
    assert reach.start == base.covers_to
    assert reach.stop >= moments[-1]
    shown = signed_in(cast.bob).get(
        f"/api/v1/tenants/acme/instances/{instance.handle}/restore-window"
    )
    assert datetime.fromisoformat(shown.json()["ranges"][0]["start"]) == base.covers_to

    target = moments[4]
    answer = signed_in(cast.bob).post(
        f"/api/v1/tenants/acme/instances/{instance.handle}/restore",
        {"name": "before", "time": target.isoformat()},
        content_type="application/json",
    )
    assert answer.status_code == 202, answer.content
    restore = host.settle(Operation.objects.get(pk=answer.json()["id"]))
    assert restore.state == "succeeded", restore.error_message
    (order,) = host.orders.values()
    assert order.target_time is not None
    assert datetime.fromisoformat(order.target_time) == target
    assert [each.name for each in order.wal] == list(
        WalSegment.objects.order_by("name").values_list("name", flat=True)[:5]
    )
    for wrong in (base.covers_to - timedelta(seconds=1), reach.stop + timedelta(seconds=5)):
        with pytest.raises((ConflictError, InvalidError)):
            services.instance_restore_at(instance=instance, time=wrong, actor="test", name="no")


def test_a_moment_after_the_last_segment_is_the_end_of_the_log(
    host: HostPart, instance: Instance
) -> None:
    archiving(instance)
    backed_up(host, instance)
    close_segment(host)
    ship(host)
    target = window_of(instance=instance).ranges[-1].stop
    operation = services.instance_restore_at(
        instance=instance, time=target, actor="test", name="end"
    )
    assert host.settle(operation).state == "succeeded"
    (order,) = host.orders.values()
    assert order.target_time is not None, "the host knows that the end of the log is meant"
    assert (datetime.fromisoformat(order.target_time), len(order.wal)) == (target, 1)


def test_a_segment_that_is_missing_is_a_gap(host: HostPart, instance: Instance) -> None:
    archiving(instance)
    base = backed_up(host, instance)
    moments = [close_segment(host) for _ in range(3)]
    host.closed.pop(1)
    ship(host)
    window = window_of(instance=instance)
    assert (window.ranges[0].stop, len(window.ranges)) == (moments[0], 1)
    with pytest.raises(ConflictError) as refused:
        services.instance_restore_at(instance=instance, time=moments[2], actor="test", name="lost")
    assert refused.value.code == "not_in_window"
    later = backed_up(host, instance)
    window = window_of(instance=instance)
    assert [reach.start for reach in window.ranges] == [base.covers_to, later.covers_to]
    assert [(gap.start, gap.stop) for gap in window.gaps] == [(moments[0], later.covers_to)]


@pytest.mark.parametrize(
    ("name", "segment_bytes", "following"),
    [
        ("0000000100000000000000FF", 16 << 20, "000000010000000100000000"),
        ("0000000100000000000000FF", 4 << 20, "000000010000000000000100"),
        ("0000000100000000000003FF", 4 << 20, "000000010000000100000000"),
        ("00000002000000FE00000FFF", 1 << 20, "00000002000000FF00000000"),
    ],
)
def test_the_name_of_the_next_segment_depends_on_how_large_segments_are(
    name: str, segment_bytes: int, following: str
) -> None:
    assert next_name(name, segment_bytes) == following


@pytest.mark.parametrize("last", ["FE", "3FE"])
def test_the_log_has_no_gap_where_its_counter_turns(
    host: HostPart, instance: Instance, last: str
) -> None:
    archiving(instance)
    host.segment = f"0000000100000000{last:0>8}"
    backed_up(host, instance)
    moments = [close_segment(host) for _ in range(4)]
    ship(host)
    window = window_of(instance=instance)
    assert window.gaps == []
    assert window.ranges[0].stop >= moments[-1]


def test_segments_that_are_sent_again_after_a_kill_are_stored_once(
    host: HostPart, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiving(instance)
    close_segment(host)
    close_segment(host)

    class KilledError(BaseException):
        pass

    write = vault.chunk_write
    written = []

    def dies(*arguments: Any) -> None:
        if len(written) == 1:
            raise KilledError
        written.append(arguments)
        write(*arguments)

    wal.wal_ship()
    host.play()
    with monkeypatch.context() as patched:
        patched.setattr(vault, "chunk_write", dies)
        with pytest.raises(KilledError):
            wal.wal_ship()
    assert not WalSegment.objects.filter(is_stored=True).exists()
    assert len(host.closed) == 2, "the host keeps its own until all is stored"
    BackupSchedule.objects.update(wal_busy_until=timezone.now() - timedelta(seconds=1))
    ship(host)
    assert WalSegment.objects.filter(is_stored=True).count() == 2
    for segment in WalSegment.objects.all():
        assert segment.file.shipped_bytes == segment.file.size_bytes


def test_the_log_before_the_oldest_kept_backup_goes(host: HostPart, instance: Instance) -> None:
    archiving(instance)
    first = backed_up(host, instance)
    for _ in range(3):
        close_segment(host)
    ship(host)
    second = backed_up(host, instance)
    close_segment(host)
    ship(host)
    assert wal.wal_expire() == 0
    services.backup_delete(backup=first)
    assert wal.wal_expire() == 3
    assert [segment.name for segment in WalSegment.objects.all()] == [second.facts["stop_segment"]]


def test_a_verification_remembers_the_sum_of_the_tables(host: HostPart, instance: Instance) -> None:
    backup = backed_up(host, instance)
    for _ in range(2):
        assert host.settle(services.backup_verify(backup=backup, actor="test")).state == "succeeded"
    backup.refresh_from_db()
    assert backup.verification == "passed"
    Backup.objects.update(verification_facts={"checksum": "0" * 16})
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "verification_failed")


def test_a_verification_that_does_not_reach_the_end_of_the_backup_fails(
    host: HostPart, instance: Instance
) -> None:
    backup = backed_up(host, instance)
    host.replayed_to = "0/1"
    operation = host.settle(services.backup_verify(backup=backup, actor="test"))
    assert (operation.state, operation.error_code) == ("failed", "verification_failed")
    assert "the log ends at 0/1" in operation.error_message
    host.replayed_to = "1/0"
    assert host.settle(services.backup_verify(backup=backup, actor="test")).state == "succeeded"


AT = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({"cadence": "hourly", "minute": 45}, datetime(2026, 11, 25, 10, 45, tzinfo=UTC)),
        ({"cadence": "hourly", "minute": 30}, datetime(2026, 11, 25, 11, 30, tzinfo=UTC)),
        ({"cadence": "daily", "hour": 12}, datetime(2026, 11, 25, 12, 0, tzinfo=UTC)),
        ({"cadence": "daily", "hour": 3}, datetime(2026, 11, 26, 3, 0, tzinfo=UTC)),
        ({"cadence": "weekly", "hour": 3, "weekday": 2}, datetime(2026, 12, 2, 3, 0, tzinfo=UTC)),
        ({"cadence": "weekly", "hour": 3, "weekday": 4}, datetime(2026, 11, 27, 3, 0, tzinfo=UTC)),
    ],
)
def test_the_next_time_of_a_schedule(fields: dict[str, Any], due: datetime) -> None:
    assert next_after(BackupSchedule(**fields), AT) == due


def test_a_due_schedule_starts_one_backup_and_tries_again_where_it_may_not(
    host: HostPart, instance: Instance
) -> None:
    schedule = schedule_change(instance=instance, keep_count=2, keep_days=3)
    assert schedule.next_at > timezone.now()
    assert backups_start_due() == 0
    BackupSchedule.objects.update(next_at=timezone.now() - timedelta(days=3))
    assert (backups_start_due(), backups_start_due()) == (1, 0), "missed times are made up once"
    BackupSchedule.objects.update(next_at=timezone.now())
    assert backups_start_due() == 0
    schedule.refresh_from_db()
    assert "backup operation runs" in schedule.last_refusal
    assert schedule.next_at > timezone.now()
    host.settle(Operation.objects.get(kind="backup"))
    for _ in range(3):
        BackupSchedule.objects.update(next_at=timezone.now())
        backups_start_due()
        host.settle(Operation.objects.filter(kind="backup").latest("pk"))
    Backup.objects.update(kind="full", parent=None)
    assert backups_expire() == 2
    assert Backup.objects.filter(state="ready").count() == 2


def test_retention_leaves_the_last_good_backup_of_a_schedule(
    host: HostPart, instance: Instance
) -> None:
    schedule_change(instance=instance)
    BackupSchedule.objects.update(next_at=timezone.now())
    backups_start_due()
    host.settle(Operation.objects.get(kind="backup"))
    Backup.objects.update(expires_at=timezone.now() - timedelta(days=30))
    assert backups_expire() == 0
    schedule_change(instance=instance, is_enabled=False)
    assert backups_expire() == 1


def test_a_plan_bounds_what_a_schedule_keeps(cast: Cast, instance: Instance) -> None:
    with pytest.raises(InvalidError, match="takes 1 to 90"):
        schedule_change(instance=instance, keep_days=91)
    small = serving_instance(cast.acme, "small", plan="lite")
    with pytest.raises(InvalidError, match="no log archive"):
        schedule_change(instance=small, archives_wal=True)
    cache = serving_instance(cast.acme, "cache", engine="inmemory", plan="standard")
    with pytest.raises(InvalidError, match="no log to archive"):
        schedule_change(instance=cache, archives_wal=True)
