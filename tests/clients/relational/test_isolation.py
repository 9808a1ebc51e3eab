"""Nothing in one tenant's instance shows that another tenant exists."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tests.stack import Stack

pytestmark = pytest.mark.stack


def test_tables_of_one_tenant_do_not_exist_for_the_other(stack: Stack) -> None:
    with psycopg.connect(stack.connection("demo", "relational").uri, autocommit=True) as alice:
        alice.execute("CREATE TABLE IF NOT EXISTS secrets_of_demo (t text)")
    with (
        psycopg.connect(stack.connection("other", "relational").uri) as charlie,
        pytest.raises(errors.UndefinedTable),
    ):
        charlie.execute("SELECT * FROM secrets_of_demo")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT datname FROM pg_database",
        "SELECT rolname FROM pg_roles",
        "SELECT name, setting FROM pg_settings",
        "SELECT usename, application_name, client_addr, query FROM pg_stat_activity",
        "SELECT spcname FROM pg_tablespace",
    ],
)
def test_no_catalogue_shows_a_name_of_another_tenant(stack: Stack, query: str) -> None:
    foreign = stack.connection("other", "relational")
    with psycopg.connect(stack.connection("demo", "relational").uri) as alice:
        shown = str(alice.execute(query).fetchall())
    for name in ("other", foreign.instance, foreign.user, foreign.password):
        assert name not in shown.replace("others", "")


@pytest.mark.parametrize(
    ("attempt", "refused"),
    [
        ("CREATE ROLE intruder SUPERUSER", errors.InsufficientPrivilege),
        ("ALTER ROLE owner SUPERUSER", errors.InsufficientPrivilege),
        ("COPY (SELECT 1) TO '/tmp/leak'", errors.InsufficientPrivilege),
        ("COPY (SELECT 1) TO PROGRAM 'id'", errors.InsufficientPrivilege),
        ("SELECT pg_read_file('/etc/passwd')", errors.InsufficientPrivilege),
        ("SELECT lo_import('/etc/passwd')", errors.InsufficientPrivilege),
        ("SELECT pg_ls_dir('/')", errors.InsufficientPrivilege),
        ("ALTER SYSTEM SET max_connections = 9999", errors.InsufficientPrivilege),
        ("LOAD '/tmp/x.so'", psycopg.Error),
        ("SET ROLE weftkit", errors.InsufficientPrivilege),
        ("SET SESSION AUTHORIZATION weftkit", errors.InsufficientPrivilege),
    ],
)
def test_the_owner_cannot_reach_the_host(
    stack: Stack, attempt: str, refused: type[psycopg.Error]
) -> None:
    with (
        psycopg.connect(stack.connection("demo", "relational").uri, autocommit=True) as alice,
        pytest.raises(refused),
    ):
        alice.execute(attempt)


def test_replication_is_not_offered(stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(stack.connection("demo", "relational").uri, replication="true")
