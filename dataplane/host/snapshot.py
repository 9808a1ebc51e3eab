"""The last known good records on disk, so that a restarted host needs no control database.

From these alone only existing servers are started: nothing is made and nothing is removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import structlog

from dataplane.files import write_atomically
from engines.kit.records import InstanceRecord

FORMAT = 1

log = structlog.get_logger("host")


def load(path: Path) -> list[InstanceRecord]:
    """Return the records of the last save; none where there is no usable file."""
    try:
        body = json.loads(path.read_bytes())
        if body["format"] != FORMAT:
            return []
        return [InstanceRecord.from_json(each) for each in body["records"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        # The database will tell; until then no server is started.
        log.exception("snapshot_unusable", path=str(path))
        return []


def save(path: Path, records: Iterable[InstanceRecord]) -> None:
    """Replace the file. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    body = {"format": FORMAT, "records": [record.to_json() for record in records]}
    write_atomically(path, json.dumps(body, separators=(",", ":")).encode())
