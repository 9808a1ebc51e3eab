"""TLS by itself: channel binding data, application protocols, reloading."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from dataplane.config import TlsFiles
from dataplane.server.tls import TlsContext, end_point_binding
from tests.dataplane.certificates import END, START, Authority

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])


def builder(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(NAME, NAME, key.public_key(), 1)
        .not_valid_before(START)
        .not_valid_after(END)
    )


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (hashes.SHA256(), hashlib.sha256),
        (hashes.SHA384(), hashlib.sha384),
        (hashes.SHA512(), hashlib.sha512),
    ],
)
def test_the_binding_is_the_certificates_hash_by_its_signatures_function(
    algorithm: hashes.HashAlgorithm, expected: Callable[[bytes], Any]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = der(builder(key).sign(key, algorithm))
    assert end_point_binding(certificate) == expected(certificate).digest()


def test_a_pss_signature_names_its_function_in_its_parameters() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
    certificate = der(builder(key).sign(key, hashes.SHA384(), rsa_padding=pss))
    assert end_point_binding(certificate) == hashlib.sha384(certificate).digest()


@pytest.mark.parametrize("last_arc", [4, 5])
def test_md5_and_sha1_are_replaced_by_sha256(last_arc: int) -> None:
    # Nothing signs like that any more, so another certificate's algorithm is renamed:
    # sha256WithRSAEncryption is 1.2.840.113549.1.1.11, with MD5 it ends in 4, with SHA-1 in 5.
    key = rsa.generate_private_key(65537, 2048)
    arcs = bytes.fromhex("2a864886f70d0101")
    made = der(builder(key).sign(key, hashes.SHA256()))
    certificate = made.replace(arcs + b"\x0b", arcs + bytes((last_arc,)))
    assert certificate != made
    assert end_point_binding(certificate) == hashlib.sha256(certificate).digest()


def test_a_signature_without_a_hash_function_has_no_binding() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    assert end_point_binding(der(builder(key).sign(key, None))) == b""
    assert end_point_binding(b"no certificate") == b""


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str | None, bytes | None]:
    """Return the application protocol that was selected, and the certificate that was shown."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for side in (there, here, there, here):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert here.selected_alpn_protocol() == there.selected_alpn_protocol()
    return here.selected_alpn_protocol(), there.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("ours", "offered", "selected"),
    [
        ("postgresql", ["postgresql"], "postgresql"),
        ("postgresql", ["h2", "postgresql"], "postgresql"),
        ("postgresql", ["h2"], None),
        ("postgresql", [], None),
        ("", ["postgresql"], None),
        ("", [], None),
    ],
)
def test_a_context_selects_only_its_own_application_protocol(
    tmp_path: Path, ours: str, offered: list[str], selected: str | None
) -> None:
    authority = Authority(tmp_path)
    tls = TlsContext(TlsFiles(*authority.issue("server")))
    client = authority.client()
    if offered:
        client.set_alpn_protocols(offered)
    assert handshake(tls.context(ours), client)[0] == selected


def test_reloading_replaces_every_context_or_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = TlsFiles(*authority.issue("server"))
    tls = TlsContext(files)

    def shown() -> tuple[bytes | None, ...]:
        return tuple(handshake(tls.context(a), authority.client())[1] for a in ("", "postgresql"))

    first = shown()
    assert first[0] == first[1]
    authority.issue("server")
    assert shown() == first
    tls.reload()
    second = shown()
    assert second[0] == second[1] != first[0]
    files.certificate.write_text("no certificate")
    with pytest.raises(OSError, match=r"PEM|NO_START_LINE|no start line"):
        tls.reload()
    assert shown() == second
