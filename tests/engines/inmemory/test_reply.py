"""Our own replies: each is one whole line that hiredis reads."""

from __future__ import annotations

import hiredis
import pytest

from engines.inmemory import reply


def read(data: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(data)
    value = reader.gets()
    assert reader.gets() is False
    return value


@pytest.mark.parametrize(
    "line",
    [reply.NOAUTH, reply.HELLO_NOAUTH, reply.NOPROTO, reply.wrong_arguments("auth"),
     reply.hello_syntax(b"x\r\n+OK\xff" * 20)],
)  # fmt: skip
def test_errors_are_errors_of_one_line(line: bytes) -> None:
    assert isinstance(read(line), hiredis.ReplyError)


def test_successes_are_statuses() -> None:
    assert read(reply.OK) == b"OK"
    assert read(reply.RESET) == b"RESET"


def test_a_strange_option_is_shown_without_what_could_break_the_line() -> None:
    assert reply.hello_syntax(b"a\r\nb") == b"-ERR Syntax error in HELLO option 'ab'\r\n"
