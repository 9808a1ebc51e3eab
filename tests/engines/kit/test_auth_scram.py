"""SCRAM-SHA-256: the RFC's example, a client of our own, and everything that must fail."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.auth import ScramError, ScramServer, make_secret, mock_credential
from engines.kit.auth.scram import MECHANISM, MECHANISM_PLUS
from engines.kit.errors import LocalError, Reason
from engines.kit.records import Credential, Role

SALT = b"sixteen byte sal"
BINDING = hashlib.sha256(b"certificate").digest()


def credential(*passwords: str, salt: bytes = SALT, **changes: object) -> Credential:
    known = Credential(
        key_id="k",
        username="user",
        role=Role.READ,
        secrets=tuple(make_secret(password, 1, b"pepper", salt) for password in passwords),
    )
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def client_final(
    first_bare: str, server_first: bytes, password: str, header: bytes = b"n,,"
) -> tuple[bytes, bytes]:
    """Return client-final-message and the server-final-message that a client expects."""
    fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
    unproven = f"c={base64.b64encode(header).decode()},r={fields['r']}"
    message = f"{first_bare},{server_first.decode()},{unproven}".encode()
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"])
    )
    client_key = hmac.new(salted, b"Client Key", "sha256").digest()
    stored_key = hashlib.sha256(client_key).digest()
    signature = hmac.new(stored_key, message, "sha256").digest()
    proof = (int.from_bytes(client_key) ^ int.from_bytes(signature)).to_bytes(32)
    server_key = hmac.new(salted, b"Server Key", "sha256").digest()
    expected = hmac.new(server_key, message, "sha256").digest()
    final = f"{unproven},p={base64.b64encode(proof).decode()}".encode()
    return final, b"v=" + base64.b64encode(expected)


def sign_in(
    known: Credential,
    password: str,
    *,
    server: ScramServer | None = None,
    gs2: str = "n,,",
    binding: bytes = b"",
    now: float = 0.0,
) -> tuple[bytes, bytes]:
    """Play both halves; return what the server says at the end and what the client expects."""
    server = server or ScramServer()
    server.begin(f"{gs2}n=user,r=clientnonce".encode())
    challenge = server.challenge(known, now)
    final, expected = client_final(
        "n=user,r=clientnonce", challenge, password, gs2.encode() + binding
    )
    return server.finish(final), expected


def failure(action: Callable[[], object]) -> ScramError:
    with pytest.raises(ScramError) as caught:
        action()
    return caught.value


def test_the_example_of_rfc_7677_is_spoken_to_the_letter() -> None:
    server = ScramServer(nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert server.begin(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == "user"
    assert server.challenge(credential("pencil", salt=salt), now=0.0) == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert (
        server.finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        )
        == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


@pytest.mark.parametrize("gs2", ["n,,", "y,,", "n,a=user,"])
def test_a_client_without_channel_binding_is_proven(gs2: str) -> None:
    answer, expected = sign_in(credential("pencil"), "pencil", gs2=gs2)
    assert answer == expected


@pytest.mark.parametrize("password", ["old", "new"])
def test_either_of_two_secrets_proves_and_gets_its_own_server_signature(password: str) -> None:
    answer, expected = sign_in(credential("old", "new"), password)
    assert answer == expected


def test_a_wrong_password_a_mock_and_a_revoked_key_fail_alike() -> None:
    failures = [
        failure(lambda: sign_in(credential("pencil"), "pen")),
        failure(lambda: sign_in(mock_credential("user", b"key"), "pencil")),
        failure(lambda: sign_in(credential("pencil", enabled=False), "pencil")),
    ]
    for error in failures:
        assert error.reason is Reason.UNAUTHENTICATED
        assert (error.message, error.server_error) == ("authentication failed", "invalid-proof")


def test_the_right_proof_of_an_expired_secret_is_told_so_and_a_wrong_one_is_not() -> None:
    known = credential("old", "new")
    expired = dataclasses.replace(known.secrets[0], expires_at=10.0)
    known = dataclasses.replace(known, secrets=(expired, known.secrets[1]))
    answer, expected = sign_in(known, "old", now=9.0)
    assert answer == expected
    assert failure(lambda: sign_in(known, "old", now=10.0)).reason is Reason.EXPIRED
    assert failure(lambda: sign_in(known, "guess", now=10.0)).reason is Reason.UNAUTHENTICATED
    answer, expected = sign_in(known, "new", now=10.0)
    assert answer == expected


def test_channel_binding_is_proven_and_a_foreign_certificate_is_not() -> None:
    def plus() -> ScramServer:
        return ScramServer(MECHANISM_PLUS, channel_binding=BINDING)

    gs2 = "p=tls-server-end-point,,"
    answer, expected = sign_in(
        credential("pencil"), "pencil", server=plus(), gs2=gs2, binding=BINDING
    )
    assert answer == expected
    for wrong in (b"", BINDING[:-1], hashlib.sha256(b"man in the middle").digest()):
        error = failure(
            lambda wrong=wrong: sign_in(
                credential("pencil"), "pencil", server=plus(), gs2=gs2, binding=wrong
            )
        )
        assert error.server_error == "channel-bindings-dont-match"


def test_a_client_that_was_not_shown_our_channel_binding_is_a_downgrade() -> None:
    server = ScramServer(MECHANISM, channel_binding=BINDING)
    error = failure(lambda: server.begin(b"y,,n=user,r=nonce"))
    assert error.server_error == "server-does-support-channel-binding"
    # A client that has none itself may still come.
    answer, expected = sign_in(
        credential("pencil"), "pencil", server=ScramServer(MECHANISM, channel_binding=BINDING)
    )
    assert answer == expected


@pytest.mark.parametrize(
    ("mechanism", "binding", "message", "server_error"),
    [
        (MECHANISM, None, b"p=tls-server-end-point,,n=u,r=x", "other-error"),
        (MECHANISM_PLUS, BINDING, b"n,,n=u,r=x", "other-error"),
        (MECHANISM_PLUS, BINDING, b"y,,n=u,r=x", "server-does-support-channel-binding"),
        (MECHANISM_PLUS, BINDING, b"p=tls-unique,,n=u,r=x", "unsupported-channel-binding-type"),
        (MECHANISM, None, b"n,a=other,n=u,r=x", "other-error"),
        (MECHANISM, None, b"n,,m=ext,n=u,r=x", "extensions-not-supported"),
        (MECHANISM, None, b"n,,n=a=b,r=x", "invalid-username-encoding"),
        (MECHANISM, None, b"n,,n=\xff,r=x", "invalid-encoding"),
        (MECHANISM, None, b"n,,n=a\0b,r=x", "invalid-encoding"),
        (MECHANISM, None, b"n,,n=u,r=", "other-error"),
        (MECHANISM, None, b"n,,n=u,r=a b", "other-error"),
        (MECHANISM, None, b"n,n=u,r=x", "other-error"),
        (MECHANISM, None, b"x,,n=u,r=x", "other-error"),
        (MECHANISM, None, b"", "other-error"),
        (MECHANISM, None, b"n,,n=" + b"u" * 513 + b",r=x", "other-error"),
        (MECHANISM, None, b"n,,n=u,r=" + b"x" * 1025, "other-error"),
        (MECHANISM, None, b"n,,n=u,r=x," + b"x" * 2048, "other-error"),
    ],
)
def test_a_first_message_that_breaks_the_rules_is_refused(
    mechanism: str, binding: bytes | None, message: bytes, server_error: str
) -> None:
    server = ScramServer(mechanism, channel_binding=binding)
    assert failure(lambda: server.begin(message)).server_error == server_error


def test_escaped_user_names_and_optional_extensions_are_understood() -> None:
    assert ScramServer().begin(b"n,,n=a=2Cb=3Dc,r=x,z=later") == "a,b=c"
    assert ScramServer().begin(b"n,,n=,r=x") == ""


def test_mechanisms_that_were_not_offered_are_refused() -> None:
    assert failure(lambda: ScramServer("SCRAM-SHA-1")).reason is Reason.MALFORMED
    error = failure(lambda: ScramServer(MECHANISM_PLUS))
    assert error.server_error == "channel-binding-not-supported"


def final_with(change: Callable[[bytes], bytes]) -> ScramError:
    server = ScramServer()
    server.begin(b"n,,n=user,r=clientnonce")
    challenge = server.challenge(credential("pencil"), 0.0)
    final, _ = client_final("n=user,r=clientnonce", challenge, "pencil")
    return failure(lambda: server.finish(change(final)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda final: final.replace(b"r=client", b"r=clienT"), Reason.MALFORMED),
        (lambda final: final.replace(b"c=biws", b"c=eSws"), Reason.UNAUTHENTICATED),
        (lambda final: final.replace(b"c=biws", b"c=b"), Reason.MALFORMED),
        (lambda final: final[:-4] + b"AAA=", Reason.UNAUTHENTICATED),
        (lambda final: final[: final.index(b",p=")], Reason.MALFORMED),
        (lambda final: final + b",x=1", Reason.MALFORMED),
        (lambda final: b"", Reason.MALFORMED),
        (lambda final: final + b"x" * 5000, Reason.LIMIT),
        (lambda final: final.replace(b",p=", b",q=x,p="), Reason.UNAUTHENTICATED),
        (lambda final: final[:-44] + b"=" * 44, Reason.MALFORMED),
        (lambda final: final[:-44] + b"A" * 44, Reason.MALFORMED),
    ],
)
def test_a_final_message_that_was_changed_proves_nothing(
    change: Callable[[bytes], bytes], reason: Reason
) -> None:
    assert final_with(change).reason is reason


def test_steps_out_of_order_are_our_own_fault() -> None:
    server = ScramServer()
    with pytest.raises(LocalError):
        server.finish(b"")
    server.begin(b"n,,n=user,r=x")
    with pytest.raises(LocalError):
        server.begin(b"n,,n=user,r=x")
    with pytest.raises(LocalError):
        server.challenge(credential(), 0.0)


def test_server_nonces_are_never_the_same() -> None:
    challenges = set()
    for _ in range(20):
        server = ScramServer()
        server.begin(b"n,,n=user,r=x")
        challenges.add(server.challenge(credential("pencil"), 0.0))
    assert len(challenges) == 20


PROBED = credential("pencil")


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_no_bytes_do_anything_but_fail_cleanly(first: bytes, final: bytes) -> None:
    with pytest.raises(ScramError):
        ScramServer().begin(b"n,," + first if first.startswith(b"n=\0") else b"\0" + first)
    server = ScramServer()
    server.begin(b"n,,n=user,r=x")
    server.challenge(PROBED, 0.0)
    with pytest.raises(ScramError):
        server.finish(final)
