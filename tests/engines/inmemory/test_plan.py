"""What each role may do, asked of the server itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis as client_library

from engines.inmemory.plan import EXTRAS, RULES, SignIn
from engines.kit.records import Role

# Command -> the least role that may run it; None for nobody.
LEAST_ROLES: dict[str, Role | None] = {
    "PING": Role.READ,
    "GET k": Role.READ,
    "HGETALL k": Role.READ,
    "KEYS *": Role.READ,
    "SCAN 0": Role.READ,
    "INFO server": Role.READ,
    "DBSIZE": Role.READ,
    "SELECT 1": Role.READ,
    "EVAL return(1) 0": Role.READ,
    "ACL WHOAMI": Role.READ,
    "CLIENT SETNAME x": Role.READ,
    "CLIENT TRACKING off": Role.READ,
    "COMMAND COUNT": Role.READ,
    "MULTI": Role.READ,
    "SUBSCRIBE c": Role.READ,
    "SET k v": Role.WRITE,
    "DEL k": Role.WRITE,
    "SORT k": Role.WRITE,
    "PUBLISH c m": Role.WRITE,
    "XGROUP CREATE k g $ MKSTREAM": Role.WRITE,
    "FLUSHDB ASYNC": Role.ADMIN,
    "FLUSHALL": Role.ADMIN,
    "SWAPDB 0 1": Role.ADMIN,
    "CONFIG GET maxmemory": Role.ADMIN,
    "CLIENT LIST": Role.ADMIN,
    "SLOWLOG GET": Role.ADMIN,
    "CONFIG SET maxmemory 0": None,
    "CONFIG RESETSTAT": None,
    "ACL SETUSER x on": None,
    "ACL LIST": None,
    "BGREWRITEAOF": None,
    "BGSAVE": None,
    "CLUSTER INFO": None,
    "DEBUG SLEEP 0": None,
    "MIGRATE h 1 k 0 1": None,
    "MODULE LIST": None,
    "MONITOR": None,
    "REPLICAOF NO ONE": None,
    "RESTORE k 0 x": None,
    "SAVE": None,
    "SHUTDOWN NOSAVE": None,
    "PSYNC ? -1": None,
}
ORDER = [Role.READ, Role.WRITE, Role.ADMIN]


@pytest.fixture(params=ORDER)
def role(request: pytest.FixtureRequest) -> Role:
    """Each role in turn."""
    role: Role = request.param
    return role


def allows(socket: Path, role: Role, command: str) -> bool:
    """Set a user of this role up and let it run one command on a connection of its own."""
    sign_in = SignIn(f"role_{role}".encode(), b"pw", role)
    with client_library.Redis(unix_socket_path=str(socket)) as direct:
        rules = (*RULES[role].split(), b"reset", b"on", b">pw", b"~*", b"&*", *RULES[role].split())
        direct.execute_command("ACL SETUSER", sign_in.username, *rules)
    with client_library.Redis(
        unix_socket_path=str(socket), username=f"role_{role}", password="pw",
        single_connection_client=True, protocol=2,
    ) as client:  # fmt: skip
        try:
            client.connection.send_command(*command.split(" "))  # type: ignore[union-attr]
            client.connection.read_response()  # type: ignore[union-attr]
        except client_library.exceptions.NoPermissionError:
            return False
        except client_library.ResponseError as error:
            # DEBUG and the like are locked in some versions besides.
            return "not allowed" not in str(error)
    return True


@pytest.mark.parametrize("command", LEAST_ROLES)
def test_a_role_may_do_what_the_table_says(socket: Path, role: Role, command: str) -> None:
    least = LEAST_ROLES[command]
    expected = least is not None and ORDER.index(role) >= ORDER.index(least)
    assert allows(socket, role, command) is expected


def test_a_script_of_a_reader_may_not_write_either(socket: Path) -> None:
    assert allows(socket, Role.READ, "GET k")
    with (
        client_library.Redis(
            unix_socket_path=str(socket), username="role_read", password="pw"
        ) as reader,
        pytest.raises(client_library.ResponseError),
    ):
        reader.eval("return redis.call('set', KEYS[1], 'v')", 1, "k")


def test_setting_up_a_user_is_three_commands_and_then_its_own_auth() -> None:
    sign_in = SignIn(b"wk_a", b"s", Role.READ)
    service, rules, extras = sign_in.setup
    assert service == b"*3\r\n$4\r\nAUTH\r\n$7\r\nweftkit\r\n$1\r\ns\r\n"
    assert b"SETUSER\r\n$4\r\nwk_a\r\n$5\r\nreset\r\n$2\r\non\r\n$2\r\n>s\r\n" in rules
    assert extras.endswith(EXTRAS[Role.READ].split()[-1] + b"\r\n")
    assert sign_in.auth == b"*3\r\n$4\r\nAUTH\r\n$4\r\nwk_a\r\n$1\r\ns\r\n"
