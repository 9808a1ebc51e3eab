"""The backups tab: back up, schedule, restore into a new instance, verify, delete."""

from __future__ import annotations

from typing import Any

import pytest

from tenants.accounts.models import MemberRole
from tenants.backups.models import BackupSchedule
from tenants.backups.selectors import backup_list
from tenants.instances.models import Instance
from tenants.operations.models import Operation
from tests.tenants.cast import Cast, join, person, serving_instance, signed_in
from tests.tenants.host_part import ready_backup

BASE = "/t/acme/instances/acme-main"
SCHEDULE = {
    "what": "schedule", "is_enabled": "on", "cadence": "weekly", "hour": "4", "minute": "30",
    "weekday": "2", "keep_count": "3", "keep_days": "14",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return serving_instance(cast.acme, engine="inmemory")


def test_a_backup_is_begun_and_its_operation_shown(cast: Cast, instance: Instance) -> None:
    client = signed_in(cast.bob)
    assert b"No backups yet" in client.get(f"{BASE}/backups").content
    answer = client.post(f"{BASE}/backups", {"what": "now", "label": "before 4.2"})
    operation = Operation.objects.get(kind="backup")
    assert answer.headers["Location"] == f"/t/acme/operations/{operation.pk}"
    assert b"before 4.2" in client.get(f"{BASE}/backups").content


def test_a_schedule_is_saved_and_what_is_wrong_with_it_said(cast: Cast, instance: Instance) -> None:
    client = signed_in(cast.alice)
    wrong = client.post(f"{BASE}/backups", {**SCHEDULE, "hour": "24"})
    assert wrong.status_code == 422
    assert b'id="id_hour_error"' in wrong.content
    assert client.post(f"{BASE}/backups", SCHEDULE).status_code == 302
    saved = BackupSchedule.objects.get()
    assert (saved.cadence, saved.weekday, saved.hour, saved.minute) == ("weekly", 2, 4, 30)
    assert b"Next:" in client.get(f"{BASE}/backups").content


def test_a_backup_becomes_a_new_instance(cast: Cast, instance: Instance) -> None:
    backup = ready_backup(instance)
    client = signed_in(cast.bob)
    page = client.get(f"{BASE}/restore?backup={backup.pk}").content.decode()
    assert f'<option value="{backup.pk}" selected>' in page
    answer = client.post(f"{BASE}/restore", {"source": str(backup.pk), "name": "main"})
    assert answer.status_code == 422
    assert b"taken" in answer.content
    answer = client.post(f"{BASE}/restore", {"source": str(backup.pk), "name": "again"})
    assert answer.status_code == 302
    assert Instance.objects.filter(handle="acme-again").exists()
    assert answer.headers["Location"].endswith(str(Operation.objects.latest("created_at").pk))


def test_a_backup_of_another_instance_is_not_touched_through_this_one(
    cast: Cast, instance: Instance
) -> None:
    theirs = ready_backup(serving_instance(cast.globex, engine="inmemory"))
    other = ready_backup(serving_instance(cast.acme, "other", engine="inmemory"))
    client = signed_in(cast.alice)
    for backup in (theirs, other):
        assert client.post(f"{BASE}/backups/{backup.pk}/delete").status_code == 404
        assert client.post(f"{BASE}/backups/{backup.pk}/verify").status_code == 404
        sent = client.post(f"{BASE}/restore", {"source": str(backup.pk), "name": "stolen"})
        assert sent.status_code == 422
    assert not Instance.objects.filter(handle__endswith="stolen").exists()


def test_deleting_and_verifying_are_for_who_may(cast: Cast, instance: Instance) -> None:
    backup = ready_backup(instance)
    assert signed_in(cast.bob).post(f"{BASE}/backups/{backup.pk}/delete").status_code == 403
    join(cast.acme, erin := person("erin"), MemberRole.READ_ONLY)
    assert signed_in(erin).post(f"{BASE}/backups", {"what": "now"}).status_code == 403
    assert signed_in(erin).get(f"{BASE}/restore").status_code == 403
    alice = signed_in(cast.alice)
    assert alice.post(f"{BASE}/backups/{backup.pk}/delete").status_code == 302
    assert not backup_list(tenant=cast.acme).filter(pk=backup.pk, state="ready").exists()
