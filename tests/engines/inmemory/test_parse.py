"""What a command costs; a real server's own flags are the oracle."""

from __future__ import annotations

import pytest
import redis as client_library

from engines.inmemory.parse import (
    IS_EXEC,
    IS_MULTI,
    IS_TRACKED,
    KINDS,
    OTHER,
    QUERY,
    READ,
    TRACKED,
    UNLIMITED,
    WRITE,
    kind_of,
    sort_class,
)
from engines.kit.ports import RequestClass
from tests.servers import RedisServer


def test_no_command_is_in_two_classes_and_each_list_is_in_order() -> None:
    lists = [names.split() for names in (READ, WRITE, QUERY, UNLIMITED, TRACKED)]
    everything = [name for names in lists for name in names]
    assert len(everything) == len(set(everything))
    assert [sorted(names) for names in lists] == lists


def test_names_are_known_in_any_case() -> None:
    assert kind_of(b"GET") == kind_of(b"get") == kind_of(b"gEt") == RequestClass.READ
    assert kind_of(b"SeT") == RequestClass.WRITE
    assert kind_of(b"scan") == RequestClass.QUERY
    assert kind_of(b"Ping") == RequestClass.UNLIMITED
    assert (kind_of(b"multi"), kind_of(b"exec"), kind_of(b"auth")) == (
        IS_MULTI,
        IS_EXEC,
        IS_TRACKED,
    )


def test_spellings_are_learnt_up_to_a_bound() -> None:
    for number in range(20_000):
        assert kind_of(b"unknown%d" % number) == OTHER
    assert len(KINDS) < 10_000
    assert kind_of(b"x" * 1000) == OTHER


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([b"SORT", b"k"], RequestClass.QUERY),
        ([b"SORT", b"store"], RequestClass.QUERY),
        ([b"SORT", b"k", b"LIMIT", b"0", b"1", b"store", b"d"], RequestClass.WRITE),
    ],
)
def test_sort_is_a_write_where_it_stores(arguments: list[bytes], expected: RequestClass) -> None:
    assert sort_class(arguments) is expected


def test_the_classes_agree_with_the_servers_own_flags(redis: RedisServer) -> None:
    with client_library.Redis.from_url(redis.url()) as direct:
        commands = direct.execute_command("COMMAND")
    wrong = {}
    for name, described in commands.items():
        flags, kind = described["flags"], kind_of(name.upper().encode())
        if name.startswith("host:") or name == "post" or name == "sort":
            continue
        if "write" in flags:
            expected = {RequestClass.WRITE}
        elif "readonly" in flags:
            expected = {RequestClass.READ, RequestClass.QUERY}
        else:
            expected = {*RequestClass, IS_MULTI, IS_EXEC, IS_TRACKED} - {RequestClass.READ}
        if kind not in expected:
            wrong[name] = (flags, kind)
    # What MEMORY and OBJECT can do is read; some servers flag only their subcommands.
    assert set(wrong) <= {"memory", "object", "xinfo"}
