"""A log in the order of transaction ids, read only where nothing can appear any more.

    epoch  xid   n    feed  body
    0      1041  17   3     ...        xid: pg_current_xact_id(), by default
    0      1041  18   3     ...        n: order inside of the transaction
    0      1044  16   5     ...

Every transaction below `pg_snapshot_xmin` has ended, and whoever begins later gets a higher id: so
below that line the log is complete, and readers stop there. An entry is seen once the oldest
writing transaction of the cluster that is older than it has ended.

Transaction ids are a cluster's own. Whoever moves a log to another cluster runs `next_epoch` there
before the first write, so that the new cluster's smaller ids still sort behind the old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engines.kit.changelog.position import INT64_MAX, Entry, Page, Position, Row
from engines.kit.statement import Name, Statement, with_names

# The identity gives an order inside of a transaction; between transactions it means nothing.
_DDL = (
    """
    CREATE TABLE {log} (
        sk int4 NOT NULL,
        epoch int4 NOT NULL,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        n bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        feed bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        body bytea NOT NULL,
        PRIMARY KEY (sk, epoch, xid, n)
    )
    """,
    "CREATE INDEX ON {log} (sk, feed, epoch, xid, n)",
    # Up to where the log has been trimmed.
    """
    CREATE TABLE {state} (
        sk int4 PRIMARY KEY,
        epoch int4 NOT NULL DEFAULT 0,
        trimmed_epoch int4 NOT NULL DEFAULT 0,
        trimmed_xid xid8 NOT NULL DEFAULT '0',
        trimmed_n bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 80)
    """,
    "INSERT INTO {state} (sk) VALUES (0)",
)

# A missing state row makes the epoch null, which the log refuses: nothing is lost silently.
_APPEND = """
    INSERT INTO {log} (sk, epoch, feed, body)
    SELECT SK::int4, (SELECT s.epoch FROM {state} s WHERE s.sk = SK::int4), FEED::bigint, b.body
    FROM unnest(BODIES::bytea[]) WITH ORDINALITY AS b (body, i)
    ORDER BY b.i
"""

_APPEND_FROM = """
    INSERT INTO {log} (sk, epoch, feed, body)
    SELECT SK::int4, (SELECT s.epoch FROM {state} s WHERE s.sk = SK::int4), FEED::bigint,
           BODY::bytea
    FROM SOURCE
"""

# At least one row comes back, so that the horizon is known when there are no entries.
_READ = """
    SELECT (s.trimmed_epoch, s.trimmed_xid, s.trimmed_n)
               > ($2::int4, ($3::int8)::text::xid8, $4::int8),
           s.epoch, pg_snapshot_xmin(pg_current_snapshot())::text::int8,
           l.epoch, l.xid::text::int8, l.n, l.feed, l.at, l.body
    FROM {state} s LEFT JOIN LATERAL (
        SELECT e.epoch, e.xid, e.n, e.feed, e.at, e.body
        FROM {log} e
        WHERE e.sk = $1::int4
          AND (e.epoch, e.xid, e.n) > ($2::int4, ($3::int8)::text::xid8, $4::int8)
          AND (e.epoch, e.xid) < (s.epoch, pg_snapshot_xmin(pg_current_snapshot()))
          %s
        ORDER BY e.epoch, e.xid, e.n
        LIMIT $5::int8
    ) l ON true
    WHERE s.sk = $1::int4
    ORDER BY l.epoch, l.xid, l.n
"""
# The same of one feed ($6), with no more than $7 bytes before the last entry: bodies that are
# stored apart are measured without being read. `walked`: how many there were without that bound.
_READ_SIZED = """
    SELECT (s.trimmed_epoch, s.trimmed_xid, s.trimmed_n)
               > ($2::int4, ($3::int8)::text::xid8, $4::int8),
           s.epoch, pg_snapshot_xmin(pg_current_snapshot())::text::int8,
           l.epoch, l.xid::text::int8, l.n, l.feed, l.at, l.body, l.walked
    FROM {state} s LEFT JOIN LATERAL (
        SELECT * FROM (
            SELECT w.*, count(*) OVER () AS walked,
                   sum(octet_length(w.body)) OVER (
                       ORDER BY w.epoch, w.xid, w.n ROWS UNBOUNDED PRECEDING
                   ) - octet_length(w.body) AS bytes_before
            FROM (
                SELECT e.epoch, e.xid, e.n, e.feed, e.at, e.body
                FROM {log} e
                WHERE e.sk = $1::int4 AND e.feed = $6::bigint
                  AND (e.epoch, e.xid, e.n) > ($2::int4, ($3::int8)::text::xid8, $4::int8)
                  AND (e.epoch, e.xid) < (s.epoch, pg_snapshot_xmin(pg_current_snapshot()))
                ORDER BY e.epoch, e.xid, e.n
                LIMIT $5::int8
            ) w
        ) summed
        WHERE bytes_before < $7::int8
    ) l ON true
    WHERE s.sk = $1::int4
    ORDER BY l.epoch, l.xid, l.n
"""
_READ_ALL = _READ.replace("%s", "")
_READ_FEED = _READ.replace("%s", "AND e.feed = $6::bigint")

_BOUNDS = """
    SELECT s.trimmed_epoch, s.trimmed_xid::text::int8, s.trimmed_n,
           s.epoch, pg_snapshot_xmin(pg_current_snapshot())::text::int8
    FROM {state} s WHERE s.sk = $1::int4
"""

_TRIM = """
    WITH old AS (
        SELECT e.epoch, e.xid, e.n, e.at
        FROM {log} e, {state} s
        WHERE e.sk = $1::int4 AND s.sk = $1::int4
          AND (e.epoch, e.xid) < (s.epoch, pg_snapshot_xmin(pg_current_snapshot()))
        ORDER BY e.epoch, e.xid, e.n
        LIMIT $3::int8
    ), gone AS (
        DELETE FROM {log} l USING old
        WHERE l.sk = $1::int4 AND l.epoch = old.epoch AND l.xid = old.xid AND l.n = old.n
          AND old.at < $2::timestamptz
        RETURNING l.epoch, l.xid, l.n
    ), last AS (
        SELECT epoch, xid, n FROM gone ORDER BY epoch DESC, xid DESC, n DESC LIMIT 1
    ), marked AS (
        UPDATE {state} s
        SET trimmed_epoch = last.epoch, trimmed_xid = last.xid, trimmed_n = last.n
        FROM last
        WHERE s.sk = $1::int4
          AND (last.epoch, last.xid, last.n) > (s.trimmed_epoch, s.trimmed_xid, s.trimmed_n)
    )
    SELECT count(*) FROM gone
"""

_NEXT_EPOCH = "UPDATE {state} SET epoch = epoch + 1"


class TransactionLog:
    """The statements of one log; `sk` is the shard (0 until an instance is split)."""

    def __init__(self, schema: str, name: str) -> None:
        self._names = {"log": Name(schema, name), "state": Name(schema, f"{name}_state")}
        self._texts = {
            template: with_names(template, self._names)
            for template in (_READ_ALL, _READ_FEED, _READ_SIZED, _BOUNDS, _TRIM, _NEXT_EPOCH)
        }
        self._append = self.append_text("$1", "$2", "$3")

    def ddl(self) -> tuple[str, ...]:
        """Return what creates the log."""
        return tuple(with_names(template, self._names) for template in _DDL)

    def append_text(self, sk: str, feed: str, bodies: str) -> str:
        """Return the INSERT with these placeholders, to stand in a larger statement."""
        text = with_names(_APPEND, self._names)
        return (
            text.replace("SK::", f"{sk}::")
            .replace("FEED::", f"{feed}::")
            .replace("BODIES::", f"{bodies}::")
        )

    def append_from(self, source: str, sk: str, feed: str, body: str) -> str:
        """Return the INSERT of one entry for each row of `source`, a part of a larger statement.

        So a change and its entry are one statement, and a change that did not happen has none.
        """
        text = with_names(_APPEND_FROM, self._names)
        return (
            text.replace("SK::", f"{sk}::")
            .replace("FEED::", f"{feed}::")
            .replace("BODY::", f"{body}::")
            .replace("SOURCE", source)
        )

    def append(self, feed: int, bodies: Sequence[bytes], sk: int = 0) -> Statement:
        """Add entries, in the transaction of the change that they tell of."""
        return Statement(self._append, (sk, feed, list(bodies)))

    def read(
        self, position: Position, limit: int, feed: int | None = None, sk: int = 0
    ) -> Statement:
        """Read up to `limit` entries behind `position`, of one feed or of all; see `page`."""
        params = (sk, position.epoch, position.xid, position.n, limit)
        if feed is None:
            return Statement(self._texts[_READ_ALL], params)
        return Statement(self._texts[_READ_FEED], (*params, feed))

    def read_sized(
        self, position: Position, limit: int, feed: int, bytes_max: int, sk: int = 0
    ) -> Statement:
        """Read as `read` does, and no entry behind the one with which `bytes_max` is reached.

        There is at least one, if there is any. `page` takes these rows, too.
        """
        params = (sk, position.epoch, position.xid, position.n, limit, feed, bytes_max)
        return Statement(self._texts[_READ_SIZED], params)

    def bounds(self, sk: int = 0) -> Statement:
        """Ask for both ends of the log; see `ends`."""
        return Statement(self._texts[_BOUNDS], (sk,))

    def trim(self, before: datetime, limit: int, sk: int = 0) -> Statement:
        """Delete up to `limit` of the oldest entries if older than `before`; returns how many."""
        return Statement(self._texts[_TRIM], (sk, before, limit))

    def next_epoch(self) -> Statement:
        """Begin anew after a move to another cluster."""
        return Statement(self._texts[_NEXT_EPOCH])

    @staticmethod
    def page(rows: Sequence[Row], position: Position, limit: int) -> Page:
        """Turn the rows of `read` or `read_sized` into a page."""
        is_lost, epoch, horizon = rows[0][:3]
        entries = tuple(
            Entry(Position(*row[3:6]), feed=row[6], at=row[7], body=bytes(row[8]))
            for row in rows
            if row[3] is not None
        )
        walked = rows[0][9] if len(rows[0]) > 9 else None
        if len(entries) == limit or (walked is not None and walked > len(entries)):
            return Page(entries, entries[-1].position, is_lost)
        # All below the horizon has been seen, also what other feeds hold: a reader of a quiet feed
        # moves on, or trimming would overtake it. A lagging replica must not move it back.
        return Page(entries, max(position, _below(epoch, horizon)), is_lost)

    @staticmethod
    def ends(rows: Sequence[Row]) -> tuple[Position, Position]:
        """Turn the row of `bounds` into where a reader starts for all there is, and for the new.

        The latter may still give it what was committed shortly before, behind an open transaction.
        """
        (row,) = rows
        return Position(*row[:3]), _below(*row[3:5])


def _below(epoch: int, horizon: int) -> Position:
    return Position(epoch, horizon - 1, INT64_MAX)
