"""What operations do to an instance, step by step (`operations/kinds.py` says in which order).

Each gets the instance with its row lock held. What changes the instance publishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from django.utils import timezone

from engines.kit.records import Desired
from tenants.instances.models import (
    Credential,
    CredentialSecret,
    DataFile,
    Instance,
    InstanceStatus,
)
from tenants.instances.plan_change import plan_assign
from tenants.instances.status import instance_desire, instance_move
from tenants.operations.job import Do, Job, StepError, Waiting
from tenants.publish.selectors import observed_get
from tenants.publish.services import record_publish, record_remove
from tenants.usage.models import Plan

_S = InstanceStatus


def _ask(desired: Desired) -> Callable[[Job], None]:
    """A step that tells the host what to make true, with a new generation."""

    def ask(job: Job) -> None:
        instance_desire(instance=job.instance, desired=desired)
        record_publish(instance=job.instance)

    return ask


ask_run = _ask(Desired.RUNNING)
ask_stop = _ask(Desired.STOPPED)
ask_absent = _ask(Desired.ABSENT)


def _server_is(*states: str) -> Do:
    """A step that waits until the host reports one of `states` for the newest generation."""

    def wait(job: Job) -> Waiting | None:
        observed = observed_get(instance_id=job.instance.pk)
        if observed is None or observed.generation < job.instance.generation:
            return Waiting()
        if observed.state in states:
            return None
        if observed.state == "failed":
            raise StepError("the instance's server failed to start or stop", code="server_failed")
        return Waiting()

    return wait


# A server sleeps only after it ran, so whoever looks late may find it asleep.
server_is_running = _server_is("running", "hibernated")
# What was never there has stopped too.
server_is_stopped = _server_is("stopped", "absent")
server_is_absent = _server_is("absent")
server_sleeps = _server_is("hibernated")


def _activate(*coming_from: InstanceStatus) -> Callable[[Job], None]:
    def activate(job: Job) -> None:
        _move(job.instance, _S.ACTIVE, coming_from)

    return activate


activate_new = _activate(_S.PROVISIONING)
activate_suspended = _activate(_S.SUSPENDED)
activate_quarantined = _activate(_S.QUARANTINED)


def ask_sleep(job: Job) -> None:
    """Have the host stop the server once nobody is connected; one that sleeps already sleeps on."""
    observed = observed_get(instance_id=job.instance.pk)
    sleeps = observed is not None and observed.state == "hibernated"
    if sleeps and observed is not None and observed.generation >= job.instance.generation:
        return
    instance_desire(instance=job.instance, desired=Desired.RUNNING)
    job.instance.sleep_generation = job.instance.generation
    job.instance.save(update_fields=["sleep_generation", "updated_at"])
    record_publish(instance=job.instance)


def forget_sleep(job: Job) -> None:
    """Once it has slept its plan's time counts again; no new generation, which would wake it."""
    if job.instance.sleep_generation:
        job.instance.sleep_generation = 0
        job.instance.save(update_fields=["sleep_generation", "updated_at"])
        record_publish(instance=job.instance)


def sleep_ended(job: Job, why: str) -> None:
    """A hibernation that failed or was cancelled must not happen later by itself."""
    forget_sleep(job)


def plan_is_assigned(job: Job) -> None:
    """`instance_scale` assigned it in the transaction that started the operation."""


def take_back_plan(job: Job) -> None:
    """Cancel: the old plan again."""
    _assign(job, job.params["old_plan_id"], int(job.params["old_blocks"]))


def assign_again(job: Job) -> None:
    """Retry: ask the host anew, also where the failed operation was undone."""
    if not _assign(job, job.params["plan_id"], int(job.params["blocks"])):
        instance_desire(instance=job.instance, desired=Desired(job.instance.desired))
        record_publish(instance=job.instance)


def host_has_followed(job: Job) -> Waiting | None:
    """Wait until the host has brought the server to the newest record, whatever it does."""
    observed = observed_get(instance_id=job.instance.pk)
    if observed is None or observed.generation < job.instance.generation:
        return Waiting()
    if observed.state == "failed":
        raise StepError("the instance's server failed to follow", code="server_failed")
    return Waiting() if observed.state == "starting" else None


def _assign(job: Job, plan_id: str, blocks: int) -> bool:
    changed = plan_assign(instance=job.instance, plan=Plan.objects.get(pk=plan_id), blocks=blocks)
    if changed:
        record_publish(instance=job.instance)
    return changed


def request_new(job: Job) -> None:
    """Provision, for the first time or again: the host gets a new generation to try."""
    instance_move(instance=job.instance, to=_S.PROVISIONING, coming_from={_S.FAILED})
    ask_run(job)


def provision_ended(job: Job, why: str) -> None:
    """A provision that failed or was cancelled leaves an instance that says so."""
    if job.instance.status == _S.PROVISIONING:
        _move(job.instance, _S.FAILED, {_S.PROVISIONING}, why)


def return_ended(job: Job, why: str) -> None:
    """A resume or undelete that failed leaves no server running that lets nobody in."""
    if job.instance.desired == Desired.RUNNING:
        ask_stop(job)


def close(job: Job) -> None:
    """Suspend: clients first, then the server."""
    instance_move(instance=job.instance, to=_S.SUSPENDED, coming_from={_S.ACTIVE})
    ask_stop(job)


def reopen(job: Job) -> None:
    """Take a suspension back; the data plane wakes the server if it stopped already."""
    instance_move(instance=job.instance, to=_S.ACTIVE, coming_from={_S.SUSPENDED})
    ask_run(job)


def quarantine(job: Job) -> None:
    """Delete: refuse clients, stop the server, keep the data until `purge_after`."""
    coming_from = {_S.PROVISIONING, _S.ACTIVE, _S.SUSPENDED, _S.FAILED}
    instance_move(instance=job.instance, to=_S.QUARANTINED, coming_from=coming_from)
    ask_stop(job)


def seal(job: Job) -> None:
    """Purge: from here there is no way back."""
    instance_move(instance=job.instance, to=_S.PURGING, coming_from={_S.QUARANTINED})
    ask_absent(job)


def forget(job: Job) -> None:
    """The data is gone: so go secrets, files and record. The row stays for usage and audit."""
    Credential.objects.filter(instance=job.instance).delete()
    DataFile.objects.filter(instance=job.instance).update(expires_at=timezone.now())
    instance_move(instance=job.instance, to=_S.PURGED, coming_from={_S.PURGING})
    record_remove(instance=job.instance)


def secret_is_issued(job: Job) -> None:
    """`credential_rotate` issued it in the transaction that started the operation."""


def take_back_secret(job: Job) -> None:
    """Cancel a rotation: the new secret goes, and the old one is the only one again."""
    secrets = CredentialSecret.objects.filter(credential_id=job.params["credential_id"])
    old = secrets.filter(pk=job.params["old_secret_id"], expires_at__gt=timezone.now())
    if not old.exists():
        raise StepError("the old secret has expired: it cannot be the only one", code="too_late")
    secrets.filter(pk=job.params["new_secret_id"]).delete()
    old.update(expires_at=None)
    record_publish(instance=job.instance)


def old_secret_has_expired(job: Job) -> Waiting | None:
    """Wait for the end of the grace period, which another rotation or a revocation may shorten."""
    old = CredentialSecret.objects.filter(pk=job.params["old_secret_id"]).first()
    if old is None or old.expires_at is None or old.expires_at <= timezone.now():
        return None
    return Waiting(until=old.expires_at)


def retire_secret(job: Job) -> None:
    """Drop the old secret if it has expired; it may be gone already."""
    expired = CredentialSecret.objects.filter(
        pk=job.params["old_secret_id"], expires_at__lte=timezone.now()
    )
    if expired.delete()[0]:
        record_publish(instance=job.instance)


def _move(
    instance: Instance, to: InstanceStatus, coming_from: Collection[InstanceStatus], why: str = ""
) -> None:
    instance_move(instance=instance, to=to, coming_from=coming_from, why=why)
    record_publish(instance=instance)
