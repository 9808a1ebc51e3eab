"""The environment of the embedded default: the only reader of it in `deploy`.

<home>/secrets/            backup.1, django.key, master.key, pepper.1: hexadecimal, mode 0600
<home>/tls/                our authority and the server certificate
<home>/postgres/ redis/    the control plane's own servers
<home>/instances/ ...      the instance host's (dataplane.host.paths)
<home>/dataplane/          the data plane's snapshot and spools
<home>/state/              what was done already (migrations, bootstrap)
<home>/logs/               one log a process
<home>/connections.json    for people and scripts, mode 0600
<run>/                     sockets and state of what runs; `<home>/run` unless that is too long
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dataplane.cells import CELLS_VARIABLE
from dataplane.files import write_atomically
from dataplane.host import paths
from dataplane.host.binaries import BinaryError, find_postgres_bin, find_redis_server
from deploy.local.privilege import Account, account_for
from engines.kit.settings import Settings, SettingsError, parse

CHECKOUT = Path(__file__).resolve().parents[2]
SECRET_BYTES = {"backup.1": 32, "django.key": 64, "master.key": 32, "pepper.1": 32}
PORT_OFFSET_MAX = 60_000
# The cell that schema engines are in, and the role that owns all of its schemas.
CELL, CELL_DATABASE, CELL_ROLE = "local", "cell", "weftkit_cell"
CONSOLE_PORT_TLS, CONSOLE_PORT_PLAIN, ADMIN_PORT = 8443, 8088, 9090
# As root: a directory with other content than ours is not given to another user.
MARKER = "weftkit-home"
# In a path of ours these would end a list or a quoted word of postgresql.conf or redis.conf.
PATH_CHARACTERS_REFUSED = frozenset("\"'\\,:")
# What our processes inherit of the shell, beside WEFTKIT_* and what weftkit.toml names: the rest is
# the operator's, and may be secret.
INHERITED = frozenset({"LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ"})
INHERITED_PREFIXES = ("LC_", "PYTHON", "WEFTKIT_")


class HomeError(Exception):
    """The environment, weftkit.toml or a directory cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Home:
    """All that `deploy.local` knows about one installation."""

    root: Path
    run_dir: Path
    account: Account | None  # whom root runs everything as; None: as we are
    config: Path | None
    settings: Settings
    port_offset: int
    bind: str
    public_host: str
    postgres_bin: Path
    redis_server: Path
    inherited: Mapping[str, str]  # of the environment that we were started with

    @property
    def connections_file(self) -> Path:
        """Where the bootstrap writes every connection."""
        return self.root / "connections.json"

    @property
    def logs(self) -> Path:
        """The directory of all logs."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """The directory of what was done already."""
        return self.root / "state"

    @property
    def secrets(self) -> Path:
        """The directory of the secrets' files."""
        return self.root / "secrets"

    @property
    def tls(self) -> Path:
        """The directory of our own certificates."""
        return self.root / "tls"

    @property
    def postgres_socket_dir(self) -> Path:
        """Where the control plane's PostgreSQL listens."""
        return self.run_dir / "pg"

    @property
    def redis_socket(self) -> Path:
        """Where the control plane's Redis listens."""
        return self.run_dir / "redis.sock"

    @property
    def has_tls(self) -> bool:
        """Whether listeners speak TLS."""
        return self.settings.tls.enabled

    @property
    def certificate_files(self) -> tuple[Path, Path, Path]:
        """Return certificate, key, and the authority that clients trust."""
        given = self.settings.tls
        if given.cert_file and given.key_file:
            return Path(given.cert_file), Path(given.key_file), Path(given.cert_file)
        return self.tls / "server.crt", self.tls / "server.key", self.tls / "ca.crt"

    @property
    def console_port(self) -> int:
        """The port of dashboard and API, offset included."""
        plain_or_tls = CONSOLE_PORT_TLS if self.has_tls else CONSOLE_PORT_PLAIN
        return plain_or_tls + self.port_offset

    @property
    def admin_port(self) -> int:
        """The port of the data plane's metrics and health, offset included."""
        return ADMIN_PORT + self.port_offset

    def database_url(self, user: str) -> str:
        """Return the control database's URI for one role."""
        return f"postgresql://{user}@/weftkit?host={quote(str(self.postgres_socket_dir))}"

    @property
    def cell_url(self) -> str:
        """The URI of the cell: a database beside the control plane's, with an owner of its own."""
        where = quote(str(self.postgres_socket_dir))
        return f"postgresql://{CELL_ROLE}@/{CELL_DATABASE}?host={where}"

    def environment(self) -> dict[str, str]:
        """Return the environment contract of every WeftKit process."""
        certificate, key, authority = self.certificate_files
        tls = {
            "WEFTKIT_TLS_CERT": str(certificate),
            "WEFTKIT_TLS_KEY": str(key),
            "WEFTKIT_TLS_CA_PUBLIC": str(authority),
            "WEFTKIT_TLS_CA": self.settings.tls.ca_file,
        }
        given = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "WEFTKIT_LOG_LEVEL": self.settings.server.log_level,
        }
        ours = {
            "WEFTKIT_HOME": str(self.root),
            "WEFTKIT_RUN_DIR": str(self.run_dir),
            "WEFTKIT_CONFIG": str(self.config or ""),
            "WEFTKIT_PORT_OFFSET": str(self.port_offset),
            "WEFTKIT_BIND": self.bind,
            "WEFTKIT_PUBLIC_HOST": self.public_host,
            "WEFTKIT_SECRETS_DIR": str(self.secrets),
            "WEFTKIT_DATABASE_URL": self.database_url("weftkit"),
            "WEFTKIT_DATAPLANE_DATABASE_URL": self.database_url("weftkit_dataplane"),
            CELLS_VARIABLE: f"{CELL}={self.cell_url}",
            "WEFTKIT_REDIS_URL": f"unix://{quote(str(self.redis_socket))}",
            "WEFTKIT_POSTGRES_BIN": str(self.postgres_bin),
            "WEFTKIT_REDIS_SERVER": str(self.redis_server),
            "DJANGO_SETTINGS_MODULE": "weftkit_site.settings.local",
            "PYTHONUNBUFFERED": "1",
            # Programs look there for caches and dot files; root's own home is closed to them.
            "HOME": str(self.root),
            **(tls if self.has_tls else dict.fromkeys(tls, "")),
        }
        return {**given, **self.inherited, **ours}


def read_home(environ: Mapping[str, str]) -> Home:
    """Read environment and weftkit.toml. Raises HomeError, PrivilegeError."""
    default = CHECKOUT / "weftkit.toml"
    named = environ.get("WEFTKIT_CONFIG", "")
    config = Path(named).resolve() if named else default if default.exists() else None
    asked = _Asked(environ)
    try:
        settings = parse(config.read_text() if config else "", asked, str(config or "weftkit.toml"))
    except OSError as error:
        raise HomeError(f"cannot read {config}: {error.strerror}") from error
    except SettingsError as error:
        raise HomeError(str(error)) from error
    try:
        postgres_bin = find_postgres_bin(environ.get("WEFTKIT_POSTGRES_BIN", ""))
        redis_server = find_redis_server(environ.get("WEFTKIT_REDIS_SERVER", ""))
    except BinaryError as error:
        raise HomeError(str(error)) from error
    chosen = environ.get("WEFTKIT_HOME") or settings.server.data_dir
    root = _usable((Path(chosen) if chosen else CHECKOUT / ".weftkit").resolve())
    account = account_for(root)
    return Home(
        root=root,
        run_dir=_run_dir(environ, root, account.uid if account else os.geteuid()),
        account=account,
        config=config,
        settings=settings,
        port_offset=_port_offset(environ),
        bind=environ.get("WEFTKIT_BIND") or "127.0.0.1",
        public_host=environ.get("WEFTKIT_PUBLIC_HOST") or "localhost",
        postgres_bin=postgres_bin,
        redis_server=redis_server,
        inherited=_inherited(environ, asked.names),
    )


def make_home(home: Home) -> None:
    """Make the directories and the secrets, as the user that everything runs as.

    Raises HomeError.
    """
    try:
        for directory in (home.root, home.logs, home.state, home.secrets, home.tls):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(home.run_dir)
        for directory in (home.postgres_socket_dir, home.run_dir / "i"):
            directory.mkdir(mode=0o700, exist_ok=True)
        (home.root / MARKER).touch(mode=0o600)
        for name, size in SECRET_BYTES.items():
            make_secret(home.secrets / name, size)
    except OSError as error:
        raise HomeError(f"cannot write {error.filename or home.root}: {error.strerror}") from error


def make_secret(path: Path, size: int) -> None:
    """Write a new random secret in hexadecimal digits unless there is one. Raises OSError."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write_atomically(temporary, f"{secrets.token_hex(size)}\n".encode())
    # A link, not a rename: two that start at once must not end up with two different secrets.
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def is_ours_or_empty(root: Path) -> bool:
    """Say whether a directory may be given to the service account."""
    return not root.exists() or (root / MARKER).exists() or not any(root.iterdir())


class _Asked(dict[str, str]):
    """An environment that remembers which variables weftkit.toml named."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)


def _inherited(environ: Mapping[str, str], named: set[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name in named or name.startswith(INHERITED_PREFIXES)
    }


def _usable(root: Path) -> Path:
    """Return `root` if its path can stand in every file and address that we write it into."""
    refused = [c for c in str(root) if c in PATH_CHARACTERS_REFUSED or not c.isprintable()]
    if refused:
        raise HomeError(f"a path of ours cannot have {refused[0]!r} in it: {root}")
    return root


def _run_dir(environ: Mapping[str, str], root: Path, uid: int) -> Path:
    """Return the run directory: short enough for the longest socket path in it."""
    chosen = environ.get("WEFTKIT_RUN_DIR", "")
    run_dir = _usable(Path(chosen).resolve()) if chosen else root / "run"
    longest = paths.postgres_socket(run_dir, "0" * 32)
    if len(os.fsencode(longest)) <= paths.SOCKET_PATH_BYTES_MAX:
        return run_dir
    if chosen:
        raise HomeError(f"WEFTKIT_RUN_DIR is too long for unix sockets: {run_dir}")
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return Path("/tmp") / f"weftkit-{uid}-{digest}"


def _make_private(directory: Path) -> None:
    """Make a directory of mode 0700, or make sure that an existing one is ours alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = directory.lstat()
    # In /tmp anybody may have been here first.
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        raise HomeError(f"{directory} belongs to somebody else")
    if state.st_mode & 0o077:
        directory.chmod(0o700)


def _port_offset(environ: Mapping[str, str]) -> int:
    text = environ.get("WEFTKIT_PORT_OFFSET", "") or "0"
    if not text.isdigit() or int(text) > PORT_OFFSET_MAX:
        raise HomeError(f"WEFTKIT_PORT_OFFSET is not between 0 and {PORT_OFFSET_MAX}: {text}")
    return int(text)
