"""Which stored files a restore needs: a backup with its parents, and the WAL up to a moment."""

from __future__ import annotations

from datetime import datetime

from tenants.backups.models import Backup, StoredFile


def chain_of(backup: Backup) -> list[Backup]:
    """Return a backup with all that it builds on, the full one first."""
    chain = [backup]
    while chain[0].parent is not None:
        chain.insert(0, chain[0].parent)
    return chain


def files_to_restore(*, backup: Backup, target: datetime | None) -> list[StoredFile]:
    """Return the files that are needed, in the order in which the host wants them."""
    return [file for each in chain_of(backup) for file in each.files.order_by("role")]
