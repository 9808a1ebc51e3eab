"""The digest of each key that still works becomes its first secret."""

from django.db import migrations


def move(apps, schema_editor):
    keys = apps.get_model("iam", "ApiKey").objects.filter(revoked_at=None)
    secrets = apps.get_model("iam", "ApiKeySecret")
    secrets.objects.bulk_create(
        (
            secrets(
                api_key_id=key.pk,
                slot=0,
                pepper_id=key.pepper_id,
                digest=key.digest,
                issued_at=key.created_at,
            )
            for key in keys.iterator()
        ),
        batch_size=1000,
    )


class Migration(migrations.Migration):

    dependencies = [
        ('iam', '0002_identities'),
    ]

    operations = [
        migrations.RunPython(move, migrations.RunPython.noop),
    ]
