"""The data explorer's credentials: whose role they have, how they end, and who gets none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from engines.kit.records import Role
from tenants.accounts.models import MemberRole
from tenants.audit.models import AuditEvent
from tenants.console.explorer.access import KEYRING, access_of, access_sweep, role_of
from tenants.core.errors import ForbiddenError
from tenants.iam.actors import actor_of_user
from tenants.instances.models import Credential
from tests.tenants.cast import Cast, join, person, published, serving_instance, signed_in


@pytest.fixture(autouse=True)
def _fresh(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    KEYRING._kept.clear()


def test_one_gets_a_credential_of_ones_own_role_at_most(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    alice = actor_of_user(user=cast.alice, tenant="acme")
    assert role_of(alice, instance) is Role.ADMIN
    access = access_of(actor=alice, instance=instance, wanted=Role.READ)
    made = Credential.objects.get()
    assert (made.role, made.username) == ("read", access.username)
    assert made.expires_at is not None
    assert timedelta(minutes=14) < made.expires_at - timezone.now() <= timedelta(minutes=15)
    record = published(instance)
    assert record is not None
    assert access.username in {credential.username for credential in record.credentials}
    # The same one again, and another one for more.
    assert access_of(actor=alice, instance=instance, wanted=Role.READ) is access
    assert access_of(actor=alice, instance=instance, wanted=Role.ADMIN).role is Role.ADMIN
    assert AuditEvent.objects.filter(body__action="weftkit.credential.create").count() == 2


@pytest.mark.parametrize("role", [MemberRole.BILLING, MemberRole.AUDITOR])
def test_who_has_no_role_inside_gets_neither_credential_nor_tab(
    cast: Cast, role: MemberRole
) -> None:
    instance = serving_instance(cast.acme)
    join(cast.acme, erin := person("erin"), role)
    actor = actor_of_user(user=erin, tenant="acme")
    with pytest.raises(ForbiddenError):
        access_of(actor=actor, instance=instance, wanted=Role.READ)
    client = signed_in(erin)
    assert client.get("/t/acme/instances/acme-main/data").status_code == 403
    assert b"/instances/acme-main/data" not in client.get("/t/acme/instances/acme-main").content
    assert not Credential.objects.exists()


def test_the_sweep_revokes_those_whose_time_is_over_and_no_others(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    alice = actor_of_user(user=cast.alice, tenant="acme")
    for wanted in (Role.READ, Role.WRITE):
        access_of(actor=alice, instance=instance, wanted=wanted)
    past = timezone.now() - timedelta(seconds=1)
    Credential.objects.filter(role="read").update(expires_at=past)
    assert access_sweep() == 1
    assert access_sweep() == 0
    assert Credential.objects.get(role="read").revoked_at is not None
    assert Credential.objects.get(role="write").revoked_at is None
    page = signed_in(cast.alice).get("/t/acme/instances/acme-main/credentials").content.decode()
    assert Credential.objects.get(role="write").username in page
    assert Credential.objects.get(role="read").username not in page


def test_a_credential_of_the_explorer_is_no_first_step_and_no_users_to_connect_as(
    cast: Cast,
) -> None:
    instance = serving_instance(cast.acme)
    alice = actor_of_user(user=cast.alice, tenant="acme")
    access = access_of(actor=alice, instance=instance, wanted=Role.READ)
    client = signed_in(cast.alice)
    assert b"Create a credential</a>" in client.get("/t/acme/").content
    page = client.get("/t/acme/instances/acme-main").content.decode()
    assert access.username not in page
