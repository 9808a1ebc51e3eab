"""How often the API may be asked: what is told, what is refused, and with Redis away."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from tenants.accounts.models import MemberRole
from tenants.api import rate_limits
from tenants.api.rate_limits import Bucket, Quota
from tenants.core.models import uuid7
from tenants.iam.services import api_key_create
from tests.servers import RedisServer
from tests.tenants.cast import Cast, signed_in

ADDRESS = "/api/v1/tenants/acme"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(params=["shared", "alone"])
def kept(request: pytest.FixtureRequest, settings: Any) -> str:
    """Where the buckets are: in Redis, or in this process because Redis is away."""
    if request.param == "shared":
        server: RedisServer = request.getfixturevalue("redis")
        settings.REDIS_URL = server.url()
    else:
        settings.REDIS_URL = NOWHERE
    return str(request.param)


def key_client(cast: Cast) -> Client:
    token = api_key_create(actor=cast.owner, name="k", role=MemberRole.OWNER).token
    return Client(headers={"Authorization": f"Bearer {token}"})


def test_answers_tell_what_there_is_and_what_is_left(cast: Cast, settings: Any, kept: str) -> None:
    settings.API_QUOTAS = {"caller": (10, 3600), "tenant": (100, 3600), "address": (1, 3600)}
    client = key_client(cast)
    first, second = client.get(ADDRESS), client.get(ADDRESS)
    assert first["RateLimit-Policy"] == '"caller";q=10;w=3600, "tenant";q=100;w=3600'
    assert first["RateLimit"].startswith('"caller";r=9;t=36')
    assert second["RateLimit"].startswith('"caller";r=8;t=72')
    assert '"tenant";r=98;' in second["RateLimit"]


def test_one_too_many_is_refused_with_the_time_to_wait(
    cast: Cast, settings: Any, kept: str
) -> None:
    settings.API_QUOTAS = {"caller": (3, 3600), "tenant": (100, 3600), "address": (1, 3600)}
    client = key_client(cast)
    assert [client.get(ADDRESS).status_code for _ in range(3)] == [200] * 3
    refused = client.get(ADDRESS)
    assert refused.status_code == 429
    problem = refused.json()
    assert (problem["code"], problem["retryable"]) == ("too_many_requests", True)
    assert 0 < int(refused["Retry-After"]) <= 1200
    assert '"caller";r=0;' in refused["RateLimit"]
    # Somebody else is not in its way.
    assert signed_in(cast.bob).get(ADDRESS).status_code == 200


def test_all_keys_of_a_tenant_share_its_quota(cast: Cast, settings: Any, kept: str) -> None:
    settings.API_QUOTAS = {"caller": (100, 3600), "tenant": (4, 3600), "address": (1, 3600)}
    clients = [key_client(cast), key_client(cast)]
    answers = [clients[n % 2].get(ADDRESS).status_code for n in range(6)]
    assert answers == [200, 200, 200, 200, 429, 429]


def test_wrong_keys_of_one_address_are_counted(cast: Cast, settings: Any, kept: str) -> None:
    settings.API_QUOTAS = {"caller": (100, 60), "tenant": (100, 60), "address": (2, 3600)}
    stranger = Client(
        headers={"Authorization": "Bearer wk_nonononono_x"},
        REMOTE_ADDR=f"10.1.{uuid7().int % 250}.9",
    )
    answers = [stranger.get(ADDRESS).status_code for _ in range(3)]
    assert answers == [401, 401, 429]
    assert key_client(cast).get(ADDRESS).status_code == 200


@given(quota=st.integers(1, 50), asked=st.integers(1, 120))
def test_a_burst_gets_its_quota_and_no_more(redis: RedisServer, quota: int, asked: int) -> None:
    for url in (redis.url(), NOWHERE):
        buckets = rate_limits._shared(url)
        bucket = Bucket("caller", str(uuid7()), Quota(quota, 1_000_000))
        left = [buckets.take([bucket])[0] for _ in range(asked)]
        assert sum(n >= 0 for n in left) == min(quota, asked)
        assert left[: min(quota, asked)] == list(range(quota - 1, -1, -1))[: min(quota, asked)]


def test_a_refusal_takes_from_no_bucket(redis: RedisServer) -> None:
    for url in (redis.url(), NOWHERE):
        buckets = rate_limits._shared(url)
        small = Bucket("caller", str(uuid7()), Quota(1, 1_000_000))
        large = Bucket("tenant", str(uuid7()), Quota(5, 1_000_000))
        assert buckets.take([small, large])[::3] == [0, 4]
        assert [buckets.take([small, large])[0] for _ in range(3)] == [-1] * 3
        assert buckets.take([large])[0] == 3
