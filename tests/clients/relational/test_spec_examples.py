"""Every example of the specification's WeftKitRel section, as it is written there.

Each row of the tables below is one example: the statement word for word (`$1` parameters go to
the server as they are), its parameters, and what must come of it. The specification names tables
that it never creates; `SEED` is the least that its examples ask for.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg
import psycopg
import pytest
from psycopg import errors

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

SCHEMA = "spec_examples"
LITE_CONNECTIONS = 20

ORDERS = """
    CREATE TABLE orders (
        id BIGSERIAL PRIMARY KEY,
        customer_id BIGINT NOT NULL,
        total NUMERIC(10,2),
        status TEXT DEFAULT 'pending',
        created_at TIMESTAMPTZ DEFAULT NOW()
    )
"""

SEED = (
    ORDERS
    + """;
    INSERT INTO orders (customer_id, total, status, created_at) VALUES
        (1, 10.50, 'pending', NOW()), (2, 20.00, 'completed', NOW()),
        (1, 30.25, 'done', NOW() - INTERVAL '8 days');
    CREATE TABLE customers (id bigint PRIMARY KEY, name text, data jsonb);
    INSERT INTO customers VALUES
        (1, 'Ann', '{"name": "Ann", "address": {"city": "Austin"}, "active": true}'),
        (2, 'Ben', '{"name": "Ben", "address": {"city": "Oslo"}, "active": false}');
    CREATE TABLE products (id bigserial, name text, category text, price numeric);
    INSERT INTO products (name, category, price)
        SELECT 'p' || n, 'bulk', n FROM generate_series(1, 155) AS n;
    INSERT INTO products (name, category, price)
        SELECT 'q' || n, 'few', n FROM generate_series(1, 10) AS n;
    CREATE TABLE staging_products (name text, price numeric, active boolean);
    INSERT INTO staging_products VALUES ('new', 5, true), ('old', 6, false);
    CREATE TABLE sessions (id int, expires_at timestamptz);
    INSERT INTO sessions VALUES (1, NOW() - INTERVAL '1 s'), (2, NOW() + INTERVAL '1 h');
    CREATE TABLE user_settings (user_id bigint PRIMARY KEY, theme text);
    INSERT INTO user_settings VALUES (7, 'light');
    CREATE TABLE employees (id int, name text, department text, salary int);
    INSERT INTO employees VALUES
        (1, 'a', 'x', 10), (2, 'b', 'x', 30), (3, 'c', 'x', 30), (4, 'd', 'x', 20),
        (5, 'e', 'y', 5);
    CREATE TABLE accounts (id int PRIMARY KEY, balance int);
    INSERT INTO accounts VALUES (1, 500), (2, 500);
    CREATE TABLE inventory (sku text PRIMARY KEY, quantity int);
    INSERT INTO inventory VALUES ('ABC', 3), ('DEF', 4);
    CREATE TABLE audit_log (event text);
"""
)


@pytest.fixture
def row(stack: Stack) -> Connection:
    """The demo tenant's relational instance."""
    return stack.connection("demo", "relational")


@pytest.fixture
def session(row: Connection) -> Iterator[psycopg.Connection]:
    """A session in a schema of its own that holds SEED; `$1` is passed on as it is."""
    with psycopg.connect(
        row.uri, autocommit=True, options=f"-c search_path={SCHEMA}",
        cursor_factory=psycopg.RawCursor,
    ) as connection:  # fmt: skip
        connection.execute("SET client_min_messages = warning")
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
        connection.execute(SEED)
        yield connection
        connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


class Example(NamedTuple):
    """A statement of the specification, and the query and the rows that show its effect."""

    statement: str
    check: str
    rows: list[tuple[Any, ...]]
    parameters: tuple[Any, ...] = ()
    before: str = "SELECT 1"
    answer: list[tuple[Any, ...]] | None = None


COLUMNS = (
    "SELECT column_name, data_type FROM information_schema.columns"
    f" WHERE table_schema = '{SCHEMA}' AND table_name = 'orders' ORDER BY ordinal_position"
)
ORDERS_COLUMNS = [
    ("id", "bigint"), ("customer_id", "bigint"), ("total", "numeric"), ("status", "text"),
    ("created_at", "timestamp with time zone"),
]  # fmt: skip
INDEX = (
    f"SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = to_regclass('{SCHEMA}.%s')"
)

DEFINITIONS = {
    "create table": Example(ORDERS, COLUMNS, ORDERS_COLUMNS, before="DROP TABLE orders"),
    "alter table": Example(
        "ALTER TABLE orders ADD COLUMN notes TEXT", COLUMNS, [*ORDERS_COLUMNS, ("notes", "text")]
    ),
    "drop table": Example("DROP TABLE orders", COLUMNS, []),
    "create index concurrently": Example(
        "CREATE INDEX CONCURRENTLY idx_orders_customer ON orders (customer_id)",
        INDEX % "idx_orders_customer",
        [(True, False)],
    ),
    # The specification's table has no such column; see the test of PostgreSQL's own error below.
    "create unique index": Example(
        "CREATE UNIQUE INDEX idx_orders_ref ON orders (reference_number)",
        INDEX % "idx_orders_ref",
        [(True, True)],
        before="ALTER TABLE orders ADD COLUMN reference_number text",
    ),
    "create sequence": Example(
        "CREATE SEQUENCE invoice_seq START 1000 INCREMENT 1",
        "SELECT nextval('invoice_seq'), nextval('invoice_seq')",
        [(1000, 1001)],
    ),
}

CHANGES = {
    "insert": Example(
        "INSERT INTO orders (customer_id, total) VALUES ($1, $2)"
        " RETURNING id, created_at = NOW() AS created_at",
        "SELECT customer_id, total, status FROM orders WHERE id = 4",
        [(9, Decimal("12.35"), "pending")],
        parameters=(9, Decimal("12.345")),
        answer=[(4, True)],
    ),
    "bulk insert": Example(
        "INSERT INTO products (name, price)"
        " SELECT name, price FROM staging_products WHERE active = true",
        "SELECT name, price FROM products WHERE category IS NULL",
        [("new", Decimal(5))],
    ),
    "update": Example(
        "UPDATE orders SET status = $1 WHERE id = $2 AND status != 'completed'",
        "SELECT status FROM orders WHERE id = 1",
        [("sent",)],
        parameters=("sent", 1),
    ),
    "update that its condition forbids": Example(
        "UPDATE orders SET status = $1 WHERE id = $2 AND status != 'completed'",
        "SELECT status FROM orders WHERE id = 2",
        [("completed",)],
        parameters=("sent", 2),
    ),
    "delete": Example(
        "DELETE FROM sessions WHERE expires_at < NOW()", "SELECT id FROM sessions", [(2,)]
    ),
    "upsert of a new row": Example(
        "INSERT INTO user_settings (user_id, theme) VALUES ($1, $2)"
        " ON CONFLICT (user_id) DO UPDATE SET theme = EXCLUDED.theme",
        "SELECT * FROM user_settings ORDER BY 1",
        [(7, "light"), (8, "dark")],
        parameters=(8, "dark"),
    ),
    "upsert of a known row": Example(
        "INSERT INTO user_settings (user_id, theme) VALUES ($1, $2)"
        " ON CONFLICT (user_id) DO UPDATE SET theme = EXCLUDED.theme",
        "SELECT * FROM user_settings",
        [(7, "dark")],
        parameters=(7, "dark"),
    ),
}

TRANSFER = """
    BEGIN;
    UPDATE accounts SET balance = balance - 100 WHERE id = 1;
    UPDATE accounts SET balance = balance + 100 WHERE id = 2;
    COMMIT;
"""
SERIALIZABLE = """
    BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE;
    SELECT * FROM inventory FOR UPDATE;
    UPDATE inventory SET quantity = quantity - 1 WHERE sku = 'ABC';
    COMMIT;
"""
SAVEPOINT = """
    BEGIN;
    INSERT INTO audit_log (event) VALUES ('start');
    SAVEPOINT sp1;
    UPDATE accounts SET balance = 0; -- risky operation
    ROLLBACK TO SAVEPOINT sp1; -- undo just this step
    COMMIT;
"""
TRANSACTIONS = {
    "transfer": Example(
        TRANSFER, "SELECT balance FROM accounts ORDER BY id", [(400,), (600,)]
    ),
    "isolation level": Example(
        SERIALIZABLE, "SELECT * FROM inventory ORDER BY sku", [("ABC", 2), ("DEF", 4)]
    ),
    "savepoint": Example(
        SAVEPOINT, "SELECT event, balance FROM audit_log, accounts", [("start", 500)] * 2
    ),
}  # fmt: skip

# name -> (statement, parameters, rows)
QUERIES: dict[str, tuple[str, tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "filter, order, limit and offset": (
        "SELECT id, name, price FROM products WHERE category = $1 AND price < $2"
        " ORDER BY price ASC LIMIT 50 OFFSET 100",
        ("bulk", 151),
        [(n, f"p{n}", Decimal(n)) for n in range(101, 151)],
    ),
    "join": (
        "SELECT o.id, c.name, o.total FROM orders o JOIN customers c ON c.id = o.customer_id"
        " WHERE o.status = 'pending'",
        (),
        [(1, "Ann", Decimal("10.50"))],
    ),
    "aggregates": (
        "SELECT category, COUNT(*) as count, AVG(price) as avg_price FROM products"
        " GROUP BY category HAVING COUNT(*) > 10",
        (),
        [("bulk", 155, Decimal(78))],
    ),
    "window function": (
        "SELECT id, name, salary, RANK() OVER (PARTITION BY department ORDER BY salary DESC)"
        " as rank FROM employees",
        (),
        [(1, "a", 10, 4), (2, "b", 30, 1), (3, "c", 30, 1), (4, "d", 20, 3), (5, "e", 5, 1)],
    ),
    "common table expression": (
        "WITH recent_orders AS ("
        " SELECT * FROM orders WHERE created_at > NOW() - INTERVAL '7 days' )"
        " SELECT customer_id, COUNT(*) FROM recent_orders GROUP BY customer_id",
        (),
        [(1, 1), (2, 1)],
    ),
    "JSON operators": (
        "SELECT data->>'name' AS name, data->'address'->>'city' AS city FROM customers"
        " WHERE data->>'active' = 'true'",
        (),
        [("Ann", "Austin")],
    ),
}

UTC = datetime.UTC
# type -> (the text that is written, the value that is read)
TYPES: dict[str, tuple[str, Any]] = {
    "BIGINT": ("9223372036854775807", 2**63 - 1),
    "INTEGER": ("-2147483648", -(2**31)),
    "SMALLINT": ("32767", 2**15 - 1),
    "NUMERIC(30,10)": ("98765432109876543210.0123", Decimal("98765432109876543210.0123000000")),
    "REAL": ("0.25", 0.25),
    "DOUBLE PRECISION": ("0.1", 0.1),
    "TEXT": ("naïve \U0001f600", "naïve \U0001f600"),
    "VARCHAR(5)": ("abcde", "abcde"),
    "BOOLEAN": ("true", True),
    "DATE": ("2024-02-29", datetime.date(2024, 2, 29)),
    "TIME": ("23:59:59.5", datetime.time(23, 59, 59, 500000)),
    "TIMESTAMP": ("2024-02-29 12:00", datetime.datetime(2024, 2, 29, 12)),  # noqa: DTZ001
    "TIMESTAMPTZ": ("2024-02-29 12:00+02", datetime.datetime(2024, 2, 29, 10, tzinfo=UTC)),
    "INTERVAL": ("1 day 02:00", datetime.timedelta(days=1, hours=2)),
    "UUID": ("0" * 31 + "7", uuid.UUID(int=7)),
    "BYTEA": ("\\x00ff", b"\0\xff"),
    "JSON": ('{"a": [1, null]}', {"a": [1, None]}),
    "JSONB": ('{"a": [1, null]}', {"a": [1, None]}),
    "TEXT[]": ('{a,"b c",NULL}', ["a", "b c", None]),
    "INTEGER[]": ("{{1,2},{3,4}}", [[1, 2], [3, 4]]),
}  # fmt: skip

# expression -> value; the specification's placeholders are replaced by values of their kind.
FUNCTIONS: dict[str, Any] = {
    "UPPER('aé')": "AÉ",
    "LOWER('AÉ')": "aé",
    "LENGTH('naïve')": 5,
    "TRIM('  a  ')": "a",
    "LTRIM('  a  ')": "a  ",
    "RTRIM('  a  ')": "  a",
    "SUBSTRING('weftkit' FROM 2 FOR 3)": "eft",
    "REPLACE('a-b-c', '-', '+')": "a+b+c",
    "CONCAT('a', NULL, 1)": "a1",
    "'a' || 'b'": "ab",
    # PostgreSQL answers with the groups, or with the whole match where the pattern has none.
    "REGEXP_MATCH('order 42 of 7', '[0-9]+')": ["42"],
    "REGEXP_MATCH('a=1', '(.)=(.)')": ["a", "1"],
    "REGEXP_MATCH('abc', 'x')": None,
    "ABS(-5)": 5,
    "CEIL(1.2)": Decimal(2),
    "FLOOR(-1.2)": Decimal(-2),
    "ROUND(2.345, 2)": Decimal("2.35"),
    "MOD(7, 3)": 1,
    "POWER(2, 10)": 1024.0,
    "SQRT(2.25::float8)": 1.5,
    "GREATEST(1, 3, 2)": 3,
    "LEAST(4, 3, 5)": 3,
    "NOW() = transaction_timestamp()": True,
    "CURRENT_DATE = NOW()::date": True,
    "CURRENT_TIME = NOW()::timetz": True,
    "DATE_TRUNC('day', TIMESTAMP '2024-02-29 12:34')": datetime.datetime(2024, 2, 29),  # noqa: DTZ001
    "DATE_PART('year', TIMESTAMP '2024-02-29 12:34')": 2024.0,
    "TIMESTAMP '2024-02-29 12:34' + INTERVAL '1 day'": datetime.datetime(2024, 3, 1, 12, 34),  # noqa: DTZ001
    "AGE(TIMESTAMP '2024-03-01', TIMESTAMP '2024-02-28')": datetime.timedelta(days=2),
    "TO_CHAR(TIMESTAMP '2024-02-29 12:34', 'YYYY-MM-DD')": "2024-02-29",
    """jsonb_set('{"key": 1, "b": 2}', '{key}', '"value"')""": {"key": "value", "b": 2},
    "ARRAY(SELECT jsonb_array_elements('[1, \"a\"]'::jsonb)::text)": ["1", '"a"'],
    "to_jsonb(r) FROM (SELECT 1 AS a, 'x' AS b) r": {"a": 1, "b": "x"},
    "row_to_json(r) FROM (SELECT 1 AS a, 'x' AS b) r": {"a": 1, "b": "x"},
}  # fmt: skip

# What the specification writes that PostgreSQL itself refuses: statement -> its error.
REFUSED_BY_POSTGRESQL: dict[str, type[psycopg.Error]] = {
    # `orders` of the specification has no column reference_number.
    "CREATE UNIQUE INDEX idx_orders_ref ON orders (reference_number)": errors.UndefinedColumn,
    # ROUND with decimals is defined for NUMERIC only.
    "SELECT ROUND(2.345::double precision, 2)": errors.UndefinedFunction,
    # MOD is not defined for floating point.
    "SELECT MOD(7.5::real, 2::real)": errors.UndefinedFunction,
    # jsonb_array_elements takes JSONB, whereas a column of type TEXT[] is an array also.
    "SELECT jsonb_array_elements(ARRAY['a'])": errors.UndefinedFunction,
    # CONCURRENTLY does not run inside of a transaction.
    "BEGIN; CREATE INDEX CONCURRENTLY idx_orders_customer ON orders (customer_id)":
        errors.ActiveSqlTransaction,
}  # fmt: skip


@pytest.mark.parametrize("example", [
    pytest.param(example, id=name)
    for table in (DEFINITIONS, CHANGES, TRANSACTIONS)
    for name, example in table.items()
])  # fmt: skip
def test_an_example_that_changes_something_has_its_effect(
    session: psycopg.Connection, example: Example
) -> None:
    session.execute(example.before)
    cursor = session.execute(example.statement, example.parameters or None)
    if example.answer is not None:
        assert cursor.fetchall() == example.answer
    assert session.execute(example.check).fetchall() == example.rows


@pytest.mark.parametrize("example", TRANSACTIONS.values(), ids=TRANSACTIONS.keys())
def test_a_transaction_typed_line_by_line_has_the_same_effect(
    session: psycopg.Connection, example: Example
) -> None:
    for line in filter(None, map(str.strip, example.statement.splitlines())):
        session.execute(line)
    assert session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert session.execute(example.check).fetchall() == example.rows


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_example_returns_its_rows(session: psycopg.Connection, name: str) -> None:
    statement, parameters, rows = QUERIES[name]
    found = session.execute(statement, parameters or None).fetchall()
    assert (found if "ORDER BY price" in statement else sorted(found)) == rows


@pytest.mark.parametrize("name", TYPES)
def test_a_documented_type_is_stored_and_read_back(session: psycopg.Connection, name: str) -> None:
    written, read = TYPES[name]
    session.execute("SET TimeZone = 'UTC'")
    session.execute(f"CREATE TABLE typed (v {name})")
    session.execute("INSERT INTO typed VALUES ($1)", (written,))
    for binary in (False, True):
        cursor = session.execute("SELECT v FROM typed", binary=binary)
        assert cursor.fetchall() == [(read,)]


@pytest.mark.parametrize(("name", "stored"), [("BIGSERIAL", "bigint"), ("SERIAL", "integer")])
def test_a_serial_column_counts_up(session: psycopg.Connection, name: str, stored: str) -> None:
    session.execute(f"CREATE TABLE counted (n {name}, t text)")
    session.execute("INSERT INTO counted (t) VALUES ('a'), ('b')")
    found = session.execute("SELECT n, pg_typeof(n)::text FROM counted ORDER BY n").fetchall()
    assert found == [(1, stored), (2, stored)]


def test_jsonb_is_indexed(session: psycopg.Connection) -> None:
    session.execute("CREATE INDEX customers_data ON customers USING gin (data)")
    session.execute("SET enable_seqscan = off")
    plan = session.execute(
        """EXPLAIN SELECT id FROM customers WHERE data @> '{"active": true}'"""
    ).fetchall()
    assert "customers_data" in str(plan)


@pytest.mark.parametrize("expression", FUNCTIONS)
def test_a_documented_function_answers(row: Connection, expression: str) -> None:
    with psycopg.connect(row.uri) as connection:
        found = connection.execute(f"SELECT {expression}").fetchone()
    assert found == (FUNCTIONS[expression],)


@pytest.mark.parametrize("statement", REFUSED_BY_POSTGRESQL)
def test_what_postgresql_cannot_run_gets_its_own_error(
    session: psycopg.Connection, statement: str
) -> None:
    with pytest.raises(REFUSED_BY_POSTGRESQL[statement]):
        for part in statement.split("; "):
            session.execute(part)
    session.execute("ROLLBACK")
    assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_the_documented_connection_parameters_are_taken(
    stack: Stack, row: Connection, sslmode: str
) -> None:
    with psycopg.connect(
        host=row.host, port=row.port, dbname="weftkit", user=row.user, password=row.password,
        sslmode=sslmode, sslrootcert=stack.ca if "verify" in sslmode else None,
        connect_timeout=10, application_name=f"shop {sslmode}",
    ) as connection:  # fmt: skip
        assert connection.pgconn.ssl_in_use == (sslmode != "disable")
        shown = connection.execute(
            "SELECT current_database(), application_name FROM pg_stat_activity"
            " WHERE pid = pg_backend_pid()"
        )
        assert shown.fetchone() == ("weftkit", f"shop {sslmode}")


def test_the_documented_connection_string_is_taken(row: Connection) -> None:
    written = (
        f"postgresql://{row.user}:{row.password}@{row.host}:{row.port}/weftkit?sslmode=require"
    )
    with psycopg.connect(written) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)


# SQLSTATE -> the statements of which the last one fails with it
ERRORS = {
    "42P01": ["SELECT * FROM nowhere"],
    "23505": ["INSERT INTO user_settings VALUES (7, 'again')"],
    "23503": [
        "ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers (id)",
        "INSERT INTO orders (customer_id) VALUES (99)",
    ],
    "57014": ["SET statement_timeout = 50", "SELECT pg_sleep(60)"],
}


@pytest.mark.parametrize("sqlstate", ERRORS)
def test_a_documented_error_has_its_sqlstate(session: psycopg.Connection, sqlstate: str) -> None:
    *before, failing = ERRORS[sqlstate]
    for statement in before:
        session.execute(statement)
    with pytest.raises(psycopg.Error) as raised:
        session.execute(failing)
    assert raised.value.sqlstate == sqlstate


def test_a_serializable_conflict_is_40001_for_one_of_two(
    row: Connection, session: psycopg.Connection
) -> None:
    with psycopg.connect(row.uri, autocommit=True, options=f"-c search_path={SCHEMA}") as other:
        for number, one in enumerate((session, other), start=1):
            one.execute("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            one.execute("SELECT sum(balance) FROM accounts")
            one.execute(f"UPDATE accounts SET balance = 0 WHERE id = {number}")
        session.execute("COMMIT")
        with pytest.raises(psycopg.Error) as raised:
            other.execute("COMMIT")
    assert raised.value.sqlstate == "40001"


def test_a_reader_that_writes_gets_42501(
    admin: Admin, row: Connection, session: psycopg.Connection
) -> None:
    reader = admin.new_credential(row, role="read")

    def is_published() -> bool:
        try:
            psycopg.connect(reader.uri).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(is_published, "the credential is published", 5)
    with psycopg.connect(reader.uri, autocommit=True) as connection:
        for statement in (f"DELETE FROM {SCHEMA}.sessions", "CREATE TABLE mine (n int)"):
            with pytest.raises(psycopg.Error) as raised:
                connection.execute(statement)
            assert raised.value.sqlstate == "42501"


async def test_a_wrong_password_is_a_28_sqlstate(row: Connection) -> None:
    for wrong in ({"password": "wrong"}, {"user": "nobody"}):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError) as raised:
            await asyncpg.connect(row.uri, **wrong)
        assert raised.value.sqlstate == "28P01"


async def test_one_connection_too_many_is_53300(admin: Admin) -> None:
    # An instance of its own: nobody else's connection counts.
    uri = admin.new_instance("relational", plan="lite").uri
    held: list[asyncpg.Connection] = []
    try:
        with pytest.raises(asyncpg.TooManyConnectionsError) as raised:
            for _ in range(LITE_CONNECTIONS + 1):
                held.append(await asyncpg.connect(uri))
    finally:
        for connection in held:
            await connection.close()
    assert (raised.value.sqlstate, len(held)) == ("53300", LITE_CONNECTIONS)
