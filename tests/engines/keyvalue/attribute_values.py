"""hypothesis strategies of attribute values as clients send them: numbers in all their texts."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

_digits = st.text("0123456789", min_size=1, max_size=30)

# Texts of numbers in range: at most 38 digits, and an exponent that keeps the magnitude.
number_texts = st.builds(
    "{}{}.{}e{}".format,
    st.sampled_from(["", "-", "+"]),
    _digits,
    st.text("0123456789", max_size=8),
    st.integers(-90, 90),
)
binary_texts = st.binary(max_size=24).map(lambda raw: base64.b64encode(raw).decode())
# Lone surrogates have no UTF-8 and cannot arrive.
strings = st.text(st.characters(codec="utf-8"), max_size=24)


def scalars() -> st.SearchStrategy[dict[str, Any]]:
    """Values without values in them."""
    return st.one_of(
        st.builds(lambda text: {"S": text}, strings),
        st.builds(lambda text: {"N": text}, number_texts),
        st.builds(lambda text: {"B": text}, binary_texts),
        st.builds(lambda flag: {"BOOL": flag}, st.booleans()),
        st.just({"NULL": True}),
        st.builds(lambda texts: {"SS": sorted(texts)}, st.sets(strings, min_size=1, max_size=4)),
        st.builds(
            lambda texts: {"BS": sorted(texts)}, st.sets(binary_texts, min_size=1, max_size=4)
        ),
        st.builds(
            lambda numbers: {"NS": [str(number) for number in sorted(numbers)]},
            st.sets(st.integers(-(10**20), 10**20), min_size=1, max_size=4),
        ),
    )


def attribute_values() -> st.SearchStrategy[dict[str, Any]]:
    """Valid values of every type, nested a little."""
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            st.builds(lambda values: {"L": values}, st.lists(inner, max_size=4)),
            st.builds(lambda values: {"M": values}, st.dictionaries(strings, inner, max_size=4)),
        ),
        max_leaves=12,
    )
