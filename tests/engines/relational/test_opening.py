"""A server session without a socket: its exchanges, cut anywhere, and what makes it useless."""

from __future__ import annotations

import struct

import pytest

from engines.kit.errors import Reason, RequestError
from engines.kit.ports import TryAgainError
from engines.relational import wire
from engines.relational.opening import CHECK, ServerSession

OK = wire.message(b"R", b"\0\0\0\0")
ENCODING = wire.message(b"S", b"client_encoding\0UTF8\0")
STYLE = wire.message(b"S", b"DateStyle\0ISO, MDY\0")
KEY = wire.message(b"K", struct.pack("!II", 77, 1234))
READY = wire.message(b"Z", b"I")
ROWS = wire.message(b"D", b"\0\1\0\0\0\x03" + b"701") + wire.message(b"C", b"SELECT 1\0") + READY
GREETING = OK + ENCODING + STYLE + KEY + READY
SEED_SET = wire.message(b"C", b"SET\0") + READY
DISCARDED = wire.message(b"C", b"DISCARD ALL\0") + READY


def error(sqlstate: str, text: str = "no") -> bytes:
    return wire.error_response({"S": "FATAL", "C": sqlstate, "M": text})


@pytest.fixture
def session() -> ServerSession:
    """A session that has been started."""
    opened = ServerSession({"user": "owner", "database": "weftkit"})
    opened.start()
    assert opened.answer(GREETING + ROWS)
    return opened


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_start_is_complete_with_the_answer_to_the_check(size: int) -> None:
    session = ServerSession({"user": "owner"})
    assert session.start() == wire.startup_message({"user": "owner"}) + CHECK
    said = GREETING + ROWS
    chunks = [said[at : at + size] for at in range(0, len(said), size)]
    assert [session.answer(chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert session.greeting() == ENCODING + STYLE
    assert (session.pid, session.cancel_key) == (77, KEY[5:])


def test_sessions_have_the_same_key_if_the_server_is_told_the_same() -> None:
    told = [{"user": "a"}, {"user": "a"}, {"user": "b"}, {"user": "a", "options": "-c x=1"}]
    keys = [ServerSession(parameters).key for parameters in told]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_notice_of_the_start_is_told_once() -> None:
    notice = wire.message(b"N", b"SWARNING\0\0")
    session = ServerSession({"user": "owner"})
    session.start()
    assert session.answer(OK + notice + ENCODING + KEY + READY + ROWS)
    assert session.greeting() == ENCODING + notice
    assert session.greeting() == ENCODING


@pytest.mark.parametrize(
    ("sqlstate", "reason", "is_passing"),
    [
        ("3D000", Reason.BACKEND, True),
        ("42501", Reason.BACKEND, True),
        ("28000", Reason.INTERNAL, False),
        ("XX000", Reason.INTERNAL, False),
    ],
)
def test_of_a_refused_start_the_client_sees_what_it_caused(
    sqlstate: str, reason: Reason, is_passing: bool
) -> None:
    session = ServerSession({"user": "owner"})
    session.start()
    with pytest.raises(RequestError) as refused:
        session.answer(error(sqlstate, "the server's words"))
    assert refused.value.reason is reason
    assert ("the server's words" in refused.value.message) is is_passing


@pytest.mark.parametrize("sqlstate", ["53300", "57P01", "57P02", "57P03"])
def test_a_server_that_is_full_or_not_up_may_be_asked_again(sqlstate: str) -> None:
    session = ServerSession({"user": "owner"})
    session.start()
    with pytest.raises(TryAgainError) as refused:
        session.answer(OK + error(sqlstate))
    assert refused.value.error.sqlstate == sqlstate
    session.start()
    assert session.answer(GREETING + ROWS)


@pytest.mark.parametrize("said", [wire.message(b"R", b"\0\0\0\3"), wire.message(b"G", b"")])
def test_a_start_of_another_kind_is_of_no_use(said: bytes) -> None:
    session = ServerSession({"user": "owner"})
    session.start()
    with pytest.raises(RequestError):
        session.answer(said)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_reset_is_over_after_both_answers_whatever_stands_between(
    session: ServerSession, size: int
) -> None:
    style = wire.message(b"S", b"DateStyle\0German, DMY\0")
    news = wire.message(b"A", struct.pack("!I", 5) + b"news\0\0")
    assert session.reset().endswith(b"DISCARD ALL\0")
    said = news + SEED_SET + style + DISCARDED
    chunks = [said[at : at + size] for at in range(0, len(said), size)]
    assert [session.answer(chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert session.greeting() == ENCODING + style


def test_each_reset_sets_another_seed(session: ServerSession) -> None:
    assert len({session.reset() for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "said",
    [
        READY + SEED_SET + DISCARDED,  # the answer to something else came first
        SEED_SET + wire.message(b"C", b"DISCARD ALL\0") + wire.message(b"Z", b"T"),
        SEED_SET + error("25001") + READY,
        SEED_SET + DISCARDED + READY,
    ],
)
def test_any_other_answer_to_a_reset_makes_the_session_useless(
    session: ServerSession, said: bytes
) -> None:
    session.reset()
    with pytest.raises(RequestError):
        session.answer(said)


def test_a_check_wants_the_answer_of_the_start(session: ServerSession) -> None:
    for _ in range(2):
        assert session.check() == CHECK
        assert not session.answer(ROWS[:9])
        assert session.answer(ROWS[9:])


@pytest.mark.parametrize(
    "said", [READY, ROWS.replace(b"701", b"702"), ROWS[:-6] + ROWS, error("57P01") + READY]
)
def test_a_check_with_another_answer_makes_the_session_useless(
    session: ServerSession, said: bytes
) -> None:
    session.check()
    with pytest.raises(RequestError):
        session.answer(said)


def test_an_answer_without_end_is_not_kept(session: ServerSession) -> None:
    session.check()
    with pytest.raises(RequestError):
        for _ in range(1000):
            session.answer(b"x" * 1024)
