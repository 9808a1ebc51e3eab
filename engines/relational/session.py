"""Startup and sign-in: from a client's first message to the relay.

    C: StartupMessage                         (or CancelRequest, which is never answered)
    S: AuthenticationSASL | AuthenticationCleartextPassword | nothing (client certificate)
    C: proof
    S: AuthenticationOk, then what the instance's own server says up to ReadyForQuery,
       with its cancel key replaced by ours

Unknown names are led through the same exchange as known ones, to the same error.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from engines.kit.auth import ScramError, ScramServer
from engines.kit.auth.scram import MECHANISM, MECHANISM_PLUS
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Candidate, ClientChannel, Grant, Hints, Pooled, SessionPorts
from engines.kit.records import Role
from engines.relational import pooling, reply, wire
from engines.relational.errors import to_native
from engines.relational.opening import ServerSession
from engines.relational.pooling import mode
from engines.relational.relay import STATUS_IDLE, Relay

ENGINE = "relational"
DATABASE = "weftkit"
# The roles inside an instance's server (created when it is provisioned).
DATABASE_ROLES: Mapping[Role, str] = {
    Role.READ: "readonly",
    Role.WRITE: "readwrite",
    Role.ADMIN: "owner",
}

# What a client is told whose idea of the channel is not ours: someone sits between, or an agent of
# its own does. It has proven nothing so far, and known and unknown names are told the same.
CHANNEL_BINDING_ERRORS: Mapping[str, str] = {
    "server-does-support-channel-binding": "SCRAM channel binding negotiation error",
    "channel-bindings-dont-match": "SCRAM channel binding check failed",
}
CACHED_STARTUP_BYTES_MAX = 1024
STARTUPS_CACHED = 512

_HANDLE = re.compile(r"[a-z0-9-]{3,40}")
# `options` names an instance as a setting, as a long option or alone.
_INSTANCE_OPTION = re.compile(r"(?:--)?(?:weftkit\.)?instance=(.*)", re.S)
_OFF = ("", "false", "off", "no", "0")
# What is ours to say to the server, and what must not reach it.
_OWN_PARAMETERS = ("user", "database", "options", "replication", mode.PARAMETER)


@dataclass(frozen=True, slots=True)
class _Request:
    """A StartupMessage, read as a wish: who, where, with which settings."""

    username: str
    hints: tuple[Hints, ...]  # to be tried in this order
    database: str
    settings: Mapping[str, str]
    is_pooled: bool | None  # None where nothing is said: the port decides


async def open_session(client: ClientChannel, ports: SessionPorts) -> Relay | Pooled | None:
    """Sign a client in and open its instance's session; errors are answered here."""
    try:
        return await _open_session(client, ports)
    except EOFError:
        client.close()
    except RequestError as error:
        client.write(to_native(error, "FATAL"))
        client.close()
    return None


async def _open_session(client: ClientChannel, ports: SessionPorts) -> Relay | Pooled | None:
    length = wire.startup_length(await client.read_exactly(4))
    body = await client.read_exactly(length)
    is_short = length <= CACHED_STARTUP_BYTES_MAX
    startup = (_cached_startup if is_short else wire.parse_startup)(body)
    if isinstance(startup, wire.Cancel):
        await _cancel(startup, client, ports)
        client.close()
        return None
    if startup.minor > wire.PROTOCOL_MINOR_MAX or startup.options:
        minor = min(startup.minor, wire.PROTOCOL_MINOR_MAX)
        client.write(reply.negotiate_protocol_version(minor, startup.options))
    server_name = client.tls.server_name if client.tls is not None else ""
    request = (_cached_request if is_short else _request)(body, server_name)
    candidate = _find(request, ports)
    proof = await _prove(request, candidate, client, ports)
    is_pooled = ports.is_pool_port if request.is_pooled is None else request.is_pooled
    grant = ports.admit_login(candidate, client, is_pooled=is_pooled)
    if is_pooled:
        return _share_servers(proof, request, grant, client, ports)
    return await _open_server(proof, request, grant, client, ports)


async def _cancel(cancel: wire.Cancel, client: ClientChannel, ports: SessionPorts) -> None:
    """Pass a CancelRequest on to the server of the session that it names."""
    owner = await ports.token_redeem(cancel.token, client)
    if owner is None:
        return
    record, key = owner
    if not key:
        return  # of a client that shares sessions: its worker has seen to it
    server = await ports.connect(record)
    try:
        server.write(wire.cancel_request(key))
        await server.drain()
        # The server closes when it has sent the signal.
        await server.read()
    finally:
        server.close()


def _read_request(startup: wire.Startup, server_name: str) -> _Request:
    parameters = startup.parameters
    user = parameters.get("user", "")
    if not user:
        raise RequestError(Reason.ADDRESS, "no PostgreSQL user name specified in startup packet")
    if parameters.get("replication", "").lower() not in _OFF:
        raise RequestError(Reason.UNSUPPORTED, "replication connections are not supported")
    words, instance = _take_instance(wire.split_options(parameters.get("options", "")))
    words, is_pooled = mode.take(words, parameters.get(mode.PARAMETER))
    database = parameters.get("database", "")
    hints = tuple(
        Hints(username, server_name, _agreed(instance, suffix), database)
        for username, suffix in _readings(user)
    )
    settings = {n: v for n, v in parameters.items() if n not in _OWN_PARAMETERS}
    if words:
        settings["options"] = " ".join(wire.escape_option(word) for word in words)
    return _Request(user, hints, database, settings, is_pooled)


def _request(body: bytes, server_name: str) -> _Request:
    startup = wire.parse_startup(body)
    assert isinstance(startup, wire.Startup)
    return _read_request(startup, server_name)


# Clients that connect again and again say the same each time.
_cached_startup = lru_cache(maxsize=STARTUPS_CACHED)(wire.parse_startup)
_cached_request = lru_cache(maxsize=STARTUPS_CACHED)(_request)


def _readings(user: str) -> list[tuple[str, str]]:
    """Return the ways to read a user name: `user.instance`, then a name that holds a dot."""
    name, dot, suffix = user.rpartition(".")
    if dot and name and _HANDLE.fullmatch(suffix):
        return [(name, suffix), (user, "")]
    return [(user, "")]


def _agreed(instance: str, suffix: str) -> str:
    if instance and suffix and instance != suffix:
        return "\0"  # no instance has this name, so that the sign-in fails like any other
    return instance or suffix


def _take_instance(words: list[str]) -> tuple[list[str], str]:
    """Separate the word that names an instance from those that are the server's."""
    kept: list[str] = []
    instance = ""
    for word in words:
        match = _INSTANCE_OPTION.fullmatch(word.removeprefix("-c"))
        if match is None:
            kept.append(word)
            continue
        if kept and kept[-1] == "-c":
            kept.pop()
        instance = _agreed(instance, match[1])
    return kept, instance


def _find(request: _Request, ports: SessionPorts) -> Candidate:
    candidate = ports.directory.find(ENGINE, request.hints[0])
    for hints in request.hints[1:]:
        if candidate.is_mock:
            candidate = ports.directory.find(ENGINE, hints)
    return candidate


async def _prove(
    request: _Request, candidate: Candidate, client: ClientChannel, ports: SessionPorts
) -> bytes:
    """Let the client prove that it is the candidate; return what to say before AuthenticationOk."""
    method = candidate.record.auth_method if candidate.record is not None else "password"
    try:
        match method:
            case "mtls":
                _check_certificate(candidate, client)
                return b""
            case "jwt":
                await _check_token(candidate, client, ports)
                return b""
            case _:
                return await _exchange_scram(candidate, client, ports)
    except RequestError as error:
        ports.login_failed(candidate, client, str(error.reason))
        if isinstance(error, ScramError) and error.server_error in CHANNEL_BINDING_ERRORS:
            raise RequestError(
                Reason.ADDRESS, CHANNEL_BINDING_ERRORS[error.server_error]
            ) from error
        if error.reason is Reason.UNAUTHENTICATED:
            raise RequestError(
                Reason.UNAUTHENTICATED,
                f'password authentication failed for user "{request.username}"',
            ) from error
        raise


async def _exchange_scram(
    candidate: Candidate, client: ClientChannel, ports: SessionPorts
) -> bytes:
    binding = client.tls.channel_binding if client.tls is not None else b""
    offered = [MECHANISM_PLUS, MECHANISM] if binding else [MECHANISM]
    client.write(reply.authentication_sasl(offered))
    body = await _read_password(client, wire.SASL_BYTES_MAX)
    # SASLInitialResponse: mechanism, length of the data or -1, data.
    name, _, rest = body.partition(b"\0")
    if len(rest) < 4 or struct.unpack_from("!i", rest)[0] != len(rest) - 4:
        raise RequestError(Reason.MALFORMED, "malformed SASL message")
    mechanism = wire.text(name)
    if mechanism not in offered:
        raise RequestError(Reason.MALFORMED, "client selected an invalid SASL mechanism")
    server = ScramServer(mechanism, channel_binding=binding or None)
    server.begin(rest[4:])
    challenge = server.challenge(candidate.credential, ports.clock.now())
    client.write(reply.authentication_sasl_continue(challenge))
    final = server.finish(await _read_password(client, wire.SASL_BYTES_MAX))
    if candidate.is_mock:
        raise RequestError(Reason.UNAUTHENTICATED, "authentication failed")
    return reply.authentication_sasl_final(final)


async def _check_token(candidate: Candidate, client: ClientChannel, ports: SessionPorts) -> None:
    """A token travels as a cleartext password, so only inside TLS."""
    if client.tls is None:
        raise RequestError(
            Reason.ADDRESS,
            "this instance is signed in to with a token, which needs an encrypted connection",
            hint="Connect with sslmode=require.",
        )
    client.write(reply.AUTHENTICATION_CLEARTEXT)
    token = (await _read_password(client, wire.PASSWORD_BYTES_MAX)).removesuffix(b"\0")
    if not ports.directory.verify_password(candidate, wire.text(token)):
        raise RequestError(Reason.UNAUTHENTICATED, "authentication failed")


def _check_certificate(candidate: Candidate, client: ClientChannel) -> None:
    common_name = client.tls.common_name if client.tls is not None else ""
    if candidate.is_mock or not common_name or common_name != candidate.credential.username:
        raise RequestError(Reason.UNAUTHENTICATED, "authentication failed")


async def _read_password(client: ClientChannel, bytes_max: int) -> bytes:
    """Read the body of a PasswordMessage, SASLInitialResponse or SASLResponse."""
    await client.drain()
    kind, length = wire.header(await client.read_exactly(wire.HEADER_BYTES), bytes_max)
    if kind != b"p":
        raise RequestError(
            Reason.MALFORMED, f"expected password response, got message type {kind[0]}"
        )
    return await client.read_exactly(length)


def _server_parameters(request: _Request, grant: Grant) -> dict[str, str]:
    """Return what the instance's server is asked for: its own role, the client's settings."""
    # libpq and psql send the user name where no database is given.
    is_own = request.database in ("", grant.record.handle, request.username)
    return {
        "user": DATABASE_ROLES[grant.credential.role],
        "database": DATABASE if is_own else request.database,
        **request.settings,
    }


def _share_servers(
    proof: bytes, request: _Request, grant: Grant, client: ClientChannel, ports: SessionPorts
) -> Pooled:
    """Let the client share the server's sessions; its greeting comes with the first of them."""
    parameters, start = pooling.split_parameters(_server_parameters(request, grant))
    # No process of the server is the client's, so its number means nothing.
    token = ports.token_issue(grant, b"", upper=secrets.randbits(31))
    client.write(proof + reply.AUTHENTICATION_OK)
    return Pooled(
        relay=Relay(grant.gate),
        multiplexer=pooling.Multiplexer(start, reply.backend_key_data(token)),
        new_session=lambda: ServerSession(parameters),
        server_of=pooling.server_of,
        token=token,
    )


async def _open_server(
    proof: bytes, request: _Request, grant: Grant, client: ClientChannel, ports: SessionPorts
) -> Relay:
    """Open the instance server's session, or take one that was left, and pass its greeting on."""
    signed_in = proof + reply.AUTHENTICATION_OK
    try:
        wanted = ServerSession(_server_parameters(request, grant))
        server = await ports.open_server(grant.record, wanted)
    except RequestError:
        client.write(signed_in)
        raise
    token = ports.token_issue(grant, server.cancel_key, upper=server.pid)
    client.write(
        signed_in
        + server.greeting()
        + reply.backend_key_data(token)
        + reply.ready_for_query(STATUS_IDLE)
    )
    return Relay(grant.gate)
