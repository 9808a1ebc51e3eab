"""Projections: parts of items, lists closed up, nothing made of what is not there."""

from __future__ import annotations

from typing import Any

import pytest

from engines.keyvalue.evaluate.projections import project
from engines.keyvalue.values import Item
from tests.engines.keyvalue.reading import reading

ITEM: Item = {
    "a": {"S": "A"},
    "d": {"N": "1"},
    "e": {"M": {"a": {"S": "EA"}, "d": {"NULL": True}, "x": {"M": {"y": {"S": "deep"}}}}},
    "f": {"L": [{"S": "0"}, {"S": "1"}, {"S": "2"}]},
    "g": {"L": [{"M": {"p": {"S": "gp"}, "q": {"S": "gq"}}}, {"S": "g1"}, {"L": [{"N": "5"}]}]},
    "ss": {"SS": ["x"]},
    "emptied": {"M": {}},
}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a", {"a": {"S": "A"}}),
        (
            "f[2], f[0], e.d, e.a, d",
            {
                "d": {"N": "1"},
                "e": {"M": {"a": {"S": "EA"}, "d": {"NULL": True}}},
                "f": {"L": [{"S": "0"}, {"S": "2"}]},
            },
        ),
        ("g[2][0], g[0].q", {"g": {"L": [{"M": {"q": {"S": "gq"}}}, {"L": [{"N": "5"}]}]}}),
        ("e.x.y", {"e": {"M": {"x": {"M": {"y": {"S": "deep"}}}}}}),
        ("e.x", {"e": {"M": {"x": {"M": {"y": {"S": "deep"}}}}}}),
        ("f", {"f": ITEM["f"]}),
        ("emptied", {"emptied": {"M": {}}}),
        ("absent, a", {"a": {"S": "A"}}),
        ("e.absent", {}),
        ("e.x.absent", {}),
        ("f[3], f[2147483647]", {}),
        ("f[3], f[1]", {"f": {"L": [{"S": "1"}]}}),
        ("g[1].p, g[0][0]", {}),
        ("a.b", {}),
        ("f.x", {}),
        ("e[0]", {}),
        ("ss[0]", {}),
    ],
)
def test_the_part_of_an_item(text: str, part: dict[str, Any]) -> None:
    projection = reading("Projection", text).projection
    assert projection is not None
    assert project(projection, ITEM) == part


def test_no_projection_is_all_of_the_item() -> None:
    assert project(None, ITEM) is ITEM
