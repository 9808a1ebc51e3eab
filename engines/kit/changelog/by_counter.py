"""A log with dense numbers: 1, 2, 3 ... for each feed, without gaps, in the order of commits.

A writer takes its numbers from the feed's counter row and holds that row until it commits, so the
next writer's numbers are visible only after its own, and a rollback gives them back. A transaction
that writes to several feeds takes them in ascending order, or two of them may lock each other out.

Because writers of one feed wait for each other's commit, the data plane puts what many of them
want into one transaction: `Group` collects their entries and hands out the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engines.kit.changelog.position import Entry, Page, Position, Row
from engines.kit.errors import LocalError
from engines.kit.statement import Name, Statement, with_names

_DDL = (
    """
    CREATE TABLE {counter} (
        sk int4 NOT NULL,
        feed bigint NOT NULL,
        seq bigint NOT NULL,
        trimmed bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (sk, feed)
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE TABLE {log} (
        sk int4 NOT NULL,
        feed bigint NOT NULL,
        seq bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        body bytea NOT NULL,
        PRIMARY KEY (sk, feed, seq)
    )
    """,
)

_APPEND = """
    WITH taken AS (
        INSERT INTO {counter} AS c (sk, feed, seq)
        VALUES ($1::int4, $2::bigint, cardinality($3::bytea[]))
        ON CONFLICT (sk, feed) DO UPDATE SET seq = c.seq + EXCLUDED.seq
        RETURNING c.seq
    ), added AS (
        INSERT INTO {log} (sk, feed, seq, body)
        SELECT $1::int4, $2::bigint, taken.seq - cardinality($3::bytea[]) + b.i, b.body
        FROM taken, unnest($3::bytea[]) WITH ORDINALITY AS b (body, i)
    )
    SELECT seq FROM taken
"""

_READ = """
    SELECT c.trimmed > $3::bigint, l.seq, l.at, l.body
    FROM {counter} c LEFT JOIN LATERAL (
        SELECT e.seq, e.at, e.body
        FROM {log} e
        WHERE e.sk = $1::int4 AND e.feed = $2::bigint AND e.seq > $3::bigint
        ORDER BY e.seq
        LIMIT $4::int8
    ) l ON true
    WHERE c.sk = $1::int4 AND c.feed = $2::bigint
    ORDER BY l.seq
"""

_BOUNDS = "SELECT c.trimmed, c.seq FROM {counter} c WHERE c.sk = $1::int4 AND c.feed = $2::bigint"

# Only a prefix goes, whatever the clock did meanwhile: what is left stays dense.
_TRIM = """
    WITH old AS (
        SELECT e.seq, e.at FROM {log} e
        WHERE e.sk = $1::int4 AND e.feed = $2::bigint
        ORDER BY e.seq
        LIMIT $4::int8
    ), kept AS (
        SELECT min(seq) AS seq FROM old WHERE at >= $3::timestamptz
    ), gone AS (
        DELETE FROM {log} l USING old, kept
        WHERE l.sk = $1::int4 AND l.feed = $2::bigint AND l.seq = old.seq
          AND (kept.seq IS NULL OR old.seq < kept.seq)
        RETURNING l.seq
    ), marked AS (
        UPDATE {counter} c SET trimmed = greatest(c.trimmed, last.seq)
        FROM (SELECT max(seq) AS seq FROM gone) last
        WHERE c.sk = $1::int4 AND c.feed = $2::bigint AND last.seq IS NOT NULL
    )
    SELECT count(*) FROM gone
"""


class CounterLog:
    """The statements of one log; `sk` is the shard (0 until an instance is split)."""

    def __init__(self, schema: str, name: str) -> None:
        self._names = {"log": Name(schema, name), "counter": Name(schema, f"{name}_counter")}
        self._texts = {
            template: with_names(template, self._names)
            for template in (_APPEND, _READ, _BOUNDS, _TRIM)
        }

    def ddl(self) -> tuple[str, ...]:
        """Return what creates the log."""
        return tuple(with_names(template, self._names) for template in _DDL)

    def append(self, feed: int, bodies: Sequence[bytes], sk: int = 0) -> Statement:
        """Add entries, in the transaction of the change; returns the last one's number.

        READ COMMITTED only: a stricter transaction fails with 40001 where this one waits.
        """
        return Statement(self._texts[_APPEND], (sk, feed, list(bodies)))

    def read(self, feed: int, position: Position, limit: int, sk: int = 0) -> Statement:
        """Read up to `limit` entries of a feed behind `position`; see `page`."""
        return Statement(self._texts[_READ], (sk, feed, position.n, limit))

    def bounds(self, feed: int, sk: int = 0) -> Statement:
        """Ask for both ends of a feed; see `ends`."""
        return Statement(self._texts[_BOUNDS], (sk, feed))

    def trim(self, feed: int, before: datetime, limit: int, sk: int = 0) -> Statement:
        """Delete up to `limit` of the oldest entries if older than `before`; returns how many."""
        return Statement(self._texts[_TRIM], (sk, feed, before, limit))

    @staticmethod
    def page(rows: Sequence[Row], feed: int, position: Position) -> Page:
        """Turn the rows of `read` into a page; a feed that nobody wrote to has none."""
        entries = tuple(
            Entry(Position(n=row[1]), feed=feed, at=row[2], body=bytes(row[3]))
            for row in rows
            if row[1] is not None
        )
        last = entries[-1].position if entries else position
        return Page(entries, last, is_lost=bool(rows and rows[0][0]))

    @staticmethod
    def ends(rows: Sequence[Row]) -> tuple[Position, Position]:
        """Turn the rows of `bounds` into the places before all there is, and behind it."""
        trimmed, newest = rows[0] if rows else (0, 0)
        return Position(n=trimmed), Position(n=newest)


@dataclass(slots=True)
class Share:
    """One writer's part of a group; the numbers are known once the group is settled."""

    offset: int
    count: int
    first: int | None = None
    last: int | None = None


class Group:
    """Entries of several writers for one feed, to be appended by one statement and one commit."""

    def __init__(self, entries_max: int = 1000, body_bytes_max: int = 4 * 2**20) -> None:
        self.bodies: list[bytes] = []
        self._shares: list[Share] = []
        self._entries_max = entries_max
        self._bytes_left = body_bytes_max

    def offer(self, bodies: Sequence[bytes]) -> Share | None:
        """Add a writer's entries, at least one; None if the group is full: open the next one.

        An empty group takes a writer of any size, so that nobody waits for ever.
        """
        if not bodies:
            raise LocalError("a writer brings at least one entry")
        size = sum(map(len, bodies))
        is_full = len(self.bodies) + len(bodies) > self._entries_max or size > self._bytes_left
        if self.bodies and is_full:
            return None
        share = Share(offset=len(self.bodies), count=len(bodies))
        self.bodies += bodies
        self._bytes_left -= size
        self._shares.append(share)
        return share

    def settle(self, last_seq: int) -> None:
        """Hand out the numbers, given what `append` returned for all `bodies`."""
        before = last_seq - len(self.bodies)
        for share in self._shares:
            share.first = before + share.offset + 1
            share.last = before + share.offset + share.count
