"""What an instance does by itself: the rows of the table `work` that are due.

`start` is called where work has been added; the worker calls `run` for each instance now and then,
so that what a dead worker has left goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from engines.keyvalue.session.context import Context, Tables
from engines.keyvalue.session.work import LostError, Work, due_work, lease
from engines.keyvalue.storage import names
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import HttpPorts
from engines.kit.ports import Store
from engines.kit.records import InstanceRecord

# Building a b-tree of a large table takes its time, and copying it does.
STATEMENT_SECONDS = 6 * 3600.0
NAME = "work"
# Somebody else was quicker, or the table has another form now: it is looked at again when due.
_PASSING = frozenset({Reason.CONFLICT, Reason.NOT_FOUND, Reason.TIMEOUT, Reason.BACKEND})


@dataclass(slots=True)
class Job:
    """One piece of work whose lease this worker has; what its performers are given."""

    ports: HttpPorts
    record: InstanceRecord
    store: Store
    tables: Tables
    work: Work

    async def keep(self, seconds: float | None = None) -> None:
        """Renew the lease and keep `work.body`; raises LostError."""
        named = names(self.tables.schema)
        if seconds is None:
            await lease(self.store, named, self.work)
        else:
            await lease(self.store, named, self.work, seconds)


Perform = Callable[[Job], Awaitable[None]]

PERFORMERS: Mapping[str, Perform] = {}


def start(context: Context) -> None:
    """Do what is due, once the request is answered."""
    ports, record = context.ports, context.record

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
