"""redis-py and redis-cli through session and relay against a real server."""

from __future__ import annotations

import shutil
import subprocess
import threading

import pytest
import redis as client_library
from redis.exceptions import (
    AuthenticationError,
    ExecAbortError,
    NoPermissionError,
    ResponseError,
    WatchError,
)

from engines.kit.ports import RequestClass
from tests.engines.border import Border
from tests.engines.inmemory.conftest import OWNER, READER, WRITER, connect

READ, WRITE = RequestClass.READ, RequestClass.WRITE
REFUSAL = "rate limit exceeded: 20 {} units per second, retry after 350 ms"

Client = client_library.Redis


def performed(border: Border) -> dict[str, int]:
    """Return the units but for the unlimited ones: redis-py says things of its own."""
    return {name: units for name, units in border.gate.performed().items() if name != "unlimited"}


def test_each_command_is_one_unit_of_its_class(border: Border, client: Client) -> None:
    client.set("k", "v")
    client.get("k")
    client.keys("*")
    client.ping()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(10):
            pipeline.incr(f"n{number}")
        pipeline.execute()
    with client.pipeline() as pipeline:
        pipeline.set("a", 1).get("a")
        assert pipeline.execute() == [True, "1"]
    assert performed(border) == {"read": 2, "write": 12, "query": 1}


def test_a_refusal_leaves_the_connection_usable(border: Border, client: Client) -> None:
    client.set("k", "v")
    border.gate.limit(READ, 1)
    assert client.get("k") == "v"
    with pytest.raises(ResponseError) as refused:
        client.get("k")
    assert str(refused.value) == REFUSAL.format("read")
    assert client.set("k", "w") is True
    border.gate.limit(READ, 1)
    assert client.get("k") == "w"


def test_a_pipeline_is_refused_in_part_and_in_order(border: Border, client: Client) -> None:
    border.gate.limit(WRITE, 3)
    with client.pipeline(transaction=False) as pipeline:
        for number in range(5):
            pipeline.rpush("l", number).llen("l")
        results = pipeline.execute(raise_on_error=False)
    assert results[:6] == [1, 1, 2, 2, 3, 3]
    assert [str(result) for result in results[6::2]] == [REFUSAL.format("write")] * 2
    assert results[7::2] == [3, 3]
    assert performed(border) == {"read": 5, "write": 3}


def test_a_refusal_inside_multi_aborts_the_transaction(border: Border, client: Client) -> None:
    border.gate.limit(WRITE, 1)
    with client.pipeline() as pipeline, pytest.raises((ExecAbortError, ResponseError)) as refused:
        pipeline.set("a", 1).set("b", 2).execute()
    assert "rate limit exceeded" in str(refused.value)
    assert client.exists("a", "b") == 0
    client.execute_command("MULTI")
    border.gate.limit(WRITE, 0)
    with pytest.raises(ResponseError, match="rate limit exceeded"):
        client.execute_command("SET", "a", 1)
    with pytest.raises(ExecAbortError):
        client.execute_command("EXEC")
    assert client.exists("a") == 0
    assert performed(border) == {"read": 2}


def test_discard_gives_back_and_watch_works(border: Border, client: Client) -> None:
    client.execute_command("MULTI")
    client.execute_command("SET", "a", 1)
    client.execute_command("DISCARD")
    assert performed(border) == {}
    with connect(border) as other, client.pipeline() as pipeline:
        pipeline.watch("a")
        other.set("a", 2)
        pipeline.multi()
        pipeline.set("a", 3)
        with pytest.raises(WatchError):
            pipeline.execute()
    assert client.get("a") == "2"


def test_units_are_waited_for(border: Border, client: Client) -> None:
    border.gate.fetch_units = 2
    border.gate.limit(WRITE, 5)
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(7):
            pipeline.incr("n")
        results = pipeline.execute(raise_on_error=False)
    assert results[:5] == [1, 2, 3, 4, 5]
    assert [str(result) for result in results[5:]] == [REFUSAL.format("write")] * 2
    assert performed(border) == {"write": 5}


def test_messages_reach_subscribers(border: Border, client: Client) -> None:
    with connect(border, protocol=3) as other:
        subscriber = other.pubsub()
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=10)["type"] == "subscribe"
        assert client.publish("news", "hello") == 1
        assert subscriber.get_message(timeout=10)["data"] == "hello"
        subscriber.close()


def test_a_blocking_pop_waits_for_another_client(border: Border, client: Client) -> None:
    popped: list[object] = []
    with connect(border, WRITER) as waiter:
        thread = threading.Thread(target=lambda: popped.append(waiter.blpop("queue", 10)))
        thread.start()
        client.rpush("queue", "job")
        thread.join(10)
    assert [list(item) for item in popped] == [["queue", "job"]]  # type: ignore[call-overload]


def test_client_side_caching_is_told_of_changes(border: Border, client: Client) -> None:
    pushed: list[object] = []
    with connect(border, protocol=3) as tracking:
        connection = tracking.connection
        assert connection is not None
        connection._parser.set_invalidation_push_handler(pushed.append)
        tracking.execute_command("CLIENT", "TRACKING", "ON")
        client.set("k", 1)
        tracking.get("k")
        client.set("k", 2)
        connection.read_response(push_request=True)
    assert pushed == [["invalidate", ["k"]]]


def test_roles_are_enforced_by_the_server(border: Border, client: Client) -> None:
    client.set("k", "v")
    with connect(border, READER) as reader:
        assert reader.get("k") == "v"
        with pytest.raises(NoPermissionError):
            reader.set("k", "w")
    with pytest.raises(NoPermissionError):
        client.config_set("maxmemory", 0)
    assert client.config_get("maxmemory") == {"maxmemory": "0"}


def test_signing_in_again_works_for_the_same_user_only(border: Border, client: Client) -> None:
    user, password = OWNER.credential.username, OWNER.password
    assert client.execute_command("AUTH", user, password) is True
    assert client.execute_command("AUTH", password) is True
    with pytest.raises(AuthenticationError, match="invalid username-password pair"):
        client.execute_command("AUTH", user, "wrong")
    with pytest.raises(NoPermissionError, match="connect again"):
        client.execute_command("AUTH", READER.credential.username, READER.password)
    client.execute_command("HELLO", "3", "AUTH", user, password)
    assert client.acl_whoami() == user


def test_large_values_and_many_keys_arrive_whole(client: Client) -> None:
    client.set("large", "x" * 5_000_000)
    assert len(client.get("large") or "") == 5_000_000  # type: ignore[arg-type]
    client.mset({f"key:{number}": "v" * 100 for number in range(20_000)})
    assert client.dbsize() == 20_001
    assert sum(1 for _ in client.scan_iter("key:*", count=5000)) == 20_000


def test_small_reads_change_nothing(border: Border) -> None:
    border.chunk_bytes = 7
    with connect(border) as client:
        client.set("k", "v" * 100)
        border.gate.limit(READ, 1)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.get("k").get("k").ping()
            first, second, third = pipeline.execute(raise_on_error=False)
    assert (first, str(second), third) == ("v" * 100, REFUSAL.format("read"), True)


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
def test_redis_cli_runs_a_script_on_after_a_refusal(border: Border) -> None:
    border.gate.limit(READ, 1)
    ran = subprocess.run(
        ["redis-cli", "-p", str(border.port), "--no-auth-warning",
         "--user", OWNER.credential.username, "--pass", OWNER.password],
        input="SET k v\nGET k\nGET k\nPING\n", capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    assert [line for line in ran.stdout.splitlines() if line] == [
        "OK", "v", "ERR " + REFUSAL.format("read"), "PONG",
    ]  # fmt: skip
