"""After how long without clients an instance sleeps.

It takes nothing from anybody, so versions that instances have already get it as well.
"""

from django.db import migrations, models

SECONDS = {"lite": 900, "standard": 3600}


def fill(apps, schema_editor):
    plan = apps.get_model("usage", "Plan")
    for name, seconds in SECONDS.items():
        plan.objects.filter(name=name).update(hibernate_after_s=seconds)


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_plans")]
    operations = [
        migrations.AddField(
            model_name="plan",
            name="hibernate_after_s",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=False),
    ]
