"""Roles and members: nobody gives more than they have, and an owner always stays."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from engines.kit.iam import Match, Operator, Policy, Scope
from tenants.accounts.actors import Actor
from tenants.accounts.invitations import invitation_create
from tenants.accounts.models import Invitation, MemberRole, Membership, User
from tenants.accounts.permissions import ACTIONS, ROLE_ACTIONS, role_allows, role_includes
from tenants.accounts.services import (
    member_change,
    member_remove,
    tenant_create,
)
from tenants.core.errors import ConflictError, ForbiddenError, InvalidError
from tests.tenants.cast import Cast, join, person, side_by_side

R = MemberRole
# action -> who may; one row for each action, so that a new one cannot be forgotten.
WHO: dict[str, set[MemberRole]] = {
    "api_keys.manage": {R.OWNER, R.ADMIN},
    "api_keys.read": {R.OWNER, R.ADMIN, R.AUDITOR},
    "audit.manage": {R.OWNER, R.ADMIN},
    "audit.read": {R.OWNER, R.ADMIN, R.AUDITOR},
    "backups.create": {R.OWNER, R.ADMIN, R.MEMBER},
    "backups.manage": {R.OWNER, R.ADMIN},
    "backups.read": {R.OWNER, R.ADMIN, R.MEMBER, R.AUDITOR, R.READ_ONLY},
    "backups.restore": {R.OWNER, R.ADMIN, R.MEMBER},
    "billing.read": {R.OWNER, R.ADMIN, R.BILLING, R.AUDITOR},
    "budgets.manage": {R.OWNER, R.ADMIN, R.BILLING},
    "credentials.create": {R.OWNER, R.ADMIN, R.MEMBER},
    "credentials.read": {R.OWNER, R.ADMIN, R.MEMBER, R.AUDITOR, R.READ_ONLY},
    "credentials.revoke": {R.OWNER, R.ADMIN, R.MEMBER},
    "credentials.rotate": {R.OWNER, R.ADMIN, R.MEMBER},
    "files.manage": {R.OWNER, R.ADMIN, R.MEMBER},
    "files.read": {R.OWNER, R.ADMIN, R.MEMBER, R.AUDITOR, R.READ_ONLY},
    "instances.create": {R.OWNER, R.ADMIN, R.MEMBER},
    "instances.delete": {R.OWNER, R.ADMIN},
    "instances.export": {R.OWNER, R.ADMIN, R.MEMBER},
    "instances.import": {R.OWNER, R.ADMIN, R.MEMBER},
    "instances.read": set(R),
    "instances.suspend": {R.OWNER, R.ADMIN, R.MEMBER},
    "instances.update": {R.OWNER, R.ADMIN, R.MEMBER},
    "members.manage": {R.OWNER, R.ADMIN},
    "members.read": {R.OWNER, R.ADMIN, R.MEMBER, R.AUDITOR, R.READ_ONLY},
    "notices.read": set(R),
    "operations.manage": {R.OWNER, R.ADMIN, R.MEMBER},
    "operations.read": {R.OWNER, R.ADMIN, R.MEMBER, R.AUDITOR, R.READ_ONLY},
    "operations.reset": {R.OWNER, R.ADMIN},
    "own_keys.manage": set(R),
    "owners.manage": {R.OWNER},
    "policies.manage": {R.OWNER, R.ADMIN},
    "policies.read": {R.OWNER, R.ADMIN, R.AUDITOR},
    "service_ids.manage": {R.OWNER, R.ADMIN},
    "service_ids.read": {R.OWNER, R.ADMIN, R.AUDITOR},
    "tenant.read": set(R),
    "tenant.update": {R.OWNER, R.ADMIN},
    "usage.read": set(R),
    "webhooks.manage": {R.OWNER, R.ADMIN},
    "webhooks.read": {R.OWNER, R.ADMIN, R.AUDITOR},
}


def test_every_action_has_its_row() -> None:
    assert set(WHO) == ACTIONS
    assert set(ROLE_ACTIONS) == set(MemberRole)


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_an_action_is_allowed_to_exactly_these_roles(action: str) -> None:
    assert {role for role in MemberRole if role_allows(role, action)} == WHO[action]


def test_a_role_includes_those_that_do_no_more() -> None:
    assert role_includes(R.OWNER, R.ADMIN)
    assert role_includes(R.MEMBER, R.READ_ONLY)
    assert not role_includes(R.ADMIN, R.OWNER)
    assert not role_includes(R.MEMBER, R.AUDITOR)


def test_a_tenants_handle_is_unique_and_well_formed(cast: Cast) -> None:
    with pytest.raises(ConflictError):
        tenant_create(handle="acme")
    for wrong in ("ab", "-acme", "Acme", "a_b_c", "x" * 31, "acme-corp"):
        with pytest.raises(InvalidError) as refused:
            tenant_create(handle=wrong)
        assert list(refused.value.fields) == ["handle"]


def test_an_address_signs_in_whatever_its_case(cast: Cast) -> None:
    assert cast.alice.email == "alice@example.org"
    assert User.objects.get_by_natural_key("ALICE@example.org") == cast.alice
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.filter(pk=cast.bob.pk).update(email="Bob@example.org")


def test_an_admin_cannot_make_owners_nor_touch_them(cast: Cast) -> None:
    admin = Actor(cast.acme, MemberRole.ADMIN, "user:admin@example.org")
    alices = Membership.objects.get(user=cast.alice)
    with pytest.raises(ForbiddenError):
        invitation_create(actor=admin, email="new@example.org", role=MemberRole.OWNER)
    with pytest.raises(ForbiddenError):
        member_change(actor=admin, membership=alices, role=MemberRole.MEMBER)
    with pytest.raises(ForbiddenError):
        member_remove(actor=admin, membership=alices)
    assert not Invitation.objects.exists()


def test_the_last_owner_can_neither_step_down_nor_leave(cast: Cast) -> None:
    alices = Membership.objects.get(user=cast.alice)
    with pytest.raises(ConflictError, match="at least one owner"):
        member_change(actor=cast.owner, membership=alices, role=MemberRole.ADMIN)
    with pytest.raises(ConflictError, match="at least one owner"):
        member_remove(actor=cast.owner, membership=alices)


def test_two_owners_who_leave_at_once_leave_one(lasting_cast: Cast) -> None:
    dora = join(lasting_cast.acme, person("dora"), MemberRole.OWNER)
    alices = Membership.objects.get(user=lasting_cast.alice)
    outcomes = side_by_side(
        lambda: member_remove(actor=lasting_cast.owner, membership=alices),
        lambda: member_remove(actor=lasting_cast.owner, membership=dora),
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "NoneType"]
    owners = Membership.objects.filter(tenant=lasting_cast.acme, role=MemberRole.OWNER)
    assert owners.count() == 1


def on(instance: str, *roles: str, tenant: Any) -> Policy:
    return Policy(
        str(tenant.pk), frozenset(roles), scope=Scope(instance=Match(instance, Operator.MATCHES))
    )


def test_an_actor_without_a_role_may_what_its_policies_say_where_they_say_it(cast: Cast) -> None:
    granted = (on("acme-dev-*", "Administrator", tenant=cast.acme),)
    actor = Actor(cast.acme, None, "key:x", granted)
    inside = actor.target(engine="relational", instance="acme-dev-1")
    assert actor.may("instances.delete", inside)
    assert not actor.may("instances.delete", actor.target(instance="acme-main"))
    assert not actor.may("instances.delete")
    assert not actor.may("owners.manage", inside)
    with pytest.raises(ForbiddenError):
        actor.demand("members.read")


def test_nobody_grants_more_than_they_hold(cast: Cast) -> None:
    dev = on("acme-dev-*", "Administrator", "Manager", tenant=cast.acme)
    for actor, expected in (
        (cast.owner, True),
        (Actor(cast.acme, R.ADMIN, "user:a"), True),
        (Actor(cast.acme, R.MEMBER, "user:b"), False),
        (Actor(cast.acme, None, "key:x", (dev,)), True),
        (Actor(cast.acme, None, "key:x", (on("acme-dev-1", "Manager", tenant=cast.acme),)), False),
        (Actor(cast.globex, R.OWNER, "user:c"), False),
    ):
        assert actor.may_grant(dev) is expected, actor
    with pytest.raises(ForbiddenError):
        Actor(cast.acme, None, "key:x", (dev,)).demand_may_grant(R.READ_ONLY)
