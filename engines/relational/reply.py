"""What we say to a client ourselves: everything else is the instance server's own words."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from engines.kit.ports import UsageLine
from engines.relational import wire

AUTHENTICATION_OK = wire.message(b"R", struct.pack("!I", 0))
AUTHENTICATION_CLEARTEXT = wire.message(b"R", struct.pack("!I", 3))

_SASL = 10
_SASL_CONTINUE = 11
_SASL_FINAL = 12


def authentication_sasl(mechanisms: Sequence[str]) -> bytes:
    """Offer the SASL mechanisms."""
    names = b"".join(name.encode() + b"\0" for name in mechanisms)
    return wire.message(b"R", struct.pack("!I", _SASL) + names + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    """Send the server's challenge."""
    return wire.message(b"R", struct.pack("!I", _SASL_CONTINUE) + data)


def authentication_sasl_final(data: bytes) -> bytes:
    """Send the server's own proof."""
    return wire.message(b"R", struct.pack("!I", _SASL_FINAL) + data)


def negotiate_protocol_version(minor: int, unknown_options: Sequence[str]) -> bytes:
    """Say the newest version we speak, not above the client's, and the options not known.

    The field holds major and minor, as PostgreSQL's own servers send it.
    """
    names = b"".join(wire.data_of(name) + b"\0" for name in unknown_options)
    version = wire.PROTOCOL_MAJOR << 16 | minor
    return wire.message(b"v", struct.pack("!II", version, len(unknown_options)) + names)


def backend_key_data(token: int) -> bytes:
    """Give the client its cancel key: the token's upper half as pid, its lower half as secret."""
    return wire.message(b"K", token.to_bytes(8, "big"))


def ready_for_query(status: int) -> bytes:
    """Say that we are ready; `status` is the byte I, T or E."""
    return wire.message(b"Z", bytes((status,)))


def usage_query(lines: Sequence[UsageLine]) -> bytes:
    """Return the statement that stands for SHOW weftkit.usage.

    The server itself answers it, so that order, transactions and formats are its own.
    """
    rows = ", ".join(
        f"('{line.name}', {line.used}, {'NULL' if line.allowed is None else line.allowed}::int8)"
        for line in lines
    )
    # Names and numbers are our own.
    text = f"SELECT name, used::int8, allowed FROM (VALUES {rows}) AS u (name, used, allowed)"  # noqa: S608
    return text.encode()
