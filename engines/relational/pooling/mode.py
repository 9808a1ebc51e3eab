"""Who shares the server's sessions: what the connection string says, else the port."""

from __future__ import annotations

import re

from engines.kit.errors import Reason, RequestError

# In `options` as a setting, as a long option or alone; and a startup parameter of its own, which is
# what some drivers make of a word in the URI that they do not know.
PARAMETER = "pool"
_OPTION = re.compile(r"(?:--|-c)?(?:weftkit\.)?pool=(.*)", re.S)
_MODES = {"transaction": True, "session": False}


def take(words: list[str], parameter: str | None) -> tuple[list[str], bool | None]:
    """Separate the word of `options` that names the mode from the others.

    Returns the others, and whether sessions are shared: None where nothing is said. Raises
    RequestError for a mode that does not exist, and for two that differ.
    """
    kept: list[str] = []
    said = [] if parameter is None else [parameter]
    for word in words:
        match = _OPTION.fullmatch(word)
        if match is None:
            kept.append(word)
            continue
        if kept and kept[-1] == "-c":
            kept.pop()
        said.append(match[1])
    for mode in said:
        if mode not in _MODES or mode != said[0]:
            raise RequestError(
                Reason.ADDRESS,
                f'invalid value for parameter "pool": "{mode}"',
                hint="The modes are transaction and session.",
                sqlstate="22023",
            )
    return kept, _MODES[said[0]] if said else None
