"""The rows of the table `stream`: written when a stream begins and when it ends.

A stream's feed of the change log is its table's `table_id`, which is new with each new stream. The
bounds are transaction ids: whatever is written to the stream has one that is not below `start_xid`
and is below `end_xid`, so a closed stream is complete once the log is readable up to there.
"""

from __future__ import annotations

import orjson

from engines.keyvalue.plan.descriptions import Body
from engines.keyvalue.session.changing import Row
from engines.keyvalue.session.context import Context
from engines.keyvalue.session.work import TRIM, add_work
from engines.keyvalue.storage import names
from engines.kit.ports import Statements
from engines.kit.statement import with_names

_OPEN = (
    "INSERT INTO {stream} (table_id, name, label, body, start_xid) "
    "VALUES ($1::int8, $2::text, $3::text, $4::text::jsonb, "
    "pg_snapshot_xmin(pg_current_snapshot())::text::int8)"
)
_CLOSE = (
    "UPDATE {stream} SET end_xid = pg_snapshot_xmax(pg_current_snapshot())::text::int8, "
    "closed_at = now() WHERE sk = 0 AND table_id = $1::int8 AND closed_at IS NULL"
)


async def opened(
    context: Context, statements: Statements, name: str, table_id: int, body: Body
) -> None:
    """Write that a table has a stream from this transaction on."""
    stream = {
        "StreamViewType": body["StreamSpecification"]["StreamViewType"],
        "CreationRequestDateTime": context.ports.clock.now(),
        "KeySchema": body["KeySchema"],
    }
    text = with_names(_OPEN, names(context.tables.schema))
    label = body["LatestStreamLabel"]
    await statements.execute(text, table_id, name, label, orjson.dumps(stream).decode())
    # Somebody has to trim the log, as long as there is a stream.
    await add_work(context, statements, TRIM, 0, {}, is_single=True)


async def closed(context: Context, statements: Statements, row: Row) -> None:
    """Write that the stream of a table ends; call it when nobody can use the SQL table any more."""
    text = with_names(_CLOSE, names(context.tables.schema))
    await statements.execute(text, row.table_id)
