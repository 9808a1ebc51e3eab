"""Instances that are schemas: their cell, and secrets that are derived and never stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from engines.kit import auth
from engines.kit.auth.sigv4 import access_secret
from engines.kit.records import Role
from tenants.core.errors import ConflictError, LimitError
from tenants.instances import cells
from tenants.instances.credentials import NewSecret, credential_create, credential_rotate
from tenants.instances.models import CredentialSecret, Instance
from tenants.instances.services import instance_hibernate, instance_wake
from tenants.operations.runner import operation_run
from tenants.operations.services import operation_cancel
from tests.tenants.cast import Cast, make_instance, published, settle


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return make_instance(cast.acme, engine="keyvalue").instance


def made(instance: Instance) -> NewSecret:
    return credential_create(instance=instance, actor="test", role=Role.WRITE)


def signing_secrets(instance: Instance) -> list[str]:
    """Return what a data plane would check signatures with, newest first."""
    record = published(instance)
    assert record is not None
    (credential,) = record.credentials
    now = timezone.now().timestamp()
    return [
        access_secret(django_settings.MASTER_KEY, credential.username, secret.access_version)
        for secret in auth.live_secrets(credential, now)
        if secret.access_version
    ]


def test_a_secret_is_derived_and_stands_nowhere(instance: Instance) -> None:
    new = made(instance)
    assert signing_secrets(instance) == [new.password]
    assert new.credential.username == f"wk_{new.credential.key_id}"
    assert not any(new.password in str(v) for v in CredentialSecret.objects.values_list().get())
    record = published(instance)
    assert record is not None
    assert new.password not in str(record.to_json())


def test_after_a_rotation_both_secrets_sign_until_the_grace_is_over(instance: Instance) -> None:
    first = made(instance)
    second = credential_rotate(credential=first.credential, actor="test", grace=timedelta(hours=1))
    assert first.password != second.password
    assert signing_secrets(instance) == [second.password, first.password]
    CredentialSecret.objects.filter(expires_at__isnull=False).update(expires_at=timezone.now())
    third = credential_rotate(credential=first.credential, actor="test", grace=timedelta(0))
    assert signing_secrets(instance) == [third.password]


def test_a_secret_whose_rotation_was_cancelled_is_never_issued_again(instance: Instance) -> None:
    first = made(instance)
    second = credential_rotate(credential=first.credential, actor="test")
    assert second.operation is not None
    operation_run(operation_id=second.operation.pk)
    operation_cancel(operation=second.operation)
    settle(second.operation)
    assert signing_secrets(instance) == [first.password]
    third = credential_rotate(credential=first.credential, actor="test")
    assert third.password not in (first.password, second.password)


def test_a_new_instance_goes_into_the_emptiest_cell(cast: Cast, settings: Any) -> None:
    settings.CELLS = ["east", "west"]
    found = [make_instance(cast.acme, f"i{n}", engine="keyvalue").instance.cell for n in range(4)]
    assert sorted(found) == ["east", "east", "west", "west"]
    assert make_instance(cast.acme, "sql").instance.cell == ""


def test_a_cell_that_is_full_takes_no_more(
    cast: Cast, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CELLS = ["east"]
    monkeypatch.setattr(cells, "SCHEMAS_MAX", 1)
    instance = make_instance(cast.acme, "one", engine="keyvalue").instance
    record = published(instance)
    assert record is not None
    assert (record.cell, record.schema) == ("east", f"wk_{instance.pk.hex}")
    with pytest.raises(LimitError):
        make_instance(cast.acme, "two", engine="keyvalue")


def test_what_has_no_server_cannot_sleep(instance: Instance) -> None:
    for ask in (instance_hibernate, instance_wake):
        with pytest.raises(ConflictError) as refused:
            ask(instance=instance, actor="test")
        assert refused.value.code == "engine_unsupported"
