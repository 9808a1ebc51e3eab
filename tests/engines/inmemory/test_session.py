"""Sign-in: AUTH, HELLO, certificates and tokens; redis-py as the client, odd ones by hand."""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as client_library

from engines.inmemory import reply
from engines.inmemory.engine import ENGINE
from engines.inmemory.session import FAILURES_MAX
from engines.inmemory.wire import encode_command
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Tls
from tests.engines.border import Border, account, instance
from tests.engines.inmemory.conftest import OWNER, READER, SECRET, connect

USER, PASSWORD = OWNER.credential.username, OWNER.password
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


class RawClient:
    """A client that says exactly what it is told to."""

    def __init__(self, border: Border) -> None:
        self.socket = sockets.create_connection(("127.0.0.1", border.port), 10)

    def say(self, *arguments: str) -> None:
        self.send(encode_command(*(argument.encode() for argument in arguments)))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hears(self, expected: bytes) -> None:
        """Check that exactly these bytes come next."""
        got = b""
        while len(got) < len(expected):
            data = self.socket.recv(len(expected) - len(got))
            if not data:
                break
            got += data
        assert got == expected

    def hears_the_end(self) -> None:
        assert self.socket.recv(1) == b""


@pytest.fixture
def raw(border: Border) -> Iterator[RawClient]:
    """A client on a border's port."""
    client = RawClient(border)
    with contextlib.closing(client.socket):
        yield client


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("username", [USER, None, f"{USER}.demo-one"])
def test_drivers_sign_in_by_name_or_by_password_alone(
    border: Border, protocol: int, username: str | None
) -> None:
    with connect(border, username=username, protocol=protocol, client_name="shop") as client:
        assert client.acl_whoami() == USER
        assert client.client_getname() == "shop"
        assert client.set("k", "v") is True


@pytest.mark.parametrize(
    "options",
    [
        {"password": "wrong"},
        {"username": "wk_zzzzzzzzzzzz"},
        {"username": f"{USER}.nosuch-one"},
        {"username": None, "password": "wrong"},
        {"username": None, "password": "wk_zzzzzzzzzzzz_" + "s" * 32},
    ],
)
def test_whatever_is_wrong_the_answer_is_the_same(
    border: Border, options: dict[str, object]
) -> None:
    with (
        pytest.raises(client_library.AuthenticationError) as refused,
        connect(border, **options) as client,  # type: ignore[arg-type]
    ):
        client.ping()
    assert str(refused.value).endswith("invalid username-password pair or user is disabled.")
    assert border.failures == ["unauthenticated"]


def test_before_the_sign_in_nothing_else_is_answered(raw: RawClient) -> None:
    for command in (("PING",), ("GET", "k"), ("CLIENT", "SETNAME", "x"), ("NOSUCH",)):
        raw.say(*command)
        raw.hears(reply.NOAUTH)
    raw.say("HELLO", "3")
    raw.hears(reply.HELLO_NOAUTH)
    raw.say("HELLO", "4")
    raw.hears(reply.NOPROTO)
    raw.say("HELLO", "3", "AUTH", USER)
    raw.hears(reply.hello_syntax(b"AUTH"))
    raw.say("AUTH", "a", "b", "c")
    raw.hears(reply.wrong_arguments("auth"))
    raw.say("RESET")
    raw.hears(reply.RESET)
    raw.send(b"*0\r\n\r\n")
    raw.say("QUIT")
    raw.hears(reply.OK)
    raw.hears_the_end()


def test_a_pipeline_that_begins_with_auth_is_answered_in_order(raw: RawClient) -> None:
    raw.send(
        encode_command(b"PING")
        + encode_command(b"AUTH", USER.encode(), b"wrong")
        + b"AUTH %b %b\r\n" % (USER.encode(), PASSWORD.encode())
        + encode_command(b"SET", b"k", b"v")
        + b"GET k\r\n"
    )
    raw.hears(reply.NOAUTH + WRONGPASS + b"+OK\r\n+OK\r\n$1\r\nv\r\n")


def test_a_command_may_come_byte_by_byte(raw: RawClient) -> None:
    for byte in encode_command(b"AUTH", USER.encode(), PASSWORD.encode()):
        raw.send(bytes([byte]))
    raw.hears(b"+OK\r\n")


def test_the_server_answers_hello_itself(raw: RawClient) -> None:
    raw.say("HELLO", "3", "AUTH", USER, PASSWORD, "SETNAME", "shop")
    raw.hears(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")


def test_guessing_ends_the_connection(raw: RawClient) -> None:
    for _ in range(FAILURES_MAX):
        raw.say("AUTH", USER, "wrong")
        raw.hears(WRONGPASS)
    raw.hears_the_end()


@pytest.mark.parametrize(
    "garbage",
    [b"*11\r\n", b"*1\r\n$16385\r\n", b"*1\r\n+PING\r\n", b'AUTH "x\r\n', b"x" * 70_000],
)
def test_what_breaks_the_protocol_ends_the_connection(raw: RawClient, garbage: bytes) -> None:
    raw.send(garbage)
    raw.hears(b"-ERR Protocol error: ")


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        (Reason.EXPIRED, b"-WRONGPASS not now\r\n"),
        (Reason.ADDRESS, b"-NOPERM not now\r\n"),
        (Reason.SUSPENDED, b"-ERR not now\r\n"),
        (Reason.CONNECTIONS, b"-ERR max number of clients reached\r\n"),
        (Reason.SHUTDOWN, b"-LOADING this server is shutting down, connect again\r\n"),
    ],
)
def test_a_proven_client_is_told_why_it_may_not_come_in(
    border: Border, raw: RawClient, reason: Reason, answer: bytes
) -> None:
    border.login_error = RequestError(reason, "not now")
    raw.say("AUTH", USER, PASSWORD)
    raw.hears(answer)
    if reason in (Reason.EXPIRED, Reason.ADDRESS):
        border.login_error = None
        raw.say("AUTH", USER, PASSWORD)
        raw.hears(b"+OK\r\n")
    else:
        raw.hears_the_end()


def test_an_unreachable_server_looks_like_one_that_is_loading(
    border: Border, raw: RawClient
) -> None:
    border.connect_error = RequestError(Reason.BACKEND, "the instance's server is not reachable")
    raw.say("AUTH", USER, PASSWORD)
    raw.hears(b"-LOADING the instance's server is not reachable\r\n")
    raw.hears_the_end()


def test_a_server_that_does_not_know_us_is_not_shown(border: Border, raw: RawClient) -> None:
    border.service_secret = "another"
    raw.say("AUTH", USER, PASSWORD)
    raw.hears(b"-LOADING the instance's server does not answer\r\n")
    raw.hears_the_end()


def test_a_certificate_signs_in_with_the_first_command(socket: Path) -> None:
    record = instance("inmemory", OWNER, READER, auth_method="mtls")
    shown = Tls(common_name=USER)
    with Border(ENGINE, socket, [record], tls=shown, service_secret=SECRET).listening() as border:
        for protocol in (2, 3):
            with connect(border, username=None, password=None, protocol=protocol) as client:
                assert client.acl_whoami() == USER
        with connect(border, password="anything") as client:
            assert client.acl_whoami() == USER
        with pytest.raises(client_library.AuthenticationError), connect(border, READER) as client:
            client.ping()
    with (
        Border(ENGINE, socket, [record], service_secret=SECRET).listening() as border,
        pytest.raises(client_library.AuthenticationError),
        connect(border) as client,
    ):
        client.ping()


def test_a_token_takes_the_place_of_the_password(socket: Path) -> None:
    record = instance("inmemory", OWNER, auth_method="jwt")
    tokens = {USER: "a.long.token"}
    with Border(
        ENGINE, socket, [record], tokens_by_user=tokens, service_secret=SECRET
    ).listening() as border:
        with connect(border, password="a.long.token") as client:
            assert client.ping() is True
        with pytest.raises(client_library.AuthenticationError), connect(border) as client:
            client.ping()


def test_a_dot_may_be_part_of_a_plain_user_name(socket: Path) -> None:
    dotted = account(username="first.last", password="pw")
    with (
        Border(
            ENGINE, socket, [instance("inmemory", dotted)], service_secret=SECRET
        ).listening() as border,
        connect(border, dotted) as client,
    ):
        assert client.acl_whoami() == "first.last"


@contextlib.contextmanager
def ending_server(path: Path, connections: int, successor: Path) -> Iterator[None]:
    """Listen at `path` and end so many connections at once; then `successor` stands there."""
    link = path.with_name("next")
    link.symlink_to(successor)
    with sockets.socket(sockets.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for number in range(connections):
                connection, _ = listening.accept()
                connection.recv(65536)
                if number == connections - 1:
                    link.replace(path)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    ("connections", "answer"),
    [(1, reply.OK), (2, b"-LOADING the instance's server does not answer\r\n")],
)
def test_a_server_that_ends_during_the_sign_in_is_followed_by_the_next_one(
    connections: int, answer: bytes, socket: Path, tmp_path: Path
) -> None:
    records = [instance("inmemory", OWNER)]
    path = tmp_path / "s"
    with (
        ending_server(path, connections, socket),
        Border(ENGINE, path, records, service_secret=SECRET).listening() as border,
    ):
        client = RawClient(border)
        with contextlib.closing(client.socket):
            client.say("AUTH", USER, PASSWORD)
            client.hears(answer)
