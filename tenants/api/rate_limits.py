"""How often the REST API may be asked: by one key or person, by one tenant, by one address.

The generic cell rate algorithm: a bucket is one time in Redis, "when it would be empty again", and
asking costs a step of it. All web processes share the buckets through one script, one round trip
for all that a request is counted against. While Redis is away each process counts for itself.

Headers after draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what there is,
`RateLimit` how much of it is left; 429 with Retry-After when nothing is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import redis
import structlog
from django.conf import settings
from rest_framework.request import Request

from tenants.core.errors import TooManyError
from tenants.iam.models import ApiKey

log = structlog.get_logger(__name__)

PREFIX = "weftkit:api:"
REDIS_SECONDS_MAX = 0.25
# After a failure Redis is not asked for so long, so that requests do not wait for it one by one.
AWAY_SECONDS = 5.0
LOCAL_BUCKETS_MAX = 50_000

# KEYS: buckets. ARGV: for each its quota and window in microseconds. Nothing is taken from any if
# one is exhausted. Answers for each: how many are left (-1: refused), microseconds until one more
# is there, microseconds until all are.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local empty_at, answers, refused = {}, {}, false
for i = 1, #KEYS do
    local quota, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local step = window / quota
    local at = math.max(tonumber(redis.call('GET', KEYS[i]) or now), now) + step
    empty_at[i] = at
    if at - now > window + 1 then
        refused = true
        answers[#answers + 1] = -1
        answers[#answers + 1] = math.ceil(at - now - window)
        answers[#answers + 1] = math.ceil(at - step - now)
    else
        answers[#answers + 1] = math.floor((window - (at - now)) / step + 1e-6)
        answers[#answers + 1] = 0
        answers[#answers + 1] = math.ceil(at - now)
    end
end
if not refused then
    for i = 1, #KEYS do
        local keep = math.ceil((empty_at[i] - now) / 1000)
        redis.call('SET', KEYS[i], string.format('%.0f', empty_at[i]), 'PX', math.max(keep, 1))
    end
end
return answers
"""


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in so many seconds; unused ones do not add up beyond that."""

    requests: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Whose requests are counted: `name` is shown, `key` is not."""

    name: str
    key: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bucket stands after a request. Times in seconds; `wait_s` is 0 for who may go on."""

    bucket: Bucket
    left: int
    wait_s: float
    full_in_s: float

    @property
    def is_refused(self) -> bool:
        return self.left < 0


def quota_of(name: str) -> Quota:
    """Return the quota of a kind of bucket (settings.API_QUOTAS)."""
    requests, seconds = settings.API_QUOTAS[name]
    return Quota(requests, seconds)


def address_bucket(request: Request) -> Bucket:
    """Return whose requests are counted while it is not known who asks."""
    address = str(request.META.get("REMOTE_ADDR", ""))
    return Bucket("address", f"address:{address}", quota_of("address"))


def caller_of(request: Request) -> str:
    """Return who asks, `key:<id>` or `user:<id>`; "" for nobody."""
    if isinstance(request.auth, ApiKey):
        return f"key:{request.auth.pk}"
    return f"user:{request.user.pk}" if request.user.is_authenticated else ""


def buckets_of(request: Request) -> list[Bucket]:
    """Return what a signed-in request counts against: its key and the key's tenant, or a person."""
    caller = caller_of(request)
    if not caller:
        return [address_bucket(request)]
    counted = [Bucket("caller", caller, quota_of("caller"))]
    if isinstance(request.auth, ApiKey):
        key = f"tenant:{request.auth.tenant_id}"
        counted.append(Bucket("tenant", key, quota_of("tenant")))
    return counted


def take(buckets: Sequence[Bucket]) -> tuple[Standing, ...]:
    """Count one request against every bucket, or against none if one of them is exhausted."""
    answers = _shared(settings.REDIS_URL).take(buckets) if buckets else []
    return tuple(
        Standing(bucket, answers[3 * i], answers[3 * i + 1] / 1e6, answers[3 * i + 2] / 1e6)
        for i, bucket in enumerate(buckets)
    )


def demand(standings: Sequence[Standing]) -> None:
    """Refuse what is too often. Raises TooManyError with the time to wait."""
    refused = [standing for standing in standings if standing.is_refused]
    if refused:
        longest = max(refused, key=lambda standing: standing.wait_s)
        quota = longest.bucket.quota
        raise TooManyError(
            f"at most {quota.requests} requests in {quota.seconds} s by one {longest.bucket.name}",
            retry_after_s=math.ceil(longest.wait_s),
        )


def headers_of(standings: Sequence[Standing]) -> Mapping[str, str]:
    """Return the answer's headers."""
    if not standings:
        return {}
    policies = ", ".join(
        f'"{s.bucket.name}";q={s.bucket.quota.requests};w={s.bucket.quota.seconds}'
        for s in standings
    )
    left = ", ".join(
        f'"{s.bucket.name}";r={max(s.left, 0)};t={int(s.full_in_s) + 1}' for s in standings
    )
    return {"RateLimit-Policy": policies, "RateLimit": left}


class _Buckets:
    """Redis' buckets, and this process' own for when it is away."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=REDIS_SECONDS_MAX, socket_connect_timeout=REDIS_SECONDS_MAX
        )
        self._script = self._redis.register_script(TAKE)
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._local: dict[str, float] = {}

    def take(self, buckets: Sequence[Bucket]) -> list[int]:
        if time.monotonic() >= self._away_until:
            arguments = [n for b in buckets for n in (b.quota.requests, b.quota.seconds * 10**6)]
            try:
                return list(self._script(keys=[PREFIX + b.key for b in buckets], args=arguments))
            except redis.RedisError as error:
                log.warning("limits of the API are counted locally", error=str(error))
                self._away_until = time.monotonic() + AWAY_SECONDS
        with self._lock:
            return self._take_locally(buckets)

    def _take_locally(self, buckets: Sequence[Bucket]) -> list[int]:
        """Do what the script does, in microseconds as well."""
        now = time.monotonic() * 1e6
        if len(self._local) > LOCAL_BUCKETS_MAX:
            self._local = {key: at for key, at in self._local.items() if at > now}
        answers: list[int] = []
        ends: dict[str, float] = {}
        for bucket in buckets:
            window = bucket.quota.seconds * 1e6
            step = window / bucket.quota.requests
            at = max(self._local.get(bucket.key, now), now) + step
            ends[bucket.key] = at
            if at - now > window + 1:
                answers += [-1, int(at - now - window) + 1, int(at - step - now) + 1]
            else:
                answers += [int((window - (at - now)) / step + 1e-6), 0, int(at - now) + 1]
        if -1 not in answers[::3]:
            self._local.update(ends)
        return answers


@cache
def _shared(url: str) -> _Buckets:
    return _Buckets(url)
