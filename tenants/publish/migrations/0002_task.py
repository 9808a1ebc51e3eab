"""The table of the long work that instance hosts are given."""

from django.db import migrations

from engines.kit import exchange


def create(apps, schema_editor):
    # Every statement can be repeated; what is there already stays.
    for statement in (*exchange.DDL, *exchange.GRANTS):
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("publish", "0001_exchange")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop, elidable=False)]
