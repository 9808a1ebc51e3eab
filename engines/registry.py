"""Every engine there is, by name: the one line that an engine adds outside of its own folder.

Both planes reach an engine only through `load(name)`; nothing imports `engines.<name>` directly, so
that a plane pays only for the engines it uses.
"""

from __future__ import annotations

import functools
import importlib

from engines.kit.contract import EngineSpec

# Alphabetical; `tests/tidy` compares it with the folders.
MODULES: dict[str, str] = {
    "inmemory": "engines.inmemory.engine",
    "keyvalue": "engines.keyvalue.engine",
    "relational": "engines.relational.engine",
}


class UnknownEngineError(LookupError):
    """No engine has this name."""


def names() -> tuple[str, ...]:
    """Return the names of all engines, in alphabetical order."""
    return tuple(MODULES)


@functools.cache
def load(name: str) -> EngineSpec:
    """Return the declaration of the engine `name`.

    Raises UnknownEngineError (a LookupError) for a name that is not registered.
    """
    if name not in MODULES:
        raise UnknownEngineError(f"no engine is called '{name}'; there are: {', '.join(MODULES)}")
    spec = importlib.import_module(MODULES[name]).ENGINE
    assert isinstance(spec, EngineSpec), f"{MODULES[name]}.ENGINE is no EngineSpec"
    return spec
