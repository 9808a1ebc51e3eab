"""Over the storage quota: what grows data is refused, the rest goes on, an upgrade lifts it."""

from __future__ import annotations

import psycopg
import pytest

from tests.admin import Admin
from tests.servers import wait_until

pytestmark = pytest.mark.stack

ROWS = 1_300_000
LITE_BYTES = 1_000_000_000


GROWING = (
    "INSERT INTO small VALUES (1)",
    "UPDATE small SET n = 2",
    "CREATE TABLE another (n int)",
    "CREATE INDEX small_n ON small (n)",
    "ALTER TABLE small ADD COLUMN t text",
    "WITH added AS (INSERT INTO small VALUES (3) RETURNING n) SELECT * FROM added",
    "SELECT n INTO third FROM small",
)
GOES_ON = (
    "SELECT count(*) FROM small",
    "DELETE FROM small",
    "TRUNCATE small",
    "DROP TABLE doomed",
    # One message, so that the plan's rate admits all of it or nothing.
    "BEGIN; DELETE FROM small; COMMIT",
)
HINT = "Delete data, or choose a plan with more storage."


def outcome(connection: psycopg.Connection, statement: str) -> tuple[str, str]:
    """Return (SQLSTATE, hint) of a statement, once the plan's rate lets it through."""
    said = ("53400", "")

    def is_decided() -> bool:
        nonlocal said
        try:
            connection.execute(statement)
            said = ("", "")
        except psycopg.Error as refused:
            said = (refused.sqlstate or "", refused.diag.message_hint or "")
        return said[0] != "53400"

    wait_until(is_decided, statement)
    return said


def test_growth_is_refused_over_the_quota_and_lifted_by_an_upgrade(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="unmetered")
    with psycopg.connect(row.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE filled (n int, t text)")
        connection.execute("CREATE TABLE small (n int)")
        connection.execute("CREATE TABLE doomed (n int)")
        # Stored without compression, so that the size is known.
        connection.execute("ALTER TABLE filled ALTER t SET STORAGE EXTERNAL")
        connection.execute(
            "INSERT INTO filled SELECT n, repeat('x', 800) FROM generate_series(1, %s) AS n",
            (ROWS,),
        )
        admin.change(row.instance, plan="lite")

        def is_refused() -> bool:
            try:
                connection.execute("INSERT INTO small VALUES (1)")
            except psycopg.errors.DiskFull as refused:
                assert "storage quota exceeded" in str(refused)
                assert "choose a plan" in (refused.diag.message_hint or "")
                return True
            except psycopg.errors.ConfigurationLimitExceeded:
                return False
            return False

        wait_until(is_refused, "growth is refused", 60)
        for statement in GROWING:
            assert outcome(connection, statement) == ("53100", HINT), statement
        for statement in GOES_ON:
            assert outcome(connection, statement) == ("", ""), statement
        admin.change(row.instance, plan="unmetered")
        wait_until(lambda: not is_refused(), "the upgrade lifts it", 5)
        for statement in GROWING:
            assert outcome(connection, statement) == ("", ""), statement
        connection.execute("TRUNCATE filled")
