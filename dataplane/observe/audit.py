"""Audit events on their way out: `ports.Audit` for engines, bounded in memory, disk and rate.

An event waits in memory until the next flush, then in a spool file (fsync) until the database has
it. Its UUID makes the insert repeatable. Events that say the same of the same address (and of the
same target, if it was done: whatever fails is tried with any name) are let through `ALIKE_MAX`
times a window; the next one after it tells how many were left out. Where none comes, and where
there was no room, an event of its own tells it: `weftkit.<engine>.event.drop`.

Requests for data, where the instance's owner wants to be told of them, are counted by connection
and class (`Watch`) and become one event each at the next flush, so that their number is exact and
their events are few. While there is no room they stay counts.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from dataplane.files import write_durably
from dataplane.observe import metrics
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Clock, RequestClass
from engines.kit.records import InstanceRecord

WAITING_MAX = 10_000
# Data events leave the rest of the room to sign-ins.
WAITING_DATA_MAX = WAITING_MAX // 2
# Connections that have something to tell, also those that have ended meanwhile.
WATCHES_MAX = 20_000
SPOOL_FILES_MAX = 64
BATCH_MAX = 1_000
ALIKE_MAX = 10
WINDOW_SECONDS = 10.0
# Instance, action, address, and the target of what was done: events of one are alike.
Alike = tuple[str, str, str, str]
# How many are told apart in one window.
ALIKE_KEYS_MAX = 10_000
# CADF reason codes are those of HTTP.
REASON_CODES = {Reason.RATE: 429, Reason.QUOTA: 402}
REASON_CODE = 403
_VERBS = {
    RequestClass.UNLIMITED: "execute",
    RequestClass.READ: "read",
    RequestClass.WRITE: "write",
    RequestClass.QUERY: "query",
}


def _storable(text: str) -> str:
    """Return what a client said as PostgreSQL can keep it: without NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


class Watch:
    """Counts the units of one connection, by class, until the trail makes events of them."""

    __slots__ = ("_is_listed", "_listed", "address", "initiator", "record", "refused", "units")

    def __init__(
        self,
        record: InstanceRecord,
        initiator: str,
        address: str,
        listed: Callable[[Watch], bool],
    ) -> None:
        self.record = record
        self.initiator = initiator
        self.address = address
        # By the class's number.
        self.units = [0] * len(RequestClass)
        # Class and reason code -> units that were refused.
        self.refused: dict[tuple[RequestClass, int], int] = {}
        self._listed = listed
        self._is_listed = False

    def note(
        self, request_class: RequestClass, units: int, error: RequestError | None = None
    ) -> None:
        """Count units that were admitted, taken back (less than none), or refused."""
        if not self._is_listed:
            self._is_listed = self._listed(self)
            if not self._is_listed:
                return
        if error is None:
            self.units[request_class] += units
        else:
            key = (request_class, REASON_CODES.get(error.reason, REASON_CODE))
            self.refused[key] = self.refused.get(key, 0) + units

    def take(self) -> tuple[list[int], dict[tuple[RequestClass, int], int]]:
        """Return what was counted, and begin anew."""
        told = (self.units, self.refused)
        # What was taken back after it was told is taken off the next.
        self.units, self.refused = [min(units, 0) for units in self.units], {}
        self._is_listed = False
        return told


class AuditTrail:
    """Takes events from the loop; `spool`, `deliverable`, `read` are called in a thread."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._clock = clock
        self._waiting: deque[dict[str, Any]] = deque()
        self._alike: dict[Alike, int] = {}
        self._window_end = 0.0
        # Records of those of `_alike` of which something was left out.
        self._records: dict[str, InstanceRecord] = {}
        # What was lost for want of room, by instance, until there is room to tell.
        self._lost: dict[str, tuple[InstanceRecord, int]] = {}
        self._watches: list[Watch] = []

    def watch(self, record: InstanceRecord, initiator: str, address: str) -> Watch:
        """Return what counts the requests of a connection."""
        return Watch(record, initiator, address, self._has_news)

    def collect(self) -> None:
        """Make events of what was counted and of what was left out; call it before `spool`."""
        self._roll()
        for instance_id in list(self._lost):
            if len(self._waiting) >= WAITING_MAX:
                break
            record, count = self._lost.pop(instance_id)
            self._drop_event(record, count, "no room")
        kept = []
        for watch in self._watches:
            if len(self._waiting) >= WAITING_DATA_MAX:
                kept.append(watch)
            else:
                self._data_events(watch)
        self._watches = kept

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
        what = target if outcome == "success" else ""
        left_out = self._left_out((record.instance_id, action, address, what), record)
        if left_out is None:
            metrics.AUDIT_EVENTS.labels("alike").inc()
            return
        self._queue(
            record,
            action=action,
            initiator=_storable(initiator),
            address=address,
            outcome=outcome,
            reason_code=reason_code,
            target=_storable(target),
            is_data_event=is_data_event,
            alike_left_out=left_out,
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

    def _left_out(self, key: Alike, record: InstanceRecord) -> int | None:
        """Return how many like this were left out before it, or None to leave it out too."""
        self._roll()
        seen = self._alike.get(key, 0)
        if seen == 0 and key not in self._alike and len(self._alike) >= ALIKE_KEYS_MAX:
            self._lose(record, 1)
            return None
        if seen >= ALIKE_MAX:
            self._alike[key] = seen + 1
            self._records[record.instance_id] = record
            return None
        self._alike[key] = max(seen, 0) + 1
        return max(-seen, 0)

    def _roll(self) -> None:
        """Begin the next window, if the last is over."""
        now = self._clock.monotonic()
        if now < self._window_end:
            return
        self._window_end = now + WINDOW_SECONDS
        untold = {key: -seen for key, seen in self._alike.items() if seen < 0}
        # What was left out stays known for a window: one that is alike may come, and tell it.
        self._alike = {
            key: ALIKE_MAX - seen for key, seen in self._alike.items() if seen > ALIKE_MAX
        }
        for (instance_id, _, address, _), count in untold.items():
            self._drop_event(self._records[instance_id], count, "alike", address)
        known = {key[0] for key in self._alike}
        self._records = {name: self._records[name] for name in self._records.keys() & known}

    def _has_news(self, watch: Watch) -> bool:
        if len(self._watches) >= WATCHES_MAX:
            self._lose(watch.record, 1)
            return False
        self._watches.append(watch)
        return True

    def _data_events(self, watch: Watch) -> None:
        """Queue what a connection's counts say."""
        admitted, refused = watch.take()
        for request_class, verb in _VERBS.items():
            if (units := admitted[request_class]) > 0:
                self._data_event(watch, verb, "success", 200, units)
        for (request_class, code), units in refused.items():
            self._data_event(watch, _VERBS[request_class], "failure", code, units)

    def _data_event(
        self, watch: Watch, verb: str, outcome: str, reason_code: int, units: int
    ) -> None:
        self._queue(
            watch.record,
            action=f"weftkit.{watch.record.engine}.statement.{verb}",
            initiator=_storable(watch.initiator),
            address=watch.address,
            outcome=outcome,
            reason_code=reason_code,
            target=f"instances/{watch.record.handle}",
            is_data_event=True,
            units=units,
        )

    def _drop_event(self, record: InstanceRecord, count: int, why: str, address: str = "") -> None:
        self._queue(
            record,
            action=f"weftkit.{record.engine}.event.drop",
            initiator="",
            address=address,
            outcome="success",
            reason_code=200,
            target=f"instances/{record.handle}",
            is_data_event=False,
            count=count,
            why=why,
        )

    def _queue(self, record: InstanceRecord, **told: object) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._lose(record, 1)
            return
        self._waiting.append(
            {
                "event_id": str(uuid4()),
                "at": self._clock.now(),
                "instance_id": record.instance_id,
                "instance": record.handle,
                "tenant_id": record.tenant_id,
                "engine": record.engine,
                **told,
            }
        )

    def _lose(self, record: InstanceRecord, count: int) -> None:
        """Remember that an event was lost; the metric knows even of those that are not told."""
        metrics.AUDIT_EVENTS.labels("lost").inc(count)
        _, lost = self._lost.get(record.instance_id, (record, 0))
        if lost or len(self._lost) < ALIKE_KEYS_MAX:
            self._lost[record.instance_id] = (record, lost + count)
