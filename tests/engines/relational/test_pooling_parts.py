"""What a text leaves behind, and who shares sessions."""

from __future__ import annotations

import pytest

from engines.kit.errors import RequestError
from engines.relational.pooling import effects, mode, split_parameters


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("SET statement_timeout = 5", [b"statement_timeout"]),
        ("set session work_mem to '5MB'", [b"work_mem"]),
        ("SET TIME ZONE 'UTC'", [b"timezone"]),
        ("SET NAMES 'UTF8'", [b"client_encoding"]),
        ("RESET work_mem", [b"work_mem"]),
        ("SELECT 1; SET a.b = 'c'", [b"a.b"]),
        ("SELECT set_config('app.who', $1, false)", [b"app.who"]),
        ("DO $$ BEGIN SET work_mem = '5MB'; END $$", [b"work_mem"]),
        ("SET LOCAL work_mem = '5MB'", []),
        ("SET TRANSACTION READ ONLY", []),
        ("UPDATE t SET a = 1", []),
        ("SELECT 'SET x = 1; SET y = 2'", []),
    ],
)
def test_settings_that_a_text_may_change_are_found(text: str, sets: list[bytes]) -> None:
    effect = effects.of(text.encode())
    assert list(effect.sets) == sets
    assert effect.pins == b""


@pytest.mark.parametrize(
    "text",
    [
        "LISTEN news",
        "select 1; listen news",
        "PREPARE p AS SELECT 1",
        "CREATE TEMP TABLE t (a int)",
        "CREATE LOCAL TEMPORARY TABLE t (a int)",
        "SELECT 1 AS n INTO TEMP t",
        "CREATE TABLE pg_temp.t (a int)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "LOAD 'auto_explain'",
        "SET ROLE someone",
        "SET SESSION AUTHORIZATION someone",
        "SELECT set_config($1, $2, false)",
    ],
)
def test_what_lives_in_one_session_pins(text: str) -> None:
    assert effects.of(text.encode()).pins


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "PREPARE TRANSACTION 'x'",
        "CREATE TABLE t (temp int)",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "DECLARE c CURSOR FOR SELECT 1",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_advisory_unlock_all()",
        "BEGIN",
        "",
    ],
)
def test_what_ends_with_its_transaction_leaves_nothing(text: str) -> None:
    assert effects.of(text.encode()) == effects.NONE


def test_discard_and_reset_all_lead_back_to_the_start() -> None:
    assert effects.of(b"DISCARD ALL").resets == (effects.ALL,)
    assert effects.of(b"RESET ALL").resets == (effects.ALL,)
    assert effects.of(b"DISCARD PLANS").resets == ()


@pytest.mark.parametrize(
    ("words", "parameter", "expected"),
    [
        (["-c", "weftkit.pool=transaction"], None, ([], True)),
        (["-cweftkit.pool=transaction", "-c", "a=b"], None, (["-c", "a=b"], True)),
        (["pool=session"], None, ([], False)),
        (["--weftkit.pool=transaction"], "transaction", ([], True)),
        (["-c", "a=b"], None, (["-c", "a=b"], None)),
        ([], "transaction", ([], True)),
    ],
)
def test_the_mode_is_read_from_options_and_parameter(
    words: list[str], parameter: str | None, expected: tuple[list[str], bool | None]
) -> None:
    assert mode.take(words, parameter) == expected


def test_two_modes_at_once_are_refused() -> None:
    with pytest.raises(RequestError, match='"pool"'):
        mode.take(["pool=transaction"], "session")


def test_tracked_settings_are_the_clients_and_the_rest_is_the_servers() -> None:
    kept, start = split_parameters(
        {
            "user": "owner",
            "timezone": "UTC",
            "options": "-c search_path=a\\ b -c lock_timeout=5 --application-name=x -d 3",
        }
    )
    assert kept == {"user": "owner", "options": "-c lock_timeout=5 -d 3"}
    assert start == {b"TimeZone": b"UTC", b"search_path": b"a b", b"application_name": b"x"}
