"""Who is signed in, and whether they still may be: the same rule at sign-in and ever after.

Every change of a record is held against the sessions of its instance in the same loop turn, so a
revoked key's connections end as soon as the follower has read the row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from dataplane.limits.admission import suspended_error
from dataplane.observe import metrics
from dataplane.observe.tally import tally_of
from dataplane.server.channel import ClientStream
from dataplane.server.pooled import PooledSplice
from dataplane.server.splice import Splice
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Clock
from engines.kit.records import Credential, InstanceRecord, Role, Status

Address = IPv4Address | IPv6Address


class Session:
    """One admitted connection, from its grant to its end."""

    def __init__(
        self,
        record: InstanceRecord,
        credential: Credential,
        client: ClientStream,
        on_end: Callable[[], None],
    ) -> None:
        self.record = record
        self.credential = credential
        self.client = client
        self.splice: Splice | PooledSplice | None = None
        # Stops the statement that the server may be busy with; set where there is a way to.
        self.stop_statement: Callable[[], None] | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self._on_end = on_end
        self._is_over = False

    def end(self, error: RequestError) -> None:
        """End it now, with the protocol's farewell once there is a relay to say it."""
        tally_of(metrics.SESSIONS_ENDED, self.record.engine, error.reason.value).add()
        if self.splice is not None:
            is_busy = isinstance(self.splice, Splice) and not self.splice.relay.is_idle
            self.splice.end(error)
            if is_busy and self.stop_statement is not None:
                self.stop_statement()
        else:
            # Signing in: the engine meets the end of the stream.
            self.client.abort()

    def end_when_idle(self, error: RequestError) -> None:
        """End it between two requests."""
        if self.splice is not None:
            self.splice.end_when_idle(error)

    def ended(self) -> None:
        """Give back what the session holds; once."""
        if not self._is_over:
            self._is_over = True
            if self.expiry is not None:
                self.expiry.cancel()
            self._on_end()


class Sessions:
    """All sessions of this worker, by instance."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_instance: dict[str, set[Session]] = {}
        self._count = 0
        # Ended ones whose last bytes are still on their way.
        self.closing: set[Session] = set()

    def __iter__(self) -> Iterator[Session]:
        return iter([session for group in self._by_instance.values() for session in group])

    def __len__(self) -> int:
        return self._count

    def count_bytes(self) -> None:
        """Have all sessions write down the bytes that have passed."""
        for session in self:
            if session.splice is not None:
                session.splice.count_bytes()

    def add(self, session: Session) -> None:
        """Take an admitted session."""
        self._by_instance.setdefault(session.record.instance_id, set()).add(session)
        self._count += 1
        self._watch_expiry(session)
        tally_of(metrics.CONNECTIONS, session.record.engine).add()

    def remove(self, session: Session) -> None:
        """Forget a session that ended."""
        group = self._by_instance.get(session.record.instance_id, set())
        if session in group:
            group.remove(session)
            self._count -= 1
            tally_of(metrics.CONNECTIONS, session.record.engine).add(-1)
            if not group:
                del self._by_instance[session.record.instance_id]

    def follow(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        """End what the new record does not allow; a subscriber of the record table."""
        known = old or new
        if known is None or old is new:
            return
        for session in list(self._by_instance.get(known.instance_id, ())):
            self._hold_against(session, new)

    def _hold_against(self, session: Session, record: InstanceRecord | None) -> None:
        credential = session.credential
        current = _credential(record, credential.username)
        error = objection(record, current, session.client.address, self._clock.now())
        if error is None and current is not None and current.role is not credential.role:
            error = _role_changed(current.role)
        if error is not None:
            session.end(error)
            return
        assert current is not None
        # The role and everything else that was agreed at sign-in stays; its end may move.
        session.credential = current
        self._watch_expiry(session)

    def _watch_expiry(self, session: Session) -> None:
        if session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None
        expires_at = session.credential.expires_at
        if expires_at is not None:
            loop = asyncio.get_running_loop()
            delay = max(0.0, expires_at - self._clock.now())
            session.expiry = loop.call_later(delay, session.end, _expired())


def objection(
    record: InstanceRecord | None, credential: Credential | None, address: Address, now: float
) -> RequestError | None:
    """Return why this credential may not be connected from this address, or None."""
    if record is None or record.status is not Status.ACTIVE:
        return suspended_error(record)
    if credential is None or not credential.enabled:
        return RequestError(Reason.UNAUTHENTICATED, "the credential has been revoked")
    if credential.expires_at is not None and now >= credential.expires_at:
        return _expired()
    if not (_allows(record.allowlist, address) and _allows(credential.cidrs, address)):
        return RequestError(Reason.ADDRESS, "connections from this address are not allowed")
    return None


def is_allowed(record: InstanceRecord, address: Address) -> bool:
    """Say whether the instance takes requests from `address` at all."""
    return _allows(record.allowlist, address)


def _allows(networks: tuple[str, ...], address: Address) -> bool:
    return not networks or any(
        network is not None and network.version == address.version and address in network
        for network in map(_network, networks)
    )


@lru_cache(maxsize=4096)
def _network(text: str) -> IPv4Network | IPv6Network | None:
    """Read a CIDR; what is none matches nothing, so a mistake does not open a door."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _credential(record: InstanceRecord | None, username: str) -> Credential | None:
    for credential in record.credentials if record else ():
        if credential.username == username:
            return credential
    return None


def _expired() -> RequestError:
    return RequestError(Reason.EXPIRED, "the credential has expired")


def _role_changed(role: Role) -> RequestError:
    return RequestError(
        Reason.DENIED, f"the credential's role is now '{role.value}'; connect again"
    )
