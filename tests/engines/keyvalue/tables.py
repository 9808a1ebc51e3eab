"""Tables for tests, put straight into the catalogue: what CreateTable would make."""

from __future__ import annotations

from typing import Any

import orjson

from engines.keyvalue.plan.catalogue import sql_table
from engines.keyvalue.storage import columns_ddl, index_ddl, items_ddl
from tests.engines.keyvalue.rig import Rig

HASH = {"AttributeName": "a", "KeyType": "HASH"}
RANGE = {"AttributeName": "b", "KeyType": "RANGE"}


def body(
    kinds: dict[str, str],
    *,
    has_range: bool = True,
    local: dict[str, dict[str, Any]] | None = None,
    global_: dict[str, dict[str, Any]] | None = None,
    stream: str = "",
) -> dict[str, Any]:
    """Return a catalogue body: `local` and `global_` are projections by "name:key attributes"."""
    made: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()
        ],
        "KeySchema": [HASH, RANGE] if has_range else [HASH],
        "BillingMode": "PAY_PER_REQUEST",
        "TableStatus": "ACTIVE",
    }
    slot = 0
    for member, wanted in (("LocalSecondaryIndexes", local), ("GlobalSecondaryIndexes", global_)):
        for named, projection in (wanted or {}).items():
            slot += 1
            name, _, keys = named.partition(":")
            schema = [
                {"AttributeName": key, "KeyType": kind}
                for key, kind in zip(keys.split(","), ("HASH", "RANGE"), strict=False)
            ]
            made.setdefault(member, []).append(
                {
                    "IndexName": name,
                    "KeySchema": schema,
                    "Projection": projection,
                    "Slot": slot,
                    "IndexStatus": "ACTIVE",
                }
            )
    if stream:
        made["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream}
    return made


async def make_table(rig: Rig, name: str, described: dict[str, Any], table_id: int = 1) -> None:
    """Make a table with its columns and b-trees."""
    store, schema = rig.store(rig.record), rig.record.schema
    table = sql_table(schema, table_id, 1)
    await store.execute(items_ddl(table))
    for member in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
        for index in described.get(member, ()):
            slot = index["Slot"]
            await store.execute(columns_ddl(table, slot))
            await store.execute(
                index_ddl(
                    table,
                    f"t{table_id}_i{slot}",
                    slot,
                    is_global=member == "GlobalSecondaryIndexes",
                    concurrently=False,
                )
            )
    await store.execute(
        f'INSERT INTO "{schema}".catalogue (name, table_id, shape, body) '
        "VALUES ($1, $2, 1, $3::text::jsonb)",
        name,
        table_id,
        orjson.dumps(described).decode(),
    )
