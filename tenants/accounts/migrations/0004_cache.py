from django.db import migrations


class Migration(migrations.Migration):
    """The table of Django's database cache, as `createcachetable` would make it."""

    dependencies = [
        ('accounts', '0003_tenant_requires_second_factor_invitation'),
    ]

    operations = [
        migrations.RunSQL(
            """
            CREATE UNLOGGED TABLE IF NOT EXISTS weftkit_cache (
                cache_key varchar(255) PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL
            );
            CREATE INDEX IF NOT EXISTS weftkit_cache_expires ON weftkit_cache (expires);
            """,
            "DROP TABLE weftkit_cache",
        ),
    ]
