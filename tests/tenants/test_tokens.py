"""`/identity/token`: IBM's own SDK gets tokens, and they are worth what their key is worth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
import requests
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from jwt import PyJWKClient

from tenants.accounts.models import MemberRole
from tenants.audit.models import AuditEvent
from tenants.audit.services import Asked
from tenants.iam import signing, tokens
from tenants.iam.models import ApiKeySecret, RefreshToken, SigningKey
from tenants.iam.service_ids import service_id_create
from tenants.iam.services import (
    NewApiKey,
    api_key_change,
    api_key_create,
    api_key_reroll,
    api_key_revoke,
)
from tests.tenants.cast import Cast, side_by_side

HERE = "127.0.0.1"
FORM = "application/x-www-form-urlencoded"
APIKEY = {"grant_type": tokens.APIKEY_GRANT, "response_type": "cloud_iam"}


@pytest.fixture
def made(cast: Cast) -> NewApiKey:
    service = service_id_create(actor=cast.owner, name="deployer")
    return api_key_create(actor=cast.owner, name="ci", service=service)


def ask(client: Client, **fields: str) -> Any:
    body = "&".join(f"{name}={value}" for name, value in fields.items())
    return client.post("/identity/token", body, content_type=FORM)


def exchanged(client: Client, key: NewApiKey) -> dict[str, Any]:
    answer = ask(client, **APIKEY, apikey=key.token)
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def works(token: str, tenant: str = "acme") -> int:
    client = Client(headers={"Authorization": f"Bearer {token}"})
    return client.get(f"/api/v1/tenants/{tenant}").status_code


def test_ibms_sdk_gets_a_token_keeps_it_and_fetches_another_when_it_is_old(
    lasting_cast: Cast, live_server: Any, settings: Any
) -> None:
    key = api_key_create(actor=lasting_cast.owner, name="sdk", role=MemberRole.READ_ONLY)
    authenticator = IAMAuthenticator(key.token, url=live_server.url)
    first = authenticator.token_manager.get_token()
    assert authenticator.token_manager.get_token() == first
    assert works(first) == 200
    # The SDK takes a token for expired ten seconds before it is.
    settings.IAM_TOKEN_LIFE_S = 10
    brief = IAMAuthenticator(key.token, url=f"{live_server.url}/identity/token")
    second = brief.token_manager.get_token()
    third = brief.token_manager.get_token()
    assert len({first, second, third}) == 3
    assert works(third) == 200
    request: dict[str, Any] = {"headers": {}}
    brief.authenticate(request)
    answer = requests.get(f"{live_server.url}/api/v1/tenants/acme", timeout=30, **request)
    assert answer.json()["handle"] == "acme"
    api_key_revoke(api_key=key.api_key)
    assert works(third) == 401


def test_ibms_sdk_reads_the_refusal_of_a_wrong_key(lasting_cast: Cast, live_server: Any) -> None:
    authenticator = IAMAuthenticator("wk_abcdefghijkl_" + "0" * 32, url=live_server.url)
    with pytest.raises(ApiException) as refused:
        authenticator.token_manager.get_token()
    assert refused.value.status_code == 400
    body = json.loads(refused.value.http_response.text)
    assert body["errorCode"] == "BXNIM0415E"
    assert body["errorMessage"] == "Provided API key could not be found."
    assert body["context"]["requestId"] == refused.value.http_response.headers["X-Request-ID"]


def test_the_key_set_verifies_a_token_with_a_library_of_others(
    lasting_cast: Cast, live_server: Any
) -> None:
    service = service_id_create(actor=lasting_cast.owner, name="deployer")
    key = api_key_create(actor=lasting_cast.owner, name="ci", service=service)
    body = exchanged(Client(), key)
    keys = PyJWKClient(f"{live_server.url}/identity/keys")
    public = keys.get_signing_key_from_jwt(body["access_token"])
    claims = jwt.decode(body["access_token"], public, algorithms=["RS256"])
    assert claims["exp"] == body["expiration"]
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["iss"].endswith("/identity")
    assert claims["iam_id"] == f"iam-ServiceId-{service.pk}"
    assert (claims["sub"], claims["sub_type"]) == (f"ServiceId-{service.pk}", "ServiceId")
    assert claims["account"] == {"valid": True, "bss": lasting_cast.acme.pk.hex}
    assert claims["scope"] == body["scope"] == "ibm openid"
    assert body["token_type"] == "Bearer"
    assert 3590 <= body["expires_in"] <= 3600


def test_a_token_has_the_rights_of_its_key_and_no_others(client: Client, cast: Cast) -> None:
    reader = api_key_create(actor=cast.owner, name="r", role=MemberRole.READ_ONLY)
    token = exchanged(client, reader)["access_token"]
    assert works(token) == 200
    assert works(token, "globex") == 404
    bearer = Client(headers={"Authorization": f"Bearer {token}"})
    assert bearer.get("/api/v1/tenants/acme/api-keys").status_code == 403


def test_a_token_ends_with_its_key_its_secret_and_its_networks(
    client: Client, cast: Cast, made: NewApiKey
) -> None:
    api_key_change(api_key=made.api_key, changes={"cidrs": ["127.0.0.0/8"]})
    token = exchanged(client, made)["access_token"]
    assert works(token) == 403
    api_key_change(api_key=made.api_key, changes={"cidrs": ["198.51.100.0/24"]})
    assert works(token) == 401
    api_key_change(api_key=made.api_key, changes={"cidrs": [], "is_enabled": False})
    assert works(token) == 401
    api_key_change(api_key=made.api_key, changes={"is_enabled": True})
    assert works(token) == 403
    rerolled = api_key_reroll(actor=cast.owner, api_key=made.api_key, grace=timedelta(0))
    assert works(token) == 401
    newer = exchanged(client, rerolled)["access_token"]
    assert works(newer) == 403
    api_key_revoke(api_key=made.api_key)
    assert works(newer) == 401


def spoiled(token: str, settings: Any) -> Iterator[str]:
    header, payload, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    signer = signing.signer()
    headers = {"kid": signer.kid}
    yield f"{header}.{payload}."
    yield f"{header}.{payload}.{signature[:-4]}AAAA"
    yield jwt.encode(claims, None, algorithm="none", headers=headers)
    pem = SigningKey.objects.get().public_pem
    # The classic: the public key as an HMAC secret. Libraries refuse to make it; so by hand.
    yield jwt.encode(claims, "x" * 64, algorithm="HS256", headers=headers)
    assert pem.startswith("-----BEGIN PUBLIC KEY")
    yield jwt.encode(claims, signer.private, algorithm="RS256", headers={"kid": "another"})
    yield jwt.encode(claims, signer.private, algorithm="RS256")
    for change in (
        {"exp": claims["iat"] - 1},
        {"iss": "https://iam.example.org/identity"},
        {"weftkit": {**claims["weftkit"], "secret": "x"}},
        {"weftkit": {**claims["weftkit"], "key": "aaaaaaaaaaaa"}},
        {"weftkit": None},
    ):
        yield jwt.encode({**claims, **change}, signer.private, algorithm="RS256", headers=headers)
    yield "a.b.c"
    yield token + "x" * 9000


def test_anything_but_a_whole_token_of_ours_is_refused(
    client: Client, made: NewApiKey, settings: Any
) -> None:
    token = exchanged(client, made)["access_token"]
    assert works(token) == 403
    for wrong in spoiled(token, settings):
        assert works(wrong) == 401, wrong


def test_a_refresh_token_is_spent_by_use_and_kept_as_a_digest(
    client: Client, made: NewApiKey
) -> None:
    first = exchanged(client, made)
    assert first["refresh_token"] not in str(list(RefreshToken.objects.values_list()))
    again = {"grant_type": "refresh_token"}
    second = ask(client, **again, refresh_token=first["refresh_token"]).json()
    assert works(second["access_token"]) == 403
    assert second["refresh_token"] != first["refresh_token"]
    third = ask(client, **again, refresh_token=second["refresh_token"]).json()
    # The first one comes back: somebody else has it. Nobody goes on with this family.
    stolen = ask(client, **again, refresh_token=first["refresh_token"])
    assert (stolen.status_code, stolen.json()["errorCode"]) == (400, "BXNIM0407E")
    ended = ask(client, **again, refresh_token=third["refresh_token"])
    assert ended.json()["errorCode"] == "BXNIM0407E"
    assert works(third["access_token"]) == 403


def test_an_old_refresh_token_or_one_of_a_revoked_key_is_refused(
    client: Client, cast: Cast, made: NewApiKey
) -> None:
    again = {"grant_type": "refresh_token"}
    body = exchanged(client, made)
    RefreshToken.objects.update(expires_at=timezone.now())
    answer = ask(client, **again, refresh_token=body["refresh_token"])
    assert answer.json()["errorCode"] == "BXNIM0408E"
    assert answer.json()["errorMessage"] == "Provided refresh token is expired"
    assert tokens.refresh_tokens_sweep() == 1
    body = exchanged(client, made)
    api_key_revoke(api_key=made.api_key)
    answer = ask(client, **again, refresh_token=body["refresh_token"])
    assert answer.json()["errorCode"] == "BXNIM0407E"


def test_refreshing_does_not_go_on_for_ever(client: Client, made: NewApiKey) -> None:
    body = exchanged(client, made)
    ends_at = timezone.now() + timedelta(minutes=1)
    RefreshToken.objects.update(family_expires_at=ends_at)
    ask(client, grant_type="refresh_token", refresh_token=body["refresh_token"])
    newest = RefreshToken.objects.get(spent_at=None)
    assert newest.expires_at == newest.family_expires_at == ends_at


def test_refresh_tokens_are_bounded_in_number(
    client: Client, made: NewApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "REFRESH_TOKENS_PER_SECRET_MAX", 2)
    monkeypatch.setattr(tokens, "SPENT_PER_FAMILY_MAX", 1)
    bodies = [exchanged(client, made) for _ in range(3)]
    assert RefreshToken.objects.count() == 2
    again = {"grant_type": "refresh_token"}
    assert ask(client, **again, refresh_token=bodies[0]["refresh_token"]).status_code == 400
    body = bodies[2]
    for _ in range(3):
        body = ask(client, **again, refresh_token=body["refresh_token"]).json()
    assert RefreshToken.objects.exclude(spent_at=None).count() == 1


@pytest.mark.parametrize(
    ("fields", "status", "code", "details"),
    [
        ({}, 400, "BXNIM0109E", "Property 'grant_type' either missing or empty."),
        (APIKEY, 400, "BXNIM0109E", "Property 'apikey' either missing or empty."),
        ({**APIKEY, "apikey": "x%00y"}, 400, "BXNIM0415E", None),
        ({"grant_type": "password"}, 400, "WKIAM0001E", "Property 'grant_type': 'password'."),
        (
            {**APIKEY, "response_type": "delegated_refresh_token"},
            400,
            "WKIAM0001E",
            "Property 'response_type': 'delegated_refresh_token'.",
        ),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "BXNIM0407E", None),
        ({"grant_type": "a&grant_type=b"}, 400, "WKIAM0002E", "Property 'grant_type'."),
        ({"grant_type": "x" * 20_000}, 413, "WKIAM0004E", None),
        ({"grant_type": "x" * 5_000}, 413, "WKIAM0004E", None),
    ],
)
def test_refusals_are_worded_as_ibm_words_them(
    client: Client, db: None, fields: dict[str, str], status: int, code: str, details: str | None
) -> None:
    answer = ask(client, **fields)
    body = answer.json()
    assert (answer.status_code, body["errorCode"], body.get("errorDetails")) == (
        status,
        code,
        details,
    )
    assert body["errorMessage"]
    assert body["context"]["requestId"] == answer["X-Request-ID"]
    assert answer["Cache-Control"] == "no-store"


def test_other_methods_types_and_clients_are_refused(client: Client, made: NewApiKey) -> None:
    got = client.get("/identity/token")
    assert (got.status_code, got["Allow"], got.json()["errorCode"]) == (405, "POST", "BXNIM0060E")
    body = json.dumps({**APIKEY, "apikey": made.token})
    assert client.post("/identity/token", body, "application/json").status_code == 415
    for header, status in (("Basic Yng6Yng=", 200), ("Basic YTpi", 401), ("Bearer x", 401)):
        answer = Client(headers={"Authorization": header}).post(
            "/identity/token",
            f"grant_type={tokens.APIKEY_GRANT}&apikey={made.token}",
            content_type=FORM,
        )
        assert answer.status_code == status, header


def test_a_new_key_is_shown_before_it_signs_and_the_old_one_until_its_tokens_are_gone(
    client: Client, cast: Cast
) -> None:
    key = api_key_create(actor=cast.owner, name="r", role=MemberRole.READ_ONLY)
    token = exchanged(client, key)["access_token"]
    signing.signing_keys_rotate()
    assert SigningKey.objects.count() == 1
    old = SigningKey.objects.get()
    SigningKey.objects.update(signs_from=timezone.now() - signing.SIGNS_FOR)
    signing.signing_keys_rotate()
    signing.signing_keys_rotate()
    new = SigningKey.objects.exclude(pk=old.pk).get()
    shown = [item["kid"] for item in client.get("/identity/keys").json()["keys"]]
    assert shown == [new.kid, old.kid]
    assert signing.signer().kid == old.kid
    SigningKey.objects.filter(pk=new.pk).update(signs_from=timezone.now())
    assert signing.signer().kid == new.kid
    assert works(token) == 200
    old.refresh_from_db()
    assert old.forget_after is not None
    assert old.forget_after >= new.signs_from + timedelta(hours=1)
    SigningKey.objects.filter(pk=old.pk).update(forget_after=timezone.now())
    signing.signing_keys_rotate()
    assert [item["kid"] for item in client.get("/identity/keys").json()["keys"]] == [new.kid]
    assert works(token) == 401


def test_stolen_signing_keys_are_replaced_at_once(client: Client, cast: Cast) -> None:
    key = api_key_create(actor=cast.owner, name="r", role=MemberRole.READ_ONLY)
    token = exchanged(client, key)["access_token"]
    call_command("weftkit_rotate_signing_keys", "--at-once")
    assert works(token) == 401
    assert works(exchanged(client, key)["access_token"]) == 200


def test_the_private_half_is_not_readable_and_a_lost_secret_key_means_a_new_one(
    client: Client, made: NewApiKey, settings: Any
) -> None:
    exchanged(client, made)
    first = SigningKey.objects.get()
    assert "PRIVATE" not in first.private_sealed
    settings.SECRET_KEY = "another " * 8
    body = exchanged(client, made)
    assert jwt.get_unverified_header(body["access_token"])["kid"] != first.kid
    assert works(body["access_token"]) == 403


def test_processes_that_start_together_make_one_key(lasting_cast: Cast) -> None:
    kids = side_by_side(*[lambda: signing.signer().kid for _ in range(4)])
    assert len(set(map(str, kids))) == 1
    assert SigningKey.objects.count() == 1


def test_two_uses_of_one_refresh_token_at_once_never_both_succeed(lasting_cast: Cast) -> None:
    key = api_key_create(actor=lasting_cast.owner, name="r", role=MemberRole.READ_ONLY)
    made = tokens.tokens_for_key(api_key=key.token, asked=Asked(address=HERE))

    def use() -> tokens.Tokens:
        return tokens.tokens_refreshed(refresh_token=made.refresh_token, asked=Asked(address=HERE))

    outcomes = side_by_side(use, use)
    kinds = sorted(type(outcome).__name__ for outcome in outcomes)
    assert kinds == ["TokenRefusedError", "Tokens"]
    assert ApiKeySecret.objects.count() == 1


def test_each_exchange_leaves_its_event_and_a_tokens_changes_say_so(
    client: Client, cast: Cast
) -> None:
    key = api_key_create(actor=cast.owner, name="k", role=MemberRole.ADMIN)
    body = exchanged(client, key)
    ask(client, grant_type="refresh_token", refresh_token=body["refresh_token"])
    bearer = Client(headers={"Authorization": f"Bearer {body['access_token']}"})
    bearer.post("/api/v1/tenants/acme/service-ids", {"name": "x"}, "application/json")
    events = AuditEvent.objects.filter(tenant_id=cast.acme.pk).order_by("event_id")
    seen = [
        (event.body["action"], event.body["initiator"]["credential"]["type"]) for event in events
    ]
    assert seen == [
        ("weftkit.token.create", "apikey"),
        ("weftkit.token.create", "token"),
        ("weftkit.service-id.create", "token"),
    ]
    assert key.token not in str([event.body for event in events])


def test_one_key_is_exchanged_so_often_and_wrong_keys_are_tried_so_often(
    client: Client, cast: Cast, settings: Any
) -> None:
    settings.IAM_TOKENS_PER_MINUTE = 2
    key = api_key_create(actor=cast.owner, name="k", role=MemberRole.MEMBER)
    other = api_key_create(actor=cast.owner, name="o", role=MemberRole.MEMBER)
    answers = [ask(client, **APIKEY, apikey=key.token) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["errorCode"] == "WKIAM0005E"
    assert 1 <= int(answers[2]["Retry-After"]) <= 60
    assert RefreshToken.objects.count() == 2
    assert ask(client, **APIKEY, apikey=other.token).status_code == 200
    settings.API_QUOTAS = {**settings.API_QUOTAS, "address": (1, 3600)}
    wrong = [
        client.post(
            "/identity/token",
            f"grant_type={tokens.APIKEY_GRANT}&apikey=wk_x",
            content_type=FORM,
            REMOTE_ADDR="198.51.100.77",
        ).status_code
        for _ in range(2)
    ]
    assert wrong == [400, 429]
