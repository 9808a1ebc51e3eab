"""Audit events on their way out: `ports.Audit` for engines, bounded in memory, disk and rate.

An event waits in memory until the next flush, then in a spool file (fsync) until the database has
it. Its UUID makes the insert repeatable. Events that say the same of the same address are let
through `ALIKE_MAX` times a window; the next one after it tells how many were left out.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any
from uuid import uuid4

from dataplane.files import write_durably
from dataplane.observe import metrics
from engines.kit.ports import Clock
from engines.kit.records import InstanceRecord

WAITING_MAX = 10_000
SPOOL_FILES_MAX = 64
BATCH_MAX = 1_000
ALIKE_MAX = 10
WINDOW_SECONDS = 10.0
# Different (instance, action, address) that are told apart in one window.
ALIKE_KEYS_MAX = 10_000


def _storable(text: str) -> str:
    """Return what a client said as PostgreSQL can keep it: without NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


class AuditTrail:
    """Takes events from the loop; `spool`, `deliverable`, `read` are called in a thread."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._clock = clock
        self._waiting: deque[dict[str, Any]] = deque()
        self._alike: dict[tuple[str, str, str], int] = {}
        self._window_end = 0.0

    def emit(
        self,
        action: str,
        *,
        record: InstanceRecord,
        initiator: str,
        address: str,
        outcome: str,
        reason_code: int,
        target: str = "",
        is_data_event: bool = False,
    ) -> None:
        """Queue one event; never blocks, never raises."""
        left_out = self._left_out((record.instance_id, action, address))
        if left_out is None:
            metrics.AUDIT_EVENTS.labels("alike").inc()
            return
        if len(self._waiting) >= WAITING_MAX:
            metrics.AUDIT_EVENTS.labels("lost").inc()
            return
        self._waiting.append(
            {
                "event_id": str(uuid4()),
                "at": self._clock.now(),
                "action": action,
                "instance_id": record.instance_id,
                "instance": record.handle,
                "tenant_id": record.tenant_id,
                "engine": record.engine,
                "initiator": _storable(initiator),
                "address": address,
                "outcome": outcome,
                "reason_code": reason_code,
                "target": _storable(target),
                "is_data_event": is_data_event,
                "alike_left_out": left_out,
            }
        )

    def spool(self) -> None:
        """Move waiting events to disk; while the disk is full of them they wait in memory."""
        while self._waiting and len(self.deliverable()) < SPOOL_FILES_MAX:
            count = min(len(self._waiting), BATCH_MAX)
            batch = [self._waiting[index] for index in range(count)]
            path = self._directory / f"{batch[0]['event_id']}.json"
            write_durably(path, json.dumps(batch).encode())
            for _ in range(count):
                self._waiting.popleft()
            metrics.AUDIT_EVENTS.labels("kept").inc(count)

    def deliverable(self) -> list[Path]:
        """Return the spool files of all workers; delivering one twice does nothing."""
        return list(self._directory.glob("*.json"))

    def read(self, path: Path) -> list[tuple[str, str]]:
        """Return (event id, body as JSON) of one spool file; none if another worker removed it."""
        try:
            batch = json.loads(path.read_bytes())
        except FileNotFoundError:
            return []
        return [(event["event_id"], json.dumps(event)) for event in batch]

    def _left_out(self, key: tuple[str, str, str]) -> int | None:
        """Return how many like this were left out before it, or None to leave it out too."""
        now = self._clock.monotonic()
        if now >= self._window_end:
            self._window_end = now + WINDOW_SECONDS
            # What was left out stays known until it has been told.
            self._alike = {
                key: ALIKE_MAX - seen if seen > ALIKE_MAX else 0
                for key, seen in self._alike.items()
                if seen > ALIKE_MAX
            }
        seen = self._alike.get(key, 0)
        if seen == 0 and key not in self._alike and len(self._alike) >= ALIKE_KEYS_MAX:
            return None
        if seen >= ALIKE_MAX:
            self._alike[key] = seen + 1
            return None
        self._alike[key] = max(seen, 0) + 1
        return max(-seen, 0)
