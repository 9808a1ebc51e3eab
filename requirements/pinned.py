"""Print the pinned, hashed lines of dev.txt for some packages and all that they need.

    python requirements/pinned.py pytest hypothesis > test-tools.txt

Used to put the test tools, and nothing of the control plane, beside requirements/dataplane.txt.
The "via" comments that the compiler leaves under each package say who needs it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("dev.txt")


def normalised(name: str) -> str:
    """Return a package name as PEP 503 compares it, without extras."""
    return re.sub(r"[-_.]+", "-", name.split("[")[0]).lower()


def blocks(text: str) -> dict[str, tuple[str, set[str]]]:
    """Split a lock file into package -> (its lines, the packages that need it)."""
    found: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", text):
        match = re.match(r"([A-Za-z0-9._-]+)(\[[^\]]*\])?==", block)
        if match is None:
            continue
        parents = re.findall(r"^\s+#(?: via)?\s+(?!-r)([A-Za-z0-9._-]+)", block, re.MULTILINE)
        lines = "\n".join(line for line in block.splitlines() if "#" not in line.lstrip()[:1])
        found[normalised(match[1])] = (lines, {normalised(parent) for parent in parents})
    return found


def closure(packages: dict[str, tuple[str, set[str]]], wanted: set[str]) -> set[str]:
    """Return `wanted` and everything that they need, directly or not."""
    grown = set(wanted)
    while True:
        more = {name for name, (_, parents) in packages.items() if parents & grown} - grown
        if not more:
            return grown
        grown |= more


def main(names: list[str]) -> None:
    """Print the lines; fail on a package that is not in the lock file."""
    packages = blocks(LOCK.read_text())
    wanted = {normalised(name) for name in names}
    unknown = wanted - packages.keys()
    if unknown:
        sys.exit(f"not in {LOCK.name}: {', '.join(sorted(unknown))}")
    # psycopg[binary] is locked as two packages; its binary half names it as "via psycopg".
    for name in sorted(closure(packages, wanted)):
        sys.stdout.write(packages[name][0] + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
