"""The rows of `publish.task` that are this host's: read, listened to, and moved on.

One connection of its own, so that long work never stands in the way of observations. A move waits
until the database is there; moves are compare-and-swap, and repeating one is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from dataplane.host.feed import (
    COMMAND_SECONDS_MAX,
    COMPARE_SECONDS,
    CONNECT_SECONDS_MAX,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    UNAVAILABLE,
    Connection,
)
from dataplane.host.work import Progress
from engines.kit.exchange import OBSERVED_CHANNEL, TASK_CHANNEL
from engines.kit.tasks import State, Wish

OPEN = (
    "SELECT task_id, instance_id, kind, parameters::text AS parameters, wish, state "
    "FROM publish.task WHERE host = $1 AND state NOT IN ('done', 'failed', 'cancelled') "
    "ORDER BY created_at"
)
MOVE = """
    WITH moved AS (
        UPDATE publish.task SET state = $2, code = $3, detail = $4,
            result = coalesce($5::jsonb, result), changed_at = now()
        WHERE task_id = $1 AND state = ANY($6) AND ($7::text IS NULL OR wish = $7)
        RETURNING instance_id
    )
    SELECT pg_notify($8, instance_id::text) FROM moved
"""
ADVANCE = (
    "UPDATE publish.task SET done_bytes = $2, total_bytes = $3, changed_at = now() "
    "WHERE task_id = $1 AND (done_bytes, total_bytes) <> ($2, $3)"
)

log = structlog.get_logger("host")


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One open task."""

    task_id: str
    instance_id: str
    kind: str
    parameters: Mapping[str, Any]
    wish: Wish
    state: State


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a move says beside the state."""

    code: str = ""
    detail: str = ""
    result: Mapping[str, Any] | None = None


class TaskRows:
    """Follows the rows, and hands all open ones over whenever something may have changed."""

    def __init__(
        self, database_url: str, host_name: str, on_rows: Callable[[list[TaskRow]], None]
    ) -> None:
        self._database_url = database_url
        self._host_name = host_name
        self._on_rows = on_rows
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._connected = asyncio.Event()
        self._connection: Connection | None = None

    def look(self) -> None:
        """Read the rows again at once."""
        self._wake.set()

    async def run(self) -> None:
        """Follow for ever; returns only by cancellation."""
        pause = RETRY_SECONDS_MIN
        while True:
            try:
                connection = await asyncpg.connect(
                    self._database_url,
                    timeout=CONNECT_SECONDS_MAX,
                    command_timeout=COMMAND_SECONDS_MAX,
                    server_settings={"application_name": f"weftkit tasks {self._host_name}"},
                )
                try:
                    await self._begin(connection)
                    pause = RETRY_SECONDS_MIN
                    await self._follow(connection)
                finally:
                    self._connected.clear()
                    self._connection = None
                    connection.terminate()
            except UNAVAILABLE as error:
                log.info("tasks_unavailable", error=str(error) or type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, RETRY_SECONDS_MAX)

    async def move(
        self,
        task_id: str,
        to: State,
        coming_from: Collection[State],
        outcome: Outcome = Outcome(),
        *,
        wish: Wish | None = None,
    ) -> bool:
        """Move a row on, if it is in one of `coming_from` (and `wish` holds); say whether it was.

        Being there already counts as moved: the first attempt may have lost its answer.
        """
        result = None if outcome.result is None else json.dumps(outcome.result)
        states = [state.value for state in {*coming_from, to}]
        arguments = (
            task_id, to.value, outcome.code, outcome.detail, result, states,
            wish and wish.value, OBSERVED_CHANNEL,
        )  # fmt: skip
        pause = RETRY_SECONDS_MIN
        while True:
            await self._connected.wait()
            try:
                async with self._lock:
                    if self._connection is not None:
                        return bool(await self._connection.fetch(MOVE, *arguments))
            except UNAVAILABLE as error:
                log.info("task_not_moved", task_id=task_id, state=to.value, error=repr(error))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, RETRY_SECONDS_MAX)

    async def advance(self, task_id: str, progress: Progress) -> None:
        """Write how far a task is; left out while the database is away."""
        with contextlib.suppress(*UNAVAILABLE):
            async with self._lock:
                if self._connection is not None:
                    await self._connection.execute(
                        ADVANCE, task_id, progress.done_bytes, progress.total_bytes
                    )

    async def _begin(self, connection: Connection) -> None:
        connection.add_termination_listener(lambda _: self._wake.set())
        await connection.add_listener(TASK_CHANNEL, lambda *_: self._wake.set())
        self._connection = connection
        self._connected.set()

    async def _follow(self, connection: Connection) -> None:
        while not connection.is_closed():
            self._wake.clear()
            async with self._lock:
                rows = await connection.fetch(OPEN, self._host_name)
            self._on_rows([row for each in rows if (row := _parsed(each)) is not None])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_SECONDS):
                    await self._wake.wait()


def _parsed(row: asyncpg.Record) -> TaskRow | None:
    try:
        return TaskRow(
            task_id=str(row["task_id"]),
            instance_id=str(row["instance_id"]),
            kind=row["kind"],
            parameters=dict(json.loads(row["parameters"])),
            wish=Wish(row["wish"]),
            state=State(row["state"]),
        )
    except (KeyError, TypeError, ValueError):
        log.exception("task_unusable")
        return None
