"""redis-py, sync and asyncio, RESP2 and RESP3, plain and TLS."""

from __future__ import annotations

import threading

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.stack import Stack

pytestmark = pytest.mark.stack


@pytest.fixture
def uri(stack: Stack) -> str:
    """The demo tenant's inmemory instance."""
    return stack.connection("demo", "inmemory").uri


@pytest.fixture
def client(uri: str) -> redis.Redis:
    """A fresh client on an empty instance."""
    client = redis.Redis.from_url(uri, decode_responses=True)
    client.flushall()
    return client


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("tenant", ["demo", "other"])
def test_redis_py_works_with_the_printed_string(stack: Stack, tenant: str, protocol: int) -> None:
    uri = stack.connection(tenant, "inmemory").uri
    client = redis.Redis.from_url(uri, protocol=protocol, decode_responses=True)
    client.set("greeting", "hello", ex=60)
    assert client.get("greeting") == "hello"


def test_tls_is_served_on_the_same_port(stack: Stack, uri: str) -> None:
    secure = redis.Redis.from_url(uri.replace("redis://", "rediss://"), ssl_ca_certs=stack.ca)
    assert secure.set("over", "tls") is True
    assert redis.Redis.from_url(uri).get("over") == b"tls"


def test_a_password_alone_signs_in(stack: Stack) -> None:
    row = stack.connection("demo", "inmemory")
    client = redis.Redis(host=row.host, port=row.port, password=row.password)
    assert client.ping() is True


def test_a_transaction_and_an_optimistic_lock(client: redis.Redis) -> None:
    client.set("n", 1)
    with client.pipeline() as first:
        first.watch("n")
        client.incr("n")
        first.multi()
        first.set("n", 100)
        with pytest.raises(redis.WatchError):
            first.execute()
    with client.pipeline() as second:
        assert second.incr("n").incr("n").execute() == [3, 4]


def test_published_messages_arrive(client: redis.Redis) -> None:
    subscriber = client.pubsub()
    subscriber.psubscribe("events.*")
    assert subscriber.get_message(timeout=5)["type"] == "psubscribe"
    assert client.publish("events.new", "one") == 1
    message = subscriber.get_message(timeout=5)
    assert (message["channel"], message["data"]) == ("events.new", "one")


def test_a_blocking_pop_waits_for_a_push(client: redis.Redis) -> None:
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(client.blpop("queue", timeout=20)))
    thread.start()
    client.rpush("queue", "job")
    thread.join(20)
    assert [tuple(item) for item in got] == [("queue", "job")]


def test_streams_groups_scripts_and_scans(client: redis.Redis) -> None:
    client.xgroup_create("log", "readers", mkstream=True)
    entry = client.xadd("log", {"a": "1"})
    read = client.xreadgroup("readers", "me", {"log": ">"})
    assert entry in str(read)
    assert client.xack("log", "readers", entry) == 1
    assert client.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, "c", 5) == 5
    client.mset({f"k{n}": n for n in range(500)})
    assert sum(1 for _ in client.scan_iter("k*", count=50)) == 500


@pytest.mark.parametrize(
    "command",
    [
        ("CONFIG", "SET", "maxmemory", "0"), ("SHUTDOWN", "NOSAVE"),
        ("REPLICAOF", "127.0.0.1", "1"), ("MODULE", "LIST"), ("ACL", "SETUSER", "x"),
        ("BGREWRITEAOF",), ("SAVE",), ("MIGRATE", "h", "1", "k", "0", "1"),
    ],
)  # fmt: skip
def test_administration_that_harms_is_not_permitted(
    client: redis.Redis, command: tuple[str, ...]
) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)
    assert client.ping() is True


def test_debug_is_refused_by_the_acl_or_before_it(client: redis.Redis) -> None:
    # Redis 7 asks its setting enable-debug-command first, Redis 6.2 only the ACL.
    with pytest.raises(redis.ResponseError, match=r"(?i)no permissions|not allowed"):
        client.execute_command("DEBUG", "SLEEP", "0")


def test_wrong_credentials_get_rediss_own_errors(stack: Stack) -> None:
    row = stack.connection("demo", "inmemory")
    # redis-py takes a wrong password for a fault of the network and tries again.
    place = {"host": row.host, "port": row.port, "retry": Retry(NoBackoff(), 0)}
    with pytest.raises(redis.AuthenticationError, match=r"WRONGPASS|invalid username-password"):
        redis.Redis(**place, username=row.user, password="wrong").ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(**place).ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(**place, username="nobody", password="x").ping()


def test_each_of_two_tenants_sees_its_own_keys_only(stack: Stack, client: redis.Redis) -> None:
    other = redis.Redis.from_url(stack.connection("other", "inmemory").uri)
    client.set("only:demo", "1")
    assert other.get("only:demo") is None
    assert stack.connection("demo", "inmemory").user not in str(other.client_list())


async def test_the_asyncio_client_pipelines(uri: str) -> None:
    async with redis.asyncio.from_url(uri, decode_responses=True) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(2000):
            pipe.set(f"p{number}", number)
        assert all(await pipe.execute())
        assert await client.get("p1999") == "1999"
