"""The cells that this data plane and its instance host reach: `WEFTKIT_CELLS`.

    local=postgresql://weftkit@/cell?host=/run/cell,east=postgresql://...

A cell is a PostgreSQL server with a schema for each instance of an engine that has no server of
its own. The control plane knows the names alone.
"""

from __future__ import annotations

import re

CELLS_VARIABLE = "WEFTKIT_CELLS"
_CELL = re.compile(r"([a-z][a-z0-9-]{0,39})=(postgres(?:ql)?://\S+)")


def cells_from(text: str) -> dict[str, str]:
    """Return name -> DSN. Raises ValueError, which never shows a DSN: it may hold a password."""
    found: dict[str, str] = {}
    for position, item in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        match = _CELL.fullmatch(item)
        if match is None:
            raise ValueError(f"{CELLS_VARIABLE}: entry {position} is not <name>=postgresql://...")
        if match[1] in found:
            raise ValueError(f"{CELLS_VARIABLE} names the cell '{match[1]}' twice")
        found[match[1]] = match[2]
    return found
