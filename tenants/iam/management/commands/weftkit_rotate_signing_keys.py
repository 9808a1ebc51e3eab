"""`manage.py weftkit_rotate_signing_keys`: the next signing key where it is time, or at once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from tenants.iam.signing import signing_keys_rotate


class Command(BaseCommand):
    help = "Rotate the keys that access tokens are signed with."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--at-once",
            action="store_true",
            help="the present keys are stolen: forget them, and with them every access token",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        signing_keys_rotate(at_once=options["at_once"])
