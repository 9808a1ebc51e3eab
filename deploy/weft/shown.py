"""What a command prints: a table or `name: value` lines for people, JSON for programs.

Data goes to standard output; progress and remarks go to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from deploy.weft.api import FAILED, WeftError
from deploy.weft.session import Session

BYTES_PER_MIB = 1 << 20


def show_rows(session: Session, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows: those columns as a table, or all that they hold as JSON."""
    found = list(rows)
    if session.as_json:
        _json(found)
        return
    cells = [[column.upper().replace("_", " ") for column in columns]]
    cells += [[_cell(row.get(column)) for column in columns] for row in found]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def show_thing(session: Session, thing: Mapping[str, Any], fields: Sequence[str] = ()) -> None:
    """Print one thing: those fields, or all that say something; as JSON all of them."""
    if session.as_json:
        _json(thing)
        return
    names = fields or [name for name, value in thing.items() if value not in (None, "", [], {})]
    width = max(map(len, names), default=0)
    for name in names:
        click.echo(f"{name.ljust(width)}  {_cell(thing.get(name))}")


def remark(text: str) -> None:
    """Say something that is no data."""
    click.echo(text, err=True)


def show_operation(
    session: Session, operation: Mapping[str, Any], *, wait: bool, timeout_s: float
) -> None:
    """Print an operation as it is, or when it has ended; WeftError if it did not succeed."""
    if wait:
        path = session.path("operations", operation["id"])
        operation = session.api.wait(path, timeout_s=timeout_s, told=_progress)
    show_thing(
        session,
        operation,
        () if session.as_json else ("id", "kind", "instance", "state", "error_message"),
    )
    if not wait:
        remark(f"follow it: weft operations wait {operation['id']}")
    elif operation["state"] != "succeeded":
        why = operation["error_message"] or "no reason was given"
        hint = (
            f"; weft operations retry {operation['id']}" if operation["state"] == "failed" else ""
        )
        raise WeftError(f"{operation['kind']} {operation['state']}: {why}{hint}", FAILED)


def _progress(operation: Mapping[str, Any]) -> None:
    running = [step["title"] for step in operation["steps"] if step["state"] == "running"]
    done, total = operation["progress_done"], operation["progress_total"]
    text = f"{operation['kind']} {operation['instance']}: {operation['state']}, {done} of {total}"
    if running:
        text += f", {running[0]}"
    if operation["bytes_done"]:
        text += f", {operation['bytes_done'] / BYTES_PER_MIB:.1f} MiB"
        if operation["bytes_total"]:
            text += f" of {operation['bytes_total'] / BYTES_PER_MIB:.1f}"
    remark(text)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_cell(item)}" for name, item in value.items()) or "-"
    return str(value) or "-"


def _json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
