"""`manage.py weftkit_operator add|remove <e-mail>`, `list`: the staff that records payments."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.accounts.models import User
from tenants.billing.models import Operator


class Command(BaseCommand):
    help = "Say who records payments and credit notes, and publishes prices."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=["add", "remove", "list"])
        parser.add_argument("email", nargs="?", default="")

    def handle(self, *args: Any, verb: str, email: str, **options: Any) -> None:
        if verb == "list":
            for operator in Operator.objects.select_related("user").order_by("user__email"):
                self.stdout.write(operator.user.email)
            return
        user = User.objects.filter(email=email.strip().lower()).first()
        if user is None:
            raise CommandError(f"there is no user {email!r}")
        if verb == "add":
            Operator.objects.get_or_create(user=user)
        else:
            Operator.objects.filter(user=user).delete()
