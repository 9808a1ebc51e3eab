"""`weft operations`: what runs, and what to do about it."""

from __future__ import annotations

from typing import Any

import click

from deploy.weft.session import Session
from deploy.weft.shown import show_operation, show_rows, show_thing
from deploy.weft.words import json_option, limit_option, wait_options, with_session

COLUMNS = ("id", "kind", "instance", "state", "progress_done", "progress_total", "created_at")


@click.group()
def operations() -> None:
    """What was asked for and takes time: list, show, wait, cancel, retry."""


@operations.command("list")
@click.option("--instance")
@click.option("--kind", help="backup, restore, ...")
@click.option("--state")
@click.option("--since", help="Begun at this time (ISO 8601) or later.")
@click.option("--until", help="Begun before this time.")
@limit_option
@json_option
@with_session
def list_(session: Session, /, instance: str | None, limit: int, **wanted: str | None) -> None:
    """List operations, newest first."""
    handle = session.handle(instance) if instance else None
    rows = session.api.items(session.path("operations"), limit, instance=handle, **wanted)
    show_rows(session, rows, COLUMNS)


@operations.command()
@click.argument("operation")
@json_option
@with_session
def show(session: Session, operation: str) -> None:
    """Show an operation with its steps."""
    found: dict[str, Any] = session.api.get(session.path("operations", operation))
    show_thing(session, {name: value for name, value in found.items() if name != "steps"}
               if not session.as_json else found)  # fmt: skip
    if not session.as_json:
        click.echo("")
        show_rows(session, found["steps"], ("title", "state", "started_at", "finished_at"))


@operations.command()
@click.argument("operation")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 86_400), default=600.0)
@json_option
@with_session
def wait(session: Session, operation: str, timeout_s: float) -> None:
    """Wait until an operation has ended; its outcome is the exit status."""
    show_operation(session, {"id": operation}, wait=True, timeout_s=timeout_s)


def _verb(verb: str, text: str) -> None:
    """Add a command that only posts to the operation."""

    @operations.command(verb, help=text)
    @click.argument("operation")
    @wait_options
    @json_option
    @with_session
    def post(session: Session, operation: str, wait: bool, timeout_s: float) -> None:
        found = session.api.post(session.path("operations", operation, verb))
        show_operation(session, found, wait=wait, timeout_s=timeout_s)


_verb("cancel", "Have an operation undo what it did.")
_verb("retry", "Have a failed operation go on from the step that failed.")
