"""`manage.py weftkit_bootstrap`: the first start's tenants, instances and keys, into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.instances.bootstrap import BootstrapError, bootstrap


class Command(BaseCommand):
    help = "Make the tenants demo and other; bring weftkit.toml's users up to date."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--config", help="weftkit.toml; default: WEFTKIT_CONFIG")
        parser.add_argument("--output", type=Path, help="default: $WEFTKIT_HOME/connections.json")
        parser.add_argument("--wait", type=float, default=60.0, help="seconds until all must serve")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["config"]:
            # Before anything reads it; the other processes are given the same file.
            settings.WEFTKIT = settings.READ_WEFTKIT_TOML(options["config"])
        output = options["output"] or settings.WEFTKIT_HOME / "connections.json"
        try:
            document = bootstrap(output=output, wait_s=options["wait"])
        except BootstrapError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{len(document['connections'])} instances are in service; see {output}")
