"""Commands as clients send them, and limits before buffers."""

from __future__ import annotations

import contextlib

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.inmemory import wire
from engines.kit.contract import Preamble

ARGUMENTS = st.lists(st.binary(max_size=50), min_size=1, max_size=8)


def test_the_first_byte_decides_on_tls() -> None:
    assert wire.preamble(b"\x16\x03\x01", True) == Preamble(tls=True)
    assert wire.preamble(b"\x16\x03\x01", False) == Preamble()
    assert wire.preamble(b"*1\r\n", True) == Preamble()


@given(ARGUMENTS, st.binary(max_size=10))
def test_what_is_encoded_is_read_back_and_what_follows_is_left(
    arguments: list[bytes], rest: bytes
) -> None:
    data = wire.encode_command(*arguments)
    assert data == hiredis.pack_command(tuple(arguments))
    assert wire.read_arguments(data + rest, 0) == (arguments, len(data))


@given(ARGUMENTS, st.data())
def test_a_part_of_a_command_is_no_command(arguments: list[bytes], data: st.DataObject) -> None:
    whole = wire.encode_command(*arguments)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert wire.read_arguments(whole[:cut], 0) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"PING", [b"PING"]),
        (b"  set  a\tb \r", [b"set", b"a", b"b"]),
        (b'set "a b" \'c "d"\'', [b"set", b"a b", b'c "d"']),
        (rb'echo "\x41\n\"\\" ' + rb"'it\'s \n'", [b"echo", b'A\n"\\', rb"it's \n"]),
        (b'echo ""', [b"echo", b""]),
        (b"", []),
        (b'a"b"', [b"ab"]),
    ],
)
def test_inline_words_are_split_as_redis_splits_them(line: bytes, words: list[bytes]) -> None:
    assert wire.split_inline(line) == words


@pytest.mark.parametrize("line", [b'"', b"'a", b'"a"b', b'a "b\\"', rb'"\x4"x'])
def test_unbalanced_quotes_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="unbalanced quotes"):
        wire.split_inline(line)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"*11\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1\rx$4\r\nPING\r\n", "invalid multibulk length"),
        (b"*99999999999999999999", "invalid multibulk length"),
        (b"*1\r\n+PING\r\n", r"expected '\$', got '\+'"),
        (b"*1\r\n$16385\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$4", None),
        (b"x" * (wire.INLINE_BYTES_MAX + 1), "too big inline request"),
        (b'AUTH "x\n', "unbalanced quotes"),
    ],
)
def test_limits_hold_before_anything_is_kept(data: bytes, message: str | None) -> None:
    if message is None:
        assert wire.read_arguments(data, 0) is None
        return
    with pytest.raises(wire.ProtocolError, match=message):
        wire.read_arguments(data, 0)


def test_an_empty_command_has_no_arguments() -> None:
    for data in (b"*0\r\n", b"*-1\r\n", b"\r\n"):
        assert wire.read_arguments(data, 0) == ([], len(data))


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_the_protocols_error(data: bytes) -> None:
    with contextlib.suppress(wire.ProtocolError):
        wire.read_arguments(data, 0)
