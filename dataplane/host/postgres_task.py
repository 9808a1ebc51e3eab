"""What the tasks of relational instances share: their parameters, and a way to a running server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncpg

from dataplane.host import paths, template
from dataplane.host.door import Door
from dataplane.host.feed import Connection
from dataplane.host.postgres import CONNECT_SECONDS_MAX, TASK_APPLICATION
from dataplane.host.server import Site
from dataplane.host.work import NO_ROOM, Order, TaskError
from engines.kit.records import Desired

T = TypeVar("T")
BACK_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1
# Less than this is left: a server that has ended cannot write the log that a new start begins with.
ROOM_BYTES_MIN = 16 * 1024 * 1024
NOT_IN_SERVICE = TaskError("not_in_service", "the instance is not in service")
# What a connection raises when its server is stopped, ends or does not answer.
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def parameters(order: Order, read: Callable[[Mapping[str, Any]], T]) -> T:
    """Read the parameters of a task. Raises TaskError."""
    try:
        return read(order.parameters)
    except (KeyError, TypeError, ValueError) as error:
        raise TaskError("unsupported", f"the task's parameters: {error!r}") from error


def door_of(order: Order) -> Door:
    """Return the door of the instance's own server."""
    return Door(paths.postgres_socket(order.settings.run_dir, order.instance_id))


def site_of(order: Order) -> Site:
    """Return the instance's directories."""
    return Site.of(order.settings, order.instance_id)


async def demand_awake(order: Order) -> None:
    """Return once the instance's server answers, woken if it slept. Raises TaskError.

    A server that was killed is waited for: its keeper has not seen it yet, or its successor cannot
    begin before the last of its processes has gone.
    """
    deadline = time.monotonic() + BACK_SECONDS_MAX
    while True:
        order.progress.check()
        record = order.keeper.record
        if record is None or record.desired is not Desired.RUNNING:
            raise NOT_IN_SERVICE
        if await order.keeper.wake() and await _answers(door_of(order)):
            return
        if await asyncio.to_thread(_has_no_room, site_of(order)):
            raise NO_ROOM
        if time.monotonic() > deadline:
            raise NOT_IN_SERVICE
        await asyncio.sleep(LOOK_SECONDS)


def _has_no_room(site: Site) -> bool:
    state = os.statvfs(site.instance_dir)
    return state.f_bavail * state.f_frsize < ROOM_BYTES_MIN


async def _answers(door: Door) -> bool:
    try:
        connection = await connect(door)
    except AWAY:
        return False
    connection.terminate()
    return True


async def connect(door: Door, database: str = template.MAINTENANCE_DATABASE) -> Connection:
    """Connect as superuser. Raises what is in AWAY."""
    connection: Connection = await asyncpg.connect(
        host=str(door.path.parent),
        port=paths.POSTGRES_PORT,
        user=template.SUPERUSER,
        database=database,
        timeout=CONNECT_SECONDS_MAX,
        statement_cache_size=0,
        server_settings={
            "application_name": TASK_APPLICATION,
            "statement_timeout": "0",
            "search_path": "pg_catalog",
        },
    )
    return connection


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
