"""An instance host can say `hibernated`."""

from django.db import migrations

from engines.kit.exchange import OBSERVED_STATES_DDL


class Migration(migrations.Migration):
    dependencies = [("publish", "0002_task")]
    operations = [migrations.RunSQL(list(OBSERVED_STATES_DDL), migrations.RunSQL.noop)]
