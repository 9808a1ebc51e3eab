"""Counting whole commands: the scanner, hiredis and the reader of single commands agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.inmemory import wire
from engines.inmemory.parse import IS_TRACKED, kind_of
from engines.inmemory.relay import tally, tally_plain
from engines.inmemory.wire import encode_command
from engines.kit.ports import RequestClass

NAMES = [b"GET", b"set", b"SCAN", b"ping", b"nosuch", b"HeLLo", b"MULTI", b"exec", b"", b"n" * 128]
ARGUMENTS = st.lists(st.binary(max_size=40) | st.just(b"\r\n*1\r\n$4\r\nPING\r\n"), max_size=5)
COMMANDS = st.builds(
    lambda name, arguments: encode_command(name, *arguments), st.sampled_from(NAMES), ARGUMENTS
)
PLAIN_COMMANDS = st.builds(
    lambda name, arguments: encode_command(name, *arguments), st.sampled_from(NAMES[:5]), ARGUMENTS
)
TRANSACTIONS = st.lists(PLAIN_COMMANDS, max_size=4).map(
    lambda inside: b"".join([encode_command(b"multi"), *inside, encode_command(b"EXEC")])
)
ODDITIES = st.sampled_from(
    [b"*0\r\n", b"*-1\r\n", b"*1\r\n", b"*01\r\n$4\r\nPING\r\n", b"*+1\r\n$4\r\nPING\r\n",
     b"$-1\r\n", b"$3\r\nGET\r\n", b"*1\r\n$04\r\nPING\r\n", b"*2\r\n$3\r\nGET\r\n$-1\r\n",
     b"*1\r$4\r\nPING\r\n", b"*1\r\n:1\r\n", b"*1\r\n*1\r\n$3\r\nGET\r\n", b"PING\r\n",
     b"*99999999999999999999\r\n", b"*1\r\n$99999999999999999999\r\n", b">1\r\n$4\r\nPING\r\n",
     b"\r\n"]
)  # fmt: skip

Counter = Callable[[bytes, list[int]], int]
NOTHING = (0, [0, 0, 0, 0])


def counted(count: Counter, data: bytes) -> tuple[int, list[int]]:
    units = [0] * len(RequestClass)
    return count(data, units), units


def expected(data: bytes) -> tuple[int, list[int]]:
    """Count as `tally` shall, command by command, with the reader that the sign-in uses."""
    units = [0] * len(RequestClass)
    position = 0
    open_at, open_units = -1, list(units)
    while data[position : position + 1] == b"*":
        try:
            read = wire.read_arguments(data, position, 100, 10_000)
        except wire.ProtocolError:
            break
        if read is None or not read[0]:
            break
        (name, *rest), end = read
        if name.upper() == b"MULTI" and not rest and open_at < 0:
            open_at, open_units = position, list(units)
            units[RequestClass.UNLIMITED] += 1
        elif name.upper() == b"EXEC" and not rest and open_at >= 0:
            open_at = -1
            units[RequestClass.UNLIMITED] += 1
        elif kind_of(name) < len(RequestClass):
            units[kind_of(name)] += 1
        else:
            break
        position = end
    return (position, units) if open_at < 0 else (open_at, open_units)


@given(st.lists(COMMANDS | ODDITIES | st.binary(max_size=9), max_size=8).map(b"".join), st.data())
def test_the_scanner_counts_what_the_reader_of_single_commands_reads(
    stream: bytes, data: st.DataObject
) -> None:
    chunk = stream[: data.draw(st.integers(0, len(stream)))]
    assert counted(tally.count_commands, chunk) == expected(chunk)


@given(st.lists(PLAIN_COMMANDS | TRANSACTIONS, max_size=8).map(b"".join), st.data())
def test_hiredis_counts_what_the_scanner_does_or_declines(
    stream: bytes, data: st.DataObject
) -> None:
    by_scanner = counted(tally.count_commands, stream)
    assert by_scanner[0] == len(stream)
    # Bytes that look like RESP3 make it decline.
    assert counted(tally_plain.count_commands, stream) in (by_scanner, NOTHING)
    part = stream[: data.draw(st.integers(0, len(stream)))]
    assert counted(tally_plain.count_commands, part) in (
        counted(tally.count_commands, part),
        NOTHING,
    )


@pytest.mark.parametrize("count", [tally.count_commands, tally_plain.count_commands])
def test_a_pipeline_is_counted_as_a_whole_and_up_to_a_partial_command(count: Counter) -> None:
    get, put = encode_command(b"get", b"k"), encode_command(b"SET", b"k", b"v\r\n*1\r\n" * 9)
    multi = encode_command(b"MULTI") + put + encode_command(b"exec")
    stream = get + put * 14 + multi + encode_command(b"KEYS", b"*")
    assert counted(count, stream) == (len(stream), [2, 1, 15, 1])
    for cut in range(1, len(get)):
        assert counted(count, stream + get[:cut]) == (len(stream), [2, 1, 15, 1])


@given(st.lists(COMMANDS | ODDITIES, max_size=8).map(b"".join))
def test_hiredis_leaves_nothing_behind_for_the_next_chunk(stream: bytes) -> None:
    counted(tally_plain.count_commands, stream)
    ping = encode_command(b"PING")
    assert counted(tally_plain.count_commands, ping) == (len(ping), [1, 0, 0, 0])


@pytest.mark.parametrize("count", [tally.count_commands, tally_plain.count_commands])
def test_what_changes_the_session_is_left_to_the_relay(count: Counter) -> None:
    auth = encode_command(b"AUTH", b"user", b"password")
    get = encode_command(b"GET", b"k")
    assert kind_of(b"AUTH") == IS_TRACKED
    end, units = counted(count, get + auth + get)
    assert (end, units) in (NOTHING, (len(get), [0, 1, 0, 0]))
    for unfinished in (
        encode_command(b"MULTI") + get,
        encode_command(b"EXEC"),
        encode_command(b"MULTI", b"x") + encode_command(b"EXEC"),
        encode_command(b"MULTI") + get + encode_command(b"EXEC", b"x"),
        encode_command(b"MULTI") * 2 + encode_command(b"EXEC"),
    ):
        assert counted(count, unfinished) == NOTHING


def test_the_scanner_looks_up_no_name_that_is_longer_than_any() -> None:
    longest, longer = encode_command(b"n" * 128), encode_command(b"n" * 129)
    assert counted(tally.count_commands, longest) == (len(longest), [0, 0, 1, 0])
    assert counted(tally.count_commands, longer) == NOTHING
