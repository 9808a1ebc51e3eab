"""Both logs on a real PostgreSQL, with writers whose commits come in another order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.changelog import CounterLog, Group, Page, Position, TransactionLog
from engines.kit.errors import LocalError, Reason, RequestError
from engines.kit.statement import Statement
from tests.servers import PostgresServer, wait_until

SCHEMA = 'i "42"'
STREAM = TransactionLog(SCHEMA, "stream")
DENSE = CounterLog(SCHEMA, "dense")
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)

Connection = psycopg.Connection[tuple[Any, ...]]


def run(connection: Connection, statement: Statement) -> list[tuple[Any, ...]]:
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(statement.text.encode(), statement.params)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("changelog")


@pytest.fixture
def reader(dsn: str) -> Iterator[Connection]:
    """A connection over fresh, empty logs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute('DROP SCHEMA IF EXISTS "i ""42""" CASCADE; CREATE SCHEMA "i ""42"""')
        for text in STREAM.ddl() + DENSE.ddl():
            connection.execute(text.encode())
        yield connection


@pytest.fixture
def writers(dsn: str) -> Iterator[list[Connection]]:
    connections = [psycopg.connect(dsn) for _ in range(4)]
    yield connections
    for connection in connections:
        connection.close()


def read(
    connection: Connection, position: Position, limit: int = 1000, feed: int | None = None
) -> Page:
    rows = run(connection, STREAM.read(position, limit, feed))
    return STREAM.page(rows, position, limit)


def read_dense(connection: Connection, feed: int, position: Position, limit: int = 1000) -> Page:
    return DENSE.page(run(connection, DENSE.read(feed, position, limit)), feed, position)


def bodies(page: Page) -> list[bytes]:
    return [entry.body for entry in page.entries]


def test_every_table_begins_with_the_shard(reader: Connection) -> None:
    rows = reader.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = %s AND ordinal_position = 1 ORDER BY 1",
        [SCHEMA],
    ).fetchall()
    assert rows == [
        (name, "sk", "integer") for name in ("dense", "dense_counter", "stream", "stream_state")
    ]


def test_a_reader_waits_for_the_older_transaction_and_then_misses_nothing(
    reader: Connection, writers: list[Connection]
) -> None:
    first, second = writers[:2]
    run(first, STREAM.append(1, [b"a1", b"a2"]))
    run(second, STREAM.append(1, [b"b"]))
    second.commit()
    early = read(reader, Position())
    assert early.entries == ()
    run(first, STREAM.append(1, [b"a3"]))
    first.commit()
    late = read(reader, early.position)
    assert bodies(late) == [b"a1", b"a2", b"a3", b"b"]
    assert read(reader, late.position).entries == ()
    assert not late.is_lost


def test_a_rolled_back_writer_leaves_nothing_and_holds_nobody_up(
    reader: Connection, writers: list[Connection]
) -> None:
    run(writers[0], STREAM.append(1, [b"gone"]))
    run(writers[1], STREAM.append(1, [b"kept"]))
    writers[1].commit()
    writers[0].rollback()
    assert bodies(read(reader, Position())) == [b"kept"]


@pytest.mark.parametrize("bytes_max", [1, 2, 3, 99])
def test_a_sized_read_ends_with_the_entry_that_reaches_the_bound(
    reader: Connection, bytes_max: int
) -> None:
    for number in range(4):
        run(reader, STREAM.append(1, [b"%d" % number]))
        run(reader, STREAM.append(2, [b"another feed"]))
    position, seen = Position(), []
    for _ in range(8):
        rows = run(reader, STREAM.read_sized(position, 3 + bytes_max, 1, bytes_max))
        page = STREAM.page(rows, position, 3 + bytes_max)
        position = page.position
        seen.append(bodies(page))
    assert [body for page in seen for body in page] == [b"0", b"1", b"2", b"3"]
    assert all(len(page) <= max(bytes_max, 1) for page in seen)
    assert len(seen[0]) == min(bytes_max, 4)
    # Behind the last entry it has moved on to where the log can be read.
    run(reader, STREAM.append(1, [b"new"]))
    rows = run(reader, STREAM.read_sized(position, 10, 1, bytes_max))
    assert bodies(STREAM.page(rows, position, 10)) == [b"new"]


@dataclass
class Follower:
    """A reader that remembers everything it was given."""

    connection: Connection
    limit: int
    position: Position = field(default_factory=Position)
    seen: tuple[tuple[Position, bytes], ...] = ()

    def step(self) -> int:
        page = read(self.connection, self.position, self.limit)
        assert not page.is_lost
        assert page.position >= self.position
        self.position = page.position
        self.seen += tuple((entry.position, entry.body) for entry in page.entries)
        return len(page.entries)


def assert_complete(follower: Follower, committed: Sequence[bytes]) -> None:
    positions = [position for position, _ in follower.seen]
    assert positions == sorted(set(positions))
    assert sorted(body for _, body in follower.seen) == sorted(committed)


@pytest.mark.parametrize("seed", range(6))
def test_commits_in_any_order_are_read_once_each(
    reader: Connection, writers: list[Connection], seed: int
) -> None:
    chance = random.Random(seed)
    follower = Follower(reader, limit=chance.randint(1, 5))
    pending: dict[int, list[bytes]] = {}
    committed: list[bytes] = []
    for number in range(120):
        index = chance.randrange(len(writers))
        action = chance.choice(["append", "append", "commit", "rollback", "read"])
        if action == "append":
            new = [b"%d.%d" % (number, part) for part in range(chance.randint(1, 3))]
            run(writers[index], STREAM.append(chance.randint(1, 2), new))
            pending.setdefault(index, []).extend(new)
        elif action == "commit":
            writers[index].commit()
            committed += pending.pop(index, [])
        elif action == "rollback":
            writers[index].rollback()
            pending.pop(index, None)
        else:
            follower.step()
    for index, writer in enumerate(writers):
        writer.commit()
        committed += pending.pop(index, [])
    while follower.step():
        pass
    assert_complete(follower, committed)


def test_concurrent_writers_are_followed_without_a_gap(reader: Connection, dsn: str) -> None:
    def write(worker: int) -> list[bytes]:
        written = []
        with psycopg.connect(dsn) as connection:
            for number in range(60):
                # Several statements, so that transactions overlap.
                for part in range(3):
                    body = b"%d.%d.%d" % (worker, number, part)
                    run(connection, STREAM.append(worker % 2, [body]))
                    written.append(body)
                connection.commit()
        return written

    follower = Follower(reader, limit=7)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(write, worker) for worker in range(4)]
        while not all(result.done() for result in results):
            follower.step()
        committed = [body for result in results for body in result.result()]
    wait_until(
        lambda: follower.step() == 0 and len(follower.seen) >= len(committed), "all is read", 10
    )
    assert_complete(follower, committed)
    by_writer = [body for _, body in follower.seen if body.startswith(b"0.")]
    assert by_writer == [b"0.%d.%d" % pair for pair in itertools.product(range(60), range(3))]


def test_a_feed_is_read_alone_and_its_reader_moves_on_while_it_is_quiet(
    reader: Connection,
) -> None:
    run(reader, STREAM.append(1, [b"one"]))
    quiet = read(reader, Position(), feed=1)
    run(reader, STREAM.append(2, [b"two"]))
    assert bodies(quiet) == [b"one"]
    following = read(reader, quiet.position, feed=1)
    assert following.entries == ()
    assert following.position > quiet.position
    assert run(reader, STREAM.trim(FUTURE, 100)) == [(2,)]
    # What was trimmed is behind the quiet reader, though it never saw an entry of feed 2.
    assert not read(reader, following.position, feed=1).is_lost
    assert read(reader, Position(), feed=1).is_lost


def test_pages_end_at_the_limit_and_continue_inside_a_transaction(reader: Connection) -> None:
    run(reader, STREAM.append(1, [b"%d" % number for number in range(5)]))
    first = read(reader, Position(), limit=2)
    second = read(reader, first.position, limit=2)
    third = read(reader, second.position, limit=2)
    assert [bodies(page) for page in (first, second, third)] == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


def test_the_ends_of_the_log_are_where_readers_start(reader: Connection) -> None:
    run(reader, STREAM.append(1, [b"old"]))
    oldest, newest = STREAM.ends(run(reader, STREAM.bounds()))
    run(reader, STREAM.append(1, [b"new"]))
    assert bodies(read(reader, newest)) == [b"new"]
    assert bodies(read(reader, oldest)) == [b"old", b"new"]
    run(reader, STREAM.trim(FUTURE, 1))
    assert not read(reader, STREAM.ends(run(reader, STREAM.bounds()))[0]).is_lost


def test_trimming_takes_the_oldest_first_and_only_what_is_old(reader: Connection) -> None:
    for number in range(4):
        run(reader, STREAM.append(1, [b"%d" % number]))
    reader.execute(
        'UPDATE "i ""42""".stream SET at = at - interval \'2 days\' WHERE body IN (%s, %s)',
        [b"0", b"1"],
    )
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert run(reader, STREAM.trim(yesterday, 1)) == [(1,)]
    assert bodies(read(reader, Position())) == [b"1", b"2", b"3"]
    assert run(reader, STREAM.trim(yesterday, 100)) == [(1,)]
    assert run(reader, STREAM.trim(yesterday, 100)) == [(0,)]
    assert bodies(read(reader, Position())) == [b"2", b"3"]


def test_what_is_not_yet_readable_is_not_trimmed(
    reader: Connection, writers: list[Connection]
) -> None:
    run(writers[0], STREAM.append(1, [b"open"]))
    run(reader, STREAM.append(1, [b"committed"]))
    assert run(reader, STREAM.trim(FUTURE, 100)) == [(0,)]
    writers[0].commit()
    assert run(reader, STREAM.trim(FUTURE, 100)) == [(2,)]


def test_a_new_epoch_sorts_behind_the_old_one_whatever_its_transaction_ids(
    reader: Connection,
) -> None:
    run(reader, STREAM.append(1, [b"before"]))
    # As if it came from a cluster that has run for longer than this one.
    reader.execute('UPDATE "i ""42""".stream SET xid = \'9000000000\'')
    run(reader, STREAM.next_epoch())
    moved = read(reader, Position())
    assert bodies(moved) == [b"before"]
    run(reader, STREAM.append(1, [b"after"]))
    assert bodies(read(reader, moved.position)) == [b"after"]
    assert bodies(read(reader, Position())) == [b"before", b"after"]


def test_a_shard_without_a_state_row_refuses_entries(reader: Connection) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        run(reader, STREAM.append(1, [b"x"], sk=7))


def test_the_insert_can_stand_in_a_larger_statement(reader: Connection) -> None:
    insert = STREAM.append_text("$1", "$2", "$3")
    text = f"WITH logged AS ({insert} RETURNING 1) SELECT count(*) FROM logged"
    assert run(reader, Statement(text, (0, 5, [b"x", b"y"]))) == [(2,)]
    assert bodies(read(reader, Position(), feed=5)) == [b"x", b"y"]


def test_dense_numbers_have_no_gaps_after_rollbacks(
    reader: Connection, writers: list[Connection]
) -> None:
    assert run(writers[0], DENSE.append(1, [b"a", b"b"])) == [(2,)]
    writers[0].commit()
    assert run(writers[0], DENSE.append(1, [b"gone"])) == [(3,)]
    writers[0].rollback()
    assert run(writers[0], DENSE.append(1, [b"c"])) == [(3,)]
    writers[0].commit()
    page = read_dense(reader, 1, Position())
    assert [(entry.position.n, entry.body) for entry in page.entries] == [
        (1, b"a"),
        (2, b"b"),
        (3, b"c"),
    ]
    assert read_dense(reader, 2, Position()) == Page((), Position(), is_lost=False)


def test_concurrent_writers_of_a_feed_get_one_dense_order_that_readers_see_grow(
    reader: Connection, dsn: str
) -> None:
    def write(worker: int) -> list[tuple[int, bytes]]:
        written = []
        with psycopg.connect(dsn) as connection:
            for number in range(50):
                new = [b"%d.%d.%d" % (worker, number, part) for part in range(1 + number % 3)]
                ((last,),) = run(connection, DENSE.append(9, new))
                if number % 7 == 3:
                    connection.rollback()
                    continue
                connection.commit()
                written += list(zip(range(last - len(new) + 1, last + 1), new, strict=True))
        return written

    seen: list[tuple[int, bytes]] = []
    position = Position()

    def step() -> int:
        nonlocal position
        page = read_dense(reader, 9, position, limit=11)
        position = page.position
        seen.extend((entry.position.n, entry.body) for entry in page.entries)
        return len(page.entries)

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(write, worker) for worker in range(4)]
        while not all(result.done() for result in results):
            step()
        committed = sorted(pair for result in results for pair in result.result())
    while step():
        pass
    assert [number for number, _ in seen] == list(range(1, len(committed) + 1))
    assert seen == committed


def test_dense_trimming_takes_a_prefix_only(reader: Connection) -> None:
    run(reader, DENSE.append(1, [b"%d" % number for number in range(5)]))
    reader.execute(
        'UPDATE "i ""42""".dense SET at = at - interval \'2 days\' WHERE seq IN (1, 2, 4)'
    )
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert run(reader, DENSE.trim(1, yesterday, 1)) == [(1,)]
    assert run(reader, DENSE.trim(1, yesterday, 100)) == [(1,)]
    assert run(reader, DENSE.trim(1, yesterday, 100)) == [(0,)]
    late = read_dense(reader, 1, Position(n=1))
    assert late.is_lost
    assert [entry.position.n for entry in late.entries] == [3, 4, 5]
    assert not read_dense(reader, 1, Position(n=2)).is_lost
    assert DENSE.ends(run(reader, DENSE.bounds(1))) == (Position(n=2), Position(n=5))
    assert DENSE.ends(run(reader, DENSE.bounds(2))) == (Position(), Position())


async def test_asyncpg_takes_the_same_statements(reader: Connection, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:

        async def fetch(statement: Statement) -> list[Any]:
            return list(await connection.fetch(statement.text, *statement.params))

        await fetch(STREAM.append(1, [b"a", b"b"]))
        page = STREAM.page(await fetch(STREAM.read(Position(), 10, 1)), Position(), 10)
        assert bodies(page) == [b"a", b"b"]
        assert STREAM.ends(await fetch(STREAM.bounds()))[0] == Position()
        assert (await fetch(STREAM.trim(FUTURE, 10)))[0][0] == 2
        await fetch(STREAM.next_epoch())
        assert (await fetch(DENSE.append(1, [b"a"])))[0][0] == 1
        dense = DENSE.page(await fetch(DENSE.read(1, Position(), 10)), 1, Position())
        assert bodies(dense) == [b"a"]
        assert (await fetch(DENSE.trim(1, FUTURE, 10)))[0][0] == 1
    finally:
        await connection.close()


def test_a_group_gives_each_writer_its_own_numbers(reader: Connection) -> None:
    group = Group(entries_max=5)
    first, second = group.offer([b"a", b"b"]), group.offer([b"c"])
    assert group.offer([b"d", b"e", b"f"]) is None
    third = group.offer([b"d", b"e"])
    run(reader, DENSE.append(1, [b"before"]))
    ((last,),) = run(reader, DENSE.append(1, group.bodies))
    group.settle(last)
    assert first is not None
    assert second is not None
    assert third is not None
    assert [(share.first, share.last) for share in (first, second, third)] == [
        (2, 3),
        (4, 4),
        (5, 6),
    ]
    found = {entry.position.n: entry.body for entry in read_dense(reader, 1, Position()).entries}
    assert (found[2], found[4], found[6]) == (b"a", b"c", b"e")


def test_a_group_is_bound_by_bytes_and_an_empty_one_takes_anybody() -> None:
    group = Group(body_bytes_max=10)
    assert group.offer([b"x" * 100]) is not None
    assert group.offer([b"x"]) is None
    with pytest.raises(LocalError):
        Group().offer([])


places = st.builds(
    Position, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)
)


@given(places, places)
def test_tokens_are_read_back_and_sort_as_positions_do(left: Position, right: Position) -> None:
    assert Position.from_token(left.to_token()) == left
    assert (left < right) == (left.to_token() < right.to_token())


@pytest.mark.parametrize(
    "token",
    [
        "", "x", "00", Position().to_token() + "00", Position().to_token()[:-2],
        "02" + Position().to_token()[2:], Position(n=255).to_token().upper(),
        " " + Position().to_token(), "01" + "ff" * 20, "01" + "00" * 12 + "ff" * 8,
    ],
)  # fmt: skip
def test_what_is_no_token_is_malformed(token: str) -> None:
    with pytest.raises(RequestError) as caught:
        Position.from_token(token)
    assert caught.value.reason is Reason.MALFORMED
