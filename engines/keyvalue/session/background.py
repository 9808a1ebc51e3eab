"""What an instance does by itself: the rows of the table `work` that are due.

`start` is called behind a request that has left work. The worker calls `look` for all instances
again and again, so that what a dead worker has left goes on elsewhere, and what is due every now
and then is done for an instance that nobody uses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from engines.keyvalue.session.backfill import build_index
from engines.keyvalue.session.backups import copy_table, fill_table
from engines.keyvalue.session.context import NO_RELATION, Tables
from engines.keyvalue.session.streams import trim
from engines.keyvalue.session.ttl import keep_time
from engines.keyvalue.session.work import (
    BACKUP,
    INDEX,
    RESTORE,
    TRIM,
    TTL,
    Job,
    LostError,
    due_work,
)
from engines.keyvalue.storage import names
from engines.kit.errors import RequestError
from engines.kit.http.whole import HttpPorts
from engines.kit.records import InstanceRecord

# Building a b-tree of a large table takes its time, and copying it does.
STATEMENT_SECONDS = 6 * 3600.0
LOOK_SECONDS = 10.0
NAME = "work"
# A join with the system's tables would look at those of all instances, a hundred at a time.
_WITH_WORK = """
    SELECT given.name FROM unnest($1::text[]) AS given (name)
    WHERE pg_relation_size(to_regclass(quote_ident(given.name) || '.work')) > 0
"""


Perform = Callable[[Job], Awaitable[None]]

PERFORMERS: Mapping[str, Perform] = {
    BACKUP: copy_table,
    INDEX: build_index,
    RESTORE: fill_table,
    TRIM: trim,
    TTL: keep_time,
}


async def look(ports: HttpPorts, records: Sequence[InstanceRecord]) -> None:
    """Begin what is due in those of some instances, all of one cell, that have any work.

    Their tables `work` are empty files nearly everywhere, which one statement for all tells.
    """
    schemas = {record.schema: record for record in records}
    store = ports.store(records[0], LOOK_SECONDS)
    for (schema,) in await store.fetch(_WITH_WORK, list(schemas)):
        start(ports, schemas[schema])


def start(ports: HttpPorts, record: InstanceRecord) -> None:
    """Do what is due while requests go on."""

    async def work() -> None:
        await run(ports, record)

    ports.spawn(record, NAME, work)


async def run(ports: HttpPorts, record: InstanceRecord) -> None:
    """Begin what is due in an instance and nobody does, each piece of work by itself."""
    store = ports.store(record, STATEMENT_SECONDS)
    for work in await due_work(store, names(record.schema)):
        job = Job(ports, record, store, Tables(record.schema), work)
        ports.spawn(record, f"{work.kind} {work.work_id}", _performance(job))


def _performance(job: Job) -> Callable[[], Awaitable[None]]:
    """Return what does one piece of work."""

    async def perform() -> None:
        try:
            await job.keep()
            await PERFORMERS[job.work.kind](job)
        except LostError:
            return
        except RequestError as error:
            # The table was deleted, or renamed by a change, in the middle of it. What is still to
            # be done is due again when the lease has passed.
            if error.sqlstate != NO_RELATION:
                raise

    return perform
