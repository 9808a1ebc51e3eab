"""Keys, digests, verifiers and mocks; PostgreSQL itself checks the verifier."""

from __future__ import annotations

import base64
import dataclasses

import psycopg
import pytest

from engines.kit.auth import (
    digest,
    live_secrets,
    make_scram,
    make_secret,
    mock_credential,
    new_key_id,
    new_salt,
    new_secret,
    parse_password,
    parse_username,
    password_of,
    salt_of,
    service_secret,
    username_of,
    verify_password,
)
from engines.kit.auth.credentials import prepare
from engines.kit.records import Credential, Role
from tests.servers import PostgresServer

PEPPERS = {1: b"old pepper", 2: b"new pepper"}
SALT = bytes(range(16))


def credential(*secrets: tuple[str, float | None], enabled: bool = True) -> Credential:
    return Credential(
        key_id="abcdefghijkl",
        username="wk_abcdefghijkl",
        role=Role.WRITE,
        enabled=enabled,
        secrets=tuple(
            make_secret(password, 2, PEPPERS[2], SALT, expires_at)
            for password, expires_at in secrets
        ),
    )


def test_a_generated_key_is_found_again_in_its_user_name_and_password() -> None:
    key_id, secret = new_key_id(), new_secret()
    password = password_of(key_id, secret)
    assert len(key_id) == 12
    assert len(secret) == 32
    assert password == f"wk_{key_id}_{secret}"
    assert parse_password(password) == key_id
    assert parse_username(username_of(key_id)) == key_id


@pytest.mark.parametrize(
    "text",
    [
        "", "wk_", "wk_abcdefghijkl", "wk_ABCDEFGHIJKL_" + "x" * 32, "wk_abcdefghijkl_" + "x" * 31,
        "wk_abcdefghijkl_" + "x" * 33, "wk_abcdefghijk1_" + "x" * 32,
        "wk_abcdefghijkl_" + "x" * 32 + "\n", " wk_abcdefghijkl_" + "x" * 32,
    ],
)  # fmt: skip
def test_what_only_resembles_a_password_is_none(text: str) -> None:
    assert parse_password(text) is None


@pytest.mark.parametrize("text", ["app", "wk_abcdefghijkl_", "wk_abcdefghijk8", "WK_abcdefghijkl"])
def test_what_only_resembles_a_user_name_is_none(text: str) -> None:
    assert parse_username(text) is None


@pytest.mark.parametrize(
    "password", ["wk_abc_secret", "I\u00adX", "pässwört", "a\u00a0b", "\u0007"]
)
def test_postgresql_derives_the_same_verifier(postgres: PostgresServer, password: str) -> None:
    with psycopg.connect(postgres.dsn()) as connection:
        quoted = password.replace("'", "''")
        connection.execute(f"CREATE ROLE scram_probe LOGIN PASSWORD '{quoted}'")
        row = connection.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_probe'"
        ).fetchone()
        connection.rollback()
    assert row is not None
    mechanism, parameters, keys = row[0].split("$")
    iterations, salt = parameters.split(":")
    scram = make_scram(password, base64.b64decode(salt), int(iterations))
    assert mechanism == "SCRAM-SHA-256"
    assert keys == f"{scram.stored_key}:{scram.server_key}"


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        # RFC 4013 section 3.
        ("I\u00adX", b"IX"),
        ("user", b"user"),
        ("USER", b"USER"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        # What SASLprep refuses stays as it is.
        ("\u0007", b"\x07"),
        ("\u0627\u0031", "\u06271".encode()),
        ("\u0627\u0031\u0628", "\u06271\u0628".encode()),
        ("\u0627a\u0628", "\u0627a\u0628".encode()),
        ("\u00ad", "\u00ad".encode()),
        ("\ud800", b"\xed\xa0\x80"),
    ],
)
def test_passwords_are_prepared_as_rfc_4013_shows(password: str, prepared: bytes) -> None:
    assert prepare(password) == prepared


def test_either_of_two_live_secrets_opens_the_door() -> None:
    both = credential(("first", None), ("second", 200.0))
    assert verify_password(both, "first", PEPPERS, now=100.0) == both.secrets[0]
    assert verify_password(both, "second", PEPPERS, now=100.0) == both.secrets[1]
    assert verify_password(both, "second", PEPPERS, now=200.0) is None
    assert verify_password(both, "third", PEPPERS, now=100.0) is None
    assert live_secrets(both, now=200.0) == both.secrets[:1]


def test_a_disabled_credential_has_no_live_secret() -> None:
    revoked = credential(("first", None), enabled=False)
    assert live_secrets(revoked, now=0.0) == ()
    assert verify_password(revoked, "first", PEPPERS, now=0.0) is None


def test_a_secret_whose_pepper_is_gone_is_refused() -> None:
    known = credential(("first", None))
    assert verify_password(known, "first", {1: PEPPERS[1]}, now=0.0) is None
    lost = dataclasses.replace(known.secrets[0], digest=digest(b"", "first"))
    assert (
        verify_password(dataclasses.replace(known, secrets=(lost,)), "first", {}, now=0.0) is None
    )


def test_a_new_secret_of_a_credential_takes_over_the_salt() -> None:
    assert salt_of(credential(("first", None)).secrets) == SALT
    assert len(salt_of(())) == len(new_salt()) == 16
    assert salt_of(()) != salt_of(())


def test_a_mock_looks_real_and_stays_the_same_for_its_name() -> None:
    mock = mock_credential("ghost", b"mock key")
    real = credential(("first", None))
    assert mock == mock_credential("ghost", b"mock key")
    assert mock.secrets[0].scram.salt != mock_credential("ghosu", b"mock key").secrets[0].scram.salt
    assert mock.secrets[0].scram.iterations == real.secrets[0].scram.iterations
    for attribute in ("salt", "stored_key", "server_key"):
        ours = base64.b64decode(getattr(mock.secrets[0].scram, attribute))
        theirs = base64.b64decode(getattr(real.secrets[0].scram, attribute))
        assert len(ours) == len(theirs)
    assert verify_password(mock, "anything", PEPPERS, now=0.0) is None


def test_service_secrets_differ_by_instance_and_master_key() -> None:
    secret = service_secret(b"k" * 32, "5f0b7a52-0000-4000-8000-000000000001")
    assert len(secret) == 64
    assert secret != service_secret(b"k" * 32, "5f0b7a52-0000-4000-8000-000000000002")
    assert secret != service_secret(b"j" * 32, "5f0b7a52-0000-4000-8000-000000000001")


def test_a_name_that_is_no_text_gets_a_mock_like_any_other() -> None:
    username = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert mock_credential(username, b"key").username == username
