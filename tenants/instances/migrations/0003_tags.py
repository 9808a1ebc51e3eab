"""Tags; and a term of its plan for each instance in service, which costs from now on."""

from django.db import migrations, models
from django.utils import timezone


def open_terms(apps, schema_editor):
    instance = apps.get_model("instances", "Instance")
    term = apps.get_model("usage", "PlanTerm")
    now = timezone.now().replace(microsecond=0)
    term.objects.bulk_create(
        term(
            tenant_id=row.tenant_id, instance_id=row.pk, plan_id=row.plan_id, blocks=row.blocks,
            started_at=now,
        )
        for row in instance.objects.filter(status="active")
    )


class Migration(migrations.Migration):

    dependencies = [
        ('instances', '0002_files'),
        ('usage', '0004_measured'),
    ]

    operations = [
        migrations.AddField(
            model_name='instance',
            name='tags',
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.RunPython(open_terms, migrations.RunPython.noop, elidable=False),
    ]
