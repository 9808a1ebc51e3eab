"""What a write to a table with a stream leaves in the change log: one entry, as JSON.

    {"e": "INSERT" | "MODIFY" | "REMOVE", "k": keys, "o": old image, "n": new image,
     "at": seconds since 1970, "u": "ttl" for what the TTL sweeper removed}

Images are there as the stream's view type says ("DynamoDB Streams" of the Developer Guide).
"""

from __future__ import annotations

from typing import Any

import orjson

from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.values import Item

SEES_NEW = frozenset({"NEW_IMAGE", "NEW_AND_OLD_IMAGES"})
SEES_OLD = frozenset({"OLD_IMAGE", "NEW_AND_OLD_IMAGES"})


def change_body(
    table: Table, old: Item | None, new: Item | None, now: float, *, by_ttl: bool = False
) -> bytes | None:
    """Return the entry of one write; None for one that changes nothing, which no stream shows."""
    if old == new:
        return None
    item = new if new is not None else old
    assert item is not None
    event = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
    body: dict[str, Any] = {
        "e": event,
        "k": {attribute.name: item[attribute.name] for attribute in table.keys},
        "at": int(now),
    }
    if old is not None and table.stream_view in SEES_OLD:
        body["o"] = old
    if new is not None and table.stream_view in SEES_NEW:
        body["n"] = new
    if by_ttl:
        body["u"] = "ttl"
    return orjson.dumps(body)
