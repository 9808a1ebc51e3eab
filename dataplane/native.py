"""The hot modules and their compiled twins.

`make native` (deploy/native.py) compiles the modules listed here with mypyc, from the same source,
where a C compiler is at hand; Python then imports the extension instead of the file beside it.
Without it everything works the same, at about half the speed for each small request.

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

# What runs for each message between a client and a server, and for each connection until it may.
MODULES = (
    "dataplane.backend.fair_share",
    "dataplane.backend.pooled_sessions",
    "dataplane.backend.warm_sessions",
    "dataplane.limits.admission",
    "dataplane.limits.connections",
    "dataplane.observe.tally",
    "dataplane.routing.directory",
    "dataplane.routing.table",
    "dataplane.server.channel",
    "dataplane.server.forward",
    "dataplane.server.listener",
    "dataplane.server.pooled",
    "dataplane.server.ports",
    "dataplane.server.sessions",
    "dataplane.server.splice",
    "engines.inmemory.relay.duplex",
    "engines.inmemory.relay.tally",
    "engines.kit.auth.scram",
    "engines.relational.opening",
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
    "engines.relational.reply",
    "engines.relational.session",
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


def compiled() -> tuple[str, ...]:
    """Return the modules that have a compiled twin."""
    return tuple(module for module in MODULES if extension_path(module).exists())


def stale() -> tuple[str, ...]:
    """Return the compiled modules whose source has changed since."""
    try:
        known = json.loads(MANIFEST.read_text())
    except (OSError, ValueError):
        known = {}
    return tuple(module for module in compiled() if known.get(module) != digest(module))
