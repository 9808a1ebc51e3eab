"""The first price list. A change of prices is a new list, in force from a later moment on."""

from datetime import datetime, timezone

from django.db import migrations

GIB = 2**30
HOUR = 3600
MILLION = 10**6
FROM = datetime(2026, 1, 1, tzinfo=timezone.utc)

# (plan, meter, unit, micro-units of the currency, for how much of the smallest unit, included)
FREE = [
    (plan, meter, unit, 0, per, 0)
    for plan in ("lite", "standard", "dedicated")
    for meter, unit, per in (
        ("read_units", "million read units", MILLION),
        ("write_units", "million write units", MILLION),
        ("query_units", "million query units", MILLION),
    )
]
PRICES = [
    *FREE,
    ("lite", "capacity", "instance-hour", 0, HOUR, 0),
    ("lite", "storage", "GiB-hour", 0, GIB, 0),
    ("standard", "capacity", "block-hour", 105_000, HOUR, 0),
    ("standard", "storage", "GiB-hour", 1_370, GIB, 20 * GIB),
    ("standard", "backup", "GiB-hour", 140, GIB, 20 * GIB),
    ("dedicated", "capacity", "instance-hour", 850_000, HOUR, 0),
    ("dedicated", "storage", "GiB-hour", 1_370, GIB, 100 * GIB),
    ("dedicated", "backup", "GiB-hour", 140, GIB, 100 * GIB),
    ("unmetered", "read_units", "million read units", 250_000, MILLION, 0),
    ("unmetered", "write_units", "million write units", 1_250_000, MILLION, 0),
    ("unmetered", "query_units", "million query units", 2_500_000, MILLION, 0),
    ("unmetered", "storage", "GiB-hour", 1_370, GIB, 0),
    ("unmetered", "backup", "GiB-hour", 140, GIB, 0),
    ("unmetered", "bytes_out", "GiB out", 80_000, GIB, 0),
]


def seed(apps, schema_editor):
    price_list = apps.get_model("billing", "PriceList").objects.create(
        version=1, currency="USD", valid_from=FROM
    )
    price = apps.get_model("billing", "Price")
    price.objects.bulk_create(
        price(
            price_list=price_list, plan=plan, meter=meter, unit=unit, micros=micros, per=per,
            included=included,
        )
        for plan, meter, unit, micros, per, included in PRICES
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop, elidable=False)]
