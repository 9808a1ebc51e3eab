"""The tables in which the planes meet, the version sequence, and the data plane's role."""

from django.db import migrations

from engines.kit import exchange

# The role belongs to the whole cluster: another database of it (or another migration in this very
# moment) may have made it already.
ROLE = f"""
DO $$
BEGIN
    CREATE ROLE {exchange.DATAPLANE_ROLE} LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
WHEN insufficient_privilege THEN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{exchange.DATAPLANE_ROLE}') THEN
        RAISE EXCEPTION 'create the role {exchange.DATAPLANE_ROLE} first, or migrate as a role that may';
    END IF;
END
$$
"""


def create(apps, schema_editor):
    statements = (
        *exchange.DDL,
        "CREATE SEQUENCE IF NOT EXISTS publish.record_version",
        ROLE,
        *exchange.GRANTS,
    )
    for statement in statements:
        # Without parameters: a percent sign in the DDL is only a percent sign.
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [migrations.RunPython(create, migrations.RunPython.noop, elidable=False)]
