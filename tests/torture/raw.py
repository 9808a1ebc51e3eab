"""Sessions by hand over plain sockets: SCRAM for relational, AUTH for inmemory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import ssl
import struct

from tests.stack import Connection

SECONDS_MAX = 20.0
READY_FOR_QUERY = b"Z"
SSL_REQUEST = struct.pack("!II", 8, 80877103)


def connect(row: Connection) -> socket.socket:
    """Return a TCP connection to the engine's port."""
    connection = socket.create_connection(("127.0.0.1", row.port), SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def secured(row: Connection) -> socket.socket:
    """Return a TLS connection; whose certificate it is matters to other tests."""
    connection = connect(row)
    if row.engine == "relational":
        connection.sendall(SSL_REQUEST)
        assert read_exactly(connection, 1) == b"S"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Encode a message of the PostgreSQL protocol."""
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(user: str) -> bytes:
    """Encode a StartupMessage of protocol 3.0."""
    return message(b"", struct.pack("!I", 196608) + b"user\0%b\0\0" % user.encode())


def command(*arguments: bytes) -> bytes:
    """Encode a Redis command."""
    parts = [b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Return exactly `size` bytes."""
    data = bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"the stream ended after {len(data)} of {size} bytes"
        data += more
    return bytes(data)


def read_message(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return kind and body of the next PostgreSQL message."""
    kind, length = struct.unpack("!cI", read_exactly(connection, 5))
    return kind, read_exactly(connection, length - 4)


def read_until(connection: socket.socket, kind: bytes) -> bytes:
    """Read messages until one of `kind` comes; return its body."""
    while True:
        found, body = read_message(connection)
        if found == kind:
            return body
        assert found != b"E", body


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes, politely or not."""
    data = bytearray()
    try:
        while more := connection.recv(65536):
            data += more
    except ConnectionResetError:
        pass  # it closed with bytes of ours unread
    return bytes(data)


def scram_first() -> bytes:
    """Return a SASLInitialResponse."""
    bare = b"n,,n=,r=torture"
    return message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(bare)) + bare)


def scram_final(challenge: bytes, password: str) -> bytes:
    """Return the SASLResponse to a server's first message."""
    fields = dict(part.split("=", 1) for part in challenge.decode().split(","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"])
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = b"c=biws,r=" + fields["r"].encode()
    signed = b"n=,r=torture," + challenge + b"," + without_proof
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return message(b"p", without_proof + b",p=" + base64.b64encode(proof))


def _sign_in_relational(connection: socket.socket, row: Connection) -> None:
    connection.sendall(startup(row.user))
    read_until(connection, b"R")
    connection.sendall(scram_first())
    challenge = read_until(connection, b"R")[4:]
    connection.sendall(scram_final(challenge, row.password))
    read_until(connection, READY_FOR_QUERY)


def _sign_in_inmemory(connection: socket.socket, row: Connection) -> None:
    connection.sendall(command(b"AUTH", row.user.encode(), row.password.encode()))
    assert read_exactly(connection, 5) == b"+OK\r\n"


_SIGN_INS = {"relational": _sign_in_relational, "inmemory": _sign_in_inmemory}


def sign_in(row: Connection, *, is_secured: bool = False) -> socket.socket:
    """Return a signed-in session of whichever engine `row` is of."""
    connection = secured(row) if is_secured else connect(row)
    _SIGN_INS[row.engine](connection, row)
    return connection


def reset(connection: socket.socket) -> None:
    """Close with a RST, as a client that crashed or a firewall does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
