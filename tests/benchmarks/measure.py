"""What one measurement is: two programs that do the same work over two paths."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.stack import Stack


@dataclass(frozen=True)
class Measured:
    """The outcome of one run: its rate, and how many requests it made in all."""

    per_second: float
    requests: int


@dataclass(frozen=True)
class Pair:
    """The same work over a peer's path and through the data plane."""

    name: str
    peer: str
    other: Callable[[], Measured]
    through: Callable[[], Measured]


# Sets the peer up for (stack, seconds); None where the peer is not installed.
Measurement = Callable[[Stack, int], AbstractContextManager[Pair | None]]
