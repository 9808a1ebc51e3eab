"""Sign-in: AUTH, HELLO or a client certificate, up to the relay.

    C: AUTH <user> <password> | AUTH <password> | HELLO <version> AUTH <user> <password> ...
    us to the server: AUTH <service user>, ACL SETUSER <user> ..., AUTH <user>
    S: what the client's own command is answered with

Passwords are checked here; the server knows its users by one secret of our own. Unknown names, and
passwords of nobody, get the same answer as wrong passwords.
"""

from __future__ import annotations

from collections.abc import Callable

from engines.inmemory import reply, wire
from engines.inmemory.errors import to_native
from engines.inmemory.plan import SignIn
from engines.inmemory.relay import Relay
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import (
    Candidate,
    Channel,
    ClientChannel,
    Grant,
    Hints,
    SessionPorts,
)

ENGINE = "inmemory"
# Redis' name for a client that gives a password only.
DEFAULT_USER = "default"
# Redis sets no bound; one connection shall not be enough to guess.
FAILURES_MAX = 10
# Before the sign-in; clients say who they are with the first one or two.
COMMANDS_MAX = 256
SETUP_REPLY_BYTES_MAX = 16 * 1024
# A refusal after the right password. The client may try again with another, unless it is the
# instance or we who cannot take it.
_LEAVES_OPEN = (Reason.UNAUTHENTICATED, Reason.EXPIRED, Reason.ADDRESS)


class _Login:
    """One client until it is signed in."""

    def __init__(self, client: ClientChannel, ports: SessionPorts) -> None:
        self._client = client
        self._ports = ports
        self._failures = 0
        self._data = b""
        self._position = 0
        self._server_name = client.tls.server_name if client.tls is not None else ""
        self._common_name = client.tls.common_name if client.tls is not None else ""

    async def run(self) -> Relay | None:
        """Answer commands until one of them signs in; None if the client is gone before."""
        commands = 0
        while self._failures < FAILURES_MAX and commands < COMMANDS_MAX:
            read = wire.read_arguments(self._data, self._position)
            if read is None:
                data = await self._client.read()
                if not data:
                    return None
                self._data, self._position = self._rest() + data, 0
                continue
            commands += 1
            start = self._position
            arguments, self._position = read
            if arguments:
                relay = await self._handle(arguments, self._data[start : self._position])
                if relay is not None:
                    return relay
                if arguments[0].upper() == b"QUIT":
                    return None
                await self._client.drain()
        return None

    def _rest(self) -> bytes:
        """Return what the client sent behind the present command."""
        return self._data[self._position :]

    async def _handle(self, arguments: list[bytes], command: bytes) -> Relay | None:
        """Handle one command; a relay if it signed the client in."""
        try:
            match arguments[0].upper():
                case b"AUTH":
                    return await self._auth(arguments)
                case b"HELLO":
                    return await self._hello(arguments, command)
                case b"QUIT":
                    self._client.write(reply.OK)
                case b"RESET":
                    self._client.write(reply.RESET)
                case _:
                    return await self._by_certificate(command, reply.NOAUTH)
        except RequestError as error:
            if error.reason not in _LEAVES_OPEN:
                raise
            self._failures += 1
            self._client.write(to_native(error))
        return None

    async def _auth(self, arguments: list[bytes]) -> Relay | None:
        if len(arguments) not in (2, 3):
            self._client.write(reply.wrong_arguments("auth"))
            return None
        user = arguments[1] if len(arguments) == 3 else b""
        candidate = self._prove(user, arguments[-1])
        relay = await self._open(candidate)
        self._client.write(reply.OK)
        self._client.unread(self._rest())
        return relay

    async def _hello(self, arguments: list[bytes], command: bytes) -> Relay | None:
        if len(arguments) > 1 and arguments[1] not in (b"2", b"3"):
            self._client.write(reply.NOPROTO)
            return None
        kept = arguments[:2]
        proof: tuple[bytes, bytes] | None = None
        rest = arguments[2:]
        while rest:
            option = rest[0].upper()
            if option == b"AUTH" and len(rest) >= 3:
                proof, rest = (rest[1], rest[2]), rest[3:]
            elif option == b"SETNAME" and len(rest) >= 2:
                kept += rest[:2]
                rest = rest[2:]
            else:
                self._client.write(reply.hello_syntax(rest[0]))
                return None
        if proof is None:
            return await self._by_certificate(command, reply.HELLO_NOAUTH)
        relay = await self._open(self._prove(*proof))
        # The server answers the rest of the command itself: it knows its version and its name.
        self._client.unread(wire.encode_command(*kept) + self._rest())
        return relay

    async def _by_certificate(self, command: bytes, refusal: bytes) -> Relay | None:
        """Sign in whom a client certificate names, and let its command pass; else refuse it."""
        candidate = None
        if self._common_name:
            candidate = self._find(self._common_name)
            if not self._is_certified(candidate):
                candidate = None
        if candidate is None:
            self._client.write(refusal)
            return None
        relay = await self._open(candidate)
        self._client.unread(command + self._rest())
        return relay

    def _prove(self, user: bytes, password: bytes) -> Candidate:
        """Return whom user name and password prove. Raises RequestError(UNAUTHENTICATED)."""
        directory = self._ports.directory
        username, secret = _text(user), _text(password)
        if username in ("", DEFAULT_USER):
            hints = Hints(server_name=self._server_name)
            candidate = directory.find_by_secret(ENGINE, hints, secret)
        else:
            candidate = self._find(username)
        record = candidate.record
        if record is not None and record.auth_method == "mtls":
            is_proven = self._is_certified(candidate)
        else:
            is_proven = directory.verify_password(candidate, secret)
        if not is_proven or candidate.is_mock:
            self._ports.login_failed(candidate, self._client, str(Reason.UNAUTHENTICATED))
            raise RequestError(Reason.UNAUTHENTICATED, "authentication failed")
        return candidate

    def _find(self, username: str) -> Candidate:
        """Look a user name up: as `user.instance` first, then as a name that holds a dot."""
        find = self._ports.directory.find
        name, dot, suffix = username.rpartition(".")
        if dot and name:
            hints = Hints(username=name, server_name=self._server_name, instance=suffix)
            candidate = find(ENGINE, hints)
            if not candidate.is_mock:
                return candidate
        return find(ENGINE, Hints(username=username, server_name=self._server_name))

    def _is_certified(self, candidate: Candidate) -> bool:
        return (
            candidate.record is not None
            and candidate.record.auth_method == "mtls"
            and candidate.credential.username == self._common_name
        )

    async def _open(self, candidate: Candidate) -> Relay:
        """Open the instance server's session for a proven candidate."""
        grant = self._ports.admit_login(candidate, self._client)
        credential = grant.credential
        secret = self._ports.service_secret(grant.record.instance_id)
        sign_in = SignIn(credential.username.encode(), secret.encode(), credential.role)
        try:
            await self._set_up(grant, sign_in)
        except EOFError:
            # That server was just being ended, and the client has seen nothing of it: there will be
            # another one.
            try:
                await self._set_up(grant, sign_in)
            except EOFError as error:
                raise _unreachable() from error
        return Relay(grant.gate, sign_in, self._prove_same(grant))

    async def _set_up(self, grant: Grant, sign_in: SignIn) -> None:
        """Connect, and sign in; raises EOFError if the server ends the stream meanwhile."""
        server = await self._ports.connect(grant.record)
        try:
            await _set_up(server, sign_in)
        except (EOFError, RequestError):
            server.close()
            raise

    def _prove_same(self, grant: Grant) -> Callable[[bytes, bytes], None]:
        """Return what checks a later AUTH.

        A connection belongs to the user that it was admitted for: expiry, addresses, the count of
        connections and a revocation all hang on that.
        """

        def prove_again(user: bytes, password: bytes) -> None:
            candidate = self._prove(user, password)
            assert candidate.record is not None
            proven = (candidate.record.instance_id, candidate.credential.username)
            if proven != (grant.record.instance_id, grant.credential.username):
                raise RequestError(Reason.DENIED, "connect again to sign in as another user")

        return prove_again


async def open_session(client: ClientChannel, ports: SessionPorts) -> Relay | None:
    """Sign a client in and open its instance's session; errors are answered here."""
    try:
        relay = await _Login(client, ports).run()
    except EOFError:
        relay = None
    except RequestError as error:
        client.write(to_native(error))
        relay = None
    if relay is None:
        client.close()
    return relay


async def _set_up(server: Channel, sign_in: SignIn) -> None:
    """Sign in to the instance's server as the credential's own user."""
    commands = (*sign_in.setup, sign_in.auth)
    server.write(b"".join(commands))
    await server.drain()
    data = b""
    while data.count(b"\r\n") < len(commands):
        more = await server.read()
        if not more:
            raise EOFError
        data += more
        if len(data) > SETUP_REPLY_BYTES_MAX:
            raise _unreachable()
    *lines, rest = data.split(b"\r\n", len(commands))
    service, rules, _, auth = lines
    for line in (service, rules, auth):
        if line != b"+OK":
            error = _unreachable()
            error.add_note(_text(line))
            raise error
    if rest:
        server.unread(rest)


def _unreachable() -> RequestError:
    return RequestError(Reason.BACKEND, "the instance's server does not answer")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
