"""Values to bytes whose byte order is the values' order, so that a plain b-tree sorts them.

    key = tag, then by kind:
    null     nothing
    boolean  00 false, 01 true
    number   8 bytes: the greatest double that is not above the value, sortable
             00 if that is the value itself, else 01 and the value in decimal (see `_decimal`)
    string   UTF-8, with 00 -> 01 01 and 01 -> 01 02, then 00
    bytes    as string
    date     8 bytes: milliseconds since 1970, biased
    object id  12 bytes
    array    the keys of its elements, then 00
    object   for each field: tag of the value, name as string, key of the value; then 00

No key is the beginning of another one (nothing but a terminator begins with 00, and a tag is
never 00), so keys can be put one after the other, and inverting all bytes of one inverts its
order: that is a descending component. Numbers of all kinds share one tag and compare by their
exact values: 2**53 < 2**53 + 1 as integers, Decimal("0.1") < 0.1 as a double.

Which tag a kind has, in which order, is each engine's own: `Tags`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from decimal import Decimal

from engines.kit.errors import LocalError, Reason, RequestError

# Decimal128 has 34 digits and DynamoDB's numbers 38. Exponents are those of Decimal128's digits.
DECIMAL_DIGITS_MAX = 38
DECIMAL_EXPONENT_MIN = -6176
DECIMAL_EXPONENT_MAX = 6144
# Digits as written, zeros at the end included; and bits of an integer. Both bound our own work.
WRITTEN_DIGITS_MAX = 1000
INTEGER_BITS_MAX = 1024

_DOUBLE = struct.Struct(">d")
_INT64 = struct.Struct(">Q")
_SIGN_BIT = 1 << 63
_ALL_BITS = (1 << 64) - 1
# Between these, integers that are no doubles are stored as their distance from one.
_DISTANCE_FROM = 2.0**53
_DISTANCE_TO = 2.0**64
_EXACT, _INEXACT = 0, 1
_EXPONENT_BIAS = 0x8000
_INVERT = bytes(255 - byte for byte in range(256))


@dataclass(frozen=True, slots=True)
class Date:
    """A moment in milliseconds since 1970, as BSON has it."""

    milliseconds: int


@dataclass(frozen=True, slots=True)
class ObjectId:
    """The 12 bytes of a BSON ObjectId."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Tags:
    """One engine's order of kinds: a byte from 1 to 254 for each, in any order."""

    null: int
    number: int
    string: int
    object: int
    array: int
    bytes: int
    object_id: int
    boolean: int
    date: int


@dataclass(slots=True)
class _Key:
    """A key that is being written."""

    out: bytearray
    depth: int = 0


class OrdKey:
    """An encoder with the tags of one engine.

    Args:
        tags: the order of kinds.
        nan_is_greatest: NaN after +infinity (Cypher) instead of before -infinity (BSON).
        depth_max: how deep arrays and objects may nest.
        key_bytes_max: how long a key may become.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        nan_is_greatest: bool = False,
        depth_max: int = 100,
        key_bytes_max: int = 16 * 2**20,
    ) -> None:
        values = astuple(tags)
        if len(set(values)) != len(values) or not all(1 <= tag <= 254 for tag in values):
            raise LocalError("tags are different bytes from 1 to 254")
        self._tags = tags
        self._nan = (_ALL_BITS if nan_is_greatest else 0).to_bytes(8) + bytes([_EXACT])
        self._depth_max = depth_max
        self._key_bytes_max = key_bytes_max
        self._writers: dict[type, tuple[int, Callable[[_Key, object], None]]] = {
            type(None): (tags.null, _write_nothing),
            bool: (tags.boolean, _write_boolean),
            int: (tags.number, _write_integer),
            float: (tags.number, self._write_double),
            Decimal: (tags.number, self._write_decimal),
            str: (tags.string, _write_string),
            bytes: (tags.bytes, _write_bytes),
            Date: (tags.date, _write_date),
            ObjectId: (tags.object_id, _write_object_id),
            list: (tags.array, self._write_array),
            tuple: (tags.array, self._write_array),
            dict: (tags.object, self._write_object),
        }

    def encode(self, value: object, *, descending: bool = False) -> bytes:
        """Return the key of one value.

        Values are None, bool, int, float, Decimal, str, bytes, Date, ObjectId, and lists, tuples
        and dictionaries of them.

        Raises RequestError: LIMIT (depth, length, digits), MALFORMED (a string with half a
        surrogate pair, a number or date out of range).
        """
        key = _Key(bytearray())
        self._write(key, value)
        return bytes(key.out).translate(_INVERT) if descending else bytes(key.out)

    def encode_all(self, values: Iterable[object], descending: Sequence[bool] = ()) -> bytes:
        """Return the key of several components, each ascending unless `descending` says so."""
        components = list(values)
        directions = [*descending] + [False] * (len(components) - len(descending))
        key = b"".join(
            self.encode(value, descending=is_descending)
            for value, is_descending in zip(components, directions, strict=True)
        )
        if len(key) > self._key_bytes_max:
            raise _too_long(self._key_bytes_max)
        return key

    def _write(self, key: _Key, value: object) -> None:
        writer = self._writers.get(type(value))
        if writer is None:
            raise LocalError(f"no order is defined for {type(value).__name__}")
        key.out.append(writer[0])
        writer[1](key, value)
        if len(key.out) > self._key_bytes_max:
            raise _too_long(self._key_bytes_max)

    def _write_double(self, key: _Key, value: object) -> None:
        assert isinstance(value, float)
        key.out += self._nan if math.isnan(value) else _sortable(value) + bytes([_EXACT])

    def _write_decimal(self, key: _Key, value: object) -> None:
        assert isinstance(value, Decimal)
        if not value.is_finite():
            self._write_double(key, math.nan if value.is_nan() else math.copysign(math.inf, value))
            return
        sign, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        if len(digits) > WRITTEN_DIGITS_MAX:
            raise _too_precise()
        coefficient = int("".join(map(str, digits)))
        if coefficient:
            # Before any power of ten is computed.
            adjusted = exponent + len(str(coefficient)) - 1
            if not (DECIMAL_EXPONENT_MIN <= adjusted <= DECIMAL_EXPONENT_MAX):
                raise _out_of_range()
        _write_number(key, -coefficient if sign else coefficient, exponent if coefficient else 0)

    def _write_array(self, key: _Key, value: object) -> None:
        assert isinstance(value, list | tuple)
        self._enter(key)
        for element in value:
            self._write(key, element)
        key.out.append(0)
        key.depth -= 1

    def _write_object(self, key: _Key, value: object) -> None:
        assert isinstance(value, Mapping)
        self._enter(key)
        for name, element in value.items():
            writer = self._writers.get(type(element))
            if writer is None:
                raise LocalError(f"no order is defined for {type(element).__name__}")
            key.out.append(writer[0])
            _write_string(key, name)
            self._write(key, element)
        key.out.append(0)
        key.depth -= 1

    def _enter(self, key: _Key) -> None:
        key.depth += 1
        if key.depth > self._depth_max:
            raise RequestError(Reason.LIMIT, f"nested deeper than {self._depth_max} levels")


def _write_nothing(key: _Key, value: object) -> None:
    """The tag says it all."""


def _write_boolean(key: _Key, value: object) -> None:
    key.out.append(1 if value else 0)


def _write_integer(key: _Key, value: object) -> None:
    assert isinstance(value, int)
    if -(2**53) <= value <= 2**53:
        key.out += _sortable(float(value))
        key.out.append(_EXACT)
    elif value.bit_length() > INTEGER_BITS_MAX:
        raise _out_of_range()
    else:
        _write_number(key, value, 0)


def _write_string(key: _Key, value: object) -> None:
    assert isinstance(value, str)
    try:
        _write_bytes(key, value.encode())
    except UnicodeEncodeError as error:
        raise RequestError(Reason.MALFORMED, "the string is not valid Unicode") from error


def _write_bytes(key: _Key, value: object) -> None:
    assert isinstance(value, bytes)
    if b"\x00" in value or b"\x01" in value:
        value = value.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    key.out += value
    key.out.append(0)


def _write_date(key: _Key, value: object) -> None:
    assert isinstance(value, Date)
    if not -(2**63) <= value.milliseconds < 2**63:
        raise RequestError(Reason.MALFORMED, "the date is out of range")
    key.out += _INT64.pack(value.milliseconds + _SIGN_BIT)


def _write_object_id(key: _Key, value: object) -> None:
    assert isinstance(value, ObjectId)
    if len(value.data) != 12:
        raise LocalError("an ObjectId has 12 bytes")
    key.out += value.data


def _write_number(key: _Key, coefficient: int, exponent: int) -> None:
    """Write coefficient * 10**exponent, whatever its size."""
    while coefficient and coefficient % 10 == 0:
        coefficient //= 10
        exponent += 1
    if len(str(abs(coefficient))) > DECIMAL_DIGITS_MAX:
        raise _too_precise()
    double, is_exact = _floor(coefficient, exponent)
    key.out += _sortable(double)
    key.out.append(_EXACT if is_exact else _INEXACT)
    if is_exact:
        return
    is_negative = coefficient < 0
    if _DISTANCE_FROM <= abs(double) < _DISTANCE_TO:
        # Large integers are common, and their distance from the double is a few digits.
        coefficient, exponent = _difference(coefficient, exponent, int(double))
        is_negative = False
    payload = _decimal(abs(coefficient), exponent)
    key.out += payload.translate(_INVERT) if is_negative else payload


def _floor(coefficient: int, exponent: int) -> tuple[float, bool]:
    """Return the greatest double not above the number, and whether it is the number."""
    double = float(f"{coefficient}e{exponent}")  # correctly rounded, infinite when too large
    difference = _compare(double, coefficient, exponent)
    if difference > 0:
        double = math.nextafter(double, -math.inf)
    return double, difference == 0


def _compare(double: float, coefficient: int, exponent: int) -> int:
    """Return the sign of double - coefficient * 10**exponent, exactly."""
    if math.isinf(double):
        return 1 if double > 0 else -1
    numerator, denominator = double.as_integer_ratio()
    left = numerator * 10**-exponent if exponent < 0 else numerator
    right = coefficient * denominator * (10**exponent if exponent > 0 else 1)
    return (left > right) - (left < right)


def _difference(coefficient: int, exponent: int, whole: int) -> tuple[int, int]:
    """Return coefficient * 10**exponent - whole as coefficient and exponent."""
    if exponent >= 0:
        return coefficient * 10**exponent - whole, 0
    return coefficient - whole * 10**-exponent, exponent


def _sortable(double: float) -> bytes:
    """Return 8 bytes that sort as doubles do; -0.0 is 0.0."""
    (bits,) = _INT64.unpack(_DOUBLE.pack(double + 0.0))
    return _INT64.pack(bits ^ (_ALL_BITS if bits & _SIGN_BIT else _SIGN_BIT))


def _decimal(coefficient: int, exponent: int) -> bytes:
    """Return bytes that sort as the positive number does.

    The number is 0.d1d2d3... * 100**e with digits in base 100 and d1 > 0: two bytes of biased e,
    a byte d + 1 for each digit, and 00.
    """
    digits = str(coefficient).rstrip("0")
    exponent += len(str(coefficient)) - len(digits)
    # The decimal point stands before the first digit, at a power of 100.
    point = len(digits) + exponent
    if point % 2:
        digits = "0" + digits
        point += 1
    if len(digits) % 2:
        digits += "0"
    pairs = bytes(int(digits[index : index + 2]) + 1 for index in range(0, len(digits), 2))
    return (point // 2 + _EXPONENT_BIAS).to_bytes(2) + pairs + b"\x00"


def _out_of_range() -> RequestError:
    return RequestError(Reason.MALFORMED, "the number is out of range")


def _too_precise() -> RequestError:
    return RequestError(Reason.LIMIT, f"more than {DECIMAL_DIGITS_MAX} significant digits")


def _too_long(key_bytes_max: int) -> RequestError:
    return RequestError(Reason.LIMIT, f"the key is longer than {key_bytes_max} bytes")
