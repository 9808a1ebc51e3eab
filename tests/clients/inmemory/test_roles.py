"""What each role may do through the data plane, command by command; what nobody may; what is shown.

The service's ACL is tested rule by rule against a bare server in tests/engines/inmemory/test_plan;
here it is the printed kind of connection that a customer holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.admin import Admin
from tests.clients.inmemory.test_spec_examples import EXAMPLES, Raw
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

ROLES = ("read", "write", "admin")
# Every command that the specification documents, as its examples use it.
DOCUMENTED = sorted({command for steps in EXAMPLES.values() for command, _ in steps})
BLOCKS = "BLPOP nothing l 5"  # without the push that its example begins with
ADMINS_ALONE = ("FLUSHALL", "FLUSHDB")
# What a reader may use of it.
READS = """
GET TTL MGET STRLEN EXISTS HGET HMGET HGETALL HEXISTS HKEYS HVALS HLEN LRANGE LLEN SISMEMBER
SMEMBERS SCARD SUNION SINTER SDIFF SRANDMEMBER ZRANGE ZRANGEBYSCORE ZRANGEBYLEX ZRANK ZSCORE
ZCARD ZCOUNT XREAD XRANGE XLEN XINFO PING INFO DBSIZE KEYS SCAN SELECT
"""


@pytest.fixture(scope="module")
def rows(admin: Admin) -> dict[str, Connection]:
    """An instance of this module's own, and a credential for each role."""
    owner = admin.new_instance("inmemory", plan="unmetered")
    made = {role: admin.new_credential(owner, role=role) for role in ROLES}
    for row in made.values():
        wait_until(lambda row=row: _signs_in(row), "the credential is published", 5)
    return made


def _signs_in(row: Connection) -> bool:
    try:
        return bool(redis.Redis.from_url(row.uri).ping())
    except redis.RedisError:
        return False


@pytest.fixture(
    params=itertools.product(ROLES, (2, 3)), ids=lambda pair: f"{pair[0]}-resp{pair[1]}"
)
def client(request: pytest.FixtureRequest, rows: dict[str, Connection]) -> Iterator[Raw]:
    """A raw connection of each role in each protocol."""
    role, protocol = request.param
    raw = Raw(rows[role].uri, protocol)
    raw.role = role  # type: ignore[attr-defined]
    yield raw
    raw.close()


def answer(raw: Raw, command: str) -> Any:
    """Return the answer, or the error as its text."""
    try:
        return raw(command)
    except redis.ResponseError as error:
        return f"{type(error).__name__}: {error}"


def test_every_documented_command_is_for_the_roles_that_the_readme_names(
    client: Raw, rows: dict[str, Connection]
) -> None:
    redis.Redis.from_url(rows["admin"].uri).flushall()
    role = client.role  # type: ignore[attr-defined]
    for command in DOCUMENTED:
        if command == BLOCKS:
            continue
        name = command.split()[0]
        least = "read" if name in READS.split() else "admin" if name in ADMINS_ALONE else "write"
        refused = "NoPermissionError" in str(answer(client, command))
        assert refused == (ROLES.index(role) < ROLES.index(least)), (role, command)


FOR_NOBODY = (
    "CONFIG SET maxmemory 0", "CONFIG SET dir /tmp", "CONFIG REWRITE", "CONFIG RESETSTAT",
    "SHUTDOWN NOSAVE", "REPLICAOF 127.0.0.1 6379", "SLAVEOF 127.0.0.1 6379", "FAILOVER",
    "MODULE LIST", "ACL SETUSER x on", "ACL DELUSER weftkit", "ACL LIST",
    "ACL GETUSER weftkit", "ACL USERS", "ACL LOG", "ACL SAVE", "ACL LOAD", "SAVE", "BGSAVE",
    "BGREWRITEAOF", "MIGRATE 127.0.0.1 6379 k 0 1", "RESTORE k 0 x", "MONITOR", "SYNC",
    "PSYNC ? -1", "REPLCONF listening-port 1", "CLUSTER INFO", "CLUSTER MEET 127.0.0.1 6379",
    "CLIENT PAUSE 1000", "CLIENT UNPAUSE", "PFDEBUG DECODE k", "PFSELFTEST",
    "SCRIPT DEBUG YES",
)  # fmt: skip


def test_what_harms_is_permitted_to_nobody(client: Raw) -> None:
    for command in FOR_NOBODY:
        assert str(answer(client, command)).startswith("NoPermissionError"), command
    # Redis 7 asks its settings enable-debug-command and enable-module-command before the ACL.
    for command in ("DEBUG SLEEP 0", "DEBUG RELOAD", "MODULE LOAD /tmp/x.so", "MODULE UNLOAD x"):
        refusal = str(answer(client, command))
        assert "no permissions" in refusal or "command not allowed" in refusal, command
    assert answer(client, "PING") == "PONG"


def test_a_script_may_no_more_than_its_caller(client: Raw) -> None:
    role = client.role  # type: ignore[attr-defined]
    for inner in ("'CONFIG','SET','maxmemory','0'", "'ACL','LIST'", "'BGSAVE'", "'SHUTDOWN'"):
        refused = str(answer(client, f"EVAL return(redis.call({inner})) 0"))
        assert "Error" in refused or "ERR" in refused, inner
    wrote = str(answer(client, "EVAL return(redis.call('SET','from:script','1')) 0"))
    assert (wrote == "OK") == (role != "read")


def test_nothing_shows_the_host_or_another_instance(
    client: Raw, stack: Stack, rows: dict[str, Connection]
) -> None:
    asked = ["INFO everything", "CLIENT INFO", "CLIENT LIST", "SLOWLOG GET 100", "COMMAND INFO get",
             "MEMORY STATS", "LATENCY DOCTOR", "EVAL return(redis.call('INFO')) 0",
             "CONFIG GET *file*", "CONFIG GET unixsocket", "CONFIG GET bind"]  # fmt: skip
    shown = str([answer(client, command) for command in asked])
    foreign = [stack.connection(tenant, "inmemory") for tenant in ("demo", "other")]
    secrets = [str(stack.home), "/usr/", ".venv", "site-packages"]
    for secret in (*secrets, *(row.user for row in foreign), *(row.instance for row in foreign)):
        assert secret not in shown
    assert "executable:/redis-server" in shown
    assert "tcp_port:0" in shown


@pytest.mark.parametrize("protocol", [2, 3])
def test_config_get_shows_no_path_of_the_host(
    stack: Stack, rows: dict[str, Connection], protocol: int
) -> None:
    client = redis.Redis.from_url(rows["admin"].uri, protocol=protocol)
    everything = client.config_get("*")
    assert str(stack.home) not in str(everything)
    assert everything["dir"] == "/"
    assert everything["maxmemory-policy"]
    assert client.config_get("dir") == {"dir": "/"}
    # In a pipeline each reply stays where it was asked for.
    with client.pipeline(transaction=False) as pipe:
        pipe.set("k", "v").config_get("d*").get("k")
        stored, shown, value = pipe.execute()
    assert (stored, shown["dir"], value) == (True, "/", b"v")


def test_config_get_of_the_directory_is_refused_inside_multi(rows: dict[str, Connection]) -> None:
    client = redis.Redis.from_url(rows["admin"].uri)
    with client.pipeline() as pipe, pytest.raises(redis.ResponseError, match="inside MULTI"):
        pipe.set("k", "v").config_get("dir").execute()
    assert client.config_get("maxmemory-policy")


def test_config_get_is_for_the_admin_alone(client: Raw) -> None:
    answered = str(answer(client, "CONFIG GET maxmemory-policy"))
    is_admin = client.role == "admin"  # type: ignore[attr-defined]
    assert ("maxmemory-policy" in answered) == is_admin
    assert answered.startswith("NoPermissionError") != is_admin
