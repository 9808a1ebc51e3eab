"""What an engine may call while it signs a client in: `ports.SessionPorts`, one a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from dataplane.backend.instance_server import InstanceServers
from dataplane.backend.pool import CellPools
from dataplane.backend.pooled_sessions import PooledSessions
from dataplane.backend.warm_sessions import WarmServer, WarmSessions
from dataplane.config import Config
from dataplane.limits.admission import ConnectionGate, InstanceState
from dataplane.limits.connections import ConnectionCounts
from dataplane.observe import metrics
from dataplane.observe.audit import AuditTrail
from dataplane.observe.counters import CONNECTIONS_WORD, SHARING_WORD
from dataplane.observe.key_seen import KeySeen
from dataplane.observe.log import ConnectionLog
from dataplane.observe.tally import tally_of
from dataplane.routing.directory import RecordDirectory
from dataplane.routing.table import RecordTable
from dataplane.server.channel import ClientStream, StreamChannel
from dataplane.server.forward import TokenBook
from dataplane.server.pooled import PooledSplice
from dataplane.server.sessions import Session, Sessions, is_allowed, objection
from dataplane.server.splice import Splice
from dataplane.server.web.front import HttpFront
from engines.kit import auth
from engines.kit.contract import EngineSpec
from engines.kit.errors import LocalError, Reason, RequestError
from engines.kit.ports import AnySession, Candidate, ClientChannel, Clock, Grant, Pooled, Relay
from engines.kit.records import InstanceRecord

# Connections to servers that one sign-in may open; a cancel request opens one.
SERVER_CONNECTIONS_MAX = 2
# So many clients may share each of the plan's connections.
SHARING_CLIENTS = 10
# CADF reason codes are those of HTTP.
_REASON_CODES = {Reason.UNAUTHENTICATED: 401, Reason.CONNECTIONS: 429, Reason.SHUTDOWN: 503}
_REASON_CODE = 403


@dataclass(slots=True)
class Services:
    """All that the connections of one worker share."""

    config: Config
    number: int
    clock: Clock
    table: RecordTable
    directory: RecordDirectory
    state_of: Callable[[InstanceRecord], InstanceState]
    counts: ConnectionCounts
    sessions: Sessions
    tokens: TokenBook
    audit: AuditTrail
    key_seen: KeySeen
    warm: WarmSessions
    servers: InstanceServers
    pools: PooledSessions
    cells: CellPools
    fronts: list[HttpFront] = field(default_factory=list)
    is_draining: bool = False

    @property
    def connections(self) -> int:
        """How many clients this worker has."""
        return len(self.sessions) + sum(map(len, self.fronts))


@dataclass(slots=True)
class ConnectionPorts:
    """The ports of one connection, and what it must give back at its end."""

    services: Services
    spec: EngineSpec
    client: ClientStream
    log: ConnectionLog
    is_pool_port: bool = False
    _is_pooled: bool = False
    _session: Session | None = None
    _state: InstanceState | None = None
    _servers: list[StreamChannel] = field(default_factory=list)
    _warm: WarmServer | None = None
    _tokens: list[int] = field(default_factory=list)
    _was_cancelled: bool = False

    @property
    def directory(self) -> RecordDirectory:
        """Where instances and credentials are found."""
        return self.services.directory

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.services.clock

    def admit_login(
        self, candidate: Candidate, client: ClientChannel, *, is_pooled: bool = False
    ) -> Grant:
        """Turn a proven candidate into a grant; see `ports.SessionPorts`."""
        if candidate.is_mock or candidate.record is None or self._session is not None:
            raise LocalError("admit_login wants one proven candidate a connection")
        services = self.services
        # The record may have changed while the client was proving itself.
        record = services.table.get(candidate.record.instance_id)
        credential = None
        if record is not None:
            credential = services.table.by_user(record.instance_id, candidate.credential.username)
        error = objection(record, credential, client.address, services.clock.now())
        if error is None and services.is_draining:
            error = RequestError(Reason.SHUTDOWN, "this server is shutting down; connect again")
        if error is not None:
            self._refuse(candidate.record, candidate, error)
            raise error
        assert record is not None
        assert credential is not None
        state = services.state_of(record)
        self._is_pooled = is_pooled
        error = self._count(record, state)
        if error is not None:
            self._refuse(record, candidate, error)
            raise error
        self._state = state
        self._session = Session(record, credential, self.client, self._session_ended)
        services.sessions.add(self._session)
        services.key_seen.note(credential.key_id, services.clock.now())
        tally_of(metrics.SIGN_INS, self.spec.name, "admitted").add()
        if record.audit_data_events:
            self._audit(record, credential.username, "session.start", is_data_event=True)
        self.log.bind(instance=record.handle, user=credential.username)
        self.log.event("signed_in")
        gate = ConnectionGate(state)
        gate.watch = services.audit.watch(
            record, credential.username, str(self.client.address)
        ).note
        return Grant(Candidate(record, credential, is_mock=False), gate)

    def _count(self, record: InstanceRecord, state: InstanceState) -> RequestError | None:
        """Count the client as one of the plan's connections, or as one that shares them."""
        services = self.services
        limit, kind = record.limits.connections, CONNECTIONS_WORD
        if self._is_pooled:
            limit, kind = limit * SHARING_CLIENTS, SHARING_WORD
        while not services.counts.open(record.instance_id, state.slot, limit, kind):
            # What rests in a pool takes no client's place.
            if self._is_pooled or not services.pools.close_one(record.instance_id):
                return RequestError(
                    Reason.CONNECTIONS,
                    f"too many connections: the plan allows {limit}",
                    limit_units=limit,
                )
        return None

    def login_failed(self, candidate: Candidate, client: ClientChannel, reason: str) -> None:
        """Report a failed sign-in to metrics, log and audit."""
        tally_of(metrics.SIGN_INS, self.spec.name, "failed").add()
        self.log.info("sign_in_failed", reason=reason, user=candidate.credential.username[:64])
        if candidate.record is not None:
            self._audit_failure(candidate.record, candidate, 401)

    async def connect(self, record: InstanceRecord) -> StreamChannel:
        """Open a connection to the instance's own server; see `ports.SessionPorts`."""
        if len(self._servers) >= SERVER_CONNECTIONS_MAX:
            raise LocalError("too many connections to servers for one sign-in")
        channel = await self.services.servers.connect(
            self.spec.placement, record, within_s=self.services.config.bounds.backend_connect_s
        )
        self._servers.append(channel)
        return channel

    async def open_server(self, record: InstanceRecord, wanted: AnySession) -> AnySession:
        """Return an open session with the instance's server; see `ports.SessionPorts`."""
        if self._warm is not None:
            raise LocalError("a sign-in opens one session")
        bounds = self.services.config.bounds
        self._warm, session = await self.services.warm.take(
            record, wanted, within_s=bounds.backend_connect_s
        )
        return session

    def service_secret(self, instance_id: str) -> str:
        """Return the secret that our own users of the instance's server sign in with."""
        return auth.service_secret(self.services.config.master_key, instance_id)

    def token_issue(self, grant: Grant, payload: bytes, *, upper: int) -> int:
        """Return a token that lives as long as this connection; see `ports.SessionPorts`."""
        token = self.services.tokens.issue(grant.record.instance_id, payload, upper)
        self._tokens.append(token)
        return token

    async def token_redeem(
        self, token: int, client: ClientChannel
    ) -> tuple[InstanceRecord, bytes] | None:
        """Find the owner of `token`; see `ports.SessionPorts`."""
        found = await self.services.tokens.redeem(token)
        record = self.services.table.get(found[0]) if found else None
        if found is None or record is None or not is_allowed(record, client.address):
            return None
        if record.audit_data_events:
            # A cancel request shows the key of a session, and does not say whose it is.
            self._audit(record, "cancel-key", "statement.cancel", is_data_event=True)
        if not found[1]:
            await self.services.tokens.perform(token)
        return record, found[1]

    # What the listener calls.

    def start(self, relay: Relay | Pooled) -> None:
        """Splice the connection with the session that was opened, or the last server connected."""
        if isinstance(relay, Pooled):
            self._start_pooled(relay)
            return
        server = self._warm or (self._servers.pop() if self._servers else None)
        if self._session is None or self._state is None or server is None:
            raise LocalError("a relay needs a grant and a server")
        session = self._session
        splice = Splice(
            relay,
            ConnectionGate(self._state),
            self._state.slot,
            linger_s=self.services.config.bounds.linger_s,
            on_end=session.ended,
            on_closed=lambda: self.services.sessions.closing.discard(session),
            on_server_free=self._server_free if self._warm is not None else None,
            log=self.log,
        )
        session.splice = splice
        if self._warm is not None:
            session.stop_statement = self._stop_statement
        self.services.sessions.closing.add(session)
        splice.start(self.client, server)
        self._close_servers()

    def _start_pooled(self, pooled: Pooled) -> None:
        """Let the client take its turns on the sessions of its pool."""
        if self._session is None or self._state is None or not self._is_pooled:
            raise LocalError("a share in a pool needs a grant for it")
        session = self._session
        splice = PooledSplice(
            pooled,
            session.record,
            self.services.pools,
            ConnectionGate(self._state),
            self._state.slot,
            linger_s=self.services.config.bounds.linger_s,
            on_end=session.ended,
            on_closed=lambda: self.services.sessions.closing.discard(session),
            log=self.log,
        )
        session.splice = splice
        self.services.tokens.answers(pooled.token, splice.cancel)
        self.services.sessions.closing.add(session)
        splice.start(self.client)

    def abandon(self) -> None:
        """Close everything of a connection that comes to no relay."""
        self._close_servers()
        if self._warm is not None:
            self.services.warm.close(self._warm)
        self.client.close()
        loop = asyncio.get_running_loop()
        # A peer that does not take the last bytes must not keep the socket.
        loop.call_later(self.services.config.bounds.linger_s, self.client.abort)
        if self._session is not None:
            self._session.ended()

    def _close_servers(self) -> None:
        for channel in self._servers:
            channel.close()
        self._servers.clear()

    def _server_free(self) -> None:
        """Keep the server's session, which the client left as `Relay.is_clean` says."""
        assert self._warm is not None
        if self._was_cancelled:
            # The cancel request may still be on its way, and must not meet the next client.
            self.services.warm.close(self._warm)
        else:
            self.services.warm.give_back(self._warm)

    def _stop_statement(self) -> None:
        """Cancel what the server does for a session that was ended from outside.

        It may not look at its connection before it has something to say, and commit until then.
        """
        assert self._session is not None
        assert self._warm is not None
        pools = self.services.pools
        pools.spawn(pools.send_cancel(self._session.record, self._warm.session.cancel_request))

    def _session_ended(self) -> None:
        assert self._session is not None
        assert self._state is not None
        services = self.services
        services.counts.close(
            self._state.slot, SHARING_WORD if self._is_pooled else CONNECTIONS_WORD
        )
        services.sessions.remove(self._session)
        services.key_seen.note(self._session.credential.key_id, services.clock.now())
        record = self._state.record
        if record.audit_data_events:
            username = self._session.credential.username
            self._audit(record, username, "session.end", is_data_event=True)
        for token in self._tokens:
            self._was_cancelled |= services.tokens.withdraw(token)
        self.log.event("session_ended")

    def _refuse(self, record: InstanceRecord, candidate: Candidate, error: RequestError) -> None:
        tally_of(metrics.SIGN_INS, self.spec.name, error.reason.value).add()
        self.log.info("sign_in_refused", reason=error.reason.value, instance=record.handle)
        code = _REASON_CODES.get(error.reason, _REASON_CODE)
        self._audit_failure(record, candidate, code)

    def _audit_failure(
        self, record: InstanceRecord, candidate: Candidate, reason_code: int
    ) -> None:
        username = candidate.credential.username[:64]
        self._audit(record, username, "session.start", "failure", reason_code)

    def _audit(
        self,
        record: InstanceRecord,
        initiator: str,
        action: str,
        outcome: str = "success",
        reason_code: int = 200,
        *,
        is_data_event: bool = False,
    ) -> None:
        self.services.audit.emit(
            f"weftkit.{record.engine}.{action}",
            record=record,
            initiator=initiator,
            address=str(self.client.address),
            outcome=outcome,
            reason_code=reason_code,
            target=f"instances/{record.handle}",
            is_data_event=is_data_event,
        )
