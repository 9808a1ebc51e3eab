"""What we say to a client ourselves, in Redis' own words: all of it before the sign-in is done."""

from __future__ import annotations

OK = b"+OK\r\n"
RESET = b"+RESET\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
HELLO_NOAUTH = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
    b"<proto> AUTH <user> <pass> option can be used to authenticate the client and select the "
    b"RESP protocol version at the same time\r\n"
)
NOPROTO = b"-NOPROTO unsupported protocol version\r\n"


def wrong_arguments(command: str) -> bytes:
    """Say that a command has too few or too many arguments."""
    return f"-ERR wrong number of arguments for '{command}' command\r\n".encode()


def hello_syntax(option: bytes) -> bytes:
    """Say that HELLO does not know an option."""
    name = option.decode("ascii", "replace").encode("ascii", "replace")[:64]
    printable = bytes(byte for byte in name if 32 <= byte < 127)
    return b"-ERR Syntax error in HELLO option '" + printable + b"'\r\n"
