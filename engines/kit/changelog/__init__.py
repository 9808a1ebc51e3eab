"""Change feeds over PostgreSQL: who wrote what, in one order that no reader can miss a part of.

A sequence is no such order: its numbers become visible out of order, and a reader that has passed
one that is not yet committed never sees it. Two forms do it right; each is SQL text and arithmetic:

- `by_transaction`: ordered by (transaction id, n), read only below the oldest transaction that is
  still open. Writers do not wait for each other. For streams (Mongo, DynamoDB).
- `by_counter`: a counter row per feed, dense numbers, writers of one feed one after the other,
  many of them in one transaction (`Group`). For protocols that show one number (CouchDB, Unison).

`position` is how a reader's place is written down.
"""

from engines.kit.changelog.by_counter import CounterLog as CounterLog
from engines.kit.changelog.by_counter import Group as Group
from engines.kit.changelog.by_transaction import TransactionLog as TransactionLog
from engines.kit.changelog.position import Entry as Entry
from engines.kit.changelog.position import Page as Page
from engines.kit.changelog.position import Position as Position
