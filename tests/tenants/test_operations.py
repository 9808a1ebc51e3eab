"""Operations: they end, whatever is killed, raced, cancelled, retried or reset on the way."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from tenants.core.errors import ConflictError, LockedError
from tenants.instances.models import Instance, InstanceStatus
from tenants.instances.services import (
    instance_delete,
    instance_hibernate,
    instance_resume,
    instance_scale,
    instance_suspend,
    instance_undelete,
    instance_wake,
)
from tenants.operations import kinds, runner, services
from tenants.operations.job import Job
from tenants.operations.models import Operation, OperationState, StepState
from tenants.operations.runner import operation_run
from tenants.webhooks.models import WebhookEndpoint, WebhookEvent
from tests.servers import wait_until
from tests.tenants.cast import (
    Cast,
    make_instance,
    published,
    report,
    serving_instance,
    settle,
    side_by_side,
)


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    """A run that has to wait parks at once; tests of waiting give it patience again."""
    settings.OPERATION_WAIT_IN_TASK_S = 0


def steps_of(operation: Operation) -> dict[str, str]:
    return {step.name: step.state for step in operation.steps.all()}


def leave_to_a_dead_worker(operation: Operation) -> None:
    """Leave what SIGKILL leaves: a running operation, a lease that ran out, an old heartbeat."""
    past = timezone.now() - timedelta(seconds=30)
    Operation.objects.filter(pk=operation.pk).update(
        state=OperationState.RUNNING,
        lease_token=uuid.uuid4(),
        lease_until=past,
        heartbeat_at=past,
        run_after=past,
    )


def test_provision_asks_the_host_waits_for_it_and_activates(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    record = published(operation.instance)
    assert record is not None
    assert (record.status, record.desired, record.generation) == ("provisioning", "running", 1)
    assert (operation.state, operation.progress_done) == ("running", 1)
    assert operation.lease_token is None, "a parked operation holds no worker"

    report(operation.instance)
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert operation.state == "succeeded"
    assert (operation.progress_done, operation.progress_total) == (3, 3)
    record = published(operation.instance)
    assert record is not None
    assert record.status == "active"


def test_a_server_that_fell_asleep_before_anybody_looked_did_run(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    operation_run(operation_id=operation.pk)
    report(operation.instance, "hibernated")
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert operation.state == OperationState.SUCCEEDED


def test_a_report_of_an_older_generation_does_not_count(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    operation = instance_suspend(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    instance.refresh_from_db()
    report(instance, "stopped", generation=instance.generation - 1)
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert operation.state == "running"


def test_a_waiting_run_goes_on_as_soon_as_the_host_notifies(
    lasting_cast: Cast, settings: Any
) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 30
    operation = make_instance(lasting_cast.acme)

    def work() -> None:
        try:
            operation_run(operation_id=operation.pk)
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()

    def is_waiting() -> bool:
        return steps_of(operation)["server"] == StepState.RUNNING

    wait_until(is_waiting, "the operation waits for the host", 10)
    report(operation.instance)
    worker.join(10)
    operation.refresh_from_db()
    assert operation.state == "succeeded"


def test_two_starts_at_once_leave_one_operation_and_one_refusal_that_names_it(
    lasting_cast: Cast,
) -> None:
    instance = serving_instance(lasting_cast.acme)
    outcomes = side_by_side(
        *[lambda: instance_suspend(instance=instance, actor="test") for _ in range(4)]
    )
    started = [o for o in outcomes if isinstance(o, Operation)]
    refused = [o for o in outcomes if isinstance(o, LockedError)]
    assert (len(started), len(refused)) == (1, 3)
    assert {error.extra["operation_id"] for error in refused} == {str(started[0].pk)}
    assert all(error.status == 423 and error.retryable for error in refused)


def test_the_database_itself_refuses_a_second_exclusive_operation(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    with pytest.raises(IntegrityError), transaction.atomic():
        Operation.objects.create(
            tenant=cast.acme,
            instance=operation.instance,
            kind="suspend",
            actor="test",
            progress_total=2,
            deadline_at=timezone.now(),
        )


def test_two_workers_never_run_one_operation_at_once(lasting_cast: Cast) -> None:
    operation = make_instance(lasting_cast.acme)
    side_by_side(*[lambda: operation_run(operation_id=operation.pk) for _ in range(4)])
    operation.instance.refresh_from_db()
    # Each run of the first step would have raised the generation.
    assert operation.instance.generation == 1


def test_an_operation_of_a_killed_worker_goes_on_from_its_first_unfinished_step(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    operation_run(operation_id=operation.pk)
    leave_to_a_dead_worker(operation)
    report(operation.instance)
    assert services.operation_reap() == 1
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.takeovers) == ("succeeded", 1)
    operation.instance.refresh_from_db()
    assert operation.instance.generation == 1, "the finished step was not done again"


def test_an_operation_with_a_living_worker_is_left_alone(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    Operation.objects.filter(pk=operation.pk).update(
        state=OperationState.RUNNING,
        lease_token=uuid.uuid4(),
        lease_until=timezone.now() + timedelta(seconds=10),
        run_after=timezone.now() - timedelta(minutes=1),
    )
    assert services.operation_reap() == 0
    operation_run(operation_id=operation.pk)
    assert steps_of(operation)["request"] == StepState.PENDING


def test_a_worker_that_lost_its_lease_writes_nothing_more(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    token = runner._claim(operation.pk)
    assert token is not None
    services.operation_reset(operation=operation)
    with pytest.raises(runner.LeaseLostError):
        runner._advance(operation.pk, token)
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "reset")


def test_an_operation_whose_workers_keep_dying_fails(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    leave_to_a_dead_worker(operation)
    Operation.objects.filter(pk=operation.pk).update(takeovers=services.TAKEOVERS_MAX)
    services.operation_reap()
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "no_heartbeat")
    operation.instance.refresh_from_db()
    assert operation.instance.status == InstanceStatus.FAILED


@pytest.mark.parametrize("by", ["reaper", "worker"])
def test_an_operation_past_its_deadline_fails_and_its_instance_says_so(cast: Cast, by: str) -> None:
    operation = make_instance(cast.acme)
    operation_run(operation_id=operation.pk)
    Operation.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))
    if by == "reaper":
        services.operation_reap()
    else:
        operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "deadline")
    operation.instance.refresh_from_db()
    assert operation.instance.status == InstanceStatus.FAILED
    assert operation.instance.status_detail == "provision failed: it took too long"


def test_a_lost_message_is_sent_again_and_not_over_and_over(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    assert services.operation_reap() == 0, "a fresh message may still be on its way"
    Operation.objects.update(run_after=timezone.now() - timedelta(seconds=6))
    assert services.operation_reap() == 1
    assert services.operation_reap() == 0
    operation.refresh_from_db()
    assert operation.state == "scheduled"


def test_a_server_that_fails_fails_the_operation_and_a_retry_goes_on_from_there(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    operation_run(operation_id=operation.pk)
    report(operation.instance, "failed")
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "server_failed")
    assert steps_of(operation) == {"request": "done", "server": "failed", "activate": "pending"}
    operation.instance.refresh_from_db()
    assert operation.instance.status == InstanceStatus.FAILED

    services.operation_retry(operation=operation)
    operation.refresh_from_db()
    assert (operation.state, operation.attempt) == ("scheduled", 2)
    operation.instance.refresh_from_db()
    assert operation.instance.status == InstanceStatus.PROVISIONING
    assert operation.instance.generation == 2, "the host is asked anew"
    assert settle(operation).state == "succeeded"


def test_only_a_failed_operation_with_none_after_it_can_be_retried(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    provision = Operation.objects.get(kind="provision")
    with pytest.raises(ConflictError, match="is succeeded"):
        services.operation_retry(operation=provision)
    suspend = instance_suspend(instance=instance, actor="test")
    services.operation_reset(operation=suspend)
    assert instance_suspend(instance=instance, actor="test").state == "scheduled"
    with pytest.raises(ConflictError, match="newer operation"):
        services.operation_retry(operation=suspend)


def test_cancelling_undoes_what_was_done_in_reverse(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    operation = instance_suspend(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    instance.refresh_from_db()
    assert instance.status == InstanceStatus.SUSPENDED
    assert services.operation_cancel(operation=operation).state == "cancelling"
    assert settle(operation).state == "cancelled"
    assert steps_of(operation) == {"close": "undone", "server": "pending"}
    instance.refresh_from_db()
    assert (instance.status, instance.desired) == ("active", "running")


def test_a_cancelled_provision_leaves_a_failed_instance_that_can_be_resumed(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    operation_run(operation_id=operation.pk)
    services.operation_cancel(operation=operation)
    assert settle(operation).state == "cancelled"
    instance = operation.instance
    instance.refresh_from_db()
    assert (instance.status, instance.desired) == ("failed", "absent")
    again = instance_resume(instance=instance, actor="test")
    assert again.kind == "provision"
    assert settle(again).state == "succeeded"
    instance.refresh_from_db()
    assert instance.status == InstanceStatus.ACTIVE


def test_what_has_ended_or_has_no_way_back_cannot_be_cancelled(cast: Cast) -> None:
    instance = serving_instance(cast.acme, deletion_protected=False)
    with pytest.raises(ConflictError, match="has succeeded"):
        services.operation_cancel(operation=Operation.objects.get(kind="provision"))
    delete = instance_delete(instance=instance, actor="test")
    with pytest.raises(ConflictError, match="cannot be cancelled"):
        services.operation_cancel(operation=delete)


def test_reset_frees_the_instance_for_the_next_operation(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    stuck = instance_suspend(instance=instance, actor="test")
    operation_run(operation_id=stuck.pk)
    services.operation_reset(operation=stuck)
    instance.refresh_from_db()
    assert settle(instance_resume(instance=instance, actor="test")).state == "succeeded"


def test_an_idempotency_key_names_one_operation(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    first = instance_suspend(instance=instance, actor="test", idempotency_key="k1")
    assert instance_suspend(instance=instance, actor="test", idempotency_key="k1") == first
    settle(first)
    instance.refresh_from_db()
    assert instance_suspend(instance=instance, actor="test", idempotency_key="k1") == first
    with pytest.raises(ConflictError) as refused:
        instance_resume(instance=instance, actor="test", idempotency_key="k1")
    assert refused.value.code == "idempotency_key_reused"


def test_another_tenants_key_is_another_key(cast: Cast) -> None:
    ours, theirs = serving_instance(cast.acme), serving_instance(cast.globex)
    first = instance_suspend(instance=ours, actor="test", idempotency_key="k1")
    assert instance_suspend(instance=theirs, actor="test", idempotency_key="k1") != first


def test_an_operation_that_does_not_fit_the_status_is_refused(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    with pytest.raises(ConflictError) as refused:
        instance_resume(instance=instance, actor="test")
    assert refused.value.code == "instance_status"
    assert Operation.objects.filter(kind="resume").count() == 0


# Their steps work on more than the instance; test_credentials, _transfers and _backups have them.
OTHER_TABLES = {"rotate", "purge", "export", "import", "backup", "clone", "restore", "verify"}
STEPS = [(kind, step.name) for kind, spec in kinds.KINDS.items() for step in spec.steps]


@pytest.mark.parametrize(("kind", "name"), [s for s in STEPS if s[0] not in OTHER_TABLES])
def test_every_step_stands_being_done_twice(cast: Cast, kind: str, name: str) -> None:
    before = {"provision": "provisioning", "resume": "suspended", "undelete": "quarantined"}
    says = "hibernated" if kind == "hibernate" else ""
    instance = serving_instance(cast.acme)
    moment = timezone.now() if kind == "undelete" else None
    Instance.objects.filter(pk=instance.pk).update(
        status=before.get(kind, "active"), quarantined_at=moment
    )
    for step in kinds.KINDS[kind].steps:
        for _ in range(2 if step.name == name else 1):
            instance = Instance.objects.select_for_update().get(pk=instance.pk)
            assert step.do(Job(instance)) is None
            report(instance, says)
    wanted = {"delete": "quarantined", "suspend": "suspended"}.get(kind, "active")
    instance.refresh_from_db()
    assert instance.status == wanted


@pytest.mark.parametrize("kind", ["resume", "undelete"])
def test_a_return_that_fails_leaves_no_server_running(cast: Cast, kind: str) -> None:
    instance = serving_instance(cast.acme, deletion_protected=False)
    away = instance_suspend if kind == "resume" else instance_delete
    settle(away(instance=instance, actor="test"))
    back = instance_resume if kind == "resume" else instance_undelete
    operation = back(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    instance.refresh_from_db()
    assert instance.desired == "running"
    services.operation_reset(operation=operation)
    instance.refresh_from_db()
    assert (instance.desired, instance.status) in (
        ("stopped", "suspended"),
        ("stopped", "quarantined"),
    )
    services.operation_retry(operation=operation)
    assert settle(operation).state == "succeeded"
    instance.refresh_from_db()
    assert (instance.desired, instance.status) == ("running", "active")


def test_an_idempotency_key_is_free_again_once_its_operation_is_old(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    first = settle(instance_suspend(instance=instance, actor="test", idempotency_key="k"))
    settle(instance_resume(instance=instance, actor="test"))
    assert services.operation_keys_forget(before=first.created_at) == 0
    assert services.operation_keys_forget(before=timezone.now()) == 1
    second = instance_suspend(instance=instance, actor="test", idempotency_key="k")
    assert second != first
    assert services.operation_keys_forget(before=timezone.now()) == 0, "it still runs"


def test_hibernate_tells_the_host_and_lets_the_plan_decide_afterwards(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    operation = instance_hibernate(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    record = published(instance)
    assert record is not None
    assert record.sleep_generation == record.generation > instance.generation
    report(instance, "running")
    operation_run(operation_id=operation.pk)
    assert steps_of(operation)["server"] == "running", "somebody is connected"
    report(instance, "hibernated")
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert operation.state == "succeeded"
    after = published(instance)
    assert after is not None
    assert (after.sleep_generation, after.generation) == (0, record.generation)
    again = instance_hibernate(instance=instance, actor="test")
    operation_run(operation_id=again.pk)
    again.refresh_from_db()
    assert again.state == "succeeded", "it sleeps already"
    wake = instance_wake(instance=instance, actor="test")
    assert settle(wake).state == "succeeded"
    instance.refresh_from_db()
    assert instance.generation == record.generation + 1, "a newer generation wakes"


def test_a_hibernation_that_does_not_come_to_pass_does_not_come_later(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    operation = instance_hibernate(instance=instance, actor="test")
    operation_run(operation_id=operation.pk)
    services.operation_reset(operation=operation)
    record = published(instance)
    assert record is not None
    assert record.sleep_generation == 0


def test_scale_changes_the_plan_at_once_and_ends_when_the_host_has_followed(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    operation = instance_scale(instance=instance, actor="test", plan="standard", blocks=3)
    record = published(instance)
    assert record is not None
    assert (record.plan, record.limits.read) == ("standard", 300)
    operation_run(operation_id=operation.pk)
    assert steps_of(operation) == {"assign": "done", "server": "running"}
    assert settle(operation).state == "succeeded"


@pytest.mark.parametrize("was_run", [True, False])
def test_a_cancelled_scale_goes_back_to_the_old_plan(cast: Cast, was_run: bool) -> None:
    instance = serving_instance(cast.acme)
    operation = instance_scale(instance=instance, actor="test", plan="standard", blocks=3)
    if was_run:
        operation_run(operation_id=operation.pk)
    services.operation_cancel(operation=operation)
    assert settle(operation).state == "cancelled"
    record = published(instance)
    assert record is not None
    assert (record.plan, record.limits.read) == ("lite", 20)


def test_scale_refuses_a_plan_into_which_the_data_do_not_fit(cast: Cast) -> None:
    instance = serving_instance(cast.acme, plan="standard")
    with connections["default"].cursor() as cursor:
        cursor.execute("UPDATE publish.observed SET storage_bytes = %s", [2 * 2**30])
    with pytest.raises(ConflictError) as refused:
        instance_scale(instance=instance, actor="test", plan="lite")
    assert refused.value.code == "plan_too_small"
    assert not Operation.objects.filter(kind="scale").exists()


def test_the_end_of_an_operation_is_told_to_webhooks(cast: Cast) -> None:
    WebhookEndpoint.objects.create(
        tenant=cast.acme, url="https://example.org/hook", created_by="test"
    )
    operation = make_instance(cast.acme)
    settle(operation)
    event = WebhookEvent.objects.get(type="operation.ended")
    assert (event.data["operation_id"], event.data["kind"], event.data["state"]) == (
        str(operation.pk),
        "provision",
        "succeeded",
    )
