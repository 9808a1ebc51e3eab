"""The DDL makes an empty instance, and the b-trees serve the reads that they are for."""

from __future__ import annotations

import pytest

from engines.keyvalue import storage
from engines.keyvalue.plan.catalogue import table_of
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.plan.ranges import QueryRange, SortRange, StartKey
from engines.keyvalue.sql.pages import query_page, scan_page
from tests.engines.keyvalue.rig import running
from tests.engines.keyvalue.tables import body, make_table
from tests.servers import PostgresServer

ALL = {"ProjectionType": "ALL"}
DESCRIBED = body(
    {"a": "S", "b": "S", "g": "S", "l": "S"}, local={"l:a,l": ALL}, global_={"g:g": ALL}
)
START = StartKey(KeyBytes(1, b"p", b"r"), b"hash", b"", 5)


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_storage")


def test_names_that_are_no_names_cannot_be_made() -> None:
    assert '"s""x"' in storage.ddl('s"x')[0]


@pytest.mark.asyncio
@pytest.mark.parametrize("is_forward", [True, False])
@pytest.mark.parametrize("start", [None, START])
async def test_every_page_is_read_from_a_b_tree(
    dsn: str, is_forward: bool, start: StartKey | None
) -> None:
    async with running(dsn) as (rig,):
        await make_table(rig, "t", DESCRIBED)
        store = rig.store(rig.record)
        table = table_of(rig.record.schema, "t", 1, 1, DESCRIBED)
        wanted = QueryRange(1, b"p", SortRange(low=b"a", high=b"z"), None)
        statements = [
            query_page(
                table, index, wanted, start, is_forward=is_forward, rows_max=10, bytes_left=1000
            )
            for index in (None, *table.slots)
        ] + [
            scan_page(table, index, (-5, 5), start, rows_max=10, bytes_left=1000)
            for index in (None, *table.slots)
        ]
        async with store.transaction() as transaction:
            await transaction.execute("SET LOCAL enable_seqscan = off")
            await transaction.execute("SET LOCAL enable_bitmapscan = off")
            for statement in statements:
                rows = await transaction.fetch("EXPLAIN " + statement.text, *statement.params)
                plan = "\n".join(row[0] for row in rows)
                assert "Index Scan" in plan, plan
                assert "Sort" not in plan, plan
