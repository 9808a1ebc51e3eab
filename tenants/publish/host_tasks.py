"""Long work for an instance host: rows of `publish.task` (`engines/kit/tasks.py` has the stages).

We make the row and say what we wish; the host writes how far it is. Every function runs in the
transaction of the step that it belongs to, so the host hears of it when that is durable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from engines.kit.exchange import TASK_CHANNEL
from engines.kit.tasks import Kind, State, Wish
from tenants.instances.models import Instance

RETENTION = timedelta(days=1)

# A task that failed or was cancelled begins anew; one that is under way or done stays as it is.
REQUEST = """
INSERT INTO publish.task AS old (task_id, instance_id, host, kind, parameters)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (task_id) DO UPDATE SET host = EXCLUDED.host, parameters = EXCLUDED.parameters,
    wish = 'prepare', state = 'waiting', done_bytes = 0, total_bytes = 0, code = '', detail = '',
    result = '{}', changed_at = now()
WHERE old.state IN ('failed', 'cancelled')
"""
# What is being committed goes on to its end.
WISH = """
UPDATE publish.task SET wish = %s
WHERE task_id = %s AND state IN ('waiting', 'running', 'prepared')
"""


@dataclass(frozen=True, slots=True)
class HostTask:
    """How far the host is with a task."""

    state: State
    code: str
    detail: str
    result: Mapping[str, Any]


def task_request(
    *, task_id: UUID, instance: Instance, kind: Kind, parameters: Mapping[str, Any]
) -> None:
    """Give the instance's host a task, or once more one that failed there."""
    assert connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(
            REQUEST, [task_id, instance.pk, instance.host, kind.value, json.dumps(parameters)]
        )
        _announce(instance.pk)


def task_wish(*, task_id: UUID, instance: Instance, wish: Wish) -> bool:
    """Wish something else of a task; False if it is too late, or there is none."""
    assert connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(WISH, [wish.value, task_id])
        is_in_time = bool(cursor.rowcount)
        _announce(instance.pk)
    return is_in_time


def task_get(*, task_id: UUID) -> HostTask | None:
    """Return what the host last said of a task; None if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, code, detail, result::text FROM publish.task WHERE task_id = %s",
            [task_id],
        )
        row = cursor.fetchone()
    return HostTask(State(row[0]), row[1], row[2], json.loads(row[3])) if row else None


def tasks_forget() -> int:
    """Delete tasks that ended long ago; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM publish.task WHERE state IN ('done', 'failed', 'cancelled') "
            "AND changed_at < %s",
            [timezone.now() - RETENTION],
        )
        return int(cursor.rowcount)


def _announce(instance_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [TASK_CHANNEL, str(instance_id)])
