"""The printed table: what to connect to, and with which command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines import registry
from engines.kit.contract import Endpoint


class ConnectionsError(Exception):
    """connections.json is missing or is not what the bootstrap writes."""


def read(path: Path) -> dict[str, Any]:
    """Return the document that the bootstrap wrote. Raises ConnectionsError."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConnectionsError(f"cannot read {path}: {error}") from error
    return document


def render(path: Path, home: Path) -> str:
    """Return the table, the dashboard's address and how to stop. Raises ConnectionsError."""
    document = read(path)
    try:
        rows = [_row(each, document.get("ca") or "") for each in document["connections"]]
        console, api = document["console"], document["api"]
        lines = [
            *_columns([("ENGINE", "TENANT", "CONNECTION STRING", "TRY"), *rows]),
            "",
            f"dashboard   {console['url']}",
            f"            user {console['user']}   password {console['password']}",
            f"REST API    {api['url']}   key {api['key']}",
        ]
    except (KeyError, TypeError) as error:
        raise ConnectionsError(f"{path} lacks {error}") from error
    if document.get("ca"):
        lines.append(f"TLS         certificates are signed by {document['ca']}")
    lines.append(f"files       {path} (all of this), {home / 'logs'} (logs)")
    return "\n".join(lines)


def _row(connection: dict[str, Any], authority: str) -> tuple[str, str, str, str]:
    spec = registry.load(connection["engine"])
    one_liner = spec.one_liner(
        Endpoint(
            host=connection["host"],
            port=connection["port"],
            username=connection["user"],
            password=connection["password"],
            handle=connection["instance"],
            tls=bool(authority),
            ca_path=authority,
        )
    )
    return spec.name, connection["tenant"], connection["uri"], one_liner


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, each column as wide as its widest cell; the last one is not padded."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
