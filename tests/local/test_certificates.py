"""Our own authority: certificates that a strict client accepts, and when they are made anew."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import stat
import threading
from pathlib import Path
from typing import Self

import pytest

from deploy.local import certificates
from deploy.local.certificates import make_certificates


def handshake(directory: Path, server_name: str) -> str:
    """Connect to a TLS server with our certificate as `server_name`; return the version."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(directory / "server.crt", directory / "server.key")
    client_context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    # Also what later Pythons demand of a chain (RFC 5280) by default.
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server_context.wrap_socket(theirs, server_side=True).close()
        except ssl.SSLError:
            theirs.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with client_context.wrap_socket(ours, server_hostname=server_name) as connection:
            return str(connection.version())
    finally:
        ours.close()
        serving.join(10)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "db.example.org",
        "demo-relational.db.example.org",
        "demo-relational.localhost",
        "demo-relational.weftkit.localhost",
    ],
)
def test_client_that_trusts_the_authority_accepts_the_server(tmp_path: Path, name: str) -> None:
    make_certificates(tmp_path, "db.example.org", ["demo-relational"])
    assert handshake(tmp_path, name) == "TLSv1.3"


def test_name_that_is_not_in_the_certificate_is_refused(tmp_path: Path) -> None:
    make_certificates(tmp_path, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="example"):
        handshake(tmp_path, "example.org")


def test_keys_are_private_and_certificates_are_not(tmp_path: Path) -> None:
    make_certificates(tmp_path, "localhost")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}


def test_certificate_stays_until_a_name_is_missing_and_the_authority_stays_always(
    tmp_path: Path,
) -> None:
    make_certificates(tmp_path, "localhost")
    authority, first = (tmp_path / "ca.crt").read_bytes(), (tmp_path / "server.crt").read_bytes()
    make_certificates(tmp_path, "localhost")
    assert (tmp_path / "server.crt").read_bytes() == first
    make_certificates(tmp_path, "192.0.2.7")
    assert (tmp_path / "server.crt").read_bytes() != first
    assert (tmp_path / "ca.crt").read_bytes() == authority
    assert handshake(tmp_path, "192.0.2.7") == "TLSv1.3"


def test_lost_server_key_is_made_anew(tmp_path: Path) -> None:
    make_certificates(tmp_path, "localhost")
    (tmp_path / "server.key").unlink()
    make_certificates(tmp_path, "localhost")
    assert handshake(tmp_path, "localhost") == "TLSv1.3"


def test_key_that_does_not_belong_to_its_certificate_is_made_anew(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other, "localhost")
    make_certificates(tmp_path, "localhost")
    for name in ("server.key", "ca.key"):
        (tmp_path / name).write_bytes((other / name).read_bytes())
        make_certificates(tmp_path, "localhost")
        assert handshake(tmp_path, "localhost") == "TLSv1.3"


@pytest.mark.parametrize("days", [-8, 400, 3640])
def test_certificates_made_at_a_wrong_time_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """The clock was `days` ahead (then it was set right), or it went on by so many."""
    skew = dt.timedelta(days=8 if days < 0 else -days)

    class OtherTime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return super().now(tz) + skew

    with monkeypatch.context() as patch:
        patch.setattr(certificates.dt, "datetime", OtherTime)
        make_certificates(tmp_path, "localhost")
    make_certificates(tmp_path, "localhost")
    assert handshake(tmp_path, "localhost") == "TLSv1.3"
