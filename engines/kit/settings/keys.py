"""What one key of weftkit.toml may hold: a kind reads a TOML value and says what is wrong with it.

A kind is attached to a field of a section (`schema`) as metadata, next to the default, so that a
key is declared in one place. `read` raises ValueError with a message that never shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

PORT_MAX = 65_535
INT64_MAX = 2**63 - 1
TEXT_CHARACTERS_MAX = 4096

_SIZE = re.compile(r"(\d{1,18})\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
# The specification's "4294967296 # 4 GB" makes GB a binary unit; both spellings mean the same.
_SIZE_FACTORS: Mapping[str | None, int] = {
    None: 1, "B": 1,
    "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


class Kind(Protocol):
    """Reads the TOML value of one key."""

    def read(self, value: object) -> object:
        """Return the typed value; raises ValueError."""
        ...

    def read_text(self, text: str) -> object:
        """Return the typed value of an environment variable's text; raises ValueError."""
        ...


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: object) -> bool:
        """See `Kind`."""
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {_name(value)}")
        return value

    def read_text(self, text: str) -> bool:
        """See `Kind`."""
        if text not in ("true", "false"):
            raise ValueError("must be true or false")
        return text == "true"


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number in a range."""

    low: int
    high: int

    def read(self, value: object) -> int:
        """See `Kind`."""
        # bool is an int to Python; to TOML it is not.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be an integer, not {_name(value)}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self.low} to {self.high}, not {value}")
        return value

    def read_text(self, text: str) -> int:
        """See `Kind`."""
        if not re.fullmatch(r"-?[0-9]{1,19}", text):
            raise ValueError("must be an integer")
        return self.read(int(text))


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes: an integer, or text such as "100GB"."""

    low: int = 1

    def read(self, value: object) -> int:
        """See `Kind`."""
        if isinstance(value, str):
            return self.read_text(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f'must be a size such as 1048576 or "100GB", not {_name(value)}')
        if not self.low <= value <= INT64_MAX:
            raise ValueError(f"must be at least {self.low} bytes, not {value}")
        return value

    def read_text(self, text: str) -> int:
        """See `Kind`."""
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(f"must be a size such as 1048576 or \"100GB\", not '{text}'")
        return self.read(int(match[1]) * _SIZE_FACTORS[match[2]])


@dataclass(frozen=True, slots=True)
class Text:
    """A string: one of `choices` if there are any, or matching `pattern` (`form` in words)."""

    choices: tuple[str, ...] = ()
    pattern: str = ""
    form: str = ""
    is_secret: bool = False
    bytes_min: int = 1

    def read(self, value: object) -> str:
        """See `Kind`."""
        if not isinstance(value, str):
            raise ValueError(f"must be a string, not {_name(value)}")
        return self.read_text(value)

    def read_text(self, text: str) -> str:
        """See `Kind`."""
        if self.choices and text not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}, not '{text}'")
        size = len(text.encode())
        if size < self.bytes_min:
            raise ValueError(
                "must not be empty" if size == 0 else f"must have at least {self.bytes_min} bytes"
            )
        if len(text) > TEXT_CHARACTERS_MAX or "\0" in text:
            raise ValueError(f"must be text of at most {TEXT_CHARACTERS_MAX} characters")
        if self.pattern and not re.fullmatch(self.pattern, text):
            shown = "" if self.is_secret else f", not '{text}'"
            raise ValueError(f"must be {self.form}{shown}")
        return text


@dataclass(frozen=True, slots=True)
class Texts:
    """An array of strings, each as `item` says, none twice."""

    item: Text
    count_min: int = 0

    def read(self, value: object) -> tuple[str, ...]:
        """See `Kind`."""
        if not isinstance(value, list):
            raise ValueError(f"must be an array of strings, not {_name(value)}")
        items = tuple(self.item.read(each) for each in value)
        if len(set(items)) != len(items):
            raise ValueError("must not name the same twice")
        if len(items) < self.count_min:
            raise ValueError("must not be empty")
        return items

    def read_text(self, text: str) -> tuple[str, ...]:
        """See `Kind`; the environment separates with commas."""
        return self.read([part.strip() for part in text.split(",")])


def key(kind: Kind, default: object) -> Any:
    """Declare a key with its kind and its default."""
    return field(default=default, metadata={"kind": kind}, repr=_is_shown(kind))


def required_key(kind: Kind) -> Any:
    """Declare a key that has no default, or one that depends on the section."""
    return field(metadata={"kind": kind}, repr=_is_shown(kind))


def _is_shown(kind: Kind) -> bool:
    # Settings end up in logs and tracebacks.
    return not (isinstance(kind, Text) and kind.is_secret)


def _name(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
    names |= {list: "an array", dict: "a table"}
    return names.get(type(value), "a date or time")
