"""The rows of the table `stream`: written when a stream begins and when it ends.

A stream's feed of the change log is its table's `table_id`, which is new with each new stream, so
streams never mix. Where a stream ends is a position that no write to it is behind: once the log can
be read up to there, a closed stream is complete.
"""

from __future__ import annotations

import orjson

from engines.keyvalue.errors import limit_exceeded
from engines.keyvalue.plan.descriptions import Body
from engines.keyvalue.session.changing import Row
from engines.keyvalue.session.context import Context
from engines.keyvalue.session.work import TRIM, add_work
from engines.keyvalue.storage import names, stream_log
from engines.kit.changelog import Position
from engines.kit.changelog.position import INT64_MAX
from engines.kit.ports import Statements
from engines.kit.statement import with_names

# Of one table, and of earlier ones of its name.
STREAMS_MAX = 100

_COUNT = "SELECT count(*) FROM {stream} WHERE sk = 0 AND name = $1::text"
_OPEN = (
    "INSERT INTO {stream} (table_id, name, label, body, begins) "
    "VALUES ($1::int8, $2::text, $3::text, $4::text::jsonb, $5::text)"
)
# Whoever has written to the stream has a transaction id below this one.
_NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8"
_CLOSE = (
    "UPDATE {stream} SET ends = $2::text, closed_at = now() "
    "WHERE sk = 0 AND table_id = $1::int8 AND closed_at IS NULL"
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
    schema, label = context.tables.schema, body["LatestStreamLabel"]
    rows = await statements.fetch(with_names(_COUNT, names(schema)), name)
    if rows[0][0] >= STREAMS_MAX:
        raise limit_exceeded(
            f"A table has {STREAMS_MAX} streams at most, with those of the last 24 hours"
        )
    begins = (await bounds(statements, schema))[1].to_token()
    text, stored = with_names(_OPEN, names(schema)), orjson.dumps(stream).decode()
    await statements.execute(text, table_id, name, label, stored, begins)
    # Somebody has to trim the log, from now on.
    await add_work(schema, statements, TRIM, 0, {}, is_single=True)


async def closed(statements: Statements, row: Row) -> None:
    """Write that the stream of a table ends; call it when nobody can use the SQL table any more."""
    rows = await statements.fetch(_NEXT_XID)
    epoch = (await bounds(statements, row.schema))[1].epoch
    ends = Position(epoch, rows[0][0] - 1, INT64_MAX).to_token()
    await statements.execute(with_names(_CLOSE, names(row.schema)), row.table_id, ends)


async def bounds(statements: Statements, schema: str) -> tuple[Position, Position]:
    """Return up to where the log has been trimmed, and up to where it can be read."""
    log = stream_log(schema)
    statement = log.bounds()
    return log.ends(await statements.fetch(statement.text, *statement.params))
