"""Over the storage quota: what grows data is refused, the rest goes on, an upgrade lifts it."""

from __future__ import annotations

import psycopg
import pytest

from tests.admin import Admin
from tests.servers import wait_until

pytestmark = pytest.mark.stack

ROWS = 1_300_000
LITE_BYTES = 1_000_000_000


def test_growth_is_refused_over_the_quota_and_lifted_by_an_upgrade(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="unmetered")
    with psycopg.connect(row.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE filled (n int, t text)")
        connection.execute("CREATE TABLE small (n int)")
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
        assert connection.execute("SELECT count(*) > 0 FROM small").fetchone() == (True,)
        connection.execute("DELETE FROM small")
        admin.change(row.instance, plan="unmetered")
        wait_until(lambda: not is_refused(), "the upgrade lifts it", 5)
        connection.execute("TRUNCATE filled")
