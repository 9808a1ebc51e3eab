"""Credentials: shown once, stored as digests, two live secrets, gone within the transaction."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from engines.kit import auth, records
from tenants.core.errors import ConflictError, InvalidError
from tenants.instances import credentials
from tenants.instances.credentials import NewSecret, credential_create, credential_rotate
from tenants.instances.models import Credential, CredentialSecret, Instance
from tenants.operations.models import Operation
from tenants.operations.runner import operation_run
from tenants.operations.services import operation_cancel, operation_reap, operation_retry
from tests.tenants.cast import Cast, make_instance, published, settle, side_by_side


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return make_instance(cast.acme).instance


def record_of(credential: Credential) -> records.Credential:
    record = published(credential.instance)
    assert record is not None
    return next(c for c in record.credentials if c.key_id == credential.key_id)


def opens(credential: Credential, password: str) -> bool:
    """Say whether a data plane would let this password in now."""
    now = timezone.now().timestamp()
    peppers = django_settings.PEPPERS
    return auth.verify_password(record_of(credential), password, peppers, now) is not None


def made(instance: Instance, **fields: Any) -> NewSecret:
    return credential_create(
        instance=instance, actor="test", **{"role": records.Role.WRITE, **fields}
    )


def test_a_new_credential_opens_the_door_and_leaves_no_secret_behind(instance: Instance) -> None:
    new = made(instance, cidrs=["10.1.0.0/16"])
    assert auth.parse_password(new.password) == new.credential.key_id
    assert new.credential.username == f"wk_{new.credential.key_id}"
    assert opens(new.credential, new.password)
    assert not opens(new.credential, new.password[:-1] + "!")
    stored = CredentialSecret.objects.values_list().get()
    assert new.password not in str(stored)
    record = record_of(new.credential)
    assert (record.role, record.cidrs) == ("write", ("10.1.0.0/16",))


def test_after_a_rotation_both_secrets_open_until_the_grace_is_over(instance: Instance) -> None:
    first = made(instance)
    second = credential_rotate(credential=first.credential, actor="test")
    assert opens(first.credential, first.password)
    assert opens(first.credential, second.password)
    secrets = record_of(first.credential).secrets
    assert len(secrets) == 2
    assert len({secret.scram.salt for secret in secrets}) == 1, "one salt serves both"
    CredentialSecret.objects.filter(expires_at__isnull=False).update(expires_at=timezone.now())
    assert second.operation is not None
    settle(second.operation)
    assert not opens(first.credential, first.password)
    assert opens(first.credential, second.password)
    assert CredentialSecret.objects.count() == 1


def test_a_rotation_keeps_the_iterations_that_were_asked_for(instance: Instance) -> None:
    first = made(instance, scram_iterations=1)
    second = credential_rotate(credential=first.credential, actor="test")
    verifiers = [secret.scram for secret in record_of(first.credential).secrets]
    assert [verifier.iterations for verifier in verifiers] == [1, 1]
    assert opens(first.credential, second.password)
    salt = base64.b64decode(verifiers[0].salt)
    assert verifiers[0] == auth.make_scram(second.password, salt, 1)


@pytest.mark.parametrize("iterations", [0, -1, 100_001])
def test_iterations_out_of_range_are_refused(instance: Instance, iterations: int) -> None:
    with pytest.raises(InvalidError) as refused:
        made(instance, scram_iterations=iterations)
    assert "scram_iterations" in refused.value.fields


def test_a_third_secret_ends_the_first_at_once(instance: Instance) -> None:
    first = made(instance)
    second = credential_rotate(credential=first.credential, actor="test")
    third = credential_rotate(credential=first.credential, actor="test")
    assert not opens(first.credential, first.password)
    assert opens(first.credential, second.password)
    assert opens(first.credential, third.password)
    assert second.operation is not None
    assert settle(second.operation).state == "succeeded", (
        "the first rotation has nothing to wait for"
    )


def test_the_database_holds_no_third_secret(instance: Instance) -> None:
    new = made(instance)
    credential_rotate(credential=new.credential, actor="test")
    for slot in (0, 1, 2):
        secret = CredentialSecret.objects.first()
        assert secret is not None
        secret.pk, secret.slot, secret._state.adding = None, slot, True
        with pytest.raises(IntegrityError), transaction.atomic():
            secret.save(force_insert=True)


def test_rotations_at_once_leave_two_secrets_that_both_open(lasting_cast: Cast) -> None:
    new = made(make_instance(lasting_cast.acme).instance)
    outcomes = side_by_side(
        *[lambda: credential_rotate(credential=new.credential, actor="test") for _ in range(3)]
    )
    assert all(isinstance(outcome, NewSecret) for outcome in outcomes)
    opening = [
        o for o in outcomes if isinstance(o, NewSecret) and opens(new.credential, o.password)
    ]
    assert len(opening) == 2


def test_a_rotation_waits_without_a_worker_until_its_time(instance: Instance) -> None:
    new = made(instance)
    rotated = credential_rotate(credential=new.credential, actor="test", grace=timedelta(hours=2))
    operation = rotated.operation
    assert operation is not None
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.lease_token) == ("running", None)
    assert operation.run_after > timezone.now() + timedelta(hours=1)
    Operation.objects.exclude(pk=operation.pk).delete()
    assert operation_reap() == 0


def test_a_cancelled_rotation_leaves_the_old_secret_alone(instance: Instance) -> None:
    old = made(instance)
    rotated = credential_rotate(credential=old.credential, actor="test")
    assert rotated.operation is not None
    operation_run(operation_id=rotated.operation.pk)
    operation_cancel(operation=rotated.operation)
    assert settle(rotated.operation).state == "cancelled"
    assert opens(old.credential, old.password)
    assert not opens(old.credential, rotated.password)
    assert [secret.expires_at for secret in record_of(old.credential).secrets] == [None]


def test_a_rotation_that_is_cancelled_before_any_worker_has_looked_is_taken_back(
    instance: Instance,
) -> None:
    old = made(instance)
    rotated = credential_rotate(credential=old.credential, actor="test")
    assert rotated.operation is not None
    operation_cancel(operation=rotated.operation)
    assert settle(rotated.operation).state == "cancelled"
    assert opens(old.credential, old.password)
    assert not opens(old.credential, rotated.password)


def test_a_rotation_that_cannot_be_cancelled_any_more_can_be_ended_and_done_again(
    instance: Instance,
) -> None:
    old = made(instance)
    rotated = credential_rotate(credential=old.credential, actor="test")
    assert rotated.operation is not None
    CredentialSecret.objects.filter(pk=rotated.operation.params["old_secret_id"]).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    operation_cancel(operation=rotated.operation)
    ended = settle(rotated.operation)
    assert (ended.state, ended.error_code) == ("failed", "too_late")
    assert opens(old.credential, rotated.password), "nobody is locked out"
    assert settle(operation_retry(operation=ended)).state == "succeeded"
    third = credential_rotate(credential=old.credential, actor="test")
    assert opens(old.credential, third.password)


def test_a_revoked_credential_is_out_of_the_record_at_once(instance: Instance) -> None:
    new = made(instance)
    credentials.credential_revoke(credential=new.credential)
    credentials.credential_revoke(credential=new.credential)
    record = published(instance)
    assert record is not None
    assert record.credentials == ()
    assert CredentialSecret.objects.count() == 0
    with pytest.raises(ConflictError) as refused:
        credential_rotate(credential=new.credential, actor="test")
    assert refused.value.code == "credential_revoked"


def test_expiry_is_in_the_record_so_that_no_publication_is_needed(instance: Instance) -> None:
    moment = timezone.now() + timedelta(hours=1)
    new = made(instance, expires_at=moment)
    assert record_of(new.credential).expires_at == moment.timestamp()


def test_an_expiry_in_the_past_is_refused(instance: Instance) -> None:
    with pytest.raises(InvalidError) as refused:
        made(instance, expires_at=timezone.now() - timedelta(seconds=1))
    assert list(refused.value.fields) == ["expires_at"]


def test_the_sweep_drops_expired_secrets_and_publishes_once(instance: Instance) -> None:
    new = made(instance)
    credential_rotate(credential=new.credential, actor="test", grace=timedelta(0))
    before = published(instance)
    assert credentials.secret_sweep() == 1
    assert credentials.secret_sweep() == 0
    after = published(instance)
    assert before is not None
    assert after is not None
    assert after.version == before.version + 1
    assert len(record_of(new.credential).secrets) == 1


def test_an_instance_in_quarantine_gets_no_credential(instance: Instance) -> None:
    Instance.objects.update(status="quarantined", quarantined_at=timezone.now())
    with pytest.raises(ConflictError) as refused:
        credential_create(instance=instance, actor="test", role=records.Role.READ)
    assert refused.value.code == "instance_status"
