"""Django's entry: `python manage.py migrate`, `weftkit_bootstrap`, and the rest."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "weftkit_site.settings.local")
    execute_from_command_line(sys.argv)
