"""Few sessions of a real server for many clients: each sees what it would see alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.relational import wire
from tests.engines.relational.conftest import DATABASE
from tests.engines.relational.shared_sessions import (
    SYNC,
    Client,
    Shared,
    again,
    alone,
    bind,
    close,
    comparable,
    describe,
    execute,
    parse,
    query,
    run,
)

TEXTS = (
    "SELECT 1",
    "SELECT 'two'::text, current_setting('TimeZone')",
    "SELECT 'a\\b'::text",
    "SELECT nonsense",
    "SYNTAX ERROR",
    "SELECT 1/0",
    "SELECT DATE '01/02/2026'",
    "",
)
QUERIES = (
    "SELECT 1; SELECT 2",
    "SELECT nonsense",
    "SELECT 1/0",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET DateStyle = 'German'",
    "RESET TimeZone",
    "SHOW TimeZone",
    "SHOW DateStyle",
    "SET statement_timeout = '31s'",
    "SET work_mem = '5MB'",
    "SET LOCAL work_mem = '6MB'",
    "RESET work_mem",
    "SHOW work_mem",
    "SHOW statement_timeout",
    "SELECT set_config('app.who', 'me', false)",
    "SELECT coalesce(nullif(current_setting('app.who', true), ''), 'nobody')",
    "RESET ALL",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DEALLOCATE a",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "",
)
names = st.sampled_from(["", "a", "b"])
extended = st.one_of(
    st.builds(parse, names, st.sampled_from(TEXTS)),
    st.builds(bind, names),
    st.builds(describe, names),
    st.builds(close, names),
    st.just(execute()),
)
segments = st.one_of(
    st.sampled_from(QUERIES).map(query),
    st.builds(run, names, st.sampled_from(TEXTS)),
    st.builds(again, names),
    st.lists(extended, max_size=5).map(lambda parts: b"".join(parts) + SYNC),
)
chunks = st.lists(segments, min_size=1, max_size=3).map(b"".join)


@pytest.fixture(scope="module")
def path(socket: Path) -> Path:
    return socket


@pytest.fixture
def shared(path: Path) -> Iterator[Shared]:
    """Three clients over one session."""
    made = Shared(path, DATABASE, sessions=1, clients=3)
    yield made
    made.close()


@settings(max_examples=60, deadline=None)
@given(
    programs=st.lists(st.lists(chunks, max_size=6), min_size=2, max_size=4),
    order=st.lists(st.integers(0, 7), max_size=60),
    sessions=st.integers(1, 2),
)
def test_every_client_sees_what_it_would_see_alone(
    path: Path, programs: list[list[bytes]], order: list[int], sessions: int
) -> None:
    shared = Shared(path, DATABASE, sessions=sessions, clients=len(programs))
    try:
        left = [list(program) for program in programs]
        for step in order:
            number = step % len(programs)
            client = shared.clients[number]
            if step >= 4 and shared.owes(client):
                shared.answer(client, 7 if step == 7 else 65536)
            elif left[number] and not client.multiplexer.is_full:
                shared.send(client, left[number].pop(0))
        for number, client in enumerate(shared.clients):
            for chunk in left[number]:
                shared.send(client, chunk)
        # A transaction that is left open keeps its session: end it, so that the others go on.
        for client in shared.clients:
            shared.send(client, query("ROLLBACK"))
        shared.settle()
        told = [comparable(client.messages) for client in shared.clients]
    finally:
        shared.close()
    for number, program in enumerate(programs):
        assert told[number] == comparable(alone(path, DATABASE, [*program, query("ROLLBACK")]))


def values(client: Client) -> list[bytes]:
    """The first column of every row that the client got."""
    rows = [body for kind, body in client.messages if kind == b"D"]
    return [row[6 : 6 + int.from_bytes(row[2:6], "big")] for row in rows]


def ask(shared: Shared, client: Client, *chunks: bytes) -> list[bytes]:
    """Send, take all answers, and return the first columns of the rows."""
    client.told = b""
    for chunk in chunks:
        shared.send(client, chunk)
    shared.settle(client)
    return values(client)


def errors(client: Client) -> list[str]:
    return [wire.fields(body)["C"] for kind, body in client.messages if kind == b"E"]


def test_a_setting_stays_with_its_client(shared: Shared) -> None:
    one, other, _ = shared.clients
    ask(shared, one, query("SET TimeZone = 'Asia/Tokyo'"), query("SET lock_timeout = '7s'"))
    assert ask(shared, other, query("SHOW TimeZone"), query("SHOW lock_timeout")) != [
        b"Asia/Tokyo",
        b"7s",
    ]
    assert ask(shared, one, query("SHOW TimeZone"), query("SHOW lock_timeout")) == [
        b"Asia/Tokyo",
        b"7s",
    ]


def test_a_setting_that_was_rolled_back_does_not_stay(shared: Shared) -> None:
    one, other, _ = shared.clients
    ask(shared, one, *map(query, ["BEGIN", "SET work_mem = '7MB'", "ROLLBACK"]))
    ask(shared, other, query("SELECT 1"))
    assert ask(shared, one, query("SHOW work_mem")) != [b"7MB"]


def test_what_a_function_does_to_the_session_is_not_seen_by_others(shared: Shared) -> None:
    one, other, _ = shared.clients
    ask(
        shared,
        one,
        query(
            "CREATE OR REPLACE FUNCTION meddle() RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM set_config('app.secret', 'mine', false); PERFORM pg_advisory_lock(77);"
            " SET statement_timeout = '9s'; END $$"
        ),
    )
    shared.settle(one)
    # One more client, because the text above has been seen; this one is not.
    meddler = shared.join()
    shared.clients.append(meddler)
    ask(shared, meddler, query("SELECT meddle()"))
    assert meddler.session is None
    assert ask(shared, other, query("SELECT nullif(current_setting('app.secret', true), '')")) == [
        b""
    ]
    assert ask(shared, other, query("SHOW statement_timeout")) == [b"0"]
    assert ask(shared, other, query("SELECT count(*) FROM pg_locks WHERE objid = 77")) == [b"0"]


def test_the_same_statement_of_two_clients_is_prepared_once(shared: Shared) -> None:
    one, other, _ = shared.clients
    text = "SELECT 41 + 1"
    assert ask(shared, one, run("s", text)) == [b"42"]
    assert ask(shared, other, run("other", text)) == [b"42"]
    known = query(f"SELECT count(*) FROM pg_prepared_statements WHERE statement = '{text}'")
    assert ask(shared, other, known) == [b"1"]
    assert ask(shared, one, again("s")) == [b"42"]


def test_one_text_under_two_meanings_is_prepared_twice(shared: Shared) -> None:
    one, other, _ = shared.clients
    ask(shared, one, query("SET DateStyle = 'ISO, DMY'"))
    text = "SELECT extract(month FROM DATE '01/02/2026')::int"
    assert ask(shared, one, run("s", text)) == [b"2"]
    assert ask(shared, other, run("s", text)) == [b"1"]
    assert ask(shared, one, again("s")) == [b"2"]


def test_a_statement_is_there_for_a_describe_in_another_session(path: Path) -> None:
    shared = Shared(path, DATABASE, sessions=2, clients=3)
    try:
        one, blocker, _ = shared.clients
        ask(shared, one, run("s", "SELECT 1 AS described"))
        home = shared.sessions.index(
            next(s for s in shared.sessions if s.server.last_client == one.multiplexer.serial)
        )
        while blocker.session is not shared.sessions[home]:
            ask(shared, blocker, query("ROLLBACK"))
            shared.send(blocker, query("BEGIN"))
            shared.settle(blocker)
        ask(shared, one, describe("s") + SYNC)
        assert [kind for kind, _ in one.messages] == [b"t", b"T", b"Z"]
    finally:
        shared.close()


def test_the_servers_statements_are_bounded(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.relational.pooling.server.SERVER_STATEMENTS_MAX", 4)
    one = shared.clients[0]
    for number in range(12):
        assert ask(shared, one, run(f"s{number}", f"SELECT {number}")) == [b"%d" % number]
    assert int(ask(shared, one, query("SELECT count(*) FROM pg_prepared_statements"))[0]) <= 4
    for number in range(12):
        assert ask(shared, one, again(f"s{number}")) == [b"%d" % number]


def test_a_clients_statements_are_bounded(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.relational.pooling.statements.STATEMENTS_MAX", 3)
    one = shared.clients[0]
    for number in range(3):
        ask(shared, one, parse(f"s{number}", f"SELECT {number}") + SYNC)
    ask(shared, one, parse("s3", "SELECT 3") + bind("s3") + SYNC)
    assert errors(one) == ["54000"]
    ask(shared, one, close("s0") + parse("s3", "SELECT 3") + SYNC)
    assert errors(one) == []


def test_what_must_stay_in_one_session_pins_it(path: Path) -> None:
    shared = Shared(path, DATABASE, sessions=2, clients=2)
    try:
        one, other = shared.clients
        ask(shared, one, query("CREATE TEMP TABLE kept AS SELECT 5 AS n"))
        ask(shared, other, query("SELECT 1"))
        assert ask(shared, one, query("SELECT n FROM kept")) == [b"5"]
        # One session is always for the others.
        ask(shared, other, query("LISTEN news"))
        assert errors(other) == ["0A000"]
        ask(shared, one, query("DISCARD ALL"))
        assert one.session is None
        ask(shared, other, query("LISTEN news"))
        assert errors(other) == []
    finally:
        shared.close()


def test_a_client_starts_with_its_own_settings_and_resets_to_them(shared: Shared) -> None:
    one = shared.join({b"TimeZone": b"Europe/Paris", b"application_name": b"mine"})
    shared.clients.append(one)
    assert b"TimeZone\0Europe/Paris\0" in one.greeting
    assert ask(shared, one, query("SHOW application_name")) == [b"mine"]
    ask(shared, one, query("SET TimeZone = 'UTC'"), query("RESET ALL"))
    ask(shared, shared.clients[1], query("SELECT 1"))
    assert ask(shared, one, query("SHOW TimeZone")) == [b"Europe/Paris"]


def test_a_lost_session_costs_an_error_only_where_something_was_under_way(
    shared: Shared,
) -> None:
    one = shared.clients[0]
    shared.send(one, query("BEGIN"))
    shared.settle(one)
    assert not one.multiplexer.lost()
    other = shared.clients[1]
    ask(shared, one, query("ROLLBACK"))
    shared.send(other, query("SELECT 1"))
    assert other.multiplexer.lost()
    told = b"".join(other.multiplexer.to_relay)
    assert [kind for kind, _ in wire.split(told)[0]] == [b"E", b"Z"]
    assert b"C08006\0" in told
