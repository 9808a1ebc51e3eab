"""The pages that are looked at: by axe-core, for their width, and for screenshots. Add yours.

An address is below `/t/acme/`; `{instance}` is the handle of a relational instance in service,
`{cache}` of an inmemory one. `seed` is called once before, for what must be there to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.tenants.cast import Cast

Seed = Callable[[Cast], None]


def nothing(cast: Cast) -> None:
    """Seed nothing more."""


@dataclass(frozen=True, slots=True)
class Look:
    """One page. `person` names who of the cast looks at it; `status` is what it answers."""

    name: str
    address: str
    person: str = "alice"
    status: int = 200
    seed: Seed = nothing

    def __str__(self) -> str:
        return self.name


PAGES = [
    Look("overview", ""),
    Look("not-found", "nowhere", status=404),
]
