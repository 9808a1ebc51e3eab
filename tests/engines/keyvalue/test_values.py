"""Items are stored as they are sent."""

from __future__ import annotations

from engines.keyvalue.values import decode, encode, type_of


def test_an_item_is_stored_as_its_json() -> None:
    item = {"a": {"S": "\u20ac"}, "b": {"L": [{"BOOL": True}, {"NULL": True}]}}
    assert encode(item) == '{"a":{"S":"\u20ac"},"b":{"L":[{"BOOL":true},{"NULL":true}]}}'.encode()
    assert decode(encode(item)) == item


def test_type_of_a_value_is_its_descriptor() -> None:
    assert type_of({"NS": ["1"]}) == "NS"
