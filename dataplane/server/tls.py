"""TLS of all listeners: contexts from the certificate's files, replaced as a whole on SIGHUP.

A handshake never fails because of the name that a client asks for (SNI): names route, they do not
authenticate, and clients behind tunnels ask for names of their own. Certificates of clients are
taken where a CA is configured, and demanded by the sign-in of instances with auth_method `mtls`.
An engine with an application protocol (ALPN) has a context of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from dataplane.config import TlsFiles
from engines.kit.ports import Tls

_CERTIFICATE_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What a context presents."""

    der: bytes
    channel_binding: bytes


class TlsContext:
    """The server's side of TLS."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        # The name belongs to one handshake; the SSL object dies with its connection.
        self._server_names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        # A handshake that a reload overtakes has presented its own context's certificate.
        self._certificates: WeakKeyDictionary[ssl.SSLContext, _Certificate] = WeakKeyDictionary()
        self._contexts = {"": self._load("")}

    def context(self, alpn: str = "") -> ssl.SSLContext:
        """Return the context for new handshakes that select `alpn` where the client offers it."""
        if alpn not in self._contexts:
            self._contexts[alpn] = self._load(alpn)
        return self._contexts[alpn]

    def reload(self) -> None:
        """Read the files again; connections that exist keep what they have.

        Raises OSError (ssl.SSLError included) and changes nothing if the files cannot be used.
        """
        self._contexts = {alpn: self._load(alpn) for alpn in self._contexts}

    def facts(self, transport: asyncio.BaseTransport) -> Tls:
        """Return what the handshake of this transport said."""
        connection = transport.get_extra_info("ssl_object")
        peer = transport.get_extra_info("peercert") or {}
        certificate = self._certificates[connection.context]
        return Tls(
            server_name=self._server_names.get(connection, ""),
            common_name=_common_name(peer),
            server_certificate=certificate.der,
            channel_binding=certificate.channel_binding,
        )

    def _load(self, alpn: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._files.certificate, self._files.key)
        if self._files.ca is not None:
            context.load_verify_locations(self._files.ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        if alpn:
            context.set_alpn_protocols([alpn])
        context.sni_callback = self._remember_name
        der = _first_certificate(self._files.certificate)
        self._certificates[context] = _Certificate(der, end_point_binding(der))
        return context

    def _remember_name(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        if name and isinstance(connection, ssl.SSLObject):
            self._server_names[connection] = name.lower()


def selected_alpn(transport: asyncio.BaseTransport) -> str:
    """Return the application protocol that the handshake agreed on; "" if none."""
    return transport.get_extra_info("ssl_object").selected_alpn_protocol() or ""


def end_point_binding(certificate: bytes) -> bytes:
    """Return the channel binding data `tls-server-end-point` of a certificate (DER).

    RFC 5929 section 4.1: the certificate's hash, by the hash function of its signature, or SHA-256
    in place of MD5 and SHA-1. Not defined, and b"" here, for signatures without one (Ed25519).
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        algorithm = parsed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return b""
    if algorithm is None:
        return b""
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return parsed.fingerprint(algorithm)


def _first_certificate(path: Path) -> bytes:
    """Return the server's own certificate as DER: the first one of its chain."""
    text = path.read_text()
    start = text.index("-----BEGIN CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[start : text.index(_CERTIFICATE_END) + 25])


def _common_name(peer: dict[str, tuple[tuple[tuple[str, str], ...], ...]]) -> str:
    """Return the common name of a certificate that the handshake verified."""
    for group in peer.get("subject", ()):
        for name, value in group:
            if name == "commonName":
                return value
    return ""
