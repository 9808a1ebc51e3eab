"""Clients of the in-memory engine that mean harm: framing tricks, floods, roles too wide."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as client_library

from engines.inmemory.plan import EXTRAS, RULES, SignIn
from engines.inmemory.relay import Relay
from engines.inmemory.session import COMMANDS_MAX, open_session
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import ClientChannel, SessionPorts
from engines.kit.records import Role
from tests.engines.border import ProgrammableGate
from tests.servers import RedisServer

SMUGGLED = b"SET a 1\r\nSET b 2\r\nGET a"


def prove_again(user: bytes, password: bytes) -> None:
    raise RequestError(Reason.UNAUTHENTICATED, "no")


@pytest.mark.parametrize(
    "header",
    [
        b">2\r\n$4\r\nPING\r\n",  # a push
        b"~2\r\n$4\r\nPING\r\n",  # a set
        b"%1\r\n:0\r\n",  # a map, whose element 0 is taken for the name
        b"|1\r\n$4\r\nPING\r\n",  # attributes
        b"*1\r\n$4\r\nPINGxx>2\r\n$4\r\nPING\r\n",  # behind a command that has no line end
    ],
)
def test_commands_inside_of_what_only_resp3_servers_send_are_counted(header: bytes) -> None:
    """Redis reads these headers as inline commands, and what is inside as more of them."""
    gate = ProgrammableGate()
    relay = Relay(gate, SignIn(b"wk_a", b"service", Role.ADMIN), prove_again)
    relay.from_client(header + b"$%d\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED))
    performed = gate.performed()
    # Two SETs and the headers, which Redis does not know; and the GET.
    assert performed["write"] >= 4
    assert performed["read"] == 1


class Crowd:
    """A client channel that holds all that its client has to say."""

    tls = None

    def __init__(self, data: bytes) -> None:
        self.unread_bytes = data
        self.sent = 0
        self.is_closed = False

    async def read(self) -> bytes:
        data, self.unread_bytes = self.unread_bytes[:65536], self.unread_bytes[65536:]
        return data

    def write(self, data: bytes) -> None:
        self.sent += 1

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("command", [b"\n", b"*0\r\n", b"PING\r\n"])
async def test_a_client_that_never_signs_in_is_cut_off(command: bytes) -> None:
    client: ClientChannel = Crowd(command * 200_000)  # type: ignore[assignment]
    ports: SessionPorts = None  # type: ignore[assignment]  # nothing is asked of them
    assert await open_session(client, ports) is None
    assert isinstance(client, Crowd)
    assert client.is_closed
    assert client.sent <= COMMANDS_MAX
    # It was not read to its end: the rest was not worth the time.
    assert len(client.unread_bytes) > 0


@pytest.fixture
def service(redis: RedisServer) -> Iterator[client_library.Redis]:
    with client_library.Redis.from_url(redis.url()) as direct:
        yield direct


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("command", ["SCRIPT DEBUG SYNC", "SCRIPT DEBUG YES", "CLIENT PAUSE 1"])
def test_no_role_may_stop_the_server_for_others(
    service: client_library.Redis, redis: RedisServer, role: Role, command: str
) -> None:
    name = f"abuse_{role.value}"
    service.execute_command(
        "ACL SETUSER", name, "reset", "on", ">pw", "~*", "&*", *RULES[role].decode().split()
    )
    try:
        with (
            client_library.Redis(
                unix_socket_path=str(redis.socket), username=name, password="pw"
            ) as client,
            pytest.raises(client_library.exceptions.NoPermissionError),
        ):
            client.execute_command(*command.split())
    finally:
        service.acl_deluser(name)


def test_readers_end_no_script_of_others() -> None:
    for forbidden in (b"+script|kill", b"+script|flush"):
        assert forbidden not in RULES[Role.READ]
        assert forbidden in RULES[Role.WRITE]
    assert b"-function|kill" in EXTRAS[Role.READ]
