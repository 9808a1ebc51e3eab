"""What an engine is given: typed Protocols that `dataplane` implements and engines call.

Engines hold no sockets. A TCP engine's `open_session` gets the client's `ClientChannel` and
`SessionPorts`, signs the client in, and returns a `Relay`, a pure object that the splice feeds with
bytes from both sides. Everything here is either `async` (login, slow paths) or synchronous and
free of I/O (the hot path).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol, TypeVar

from engines.kit.errors import RequestError
from engines.kit.iam import Rights, rights_of
from engines.kit.records import Credential, InstanceRecord


class RequestClass(IntEnum):
    """What a request costs units of. `UNLIMITED` is counted and never refused."""

    UNLIMITED = 0
    READ = 1
    WRITE = 2
    QUERY = 3


class Wait(Enum):
    """The answer "not known yet": units must be fetched before the request may go on."""

    FOR_UNITS = "for_units"


class Clock(Protocol):
    """The only time an engine knows."""

    def now(self) -> float:
        """Return seconds since 1970 (UTC)."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class Channel(Protocol):
    """A byte stream before it is spliced: the client's, or the instance server's."""

    async def read(self) -> bytes:
        """Return the next bytes, at least one; b"" at the end of the stream."""
        ...

    async def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes; raises EOFError if the stream ends before."""
        ...

    def unread(self, data: bytes) -> None:
        """Put `data` back in front of what the next read returns."""
        ...

    def write(self, data: bytes) -> None:
        """Queue `data`."""
        ...

    async def drain(self) -> None:
        """Wait until the peer takes more."""
        ...

    def close(self) -> None:
        """Flush what is queued, then close."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """What the TLS handshake of a client said."""

    server_name: str = ""  # SNI, lower case; "" if none
    common_name: str = ""  # of a verified client certificate; "" if none
    server_certificate: bytes = b""  # DER
    channel_binding: bytes = b""  # `tls-server-end-point` (RFC 5929); empty if not defined


class ClientChannel(Channel, Protocol):
    """The client's connection."""

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """The client's address as the listener saw it."""
        ...

    @property
    def tls(self) -> Tls | None:
        """The handshake's facts, or None on a plain connection."""
        ...

    @property
    def connection_id(self) -> str:
        """The request id of this connection in logs and messages."""
        ...


@dataclass(frozen=True, slots=True)
class UsageLine:
    """How much of something a client has used, and what its plan allows; None for no limit."""

    name: str
    used: int
    allowed: int | None


class Gate(Protocol):
    """Admission and meter of one signed-in connection. Synchronous: the hot path calls `admit`."""

    def admit(
        self, request_class: RequestClass, units: int = 1, grows: bool = False
    ) -> RequestError | Wait | None:
        """Take `units` of `request_class`.

        None: admitted and counted. `Wait`: call `wait` and then `admit` again. A `RequestError`
        (RATE, QUOTA if `grows`, SUSPENDED) is the refusal to answer with.
        """
        ...

    async def wait(self, request_class: RequestClass, units: int = 1) -> None:
        """Fetch units from the other workers' common window; returns whether or not it got them."""
        ...

    def refund(self, request_class: RequestClass, units: int = 1) -> None:
        """Give back units of a request that was admitted and then was not performed."""
        ...

    def charge(self, request_class: RequestClass, units: int) -> None:
        """Count units that were performed before anybody could admit them.

        What is over the limit keeps the class closed until the plan would have allowed it.
        """
        ...

    def usage(self) -> tuple[UsageLine, ...]:
        """Return what this connection has used, by request class, and the instance's storage."""
        ...

    @property
    def statement_timeout_ms(self) -> int:
        """The plan's statement timeout; 0 for none."""
        ...


@dataclass(frozen=True, slots=True)
class Hints:
    """What a client said about the instance that it wants; empty strings where it said nothing.

    `server_name` is a TLS SNI whose first label may be a handle; `instance` comes from the protocol
    (PostgreSQL `options`, `user.instance`); `database` counts only where nothing else names one.
    """

    username: str = ""
    server_name: str = ""
    instance: str = ""
    database: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Whom a client claims to be. For unknown names `credential` is a mock that never verifies.

    The engine runs its protocol's sign-in against `credential` in every case, so that neither
    messages nor timing tell whether the name exists.
    """

    record: InstanceRecord | None
    credential: Credential
    is_mock: bool


class Directory(Protocol):
    """Finds instances and checks secrets, over the published records."""

    def find(self, engine: str, hints: Hints) -> Candidate:
        """Return the candidate; all present hints must agree, else it is a mock."""
        ...

    def find_by_secret(self, engine: str, hints: Hints, password: str) -> Candidate:
        """Return the candidate for a client that sent a password and no user name."""
        ...

    def find_access_key(self, engine: str, access_key_id: str, server_name: str) -> Candidate:
        """Return the candidate for a request that is signed (SigV4); a mock for unknown keys."""
        ...

    def access_secrets(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the live secrets that a candidate may have signed with.

        A mock has one too, which nobody knows: checking it takes the same work.
        """
        ...

    def verify_password(self, candidate: Candidate, password: str) -> bool:
        """Say whether `password` proves the candidate (password or jwt); never for a mock."""
        ...


@dataclass(slots=True)
class Grant:
    """A signed-in connection: its instance, its credential, its gate."""

    candidate: Candidate
    gate: Gate
    rights: Rights = field(init=False)

    def __post_init__(self) -> None:
        self.rights = rights_of(self.credential, self.record.engine)

    def allows(self, action: str, part: str = "", kind: str = "") -> bool:
        """Say whether the credential may do `action` on a part of the instance ("": on all of it).

        Actions are those of `engines.kit.iam.SERVICE_ACTIONS`, `weftkit.<engine>.<noun>.<verb>`.
        `kind` is needed only where an engine has parts of several kinds.
        """
        return self.rights.allows(action, part, kind)

    @property
    def record(self) -> InstanceRecord:
        """The record at sign-in. What may change later is asked of the gate."""
        assert self.candidate.record is not None
        return self.candidate.record

    @property
    def credential(self) -> Credential:
        """The credential that was proven."""
        return self.candidate.credential


class Relay(Protocol):
    """A signed-in TCP session between client and instance server: pure, synchronous.

    The splice calls `from_client` and `from_server` with whatever bytes arrive. Where nothing has
    to change, which is nearly always, they return True: `data` goes on as it came, and the lists
    are empty. Else the lists hold what is to be written.
    """

    def from_client(self, data: bytes) -> bool:
        """Take bytes of the client; True, or fill `to_server` and `to_client`, set `waiting`."""
        ...

    def from_server(self, data: bytes) -> bool:
        """Take bytes of the server; True, or fill `to_client` (and `to_server`)."""
        ...

    to_server: list[bytes]
    to_client: list[bytes]
    # Set by `from_client` when the gate said `Wait`: (class, units). The splice pauses reading,
    # awaits `gate.wait`, then calls `from_client(b"")`, which goes on where it stopped.
    waiting: tuple[RequestClass, int] | None
    # True when no request is under way: a draining or revoking server may close here unseen.
    is_idle: bool
    # True once the client has taken its leave in the protocol's own words, and these were kept from
    # the server because `is_clean` held: the connection ends here.
    has_left: bool

    @property
    def is_clean(self) -> bool:
        """True while the server's session could be reset for another client: between two
        transactions, nothing sent that has no answer, no message cut in half either way."""
        ...

    def goodbye(self, error: RequestError) -> bytes:
        """Return the protocol's farewell for a session that is ended from outside."""
        ...

    def closed(self) -> None:
        """The connection ended: refund what was admitted and never performed."""
        ...


class Pins(Protocol):
    """How many sessions of a pool may be kept by one client each."""

    def take(self) -> bool:
        """Keep one more; False if that would leave none to the others."""
        ...

    def give(self) -> None:
        """Keep one less."""
        ...


class PooledServer(Protocol):
    """What a session of the server holds, whoever has it at the moment."""

    last_client: int
    # The session is of no use to others before it has been reset in full.
    is_reset_due: bool

    @property
    def cancel_request(self) -> bytes:
        """What stops its statement, on a connection of its own."""
        ...


class Multiplexer(Protocol):
    """One client's share in the server's sessions, under its relay: pure, synchronous.

    `from_client` takes what the relay forwards, `from_server` what the attached session says: True
    means that it goes on as it came. What else there is to be sent is in `to_server`, `to_relay`
    (what the relay takes as the server's) and `to_client` (behind the relay's back).
    """

    serial: int
    to_server: list[bytes]
    to_relay: list[bytes]
    to_client: list[bytes]
    # A session is needed to go on; and: the one that is attached may be detached.
    wants_server: bool
    is_free: bool
    is_pinned: bool
    pins: Pins | None
    # The client's session cannot go on, nor can the server's session serve anybody else.
    failure: RequestError | None

    @property
    def is_full(self) -> bool:
        """True while nothing more should be read from the client."""
        ...

    @property
    def is_resting(self) -> bool:
        """True while nothing is under way in the session: it could be reset for others."""
        ...

    def from_client(self, data: bytes) -> bool:
        """Take bytes of the relay."""
        ...

    def from_server(self, data: bytes) -> bool:
        """Take bytes of the attached session."""
        ...

    def attach(self, server: Any) -> None:
        """Take a session, and send what waited for one."""
        ...

    def detach(self) -> None:
        """Let go of the session."""
        ...

    def lost(self) -> bool:
        """The session has died. True: the client was told and goes on; False: it cannot."""
        ...

    def farewell(self) -> RequestError:
        """Return why the client's connection ends with its session."""
        ...

    def waits(self, seconds: float) -> bytes:
        """Return what tells a client that it has waited for a session for so long."""
        ...


class TryAgainError(Exception):
    """The server cannot take a session at this moment: it starts, stops, or is full."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.message)
        # What the client is told if it stays so.
        self.error = error


class ServerSession(Protocol):
    """One session with an instance's own server, apart from its socket: pure.

    `start`, `check` and `reset` return the bytes to send; `answer` takes what the server says then.
    One at a time: the next may be called once the last has been answered.
    """

    @property
    def key(self) -> bytes:
        """What the server is told at the start: equal keys are interchangeable after a reset."""
        ...

    @property
    def cancel_request(self) -> bytes:
        """What stops the session's statement, on a connection of its own."""
        ...

    def start(self) -> bytes:
        """Open the session on a new connection."""
        ...

    def check(self) -> bytes:
        """Ask whether a session that was reset is still as a new one would be."""
        ...

    def reset(self) -> bytes:
        """Make the session as good as new; only where the relay says `is_clean`."""
        ...

    def answer(self, data: bytes) -> bool:
        """Take bytes of the server; True once what was sent has been answered in full.

        Raises RequestError or TryAgainError: the session is of no use.
        """
        ...


AnySession = TypeVar("AnySession", bound=ServerSession)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a sign-in returns for a client that shares the server's sessions."""

    relay: Relay
    multiplexer: Multiplexer
    # A new session, not started; clients whose sessions have equal keys share them.
    new_session: Callable[[], ServerSession]
    # What an open session holds.
    server_of: Callable[[Any], PooledServer]
    # Stands for whatever session the client has when it is redeemed.
    token: int


class SessionPorts(Protocol):
    """All that a TCP engine's `open_session` may call."""

    @property
    def directory(self) -> Directory:
        """Where instances and credentials are found."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def is_pool_port(self) -> bool:
        """True if the client came to the port where sessions of the server are shared."""
        ...

    def admit_login(
        self, candidate: Candidate, client: ClientChannel, *, is_pooled: bool = False
    ) -> Grant:
        """Turn a proven candidate into a grant; call only after the proof.

        With `is_pooled` the client shares the server's sessions, and there may be more of them.

        Raises RequestError: EXPIRED, ADDRESS, SUSPENDED, CONNECTIONS, SHUTDOWN.
        """
        ...

    def login_failed(self, candidate: Candidate, client: ClientChannel, reason: str) -> None:
        """Report a failed sign-in to metrics, log and audit."""
        ...

    async def connect(self, record: InstanceRecord) -> Channel:
        """Open a connection to the instance's own server, waking it if it sleeps.

        Raises RequestError(BACKEND) if it cannot be reached in time.
        """
        ...

    async def open_server(self, record: InstanceRecord, wanted: AnySession) -> AnySession:
        """Return an open session with the instance's own server: `wanted`, started over a new
        connection, or one with an equal key that another client has left.

        Raises RequestError: BACKEND, and whatever the server refuses the session with.
        """
        ...

    def service_secret(self, instance_id: str) -> str:
        """Return the secret that our own users of the instance's server sign in with."""
        ...

    def token_issue(self, grant: Grant, payload: bytes, *, upper: int) -> int:
        """Return a 64-bit id that carries this worker's number and stands for `payload`.

        Its upper half is `upper` (32 bits, no secret), its lower half cannot be guessed. It lives
        as long as the grant's connection (PostgreSQL's cancel keys).
        """
        ...

    async def token_redeem(
        self, token: int, client: ClientChannel
    ) -> tuple[InstanceRecord, bytes] | None:
        """Find the owner of `token`, here or at the worker that issued it.

        Returns the owner's instance and payload; None if there is no owner, or if the client's
        address is not allowed at that instance.
        """
        ...


Row = Sequence[Any]


class Statements(Protocol):
    """Statements of one instance of a schema engine; one round trip each.

    Raise RequestError by SQLSTATE, which `RequestError.sqlstate` keeps.
    """

    async def fetch(self, text: str, *params: object) -> Sequence[Row]:
        """Run one statement and return its rows."""
        ...

    async def execute(self, text: str, *params: object) -> int:
        """Run one statement and return the number of rows it touched."""
        ...


class Store(Statements, Protocol):
    """The tables of one instance: single statements, each its own transaction, and transactions."""

    def transaction(
        self, isolation: str = "read_committed"
    ) -> AbstractAsyncContextManager[Statements]:
        """Run a block in a transaction (`read_committed` or `repeatable_read`).

        It is rolled back if the block raises. A statement of it that fails ends it.
        """
        ...


class Blobs(Protocol):
    """Object storage of one instance."""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` durably before returning."""
        ...

    async def get(self, key: str) -> bytes:
        """Return the object; raises RequestError(NOT_FOUND)."""
        ...

    async def delete(self, key: str) -> None:
        """Delete the object; it may be absent."""
        ...


class Audit(Protocol):
    """Where an engine reports what an auditor must be able to find."""

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
        ...
