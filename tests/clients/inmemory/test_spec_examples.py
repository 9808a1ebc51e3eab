"""Every command of the specification's WeftKitMem section, and the answer it documents.

The tables below hold, for each documented line, the commands that show it. The answers are those
of RESP2; `RESP3` lists the ones that Redis words differently there. An answer may be a function
that judges what came. Redis 6.2 and 7.0 both answer like this.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.admin import Admin
from tests.servers import temporary_home, wait_until
from tests.stack import Connection, Stack, run_stack

pytestmark = pytest.mark.stack

Steps = list[tuple[str, Any]]


def one_of(*answers: Any) -> Callable[[Any], bool]:
    """Accept any of `answers`: a clock may tick between two commands."""
    return lambda answer: answer in answers


def unordered(*members: str) -> Callable[[Any], bool]:
    """Accept `members` in any order, as list (RESP2) or set (RESP3)."""
    return lambda answer: sorted(answer) == sorted(members)


def holds(*words: str) -> Callable[[Any], bool]:
    """Accept an answer in which all `words` occur."""
    return lambda answer: all(word in str(answer) for word in words)


STRINGS: dict[str, Steps] = {
    "SET key value": [("SET k v", "OK"), ("GET k", "v")],
    "SET EX": [("SET k v EX 100", "OK"), ("TTL k", one_of(99, 100))],
    "SET PX": [("SET k v PX 100000", "OK"), ("TTL k", one_of(99, 100))],
    "SET NX": [("SET k v NX", "OK"), ("SET k w NX", None), ("GET k", "v")],
    "SET XX": [("SET k v XX", None), ("SET k v", "OK"), ("SET k w XX", "OK"), ("GET k", "w")],
    "GET": [("GET k", None), ("SET k v", "OK"), ("GET k", "v")],
    "MSET and MGET": [("MSET a 1 b 2", "OK"), ("MGET a nothing b", ["1", None, "2"])],
    "INCR": [("INCR n", 1), ("INCR n", 2)],
    "INCRBY": [("INCRBY n 5", 5), ("INCRBY n -7", -2)],
    "DECR": [("DECR n", -1), ("DECR n", -2)],
    "APPEND": [("APPEND k ab", 2), ("APPEND k c", 3), ("GET k", "abc")],
    "STRLEN": [("STRLEN k", 0), ("SET k abc", "OK"), ("STRLEN k", 3)],
    "GETSET": [("GETSET k a", None), ("GETSET k b", "a"), ("GET k", "b")],
    "SETNX": [("SETNX k a", 1), ("SETNX k b", 0), ("GET k", "a")],
    "GETEX": [("SET k v", "OK"), ("GETEX k EX 100", "v"), ("TTL k", one_of(99, 100))],
    "DEL": [("MSET a 1 b 2", "OK"), ("DEL a b c", 2), ("GET a", None)],
    "EXISTS": [("SET a 1", "OK"), ("EXISTS a", 1), ("EXISTS a a b", 2), ("EXISTS b", 0)],
    "TTL": [("TTL k", -2), ("SET k v", "OK"), ("TTL k", -1)],
    "EXPIRE": [
        ("EXPIRE k 100", 0), ("SET k v", "OK"), ("EXPIRE k 100", 1), ("TTL k", one_of(99, 100)),
    ],
    "PERSIST": [("SET k v EX 100", "OK"), ("PERSIST k", 1), ("TTL k", -1), ("PERSIST k", 0)],
}  # fmt: skip

H = ("HSET h a 1 b 2", 2)
HASHES: dict[str, Steps] = {
    "HSET": [H, ("HSET h a 3 c 4", 1), ("HGET h a", "3")],
    "HGET": [("HGET h a", None), H, ("HGET h a", "1")],
    "HMGET": [H, ("HMGET h b nothing a", ["2", None, "1"])],
    "HGETALL": [H, ("HGETALL h", ["a", "1", "b", "2"])],
    "HDEL": [H, ("HDEL h a b c", 2), ("EXISTS h", 0)],
    "HEXISTS": [H, ("HEXISTS h a", 1), ("HEXISTS h c", 0)],
    "HINCRBY": [H, ("HINCRBY h a 5", 6), ("HINCRBY h c -2", -2)],
    "HKEYS": [H, ("HKEYS h", ["a", "b"])],
    "HVALS": [H, ("HVALS h", ["1", "2"])],
    "HLEN": [H, ("HLEN h", 2), ("HLEN nothing", 0)],
}

L = ("RPUSH l a b c", 3)
LISTS: dict[str, Steps] = {
    "LPUSH": [("LPUSH l a b", 2), ("LPUSH l c", 3), ("LRANGE l 0 -1", ["c", "b", "a"])],
    "RPUSH": [L, ("LRANGE l 0 -1", ["a", "b", "c"])],
    "LPOP": [L, ("LPOP l", "a"), ("LPOP l 5", ["b", "c"]), ("LPOP l", None)],
    "RPOP": [L, ("RPOP l", "c"), ("RPOP l 5", ["b", "a"]), ("RPOP l", None)],
    "LRANGE": [L, ("LRANGE l 0 -1", ["a", "b", "c"]), ("LRANGE l 1 1", ["b"]),
               ("LRANGE l 5 9", [])],
    "LLEN": [("LLEN l", 0), L, ("LLEN l", 3)],
    "LSET": [L, ("LSET l 1 x", "OK"), ("LRANGE l 0 -1", ["a", "x", "c"])],
    "LINSERT BEFORE": [L, ("LINSERT l BEFORE b x", 4), ("LRANGE l 0 -1", ["a", "x", "b", "c"])],
    "LINSERT AFTER": [L, ("LINSERT l AFTER b x", 4), ("LRANGE l 0 -1", ["a", "b", "x", "c"])],
    "LMOVE LEFT RIGHT": [L, ("LMOVE l m LEFT RIGHT", "a"), ("LRANGE m 0 -1", ["a"])],
    "LMOVE RIGHT LEFT": [L, ("LMOVE l l RIGHT LEFT", "c"), ("LRANGE l 0 -1", ["c", "a", "b"])],
    "BLPOP": [L, ("BLPOP nothing l 5", ["l", "a"]), ("BLPOP nothing 0.01", None)],
}  # fmt: skip

S, T = ("SADD s a b c", 3), ("SADD t b c d", 3)
SETS: dict[str, Steps] = {
    "SADD": [S, ("SADD s a d", 1)],
    "SREM": [S, ("SREM s a b x", 2), ("SMEMBERS s", unordered("c"))],
    "SISMEMBER": [S, ("SISMEMBER s a", 1), ("SISMEMBER s x", 0)],
    "SMEMBERS": [S, ("SMEMBERS s", unordered("a", "b", "c"))],
    "SCARD": [("SCARD s", 0), S, ("SCARD s", 3)],
    "SUNION": [S, T, ("SUNION s t", unordered("a", "b", "c", "d"))],
    "SINTER": [S, T, ("SINTER s t", unordered("b", "c"))],
    "SDIFF": [S, T, ("SDIFF s t", unordered("a"))],
    "SMOVE": [S, T, ("SMOVE s t a", 1), ("SMOVE s t x", 0), ("SISMEMBER t a", 1)],
    "SRANDMEMBER": [S, ("SRANDMEMBER s", one_of("a", "b", "c")),
                    ("SRANDMEMBER s 9", unordered("a", "b", "c")), ("SCARD s", 3)],
}  # fmt: skip

Z, Y = ("ZADD z 1 a 2 b 3.5 c", 3), ("ZADD y 10 b 20 c 30 d", 3)
SORTED_SETS: dict[str, Steps] = {
    "ZADD": [Z, ("ZADD z 9 a 4 d", 1), ("ZSCORE z a", "9")],
    "ZRANGE": [Z, ("ZRANGE z 0 -1", ["a", "b", "c"]), ("ZRANGE z 1 1", ["b"])],
    "ZRANGE WITHSCORES": [Z, ("ZRANGE z 1 2 WITHSCORES", ["b", "2", "c", "3.5"])],
    "ZRANGE REV": [Z, ("ZRANGE z 0 1 REV", ["c", "b"])],
    "ZRANGEBYSCORE": [Z, ("ZRANGEBYSCORE z 2 +inf", ["b", "c"]),
                      ("ZRANGEBYSCORE z (1 (3.5", ["b"])],
    "ZRANGEBYSCORE WITHSCORES": [Z, ("ZRANGEBYSCORE z 1 1 WITHSCORES", ["a", "1"])],
    "ZRANGEBYSCORE LIMIT": [Z, ("ZRANGEBYSCORE z -inf +inf LIMIT 1 1", ["b"])],
    "ZRANGEBYLEX": [("ZADD x 0 a 0 b 0 c", 3), ("ZRANGEBYLEX x [b +", ["b", "c"]),
                    ("ZRANGEBYLEX x - (b", ["a"])],
    "ZRANK": [Z, ("ZRANK z a", 0), ("ZRANK z c", 2), ("ZRANK z x", None)],
    "ZSCORE": [Z, ("ZSCORE z c", "3.5"), ("ZSCORE z x", None)],
    "ZREM": [Z, ("ZREM z a x", 1), ("ZCARD z", 2)],
    "ZCARD": [("ZCARD z", 0), Z, ("ZCARD z", 3)],
    "ZCOUNT": [Z, ("ZCOUNT z 1 2", 2), ("ZCOUNT z (1 +inf", 2)],
    "ZINCRBY": [Z, ("ZINCRBY z 1.5 a", "2.5"), ("ZINCRBY z 1 new", "1")],
    "ZUNIONSTORE": [Z, Y, ("ZUNIONSTORE u 2 z y", 4),
                    ("ZRANGE u 0 9 WITHSCORES", ["a", "1", "b", "12", "c", "23.5", "d", "30"])],
    "ZINTERSTORE": [Z, Y, ("ZINTERSTORE u 2 z y", 2),
                    ("ZRANGE u 0 -1 WITHSCORES", ["b", "12", "c", "23.5"])],
}  # fmt: skip

X = ("XADD x 1-1 a 1", "1-1")
X2 = ("XADD x 2-1 b 2", "2-1")
E1, E2 = ["1-1", ["a", "1"]], ["2-1", ["b", "2"]]
STREAMS: dict[str, Steps] = {
    "XADD": [("XADD x * a 1 b 2", holds("-")), ("XLEN x", 1)],
    "XREAD": [X, X2, ("XREAD COUNT 1 STREAMS x 0", [["x", [E1]]]),
              ("XREAD COUNT 9 STREAMS x 1-1", [["x", [E2]]]), ("XREAD COUNT 9 STREAMS x $", None)],
    "XRANGE": [X, X2, ("XRANGE x - +", [E1, E2]), ("XRANGE x 2 + COUNT 5", [E2]),
               ("XRANGE x - + COUNT 1", [E1])],
    "XLEN": [("XLEN x", 0), X, X2, ("XLEN x", 2)],
    "XGROUP CREATE": [X, ("XGROUP CREATE x g $", "OK"), ("XINFO GROUPS x", holds("g", "1-1"))],
    "XGROUP CREATE MKSTREAM": [("XGROUP CREATE x g 0 MKSTREAM", "OK"), ("XLEN x", 0)],
    "XREADGROUP": [X, X2, ("XGROUP CREATE x g 0", "OK"),
                   ("XREADGROUP GROUP g me COUNT 1 STREAMS x >", [["x", [E1]]]),
                   ("XREADGROUP GROUP g you COUNT 9 STREAMS x >", [["x", [E2]]]),
                   ("XREADGROUP GROUP g me COUNT 9 STREAMS x >", None),
                   ("XREADGROUP GROUP g me COUNT 9 STREAMS x 0", [["x", [E1]]])],
    "XACK": [X, ("XGROUP CREATE x g 0", "OK"),
             ("XREADGROUP GROUP g me COUNT 1 STREAMS x >", [["x", [E1]]]),
             ("XACK x g 1-1 7-7", 1), ("XACK x g 1-1", 0)],
}  # fmt: skip

SERVER: dict[str, Steps] = {
    "PING": [("PING", "PONG"), ("PING hello", "hello")],
    "INFO": [("INFO", holds("redis_version", "# Memory", "# Keyspace"))],
    "INFO section": [("INFO memory", lambda a: "used_memory" in a and "redis_version" not in a)],
    "DBSIZE": [("DBSIZE", 0), ("MSET a 1 b 2", "OK"), ("DBSIZE", 2)],
    "KEYS": [("MSET a1 1 a2 2 b 3", "OK"), ("KEYS a*", unordered("a1", "a2")), ("KEYS x", [])],
    "SCAN": [("MSET a1 1 b 3", "OK"), ("SCAN 0 MATCH a* COUNT 100", ["0", ["a1"]])],
    "FLUSHDB": [("SET a 1", "OK"), ("FLUSHDB", "OK"), ("DBSIZE", 0)],
    "FLUSHDB ASYNC": [("SET a 1", "OK"), ("FLUSHDB ASYNC", "OK"), ("DBSIZE", 0)],
    "SELECT": [("SET a 1", "OK"), ("SELECT 15", "OK"), ("GET a", None), ("SELECT 0", "OK"),
               ("GET a", "1")],
}  # fmt: skip

EXAMPLES = {
    name: steps
    for table in (STRINGS, HASHES, LISTS, SETS, SORTED_SETS, STREAMS, SERVER)
    for name, steps in table.items()
}

# The answers that have a type of their own in RESP3 (its specification: map, set, double).
RESP3: dict[str, Any] = {
    "HGETALL h": {"a": "1", "b": "2"},
    "ZSCORE z a": 9.0,
    "ZSCORE z c": 3.5,
    "ZINCRBY z 1.5 a": 2.5,
    "ZINCRBY z 1 new": 1.0,
    "ZRANGE z 1 2 WITHSCORES": [["b", 2.0], ["c", 3.5]],
    "ZRANGEBYSCORE z 1 1 WITHSCORES": [["a", 1.0]],
    "ZRANGE u 0 9 WITHSCORES": [["a", 1.0], ["b", 12.0], ["c", 23.5], ["d", 30.0]],
    "ZRANGE u 0 -1 WITHSCORES": [["b", 12.0], ["c", 23.5]],
    "XREAD COUNT 1 STREAMS x 0": {"x": [E1]},
    "XREAD COUNT 9 STREAMS x 1-1": {"x": [E2]},
    "XREADGROUP GROUP g me COUNT 1 STREAMS x >": {"x": [E1]},
    "XREADGROUP GROUP g you COUNT 9 STREAMS x >": {"x": [E2]},
    "XREADGROUP GROUP g me COUNT 9 STREAMS x 0": {"x": [E1]},
}


class Raw:
    """One connection that returns answers as the protocol has them."""

    def __init__(self, uri: str, protocol: int) -> None:
        pool = redis.ConnectionPool.from_url(uri, protocol=protocol, decode_responses=True)
        self._connection = pool.make_connection()
        self._connection.connect()

    def __call__(self, command: str) -> Any:
        """Send the words of `command`, return the answer."""
        self.send(command)
        return self.read()

    def send(self, command: str) -> None:
        """Send the words of `command`."""
        self._connection.send_command(*command.split())

    def read(self) -> Any:
        """Return the next answer."""
        return self._connection.read_response()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


@pytest.fixture
def row(stack: Stack) -> Connection:
    """The demo tenant's inmemory instance."""
    return stack.connection("demo", "inmemory")


@pytest.fixture
def connect(row: Connection) -> Iterator[Callable[[int], Raw]]:
    """Make raw connections to an empty instance."""
    opened: list[Raw] = []

    def connect_one(protocol: int) -> Raw:
        opened.append(Raw(row.uri, protocol))
        return opened[-1]

    redis.Redis.from_url(row.uri).flushall()
    yield connect_one
    for raw in opened:
        raw.close()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_documented_command_answers_as_documented(
    connect: Callable[[int], Raw], name: str, protocol: int
) -> None:
    raw = connect(protocol)
    for command, documented in EXAMPLES[name]:
        answer = raw(command)
        expected = RESP3.get(command, documented) if protocol == 3 else documented
        if callable(expected):
            assert expected(answer), (command, answer)
        else:
            assert answer == expected, command


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_blocking_pop_waits_until_something_is_pushed(
    connect: Callable[[int], Raw], row: Connection, protocol: int
) -> None:
    waiting, other = connect(protocol), redis.Redis.from_url(row.uri)
    waiting.send("BLPOP queue also 30")
    wait_until(lambda: other.info("clients")["blocked_clients"] == 1, "the pop blocks", 10)
    other.rpush("also", "job")
    assert waiting.read() == ["also", "job"]


def test_a_scan_returns_every_key_once_or_more(connect: Callable[[int], Raw]) -> None:
    raw = connect(2)
    raw("MSET " + " ".join(f"k{n} {n}" for n in range(300)))
    cursor, seen = "0", set()
    while True:
        cursor, keys = raw(f"SCAN {cursor} MATCH k* COUNT 20")
        seen.update(keys)
        if cursor == "0":
            break
    assert seen == {f"k{n}" for n in range(300)}


def test_all_sixteen_databases_are_apart(connect: Callable[[int], Raw]) -> None:
    raw = connect(2)
    for number in range(16):
        assert (raw(f"SELECT {number}"), raw("DBSIZE"), raw(f"SET k {number}")) == ("OK", 0, "OK")
    for number in range(16):
        assert (raw(f"SELECT {number}"), raw("GET k")) == ("OK", str(number))
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        raw("SELECT 16")


@pytest.mark.parametrize("protocol", [2, 3])
def test_channels_and_patterns_are_subscribed_and_left(row: Connection, protocol: int) -> None:
    client = redis.Redis.from_url(row.uri, protocol=protocol, decode_responses=True)
    with client.pubsub() as subscriber:

        def next_message() -> tuple[Any, ...]:
            message = subscriber.get_message(timeout=10)
            assert message is not None
            return tuple(message[part] for part in ("type", "pattern", "channel", "data"))

        subscriber.subscribe("news", "weather")
        assert next_message() == ("subscribe", None, "news", 1)
        assert next_message() == ("subscribe", None, "weather", 2)
        subscriber.psubscribe("events.*")
        assert next_message() == ("psubscribe", None, "events.*", 3)
        assert client.publish("news", "a") == 1
        assert next_message() == ("message", None, "news", "a")
        assert client.publish("events.new", "b") == 1
        assert next_message() == ("pmessage", "events.*", "events.new", "b")
        subscriber.unsubscribe("news")
        assert next_message() == ("unsubscribe", None, "news", 2)
        assert client.publish("news", "c") == 0
        subscriber.punsubscribe()
        assert next_message() == ("punsubscribe", None, "events.*", 1)
        subscriber.unsubscribe()
        assert next_message() == ("unsubscribe", None, "weather", 0)
        assert client.publish("weather", "d") == 0


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_the_documented_connection_strings_are_taken(
    stack: Stack, row: Connection, scheme: str
) -> None:
    written = f"{scheme}://:{row.password}@{row.host}:{row.port}/0"
    parameters = {"ssl_ca_certs": stack.ca} if scheme == "rediss" else {}
    assert redis.Redis.from_url(written, **parameters).ping() is True


def test_the_documented_connection_parameters_are_taken(stack: Stack, row: Connection) -> None:
    for number in (0, 15):
        for secure in (False, True):
            parameters = {"ssl": True, "ssl_ca_certs": stack.ca} if secure else {}
            client = redis.Redis(
                host=row.host, port=row.port, password=row.password, db=number, **parameters
            )
            assert client.client_info()["db"] == number


def answer_lines(row: Connection, *commands: str, signed_in: bool = True) -> Iterator[str]:
    """Send inline commands on a bare socket; yield the first line of each answer."""
    first = [f"AUTH {row.user} {row.password}"] if signed_in else []
    with (
        socket.create_connection((row.host, row.port), 10) as bare,
        bare.makefile("rw", newline="\r\n") as lines,
    ):
        for command in (*first, *commands):
            lines.write(f"{command}\r\n")
            lines.flush()
            yield lines.readline().rstrip("\r\n")


def last_line(row: Connection, *commands: str, signed_in: bool = True) -> str:
    """Return the first line of the answer to the last of `commands`."""
    return list(answer_lines(row, *commands, signed_in=signed_in))[-1]


# The whole line, as Redis words it; Redis 7 names the user and the command in NOPERM.
ERRORS = {
    "WRONGTYPE": (
        ["FLUSHALL", "SET k v", "LPUSH k x"],
        "-WRONGTYPE Operation against a key holding the wrong kind of value",
    ),
    "BUSYGROUP": (
        ["FLUSHALL", "XGROUP CREATE x g 0 MKSTREAM", "XGROUP CREATE x g 0"],
        "-BUSYGROUP Consumer Group name already exists",
    ),
}


@pytest.mark.parametrize("code", ERRORS)
def test_a_documented_error_is_worded_as_redis_words_it(row: Connection, code: str) -> None:
    commands, line = ERRORS[code]
    assert last_line(row, *commands) == line


@pytest.mark.parametrize("command", ["GET k", "PING", "INFO", "SUBSCRIBE c", "NOSUCHCOMMAND"])
def test_a_client_that_has_not_signed_in_gets_noauth(row: Connection, command: str) -> None:
    assert last_line(row, command, signed_in=False) == "-NOAUTH Authentication required."


def test_a_reader_that_writes_gets_noperm(admin: Admin, row: Connection) -> None:
    reader = admin.new_credential(row, role="read")
    wait_until(lambda: last_line(reader, "PING") == "+PONG", "the credential is published", 5)
    assert last_line(reader, "GET k") == "$-1"
    for command in ("SET k v", "FLUSHALL", "CONFIG SET maxmemory 0"):
        assert last_line(reader, command).startswith("-NOPERM "), command


NOEVICTION = """
[inmemory]
max_memory_bytes = 16777216
eviction_policy = "noeviction"
"""


@pytest.fixture
def full() -> Iterator[Connection]:
    """An instance of 16 MiB that evicts nothing; only weftkit.toml can ask for that."""
    with temporary_home("wkc") as here:
        here.chmod(0o755)
        (here / "weftkit.toml").write_text(NOEVICTION)
        with run_stack(WEFTKIT_CONFIG=str(here / "weftkit.toml"), WEFTKIT_WORKERS="1") as small:
            yield small.connection("demo", "inmemory")


def test_writes_beyond_the_memory_get_oom_and_reads_and_deletes_go_on(full: Connection) -> None:
    client = redis.Redis.from_url(full.uri)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        for number in range(64):
            client.set(f"k{number}", b"x" * 2**20)
    assert 4 <= client.dbsize() < 16
    # What was refused for its own size leaves some room; small values fill it.
    small = [f"SET s{number} {'x' * 4000}" for number in range(4000)]
    refused = next(line for line in answer_lines(full, *small) if line != "+OK")
    assert refused == "-OOM command not allowed when used memory > 'maxmemory'."
    assert client.strlen("k0") == 2**20
    assert client.delete("k0", "k1", "k2") == 3
    assert client.set("more", "1") is True
