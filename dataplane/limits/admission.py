"""Admission of requests: the state of an instance in this worker, and the gate of a connection.

`admit` runs once a request. For an unmetered plan it is one look at a flag and one addition into
the counter file, which is meter, metric and dashboard at once. A change of the record reaches every
gate at once, because all gates of an instance share its state.
"""

from __future__ import annotations

from collections.abc import Callable

from dataplane.limits.leases import Bucket, CommonWindow
from dataplane.observe.counters import COUNTER_WORD, REFUSED_WORD, Slot
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass, UsageLine, Wait
from engines.kit.records import GrowthRefusal, InstanceRecord, Status

# Said only to clients that have proven who they are.
_GONE = "the instance was deleted"
_NOT_IN_SERVICE = {
    Status.PROVISIONING: "the instance is being provisioned; try again in a moment",
    Status.SUSPENDED: "the instance is suspended; resume it in the dashboard or through the API",
    Status.QUARANTINED: "the instance was deleted; until it is purged it can be undeleted",
    Status.FAILED: "the instance has failed; see its last operation",
}
_METERED = (RequestClass.READ, RequestClass.WRITE, RequestClass.QUERY)


class InstanceState:
    """What all connections of one instance share."""

    def __init__(
        self,
        record: InstanceRecord,
        slot: Slot,
        common: CommonWindow,
        *,
        workers: int,
        monotonic: Callable[[], float],
    ) -> None:
        self.record = record
        self.slot = slot
        self._common = common
        self._workers = workers
        self._monotonic = monotonic
        # By the class's number, which is quicker than its hash.
        self._buckets: list[Bucket | None] = [None] * len(RequestClass)
        self._refusal: RequestError | None = None
        self._quota: RequestError | None = None
        self.storage_bytes = 0
        self.is_bounded = False
        # The instance's owner wants to be told of requests.
        self.is_audited = False
        self.follow(record, 0)

    def follow(self, record: InstanceRecord | None, storage_bytes: int) -> None:
        """Take a change of the record, or of the size that the host observed."""
        self.storage_bytes = storage_bytes
        if record is None or record.status is not Status.ACTIVE:
            self._refusal = suspended_error(record)
        else:
            self.record = record
            self._refusal = None
            self._follow_limits(record)
            self._quota = _quota_error(record, storage_bytes)
        self.is_audited = self.record.audit_data_events
        # So that `admit` looks at one flag only, and what nobody wants to be told costs nothing.
        self.is_bounded = bool(
            self._refusal or self._quota or any(self._buckets) or self.is_audited
        )

    def decide(
        self, request_class: RequestClass, units: int, grows: bool
    ) -> RequestError | Wait | None:
        """Answer for an instance that has any bound at all."""
        if self._refusal is not None:
            return self._refusal
        if grows and self._quota is not None:
            return self._quota
        bucket = self._buckets[request_class]
        return bucket.take(units) if bucket is not None else None

    def bucket(self, request_class: RequestClass) -> Bucket | None:
        """Return the bucket of a class that the plan limits."""
        return self._buckets[request_class]

    def _follow_limits(self, record: InstanceRecord) -> None:
        for request_class in _METERED:
            limit: int | None = getattr(record.limits, request_class.name.lower())
            known = self._buckets[request_class]
            if limit is None:
                self._buckets[request_class] = None
            elif known is not None:
                known.set_limit(limit)
            else:
                self._buckets[request_class] = Bucket(
                    self._common,
                    f"wk:window:{record.instance_id}:{request_class.name.lower()}",
                    request_class,
                    limit,
                    workers=self._workers,
                    monotonic=self._monotonic,
                )


class ConnectionGate:
    """`ports.Gate` of one signed-in connection."""

    __slots__ = ("_cells", "_counters", "_refused", "_state", "_units", "watch")

    def __init__(self, state: InstanceState) -> None:
        self._state = state
        # Is told of each request while the instance is audited.
        self.watch: Callable[[RequestClass, int, RequestError | None], None] | None = None
        self._cells = state.slot.cells
        self._counters = state.slot.base + COUNTER_WORD
        self._refused = state.slot.base + REFUSED_WORD
        # Of this connection alone, by the class's number.
        self._units = [0] * len(RequestClass)

    def admit(
        self, request_class: RequestClass, units: int = 1, grows: bool = False
    ) -> RequestError | Wait | None:
        """Take `units` of `request_class`; see `ports.Gate`."""
        state = self._state
        if state.is_bounded:
            answer = state.decide(request_class, units, grows)
            if answer is not None:
                if isinstance(answer, RequestError):
                    self._cells[self._refused] += units
                    self._tell(request_class, units, answer)
                return answer
            if state.is_audited:
                self._tell(request_class, units, None)
        self._cells[self._counters + request_class] += units
        self._units[request_class] += units
        return None

    async def wait(self, request_class: RequestClass, units: int = 1) -> None:
        """Fetch units from the common window; returns whether or not it got them."""
        bucket = self._state.bucket(request_class)
        if bucket is not None:
            await bucket.fetch(units)

    def refund(self, request_class: RequestClass, units: int = 1) -> None:
        """Give back units of a request that was admitted and then was not performed."""
        self._cells[self._counters + request_class] -= units
        self._units[request_class] -= units
        self._tell(request_class, -units, None)
        bucket = self._state.bucket(request_class)
        if bucket is not None:
            bucket.put_back(units)

    def charge(self, request_class: RequestClass, units: int) -> None:
        """Count units that were performed before anybody could admit them; see `ports.Gate`."""
        self._cells[self._counters + request_class] += units
        self._units[request_class] += units
        self._tell(request_class, units, None)
        bucket = self._state.bucket(request_class)
        if bucket is not None:
            bucket.owe(units)

    def _tell(self, request_class: RequestClass, units: int, error: RequestError | None) -> None:
        if self._state.is_audited and self.watch is not None:
            self.watch(request_class, units, error)

    def usage(self) -> tuple[UsageLine, ...]:
        """Return what this connection has used; see `ports.Gate`."""
        limits = self._state.record.limits
        allowed = (None, limits.read, limits.write, limits.query)
        lines = [
            UsageLine(f"{request_class.name.lower()}_units", used, limit)
            for request_class, used, limit in zip(RequestClass, self._units, allowed, strict=True)
        ]
        storage = UsageLine("storage_bytes", self._state.storage_bytes, limits.storage_bytes)
        return (*lines, storage)

    @property
    def statement_timeout_ms(self) -> int:
        """The plan's statement timeout; 0 for none."""
        return self._state.record.limits.statement_timeout_ms


def suspended_error(record: InstanceRecord | None) -> RequestError:
    """Return the refusal of an instance that is not in service, which says why it is not."""
    why = _NOT_IN_SERVICE.get(record.status, _GONE) if record else _GONE
    return RequestError(Reason.SUSPENDED, why)


def _quota_error(record: InstanceRecord, storage_bytes: int) -> RequestError | None:
    """Return what growth is refused with: for arrears, or for storage over the quota.

    Between the quota and the ceiling the control plane says when the grace is over; below the quota
    its word is old.
    """
    if record.growth_refused is GrowthRefusal.ARREARS:
        return RequestError(
            Reason.QUOTA,
            "the account is in arrears: only requests that do not grow the data are accepted",
            hint="Pay the overdue invoices; a payment lifts this at once.",
        )
    quota = record.limits.storage_bytes
    if quota is None or storage_bytes <= quota:
        return None
    is_over_grace = record.growth_refused is GrowthRefusal.STORAGE
    if not is_over_grace and storage_bytes <= (record.limits.storage_ceiling_bytes or quota):
        return None
    return RequestError(
        Reason.QUOTA,
        "storage quota exceeded: only requests that do not grow the data are accepted",
        detail=f"storage_bytes={storage_bytes} quota_bytes={quota}",
        hint="Delete data, or choose a plan with more storage.",
    )
