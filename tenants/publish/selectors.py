"""Reads: what the instance host made true of an instance."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import connection
from django.db.models import CharField
from django.db.models.expressions import RawSQL

# What the host last said that an instance's server does, as a column of a query over instances.
SERVER_STATE = {
    "server_state": RawSQL(
        "coalesce((SELECT observed.state FROM publish.observed"
        " WHERE observed.instance_id = instances_instance.id), '')",
        [],
        output_field=CharField(),
    )
}


@dataclass(frozen=True, slots=True)
class Observed:
    """The host's word: `state` holds for the wishes up to `generation`."""

    generation: int
    state: str  # one of engines.kit.exchange.OBSERVED_STATES
    detail: str
    storage_bytes: int
    memory_bytes: int


def observed_get(*, instance_id: UUID) -> Observed | None:
    """Return what the host last said about an instance; None if it never did."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT generation, state, detail, storage_bytes, memory_bytes "
            "FROM publish.observed WHERE instance_id = %s",
            [instance_id],
        )
        row = cursor.fetchone()
    return Observed(*row) if row else None
