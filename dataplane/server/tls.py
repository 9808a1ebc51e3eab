"""TLS of all listeners: one context from the certificate's files, replaced as a whole on SIGHUP.

A handshake never fails because of the name that a client asks for (SNI): names route, they do not
authenticate, and clients behind tunnels ask for names of their own. Certificates of clients are
taken where a CA is configured, and demanded by the sign-in of instances with auth_method `mtls`.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from weakref import WeakKeyDictionary

from dataplane.config import TlsFiles
from engines.kit.ports import Tls

_CERTIFICATE_END = "-----END CERTIFICATE-----"


class TlsContext:
    """The server's side of TLS."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        # The name belongs to one handshake; the SSL object dies with its connection.
        self._server_names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        self.context, self._certificate = self._load()

    def reload(self) -> None:
        """Read the files again; connections that exist keep what they have.

        Raises OSError (ssl.SSLError included) and changes nothing if the files cannot be used.
        """
        self.context, self._certificate = self._load()

    def facts(self, transport: asyncio.BaseTransport) -> Tls:
        """Return what the handshake of this transport said."""
        connection = transport.get_extra_info("ssl_object")
        peer = transport.get_extra_info("peercert") or {}
        return Tls(
            server_name=self._server_names.get(connection, ""),
            common_name=_common_name(peer),
            server_certificate=self._certificate,
        )

    def _load(self) -> tuple[ssl.SSLContext, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._files.certificate, self._files.key)
        if self._files.ca is not None:
            context.load_verify_locations(self._files.ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        context.sni_callback = self._remember_name
        return context, _first_certificate(self._files.certificate)

    def _remember_name(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        if name and isinstance(connection, ssl.SSLObject):
            self._server_names[connection] = name.lower()


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
