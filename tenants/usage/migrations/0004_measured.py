"""Gauges by the hour, minutes for charts, terms of plans, and the grace of a full quota.

The grace takes nothing from anybody, so versions that instances have already get it as well.
"""

import django.db.models.deletion
from django.db import migrations, models

GRACE = {"standard": {"storage_grace_s": 72 * 3600, "storage_grace_percent": 10}}


def fill(apps, schema_editor):
    plan = apps.get_model("usage", "Plan")
    for name, fields in GRACE.items():
        plan.objects.filter(name=name).update(**fields)


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0003_hibernation'),
    ]

    operations = [
        migrations.AddField(
            model_name='plan',
            name='storage_grace_percent',
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='plan',
            name='storage_grace_s',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='usagehour',
            name='backup_bytes',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='usagehour',
            name='memory_bytes',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='usagehour',
            name='storage_bytes',
            field=models.BigIntegerField(null=True),
        ),
        migrations.CreateModel(
            name='UsageMinute',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('instance_id', models.UUIDField()),
                ('minute', models.DateTimeField(db_index=True)),
                ('read_units', models.BigIntegerField(default=0)),
                ('write_units', models.BigIntegerField(default=0)),
                ('query_units', models.BigIntegerField(default=0)),
                ('unlimited_units', models.BigIntegerField(default=0)),
                ('refused_units', models.BigIntegerField(default=0)),
                ('bytes_in', models.BigIntegerField(default=0)),
                ('bytes_out', models.BigIntegerField(default=0)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('instance_id', 'minute'), name='usage_minute_is_unique')],
            },
        ),
        migrations.CreateModel(
            name='PlanTerm',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('instance_id', models.UUIDField()),
                ('blocks', models.PositiveIntegerField()),
                ('started_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('plan', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='usage.plan')),
            ],
            options={
                'indexes': [models.Index(fields=['instance_id', 'started_at'], name='plan_term_by_instance'), models.Index(fields=['tenant_id', 'started_at'], name='plan_term_by_tenant')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('ended_at__isnull', True)), fields=('instance_id',), name='plan_term_open_is_one'), models.CheckConstraint(condition=models.Q(('ended_at__isnull', True), ('ended_at__gte', models.F('started_at')), _connector='OR'), name='plan_term_ends_after_its_start')],
            },
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=False),
    ]
