"""The last known good records on disk, so that a data plane starts while the database is away.

One JSON object a line: a header with the format's version, then every record as it was published.
The file holds verifiers of keys, so only its owner can read it; it is replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from dataplane.files import write_durably
from dataplane.routing.table import Entry
from engines.kit.records import InstanceRecord

FORMAT = 1
FILE_NAME = "records.jsonl"


class SnapshotError(Exception):
    """The file is there and cannot be used."""


def read_record(body: str) -> Entry:
    """Read one published JSON text. Raises ValueError."""
    try:
        return Entry(InstanceRecord.from_json(json.loads(body)), body)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no instance record: {error!r}") from error


def write(directory: Path, entries: Iterable[Entry]) -> None:
    """Replace the snapshot."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [json.dumps({"format": FORMAT})]
    # PostgreSQL's jsonb text has no line feeds; a body that came otherwise might.
    lines += [entry.body.replace("\n", " ") for entry in entries]
    write_durably(directory / FILE_NAME, ("\n".join(lines) + "\n").encode())


def read(directory: Path) -> list[Entry]:
    """Return the snapshot's records; none if there is no snapshot. Raises SnapshotError."""
    try:
        text = (directory / FILE_NAME).read_text()
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]
    try:
        if not lines or json.loads(lines[0]).get("format") != FORMAT:
            raise SnapshotError(f"{FILE_NAME} has another format")
        return [read_record(line) for line in lines[1:]]
    except (ValueError, AttributeError) as error:
        raise SnapshotError(f"{FILE_NAME} is damaged: {error}") from error
