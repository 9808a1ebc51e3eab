"""The plan's statement timeout as a cap: statements that outlived it are ended by the host.

Every session may set its own `statement_timeout`, and PostgreSQL has no right that could be taken
away, so the configured figure is only where a session begins. The host looks every few seconds,
cancels what is overdue, and ends the session of what caught its cancellation (PL/pgSQL may).

Most servers have nothing to look at: the titles of their processes say so without a connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import structlog

from engines.kit.records import Limits

# The server's own timeout comes first where a session left it alone.
GRACE_MILLISECONDS = 1000
# So long a cancelled statement may go on: it rolls back, or it has caught the cancellation.
CANCELLED_MILLISECONDS_MAX = 8000

END_OVERDUE = f"""
    SELECT
        CASE
            WHEN ran_ms > $1 + {CANCELLED_MILLISECONDS_MAX} THEN pg_terminate_backend(pid)
            ELSE pg_cancel_backend(pid)
        END
    FROM (
        SELECT pid, extract(epoch FROM clock_timestamp() - query_start) * 1000 AS ran_ms
        FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND usename <> current_user
            AND state IN ('active', 'fastpath function call')
    ) AS running
    WHERE ran_ms > $1
"""  # noqa: S608 - figures of ours

_CLIENT = " [local] "  # in the title of every backend that serves a client of the unix socket

log = structlog.get_logger("host")

Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


async def end_overdue(connect: Connect, postmaster: int, limits: Limits, instance_id: str) -> None:
    """End the statements that run longer than the plan lets them."""
    if not limits.statement_timeout_ms or not has_busy_backend(postmaster):
        return
    try:
        connection = await connect()
        try:
            ended = await connection.fetch(
                END_OVERDUE, limits.statement_timeout_ms + GRACE_MILLISECONDS
            )
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return  # it does not answer now; the next look comes soon
    if ended:
        log.info("overdue_statements_ended", count=len(ended), instance_id=instance_id)


def has_busy_backend(postmaster: int) -> bool:
    """Say whether a backend's title names something else than waiting for its client."""
    try:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    except OSError:
        return False
    return any(_is_busy(child) for child in children)


def _is_busy(pid: str) -> bool:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    _, found, activity = title.partition(_CLIENT)
    return bool(found) and not activity.startswith("idle")
