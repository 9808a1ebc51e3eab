"""`manage.py weftkit_audit_verify`: walk the hash chains, name the first broken link."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.accounts.models import Tenant
from tenants.audit.chain import chain_verify
from tenants.audit.models import PLATFORM, AuditHead


class Command(BaseCommand):
    help = "Verify the audit trail of one tenant, or of all and of the platform; fail if broken."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", help="the handle of one tenant; default: every chain")

    def handle(self, *args: Any, **options: Any) -> None:
        broken = 0
        for name, chain_id in self._chains(options["tenant"]):
            tenant_id = None if chain_id == PLATFORM else chain_id
            verdict = chain_verify(chain_id=chain_id, tenant_id=tenant_id)
            if verdict.is_whole:
                self.stdout.write(
                    f"{name}: whole, links {verdict.first} to {verdict.last}, "
                    f"{verdict.waiting} waiting, head {verdict.digest}"
                )
            else:
                broken += 1
                self.stderr.write(f"{name}: BROKEN at link {verdict.broken_at}: {verdict.why}")
        if broken:
            raise CommandError(f"{broken} broken chains")

    def _chains(self, handle: str | None) -> list[tuple[str, UUID]]:
        tenants = Tenant.objects.order_by("handle")
        if handle:
            chosen = [(tenant.handle, tenant.pk) for tenant in tenants.filter(handle=handle)]
            if not chosen:
                raise CommandError("there is no such tenant")
            return chosen
        known = {tenant.pk: tenant.handle for tenant in tenants}
        # A tenant's events outlive it, and so does its chain.
        heads = AuditHead.objects.order_by("chain_id").values_list("chain_id", flat=True)
        chains = {**known, **{head: known.get(head, str(head)) for head in heads}}
        return sorted(
            (name, chain_id) for chain_id, name in {**chains, PLATFORM: "(platform)"}.items()
        )
