"""On which line of a TOML text a table or a key stands; the standard parser does not say.

Runs only over text that the standard parser has accepted, so that it may be simple: it walks over
the lines, and over the brackets and strings of each value, and reads no value.

A path is what the parsed document is indexed with: ("auth", "users", 0, "username").
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_HEADER = re.compile(r"[ \t]*(\[\[?)([^\]#\n]+)\]\]?")
_KEY = re.compile(r"""[ \t]*((?:[A-Za-z0-9_\-]+|"[^"\n]*"|'[^'\n]*'|[ \t]*\.[ \t]*)+)[ \t]*=""")
_PART = re.compile(r"""[A-Za-z0-9_\-]+|"[^"]*"|'[^']*'""")
# What moves the scanner inside a value: strings, comments, brackets, line ends.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*|[\[\]{}\n]",
    re.DOTALL,
)


def positions(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of each table and key of a valid TOML text."""
    found: dict[Path, int] = {(): 1}
    table: Path = ()
    counts: dict[Path, int] = {}
    offset = 0
    line = 1
    while offset < len(text):
        header = _HEADER.match(text, offset)
        key = None if header else _KEY.match(text, offset)
        if header:
            table = _path(header[2], counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
            found.setdefault(table, line)
        elif key:
            found.setdefault((*table, *_path(key[1], {})), line)
        match = header or key
        end = _line_end(text, match.end() if match else offset)
        line += text.count("\n", offset, end)
        offset = end
    return found


def line_of(found: dict[Path, int], path: Path) -> int:
    """Return the line of `path`, or of the nearest table around it that has one."""
    while path not in found:
        path = path[:-1]
    return found[path]


def _path(text: str, counts: dict[Path, int]) -> Path:
    """Split a dotted key; a part that names an array of tables means its latest element."""
    path: Path = ()
    parts = _PART.findall(text)
    for position, part in enumerate(parts):
        path = (*path, part.strip("\"'"))
        if path in counts and position < len(parts) - 1:
            path = (*path, counts[path] - 1)
    return path


def _line_end(text: str, offset: int) -> int:
    """Return the offset behind the line on which the value that starts at `offset` ends."""
    depth = 0
    for token in _TOKEN.finditer(text, offset):
        if token[0] == "\n" and depth == 0:
            return token.end()
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
    return len(text)
