"""Our own certificate authority, so that TLS works before anybody has bought a certificate.

The authority's key stays in the home; `ca.crt` is what clients trust. Either certificate is made
anew when it ends soon or is not valid yet; the server's also when a name is missing in it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dataplane.files import write_atomically

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397  # the longest that some clients accept
RENEW_DAYS = 30
BACKDATED = dt.timedelta(hours=1)  # for clients whose clock is behind ours

# A wildcard stands for one label. OpenSSL refuses it right below the top, so handles that route by
# SNI are also reached below weftkit.localhost.
LOCAL_NAMES = ("localhost", "*.localhost", "*.weftkit.localhost")
LOCAL_ADDRESSES = ("127.0.0.1", "::1")


def make_certificates(directory: Path, public_host: str, handles: Iterable[str] = ()) -> None:
    """Make ca.crt, server.crt and server.key in `directory` where they are missing or too old.

    `handles` are names of instances that get `<handle>.localhost` spelt out. Raises OSError.
    """
    authority, authority_key = _authority(directory)
    names = _alternative_names(public_host, handles)
    if _is_good(directory / "server.crt", names, authority):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("WeftKit", SERVER_DAYS, key.public_key(), authority.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    _write(directory / "server.key", _key_bytes(key))
    _write(directory / "server.crt", _certificate_bytes(certificate))


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key_path, certificate_path = directory / "ca.key", directory / "ca.crt"
    if key_path.exists() and certificate_path.exists():
        key, certificate = _load(key_path, certificate_path)
        if _lives(certificate) and certificate.public_key() == key.public_key():
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"WeftKit local authority {os.urandom(4).hex()}"
    certificate = (
        _builder(name, AUTHORITY_DAYS, key.public_key(), None)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(key_path, _key_bytes(key))
    _write(certificate_path, _certificate_bytes(certificate))
    return certificate, key


def _builder(
    common_name: str, days: int, public_key: ec.EllipticCurvePublicKey, issuer: x509.Name | None
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(public_host: str, handles: Iterable[str]) -> list[x509.GeneralName]:
    names = [*LOCAL_NAMES, *(f"{handle}.localhost" for handle in handles)]
    addresses = list(LOCAL_ADDRESSES)
    try:
        addresses.append(str(ipaddress.ip_address(public_host)))
    except ValueError:
        names += [public_host, f"*.{public_host}"]
    return [
        *(x509.DNSName(name) for name in dict.fromkeys(names)),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in dict.fromkeys(addresses)),
    ]


def _is_good(path: Path, names: list[x509.GeneralName], authority: x509.Certificate) -> bool:
    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    key, certificate = _load(path.with_suffix(".key"), path)
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        certificate.issuer == authority.subject
        and certificate.public_key() == key.public_key()  # a crash may leave one new, one old
        and set(names) <= set(present)
        and _lives(certificate)
    )


def _load(key_path: Path, path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, x509.load_pem_x509_certificate(path.read_bytes())


def _lives(certificate: x509.Certificate) -> bool:
    """Say whether it holds now and for a while; it may have been made while the clock was wrong."""
    now = dt.datetime.now(dt.UTC)
    ends = certificate.not_valid_after_utc - dt.timedelta(days=RENEW_DAYS)
    return certificate.not_valid_before_utc <= now < ends


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """Replace a file; keys are for our user only, and certificates may be shown to anybody."""
    write_atomically(path, content, mode=0o600 if path.suffix == ".key" else 0o644)
