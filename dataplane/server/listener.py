"""One engine's port in one worker: accept, first bytes, TLS, sign-in; then the splice takes over.

Before a transport exists the socket is only peeked at: the first bytes say whether the client
speaks TLS at once, asks for it in the engine's own way, or not at all (`EngineSpec.preamble`), and
a TLS ClientHello must still be there when the TLS layer reads. Bounds come before work: connections
of the worker, unfinished sign-ins in all and by address, and a deadline for each step.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import cast

from dataplane.observe import metrics
from dataplane.observe.log import ConnectionLog, get_logger
from dataplane.observe.tally import Spread, tally_of
from dataplane.server.channel import ClientStream
from dataplane.server.ports import ConnectionPorts, Services
from dataplane.server.tls import TlsContext, selected_alpn
from dataplane.server.web.front import HttpFront
from engines.kit.contract import EngineSpec, Preamble
from engines.kit.errors import LocalError, RequestError

PREAMBLE_BYTES_MAX = 64
# GSSENCRequest, then SSLRequest, then what follows in plain: nobody needs more looks.
PREAMBLE_LOOKS_MAX = 8
ACCEPTS_PER_TURN = 64
# Out of file descriptors: connections wait in the backlog meanwhile.
ACCEPT_PAUSE_S = 0.1
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

CONNECTION_ID_BYTES = 8
_TLS_HANDSHAKE = b"\x16"

Address = IPv4Address | IPv6Address


def http_preamble(data: bytes, has_tls: bool) -> Preamble:
    """The first byte of HTTP: that of a TLS record, or a method's."""
    return Preamble(tls=has_tls and data[:1] == _TLS_HANDSHAKE)


class PreambleError(Exception):
    """The first bytes are none that could become a session."""


class Deadline:
    """Ends the wait of `task` inside its block with TimeoutError once `seconds` are over.

    Does what asyncio.timeout does, for one block after the other, at a tenth of the cost.
    """

    __slots__ = ("_has_passed", "_task", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], seconds: float
    ) -> None:
        self._task = task
        self._has_passed = False
        self._timer = loop.call_later(seconds, self._pass)

    def __enter__(self) -> None:
        """The time runs already."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not (self._has_passed and isinstance(error, asyncio.CancelledError)):
            return
        # Nobody else has cancelled it: who does wants it to end.
        if self._task.uncancel() == 0:
            raise TimeoutError from error

    def _pass(self) -> None:
        self._has_passed = True
        self._task.cancel()


class Listener:
    """Accepts the connections of one engine until it is stopped."""

    def __init__(
        self,
        spec: EngineSpec,
        listening: socket.socket,
        services: Services,
        tls: TlsContext | None,
        *,
        is_pool_port: bool = False,
        front: HttpFront | None = None,
    ) -> None:
        self._is_pool_port = is_pool_port
        self._front = front
        self._preamble = spec.preamble or http_preamble
        self._spec = spec
        self._socket = listening
        self._services = services
        self._tls = tls
        if tls is not None:
            tls.context(spec.alpn)  # reads the files now, not in the first handshake
        self._loop = asyncio.get_running_loop()
        self._log = get_logger("listener", engine=spec.name)
        self._tasks: set[asyncio.Task[None]] = set()
        # By the address's text: its hash is kept, that of an address object is not.
        self._by_address: Counter[str] = Counter()
        # `socket.accept` asks for them, and makes enums of them, each time.
        self._kind = (int(listening.family), int(listening.type), listening.proto)
        self._accepted = tally_of(metrics.ACCEPTED, spec.name, "accepted")
        self._handshakes = tally_of(metrics.HANDSHAKES, spec.name)
        self._sign_in_seconds = Spread(
            metrics.SIGN_IN_SECONDS.labels(spec.name), metrics.SIGN_IN_BUCKETS
        )

    def start(self) -> None:
        """Take connections from now on."""
        self._loop.add_reader(self._socket, self._accept)

    def stop(self) -> None:
        """Take those that the kernel has accepted already, and no more."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._accept()
        self._socket.close()

    async def wait_signed_in(self, seconds_max: float) -> None:
        """Wait for the sign-ins under way; cancel what takes longer."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds_max)
            for task in late:
                task.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                # What `socket.accept` is made of; typeshed and the documentation leave it out.
                descriptor, peer = self._socket._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._log.error("accept_paused", error=str(error))
                    self._loop.remove_reader(self._socket)
                    self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again)
                return
            self._take(socket.socket(*self._kind, fileno=descriptor), *_address(peer[0]))

    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0:
            self.start()

    def _take(self, connection: socket.socket, address: Address, text: str) -> None:
        bounds = self._services.config.bounds
        if (
            len(self._tasks) >= bounds.handshakes_max
            or self._by_address[text] >= bounds.handshakes_per_address_max
            or self._services.connections >= bounds.connections_max
        ):
            connection.close()
            tally_of(metrics.ACCEPTED, self._spec.name, "over_bound").add()
            return
        self._accepted.add()
        connection.setblocking(False)
        self._by_address[text] += 1
        task = self._loop.create_task(self._serve(connection, address, text))
        self._tasks.add(task)
        self._handshakes.add()
        task.add_done_callback(lambda task: self._served(task, text))

    def _served(self, task: asyncio.Task[None], text: str) -> None:
        self._tasks.discard(task)
        self._handshakes.add(-1)
        self._by_address[text] -= 1
        if not self._by_address[text]:
            del self._by_address[text]

    async def _serve(self, connection: socket.socket, address: Address, text: str) -> None:
        """Bring one connection from its first byte to its relay, or to its end."""
        connection_id = os.urandom(CONNECTION_ID_BYTES).hex()
        log = ConnectionLog(
            component="listener",
            engine=self._spec.name,
            connection_id=connection_id,
            address=text,
        )
        bounds = self._services.config.bounds
        started = self._loop.time()
        task = cast(asyncio.Task[None], asyncio.current_task(self._loop))
        try:
            with Deadline(self._loop, task, bounds.handshake_timeout_s):
                client = await self._establish(connection, ClientStream(address, connection_id))
        except (PreambleError, TimeoutError, OSError) as error:
            connection.close()
            log.info("no_session", reason=type(error).__name__, error=str(error))
            tally_of(metrics.ACCEPTED, self._spec.name, "no_session").add()
            return
        if self._front is not None:
            self._front.take(client, log)
            return
        ports = ConnectionPorts(
            self._services, self._spec, client, log, is_pool_port=self._is_pool_port
        )
        is_spliced = False
        try:
            with Deadline(self._loop, task, bounds.sign_in_timeout_s - bounds.handshake_timeout_s):
                is_spliced = await self._sign_in(client, ports)
        except (TimeoutError, EOFError, OSError) as error:
            log.info("sign_in_broken_off", reason=type(error).__name__, error=str(error))
        except RequestError as error:
            log.info("sign_in_aborted", exc_info=error)
        except Exception:  # one connection's fault must stay its own
            log.exception("sign_in_aborted")
        finally:
            if not is_spliced:
                ports.abandon()
        self._sign_in_seconds.observe(self._loop.time() - started)

    async def _sign_in(self, client: ClientStream, ports: ConnectionPorts) -> bool:
        assert self._spec.open_session is not None
        relay = await self._spec.open_session(client, ports)
        if relay is None:
            return False
        ports.start(relay)
        return True

    async def _establish(self, connection: socket.socket, client: ClientStream) -> ClientStream:
        """Look at the first bytes, and put a transport on the socket."""
        step = await self._look(connection)
        if not step.tls:
            await self._loop.connect_accepted_socket(client.as_protocol, connection)
            return client
        assert self._tls is not None
        bounds = self._services.config.bounds
        transport, _ = await self._loop.connect_accepted_socket(
            client.as_protocol,
            connection,
            ssl=self._tls.context(self._spec.alpn),
            ssl_handshake_timeout=bounds.handshake_timeout_s,
            ssl_shutdown_timeout=bounds.linger_s,
        )
        # Bytes meant for another protocol's server must not become a session (ALPACA): who has
        # not asked for TLS in our protocol says so in the handshake.
        if not step.consume and selected_alpn(transport) != self._spec.alpn:
            client.close()
            raise PreambleError(f"TLS without the application protocol {self._spec.alpn}")
        client.secured(self._tls.facts(transport))
        return client

    async def _look(self, connection: socket.socket) -> Preamble:
        """Follow the engine's preamble up to its last step, which says whether TLS is next."""
        needs = 1
        for _ in range(PREAMBLE_LOOKS_MAX):
            data = await self._peek(connection, needs)
            step = self._preamble(data, self._tls is not None)
            if step.needs:
                if not len(data) < step.needs <= PREAMBLE_BYTES_MAX:
                    raise LocalError(f"preamble of {self._spec.name} needs {step.needs} bytes")
                needs = step.needs
                continue
            if step.consume:
                connection.recv(step.consume)
            if step.reply:
                await self._loop.sock_sendall(connection, step.reply)
            if step.tls or not step.again:
                return step
            needs = 1
        raise PreambleError("too many requests before the session")

    async def _peek(self, connection: socket.socket, needs: int) -> bytes:
        """Return the first bytes, at least `needs`, and leave them in the socket."""
        data = _peeked(connection)
        if len(data) >= needs:
            return data
        if needs > 1:
            # The kernel wakes us only once so many bytes are there, or at the end of the stream.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needs)
        readable = self._loop.create_future()
        self._loop.add_reader(connection, _resolve(readable))
        try:
            await readable
        finally:
            self._loop.remove_reader(connection)
            if needs > 1:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        data = _peeked(connection)
        if len(data) < needs:
            raise PreambleError("the stream ended before the session")
        return data


def _peeked(connection: socket.socket) -> bytes:
    try:
        return connection.recv(PREAMBLE_BYTES_MAX, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def _resolve(future: asyncio.Future[None]) -> Callable[[], None]:
    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    return resolve


@lru_cache(maxsize=4096)
def _address(text: str) -> tuple[Address, str]:
    """Return the address that the kernel names, and how it reads in logs."""
    address = ip_address(text.split("%", 1)[0])
    # A dual-stack socket shows IPv4 clients like this; allowlists speak of IPv4.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    found = mapped or address
    return found, str(found)
