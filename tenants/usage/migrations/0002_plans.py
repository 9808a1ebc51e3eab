"""The first version of each plan. A change of a plan is a new version, in a new migration."""

import uuid

from django.db import migrations

GIB = 2**30
MIB = 2**20

# Fixed ids, so that every installation names the same version alike.
PLANS = [
    dict(
        id=uuid.UUID("01900000-0000-7000-8000-000000000001"), name="lite", title="Lite",
        read_units=20, write_units=10, query_units=5, storage_bytes=GIB,
        memory_bytes=64 * MIB, connections=20, statement_timeout_ms=60_000,
    ),
    dict(
        id=uuid.UUID("01900000-0000-7000-8000-000000000002"), name="standard", title="Standard",
        has_blocks=True, read_units=100, write_units=50, query_units=5, storage_bytes=20 * GIB,
        memory_bytes=256 * MIB, connections=100, statement_timeout_ms=300_000,
    ),
    dict(
        id=uuid.UUID("01900000-0000-7000-8000-000000000003"), name="dedicated", title="Dedicated",
        has_own_server=True, memory_bytes=4 * GIB, connections=500, statement_timeout_ms=0,
    ),
    # Memory is left to weftkit.toml.
    dict(
        id=uuid.UUID("01900000-0000-7000-8000-000000000004"), name="unmetered", title="Unmetered",
        connections=200, statement_timeout_ms=0,
    ),
]  # fmt: skip


def seed(apps, schema_editor):
    plan = apps.get_model("usage", "Plan")
    plan.objects.bulk_create(plan(version=1, **fields) for fields in PLANS)


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop, elidable=False)]
