"""RDB export and import through the whole stack: every type there and back, and kills."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.admin import Admin
from tests.host.rdb_files import content, fill
from tests.servers import wait_until
from tests.stack import Connection, Stack
from tests.transfers import Transfers

pytestmark = pytest.mark.stack

BACK_SECONDS_MAX = 60


@pytest.fixture(scope="module")
def transfers(stack: Stack, admin: Admin) -> Transfers:
    return Transfers(stack, admin)


@contextlib.contextmanager
def client_of(row: Connection) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(
        row.uri,
        decode_responses=True,
        encoding_errors="surrogateescape",
        single_connection_client=True,
    )
    with contextlib.closing(client):
        yield client


def value(row: Connection, key: str) -> str | None:
    """Return a key's value as soon as the instance answers."""
    found: list[str | None] = []

    def answers() -> bool:
        try:
            with client_of(row) as client:
                found.append(client.get(key))
        except redis.ConnectionError:
            return False
        return True

    wait_until(answers, "the instance answers", BACK_SECONDS_MAX)
    return found[0]


def test_every_type_is_the_same_after_download_upload_and_import(
    admin: Admin, transfers: Transfers
) -> None:
    source = admin.new_instance("inmemory", plan="unmetered")
    target = admin.new_instance("inmemory", plan="unmetered")
    with client_of(source) as client:
        fill(client)
        before = content(client)
        data = transfers.download(source.instance, transfers.export(source.instance))
        assert client.ping(), "on the same connection"
    with client_of(target) as client:
        client.set("old", "1")
    file = transfers.upload(target.instance, data)
    done = admin.finish(transfers.start_import(target.instance, file))
    assert done["bytes_done"] == done["bytes_total"] == 2 * len(data)
    assert value(target, "old") is None
    with client_of(target) as client:
        assert content(client) == before
        assert 6000 < client.ttl("mortal") <= 7000


def test_damaged_file_ends_in_a_failed_operation_and_the_old_data_are_served(
    admin: Admin, transfers: Transfers
) -> None:
    row = admin.new_instance("inmemory", plan="unmetered")
    with client_of(row) as client:
        client.set("old", "1")
        data = transfers.download(row.instance, transfers.export(row.instance))
        started = transfers.start_import(row.instance, transfers.upload(row.instance, data[:-9]))

        def has_failed() -> bool:
            return admin.call("GET", f"operations/{started['id']}")["state"] == "failed"

        wait_until(has_failed, "the import fails")
        failed = admin.call("GET", f"operations/{started['id']}")
        assert (failed["error_code"], failed["error_message"]) == (
            "rdb_truncated",
            "the file ends too early",
        )
        assert client.get("old") == "1", "on the same connection"


@pytest.mark.parametrize(
    "killed",
    [("-m dataplane.host",), ("celery", " worker"), ("bounded_daphne",), ("redis", "{instance}")],
    ids=["host", "worker", "web", "server"],
)
def test_import_is_finished_whichever_process_is_killed_on_the_way(
    stack: Stack, admin: Admin, transfers: Transfers, killed: tuple[str, ...]
) -> None:
    source = admin.new_instance("inmemory", plan="unmetered")
    target = admin.new_instance("inmemory", plan="unmetered")
    with client_of(source) as client:
        pipeline = client.pipeline()
        for number in range(20_000):
            pipeline.set(f"k{number}", os.urandom(200).hex())
        pipeline.set("new", "1")
        pipeline.execute()
    with client_of(target) as client:
        client.set("old", "1")
    file = transfers.export(source.instance)
    identifier = admin.call("GET", f"instances/{target.instance}")["id"].replace("-", "")
    started = transfers.start_import(target.instance, file)
    workplace = Path(stack.home) / "instances" / identifier / "workplace"
    wait_until(workplace.exists, "the host works")
    stack.kill(*(word.format(instance=identifier) for word in killed))
    admin.finish(started, 120)
    assert (value(target, "old"), value(target, "new")) == (None, "1")
    with client_of(target) as client:
        assert client.dbsize() == 20_001
    wait_until(lambda: not workplace.exists(), "nothing is left")
