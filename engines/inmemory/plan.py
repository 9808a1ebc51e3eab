"""What a role may do inside its instance, as rules of Redis' own ACL, and how a user is set up.

Redis itself refuses with NOPERM. Rules are made of categories; a command is named only if Redis 6.2
has it, because naming an unknown one fails the whole rule; what came later is in `EXTRAS`, whose
failure on an older server does not matter.

Left out for everyone: what reaches beyond the instance or stops it (SHUTDOWN, DEBUG, REPLICAOF,
FAILOVER, MIGRATE, MODULE, CLUSTER, PSYNC), what is the plan's or the host's affair (CONFIG SET,
ACL, SAVE, BGSAVE, BGREWRITEAOF), MONITOR (it halves the server's speed and shows every client's
data), RESTORE (Redis does not check its payload by default), SCRIPT DEBUG (it forks the server, or
stops it for as long as the client likes), and CLIENT PAUSE (it holds up sign-ins, the host and
CLIENT UNPAUSE itself).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.inmemory import wire
from engines.kit.records import Role

SERVICE_USER = b"weftkit"

# Harmless parts of categories that are dangerous or administrative as a whole.
_SESSION = (
    b"+client|caching +client|getname +client|getredir +client|id +client|info +client|reply "
    b"+client|setname +client|tracking +client|trackinginfo +command +acl|whoami +acl|cat +info "
    b"+keys +lastsave +role +select +time +wait"
)
# One by one, because 6.2 cannot take a single one (DEBUG) away.
_SCRIPT = b"-script +script|load +script|exists "
_SUBSCRIBE = b"+subscribe +unsubscribe +psubscribe +punsubscribe +pubsub"
_OPERATE = (
    b"+client|list +client|kill +client|unblock +client|no-evict "
    b"+config|get +flushall +flushdb +swapdb +slowlog|get +slowlog|len +slowlog|reset "
    b"+latency|doctor +latency|history +latency|latest +latency|reset"
)
_READ = (
    b"-@all +@read +@connection +@transaction +@scripting -@write -@admin -@dangerous "
    + _SCRIPT
    + _SUBSCRIBE
    + b" "
    + _SESSION
)
# In Redis 7 only parts of CLUSTER are dangerous.
_WRITE = (
    b"+@all -@admin -@dangerous -cluster +sort "
    + _SCRIPT
    + b"+script|flush +script|kill "
    + _SESSION
)

RULES: Mapping[Role, bytes] = {
    Role.READ: _READ,
    Role.WRITE: _WRITE,
    Role.ADMIN: _WRITE + b" " + _OPERATE,
}
# Redis 7 and Valkey.
EXTRAS: Mapping[Role, bytes] = {
    Role.READ: b"+sort_ro +ssubscribe +sunsubscribe -function|kill",
    Role.WRITE: b"+sort_ro",
    Role.ADMIN: b"+sort_ro +latency|histogram",
}


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a proven credential becomes a user of the instance's server.

    `setup` is what comes first, as the service user; the last of it fails on older servers, which
    does not matter. `auth` then signs the connection in as the user itself.
    """

    username: bytes
    secret: bytes
    role: Role

    @property
    def setup(self) -> tuple[bytes, ...]:
        """AUTH as the service user, the user's rules, and the rules of newer servers."""
        setuser = (b"ACL", b"SETUSER", self.username)
        base = b"reset on >" + self.secret + b" ~* &* " + RULES[self.role]
        extras = EXTRAS[self.role]
        return (
            wire.encode_command(b"AUTH", SERVICE_USER, self.secret),
            wire.encode_command(*setuser, *base.split()),
            wire.encode_command(*setuser, *extras.split()),
        )

    @property
    def auth(self) -> bytes:
        """The AUTH of the user itself."""
        return wire.encode_command(b"AUTH", self.username, self.secret)
