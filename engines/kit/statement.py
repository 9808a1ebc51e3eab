"""One SQL statement: a text with `$1`, `$2` ... and the values for them, and nothing in between.

Values are only ever parameters. Names are only ever `Name`s, put into a template's `{placeholders}`
by `with_names`, always schema-qualified and always quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engines.kit.errors import LocalError

# PostgreSQL cuts longer names off silently (NAMEDATALEN).
NAME_BYTES_MAX = 63

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Statement:
    """What `sql.py` of an engine makes and a Store runs."""

    text: str
    params: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Name:
    """A table or an index, in its schema."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quote_name(self.schema)}.{quote_name(self.name)}"


def quote_name(name: str) -> str:
    """Return an identifier in double quotes; raises LocalError for one that cannot be one."""
    if not name or "\0" in name or len(name.encode()) > NAME_BYTES_MAX:
        raise LocalError(f"not a name for PostgreSQL: {name!r}")
    return '"' + name.replace('"', '""') + '"'


def with_names(template: str, names: dict[str, Name]) -> str:
    """Return the template with every `{placeholder}` replaced by the name that it stands for."""
    return _PLACEHOLDER.sub(lambda match: str(names[match[1]]), template)
