"""Clients over few sessions of a real server, without a loop: who sends and who answers is chosen.

`Shared` has multiplexers over K sessions, `alone` runs the same messages in a session of their own.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from engines.relational import wire
from engines.relational.opening import ServerSession
from engines.relational.pooling import Multiplexer, server_of
from engines.relational.pooling.server import PooledServer

SYNC = wire.message(b"S")
FLUSH = wire.message(b"H")
ANSWER_SECONDS_MAX = 10.0


def query(text: str) -> bytes:
    return wire.message(b"Q", text.encode() + b"\0")


def parse(name: str, text: str) -> bytes:
    return wire.message(b"P", f"{name}\0{text}\0".encode() + bytes(2))


def bind(name: str) -> bytes:
    return wire.message(b"B", f"\0{name}\0".encode() + bytes(6))


def describe(name: str) -> bytes:
    return wire.message(b"D", b"S" + name.encode() + b"\0")


def close(name: str) -> bytes:
    return wire.message(b"C", b"S" + name.encode() + b"\0")


def execute() -> bytes:
    return wire.message(b"E", b"\0" + struct.pack("!I", 0))


def run(name: str, text: str) -> bytes:
    """Parse, bind and execute."""
    return parse(name, text) + bind(name) + execute() + SYNC


def again(name: str) -> bytes:
    """Bind and execute what was prepared before."""
    return bind(name) + execute() + SYNC


class Session:
    """One session of the server, and what is known of it."""

    def __init__(self, path: Path, database: str, user: str = "weftkit") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS_MAX)
        self._socket.connect(str(path))
        opening = ServerSession({"user": user, "database": database})
        self.send(opening.start())
        while not opening.answer(self.receive()):
            pass
        self.server: PooledServer = server_of(opening)
        self.holder: Client | None = None

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, size: int = 65536) -> bytes:
        data = self._socket.recv(size)
        assert data, "the server has closed the session"
        return data

    def close(self) -> None:
        self._socket.close()


class Pins:
    """All but one session may be kept."""

    def __init__(self, size: int) -> None:
        self.left = size - 1

    def take(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return True

    def give(self) -> None:
        self.left += 1


class Client:
    """A client's multiplexer, and all that it was told."""

    def __init__(self, pins: Pins, start: dict[bytes, bytes] | None = None) -> None:
        self.multiplexer = Multiplexer(start or {}, wire.message(b"K", bytes(8)))
        self.multiplexer.pins = pins
        self.session: Session | None = None
        self.told = b""
        self.greeting = b""

    @property
    def messages(self) -> list[tuple[bytes, bytes]]:
        messages, rest = wire.split(self.told)
        assert not rest
        return messages


class Shared:
    """Clients that take turns on sessions."""

    def __init__(self, path: Path, database: str, *, sessions: int, clients: int) -> None:
        self.sessions = [Session(path, database) for _ in range(sessions)]
        self.pins = Pins(sessions)
        self._free = deque(self.sessions)
        self._waiting: deque[Client] = deque()
        self.clients: list[Client] = []
        for _ in range(clients):
            self.clients.append(self.join())

    def join(self, start: dict[bytes, bytes] | None = None) -> Client:
        """Let a client sign in and be greeted."""
        client = Client(self.pins, start)
        self._carry_on(client)
        self.settle(client)
        return client

    def send(self, client: Client, data: bytes) -> None:
        """Have a client send something; answers come by `answer`."""
        if client.multiplexer.from_client(data):
            client.multiplexer.to_server.append(data)
        self._carry_on(client)

    def answer(self, client: Client, size: int = 65536) -> None:
        """Let the client's session say something, if it has anything to say."""
        if client.session is None:
            return
        data = client.session.receive(size)
        if client.multiplexer.from_server(data):
            client.told += data
        self._carry_on(client)

    def owes(self, client: Client) -> bool:
        """Say whether the client's session is sure to say more without being asked."""
        multiplexer = client.multiplexer
        return client.session is not None and (
            multiplexer.is_full or any(entry.kind in (2, 3) for entry in multiplexer._queue)
        )

    def settle(self, *clients: Client) -> None:
        """Take all answers of these clients, and of those that have what they wait for."""
        wanted = list(clients or self.clients)
        for _ in range(10_000):
            busy = [c for c in (*wanted, *self.clients) if self.owes(c)]
            if not busy:
                break
            self.answer(busy[0])
        assert not any(client in self._waiting for client in wanted)

    def close(self) -> None:
        for session in self.sessions:
            session.close()

    def _carry_on(self, client: Client) -> None:
        multiplexer = client.multiplexer
        while True:
            client.told += b"".join(multiplexer.to_relay)
            multiplexer.to_relay.clear()
            client.greeting += b"".join(multiplexer.to_client)
            multiplexer.to_client.clear()
            if multiplexer.to_server:
                assert client.session is not None
                client.session.send(b"".join(multiplexer.to_server))
                multiplexer.to_server.clear()
            if multiplexer.is_free and client.session is not None:
                self._release(client)
            if not multiplexer.wants_server or client.session or client in self._waiting:
                return
            if not self._free:
                self._waiting.append(client)
                return
            self._attach(client, self._free.popleft())

    def _attach(self, client: Client, session: Session) -> None:
        client.session = session
        client.multiplexer.attach(session.server)

    def _release(self, client: Client) -> None:
        session, client.session = client.session, None
        assert session is not None
        client.multiplexer.detach()
        if not self._waiting:
            self._free.append(session)
            return
        other = self._waiting.popleft()
        self._attach(other, session)
        self._carry_on(other)


def alone(path: Path, database: str, chunks: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return what the server answers to a client that has a session of its own."""
    session = Session(path, database)
    told = b""
    try:
        for chunk in chunks:
            session.send(chunk)
        wanted = sum(readies(chunk) for chunk in chunks)
        while wire.split(told)[1] or count_ready(told) < wanted:
            told += session.receive()
    finally:
        session.close()
    return wire.split(told)[0]


def readies(chunk: bytes) -> int:
    """Return how many ReadyForQuery a chunk will have, outside COPY and after no error."""
    return sum(kind in (b"S", b"Q") for kind, _ in wire.split(chunk)[0])


def count_ready(told: bytes) -> int:
    return sum(kind == b"Z" for kind, _ in wire.split(told)[0])


def comparable(messages: list[tuple[bytes, bytes]]) -> list[tuple[bytes, object]]:
    """Reduce errors to what a client goes by, and put settings in an order of their own."""
    found: list[tuple[bytes, object]] = []
    for kind, body in messages:
        if kind == b"E":
            fields = wire.fields(body)
            found.append((kind, (fields["C"], fields["M"])))
        elif kind != b"N":
            found.append((kind, body))
    return found
