"""Sizes as the function `size` gives them."""

from __future__ import annotations

from typing import Any

import pytest

from engines.keyvalue.evaluate.comparing import size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"S": ""}, 0), ({"S": "abc"}, 3), ({"S": "ab\u00ff"}, 3), ({"S": "\U0001f600"}, 2),
        ({"B": "YWJj"}, 3), ({"B": "YQ=="}, 1), ({"SS": ["\u00ff", "b"]}, 2), ({"NS": ["10"]}, 1),
        ({"L": [{"S": "a"}] * 3}, 3), ({"M": {"a": {"S": "abc"}}}, 1), ({"N": "123"}, None),
        ({"BOOL": True}, None), ({"NULL": True}, None),
    ],
)  # fmt: skip
def test_a_string_has_characters_and_a_document_elements(
    value: dict[str, Any], expected: int | None
) -> None:
    assert size(value) == expected
