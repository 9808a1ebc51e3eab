"""The settings of a data plane: the environment and weftkit.toml, read once and frozen.

No other module of `dataplane` reads the environment (the instance host has its own settings).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataplane.cells import CELLS_VARIABLE, cells_from
from engines import registry
from engines.kit.contract import EngineSpec
from engines.kit.settings import ENGINES, Settings, SettingsError, parse

ADMIN_PORT = 9090
# sysexits.h: the configuration is wrong; starting again will not help by itself.
EXIT_CONFIG = 78
# A token carries the number of its worker in eight bits (server/forward.py).
WORKERS_MAX = 256
# ACLs of Redis and master keys are made from these; shorter ones would be guessable.
SECRET_BYTES_MIN = 16


class ConfigError(Exception):
    """The environment lacks something or says something impossible; the message names it."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate of all listeners is; `ca` verifies certificates of clients."""

    certificate: Path
    key: Path
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Every wait and every queue of one worker has its bound here or beside its own code."""

    connections_max: int = 10_000
    handshakes_max: int = 1_024  # connections that have not signed in yet
    handshakes_per_address_max: int = 512
    handshake_timeout_s: float = 5.0  # first bytes and TLS
    sign_in_timeout_s: float = 15.0  # everything until the relay starts
    backend_connect_s: float = 5.0  # while the host (re)starts an instance's server
    warm_sessions_max: int = 512  # sessions of instances' servers that wait for a client
    warm_idle_s: float = 60.0  # an instance without clients is soon without sessions
    # The caches of a server process only grow; nothing but its end makes it small again.
    warm_age_s: float = 600.0
    cell_sessions_max: int = 16  # sessions of a worker with a cell's PostgreSQL
    cell_wait_s: float = 5.0  # for one of them
    bodies_bytes_max: int = 256 * 1024 * 1024  # of large HTTP bodies that a worker holds
    head_timeout_s: float = 10.0  # from a request's first byte to the end of its headers
    body_timeout_s: float = 60.0  # and to the end of its body
    keep_alive_s: float = 75.0  # without a request on an HTTP connection
    spare_after_s: float = 1.0  # without one, it makes room for a new one of a full instance
    drain_grace_s: float = 15.0  # for requests that are under way at SIGTERM
    linger_s: float = 5.0  # for a peer to take its last bytes


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the worker's background tasks look; tests make them short."""

    compare_s: float = 10.0  # versions of records against the database
    flush_s: float = 5.0  # meter, audit and last-used out to the database
    reconnect_max_s: float = 5.0  # back-off while the control database is away
    look_s: float = 15.0  # for work of instances that is due; longer where there are very many
    snapshot_s: float = 1.0  # at most one write of the last known good in this time


@dataclass(frozen=True, slots=True)
class Config:
    """All that a master and its workers need to know before they start."""

    home: Path
    run_dir: Path
    database_url: str
    redis_url: str
    master_key: bytes
    peppers: Mapping[int, bytes]
    ports: Mapping[str, int]  # engine -> port, offset included
    admin_port: int
    pool_ports: Mapping[str, int] = field(default_factory=dict)  # of engines that have one
    cells: Mapping[str, str] = field(default_factory=dict)  # name -> DSN, for schema engines
    anonymous: frozenset[str] = frozenset()  # engines that let any key in as the tenant `default`
    jwt_secret: str = ""
    # weftkit.toml's users, name -> password: signed requests are checked with the secret itself.
    configured: Mapping[str, str] = field(default_factory=dict, repr=False)
    bind: str = "127.0.0.1"
    workers: int = 1
    log_level: str = "info"
    tls: TlsFiles | None = None
    bounds: Bounds = field(default_factory=Bounds)
    intervals: Intervals = field(default_factory=Intervals)

    @property
    def state_dir(self) -> Path:
        """What must outlive a restart: snapshot, counters, spools."""
        return self.home / "dataplane"

    @property
    def metrics_dir(self) -> Path:
        """The files through which all workers' metrics meet; cleared by the master."""
        return self.run_dir / "metrics"


def enabled_engines(environ: Mapping[str, str] = os.environ) -> tuple[EngineSpec, ...]:
    """Return the registered engines that weftkit.toml does not switch off. Raises ConfigError."""
    settings = _toml(environ)
    return tuple(registry.load(name) for name in registry.names() if settings.engine(name).enabled)


def config_from(engines: Iterable[EngineSpec], environ: Mapping[str, str] = os.environ) -> Config:
    """Read the settings for a data plane that serves `engines`. Raises ConfigError."""
    settings = _toml(environ)
    offset = _integer(environ, "WEFTKIT_PORT_OFFSET", 0, 0, 60_000)
    secrets_dir = Path(_required(environ, "WEFTKIT_SECRETS_DIR"))
    return Config(
        home=Path(_required(environ, "WEFTKIT_HOME")).resolve(),
        run_dir=Path(_required(environ, "WEFTKIT_RUN_DIR")).resolve(),
        database_url=_required(environ, "WEFTKIT_DATAPLANE_DATABASE_URL"),
        redis_url=_required(environ, "WEFTKIT_REDIS_URL"),
        master_key=_secret(secrets_dir / "master.key"),
        peppers=_peppers(secrets_dir),
        ports={spec.name: _port(spec, settings) + offset for spec in engines},
        admin_port=ADMIN_PORT + offset,
        pool_ports={
            spec.name: settings.pool_port(spec.name) + offset for spec in engines if spec.pool_port
        },
        cells=_cells(environ),
        anonymous=frozenset({"keyvalue"} if settings.keyvalue.anonymous else ()),
        jwt_secret=settings.auth.jwt_secret,
        configured={user.username: user.password for user in settings.auth.users},
        bind=environ.get("WEFTKIT_BIND") or "127.0.0.1",
        workers=_integer(environ, "WEFTKIT_WORKERS", os.cpu_count() or 1, 1, WORKERS_MAX),
        log_level=environ.get("WEFTKIT_LOG_LEVEL") or settings.server.log_level,
        tls=_tls(environ, settings),
    )


def _cells(environ: Mapping[str, str]) -> dict[str, str]:
    try:
        return cells_from(environ.get(CELLS_VARIABLE, ""))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _toml(environ: Mapping[str, str]) -> Settings:
    path = environ.get("WEFTKIT_CONFIG", "")
    try:
        return parse(Path(path).read_text() if path else "", environ, path or "weftkit.toml")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def _port(spec: EngineSpec, settings: Settings) -> int:
    return settings.engine(spec.name).port if spec.name in ENGINES else spec.port


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set")
    return value


def _integer(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "")
    try:
        value = int(text) if text else default
    except ValueError as error:
        raise ConfigError(f"{name} is no integer: {text!r}") from error
    if not low <= value <= high:
        raise ConfigError(f"{name} is not between {low} and {high}: {value}")
    return value


def _secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} does not hold hexadecimal digits") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"{path} holds fewer than {SECRET_BYTES_MIN} bytes")
    return secret


def _peppers(secrets_dir: Path) -> dict[int, bytes]:
    """Read every `pepper.<id>`: old ones stay valid for the secrets that were made with them."""
    found = {
        int(path.suffix[1:]): _secret(path)
        for path in sorted(secrets_dir.glob("pepper.*"))
        if path.suffix[1:].isdigit()
    }
    if not found:
        raise ConfigError(f"{secrets_dir} holds no pepper.<number>")
    return found


def _tls(environ: Mapping[str, str], settings: Settings) -> TlsFiles | None:
    """Files given in [tls] win; the environment's are those of the embedded default."""
    if not settings.tls.enabled:
        return None
    certificate = settings.tls.cert_file or environ.get("WEFTKIT_TLS_CERT", "")
    key = settings.tls.key_file or environ.get("WEFTKIT_TLS_KEY", "")
    ca = settings.tls.ca_file or environ.get("WEFTKIT_TLS_CA", "")
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise ConfigError("TLS needs both a certificate and a key")
    return TlsFiles(Path(certificate), Path(key), Path(ca) if ca else None)
