"""What the control file of a data directory says, as `pg_controldata` tells it."""

from __future__ import annotations

from pathlib import Path

from dataplane.host.postgres_program import running
from dataplane.host.work import Progress

SECONDS_MAX = 10.0
SEGMENT_SIZE = "Bytes per WAL segment"


def control_facts(postgres_bin: Path, data: Path, workplace: Path) -> dict[str, str]:
    """Return the facts by their names; blocks. Raises ProgramError where it cannot be read."""
    with running(postgres_bin / "pg_controldata", ["-D", data], workplace) as reading:
        said = reading.finish(SECONDS_MAX, Progress())
    facts = (line.partition(":") for line in said.splitlines())
    return {name: fact.strip() for name, colon, fact in facts if colon}


def segment_bytes_of(postgres_bin: Path, data: Path, workplace: Path) -> int:
    """Return the size of the log's segments; blocks. Raises ProgramError."""
    return int(control_facts(postgres_bin, data, workplace)[SEGMENT_SIZE])
