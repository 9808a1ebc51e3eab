"""Every page asked by everyone, every endpoint asked with a key of everyone; and an outsider cannot
tell what is another's from what does not exist.

The pages are those that Django's resolver knows: a new one without a row fails here. Rows:

    TENANT_PAGES   below /t/<tenant>/: what Bob gets, for each method; Alice may all, Charlie finds
                   nothing, who is not signed in is asked to
    PERSONAL       of the person who is signed in: who is not is asked to
    OPEN           for everyone, with what must not be told
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.urls.converters import IntConverter

from tenants.console.urls import PAGES
from tenants.iam.actors import actor_of_user
from tenants.iam.services import api_key_create
from tests.tenants.cast import Cast, signed_in
from tests.tenants.test_api_isolation import ENDPOINTS, Endpoint, Scene, prepare, scene_of

# Stands for each answer but 401, 403 and 404: a form that is sent empty may be refused as a form.
MAY = 0
# Of a tenant's pages: "METHOD name", and what Bob gets.
TENANT_PAGES: dict[str, int] = {
    "GET audit": 403,
    "GET audit-data": 403,
    "GET audit-drains": 403,
    "GET audit-event": 403,
    "GET audit-integrity": 403,
    "GET billing": 403,
    "GET billing-budget": 403,
    "GET billing-budgets": 403,
    "GET billing-cost-report": 403,
    "GET billing-invoice": 403,
    "GET billing-invoice-csv": 403,
    "GET billing-invoices": 403,
    "GET billing-series": MAY,
    "GET billing-usage": MAY,
    "GET iam": 403,
    "GET iam-check": 403,
    "GET iam-key": 403,
    "GET iam-keys": 403,
    "GET iam-policies": 403,
    "GET iam-policy-new": 403,
    "GET iam-service-id": 403,
    "GET iam-service-key": 403,
    "GET instance": MAY,
    "GET instance-backups": MAY,
    "GET instance-credentials": MAY,
    "GET instance-credentials-rotate": MAY,
    "GET instance-data": MAY,
    "GET instance-metrics": MAY,
    "GET instance-new": MAY,
    "GET instance-operations": MAY,
    "GET instance-restore": MAY,
    "GET instance-series": MAY,
    "GET instance-settings": MAY,
    "GET instance-state": MAY,
    "GET instances": MAY,
    "GET members": MAY,
    "GET my-key": 404,
    "GET my-keys": MAY,
    "GET operation": MAY,
    "GET operations": MAY,
    "GET overview": MAY,
    "GET places": MAY,
    "POST audit-data": 403,
    "POST audit-drain": 403,
    "POST audit-drains": 403,
    "POST backup-delete": 403,
    "POST backup-verify": MAY,
    "POST billing-budget": 403,
    "POST billing-budgets": 403,
    "POST credential-revoke": MAY,
    "GET tenant-settings": 403,
    "GET webhook": 403,
    "GET webhooks": 403,
    "POST iam": 403,
    "POST iam-key": 403,
    "POST iam-keys": 403,
    "POST iam-policy": 403,
    "POST iam-policy-new": 403,
    "POST iam-service-id": 403,
    "POST iam-service-key": 403,
    "POST instance-backups": MAY,
    "POST instance-credentials": MAY,
    "POST instance-credentials-rotate": MAY,
    "POST instance-data": MAY,
    "POST instance-delete": 403,
    "POST instance-restore": MAY,
    "POST instance-new": MAY,
    "POST instance-price": MAY,
    "POST instance-resume": MAY,
    "POST instance-settings": MAY,
    "POST instance-settings-price": MAY,
    "POST instance-suspend": MAY,
    "POST instance-undelete": 403,
    "POST my-key": 404,
    "POST my-keys": MAY,
    "POST operation-cancel": MAY,
    "POST operation-reset": 403,
    "POST operation-retry": MAY,
    "POST invited": 403,
    "POST leave": MAY,
    "POST member": 403,
    "POST members": 403,
    "POST tenant-settings": 403,
    "POST webhook": 403,
    "POST webhook-redeliver": 403,
    "POST webhooks": 403,
}
# What is sent where an empty form asks for nothing that there is.
FORMS = {
    "POST audit-data": "handle=acme-main",
    "POST iam-key": "wish=revoke",
    "POST iam-service-id": "wish=delete",
    "POST member": "wish=remove",
    "POST my-key": "wish=revoke",
    "POST webhook": "wish=disable",
}
PERSONAL: tuple[str, ...] = (
    "console:home",
    "account_change_password",
    "account_email",
    "account_profile",
    "account_reauthenticate",
    "account_sessions",
    "account_set_password",
    "mfa_activate_totp",
    "mfa_add_webauthn",
    "mfa_deactivate_totp",
    "mfa_edit_webauthn",
    "mfa_generate_recovery_codes",
    "mfa_index",
    "mfa_list_webauthn",
    "mfa_reauthenticate",
    "mfa_reauthenticate_webauthn",
    "mfa_remove_webauthn",
    "mfa_view_recovery_codes",
    "socialaccount_connections",
)
OPEN: tuple[str, ...] = (
    "account_confirm_email",
    "account_email_verification_sent",
    "account_inactive",
    "account_login",
    "account_logout",
    "account_reset_password*",
    "account_signup",
    "mfa_authenticate",
    "mfa_login_webauthn",
    "openid_connect_*",
    "socialaccount_login_*",
    "socialaccount_signup",
    "api:*",  # test_api_isolation.py has the rows of these
    "console:invitation",
    "console:sign-in",
    "console:sign-out",
    "healthz",
    "identity-keys",
    "identity-token",
    "oidc/token",
    "readyz",
)
SIGN_IN = "/sign-in"
TOKEN = re.compile(rb'name="csrfmiddlewaretoken" value="\w+"|"X-CSRFToken": *"\w+"')


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def scene(cast: Cast) -> Scene:
    return scene_of(cast)


@contextmanager
def undone() -> Iterator[None]:
    """Take back what happens inside, so that one scene serves many questions."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def page_ask(scene: Scene, client: Client, row: str, **other: Any) -> Any:
    method, name = row.split()
    route = "<:tenant>" + next(address for address, known, _ in PAGES if known == name)
    return client.generic(
        method,
        scene.address(f"console:{name}", route, **other),
        data=FORMS.get(row, ""),
        content_type="application/x-www-form-urlencoded",
    )


def everywhere(patterns: Any = None, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Yield every address that Django's resolver knows, by its name or else its route."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            below = f"{prefix}{pattern.namespace}:" if pattern.namespace else prefix
            yield from everywhere(pattern.url_patterns, below)
        else:
            assert isinstance(pattern, URLPattern)
            yield prefix + (pattern.name or str(pattern.pattern)), pattern


def methods_of(view: type) -> Iterator[str]:
    return (method.upper() for method in ("get", "post") if hasattr(view, method))


def test_every_address_has_a_rule() -> None:
    known = (*OPEN, *PERSONAL, *(f"console:{name}" for _, name, _ in PAGES))
    without = [name for name, _ in everywhere() if not any(fnmatch(name, row) for row in known)]
    assert without == []


def test_every_method_of_every_page_of_a_tenant_has_a_rule() -> None:
    served = {f"{method} {name}" for _, name, view in PAGES for method in methods_of(view)}
    assert served == TENANT_PAGES.keys()


def test_alice_may_all_pages_and_bob_those_of_his_role(scene: Scene) -> None:
    alice, bob = signed_in(scene.cast.alice), signed_in(scene.cast.bob)
    wrong = {}
    for row, bobs in TENANT_PAGES.items():
        for who, client, wanted in (("alice", alice, MAY), ("bob", bob, bobs)):
            with undone():
                status = page_ask(scene, client, row).status_code
            assert status < 500, row
            if wanted != (status if status in (401, 403, 404) else MAY):
                wrong[f"{who}: {row}"] = status
    assert wrong == {}


def test_charlie_finds_no_page_of_acme_and_nothing_of_it_through_his_own(scene: Scene) -> None:
    charlie = signed_in(scene.cast.charlie)
    wrong = {}
    for row in TENANT_PAGES:
        with undone():
            if (status := page_ask(scene, charlie, row).status_code) != 404:
                wrong[row] = status
        with undone():
            through = page_ask(scene, charlie, row, tenant="globex")
        if through.status_code >= 500 or b"acme" in through.content:
            wrong[f"{row} of globex"] = through.status_code
    assert wrong == {}


def test_a_page_asks_who_is_not_signed_in_to_do_so_and_takes_no_key(scene: Scene) -> None:
    token = api_key_create(actor=scene.cast.owner, name="k", is_own=True).token
    for client in (Client(), Client(headers={"Authorization": f"Bearer {token}"})):
        for row in TENANT_PAGES:
            answer = page_ask(scene, client, row)
            assert answer.status_code == 302, row
            assert answer.headers["Location"].startswith(SIGN_IN), row


def test_pages_of_a_person_ask_who_is_not_signed_in_to_do_so(scene: Scene) -> None:
    wrong = {}
    for name, pattern in everywhere():
        if any(fnmatch(name, row) for row in PERSONAL):
            things = {
                key: 1 if isinstance(kind, IntConverter) else uuid4()
                for key, kind in pattern.pattern.converters.items()
            }
            answer = Client().get(reverse(name, kwargs=things))
            if answer.status_code != 302 or not answer.headers["Location"].startswith(SIGN_IN):
                wrong[name] = answer.status_code
    assert wrong == {}


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_members_own_key_may_what_the_member_may(scene: Scene, who: str) -> None:
    actor = actor_of_user(user=getattr(scene.cast, who), tenant="acme")
    token = api_key_create(actor=actor, name="own", is_own=True).token
    client = Client(headers={"Authorization": f"Bearer {token}"})
    kept = dict(scene.arguments)
    wrong = {}
    for endpoint in ENDPOINTS:
        with undone():
            prepare(scene, endpoint.prepare)
            status = scene.ask(client, endpoint).status_code
        scene.arguments = dict(kept)
        scene.instance.refresh_from_db()
        if status != getattr(endpoint, who):
            wrong[str(endpoint)] = status
    assert wrong == {}


def test_what_is_anothers_answers_byte_for_byte_as_what_does_not_exist(scene: Scene) -> None:
    charlie = Client(headers={"X-Request-ID": "the-same-each-time"})
    charlie.force_login(scene.cast.charlie)
    unknown = {
        key: uuid4() if isinstance(value, UUID) else value for key, value in scene.arguments.items()
    } | {"instance": "acme-none"}
    wrong = {}
    for question in [*ENDPOINTS, *TENANT_PAGES]:
        told = [
            _told(_ask(scene, charlie, question, **other))
            for other in ({}, {"tenant": "zcme"}, {**unknown, "tenant": "zcme"})
        ]
        if told.count(told[0]) != len(told):
            wrong[f"{question}: tenant"] = told
        told = [
            _told(_ask(scene, charlie, question, **other))
            for other in ({"tenant": "globex"}, {**unknown, "tenant": "globex"})
        ]
        if told[0][0] == 404 and told[0] != told[1]:
            wrong[f"{question}: thing"] = told
    assert wrong == {}


def _ask(scene: Scene, client: Client, question: Endpoint | str, **other: Any) -> Any:
    with undone():
        if isinstance(question, str):
            return page_ask(scene, client, question, **other)
        return scene.ask(client, question, **other)


def _told(answer: Any) -> tuple[int, dict[str, str], bytes]:
    """Return all of an answer but what differs between any two: forms' masked tokens, rates."""
    body = b"".join(answer) if answer.streaming else answer.content
    varying = ("RateLimit", "Set-Cookie")
    headers = {name: value for name, value in answer.headers.items() if name not in varying}
    return answer.status_code, headers, TOKEN.sub(b"", body)
