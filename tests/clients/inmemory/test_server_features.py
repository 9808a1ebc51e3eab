"""What Redis does beyond commands and answers, through the data plane: pushes, functions, groups.

Commands of the specification stand in `test_spec_examples`, roles in `test_roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from tests.admin import Admin
from tests.clients.inmemory.test_spec_examples import Raw
from tests.stack import Connection

pytestmark = pytest.mark.stack

LIBRARY = "#!lua name=shop\nredis.register_function('add', function(keys, args)"
LIBRARY += " return redis.call('INCRBY', keys[1], args[1]) end)"


@pytest.fixture(scope="module")
def row(admin: Admin) -> Connection:
    """An instance of this module's own."""
    return admin.new_instance("inmemory", plan="unmetered")


@pytest.fixture
def client(row: Connection) -> Iterator[redis.Redis]:
    """A client on an empty instance."""
    with redis.Redis.from_url(row.uri, decode_responses=True) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def connect(row: Connection, client: redis.Redis) -> Iterator[Callable[[int], Raw]]:
    """Make raw connections."""
    opened: list[Raw] = []

    def connect_one(protocol: int) -> Raw:
        opened.append(Raw(row.uri, protocol))
        return opened[-1]

    yield connect_one
    for raw in opened:
        raw.close()


def test_the_protocol_is_negotiated_again_and_again(connect: Callable[[int], Raw]) -> None:
    raw = connect(2)
    raw("HSET h a 1")
    for version in (3, 2, 3):
        greeting = raw(f"HELLO {version}")
        as_map = greeting if version == 3 else dict(zip(greeting[::2], greeting[1::2], strict=True))
        assert (as_map["server"], as_map["proto"]) == ("redis", version)
        assert raw("HGETALL h") == ({"a": "1"} if version == 3 else ["a", "1"])
    with pytest.raises(redis.ResponseError, match="unsupported protocol version"):
        raw("HELLO 9")
    assert raw("PING") == "PONG"


def test_reset_and_quit_end_what_they_end(connect: Callable[[int], Raw], row: Connection) -> None:
    raw = connect(2)
    raw("SELECT 3")
    raw("MULTI")
    assert raw("RESET") == "RESET"
    with pytest.raises((redis.AuthenticationError, redis.ResponseError)):
        raw("GET k")
    assert raw(f"AUTH {row.user} {row.password}") == "OK"
    assert raw("QUIT") == "OK"


class Tracking:
    """A RESP3 client that keeps what is pushed to it."""

    def __init__(self, row: Connection) -> None:
        self.client = redis.Redis.from_url(
            row.uri, protocol=3, decode_responses=True, single_connection_client=True
        )
        self.pushed: list[Any] = []
        assert self.client.connection is not None
        self.client.connection._parser.set_invalidation_push_handler(self.pushed.append)

    def wait(self) -> None:
        """Read one push."""
        assert self.client.connection is not None
        self.client.connection.read_response(push_request=True)


@pytest.fixture
def tracking(row: Connection, client: redis.Redis) -> Iterator[Tracking]:
    """A client of its own for each test."""
    made = Tracking(row)
    yield made
    made.client.close()


def test_a_tracked_key_that_changes_is_told(tracking: Tracking, client: redis.Redis) -> None:
    tracking.client.execute_command("CLIENT", "TRACKING", "ON")
    tracking.client.get("k")
    client.set("k", "1")
    tracking.wait()
    client.set("k", "2")  # not read again since, so nobody is told
    tracking.client.get("other")
    client.delete("other")
    client.set("other", "1")
    tracking.wait()
    assert tracking.pushed == [["invalidate", ["k"]], ["invalidate", ["other"]]]


def test_prefixes_are_tracked_without_reading(tracking: Tracking, client: redis.Redis) -> None:
    tracking.client.execute_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:")
    client.set("order:1", "x")
    client.set("user:1", "x")
    tracking.wait()
    assert tracking.pushed == [["invalidate", ["user:1"]]]


def test_flushing_tells_everybody_to_forget_everything(
    tracking: Tracking, client: redis.Redis
) -> None:
    tracking.client.execute_command("CLIENT", "TRACKING", "ON")
    tracking.client.get("k")
    client.flushall()
    tracking.wait()
    assert tracking.pushed == [["invalidate", None]]


def test_in_resp3_a_subscriber_goes_on_with_commands(
    connect: Callable[[int], Raw], client: redis.Redis
) -> None:
    raw = connect(3)
    raw.send("SUBSCRIBE news")
    client.set("k", "v")
    raw.send("GET k")
    assert raw.read() == "v"  # the driver keeps pushes apart from answers
    old = connect(2)
    old("SUBSCRIBE news")
    with pytest.raises(redis.ResponseError, match="Can't execute 'get'"):
        old("GET k")


def test_scripts_are_kept_by_their_digest(client: redis.Redis) -> None:
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha("0" * 40, 0)
    digest = client.script_load("return {KEYS[1], ARGV[1]}")
    assert client.script_exists(digest, "0" * 40) == [True, False]
    assert client.evalsha(digest, 1, "k", "v") == ["k", "v"]
    with pytest.raises(redis.ResponseError, match="Wrong number of args"):
        client.eval("return redis.call('GET')", 0)


def test_functions_are_loaded_called_dumped_and_deleted(client: redis.Redis) -> None:
    if client.info("server")["redis_version"].startswith("6."):
        pytest.skip("functions came with Redis 7")
    assert client.function_load(LIBRARY) == "shop"
    assert client.fcall("add", 1, "n", 5) == 5
    with pytest.raises(redis.ResponseError, match="already exists"):
        client.function_load(LIBRARY)
    assert "shop" in str(client.function_list())
    client.function_delete("shop")
    with pytest.raises(redis.ResponseError, match="Function not found"):
        client.fcall("add", 1, "n", 5)


def test_a_group_hands_out_takes_over_and_lists_what_is_pending(client: redis.Redis) -> None:
    client.xgroup_create("jobs", "workers", mkstream=True)
    with pytest.raises(redis.ResponseError, match="BUSYGROUP Consumer Group name already exists"):
        client.xgroup_create("jobs", "workers")
    entries = [client.xadd("jobs", {"n": str(n)}) for n in range(3)]
    client.xreadgroup("workers", "ann", {"jobs": ">"}, count=2)
    client.xreadgroup("workers", "ben", {"jobs": ">"}, count=2)
    pending = client.xpending("jobs", "workers")
    assert (pending["pending"], len(pending["consumers"])) == (3, 2)
    _, claimed, *_ = client.xautoclaim("jobs", "workers", "ben", min_idle_time=0, start_id="0")
    assert [entry for entry, _ in claimed] == entries
    assert client.xack("jobs", "workers", *entries) == 3
    assert client.xpending("jobs", "workers")["pending"] == 0


async def test_the_asyncio_client_watches_subscribes_and_blocks(row: Connection) -> None:
    async with redis.asyncio.from_url(row.uri, protocol=3, decode_responses=True) as client:
        async with client.pipeline(transaction=True) as pipe:
            await pipe.watch("watched")
            await client.set("watched", "changed")
            pipe.multi()
            pipe.set("watched", "mine")
            with pytest.raises(redis.WatchError):
                await pipe.execute()
        async with client.pubsub() as subscriber:
            await subscriber.subscribe("news")
            assert (await subscriber.get_message(timeout=10))["type"] == "subscribe"
            await client.publish("news", "hello")
            assert (await subscriber.get_message(timeout=10))["data"] == "hello"
        await client.rpush("queue", "job")
        assert list(await client.blpop("queue", timeout=5)) == ["queue", "job"]


def test_a_client_of_a_cluster_is_told_that_there_is_none(row: Connection) -> None:
    with pytest.raises(redis.exceptions.RedisClusterException):
        redis.RedisCluster(host=row.host, port=row.port, username=row.user, password=row.password)
