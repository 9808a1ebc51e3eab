"""The order of keys against a comparator written from the rules, over all pairs of kinds."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.kit.errors import LocalError, Reason, RequestError
from engines.kit.ordkey import Date, ObjectId, OrdKey, Tags

# The order of BSON (MongoDB manual, "Comparison/Sort Order"), with gaps and shuffled bytes.
TAGS = Tags(
    null=3, number=10, string=20, object=30, array=40, bytes=50, object_id=60, boolean=70, date=80
)
KEYS = OrdKey(TAGS)
ORDER = ["null", "number", "string", "object", "array", "bytes", "object_id", "boolean", "date"]


def kind(value: object) -> int:
    names = {
        type(None): "null", int: "number", float: "number", Decimal: "number", str: "string",
        dict: "object", list: "array", tuple: "array", bytes: "bytes", ObjectId: "object_id",
        bool: "boolean", Date: "date",
    }  # fmt: skip
    return ORDER.index(names[type(value)])


def number(value: float | Decimal) -> tuple[int, Fraction]:
    """Rank NaN, -infinity, finite numbers by their exact value, +infinity."""
    is_decimal = isinstance(value, Decimal)
    if value.is_nan() if is_decimal else math.isnan(value):  # type: ignore[union-attr]
        return 0, Fraction(0)
    # math.isinf would call a decimal infinite that is only too large for a double.
    if value.is_infinite() if is_decimal else math.isinf(value):  # type: ignore[union-attr]
        return (3 if value > 0 else 1), Fraction(0)
    return 2, Fraction(value)


def sign(left: object, right: object) -> int:
    return (left > right) - (left < right)  # type: ignore[operator]


def compare_all(left: list[object], right: list[object]) -> int:
    for one, other in zip(left, right, strict=False):
        if result := compare(one, other):
            return result
    return sign(len(left), len(right))


def compare_objects(left: dict[str, object], right: dict[str, object]) -> int:
    for (name, one), (other_name, other) in zip(left.items(), right.items(), strict=False):
        result = sign(kind(one), kind(other)) or sign(list(name), list(other_name))
        if result := result or compare(one, other):
            return result
    return sign(len(left), len(right))


def compare(left: object, right: object) -> int:
    """Say how two values compare, by the rules and not by bytes."""
    if result := sign(kind(left), kind(right)):
        return result
    match ORDER[kind(left)]:
        case "null":
            return 0
        case "number":
            return sign(number(left), number(right))  # type: ignore[arg-type]
        case "array":
            return compare_all(list(left), list(right))  # type: ignore[call-overload]
        case "object":
            return compare_objects(left, right)  # type: ignore[arg-type]
        case "date":
            return sign(left.milliseconds, right.milliseconds)  # type: ignore[attr-defined]
        case "object_id":
            return sign(left.data, right.data)  # type: ignore[attr-defined]
        case "string":
            # Code point by code point.
            return sign([ord(c) for c in left], [ord(c) for c in right])  # type: ignore[attr-defined]
        case _:
            return sign(left, right)


def check(left: object, right: object) -> None:
    expected = compare(left, right)
    one, other = KEYS.encode(left), KEYS.encode(right)
    assert sign(one, other) == expected, (left, right)
    down, other_down = KEYS.encode(left, descending=True), KEYS.encode(right, descending=True)
    assert sign(down, other_down) == -expected, (left, right)
    if expected:
        # Prefix-free: then components can follow each other, in any mixture of directions.
        assert not one.startswith(other)
        assert not other.startswith(one)


def neighbours(value: float) -> list[float]:
    return [math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)]


AWKWARD_DECIMALS = """
    0.1 -0.1 0.10 1E-1 0.1000000000000000055511151231257827 0.5 1 1.0 1E+2 100 99 0.99 0.099
    0.0099 10 0.01 9.9 123456789.987654321 -123456789.987654321 9007199254740992
    9007199254740992.5 9007199254740993 -9007199254740992.5 -9007199254740993
    -9007199254740991.5 9007199254740991.5 9223372036854775807 9223372036854775807.5
    18446744073709551615.1 18446744073709551616 18446744073709551617 -18446744073709551617
    1E-6176 -1E-6176 1E+6144 1E+6143 9.999999999999999999999999999999999E+6144
    -9.999999999999999999999999999999999E+6144 1E+309 -1E+309 1.7976931348623157E+308
    1.7976931348623158E+308 2E-324 5E-324 4.9406564584124654E-324 -3E-324 1E-400
    1.234567890123456789E+250 -1.234567890123456789E+250
    12345678901234567890123456789012345678 1.00000000000000000000000000000000001
"""
ADVERSARIAL: list[float | Decimal] = [
    *(sign * 2**power + delta for sign in (1, -1) for power in (52, 53, 54, 62, 63, 64)
      for delta in (-2, -1, 0, 1, 2)),
    *(each for value in (0.1, -0.1, 1.0, 2.0**53, -(2.0**53), 2.0**63, -(2.0**63), 2.0**64, 1e300)
      for each in neighbours(value)),
    0, 1, -1, 0.0, -0.0, Decimal("0"), Decimal("-0"), Decimal("0E+6000"), Decimal("-0E-6000"),
    math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"),
    Decimal("-Infinity"),
    5e-324, -5e-324, sys.float_info.min, math.nextafter(sys.float_info.min, 0), -2.5e-320,
    sys.float_info.max, -sys.float_info.max,
    *map(Decimal, AWKWARD_DECIMALS.split()),
]  # fmt: skip


def test_every_pair_of_awkward_numbers_is_in_order() -> None:
    for left, right in itertools.combinations_with_replacement(ADVERSARIAL, 2):
        check(left, right)


def test_equal_numbers_have_one_key_whatever_their_kind() -> None:
    same = [
        (1, 1.0, Decimal("1"), Decimal("1.000"), Decimal("0.01E+2")),
        (0, 0.0, -0.0, Decimal("-0"), Decimal("0E+99")),
        (2**63, 2.0**63, Decimal(2**63)),
        (2**53 + 1, Decimal("9007199254740993.0")),
        (math.inf, Decimal("Infinity")),
        (math.nan, -math.nan, Decimal("NaN"), Decimal("sNaN")),
        (10**30, Decimal("1E+30")),
    ]
    for numbers in same:
        assert len({KEYS.encode(number) for number in numbers}) == 1, numbers


def test_keys_have_the_documented_bytes() -> None:
    assert KEYS.encode(None).hex() == "03"
    assert KEYS.encode(True).hex() == "4601"
    assert KEYS.encode(1).hex() == "0abff000000000000000"
    assert KEYS.encode(2**53 + 1).hex() == "0a" + "c340000000000000" + "01" + "8001" + "02" + "00"
    assert KEYS.encode("a\0\1b").hex() == "14" + "61" + "0101" + "0102" + "62" + "00"
    assert KEYS.encode(Date(0)).hex() == "50" + "8000000000000000"
    assert KEYS.encode([None, []]).hex() == "28" + "03" + "2800" + "00"
    assert KEYS.encode({"a": None}).hex() == "1e" + "03" + "6100" + "03" + "00"
    assert KEYS.encode("a", descending=True).hex() == "eb9eff"


decimals = st.builds(
    lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=34).map(tuple),
    st.one_of(st.integers(-40, 10), st.integers(-6176, 6111)),
)
near_doubles = st.builds(
    # A double's exact value, cut to 34 digits and moved by its last digit.
    lambda value, delta: Decimal(f"{value:.33e}") + Decimal(delta) * Decimal(f"1e{_last(value)}"),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-1, 1),
).filter(lambda value: len(value.normalize().as_tuple().digits) <= 34)


def _last(value: float) -> int:
    return int(f"{value:.33e}".split("e")[1]) - 33


integers = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(2**53 - 9, 2**53 + 9), st.integers(-99, 99)
)
numbers = st.one_of(integers, st.floats(), decimals, near_doubles)
texts = st.text(alphabet=st.sampled_from("\0\1\2a\x7f\u0080é\u07ff\u0800\uffff\U00010000"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    texts,
    st.text(max_size=5),
    st.binary(max_size=5),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.integers(-(2**63), 2**63 - 1).map(Date),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(texts | st.just("a"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(numbers, numbers)
@example(Decimal("0.1"), 0.1)
def test_any_two_numbers_are_in_order(left: object, right: object) -> None:
    check(left, right)


@given(st.data())
def test_a_number_and_its_nearest_double_are_in_order(data: st.DataObject) -> None:
    exact = data.draw(st.one_of(integers, decimals))
    for double in neighbours(float(f"{exact:f}" if isinstance(exact, Decimal) else exact)):
        check(exact, double)
        for step in (Decimal("1E-6176"), Decimal(1)):
            if isinstance(exact, int):
                check(exact + int(step), double)


@given(values, values)
def test_any_two_values_are_in_order(left: object, right: object) -> None:
    check(left, right)


@given(texts, texts, st.binary(max_size=4), st.binary(max_size=4))
def test_strings_and_bytes_with_zeros_and_ones_are_in_order(
    text: str, other_text: str, data: bytes, other_data: bytes
) -> None:
    check(text, other_text)
    check(text, text + other_text)
    check(data, other_data)
    check(data, data + b"\0" + other_data)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=3), st.data())
def test_components_compare_one_after_the_other_each_in_its_direction(
    pairs: list[tuple[object, object]], data: st.DataObject
) -> None:
    directions = data.draw(st.lists(st.booleans(), max_size=len(pairs)))
    expected = 0
    for position, (left, right) in enumerate(pairs):
        is_descending = position < len(directions) and directions[position]
        expected = expected or compare(left, right) * (-1 if is_descending else 1)
    one = KEYS.encode_all([left for left, _ in pairs], directions)
    other = KEYS.encode_all([right for _, right in pairs], directions)
    assert sign(one, other) == expected


@given(st.lists(values, max_size=12))
def test_sorting_keys_sorts_values(items: list[object]) -> None:
    by_key = sorted(items, key=KEYS.encode)
    by_rule = sorted(items, key=functools.cmp_to_key(compare))
    assert [KEYS.encode(item) for item in by_key] == [KEYS.encode(item) for item in by_rule]


def test_every_pair_of_kinds_follows_the_tags_of_the_engine() -> None:
    samples = [None, 1, "a", {}, [], b"", ObjectId(bytes(12)), False, Date(0)]
    reverse = Tags(*[100 - tag for tag in (3, 10, 20, 30, 40, 50, 60, 70, 80)])
    for tags, factor in ((TAGS, 1), (reverse, -1)):
        keys = OrdKey(tags)
        for left, right in itertools.combinations(samples, 2):
            assert sign(keys.encode(left), keys.encode(right)) == -factor


def test_nan_can_be_the_greatest_number() -> None:
    cypher = OrdKey(TAGS, nan_is_greatest=True)
    assert KEYS.encode(math.nan) < KEYS.encode(-math.inf)
    assert cypher.encode(math.inf) < cypher.encode(math.nan) < cypher.encode("")


def test_no_number_has_a_long_key_and_large_integers_stay_short() -> None:
    assert max(len(KEYS.encode(value)) for value in ADVERSARIAL) <= 33
    assert len(KEYS.encode(2**53)) == 10
    assert max(len(KEYS.encode(2**62 + delta)) for delta in range(2000)) <= 15
    assert len(KEYS.encode(Decimal("0.1"))) <= 15


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\ud800", Reason.MALFORMED),
        (10**39 + 1, Reason.LIMIT),
        (Decimal("1." + "1" * 38), Reason.LIMIT),
        (Decimal("1" + "0" * 1000), Reason.LIMIT),
        (2**1024, Reason.MALFORMED),
        (Decimal("1E+6145"), Reason.MALFORMED),
        (Decimal("1E-6177"), Reason.MALFORMED),
        (Decimal("1E+999999"), Reason.MALFORMED),
        (Date(2**63), Reason.MALFORMED),
    ],
    ids=range(9),
)
def test_what_has_no_place_in_the_order_is_refused(value: object, reason: Reason) -> None:
    with pytest.raises(RequestError) as caught:
        KEYS.encode(value)
    assert caught.value.reason is reason


def test_depth_and_length_are_bound() -> None:
    nested: object = None
    for _ in range(100):
        nested = [nested]
    assert KEYS.encode(nested)
    small = OrdKey(TAGS, key_bytes_max=10)
    assert small.encode("x" * 8)
    too_much = [
        lambda: KEYS.encode([nested]),
        lambda: KEYS.encode({"a": nested}),
        lambda: small.encode("x" * 9),
        lambda: small.encode([None] * 20),
        lambda: small.encode_all(["x" * 4, "x" * 4]),
    ]
    for action in too_much:
        with pytest.raises(RequestError) as caught:
            action()
        assert caught.value.reason is Reason.LIMIT


def test_wrong_use_is_our_own_fault() -> None:
    for action in (
        lambda: KEYS.encode({1, 2}),
        lambda: KEYS.encode({"a": 1j}),
        lambda: KEYS.encode(ObjectId(b"short")),
        lambda: OrdKey(Tags(1, 1, 2, 3, 4, 5, 6, 7, 8)),
        lambda: OrdKey(Tags(0, 1, 2, 3, 4, 5, 6, 7, 8)),
        lambda: OrdKey(Tags(255, 1, 2, 3, 4, 5, 6, 7, 8)),
    ):
        with pytest.raises(LocalError):
            action()
