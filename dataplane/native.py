"""The hot modules and their compiled twins.

`make native` (deploy/native.py) compiles the modules listed here with mypyc, from the same source,
where a C compiler is at hand; Python then imports the extension instead of the file beside it.
Without it everything works the same, for more CPU time a request.

A compiled module that is older than its source would run yesterday's code, so whoever starts the
data plane or the tests asks `stale` first.
"""

from __future__ import annotations

import hashlib
import json
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What was compiled: module -> digest of its source then.
MANIFEST = ROOT / "engines" / "native.json"
# What the extensions share, so that they call each other without going through Python.
LIBRARY = ROOT / "engines" / f"native__mypyc{EXTENSION_SUFFIXES[0]}"

# What runs for each message between a client and a server, and for each request of `keyvalue` that
# reads or writes items (a quarter less CPU time). What runs once a connection gains 4 % by it, and
# would double the time that compiling takes.
MODULES = (
    "dataplane.backend.pool",
    "dataplane.backend.pooled_sessions",
    "dataplane.backend.store",
    "dataplane.limits.admission",
    "dataplane.server.pooled",
    "dataplane.server.splice",
    "dataplane.server.web.answers",
    "dataplane.server.web.connection",
    "dataplane.server.web.framing",
    "engines.inmemory.relay.duplex",
    "engines.inmemory.relay.tally",
    "engines.keyvalue.http.answers",
    "engines.keyvalue.http.border",
    "engines.keyvalue.http.signed",
    "engines.keyvalue.parse.attribute_values",
    "engines.keyvalue.parse.json_types",
    "engines.keyvalue.parse.operations.steps",
    "engines.keyvalue.parse.requests",
    "engines.keyvalue.parse.shapes",
    "engines.keyvalue.plan.checks",
    "engines.keyvalue.plan.keys",
    "engines.keyvalue.plan.rows",
    "engines.keyvalue.session.context",
    "engines.keyvalue.session.items",
    "engines.keyvalue.session.service",
    "engines.keyvalue.session.writing",
    "engines.kit.auth.sigv4",
    "engines.kit.http.whole",
    "engines.relational.parse",
    "engines.relational.pooling.effects",
    "engines.relational.pooling.expected",
    "engines.relational.pooling.multiplexer",
    "engines.relational.pooling.requests",
    "engines.relational.pooling.server",
    "engines.relational.pooling.settings",
    "engines.relational.pooling.statements",
    "engines.relational.relay.duplex",
    "engines.relational.relay.kinds",
    "engines.relational.relay.names",
    "engines.relational.relay.segment",
    "engines.relational.wire",
)


def source_path(module: str) -> Path:
    """Return the file that holds a module."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def extension_path(module: str) -> Path:
    """Return where the module's compiled twin lies, if it has one."""
    return ROOT.joinpath(*module.split(".")).with_suffix(EXTENSION_SUFFIXES[0])


def digest(module: str) -> str:
    """Return what tells one version of a module's source from another."""
    return hashlib.sha256(source_path(module).read_bytes()).hexdigest()


def extensions() -> tuple[Path, ...]:
    """Return every extension in the packages, also of a module that is not listed any more."""
    return tuple(
        sorted(
            path
            for package in ("dataplane", "engines")
            for path in (ROOT / package).rglob(f"*{EXTENSION_SUFFIXES[0]}")
        )
    )


def compiled() -> tuple[str, ...]:
    """Return the modules that have a compiled twin."""
    found = (path.relative_to(ROOT).as_posix() for path in extensions() if path != LIBRARY)
    return tuple(name.removesuffix(EXTENSION_SUFFIXES[0]).replace("/", ".") for name in found)


def stale() -> tuple[str, ...]:
    """Return the compiled modules whose source has changed since, or that are none any more."""
    try:
        known = json.loads(MANIFEST.read_text())
    except (OSError, ValueError):
        known = {}
    return tuple(
        module
        for module in compiled()
        if module not in MODULES or known.get(module) != digest(module)
    )
