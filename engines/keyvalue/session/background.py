"""What an instance does by itself: the rows of the table `work` that are due.

`start` is called behind a request that has left work; the worker calls `run` for each instance now
and then, so that what a dead worker has left goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from engines.keyvalue.session.backfill import build_index
from engines.keyvalue.session.backups import copy_table, fill_table
from engines.keyvalue.session.context import Tables
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
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import HttpPorts
from engines.kit.records import InstanceRecord

# Building a b-tree of a large table takes its time, and copying it does.
STATEMENT_SECONDS = 6 * 3600.0
NAME = "work"
# Somebody else was quicker, or the table has another form now: it is looked at again when due.
_PASSING = frozenset({Reason.CONFLICT, Reason.NOT_FOUND, Reason.TIMEOUT, Reason.BACKEND})


Perform = Callable[[Job], Awaitable[None]]

PERFORMERS: Mapping[str, Perform] = {
    BACKUP: copy_table,
    INDEX: build_index,
    RESTORE: fill_table,
    TRIM: trim,
    TTL: keep_time,
}


def start(ports: HttpPorts, record: InstanceRecord) -> None:
    """Do what is due while requests go on."""

    async def work() -> None:
        await run(ports, record)

    ports.spawn(record, NAME, work)


async def run(ports: HttpPorts, record: InstanceRecord) -> None:
    """Do what is due in an instance and nobody does at this moment."""
    store = ports.store(record, STATEMENT_SECONDS)
    tables = Tables(record.schema)
    for work in await due_work(store, names(record.schema)):
        job = Job(ports, record, store, tables, work)
        try:
            await job.keep()
            await PERFORMERS[work.kind](job)
        except LostError:
            continue
        except RequestError as error:
            if error.reason not in _PASSING:
                raise
