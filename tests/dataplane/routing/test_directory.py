"""The routing rules: who names the instance, who must agree, and what unknown names get."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
from collections import Counter
from collections.abc import Mapping

import pytest

from dataplane.routing.directory import RecordDirectory
from dataplane.routing.table import Entry, RecordTable
from engines.kit import auth
from engines.kit.ports import Hints
from engines.kit.records import InstanceRecord, Role
from tests.dataplane.plane import MASTER_KEY, PEPPER, instance, key, named_user

JWT_SECRET = "a secret of at least thirty-two bytes"
NOW = 1_800_000_000.0


class FixedClock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return NOW


def directory(
    *records: InstanceRecord, peppers: Mapping[int, bytes] | None = None
) -> RecordDirectory:
    table = RecordTable()
    for record in records:
        table.put(Entry(record, ""))
    return RecordDirectory(
        table,
        FixedClock(),
        peppers=peppers or {1: PEPPER},
        master_key=MASTER_KEY,
        jwt_secret=JWT_SECRET,
    )


ALICE, ALICE_PASSWORD = key()
BOB, BOB_PASSWORD = key(Role.READ)
APP = named_user("app", "hunter2 hunter2")
BLUE = instance(ALICE, handle="blue")
GREEN = instance(BOB, handle="green")
HOME = instance(APP, handle="home", is_default=True)
OTHER_ENGINE = instance(handle="cache", engine="inmemory")
DIRECTORY = directory(BLUE, GREEN, HOME, OTHER_ENGINE)


@pytest.mark.parametrize(
    ("hints", "found"),
    [
        (Hints(ALICE.username), "blue"),
        (Hints(BOB.username), "green"),
        (Hints(ALICE.username, "blue.db.example.org"), "blue"),
        (Hints(ALICE.username, "BLUE.db.example.org"), "blue"),
        (Hints(ALICE.username, "nobody.example.org"), "blue"),
        (Hints(ALICE.username, "localhost"), "blue"),
        (Hints(ALICE.username, "green.db.example.org"), None),
        (Hints(ALICE.username, "cache.db.example.org"), None),
        (Hints(ALICE.username, instance="blue"), "blue"),
        (Hints(ALICE.username, instance="green"), None),
        (Hints(ALICE.username, instance="nobody"), None),
        (Hints(ALICE.username, "blue.example.org", "blue", "blue"), "blue"),
        (Hints(ALICE.username, "blue.example.org", "green"), None),
        (Hints(ALICE.username, database="green"), "blue"),
        (Hints(ALICE.username, database="anything"), "blue"),
        (Hints("wk_aaaaaaaaaaaa"), None),
        (Hints("wk_aaaaaaaaaaaa", instance="blue"), None),
        (Hints("app"), "home"),
        (Hints("app", database="home"), "home"),
        (Hints("app", database="mydb"), "home"),
        (Hints("app", database="blue"), None),
        (Hints("app", instance="blue"), None),
        (Hints("app", "blue.example.org"), None),
        (Hints("nobody"), None),
        (Hints(""), None),
    ],
)
def test_hints_name_an_instance_only_if_all_agree(hints: Hints, found: str | None) -> None:
    candidate = DIRECTORY.find("line", hints)
    if found is None:
        assert candidate.is_mock
    else:
        assert candidate.record is not None
        assert (candidate.record.handle, candidate.is_mock) == (found, False)
        assert candidate.credential.username == hints.username


def test_a_key_of_another_engine_is_unknown_here() -> None:
    assert DIRECTORY.find("inmemory", Hints(ALICE.username)).is_mock


def test_a_disabled_credential_is_unknown() -> None:
    disabled = dataclasses.replace(ALICE, enabled=False)
    found = directory(instance(disabled)).find("line", Hints(ALICE.username))
    assert found.is_mock
    assert found.credential.secrets != ALICE.secrets


def test_a_mock_looks_like_a_credential_and_stays_the_same() -> None:
    first = DIRECTORY.find("line", Hints("wk_aaaaaaaaaaaa"))
    again = DIRECTORY.find("line", Hints("wk_aaaaaaaaaaaa"))
    other = DIRECTORY.find("line", Hints("wk_bbbbbbbbbbbb"))
    assert first.credential == again.credential
    assert first.credential.secrets[0].scram.salt != other.credential.secrets[0].scram.salt
    assert first.credential.secrets[0].scram.iterations == ALICE.secrets[0].scram.iterations


def test_known_and_unknown_names_cost_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts every HMAC: a difference could be measured from outside."""
    work: Counter[str] = Counter()
    real = hmac.digest

    def counted(key: bytes, message: bytes, algorithm: str) -> bytes:
        work["hmac"] += 1
        return real(key, message, algorithm)

    monkeypatch.setattr(hmac, "digest", counted)
    costs = []
    for hints in (Hints(ALICE.username), Hints("wk_aaaaaaaaaaaa"), Hints("app"), Hints("nobody")):
        work.clear()
        candidate = DIRECTORY.find("line", hints)
        DIRECTORY.verify_password(candidate, "wk_aaaaaaaaaaaa_wrong")
        costs.append(work["hmac"])
    assert len(set(costs)) == 1, costs


def test_the_right_password_proves_and_any_other_does_not() -> None:
    candidate = DIRECTORY.find("line", Hints(ALICE.username))
    assert DIRECTORY.verify_password(candidate, ALICE_PASSWORD)
    assert not DIRECTORY.verify_password(candidate, BOB_PASSWORD)
    assert not DIRECTORY.verify_password(candidate, "")
    assert not DIRECTORY.verify_password(candidate, ALICE_PASSWORD[:-1])


def test_a_mock_is_never_proven() -> None:
    candidate = DIRECTORY.find("line", Hints("nobody"))
    assert not DIRECTORY.verify_password(candidate, "")
    assert not DIRECTORY.verify_password(candidate, ALICE_PASSWORD)


def test_two_live_secrets_both_prove_and_an_expired_one_does_not() -> None:
    salt = auth.new_salt()
    new, old = (auth.password_of(ALICE.key_id, auth.new_secret()) for _ in range(2))
    secrets = (
        auth.make_secret(new, 1, PEPPER, salt),
        auth.make_secret(old, 1, PEPPER, salt, expires_at=NOW + 1),
    )
    rotating = directory(instance(dataclasses.replace(ALICE, secrets=secrets)))
    candidate = rotating.find("line", Hints(ALICE.username))
    assert rotating.verify_password(candidate, new)
    assert rotating.verify_password(candidate, old)
    dead = (secrets[0], dataclasses.replace(secrets[1], expires_at=NOW))
    rotated = directory(instance(dataclasses.replace(ALICE, secrets=dead)))
    assert not rotated.verify_password(rotated.find("line", Hints(ALICE.username)), old)


def test_a_secret_of_an_older_pepper_still_proves() -> None:
    old_pepper = b"old" * 10
    password = auth.password_of(ALICE.key_id, auth.new_secret())
    old = auth.make_secret(password, 1, old_pepper, auth.new_salt())
    found = directory(
        instance(dataclasses.replace(ALICE, secrets=(old,))), peppers={1: old_pepper, 2: PEPPER}
    )
    assert found.verify_password(found.find("line", Hints(ALICE.username)), password)


def test_a_password_alone_finds_its_key() -> None:
    candidate = DIRECTORY.find_by_secret("line", Hints(), ALICE_PASSWORD)
    assert candidate.record == BLUE
    assert DIRECTORY.verify_password(candidate, ALICE_PASSWORD)


def test_a_plain_password_alone_finds_its_user_in_the_default_instance() -> None:
    candidate = DIRECTORY.find_by_secret("line", Hints(), "hunter2 hunter2")
    assert candidate.credential == APP
    assert DIRECTORY.verify_password(candidate, "hunter2 hunter2")


def test_a_wrong_password_alone_finds_nobody() -> None:
    candidate = DIRECTORY.find_by_secret("line", Hints(), "hunter3")
    assert candidate.is_mock
    assert not DIRECTORY.verify_password(candidate, "hunter3")


def token(subject: str, secret: str = JWT_SECRET, **claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256'})}.{part({'sub': subject, 'exp': NOW + 60} | claims)}"
    signature = hmac.digest(secret.encode(), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("given", "is_proven"),
    [
        (token("app"), True),
        (token("app", roles=["read", "write"]), True),
        (token("app", roles=["admin"]), True),
        (token("app", roles=["read"]), False),
        (token("app", roles=[]), False),
        (token("app", roles=["captain"]), False),
        (token("else"), False),
        (token("app", secret="another secret of thirty-two bytes"), False),
        (token("app", exp=NOW), False),
        ("hunter2 hunter2", False),
    ],
)
def test_jwt_instances_take_tokens_and_no_passwords(given: str, is_proven: bool) -> None:
    by_token = directory(dataclasses.replace(HOME, auth_method="jwt"))
    assert by_token.verify_password(by_token.find("line", Hints("app")), given) is is_proven


def test_mtls_instances_take_no_password() -> None:
    by_certificate = directory(dataclasses.replace(HOME, auth_method="mtls"))
    candidate = by_certificate.find("line", Hints("app"))
    assert not candidate.is_mock
    assert not by_certificate.verify_password(candidate, "hunter2 hunter2")
