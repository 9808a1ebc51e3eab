from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('iam', '0003_move_secrets'),
    ]

    operations = [
        migrations.RemoveField(
            model_name='apikey',
            name='digest',
        ),
        migrations.RemoveField(
            model_name='apikey',
            name='pepper_id',
        ),
    ]
