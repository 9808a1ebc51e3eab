"""One request from its name to its answer: parse, handler, and once more if a table changed.

`OPERATIONS` says who handles what and which action on tables that is (`engines/kit/iam`); the
context asks for it at each table that a handler opens. It also says which of them auditors are told
of; `telling` does so, here for all. A handler gets the context and the checked request, and returns
the members of the answer, or its bytes where items are sent as stored.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from engines.keyvalue.errors import unknown_operation
from engines.keyvalue.parse import requests
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.session import (
    background,
    backups,
    batches,
    items,
    reads,
    settings,
    statement_batches,
    statements,
    streams,
    table_updates,
    tables,
    telling,
    transactions,
    ttl,
)
from engines.keyvalue.session.context import (
    NO_RELATION,
    READ,
    READ_CHANGES,
    READ_STRUCTURE,
    WRITE,
    WRITE_STRUCTURE,
    Context,
    Tables,
)
from engines.keyvalue.session.elsewhere import OPERATIONS_ELSEWHERE, Answer, Handler, Operation
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import Address, HttpPorts
from engines.kit.ports import Grant

RESHAPED_MAX = 8
INSTANCES_KNOWN_MAX = 10_000


OPERATIONS: Mapping[str, Operation] = {
    "BatchExecuteStatement": Operation(statement_batches.batch_execute_statement, READ),
    "BatchGetItem": Operation(batches.batch_get_item, READ),
    "BatchWriteItem": Operation(batches.batch_write_item, WRITE),
    "CreateBackup": Operation(backups.create_backup, WRITE_STRUCTURE, "backup.create"),
    "CreateTable": Operation(tables.create_table, WRITE_STRUCTURE, "table.create"),
    "DeleteBackup": Operation(backups.delete_backup, WRITE_STRUCTURE, "backup.delete"),
    "DeleteItem": Operation(items.delete_item, WRITE),
    "DeleteTable": Operation(tables.delete_table, WRITE_STRUCTURE, "table.delete"),
    "DescribeBackup": Operation(backups.describe_backup, READ_STRUCTURE),
    "DescribeEndpoints": Operation(settings.describe_endpoints, READ_STRUCTURE),
    "DescribeLimits": Operation(settings.describe_limits, READ_STRUCTURE),
    "DescribeStream": Operation(streams.describe_stream, READ_CHANGES),
    "DescribeTable": Operation(tables.describe_table, READ_STRUCTURE),
    "DescribeTimeToLive": Operation(ttl.describe_time_to_live, READ_STRUCTURE),
    # Which action a statement is, it says itself.
    "ExecuteStatement": Operation(statements.execute_statement, READ),
    "ExecuteTransaction": Operation(statement_batches.execute_transaction, READ),
    "GetItem": Operation(items.get_item, READ),
    "GetRecords": Operation(streams.get_records, READ_CHANGES),
    "GetShardIterator": Operation(streams.get_shard_iterator, READ_CHANGES),
    "ListBackups": Operation(backups.list_backups, READ_STRUCTURE),
    "ListStreams": Operation(streams.list_streams, READ_CHANGES),
    "ListTables": Operation(tables.list_tables, READ_STRUCTURE),
    "ListTagsOfResource": Operation(settings.list_tags_of_resource, READ_STRUCTURE),
    "PutItem": Operation(items.put_item, WRITE),
    "Query": Operation(reads.query, READ),
    "RestoreTableFromBackup": Operation(
        backups.restore_table_from_backup, WRITE_STRUCTURE, "table.restore"
    ),
    "Scan": Operation(reads.scan, READ),
    "TagResource": Operation(settings.tag_resource, WRITE_STRUCTURE, "table-tag.add"),
    "TransactGetItems": Operation(transactions.transact_get_items, READ),
    "TransactWriteItems": Operation(transactions.transact_write_items, WRITE),
    "UntagResource": Operation(settings.untag_resource, WRITE_STRUCTURE, "table-tag.remove"),
    "UpdateItem": Operation(items.update_item, WRITE),
    "UpdateTable": Operation(table_updates.update_table, WRITE_STRUCTURE, "table.update"),
    "UpdateTimeToLive": Operation(ttl.update_time_to_live, WRITE_STRUCTURE, "time-to-live.update"),
    **OPERATIONS_ELSEWHERE,
}


class Service:
    """All instances of this engine that this worker serves."""

    def __init__(self, ports: HttpPorts) -> None:
        self._ports = ports
        self._tables: dict[str, Tables] = {}

    async def perform(
        self,
        grant: Grant,
        operation: str,
        region: str,
        body: bytes,
        *,
        address: Address,
        host: str = "",
    ) -> bytes:
        """Perform an operation of a signed-in client and return the JSON of the answer.

        `host` is what the client has called us.

        Raises RequestError, DynamoError among them.
        """
        entry = OPERATIONS.get(operation)
        if entry is None:
            raise unknown_operation()
        parsed = requests.read(operation, body)
        context = Context(
            ports=self._ports,
            grant=grant,
            store=self._ports.store(grant.record),
            tables=self._tables_of(grant),
            region=region,
            operation=operation,
            action=entry.action,
            host=host,
        )
        try:
            if parsed.table_arns:
                context.check_accounts(parsed.table_arns)
            answer = await _handled(entry.handler, context, parsed)
        except Exception as error:
            if entry.event:
                telling.tell(context, entry.event, parsed.fields, address, error)
            raise
        else:
            if entry.event:
                telling.tell(context, entry.event, parsed.fields, address)
        finally:
            if context.denied and not entry.event:
                telling.tell_denied(context, address)
        if context.has_work:
            background.start(self._ports, grant.record)
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    def _tables_of(self, grant: Grant) -> Tables:
        instance_id = grant.record.instance_id
        tables = self._tables.get(instance_id)
        if tables is None:
            if len(self._tables) >= INSTANCES_KNOWN_MAX:
                # What is forgotten is read again; the oldest goes first.
                del self._tables[next(iter(self._tables))]
            tables = self._tables[instance_id] = Tables(grant.record.schema)
        return tables


async def _handled(handler: Handler, context: Context, parsed: Parsed) -> Answer:
    """Run a handler; again with the tables read anew if one has changed its shape.

    No SQL table under its name says so, or a refusal that rests on what was known of it. A table
    may change again before the next attempt, so there are some.
    """
    for _ in range(RESHAPED_MAX):
        try:
            return await handler(context, parsed)
        except RequestError as error:
            is_gone = error.sqlstate == NO_RELATION
            if not is_gone and not (
                error.reason is Reason.MALFORMED and await context.is_outdated()
            ):
                raise
        context.tables.forget()
    # One that is gone is told by the catalogue; this one is there and never stays the same.
    raise RequestError(Reason.BACKEND, "the table is being changed; try again")
