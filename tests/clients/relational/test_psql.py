"""psql, as a person types it: the printed string, plain and over TLS."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.stack import Stack

pytestmark = pytest.mark.stack

PSQL = shutil.which("psql") or "psql"


def psql(uri: str, sql: str) -> subprocess.CompletedProcess[str]:
    """Run one command string."""
    return subprocess.run(
        [PSQL, "-X", "-At", "-v", "ON_ERROR_STOP=1", uri, "-c", sql], capture_output=True, text=True
    )


@pytest.mark.parametrize("tenant", ["demo", "other"])
@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require", "verify-full"])
def test_psql_works_with_the_printed_string(stack: Stack, tenant: str, sslmode: str) -> None:
    connection = stack.connection(tenant, "relational")
    options = f"sslmode={sslmode}" + (f"&sslrootcert={stack.ca}" if "verify" in sslmode else "")
    done = psql(f"{connection.uri}?{options}", "SELECT current_database(), 6 * 7")
    assert (done.stdout, done.stderr) == ("weftkit|42\n", "")


def test_psql_says_whether_tls_is_used(stack: Stack) -> None:
    uri = stack.connection("demo", "relational").uri
    done = subprocess.run(
        [PSQL, "-X", f"{uri}?sslmode=require", "-c", "\\conninfo"], capture_output=True, text=True
    )
    assert "TLSv1.3" in done.stdout


def test_a_script_with_a_transaction_runs_and_stays(stack: Stack) -> None:
    uri = stack.connection("demo", "relational").uri
    script = """
        DROP TABLE IF EXISTS orders;
        CREATE TABLE orders (id bigserial PRIMARY KEY, total numeric(10,2), status text);
        BEGIN;
        INSERT INTO orders (total, status) VALUES (10.50, 'pending'), (4.25, 'done');
        SAVEPOINT s;
        DELETE FROM orders;
        ROLLBACK TO SAVEPOINT s;
        COMMIT;
    """
    assert psql(uri, script).returncode == 0
    assert psql(uri, "SELECT sum(total), count(*) FROM orders").stdout == "14.75|2\n"


def test_copy_goes_in_and_comes_out(stack: Stack) -> None:
    uri = stack.connection("demo", "relational").uri
    rows = "".join(f"{n},row {n}\n" for n in range(20_000))
    psql(uri, "DROP TABLE IF EXISTS copied; CREATE TABLE copied (n int, t text)")
    done = subprocess.run(
        [PSQL, "-X", uri, "-c", "\\copy copied FROM STDIN CSV"],
        input=rows, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "COPY 20000\n"
    assert psql(uri, "COPY (SELECT * FROM copied ORDER BY n) TO STDOUT CSV").stdout == rows


def test_a_wrong_password_gets_postgresqls_own_error(stack: Stack) -> None:
    connection = stack.connection("demo", "relational")
    wrong = connection.uri.replace(connection.password, connection.password[:-1] + "!")
    done = psql(wrong, "SELECT 1")
    assert done.returncode == 2
    assert f'password authentication failed for user "{connection.user}"' in done.stderr


def test_without_a_database_name_the_instances_own_is_meant(stack: Stack) -> None:
    row = stack.connection("demo", "relational")
    done = subprocess.run(
        [PSQL, "-X", "-At", "-h", row.host, "-p", str(row.port), "-U", row.user, "-c",
         "SELECT current_database()"],
        capture_output=True, text=True, env={**os.environ, "PGPASSWORD": row.password},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("weftkit\n", "")
