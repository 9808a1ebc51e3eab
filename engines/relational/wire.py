"""PostgreSQL protocol v3: bytes <-> messages, as far as the sign-in and the relay need them.

A message is one byte of kind, a four-byte length that counts itself, and a body. The first message
of a connection has no kind (StartupMessage, CancelRequest, SSLRequest, GSSENCRequest).
https://www.postgresql.org/docs/18/protocol-message-formats.html
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from engines.kit.contract import Preamble
from engines.kit.errors import Reason, RequestError

CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104

PROTOCOL_MAJOR = 3
# 3.2 differs from 3.0 in the length of cancel keys only.
PROTOCOL_MINOR_MAX = 2

# MAX_STARTUP_PACKET_LENGTH of src/include/libpq/pqcomm.h.
STARTUP_BYTES_MAX = 10_000
STARTUP_BYTES_MIN = 8
# PG_MAX_SASL_MESSAGE_LENGTH and PG_MAX_AUTH_TOKEN_LENGTH of src/include/libpq.
SASL_BYTES_MAX = 1024
PASSWORD_BYTES_MAX = 65_535
# What the instance's server may say until it is ready.
GREETING_BYTES_MAX = 256 * 1024

TLS_HANDSHAKE_BYTE = b"\x16"
# As registered with IANA; PostgreSQL demands it of clients that start TLS at once.
ALPN = "postgresql"
HEADER_BYTES = 5
# What a name takes, with its zero: NAMEDATALEN.
NAME_SLICE_BYTES: Final = 64

_PAIR = struct.Struct("!II")
_LENGTH = struct.Struct("!I")
_HEADER = struct.Struct("!cI")


def preamble(data: bytes, is_tls_available: bool) -> Preamble:
    """Decide on a client's first bytes: TLS at once, TLS by SSLRequest, or plain.

    Exactly the request is consumed, so that nothing sent in clear behind an SSLRequest is ever
    taken for a part of the encrypted stream (CVE-2021-23214).
    """
    if data[:1] == TLS_HANDSHAKE_BYTE:
        return Preamble(tls=is_tls_available)
    if data[:1] != b"\0":
        return Preamble()
    if len(data) < _PAIR.size:
        return Preamble(needs=_PAIR.size)
    length, code = _PAIR.unpack_from(data)
    if length != _PAIR.size:
        return Preamble()
    if code == SSL_REQUEST and is_tls_available:
        return Preamble(consume=_PAIR.size, reply=b"S", tls=True)
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        return Preamble(consume=_PAIR.size, reply=b"N", again=True)
    return Preamble()


@dataclass(frozen=True, slots=True)
class Startup:
    """A StartupMessage. `options` are the protocol options (`_pq_.*`) that the client asks for."""

    minor: int
    parameters: Mapping[str, str]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """A CancelRequest: the 64 bits of our BackendKeyData."""

    token: int


def parse_startup(body: bytes) -> Startup | Cancel:
    """Read the first message without its length.

    Raises RequestError: MALFORMED, UNSUPPORTED (another protocol).
    """
    if len(body) < _LENGTH.size:
        raise _malformed("invalid length of startup packet")
    (code,) = _LENGTH.unpack_from(body)
    if code == CANCEL_REQUEST:
        # Protocol 3.2 allows keys of up to 256 bytes; ours have four of pid and four of secret.
        if len(body) != _LENGTH.size + 8:
            raise _malformed("invalid length of cancel request packet")
        return Cancel(int.from_bytes(body[4:], "big"))
    major, minor = code >> 16, code & 0xFFFF
    if major != PROTOCOL_MAJOR:
        raise RequestError(
            Reason.UNSUPPORTED,
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2",
        )
    parameters = dict(_startup_pairs(body[4:]))
    options = tuple(name for name in parameters if name.startswith("_pq_."))
    for name in options:
        del parameters[name]
    return Startup(minor, parameters, options)


def _startup_pairs(data: bytes) -> Iterable[tuple[str, str]]:
    if data[-1:] != b"\0" or (len(data) > 1 and data[-2:] != b"\0\0"):
        raise _malformed("invalid startup packet layout: expected terminator as last byte")
    words = data[:-1].split(b"\0")[:-1]
    if len(words) % 2 or b"" in words[::2]:
        raise _malformed("invalid startup packet layout: expected pairs of name and value")
    texts = [text(word) for word in words]
    return zip(texts[::2], texts[1::2], strict=True)


def text(data: bytes) -> str:
    """Decode what has no declared encoding yet, so that `data_of` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


def data_of(value: str) -> bytes:
    """Encode what `text` decoded, and everything of our own."""
    return value.encode("utf-8", "surrogateescape")


def string_at(data: bytes, position: int, end: int) -> bytes | None:
    """Return the zero-terminated string at `position`; None if it has no end before `end`."""
    if position < end and data[position] == 0:
        return b""
    # Names are short; a slice and a partition are quicker than a search with bounds.
    name, zero, _ = data[position : min(end, position + NAME_SLICE_BYTES)].partition(b"\0")
    if not zero:
        name, zero, _ = data[position:end].partition(b"\0")
    return name if zero else None


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Encode one message."""
    return _HEADER.pack(kind, len(body) + 4) + body


def startup_message(parameters: Mapping[str, str]) -> bytes:
    """Encode the StartupMessage (3.0) that opens the instance server's session."""
    pairs = b"".join(
        data_of(name) + b"\0" + data_of(value) + b"\0" for name, value in parameters.items()
    )
    body = _LENGTH.pack(PROTOCOL_MAJOR << 16) + pairs + b"\0"
    return _LENGTH.pack(len(body) + 4) + body


def cancel_request(key: bytes) -> bytes:
    """Encode a CancelRequest for the body of the server's own BackendKeyData."""
    return _PAIR.pack(8 + len(key), CANCEL_REQUEST) + key


def startup_length(header: bytes) -> int:
    """Return the length of the body that follows the first four bytes; checks the limits first."""
    (length,) = _LENGTH.unpack(header)
    if not STARTUP_BYTES_MIN <= length <= STARTUP_BYTES_MAX:
        raise _malformed("invalid length of startup packet")
    return int(length) - 4


def header(data: bytes, body_bytes_max: int) -> tuple[bytes, int]:
    """Return kind and body length of a message's five header bytes; checks the limit first."""
    kind, length = _HEADER.unpack(data)
    if not 4 <= length <= body_bytes_max + 4:
        raise _malformed("invalid message length")
    return kind, length - 4


def split(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Split whole messages off the front of `data`: their kinds and bodies, and what is left."""
    messages = []
    position = 0
    while len(data) - position >= HEADER_BYTES:
        kind, length = _HEADER.unpack_from(data, position)
        if not 4 <= length <= GREETING_BYTES_MAX:
            raise _malformed("invalid message length")
        end = position + 1 + length
        if end > len(data):
            break
        messages.append((kind, data[position + HEADER_BYTES : end]))
        position = end
    return messages, data[position:]


def fields(body: bytes) -> dict[str, str]:
    """Return the fields of an ErrorResponse or NoticeResponse by their letters."""
    return {text(part[:1]): text(part[1:]) for part in body.split(b"\0") if part}


def error_response(values: Mapping[str, str], kind: bytes = b"E") -> bytes:
    """Encode an ErrorResponse from its fields; those without text are left out."""
    parts = [
        data_of(letter) + data_of(value.replace("\0", "")) + b"\0"
        for letter, value in values.items()
        if value
    ]
    return message(kind, b"".join(parts) + b"\0")


def split_options(text: str) -> list[str]:
    """Split the `options` parameter as pg_split_opts does: blanks separate, a backslash escapes."""
    return [
        re.sub(r"\\(.)", r"\1", word, flags=re.S)
        for word in re.findall(r"(?:[^\s\\]|\\.)+", text, flags=re.S)
    ]


def escape_option(word: str) -> str:
    """Return a word of `options` as `split_options` reads it."""
    return re.sub(r"([\s\\])", r"\\\1", word)


def _malformed(sentence: str) -> RequestError:
    return RequestError(Reason.MALFORMED, sentence)
