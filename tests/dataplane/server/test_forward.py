"""Tokens: owned by one worker, redeemed at any, only while their connection lives."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dataplane.server import forward
from dataplane.server.forward import TokenBook, socket_path
from tests.dataplane.plane import ControlDatabase, Plane, instance, key, metric, until

ONE = "11111111-1111-1111-1111-111111111111"
KEY = b"a master key"
PID = 0xFFFF_0001
NewPlane = Callable[..., Plane]


@pytest.fixture
async def books(home: Path) -> AsyncIterator[list[TokenBook]]:
    """The token books of workers 0, 1 and 200."""
    made = [TokenBook(home, number, KEY) for number in (0, 1, 200)]
    for book in made:
        await book.start()
    yield made
    for book in made:
        book.close()


async def test_every_worker_redeems_every_others_tokens(books: list[TokenBook]) -> None:
    for owner in books:
        token = owner.issue(ONE, b"payload", PID)
        assert token >> 32 == PID
        assert [await book.redeem(token) for book in books] == [(ONE, b"payload")] * 3


async def test_a_withdrawn_token_is_unknown_everywhere(books: list[TokenBook]) -> None:
    token = books[0].issue(ONE, b"payload", PID)
    books[0].withdraw(token)
    assert [await book.redeem(token) for book in books] == [None] * 3


@pytest.mark.parametrize("token", [0, 1, 1 << 55, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1])
async def test_made_up_tokens_are_unknown(books: list[TokenBook], token: int) -> None:
    assert await books[0].redeem(token) is None


async def test_an_empty_payload_is_a_payload(books: list[TokenBook]) -> None:
    assert await books[1].redeem(books[0].issue(ONE, b"", PID)) == (ONE, b"")


async def test_what_a_token_stands_for_is_done_by_its_owner(books: list[TokenBook]) -> None:
    done: list[str] = []

    async def perform() -> None:
        done.append("done")

    token = books[1].issue(ONE, b"", PID)
    books[1].answers(token, perform)
    for book in books:
        await book.perform(token)
    assert done == ["done"] * 3
    books[1].withdraw(token)
    await books[0].perform(token)
    assert done == ["done"] * 3


async def test_a_worker_that_is_gone_is_no_owner(books: list[TokenBook], home: Path) -> None:
    token = books[1].issue(ONE, b"payload", PID)
    books[1].close()
    socket_path(home, 1).unlink()
    assert await books[0].redeem(token) is None


async def test_a_worker_that_hangs_is_not_waited_for_for_ever(
    books: list[TokenBook], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "FORWARD_SECONDS_MAX", 0.05)
    token = TokenBook(home, 7, KEY).issue(ONE, b"payload", PID)
    hanging: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hanging.append(writer)

    server = await asyncio.start_unix_server(hang, str(socket_path(home, 7)))
    assert await books[0].redeem(token) is None
    server.close()
    for writer in hanging:
        writer.close()


async def test_a_restarted_worker_takes_over_its_socket(home: Path) -> None:
    old, new, other = (TokenBook(home, number, KEY) for number in (3, 3, 4))
    await old.start()
    await new.start()
    old.close()
    token = new.issue(ONE, secrets.token_bytes(100), PID)
    assert await other.redeem(token) == await new.redeem(token)
    new.close()


async def test_cancel_tokens_are_forwarded_between_real_workers(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential))
    plane = new_plane(workers=2)
    plane.start()
    await plane.serve(record)
    owner = await plane.connect()
    token = (await owner.ask(f"LOGIN {credential.username} {password}")).split()[1]
    # The kernel chooses the worker: enough connections reach both.
    payload = f"PAYLOAD {credential.username.encode().hex()}"
    for _ in range(24):
        assert await (await plane.connect()).ask(f"REDEEM {token}") == payload
    page = plane.admin("/metrics")[1]
    assert 0 < metric(page, "weftkit_tokens_forwarded_total", outcome="found") < 24
    database.publish(dataclasses.replace(record, allowlist=("192.0.2.0/24",)))
    assert await owner.rest() == "BYE address\n"
    assert await (await plane.connect()).ask(f"REDEEM {token}") == "NONE"


async def test_a_token_ends_with_its_connection(plane: Plane) -> None:
    credential, password = key()
    await plane.serve(await plane.know(instance(credential)))
    owner = await plane.connect()
    token = (await owner.ask(f"LOGIN {credential.username} {password}")).split()[1]
    await owner.close()
    await until(lambda: len(plane.logged("session_ended")) == 1, "the session has ended")
    assert await (await plane.connect()).ask(f"REDEEM {token}") == "NONE"


async def test_the_lower_half_shows_no_worker_and_never_repeats(books: list[TokenBook]) -> None:
    lower = [books[2].issue(ONE, b"", PID) & 0xFFFF_FFFF for _ in range(500)]
    assert len(set(lower)) == 500
    # Masked: the last byte is not the worker's number more often than any other.
    assert sum(token & 0xFF == 200 for token in lower) < 25
