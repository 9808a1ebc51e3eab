"""psycopg and psql through session and relay against a real server; the units they are charged."""

from __future__ import annotations

import shutil
import subprocess

import psycopg
import pytest
from psycopg import pq, sql

from engines.kit.ports import RequestClass
from tests.engines.border import Border
from tests.engines.relational.conftest import dsn
from tests.servers import wait_until

READ, WRITE = RequestClass.READ, RequestClass.WRITE


def rows(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT a, b FROM t ORDER BY a").fetchall()


def insert(connection: psycopg.Connection, *values: int, prepare: bool | None = None) -> None:
    for value in values:
        connection.execute("INSERT INTO t VALUES (%s, 'x')", [value], prepare=prepare)


def test_each_protocol_is_charged_alike(border: Border, connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (1, 'x')")  # simple
    insert(connection, 2)  # extended, unnamed
    insert(connection, *range(3, 10), prepare=True)  # extended, named
    with connection.pipeline():
        insert(connection, 10, 11)
    connection.cursor(binary=True).execute("SELECT a FROM t WHERE a = %s", [1])
    assert border.gate.performed() == {"read": 1, "write": 11}


def test_a_refusal_leaves_the_session_usable(
    border: Border, connection: psycopg.Connection
) -> None:
    border.gate.limit(READ, 0)
    for parameters in (None, [1]):
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as refused:
            connection.execute("SELECT 1" if parameters is None else "SELECT %s::int", parameters)
        assert refused.value.diag.message_detail == "class=read limit=20 retry_after_ms=350"
        assert connection.info.transaction_status is pq.TransactionStatus.IDLE
    insert(connection, 1)
    border.gate.limit(READ, 1)
    assert rows(connection) == [(1, "x")]
    assert border.gate.refused == 2


def test_a_refusal_inside_a_transaction_aborts_it(
    border: Border, connection: psycopg.Connection
) -> None:
    border.gate.limit(WRITE, 2)
    for prepare in (False, True):
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded), connection.transaction():
            insert(connection, 1, 2, 3, prepare=prepare)
        border.gate.limit(WRITE, 2)
    assert rows(connection) == []
    # Rolled back, but performed: two in each attempt. psycopg drops what it prepared in between.
    assert border.gate.performed() == {"unlimited": 5, "read": 1, "write": 4}


def test_a_savepoint_outlives_a_refusal(border: Border, connection: psycopg.Connection) -> None:
    with connection.transaction():
        insert(connection, 1)
        border.gate.limit(WRITE, 0)
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded), connection.transaction():
            insert(connection, 2)
        border.gate.limit(WRITE, 1)
        insert(connection, 3)
    assert rows(connection) == [(1, "x"), (3, "x")]


def test_a_refusal_in_a_pipeline_comes_in_order(
    border: Border, connection: psycopg.Connection
) -> None:
    border.gate.limit(WRITE, 2)
    cursors = []
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded), connection.pipeline() as line:
        for value in (1, 2, 3, 4):
            cursors.append(connection.execute("INSERT INTO t VALUES (%s)", [value]))
        line.sync()
    assert [cursor.statusmessage for cursor in cursors[:2]] == ["INSERT 0 1"] * 2
    # One implicit transaction up to the Sync: all of it is rolled back.
    assert rows(connection) == []
    assert border.gate.performed() == {"read": 1, "write": 2}


def test_an_error_in_a_pipeline_gives_back_what_was_skipped(
    border: Border, connection: psycopg.Connection
) -> None:
    insert(connection, 1)
    with pytest.raises(psycopg.errors.UniqueViolation), connection.pipeline():
        insert(connection, 2, 1, 3, 4)
    with pytest.raises(psycopg.errors.UndefinedTable), connection.pipeline():
        insert(connection, 5)
        connection.execute("SELECT * FROM nosuch WHERE a = %s", [1])
        insert(connection, 6)
    # 1; 2 and the violating 1; 5. The unknown table failed before anything was executed.
    assert border.gate.performed() == {"write": 4}


def test_units_are_waited_for(border: Border, connection: psycopg.Connection) -> None:
    border.gate.fetch_units = 3
    border.gate.limit(WRITE, 5)
    insert(connection, 1, 2, 3, 4, 5)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        insert(connection, 6)
    assert [row[0] for row in rows(connection)] == [1, 2, 3, 4, 5]
    assert border.gate.waits >= 2
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded), connection.pipeline():
        insert(connection, 7)


def test_copy_passes_both_ways(border: Border, connection: psycopg.Connection) -> None:
    with connection.cursor() as cursor:
        with cursor.copy("COPY t FROM STDIN") as copy:
            for value in range(20_000):
                copy.write_row((value, "x" * 100))
        with cursor.copy("COPY (SELECT a FROM t) TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 20_000
        with (
            pytest.raises(psycopg.errors.UniqueViolation),
            cursor.copy("COPY t FROM STDIN") as copy,
        ):
            copy.write_row((1, "again"))
        with cursor.copy(sql.SQL("COPY (SELECT {}) TO STDOUT").format(sql.Literal(1))) as copy:
            assert list(copy.rows()) == [("1",)]
    assert rows(connection)[-1][0] == 19_999
    assert border.gate.performed() == {"read": 1, "write": 2, "query": 2}
    assert border.relays[-1].is_idle


def test_copy_is_refused_before_it_begins(border: Border, connection: psycopg.Connection) -> None:
    border.gate.is_full = True
    with (
        pytest.raises(psycopg.errors.DiskFull),
        connection.cursor().copy("COPY t FROM STDIN") as copy,
    ):
        copy.write_row((1, "x"))
    connection.execute("TRUNCATE t")
    assert rows(connection) == []


def test_cursors_are_charged_as_they_are_used(
    border: Border, connection: psycopg.Connection
) -> None:
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT generate_series(1, 35)")
        assert len(list(cursor)) == 35
    performed = border.gate.performed()
    assert performed["query"] == 1  # DECLARE
    assert performed["read"] >= 4  # FETCH


def test_notifications_reach_the_listener(border: Border, connection: psycopg.Connection) -> None:
    connection.execute("LISTEN news")
    with psycopg.connect(dsn(border), autocommit=True) as other:
        other.execute("NOTIFY news, 'hello'")
    (notification,) = list(connection.notifies(timeout=10, stop_after=1))
    assert notification.payload == "hello"


def test_large_rows_and_many_rows_arrive_whole(connection: psycopg.Connection) -> None:
    (text,) = connection.execute("SELECT repeat('x', 5000000)").fetchone() or ("",)
    assert len(text) == 5_000_000
    assert len(connection.execute("SELECT generate_series(1, 100000)").fetchall()) == 100_000
    (length,) = connection.execute("SELECT length(%s)", ["y" * 5_000_000]).fetchone() or (0,)
    assert length == 5_000_000


def test_small_reads_change_nothing(border: Border) -> None:
    border.chunk_bytes = 7
    with psycopg.connect(dsn(border)) as connection:
        connection.execute("CREATE TEMP TABLE u (a int)")
        with connection.pipeline():
            for value in range(20):
                connection.execute("INSERT INTO u VALUES (%s)", [value])
        assert connection.execute("SELECT sum(a) FROM u").fetchone() == (190,)
        border.gate.limit(READ, 0)
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
            connection.execute("SELECT 1")
        connection.rollback()


def test_a_session_is_idle_between_its_transactions(
    border: Border, connection: psycopg.Connection
) -> None:
    relay = border.relays[-1]
    with connection.transaction():
        insert(connection, 1)
        assert not relay.is_idle
    wait_until(lambda: relay.is_idle, "the session is idle")


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_psql_runs_a_script_on_after_a_refusal(border: Border) -> None:
    border.gate.limit(READ, 2)
    script = "SELECT 1;\nSELECT 2 \\; SELECT 3;\nSELECT 4;\nSELECT 5;\n\\echo done\n"
    ran = subprocess.run(
        ["psql", "-X", "-At", dsn(border)],
        input=script, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    # The pair asks for two units where one is left.
    assert ran.stdout.split() == ["1", "4", "done"]
    assert ran.stderr.count("rate limit exceeded: 20 read units per second") == 2
    assert border.gate.performed() == {"read": 2}


@pytest.mark.parametrize("text", ["SHOW weftkit.usage", "show  WeftKit . Usage ;"])
@pytest.mark.parametrize("prepare", [None, True])
def test_show_usage_tells_what_the_client_has_used(
    border: Border, connection: psycopg.Connection, text: str, prepare: bool | None
) -> None:
    border.gate.limit(READ, 20)
    insert(connection, 1, 2)
    rows(connection)
    # With parameters psycopg takes the extended protocol.
    shown = connection.execute(text, prepare=prepare, binary=prepare is not None)
    assert [column.name for column in shown.description or ()] == ["name", "used", "allowed"]
    usage = {name: (used, allowed) for name, used, allowed in shown.fetchall()}
    assert usage["read_units"] == (1, 19)
    assert usage["write_units"] == (2, None)
    assert border.gate.performed() == {"read": 1, "write": 2, "unlimited": 1}


def test_show_usage_keeps_its_place_in_a_transaction(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
        connection.execute("SHOW weftkit.usage")
        connection.execute("SELECT 1 / 0")
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SHOW weftkit.usage")
    connection.execute("ROLLBACK")


def test_other_settings_are_shown_by_the_server(connection: psycopg.Connection) -> None:
    shown = connection.execute("SHOW server_version_num").fetchone()
    assert shown is not None
    assert int(shown[0]) >= 160000
    with pytest.raises(psycopg.errors.UndefinedObject):
        connection.execute("SHOW weftkit.usages")
