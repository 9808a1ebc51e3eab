"""Units per second over all workers: leased in small lots from one window in Redis.

A bucket (one instance and request class in this worker) spends what it has leased without asking.
How much it asks for follows its own pace: one unit for slow traffic, up to `lease_size` for fast,
so that units which idle workers hold stay a small part of the limit. A refusal is remembered until
the moment that the window named. Without Redis each worker keeps a window of its own over its share
of the limit, and looks again for Redis after `AWAY_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.exceptions import RedisError

from dataplane.observe import metrics
from dataplane.observe.log import get_logger
from engines.kit.errors import RequestError, rate_error
from engines.kit.limits import LEASE_SCRIPT, Window, lease_size
from engines.kit.ports import RequestClass, Wait

# The limits' own database of the system Redis (celery has 0, channels 1).
REDIS_DATABASE = 2
REDIS_CONNECTIONS_MAX = 16
# A request waits no longer than this for units; then this worker decides alone.
LEASE_SECONDS_MAX = 0.25
AWAY_SECONDS = 1.0
# A leased unit is worth as long as the window counts it.
HELD_SECONDS = 1.0
# Leases that follow each other this closely may grow.
FAST_SECONDS = 0.1


# However much was taken unasked.
OWED_SECONDS_MAX = 60.0


class CommonWindow:
    """The window in Redis."""

    def __init__(self, url: str, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        pool = BlockingConnectionPool.from_url(
            # A database named in the URL would win over ours.
            url.split("?", 1)[0],
            db=REDIS_DATABASE,
            max_connections=REDIS_CONNECTIONS_MAX,
            timeout=LEASE_SECONDS_MAX,
            socket_timeout=LEASE_SECONDS_MAX,
            socket_connect_timeout=LEASE_SECONDS_MAX,
        )
        self._redis = Redis(connection_pool=pool)
        self._script = self._redis.register_script(LEASE_SCRIPT)
        self._away_until = 0.0
        self._log = get_logger("leases")

    @property
    def is_away(self) -> bool:
        """True for a while after Redis did not answer."""
        return self._monotonic() < self._away_until

    async def lease(
        self, key: str, limit: int, *, needed: int, wanted: int
    ) -> tuple[int, float] | None:
        """Return (granted units, seconds to wait if none); None if Redis does not answer."""
        if self.is_away:
            return None
        started = self._monotonic()
        try:
            async with asyncio.timeout(LEASE_SECONDS_MAX):
                granted, wait_ms = await self._script([key], [limit, needed, wanted])
        except (RedisError, OSError, TimeoutError) as error:
            metrics.LEASES.labels("away").inc()
            if self._away_until == 0.0:
                self._log.warning("common_window_away", error=str(error))
            self._away_until = self._monotonic() + AWAY_SECONDS
            return None
        if self._away_until:
            self._log.info("common_window_back")
            self._away_until = 0.0
        metrics.LEASE_SECONDS.observe(self._monotonic() - started)
        metrics.LEASES.labels("granted" if granted else "denied").inc()
        return int(granted), wait_ms / 1000

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class Bucket:
    """The units of one request class of one instance in this worker."""

    def __init__(
        self,
        common: CommonWindow,
        key: str,
        request_class: RequestClass,
        limit: int,
        *,
        workers: int,
        monotonic: Callable[[], float],
    ) -> None:
        self.limit = limit
        self._common = common
        self._key = key
        self._class_name = request_class.name.lower()
        self._workers = workers
        self._monotonic = monotonic
        self._local = Window()
        self._held = 0
        self._held_until = 0.0
        self._denied_until = 0.0
        self._denied_units = 0
        self._lot = 1
        self._leased_at = 0.0
        # Units that waiting requests ask for in the next lease, which resolves the future.
        self._demand: list[int] = []
        self._next_lease: asyncio.Future[None] | None = None
        self._leasing: asyncio.Task[None] | None = None

    def take(self, units: int) -> RequestError | Wait | None:
        """Take units that are held; else say no, or that they must be fetched."""
        now = self._monotonic()
        if now < self._held_until and units <= self._held:
            self._held -= units
            return None
        if now < self._denied_until and units >= self._denied_units:
            return rate_error(self._class_name, self.limit, self._denied_until - now)
        if not self._common.is_away:
            return Wait.FOR_UNITS
        granted, wait_s = self._lease_locally(now, units, units)
        if granted:
            return None
        self._deny(now, units, wait_s)
        return rate_error(self._class_name, self.limit, wait_s)

    def put_back(self, units: int) -> None:
        """Return units that were taken and not used."""
        self._held += units

    def owe(self, units: int) -> None:
        """Stay closed for as long as the limit needs for `units` that were taken unasked."""
        now = self._monotonic()
        self._held = 0
        until = max(now, self._denied_until) + units / self.limit
        self._denied_until = min(until, now + OWED_SECONDS_MAX)
        self._denied_units = 0

    def set_limit(self, limit: int) -> None:
        """Follow a change of plan: what was refused is asked again."""
        if limit != self.limit:
            self.limit = limit
            self._denied_until = 0.0
            self._held = min(self._held, lease_size(limit))

    async def fetch(self, units: int) -> None:
        """Lease units for a waiting request, together with all that wait meanwhile."""
        loop = asyncio.get_running_loop()
        self._demand.append(units)
        if self._next_lease is None:
            self._next_lease = loop.create_future()
        mine = self._next_lease
        if self._leasing is None:
            self._leasing = loop.create_task(self._run_leases())
        # Others wait for the same lease: one that is cancelled must not take it along.
        await asyncio.shield(mine)

    async def _run_leases(self) -> None:
        try:
            while self._next_lease is not None:
                demand, self._demand = self._demand, []
                lease, self._next_lease = self._next_lease, None
                try:
                    await self._lease(needed=min(demand), total=sum(demand))
                finally:
                    lease.set_result(None)
        finally:
            self._leasing = None

    async def _lease(self, *, needed: int, total: int) -> None:
        started = self._monotonic()
        is_fast = started - self._leased_at < FAST_SECONDS
        self._lot = min(self._lot * 2, lease_size(self.limit)) if is_fast else 1
        self._leased_at = started
        wanted = max(needed, min(max(self._lot, total), self.limit))
        answer = await self._common.lease(self._key, self.limit, needed=needed, wanted=wanted)
        now = self._monotonic()
        granted, wait_s = answer or self._lease_locally(now, needed, wanted)
        if granted:
            self._held = granted + (self._held if now < self._held_until else 0)
            self._held_until = now + HELD_SECONDS
        else:
            self._deny(now, needed, wait_s)

    def _lease_locally(self, now: float, needed: int, wanted: int) -> tuple[int, float]:
        share = -(-self.limit // self._workers)
        return self._local.lease(now, share, needed=needed, wanted=wanted)

    def _deny(self, now: float, units: int, wait_s: float) -> None:
        self._denied_until = now + wait_s
        self._denied_units = units
