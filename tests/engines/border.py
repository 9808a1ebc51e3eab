"""A border for tests of the relayed engines: sockets, a splice and ports, in a thread of its own.

Real drivers connect to `Border.port`; the engine's own `open_session` and relay do the rest,
against a real server on a unix socket. The gate is programmable. Nothing here is of the data plane,
so that an engine can be tested without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from engines.kit.auth import (
    make_secret,
    mock_credential,
    new_salt,
    parse_password,
    verify_password,
)
from engines.kit.contract import EngineSpec
from engines.kit.errors import Reason, RequestError, rate_error
from engines.kit.ports import (
    AnySession,
    Candidate,
    Grant,
    Hints,
    Relay,
    RequestClass,
    Tls,
    TryAgainError,
    UsageLine,
    Wait,
)
from engines.kit.records import Credential, InstanceRecord, Limits, Role, Status

PEPPERS = {1: b"pepper"}
CHUNK_BYTES = 64 * 1024


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_000_000.0

    def monotonic(self) -> float:
        return 0.0


class ProgrammableGate:
    """Counts what is admitted; refuses what goes over `left`, or what grows once `is_full`.

    With `fetch_units` the gate holds no units itself: it says Wait and fetches so many at a time.
    """

    def __init__(self) -> None:
        self.units: Counter[RequestClass] = Counter()
        self.left: dict[RequestClass, int] = {}
        self.local: Counter[RequestClass] = Counter()
        self.fetch_units = 0
        self.is_full = False
        self.is_suspended = False
        self.refused = 0
        self.waits = 0
        self.statement_timeout_ms = 0
        self._denied: set[RequestClass] = set()

    def limit(self, request_class: RequestClass, units: int) -> None:
        """Let so many units of a class pass from now on."""
        self.left[request_class] = units
        self.local.clear()
        self._denied.clear()

    def admit(
        self, request_class: RequestClass, units: int = 1, grows: bool = False
    ) -> RequestError | Wait | None:
        if self.is_suspended:
            return RequestError(Reason.SUSPENDED, "the instance is suspended")
        if grows and self.is_full:
            self.refused += units
            return RequestError(Reason.QUOTA, "storage quota exceeded", hint="Delete something.")
        if request_class in self.left:
            if self.fetch_units:
                if self.local[request_class] < units and request_class not in self._denied:
                    return Wait.FOR_UNITS
                available = self.local
            else:
                available = Counter(self.left)
            if available[request_class] < units:
                self.refused += units
                return rate_error(request_class.name.lower(), 20, 0.35)
            if self.fetch_units:
                self.local[request_class] -= units
            else:
                self.left[request_class] -= units
        self.units[request_class] += units
        return None

    async def wait(self, request_class: RequestClass, units: int = 1) -> None:
        self.waits += 1
        await asyncio.sleep(0)
        fetched = min(max(units, self.fetch_units), self.left[request_class])
        self.left[request_class] -= fetched
        self.local[request_class] += fetched
        if self.local[request_class] < units:
            self._denied.add(request_class)

    def usage(self) -> tuple[UsageLine, ...]:
        return tuple(
            UsageLine(f"{each.name.lower()}_units", self.units[each], self.left.get(each))
            for each in RequestClass
        )

    def charge(self, request_class: RequestClass, units: int) -> None:
        self.units[request_class] += units

    def refund(self, request_class: RequestClass, units: int = 1) -> None:
        self.units[request_class] -= units
        if request_class in self.left:
            if self.fetch_units:
                self.local[request_class] += units
            else:
                self.left[request_class] += units

    def performed(self) -> dict[str, int]:
        """Return the counted units of each class that has some."""
        return {c.name.lower(): n for c, n in sorted(self.units.items()) if n}


@dataclass
class Account:
    """A credential as its owner knows it."""

    credential: Credential
    password: str


def account(
    key_id: str = "abcdefghijkl",
    *,
    role: Role = Role.ADMIN,
    username: str = "",
    password: str = "",
    expires_at: float | None = None,
) -> Account:
    """Make a credential with one secret."""
    username = username or f"wk_{key_id}"
    password = password or f"wk_{key_id}_{'s' * 32}"
    secret = make_secret(password, 1, PEPPERS[1], new_salt())
    return Account(Credential(key_id, username, role, (secret,), expires_at=expires_at), password)


def instance(
    engine: str, *accounts: Account, handle: str = "demo-one", auth_method: str = "password"
) -> InstanceRecord:
    """Make an active instance with these accounts."""
    return InstanceRecord(
        instance_id="00000000-0000-0000-0000-000000000001",
        handle=handle,
        tenant_id="00000000-0000-0000-0000-000000000002",
        tenant="demo",
        engine=engine,
        status=Status.ACTIVE,
        plan="lite",
        limits=Limits(),
        credentials=tuple(item.credential for item in accounts),
        version=1,
        auth_method=auth_method,
    )


class ListDirectory:
    """Looks names up in a list of records; all hints must agree."""

    def __init__(self, records: list[InstanceRecord], tokens: dict[str, str]) -> None:
        self.records = records
        self.tokens = tokens  # of accounts that sign in with something else than a password

    def find(self, engine: str, hints: Hints) -> Candidate:
        label = hints.server_name.partition(".")[0]
        for record in self.records:
            named = {name for name in (label, hints.instance) if name}
            if record.engine != engine or named - {record.handle}:
                continue
            for credential in record.credentials:
                if credential.username == hints.username:
                    return Candidate(record, credential, is_mock=False)
        return Candidate(None, mock_credential(hints.username, b"mock"), is_mock=True)

    def find_by_secret(self, engine: str, hints: Hints, password: str) -> Candidate:
        key_id = parse_password(password) or ""
        return self.find(engine, Hints(f"wk_{key_id}", hints.server_name, hints.instance))

    def verify_password(self, candidate: Candidate, password: str) -> bool:
        if candidate.is_mock:
            return False
        if candidate.record is not None and candidate.record.auth_method == "jwt":
            return self.tokens.get(candidate.credential.username) == password
        return verify_password(candidate.credential, password, PEPPERS, 1_000_000.0) is not None


class StreamChannel:
    """A `ClientChannel` (and a server's `Channel`) over asyncio streams."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tls: Tls | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._front = b""
        self._chunk_bytes = chunk_bytes
        self._tls = tls

    @property
    def address(self) -> IPv4Address | IPv6Address:
        return ip_address("127.0.0.1")

    @property
    def tls(self) -> Tls | None:
        return self._tls

    @property
    def connection_id(self) -> str:
        return "test"

    async def read(self) -> bytes:
        if self._front:
            data, self._front = self._front, b""
            return data
        return await self._reader.read(self._chunk_bytes)

    async def read_exactly(self, size: int) -> bytes:
        while len(self._front) < size:
            data = await self._reader.read(self._chunk_bytes)
            if not data:
                raise EOFError
            self._front += data
        data, self._front = self._front[:size], self._front[size:]
        return data

    def unread(self, data: bytes) -> None:
        self._front = data + self._front

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


@dataclass
class BorderPorts:
    """The `SessionPorts` of one connection to a border."""

    border: Border
    server: StreamChannel | None = None

    @property
    def directory(self) -> ListDirectory:
        return self.border.directory

    @property
    def clock(self) -> FixedClock:
        return FixedClock()

    # Shared sessions need the data plane's pool: tests/clients/relational/test_pooling.py.
    is_pool_port = False

    def admit_login(
        self, candidate: Candidate, client: object, *, is_pooled: bool = False
    ) -> Grant:
        assert not is_pooled
        if self.border.login_error is not None:
            raise self.border.login_error
        return Grant(candidate, self.border.gate)

    def login_failed(self, candidate: Candidate, client: object, reason: str) -> None:
        self.border.failures.append(reason)

    async def connect(self, record: InstanceRecord) -> StreamChannel:
        if self.border.connect_error is not None:
            raise self.border.connect_error
        reader, writer = await asyncio.open_unix_connection(str(self.border.socket))
        self.server = StreamChannel(reader, writer, chunk_bytes=self.border.chunk_bytes)
        return self.server

    async def open_server(self, record: InstanceRecord, wanted: AnySession) -> AnySession:
        server = await self.connect(record)
        server.write(wanted.start())
        try:
            while data := await server.read():
                if wanted.answer(data):
                    return wanted
        except TryAgainError as error:
            raise error.error from error
        raise RequestError(Reason.BACKEND, "the instance's server does not answer")

    def service_secret(self, instance_id: str) -> str:
        return self.border.service_secret

    def token_issue(self, grant: Grant, payload: bytes, *, upper: int) -> int:
        token = upper << 32 | 0x9ABC_0001 + len(self.border.tokens)
        self.border.tokens[token] = (grant.record, payload)
        return token

    async def token_redeem(self, token: int, client: object) -> tuple[InstanceRecord, bytes] | None:
        return self.border.tokens.get(token)


@dataclass
class Border:
    """A listening engine. Use as a context manager; `port` is then where drivers connect."""

    spec: EngineSpec
    socket: Path
    records: list[InstanceRecord]
    gate: ProgrammableGate = field(default_factory=ProgrammableGate)
    service_secret: str = "service"
    tls: Tls | None = None  # what clients are said to have shown; the bytes stay plain
    chunk_bytes: int = CHUNK_BYTES
    tokens_by_user: dict[str, str] = field(default_factory=dict)
    login_error: RequestError | None = None
    connect_error: RequestError | None = None
    port: int = 0
    failures: list[str] = field(default_factory=list)
    tokens: dict[int, tuple[InstanceRecord, bytes]] = field(default_factory=dict)
    relays: list[Relay] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = ListDirectory(self.records, self.tokens_by_user)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Border]:
        """Serve in a thread for the length of the block; re-raise what went wrong in it."""
        loop = asyncio.new_event_loop()
        started = threading.Event()
        thread = threading.Thread(target=self._run, args=(loop, started), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
        if self.errors:
            raise self.errors[0]

    def _run(self, loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        listener = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = listener.sockets[0].getsockname()[1]
        started.set()
        loop.run_forever()
        listener.close()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = StreamChannel(reader, writer, self.tls, self.chunk_bytes)
        ports = BorderPorts(self)
        try:
            await self._session(client, ports)
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - shown by `listening`
            self.errors.append(error)
        finally:
            client.close()
            if ports.server is not None:
                ports.server.close()

    async def _session(self, client: StreamChannel, ports: BorderPorts) -> None:
        assert self.spec.preamble is not None
        assert self.spec.open_session is not None
        while True:
            data = await client.read()
            if not data:
                return
            client.unread(data)
            look = self.spec.preamble(data, False)
            if look.needs > len(data):
                more = await client.read_exactly(look.needs)
                client.unread(more)
                continue
            if look.consume:
                await client.read_exactly(look.consume)
                client.write(look.reply)
            if not look.again:
                break
        relay = await self.spec.open_session(client, ports)
        if relay is None:
            await client.drain()
            return
        assert ports.server is not None
        self.relays.append(relay)
        await self._splice(relay, client, ports.server)
        relay.closed()

    async def _splice(self, relay: Relay, client: StreamChannel, server: StreamChannel) -> None:
        async def flush() -> None:
            for channel, queue in ((server, relay.to_server), (client, relay.to_client)):
                data = b"".join(queue)
                queue.clear()
                if data:
                    channel.write(data)
                    await channel.drain()

        async def pump(
            source: StreamChannel, sink: StreamChannel, feed: Callable[[bytes], bool]
        ) -> None:
            while data := await source.read():
                if feed(data):
                    sink.write(data)
                    await sink.drain()
                await flush()
                if relay.has_left:
                    return
                while source is client and relay.waiting is not None:
                    await self.gate.wait(*relay.waiting)
                    relay.from_client(b"")
                    await flush()

        pumps: list[Awaitable[None]] = [
            pump(client, server, relay.from_client),
            pump(server, client, relay.from_server),
        ]
        tasks = [asyncio.ensure_future(item) for item in pumps]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
