"""A database with an instance's roles, and a border in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engines.kit.records import Role
from engines.relational.engine import ENGINE
from engines.relational.session import DATABASE_ROLES
from tests.engines.border import Account, Border, account, instance
from tests.servers import PostgresServer

DATABASE = "weftkit_border"

OWNER = account("abcdefghijkl")
WRITER = account("mmmmmmmmmmmm", role=Role.WRITE)
READER = account("nnnnnnnnnnnn", role=Role.READ)


@pytest.fixture(scope="session")
def socket(postgres: PostgresServer) -> Path:
    """The socket of a server with the roles and one database of an instance."""
    postgres.create_database(DATABASE)
    with psycopg.connect(postgres.dsn(DATABASE), autocommit=True) as connection:
        for role in DATABASE_ROLES.values():
            connection.execute(
                f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
            )
        connection.execute(f"ALTER DATABASE {DATABASE} OWNER TO owner")
        connection.execute("ALTER SCHEMA public OWNER TO owner")
        connection.execute("GRANT pg_read_all_data TO readwrite, readonly")
        connection.execute("GRANT pg_write_all_data TO readwrite")
    return postgres.socket_dir / ".s.PGSQL.5432"


@pytest.fixture
def border(socket: Path) -> Iterator[Border]:
    """A border that admits everything until told otherwise."""
    with Border(ENGINE, socket, [instance("relational", OWNER, WRITER, READER)]).listening() as b:
        yield b


def dsn(border: Border, who: Account = OWNER, **options: str) -> str:
    """Return a connection string for one of the accounts."""
    parts = {
        "host": "127.0.0.1",
        "port": str(border.port),
        "user": who.credential.username,
        "password": who.password,
        "dbname": DATABASE,
        "connect_timeout": "10",
        **options,
    }
    return psycopg.conninfo.make_conninfo("", **parts)


@pytest.fixture
def connection(border: Border) -> Iterator[psycopg.Connection]:
    """The owner's connection, each statement its own transaction, with an empty table `t`."""
    with psycopg.connect(dsn(border), autocommit=True) as opened:
        opened.execute("DROP TABLE IF EXISTS t")
        opened.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
        border.gate.units.clear()
        yield opened
