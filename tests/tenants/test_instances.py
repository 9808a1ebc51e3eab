"""Instances: creation, the table of transitions, plans, protection, quarantine and purge."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from engines import registry
from tenants.accounts.services import tenant_create
from tenants.core.errors import ConflictError, InvalidError, LimitError
from tenants.instances import services
from tenants.instances.models import Credential, Instance, InstanceStatus
from tenants.instances.selectors import connection_of, instance_list
from tenants.instances.status import ON_ITS_WAY_OUT, TRANSITIONS, instance_move
from tenants.operations.models import Operation
from tenants.operations.runner import operation_run
from tenants.operations.services import operation_reset
from tests.tenants.cast import (
    Cast,
    asked_for,
    make_instance,
    published,
    serving_instance,
    settle,
    side_by_side,
)


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def test_an_instance_is_published_the_moment_it_exists(cast: Cast) -> None:
    instance = make_instance(cast.acme).instance
    record = published(instance)
    assert record is not None
    assert (record.handle, record.tenant, record.engine) == ("acme-main", "acme", "relational")
    assert (record.status, record.desired) == ("provisioning", "absent")
    assert (record.limits.read, record.limits.write, record.limits.query) == (20, 10, 5)
    assert record.limits.storage_bytes == 2**30


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"engine": "spreadsheet"}, "engine"),
        ({"plan": "gold"}, "plan"),
        ({"region": "moon"}, "region"),
        ({"blocks": 2}, "blocks"),
        ({"plan": "standard", "blocks": 101}, "blocks"),
        ({"name": "x" * 40}, "handle"),
        ({"name": "Upper"}, "handle"),
        ({"allowlist": ["10.0.0.1/8"]}, "allowlist"),
    ],
)
def test_a_wrong_instance_is_refused_by_field(
    cast: Cast, fields: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        make_instance(cast.acme, **fields)
    assert list(refused.value.fields) == [wrong]
    assert Instance.objects.count() == 0


@pytest.mark.parametrize(
    "tags",
    [
        {"": "x"},
        {"-team": "x"},
        {"k" * 65: "x"},
        {"team": "x" * 129},
        {"team": "a\nb"},
        {f"k{n}": "" for n in range(21)},
    ],
)
def test_wrong_tags_are_refused(cast: Cast, tags: dict[str, str]) -> None:
    with pytest.raises(InvalidError) as refused:
        make_instance(cast.acme, tags=tags)
    assert list(refused.value.fields) == ["tags"]


def test_tags_are_kept_in_order_and_replaced_whole(cast: Cast) -> None:
    instance = serving_instance(cast.acme, tags={"team": "data", "env": "prod"})
    assert list(instance.tags.items()) == [("env", "prod"), ("team", "data")]
    changed = services.instance_change(instance=instance, tags={"env": "stage"})
    assert changed.tags == {"env": "stage"}
    assert services.instance_change(instance=instance, blocks=1).tags == {"env": "stage"}


def test_a_name_is_taken_once(cast: Cast) -> None:
    make_instance(cast.acme)
    with pytest.raises(ConflictError) as refused:
        make_instance(cast.acme)
    assert refused.value.code == "name_taken"


def test_every_status_has_its_row_and_the_database_knows_the_same_ones(cast: Cast) -> None:
    assert set(TRANSITIONS) == set(InstanceStatus)
    instance = make_instance(cast.acme).instance
    for status in InstanceStatus:
        moment = timezone.now() if status in ON_ITS_WAY_OUT else None
        rows = Instance.objects.filter(pk=instance.pk)
        assert rows.update(status=status, quarantined_at=moment, purge_after=None) == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        Instance.objects.filter(pk=instance.pk).update(status="upside-down")


def test_the_database_ties_quarantine_to_its_time(cast: Cast) -> None:
    rows = Instance.objects.filter(pk=make_instance(cast.acme).instance.pk)
    for wrong in (
        {"status": "quarantined", "quarantined_at": None},
        {"status": "active", "quarantined_at": timezone.now()},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**wrong)


@pytest.mark.parametrize("status", InstanceStatus)
def test_a_move_outside_of_the_table_is_refused(cast: Cast, status: InstanceStatus) -> None:
    instance = make_instance(cast.acme).instance
    moment = timezone.now() if status in ON_ITS_WAY_OUT else None
    Instance.objects.filter(pk=instance.pk).update(status=status, quarantined_at=moment)
    for to in set(InstanceStatus) - TRANSITIONS[status] - {status}:
        instance.refresh_from_db()
        with pytest.raises(ConflictError):
            instance_move(instance=instance, to=to, coming_from=set(InstanceStatus))


def test_suspended_instances_are_refused_first_and_stopped_then(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    operation = settle(services.instance_suspend(instance=instance, actor="test"))
    record = published(instance)
    assert record is not None
    assert (operation.state, record.status, record.desired) == ("succeeded", "suspended", "stopped")
    settle(services.instance_resume(instance=instance, actor="test"))
    record = published(instance)
    assert record is not None
    assert (record.status, record.desired) == ("active", "running")


def test_a_plan_change_is_published_at_once_with_blocks(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    before = published(instance)
    services.instance_change(instance=instance, plan="standard", blocks=3)
    after = published(instance)
    assert before is not None
    assert after is not None
    assert (after.limits.read, after.limits.write, after.limits.query) == (300, 150, 15)
    assert after.limits.storage_bytes == 20 * 2**30
    assert after.version > before.version
    assert after.generation == before.generation + 1
    assert after.status == "active"


def test_a_plan_change_starts_again_at_one_block(cast: Cast) -> None:
    instance = serving_instance(cast.acme, plan="standard", blocks=5)
    assert services.instance_change(instance=instance, plan="lite").blocks == 1


def test_an_allowlist_is_published_in_canonical_form(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    services.instance_change(instance=instance, allowlist=["10.0.0.0/8", "2001:DB8::/32"])
    record = published(instance)
    assert record is not None
    assert record.allowlist == ("10.0.0.0/8", "2001:db8::/32")


def test_a_protected_instance_is_not_deleted(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    assert instance.deletion_protected
    with pytest.raises(ConflictError) as refused:
        services.instance_delete(instance=instance, actor="test")
    assert (refused.value.status, refused.value.code) == (409, "deletion_protected")


def test_deleting_quarantines_and_undelete_brings_back(cast: Cast, settings: Any) -> None:
    instance = serving_instance(cast.acme, deletion_protected=False)
    settle(services.instance_delete(instance=instance, actor="test"))
    instance.refresh_from_db()
    record = published(instance)
    assert record is not None
    assert (record.status, record.desired) == ("quarantined", "stopped")
    assert instance.purge_after is not None
    assert instance.quarantined_at is not None
    assert instance.purge_after - instance.quarantined_at == settings.QUARANTINE_RETENTION
    with pytest.raises(ConflictError):
        services.instance_change(instance=instance, plan="standard")

    settle(services.instance_undelete(instance=instance, actor="test"))
    instance.refresh_from_db()
    record = published(instance)
    assert record is not None
    assert (record.status, record.desired) == ("active", "running")
    assert Instance.objects.filter(pk=instance.pk, purge_after=None, quarantined_at=None).exists()


def test_an_instance_is_purged_after_its_retention_and_not_before(cast: Cast) -> None:
    instance = serving_instance(cast.acme, deletion_protected=False)
    settle(services.instance_delete(instance=instance, actor="test"))
    assert services.instance_purge_due() == 0
    Instance.objects.update(purge_after=timezone.now() - timedelta(seconds=1))
    assert services.instance_purge_due() == 1
    assert services.instance_purge_due() == 0, "it is under way"
    purge = settle(Operation.objects.get(kind="purge"))
    assert purge.state == "succeeded"
    instance.refresh_from_db()
    assert instance.status == InstanceStatus.PURGED
    assert published(instance) is None
    assert Credential.objects.filter(instance=instance).count() == 0
    assert instance_list(tenant=cast.acme).count() == 0
    (event,) = asked_for().filter(tenant_id=cast.acme.pk)
    assert (event.action, event.initiator) == ("weftkit.instance.purge", "system")
    # The name is free again, and the old row stays for usage.
    assert make_instance(cast.acme).instance.pk != instance.pk


def test_an_instance_that_is_being_undeleted_is_not_purged(cast: Cast) -> None:
    instance = serving_instance(cast.acme, deletion_protected=False)
    settle(services.instance_delete(instance=instance, actor="test"))
    Instance.objects.update(purge_after=timezone.now() - timedelta(seconds=1))
    services.instance_undelete(instance=instance, actor="test")
    assert services.instance_purge_due() == 0


@pytest.mark.parametrize("engine", registry.names())
def test_connection_strings_come_from_the_engine(cast: Cast, settings: Any, engine: str) -> None:
    settings.PORT_OFFSET = 1000
    instance = make_instance(cast.acme, engine=engine).instance
    reach = connection_of(instance=instance, username="wk_u", password="wk_u_s")
    assert reach.port == registry.load(engine).port + 1000
    assert "wk_u_s" in (reach.one_liner if registry.load(engine).signs else reach.uri)
    assert f"{reach.host}:{reach.port}" in reach.uri


def test_a_purge_that_failed_is_begun_again(cast: Cast) -> None:
    instance = serving_instance(cast.acme, deletion_protected=False)
    settle(services.instance_delete(instance=instance, actor="test"))
    Instance.objects.update(purge_after=timezone.now() - timedelta(seconds=1))
    services.instance_purge_due()
    first = Operation.objects.get(kind="purge")
    operation_run(operation_id=first.pk)
    operation_reset(operation=first)
    instance.refresh_from_db()
    assert instance.status == InstanceStatus.PURGING
    assert services.instance_purge_due() == 1
    again = Operation.objects.filter(kind="purge").latest("created_at")
    assert settle(again).state == "succeeded"
    instance.refresh_from_db()
    assert instance.status == InstanceStatus.PURGED


def test_a_tenant_has_a_bounded_number_of_instances(cast: Cast, settings: Any) -> None:
    settings.INSTANCES_PER_TENANT_MAX = 2
    first = serving_instance(cast.acme, "a", deletion_protected=False)
    make_instance(cast.acme, "b")
    with pytest.raises(LimitError) as refused:
        make_instance(cast.acme, "c")
    assert (refused.value.status, refused.value.code) == (409, "limit")
    assert make_instance(cast.globex, "c").state == "scheduled"
    settle(services.instance_delete(instance=first, actor="test"))
    with pytest.raises(LimitError):
        make_instance(cast.acme, "c")
    Instance.objects.filter(pk=first.pk).update(status=InstanceStatus.PURGED)
    assert make_instance(cast.acme, "c").state == "scheduled"


def test_instances_made_at_the_same_moment_do_not_pass_the_bound(
    lasting_cast: Cast, settings: Any
) -> None:
    settings.INSTANCES_PER_TENANT_MAX = 2
    outcomes = side_by_side(
        *[lambda n=n: make_instance(lasting_cast.acme, f"i{n}") for n in range(4)]
    )
    assert sum(isinstance(outcome, LimitError) for outcome in outcomes) == 2
    assert Instance.objects.count() == 2


def test_no_two_tenants_can_want_the_same_handle(cast: Cast) -> None:
    make_instance(cast.acme, "b-c")
    assert Instance.objects.get().handle == "acme-b-c"
    assert Instance.objects.get().handle.partition("-")[0] == "acme"
    with pytest.raises(InvalidError):
        tenant_create(handle="acme-b")
