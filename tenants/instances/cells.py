"""Which cell the schema of a new instance is put into."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Count

from engines import registry
from engines.kit.contract import Placement
from tenants.core.errors import LimitError
from tenants.instances.models import Instance, InstanceStatus

# A backend of PostgreSQL remembers each table that it has touched, so a cell's schemas are bounded
# (research: 13 KB a table and backend); beyond it, add a cell.
SCHEMAS_MAX = 2_000


def has_schema(engine: str) -> bool:
    """Say whether instances of an engine are schemas, without a server of their own."""
    return registry.load(engine).placement is Placement.SCHEMA


def cell_choose(*, engine: str) -> str:
    """Return the emptiest cell, or "" for engines whose instances have servers of their own.

    Two that choose at the same moment may choose the same: the bound is no promise to the unit.
    """
    if not has_schema(engine):
        return ""
    living = Instance.objects.exclude(status=InstanceStatus.PURGED).filter(cell__in=settings.CELLS)
    counted = dict(living.values_list("cell").annotate(count=Count("pk")))
    cell: str = min(settings.CELLS, key=lambda name: counted.get(name, 0))
    if counted.get(cell, 0) >= SCHEMAS_MAX:
        raise LimitError("there is no room for more instances of this engine; ask the operator")
    return cell
