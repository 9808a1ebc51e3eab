"""The parts of an item that are asked for.

    f[2], f[0], e.d  of  {"e": {"M": {"d": D, "x": X}}, "f": {"L": [F0, F1, F2]}}
    is  {"e": {"M": {"d": D}}, "f": {"L": [F0, F2]}}

Elements of lists keep their order and close up. What is not there is left out, and so is a document
of which nothing is there.
"""

from __future__ import annotations

from typing import Any

from engines.keyvalue.parse.expressions.trees import Branch, Projection
from engines.keyvalue.values import AttributeValue, Item


def project(projection: Projection | None, item: Item) -> Item:
    """Return the part of an item that a projection asks for; all of it if that is None."""
    if projection is None:
        return item
    return project_branch(projection.branch, item)


def project_branch(branch: Branch, item: Item) -> Item:
    """Return the part of an item that the tree of some paths covers."""
    found: Item = {}
    for name, child in branch.children.items():
        value = item.get(name)  # type: ignore[arg-type]
        if value is not None:
            part = value if isinstance(child, int) else _part(child, value)
            if part is not None:
                found[name] = part  # type: ignore[index]
    return found


def _part(branch: Branch, value: AttributeValue) -> AttributeValue | None:
    """Return what a document has of the paths below it, or None if it has nothing of them."""
    members = value.get("M")
    if members is not None:
        found = project_branch(branch, members)
        return {"M": found} if found else None
    elements: list[Any] | None = value.get("L")
    if elements is None:
        return None
    parts: list[AttributeValue] = []
    for index, child in sorted(
        (part, child) for part, child in branch.children.items() if isinstance(part, int)
    ):
        if index < len(elements):
            element = elements[index]
            part = element if isinstance(child, int) else _part(child, element)
            if part is not None:
                parts.append(part)
    return {"L": parts} if parts else None
