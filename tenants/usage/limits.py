"""From a plan, its blocks and weftkit.toml to the limits of an instance."""

from __future__ import annotations

from django.conf import settings

from engines.kit.records import Limits
from engines.kit.settings import Settings
from tenants.usage.models import Plan

# Where neither the plan nor weftkit.toml says: what an instance may hold in memory.
MEMORY_BYTES = 256 * 2**20


def limits_of(*, plan: Plan, blocks: int, engine: str) -> Limits:
    """Return the limits of an instance. What weftkit.toml sets itself is stronger than the plan."""
    config: Settings = settings.WEFTKIT
    times = blocks if plan.has_blocks else 1

    def units(value: int | None) -> int | None:
        return None if value is None else value * times

    return Limits(
        read=units(plan.read_units),
        write=units(plan.write_units),
        query=units(plan.query_units),
        storage_bytes=plan.storage_bytes,
        storage_ceiling_bytes=_storage_ceiling(plan),
        connections=_connections(config, plan, engine),
        memory_bytes=_memory_bytes(config, plan, engine),
        statement_timeout_ms=plan.statement_timeout_ms,
        eviction_policy=_eviction_policy(config, plan),
        hibernate_after_s=plan.hibernate_after_s,
        fsync=config.relational.wal_fsync if engine == "relational" else True,
    )


def _storage_ceiling(plan: Plan) -> int | None:
    if plan.storage_bytes is None:
        return None
    return plan.storage_bytes * (100 + plan.storage_grace_percent) // 100


def _connections(config: Settings, plan: Plan, engine: str) -> int:
    if engine == "relational" and config.is_given("relational", "max_connections"):
        return min(plan.connections, config.relational.max_connections)
    return plan.connections


def _memory_bytes(config: Settings, plan: Plan, engine: str) -> int:
    if config.is_given(engine, "max_memory_bytes"):
        return int(getattr(config.engine(engine), "max_memory_bytes"))  # noqa: B009
    return plan.memory_bytes or MEMORY_BYTES


def _eviction_policy(config: Settings, plan: Plan) -> str:
    if config.is_given("inmemory", "eviction_policy"):
        return config.inmemory.eviction_policy
    return plan.eviction_policy or config.inmemory.eviction_policy
