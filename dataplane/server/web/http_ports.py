"""What the handler of an HTTP engine may call: `HttpPorts`, one for each engine in a worker.

A connection is nobody's until one of its requests is proven. From then on it is one of its
instance's connections, with an account that later requests of the same credential find again for
the price of a look-up; a record that changes makes a new one necessary, or ends the connection.
HTTP has no sign-in: for auditors a session of a credential begins with its first proven request on
a connection, and ends with the connection.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from dataplane.backend.store import STATEMENT_SECONDS, InstanceStore
from dataplane.limits.admission import ConnectionGate, InstanceState
from dataplane.observe import metrics
from dataplane.observe.counters import BYTES_IN_WORD, BYTES_OUT_WORD
from dataplane.observe.tally import tally_of
from dataplane.server.sessions import objection
from dataplane.server.web.background import Background, Holds, Work
from engines.kit.errors import LocalError, Reason, RequestError
from engines.kit.ports import Audit, Candidate, Clock, Directory, Grant, Store
from engines.kit.records import Credential, InstanceRecord, Role

if TYPE_CHECKING:
    from dataplane.server.ports import Services
    from dataplane.server.web.connection import HttpConnection

Address = IPv4Address | IPv6Address

# The tenant of the embedded default, and who is let into its instance without a key.
_DEFAULT_TENANT = "default"
_ANONYMOUS = Credential(key_id="anonymous", username="anonymous", role=Role.ADMIN, secrets=())
# CADF reason codes are those of HTTP.
_REASON_CODES = {Reason.UNAUTHENTICATED: 401, Reason.CONNECTIONS: 429, Reason.SHUTDOWN: 503}
_REASON_CODE = 403


class Account:
    """One credential on one connection."""

    __slots__ = ("_base", "_cells", "grant", "record", "state", "was_used")

    def __init__(self, grant: Grant, state: InstanceState) -> None:
        self.grant = grant
        self.record = grant.record
        self.state = state
        self.was_used = False
        self._cells = state.slot.cells
        self._base = state.slot.base

    def count_bytes(self, bytes_in: int, bytes_out: int) -> None:
        """Count what a request and its answer took on the wire."""
        self._cells[self._base + BYTES_IN_WORD] += bytes_in
        self._cells[self._base + BYTES_OUT_WORD] += bytes_out


class EngineHttpPorts:
    """`HttpPorts` of one engine."""

    def __init__(self, services: Services, engine: str) -> None:
        self._services = services
        self._engine = engine
        self._connections: dict[str, HttpConnection] = {}
        # Instance -> its connections, for when its record changes.
        self._by_instance: dict[str, set[HttpConnection]] = {}
        self._background = Background(engine)
        self._holds = Holds()

    @property
    def directory(self) -> Directory:
        """Where instances and credentials are found."""
        return self._services.directory

    @property
    def clock(self) -> Clock:
        """The time."""
        return self._services.clock

    @property
    def audit(self) -> Audit:
        """Where auditors are told."""
        return self._services.audit

    def grant(self, candidate: Candidate, address: Address, connection_id: str) -> Grant:
        """Turn a proven candidate into a grant; see `HttpPorts`."""
        connection = self._connections[connection_id]
        credential = candidate.credential
        account = connection.accounts.get(credential.key_id)
        if account is None or account.record is not candidate.record:
            account = self._admit(candidate, address, connection)
        expires_at = account.grant.credential.expires_at
        if expires_at is not None and self._services.clock.now() >= expires_at:
            raise RequestError(Reason.EXPIRED, "the credential has expired")
        account.was_used = True
        connection.account = account
        return account.grant

    def login_failed(self, candidate: Candidate, address: Address, reason: str) -> None:
        """Report a request that proved nothing to metrics and audit, which bounds what is alike."""
        tally_of(metrics.SIGN_INS, self._engine, "failed").add()
        if candidate.record is not None:
            self._audit_failure(candidate.record, candidate.credential.username, address, 401)

    def store(self, record: InstanceRecord, within_s: float | None = None) -> Store:
        """Return the tables of an instance; see `HttpPorts`."""
        pool = self._services.cells.pool(record.cell)
        if within_s is not None:
            return InstanceStore(pool, within_s, is_background=True)
        return InstanceStore(pool, record.limits.statement_timeout_ms / 1000 or STATEMENT_SECONDS)

    def anonymous(self) -> Candidate | None:
        """Return who is let in without a key, where weftkit.toml says so; see `HttpPorts`."""
        if self._engine not in self._services.config.anonymous:
            return None
        record = self._services.table.default(self._engine)
        if record is None or record.tenant != _DEFAULT_TENANT:
            return None
        return Candidate(record, _ANONYMOUS, is_mock=False)

    def hold(self, key: object) -> AbstractAsyncContextManager[None]:
        """Let one task at a time into the block, for equal keys."""
        return self._holds.hold(key)

    def spawn(self, record: InstanceRecord, name: str, work: Work) -> None:
        """Do work of an instance in the background; see `HttpPorts`."""
        self._background.spawn(record, name, work)

    # What the front and the worker call.

    def opened(self, connection: HttpConnection) -> None:
        """Know a connection."""
        self._connections[connection.connection_id] = connection

    def closed(self, connection: HttpConnection) -> None:
        """Forget a connection, and give back what it was counted as."""
        del self._connections[connection.connection_id]
        for account in list(connection.accounts.values()):
            self._end(connection, account)

    def follow(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        """Hold connections and work against a change; a subscriber of the record table."""
        known = old or new
        if known is None or old is new:
            return
        self._background.follow(known, new)
        for connection in list(self._by_instance.get(known.instance_id, ())):
            for account in list(connection.accounts.values()):
                if account.record.instance_id != known.instance_id:
                    continue
                if self._objection(new, account.grant.credential, connection.address) is None:
                    continue
                self._end(connection, account)
                connection.end_when_idle()

    def note_use(self) -> None:
        """Write down which keys are in use."""
        now = self._services.clock.now()
        for connections in self._by_instance.values():
            for connection in connections:
                for account in connection.accounts.values():
                    self._note(account, now)

    async def close(self, within_s: float) -> None:
        """End the work in the background."""
        await self._background.close(within_s)

    def _admit(self, candidate: Candidate, address: Address, connection: HttpConnection) -> Account:
        if candidate.is_mock or candidate.record is None:
            raise LocalError("grant wants a proven candidate")
        services, username = self._services, candidate.credential.username
        record = services.table.get(candidate.record.instance_id)
        error = self._objection(record, candidate.credential, address)
        old = connection.accounts.get(candidate.credential.key_id)
        if old is not None:
            self._dismiss(connection, old)
        if error is None:
            assert record is not None
            error = self._count(record, connection)
        if error is not None:
            tally_of(metrics.SIGN_INS, self._engine, error.reason.value).add()
            code = _REASON_CODES.get(error.reason, _REASON_CODE)
            self._audit_failure(candidate.record, username, address, code)
            raise error
        assert record is not None
        credential = self._current(record, candidate.credential)
        assert credential is not None
        state = services.state_of(record)
        gate = ConnectionGate(state)
        gate.watch = services.audit.watch(record, username, str(address)).note
        account = Account(Grant(Candidate(record, credential, is_mock=False), gate), state)
        connection.accounts[credential.key_id] = account
        tally_of(metrics.SIGN_INS, self._engine, "admitted").add()
        if old is None:
            self._audit(record, username, address, "start")
        self._note(account, services.clock.now(), always=True)
        return account

    def _count(self, record: InstanceRecord, connection: HttpConnection) -> RequestError | None:
        """Count the connection as one of the plan's, once for each instance."""
        if connection in self._by_instance.get(record.instance_id, ()):
            return None
        services, limit = self._services, record.limits.connections
        slot = services.state_of(record).slot
        while not services.counts.open(record.instance_id, slot, limit):
            if not self._make_room(record.instance_id):
                return RequestError(
                    Reason.CONNECTIONS,
                    f"too many connections: the plan allows {limit}",
                    limit_units=limit,
                )
        self._by_instance.setdefault(record.instance_id, set()).add(connection)
        tally_of(metrics.CONNECTIONS, self._engine).add()
        return None

    def _make_room(self, instance_id: str) -> bool:
        """End the connection of an instance that has been idle the longest; False if none has.

        Clients keep what they do not need; one that is busy only seems to, and is left alone.
        """
        now = asyncio.get_running_loop().time()
        known = self._by_instance.get(instance_id, ())
        idlest = max(known, key=lambda connection: connection.idle_s(now), default=None)
        if idlest is None or idlest.idle_s(now) < self._services.config.bounds.spare_after_s:
            return False
        for account in list(idlest.accounts.values()):
            self._end(idlest, account)
        idlest.end_when_idle()
        return True

    def _end(self, connection: HttpConnection, account: Account) -> None:
        """Take an account away for good."""
        self._dismiss(connection, account)
        username = account.grant.credential.username
        self._audit(account.state.record, username, connection.address, "end")

    def _dismiss(self, connection: HttpConnection, account: Account) -> None:
        """Take an account away; with the last one of an instance the connection is not its own."""
        instance_id = account.record.instance_id
        del connection.accounts[account.grant.credential.key_id]
        self._note(account, self._services.clock.now())
        if any(other.record.instance_id == instance_id for other in connection.accounts.values()):
            return
        connections = self._by_instance.get(instance_id, set())
        if connection in connections:
            connections.remove(connection)
            self._services.counts.close(account.state.slot)
            tally_of(metrics.CONNECTIONS, self._engine).add(-1)
            if not connections:
                del self._by_instance[instance_id]

    def _objection(
        self, record: InstanceRecord | None, credential: Credential, address: Address
    ) -> RequestError | None:
        current = self._current(record, credential)
        return objection(record, current, address, self._services.clock.now())

    def _current(self, record: InstanceRecord | None, credential: Credential) -> Credential | None:
        if credential is _ANONYMOUS or record is None:
            return credential
        return self._services.table.by_user(record.instance_id, credential.username)

    def _note(self, account: Account, now: float, *, always: bool = False) -> None:
        if (account.was_used or always) and account.grant.credential is not _ANONYMOUS:
            self._services.key_seen.note(account.grant.credential.key_id, now)
        account.was_used = False

    def _audit_failure(
        self, record: InstanceRecord, username: str, address: Address, code: int
    ) -> None:
        self._emit("start", record, username, address, "failure", code, is_data_event=False)

    def _audit(self, record: InstanceRecord, username: str, address: Address, verb: str) -> None:
        if record.audit_data_events:
            self._emit(verb, record, username, address, "success", 200, is_data_event=True)

    def _emit(
        self,
        verb: str,
        record: InstanceRecord,
        username: str,
        address: Address,
        outcome: str,
        code: int,
        *,
        is_data_event: bool,
    ) -> None:
        self._services.audit.emit(
            f"weftkit.{record.engine}.session.{verb}",
            record=record,
            initiator=username[:64],
            address=str(address),
            outcome=outcome,
            reason_code=code,
            target=f"instances/{record.handle}",
            is_data_event=is_data_event,
        )
