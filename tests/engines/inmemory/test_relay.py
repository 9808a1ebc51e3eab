"""The relay alone, with both peers by hand: framing at every cut, refusals, units."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.inmemory.plan import SignIn
from engines.inmemory.relay import Relay
from engines.inmemory.relay.marks import MARKS_MAX, mask_directory
from engines.inmemory.wire import encode_command
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass
from engines.kit.records import Role
from tests.engines.border import ProgrammableGate

SIGN_IN = SignIn(b"wk_a", b"service", Role.ADMIN)
REFUSAL = b"-ERR rate limit exceeded: 20 read units per second, retry after 350 ms\r\n"


def command(*words: str) -> bytes:
    return encode_command(*(word.encode() for word in words))


def prove_again(user: bytes, password: bytes) -> None:
    if (user, password) not in ((b"wk_a", b"right"), (b"", b"right")):
        raise RequestError(Reason.UNAUTHENTICATED, "no")


class Wired:
    """A relay between two peers that are lists of bytes."""

    def __init__(self, **limits: int) -> None:
        self.gate = ProgrammableGate()
        for name, units in limits.items():
            self.gate.limit(RequestClass[name.upper()], units)
        self.relay = Relay(self.gate, SIGN_IN, prove_again)

    def client(self, data: bytes) -> bytes:
        """Send as the client; return what the server gets."""
        if self.relay.from_client(data):
            return self._take(self.relay.to_server) + data
        return self._take(self.relay.to_server)

    def server(self, data: bytes) -> bytes:
        """Send as the server; return what the client gets."""
        if self.relay.from_server(data):
            return self._take(self.relay.to_client) + data
        return self._take(self.relay.to_client)

    @staticmethod
    def _take(queue: list[bytes]) -> bytes:
        data = b"".join(queue)
        queue.clear()
        return data


def poisons_of(sent: bytes) -> list[bytes]:
    """Return the random names among the commands."""
    return [part.split(b"\r\n")[0] for part in sent.split(b"\r\n$41\r\n")[1:]]


def unknown(name: bytes, quote: bytes = b"'") -> bytes:
    """Return what Redis answers to a command that it does not know."""
    return b"-ERR unknown command %b%b%b, with args beginning with: \r\n" % (quote, name, quote)


def cuts(data: bytes, points: Iterable[int]) -> list[bytes]:
    """Cut `data` at these points."""
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


CLIENT_STREAM = b"".join(
    [
        command("GET", "k"),
        command("set", "k", "x\r\n*1\r\n$4\r\nPING\r\n"),
        command("SET", "k", "y" * 5000),
        command("MULTI"),
        command("INCR", "n"),
        command("LPUSH", "l", "1", "2", "3"),
        command("EXEC"),
        command("SORT", "l", "STORE", "m"),
        command("Subscribe", "news"),
        command("EVAL", "return 1", "0"),
        command("HELLO", "3"),
        command("MGET", *(f"key:{number}" for number in range(300))),
        command("QUIT"),
    ]
)
CLIENT_UNITS = {"unlimited": 5, "read": 2, "write": 5, "query": 1}


@given(st.lists(st.integers(0, 20_000), max_size=12))
def test_every_cut_of_the_clients_stream_gives_the_same_bytes_and_units(points: list[int]) -> None:
    wired = Wired()
    sent = b"".join(wired.client(chunk) for chunk in cuts(CLIENT_STREAM, points))
    assert sent == CLIENT_STREAM
    assert wired.gate.performed() == CLIENT_UNITS


def test_single_bytes_give_the_same_as_one_chunk() -> None:
    wired = Wired()
    sent = b"".join(wired.client(CLIENT_STREAM[i : i + 1]) for i in range(len(CLIENT_STREAM)))
    assert sent == CLIENT_STREAM
    assert wired.gate.performed() == CLIENT_UNITS


@given(st.lists(st.integers(0, 20_000), max_size=8), st.integers(0, 3))
def test_every_cut_refuses_the_same_commands(points: list[int], units: int) -> None:
    wired = Wired(read=units)
    stream = command("GET", "a" * 30) * 3 + command("SET", "k", "v") + command("MGET", "b", "c")
    sent = b"".join(wired.client(chunk) for chunk in cuts(stream, points))
    names = poisons_of(sent)
    assert len(names) == 4 - units
    kept = [command("GET", "a" * 30)] * 3 + [command("SET", "k", "v"), command("MGET", "b", "c")]
    expected, left = b"", units
    for item in kept:
        if item.startswith(b"*3\r\n$3\r\nSET") or left:
            left -= not item.startswith(b"*3\r\n$3\r\nSET")
            expected += item
        else:
            expected += encode_command(names.pop(0))
    assert sent == expected
    assert wired.gate.performed() == {k: v for k, v in (("read", units), ("write", 1)) if v}


@given(st.lists(st.integers(0, 1000), max_size=10), st.sampled_from([b"'", b"`"]))
def test_every_cut_of_the_replies_shows_the_refusals_in_their_place(
    points: list[int], quote: bytes
) -> None:
    wired = Wired(read=0)
    first, second = poisons_of(wired.client(command("GET", "a") + command("GET", "b")))
    replies = (
        b"+OK\r\n$30\r\n-ERR unknown command 'weftkit_\r\n"
        + unknown(first, quote)
        + b":1\r\n-ERR unknown command 'nosuch', with args beginning with: \r\n"
        + unknown(second, quote)
        + b"$-1\r\n"
    )
    expected = replies.replace(unknown(first, quote), REFUSAL).replace(
        unknown(second, quote), REFUSAL
    )
    got = b"".join(wired.server(chunk) for chunk in cuts(replies, points))
    assert got == expected
    assert wired.relay.is_idle


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from(
        [b"*1\r\n$4\r\nEXEC\r\n", b"*2\r\n", b"$3\r\nGET\r\n", b"$-1\r\n", b"GET k\r\n", b"*0\r\n",
         b"*1\r\n$5\r\nMULTI\r\n", b"*99999\r\n", b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n"]
    ), max_size=8),
    st.lists(st.binary(max_size=60), max_size=6),
)  # fmt: skip
def test_garbage_from_either_side_raises_nothing(client: list[bytes], server: list[bytes]) -> None:
    wired = Wired(read=1)
    for chunk in client:
        wired.relay.from_client(chunk)
    for chunk in server:
        wired.relay.from_server(chunk)


@pytest.mark.parametrize(
    ("broken", "garbage"),
    [
        (b"*x\r\n", b"*x\r\n"),
        (b"*1\r\n$x\r\n", b"*1\r\n$x\r\n"),
        (b"*2\r\n$3\r\nGET\r\n+k\r\n", b"*2\r\n$3\r\nGET\r\n+\r\n"),
        (b"*2\r\n$3\r\nGET\r\n:1\r\n", b"*2\r\n$3\r\nGET\r\n:\r\n"),
        (b"*1\rx$4\r\nPING\r\n", b"*x\r\n"),
        (b'GET "k\r\n', b'"\r\n'),
        (b"*2000000\r\n", b"*x\r\n"),
    ],
)
def test_broken_framing_is_left_to_the_server_to_refuse(broken: bytes, garbage: bytes) -> None:
    for stream in (broken, command("PING") + broken, command("MULTI") + broken):
        wired = Wired()
        sent = wired.client(stream + command("SET", "a", "b"))
        assert sent == stream.removesuffix(broken) + garbage or sent == stream + command(
            "SET", "a", "b"
        )
        if sent.endswith(garbage):
            assert wired.client(command("SET", "a", "b")) == b""


def test_a_long_value_streams_through_without_being_kept() -> None:
    wired = Wired()
    value = command("SET", "k", "v" * 1_000_000) + command("GET", "k")
    for start in range(0, len(value), 65_536):
        chunk = value[start : start + 65_536]
        assert wired.client(chunk) == chunk
    assert wired.gate.performed() == {"read": 1, "write": 1}


def test_a_long_refused_value_is_dropped_to_its_end() -> None:
    wired = Wired(write=0)
    value = command("SET", "k", "v" * 100_000, "EX", "5")
    (name,) = poisons_of(wired.client(value[:50_000]))
    assert wired.client(value[50_000:90_000]) == b""
    assert wired.client(value[90_000:] + command("GET", "k")) == command("GET", "k")
    assert wired.server(unknown(name)).startswith(b"-ERR rate limit exceeded: 20 write units")


def test_inline_commands_go_on_as_arrays() -> None:
    wired = Wired()
    sent = wired.client(b'PING\r\nset k "a b"\r\n\r\n' + command("GET", "k") + b"GET k\n")
    assert sent == (
        command("PING") + command("set", "k", "a b") + command("GET", "k") + command("GET", "k")
    )
    assert wired.gate.performed() == {"unlimited": 1, "read": 2, "write": 1}


def test_units_are_waited_for_command_by_command() -> None:
    wired = Wired(read=2)
    wired.gate.fetch_units = 1
    stream = command("SET", "k", "v") + command("GET", "k") * 2
    assert wired.client(stream) == command("SET", "k", "v")
    assert wired.relay.waiting == (RequestClass.READ, 1)
    assert wired.client(command("PING")) == b""  # came before reading was paused
    wired.gate.local[RequestClass.READ] += 1
    assert wired.client(b"") == command("GET", "k")
    assert wired.relay.waiting == (RequestClass.READ, 1)
    wired.gate.fetch_units = 0
    wired.gate.left[RequestClass.READ] = 0
    sent = wired.client(b"")
    assert len(poisons_of(sent)) == 1
    assert sent.endswith(command("PING"))
    assert wired.gate.performed() == {"unlimited": 1, "read": 1, "write": 1}


class TestTransactions:
    """MULTI, and what is given back."""

    def test_a_refused_command_aborts_and_gives_the_others_back(self) -> None:
        wired = Wired(read=0)
        sent = wired.client(
            command("MULTI") + command("SET", "k", "v") + command("GET", "k") + command("EXEC")
        )
        refused, before_exec = poisons_of(sent)
        got = wired.server(
            b"+OK\r\n+QUEUED\r\n" + unknown(refused) + unknown(before_exec) + b"-EXECABORT x\r\n"
        )
        assert got == b"+OK\r\n+QUEUED\r\n" + REFUSAL + b"-EXECABORT x\r\n"
        assert wired.gate.performed() == {"unlimited": 2}

    def test_discard_gives_back_what_was_queued(self) -> None:
        wired = Wired()
        sent = wired.client(command("MULTI") + command("SET", "k", "v") + command("DISCARD"))
        (mark,) = poisons_of(sent)
        assert wired.server(b"+OK\r\n+QUEUED\r\n" + unknown(mark)) == b"+OK\r\n+QUEUED\r\n"
        assert wired.server(b"+OK\r\n") == b"+OK\r\n"
        assert wired.gate.performed() == {"unlimited": 2}

    def test_a_discard_that_fails_gives_nothing_back(self) -> None:
        wired = Wired()
        (mark,) = poisons_of(
            wired.client(command("MULTI") + command("SET", "k", "v") + command("DISCARD"))
        )
        wired.server(b"-ERR x\r\n+OK\r\n" + unknown(mark) + b"-ERR DISCARD without MULTI\r\n")
        assert wired.gate.performed() == {"unlimited": 2, "write": 1}

    def test_words_that_only_look_like_transactions_open_none(self) -> None:
        wired = Wired()
        wired.client(command("MULTI", "x") + command("SET", "k", "v"))
        assert wired.client(command("DISCARD")) == command("DISCARD")
        assert wired.client(command("EXEC") + command("MULTI")) == (
            command("EXEC") + command("MULTI")
        )
        wired.server(b"-ERR\r\n+OK\r\n")
        assert not wired.relay.is_idle  # a transaction is open

    def test_sign_in_inside_a_transaction_is_refused(self) -> None:
        wired = Wired()
        (name,) = poisons_of(wired.client(command("MULTI") + command("AUTH", "wk_a", "right")))
        assert wired.server(unknown(name)) == b"-ERR AUTH inside MULTI is not supported\r\n"


class TestSignInAgain:
    """AUTH and HELLO of a signed-in client."""

    @pytest.mark.parametrize(
        ("said", "sent"),
        [
            (("AUTH", "wk_a", "right"), ("AUTH", "wk_a", "service")),
            (("auth", "right"), ("AUTH", "wk_a", "service")),
            (
                ("HELLO", "3", "SETNAME", "n", "auth", "wk_a", "right"),
                ("HELLO", "3", "SETNAME", "n", "auth", "wk_a", "service"),
            ),
            (("HELLO", "3"), ("HELLO", "3")),
            (("HELLO", "3", "AUTH", "x"), ("HELLO", "3", "AUTH", "x")),
            (("AUTH", "a", "b", "c"), ("AUTH", "a", "b", "c")),
        ],
    )
    def test_the_right_password_is_replaced(
        self, said: tuple[str, ...], sent: tuple[str, ...]
    ) -> None:
        wired = Wired()
        assert wired.client(command(*said)) == command(*sent)

    def test_a_wrong_password_is_refused_in_order(self) -> None:
        wired = Wired()
        sent = wired.client(command("GET", "k") + command("AUTH", "wk_a", "no") + command("PING"))
        (name,) = poisons_of(sent)
        assert sent == command("GET", "k") + encode_command(name) + command("PING")
        assert wired.server(b"$-1\r\n" + unknown(name) + b"+PONG\r\n") == (
            b"$-1\r\n-WRONGPASS invalid username-password pair or user is disabled.\r\n+PONG\r\n"
        )


def test_unanswered_refusals_are_bounded() -> None:
    wired = Wired(read=0)
    wired.client(command("CLIENT", "REPLY", "OFF"))
    for _ in range(3):
        wired.client(command("GET", "k") * MARKS_MAX)
    assert wired.server(b"+OK\r\n") == b"+OK\r\n"
    assert len(wired.relay._marks) == MARKS_MAX


def test_idle_means_that_a_reply_came_last_and_nothing_is_begun() -> None:
    wired = Wired()
    assert wired.relay.is_idle
    wired.client(command("GET", "k"))
    assert not wired.relay.is_idle
    wired.server(b"$3\r\nab")
    assert not wired.relay.is_idle
    wired.server(b"c\r\n")
    assert wired.relay.is_idle
    wired.client(command("GET", "k")[:5])
    wired.server(b"+pushed\r\n")
    assert not wired.relay.is_idle


def test_goodbye_is_an_error_line() -> None:
    wired = Wired()
    assert wired.relay.goodbye(RequestError(Reason.SUSPENDED, "suspended")) == b"-ERR suspended\r\n"
    wired.relay.closed()


CONFIG_REPLY = b"*4\r\n$3\r\ndir\r\n$17\r\n/srv/instances/xy\r\n$4\r\nport\r\n$1\r\n0\r\n"
MASKED_REPLY = b"*4\r\n$3\r\ndir\r\n$1\r\n/\r\n$4\r\nport\r\n$1\r\n0\r\n"


@given(st.sets(st.integers(1, 400)))
def test_the_directory_in_a_reply_to_config_get_is_masked_however_it_is_cut(
    points: set[int],
) -> None:
    wired = Wired()
    sent = wired.client(encode_command(b"config", b"get", b"*") + encode_command(b"GET", b"k"))
    first, last = (
        b"-ERR unknown command '"
        + sent[at + 5 : at + 5 + 41]
        + b"', with args beginning with: \r\n"
        for at in (sent.find(b"$41"), sent.rfind(b"$41"))
    )
    reply = first + CONFIG_REPLY + last + b"$1\r\nv\r\n"
    cuts = sorted({0, len(reply), *(point for point in points if point < len(reply))})
    pieces = [reply[a:b] for a, b in itertools.pairwise(cuts)]
    assert b"".join(map(wired.server, pieces)) == MASKED_REPLY + b"$1\r\nv\r\n"
    assert wired.relay.is_idle


@pytest.mark.parametrize("reply", [b"-NOPERM no\r\n", b"*0\r\n", b"*2\r\n$3\r\ndir\r\n$0\r\n\r\n"])
def test_other_replies_to_config_get_stay_whole(reply: bytes) -> None:
    assert mask_directory(reply) == reply.replace(b"$0\r\n", b"$1\r\n/")


def test_config_get_that_cannot_mean_the_directory_goes_on_as_it_came() -> None:
    wired = Wired()
    command = encode_command(b"CONFIG", b"GET", b"maxmemory")
    assert wired.client(command) == command
