"""The decision about rights: against an independent matcher, and what holds for any policies."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engines.kit import iam
from engines.kit.iam import (
    Match,
    Operator,
    PlatformRole,
    Policy,
    Scope,
    ServiceRole,
    Target,
    wildcards,
)
from engines.kit.iam.vocabulary import CLOUDANT_PREFIX
from engines.kit.records import Role

STAR = Match("*", Operator.MATCHES)
# A small alphabet, so that things meet.
TEXT = st.text("ab-/*?é\n", max_size=8)
NAME = st.text("ab-", min_size=1, max_size=4)
PATTERN = st.text("ab-*?", max_size=6)
CATALOGUE = {"low": frozenset({"read"}), "high": frozenset({"read", "write"})}
ROLES = st.frozensets(st.sampled_from(["low", "high", "unknown"]), max_size=2)
ACTIONS = st.frozensets(st.sampled_from(["read", "write", "drop"]), max_size=2)
TENANT = st.sampled_from(["acme", "globex"])
MATCH = st.one_of(
    st.builds(Match, NAME),
    st.builds(Match, PATTERN, st.just(Operator.MATCHES)),
)
SCOPE = st.builds(Scope, *[st.none() | MATCH] * 4)
POLICY = st.builds(Policy, TENANT, ROLES, ACTIONS, SCOPE)
POLICIES = st.lists(POLICY, max_size=5)
TARGET = st.builds(Target, TENANT, *[NAME | st.just("")] * 4)
ACTION = st.sampled_from(["read", "write", "drop"])


def as_regex(pattern: str) -> str:
    signs = {"*": ".*", "?": "."}
    return "".join(signs.get(sign) or re.escape(sign) for sign in pattern)


@given(PATTERN | TEXT, TEXT)
@example("*", "")
@example("?", "*")
@example("a*b?", "aabba")
def test_wildcards_match_what_a_regular_expression_matches(pattern: str, text: str) -> None:
    expected = re.fullmatch(as_regex(pattern), text, re.DOTALL) is not None
    assert wildcards.matches(pattern, text) is expected


@given(PATTERN, PATTERN, TEXT)
@example("?*", "*", "")
@example("*?", "?*", "a")
def test_a_pattern_that_includes_another_matches_all_of_its_texts(
    pattern: str, other: str, text: str
) -> None:
    if wildcards.includes(pattern, other) and wildcards.matches(other, text):
        assert wildcards.matches(pattern, text)


def test_a_pattern_includes_itself_and_what_is_narrower() -> None:
    for pattern, other, expected in (
        ("*", "prod-*", True),
        ("prod-*", "prod-*-eu", True),
        ("prod-*", "prod-?", True),
        ("prod-?", "prod-*", False),
        ("prod-*", "*", False),
        ("*-eu", "prod-*", False),
        ("", "", True),
    ):
        assert wildcards.includes(pattern, other) is expected, (pattern, other)


def test_a_long_pattern_of_stars_takes_no_time() -> None:
    assert not wildcards.matches("*a" * 100, "a" * 99)


@given(POLICIES, POLICY, ACTION, TARGET)
def test_another_policy_never_takes_a_right_away(
    policies: list[Policy], more: Policy, action: str, target: Target
) -> None:
    if iam.decide(policies, action, target, CATALOGUE).is_allowed:
        assert iam.decide([more, *policies], action, target, CATALOGUE).is_allowed
        assert iam.decide([*policies, more], action, target, CATALOGUE).is_allowed


@given(POLICIES, ACTION, TARGET)
def test_a_right_comes_from_a_policy_of_that_tenant_that_has_the_action_and_covers_the_target(
    policies: list[Policy], action: str, target: Target
) -> None:
    def covers(match: Match | None, text: str) -> bool:
        if match is None:
            return True
        if match.operator is Operator.EQUALS:
            return bool(text) and match.value == text
        return bool(text) and re.fullmatch(as_regex(match.value), text) is not None

    expected = [
        policy
        for policy in policies
        if policy.tenant == target.tenant
        and (action in policy.actions or any(action in CATALOGUE.get(r, ()) for r in policy.roles))
        and covers(policy.scope.engine, target.engine)
        and covers(policy.scope.instance, target.instance)
        and covers(policy.scope.kind, target.kind)
        and covers(policy.scope.name, target.name)
    ]
    decision = iam.decide(policies, action, target, CATALOGUE)
    assert decision.is_allowed is bool(expected)
    assert decision.policy == (expected[0] if expected else None)


@given(st.lists(POLICY.filter(lambda p: p.tenant == "acme"), max_size=5), ACTION, TARGET)
def test_no_policy_of_one_tenant_grants_anything_in_another(
    policies: list[Policy], action: str, target: Target
) -> None:
    if target.tenant != "acme":
        assert not iam.decide(policies, action, target, CATALOGUE).is_allowed


@settings(max_examples=300)
@given(POLICIES, POLICY, ACTION, TARGET)
def test_who_may_grant_a_policy_may_do_all_that_it_allows(
    policies: list[Policy], wanted: Policy, action: str, target: Target
) -> None:
    is_wanted = iam.decide([wanted], action, target, CATALOGUE).is_allowed
    if is_wanted and iam.includes(policies, wanted, CATALOGUE):
        assert iam.decide(policies, action, target, CATALOGUE).is_allowed


@given(POLICIES, POLICY)
def test_one_may_always_grant_what_one_was_granted(policies: list[Policy], mine: Policy) -> None:
    assert iam.includes([*policies, mine], mine, CATALOGUE)


def test_a_star_for_instances_is_not_the_tenant_itself() -> None:
    policy = Policy("acme", actions=frozenset({"read"}), scope=Scope(instance=STAR))
    assert iam.decide([policy], "read", Target("acme", "relational", "a"), {}).is_allowed
    assert not iam.decide([policy], "read", Target("acme"), {}).is_allowed
    assert not iam.decide([policy], "read", Target("acme", "relational"), {}).is_allowed


def test_what_is_narrower_in_each_attribute_may_be_granted_and_nothing_wider() -> None:
    dev = Match("dev-*", Operator.MATCHES)
    held = Scope(engine=Match("relational"), instance=dev)
    for wanted, expected in (
        (held, True),
        (Scope(engine=Match("relational"), instance=Match("dev-1")), True),
        (Scope(Match("relational"), dev, Match("database"), Match("x")), True),
        (Scope(engine=Match("relational")), False),
        (Scope(instance=dev), False),
        (Scope(), False),
        (Scope(engine=STAR, instance=dev), False),
        (Scope(engine=Match("inmemory"), instance=dev), False),
        (Scope(engine=Match("relational"), instance=STAR), False),
    ):
        assert held.includes(wanted) is expected, wanted
    assert not Scope(instance=STAR).includes(Scope())


def test_cloudants_table_is_ibms() -> None:
    """Rows picked from the documentation, one for each set of roles."""
    for action, roles in {
        "account-all-dbs.read": "Manager Monitor Reader Writer",
        "any-document.read": "Manager Reader Writer",
        "iam-session.delete": "Manager Reader Writer",
        "data-document.write": "Manager Writer",
        "local-document.write": "Manager Writer Monitor Checkpointer",
        "database-ensure-full-commit.execute": "Manager Writer Checkpointer",
        "database.delete": "Manager",
        "database-shards.read": "Manager Monitor",
        "capacity-throughput.read": "Administrator Editor Manager Monitor Operator Viewer",
        "capacity-throughput.write": "Administrator Editor Manager",
        "activity-tracker-event-types.read": "Administrator Editor Manager Operator Reader Writer"
        " Viewer",
        "activity-tracker-event-types.write": "Administrator Manager Operator",
        "sapi.userplan": "Administrator Editor Manager Operator Viewer",
        "sapi.usercors": "Administrator Manager",
        "account-deleted-dbs.list": "Manager Monitor",
    }.items():
        assert iam.SERVICE_ACTIONS[CLOUDANT_PREFIX + action] == set(roles.split()), action


def test_a_manager_holds_all_that_writers_hold_and_a_writer_all_that_readers_hold() -> None:
    held = iam.ROLE_ACTIONS
    assert held[ServiceRole.MANAGER] > held[ServiceRole.WRITER] > held[ServiceRole.READER]


@pytest.mark.parametrize("engine", ["relational", "inmemory", "cloudant", "document"])
@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (ServiceRole.MANAGER, Role.ADMIN),
        (ServiceRole.WRITER, Role.WRITE),
        (ServiceRole.READER, Role.READ),
        (ServiceRole.MONITOR, None),
        (ServiceRole.CHECKPOINTER, None),
        (PlatformRole.ADMINISTRATOR, None),
    ],
)
def test_a_service_role_becomes_a_role_inside_the_instance(
    engine: str, role: str, expected: Role | None
) -> None:
    target = Target("acme", engine, "acme-main")
    policies = (Policy("acme", frozenset({role})),)
    assert iam.data_role(policies, target) is expected


def test_the_strongest_role_of_all_policies_counts_and_only_where_it_holds() -> None:
    def policy(role: str, instance: str) -> Policy:
        scope = Scope(instance=Match(instance, Operator.MATCHES))
        return Policy("acme", frozenset({role}), scope=scope)

    policies = (policy("Reader", "*"), policy("Manager", "acme-dev-*"), policy("Writer", "*-dev-*"))
    for handle, expected in (
        ("acme-dev-1", Role.ADMIN),
        ("other-dev-1", Role.WRITE),
        ("acme-main", Role.READ),
    ):
        assert iam.data_role(policies, Target("acme", "relational", handle)) is expected
    assert iam.data_role(policies, Target("globex", "relational", "acme-dev-1")) is None


def test_a_policy_on_a_database_gives_no_role_on_the_instance() -> None:
    scope = Scope(kind=Match("database"), name=Match("orders"))
    policies = (Policy("acme", frozenset({ServiceRole.MANAGER}), scope=scope),)
    assert iam.data_role(policies, Target("acme", "cloudant", "acme-main")) is None
    action = CLOUDANT_PREFIX + "data-document.write"
    inside = Target("acme", "cloudant", "acme-main", "database", "orders")
    assert iam.decide(policies, action, inside, iam.ROLE_ACTIONS).is_allowed
    other = Target("acme", "cloudant", "acme-main", "database", "payroll")
    assert not iam.decide(policies, action, other, iam.ROLE_ACTIONS).is_allowed
