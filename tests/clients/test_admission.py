"""Over the limit: the error with class, limit and time; the exact rate; exact metering."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest
import redis
from botocore.exceptions import ClientError

from tests.admin import Admin
from tests.clients.keyvalue.stack_clients import SESSIONS, client_of, refusal
from tests.servers import wait_until
from tests.stack import Connection

pytestmark = pytest.mark.stack

THREADS = 4
SECONDS = 6.0
LITE_READS_PER_SECOND = 20


def _retry_after(text: str) -> float:
    match = re.search(r"(?i)retry after (\d+) ms", text)
    assert match, text
    return int(match[1]) / 1000


def _postgres_reader(row: Connection, held: ExitStack) -> Callable[[], float | None]:
    """Return a function that reads once: None, or after how long to retry."""
    connection = held.enter_context(psycopg.connect(row.uri, autocommit=True))

    def read() -> float | None:
        try:
            connection.execute("SELECT 1")
        except psycopg.errors.ConfigurationLimitExceeded as refused:
            assert refused.sqlstate == "53400"
            assert "20 read units per second" in str(refused)
            return _retry_after(refused.diag.message_hint or "")
        return None

    return read


def _redis_reader(row: Connection, held: ExitStack) -> Callable[[], float | None]:
    client = held.enter_context(redis.Redis.from_url(row.uri, single_connection_client=True))

    def read() -> float | None:
        try:
            client.get("k")
        except redis.ResponseError as refused:
            assert "20 read units per second" in str(refused)
            return _retry_after(str(refused))
        return None

    return read


def _dynamodb_reader(row: Connection, held: ExitStack) -> Callable[[], float | None]:
    client = held.enter_context(contextlib.closing(client_of(row)))
    wait_until(lambda: refusal(row) == "", "the new key works")
    if not client.list_tables()["TableNames"]:
        client.create_table(TableName="sessions", **SESSIONS)

    def read() -> float | None:
        try:
            client.get_item(
                TableName="sessions", Key={"sessionId": {"S": "k"}}, ConsistentRead=True
            )
        except ClientError as refused:
            assert refused.response["Error"]["Code"] == "ThrottlingException"
            assert "20 read units per second" in str(refused)
            return _retry_after(str(refused))
        return None

    return read


READERS = {
    "relational": _postgres_reader,
    "inmemory": _redis_reader,
    "keyvalue": _dynamodb_reader,
}


@pytest.mark.parametrize("engine", READERS)
def test_the_allowed_rate_is_the_plans_and_every_unit_is_metered(admin: Admin, engine: str) -> None:
    row = admin.new_instance(engine, plan="lite")
    allowed: list[float] = []
    refused: list[float] = []
    held = ExitStack()
    readers = [READERS[engine](row, held) for _ in range(THREADS)]
    end = time.monotonic() + SECONDS

    def hammer(read: Callable[[], float | None]) -> None:
        pause = threading.Event()
        while (now := time.monotonic()) < end:
            retry_after = read()
            (allowed if retry_after is None else refused).append(now)
            if retry_after is not None:
                # A polite client, but an impatient one.
                pause.wait(min(retry_after, 0.02))

    threads = [threading.Thread(target=hammer, args=(read,)) for read in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held.close()
    # The first second may spend a whole window at once; the steady rate is what counts.
    steady = [at for at in allowed if at >= end - SECONDS + 1]
    rate = len(steady) / (SECONDS - 1)
    assert refused, "the limit was never met"
    assert rate == pytest.approx(LITE_READS_PER_SECOND, rel=0.1)
    wait_until(
        lambda: admin.units(row.instance)["read"] == len(allowed),
        f"{len(allowed)} read units are metered, not {admin.units(row.instance)}",
        20,
    )


def test_classes_do_not_starve_each_other(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="lite")
    with psycopg.connect(row.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int)")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
            for _ in range(100):
                connection.execute("SELECT 1")
        connection.execute("INSERT INTO t VALUES (1)")


def test_a_refusal_inside_a_transaction_aborts_it_as_a_whole(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="lite")
    with psycopg.connect(row.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
            for n in range(100):
                connection.execute(f"INSERT INTO t VALUES ({n})")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.execute("ROLLBACK")
        wait_until(lambda: _count(connection) == 0, "the half write is not seen")


def _count(connection: psycopg.Connection) -> int:
    try:
        found = connection.execute("SELECT count(*) FROM t").fetchone()
    except psycopg.errors.ConfigurationLimitExceeded:
        return -1
    assert found is not None
    return int(found[0])


def test_a_refused_command_aborts_a_redis_transaction(admin: Admin) -> None:
    row = admin.new_instance("inmemory", plan="lite")
    client = redis.Redis.from_url(row.uri)
    wait_until(lambda: _size(client) == 0, "the new key works")
    pipe = client.pipeline(transaction=True)
    for number in range(100):
        pipe.set(f"k{number}", number)
    with pytest.raises(redis.ResponseError):
        pipe.execute()
    wait_until(lambda: _size(client) == 0, "nothing of it was done")


def _size(client: redis.Redis) -> int:
    try:
        return int(client.dbsize())
    except redis.RedisError:
        return -1
