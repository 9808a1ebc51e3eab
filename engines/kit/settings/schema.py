"""Every section of weftkit.toml as a frozen dataclass: the field is the key, with kind and default.

The source is `specs/weftkit-api-reference.txt`, "Configuration Reference"; the sections of the
engines that it does not name hold `enabled` and `port`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.kit.records import Role
from engines.kit.settings.catalogue import ENGINES
from engines.kit.settings.keys import (
    PORT_MAX,
    Flag,
    Integer,
    Size,
    Text,
    Texts,
    key,
    required_key,
)

# RFC 7518 section 3.2: an HS256 key is at least as long as the hash.
JWT_SECRET_BYTES_MIN = 32

_ADDRESS = Text(
    pattern=r"[A-Za-z0-9.\-]{1,253}:[0-9]{1,5}|\[[0-9A-Fa-f:.]{2,45}\]:[0-9]{1,5}", form="host:port"
)


class SettingsError(Exception):
    """weftkit.toml cannot be used; `str` is `weftkit.toml:12: unknown key ...`."""

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")
        self.path = path
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Server:
    """[server]: this node. An empty `data_dir` means $WEFTKIT_HOME."""

    name: str = key(Text(), "weftkit")
    data_dir: str = key(Text(), "")
    log_level: str = key(Text(choices=("trace", "debug", "info", "warn", "error")), "info")


@dataclass(frozen=True, slots=True)
class User:
    """[[auth.users]]: a credential in every instance of the tenant `default`."""

    # What every protocol can carry: PostgreSQL cuts at 63 bytes, basic authorisation ends at ":".
    username: str = required_key(
        Text(
            pattern=r"[A-Za-z0-9_][A-Za-z0-9_.@\-]{0,62}",
            form="up to 63 letters, digits or _ . @ -, the first a letter, digit or _",
        )
    )
    password: str = required_key(Text(is_secret=True))
    roles: tuple[str, ...] = key(
        Texts(Text(choices=tuple(role.value for role in Role)), count_min=1), ("read",)
    )

    @property
    def role(self) -> Role:
        """The strongest of the roles; each includes the weaker ones."""
        return max((Role(name) for name in self.roles), key=list(Role).index)


@dataclass(frozen=True, slots=True)
class Auth:
    """[auth]: how clients of the tenant `default` prove who they are."""

    method: str = key(Text(choices=("password", "jwt", "mtls")), "password")
    jwt_secret: str = key(Text(is_secret=True, bytes_min=JWT_SECRET_BYTES_MIN), "")
    users: tuple[User, ...] = ()


@dataclass(frozen=True, slots=True)
class Tls:
    """[tls]: for all listeners. Without files the embedded default uses its own certificates."""

    enabled: bool = key(Flag(), True)
    cert_file: str = key(Text(), "")
    key_file: str = key(Text(), "")
    ca_file: str = key(Text(), "")


@dataclass(frozen=True, slots=True)
class EngineSection:
    """What every engine's section holds. The default port comes from the catalogue."""

    port: int = required_key(Integer(1, PORT_MAX))
    enabled: bool = key(Flag(), True)


@dataclass(frozen=True, slots=True)
class Relational(EngineSection):
    """[relational]. `pool_port` is where clients share connections."""

    pool_port: int = key(Integer(1, PORT_MAX), 6432)
    max_connections: int = key(Integer(1, 1_000_000), 10_000)
    max_memory_bytes: int = key(Size(low=16 * 2**20), 4 * 2**30)
    wal_fsync: bool = key(Flag(), True)


@dataclass(frozen=True, slots=True)
class Keyvalue(EngineSection):
    """[keyvalue]. `anonymous` accepts any non-empty access key for the tenant `default`."""

    anonymous: bool = key(Flag(), False)


@dataclass(frozen=True, slots=True)
class Inmemory(EngineSection):
    """[inmemory]."""

    max_memory_bytes: int = key(Size(low=2**20), 2**30)
    eviction_policy: str = key(Text(choices=("lru", "lfu", "noeviction")), "lru")


@dataclass(frozen=True, slots=True)
class Vector(EngineSection):
    """[vector]."""

    max_index_bytes: int = key(Size(low=2**20), 8 * 2**30)


@dataclass(frozen=True, slots=True)
class Filestore(EngineSection):
    """[filestore]. An empty `storage` means a folder below the data directory."""

    storage: str = key(Text(), "")
    max_size: int = key(Size(), 100 * 2**30)


@dataclass(frozen=True, slots=True)
class Distribution:
    """[distribution]: checked, but not supported yet."""

    enabled: bool = key(Flag(), False)
    role: str = key(Text(choices=("primary", "replica")), "primary")
    peers: tuple[str, ...] = key(Texts(_ADDRESS), ())


@dataclass(frozen=True, slots=True)
class Cdc:
    """[cdc]: checked, but not supported yet."""

    enabled: bool = key(Flag(), False)
    emitter: str = key(Text(choices=("kafka", "redis", "webhook", "nats")), "kafka")
    topic: str = key(Text(), "weftkit.changes")
    broker: str = key(Text(), "")


# Those named here hold more than `enabled` and `port`.
ENGINE_SECTIONS: dict[str, type[EngineSection]] = dict.fromkeys(ENGINES, EngineSection) | {
    "filestore": Filestore,
    "inmemory": Inmemory,
    "keyvalue": Keyvalue,
    "relational": Relational,
    "vector": Vector,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole weftkit.toml. `given` holds the keys that the file sets, as `section.key`."""

    server: Server
    auth: Auth
    tls: Tls
    botpress: EngineSection
    cloudant: EngineSection
    document: EngineSection
    filestore: Filestore
    graph: EngineSection
    inmemory: Inmemory
    keyvalue: Keyvalue
    markdown: EngineSection
    relational: Relational
    typedb: EngineSection
    unison: EngineSection
    vector: Vector
    distribution: Distribution
    cdc: Cdc
    given: frozenset[str] = frozenset()

    def engine(self, name: str) -> EngineSection:
        """Return the section of the engine `name`; raises KeyError for other names."""
        if name not in ENGINES:
            raise KeyError(name)
        section = getattr(self, name)
        assert isinstance(section, EngineSection)
        return section

    def pool_port(self, name: str) -> int:
        """Return the port where clients of the engine `name` share connections; 0 for none."""
        section = self.engine(name)
        return section.pool_port if isinstance(section, Relational) else 0

    def is_given(self, section: str, name: str) -> bool:
        """Say whether the file sets the key itself: then it is stronger than a plan's figure."""
        return f"{section}.{name}" in self.given
