"""What one measurement is: two programs that do the same work over two paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """The outcome of one run: its rate, and how many requests it made in all."""

    per_second: float
    requests: int


@dataclass(frozen=True)
class Pair:
    """The same work directly at the instance's server and through the data plane."""

    name: str
    peer: str
    direct: Callable[[], Measured]
    through: Callable[[], Measured]
