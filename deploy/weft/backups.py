"""`weft backups`: make, verify, restore into a new instance."""

from __future__ import annotations

from typing import Any

import click

from deploy.weft.session import Session
from deploy.weft.shown import remark, show_operation, show_rows, show_thing
from deploy.weft.words import (
    instance_argument,
    json_option,
    limit_option,
    wait_options,
    with_session,
)

COLUMNS = ("id", "instance", "kind", "state", "size_bytes", "verification", "covers_to", "label")


@click.group()
def backups() -> None:
    """Backups: list, create, show, verify, restore, delete."""


@backups.command("list")
@click.option("--instance")
@click.option("--state")
@limit_option
@json_option
@with_session
def list_(session: Session, instance: str | None, state: str | None, limit: int) -> None:
    """List backups, newest first, those of deleted instances too."""
    handle = session.handle(instance) if instance else None
    rows = session.api.items(session.path("backups"), limit, instance=handle, state=state)
    show_rows(session, rows, COLUMNS)


@backups.command()
@instance_argument
@click.option("--kind")
@click.option("--label")
@click.option("--keep-days", type=int)
@wait_options
@json_option
@with_session
def create(session: Session, /, name: str, wait: bool, timeout_s: float, **fields: Any) -> None:
    """Back an instance up now."""
    body = {field: value for field, value in fields.items() if value is not None}
    operation = session.api.post(session.instance(name, "backups"), body)
    show_operation(session, operation, wait=wait, timeout_s=timeout_s)


@backups.command()
@click.argument("backup")
@json_option
@with_session
def show(session: Session, backup: str) -> None:
    """Show a backup."""
    show_thing(session, session.api.get(session.path("backups", backup)))


@backups.command()
@click.argument("backup")
@wait_options
@json_option
@with_session
def verify(session: Session, backup: str, wait: bool, timeout_s: float) -> None:
    """Restore a backup into a scratch instance and compare."""
    operation = session.api.post(session.path("backups", backup, "verify"))
    show_operation(session, operation, wait=wait, timeout_s=timeout_s)


@backups.command()
@click.argument("backup")
@click.argument("name")
@click.option("--plan")
@wait_options
@json_option
@with_session
def restore(
    session: Session, backup: str, name: str, plan: str | None, wait: bool, timeout_s: float
) -> None:
    """Make the new instance NAME of a backup."""
    body = {"name": name.removeprefix(f"{session.tenant}-"), **({"plan": plan} if plan else {})}
    operation = session.api.post(session.path("backups", backup, "restore"), body)
    show_operation(session, operation, wait=wait, timeout_s=timeout_s)


@backups.command("restore-at")
@instance_argument
@click.argument("time")
@click.argument("new")
@wait_options
@json_option
@with_session
def restore_at(
    session: Session, name: str, time: str, new: str, wait: bool, timeout_s: float
) -> None:
    """Make the new instance NEW with what INSTANCE held at TIME, as 2027-01-31T12:00:00Z."""
    body = {"name": new.removeprefix(f"{session.tenant}-"), "time": time}
    operation = session.api.post(session.instance(name, "restore"), body)
    show_operation(session, operation, wait=wait, timeout_s=timeout_s)


@backups.command()
@click.argument("backup")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_session
def delete(session: Session, backup: str, yes: bool) -> None:
    """Delete a backup, for good."""
    if not yes:
        click.confirm(f"Delete the backup {backup} for good?", abort=True, err=True)
    session.api.delete(session.path("backups", backup))
    remark("the backup is deleted")
