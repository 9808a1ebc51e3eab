"""The tables of all operations, one module a family, and the vocabulary of their steps.

`plan` says what a table is, `members` has shapes that several use, `steps`, `legacy` and
`table_schemas` the checks of whole requests. What DynamoDB has and WeftKit has not is in the tables
too: the session answers it.
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.keyvalue.parse.operations import (
    backups,
    batches,
    items,
    reads,
    services,
    streams,
    tables,
    transactions,
)
from engines.keyvalue.parse.operations.plan import Operation

OPERATIONS: Mapping[str, Operation] = {
    **backups.OPERATIONS,
    **batches.OPERATIONS,
    **items.OPERATIONS,
    **reads.OPERATIONS,
    **services.OPERATIONS,
    **tables.OPERATIONS,
    **transactions.OPERATIONS,
}
STREAM_OPERATIONS: Mapping[str, Operation] = streams.OPERATIONS
