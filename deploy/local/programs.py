"""The table of all processes: how each is started, after what, when it is ready, how it stops.

Order of start follows `after`; order of stop is the reverse of `stop_stage`. A program without
`is_ready` is ready once it runs; a `once` program is ready once it has ended well.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dataplane.host import paths
from deploy.local import ports, system_postgres, system_redis
from deploy.local.home import CHECKOUT, Home

ANSWER_SECONDS_MAX = 1.0
BOOTSTRAP_SECONDS_MAX = 60
WORKER_PROCESSES = 2

Probe: TypeAlias = Callable[[Home], Awaitable[bool]]
Preparation: TypeAlias = Callable[[Home], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the embedded default."""

    name: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()
    is_ready: Probe | None = None
    prepare: Preparation | None = None
    once: bool = False
    # A `once` program is left out while this stays what it was when it last ended well.
    fingerprint: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    stop_stage: int = 0  # 0 stops first
    # Children of a program that was killed: waited for, or left to end by themselves.
    clears_children: bool = True


def programs(home: Home) -> tuple[Program, ...]:
    """Return every program of this home, each after those that it depends on."""
    return (*_servers(home), *_data_plane(), *_control_plane(home))


def _servers(home: Home) -> tuple[Program, ...]:
    """Return the control plane's own PostgreSQL and Redis."""
    return (
        Program(
            "postgres",
            (str(home.postgres_bin / "postgres"), "-D", str(system_postgres.cluster_dir(home))),
            is_ready=system_postgres.is_ready,
            prepare=system_postgres.prepare,
            stop_signal=signal.SIGINT,  # fast: sessions end, a checkpoint is written
            stop_seconds=30.0,
            stop_stage=2,
        ),
        Program(
            "redis",
            (str(home.redis_server), str(system_redis.configuration(home))),
            is_ready=system_redis.is_ready,
            prepare=system_redis.prepare,
            stop_stage=2,
        ),
    )


def _data_plane() -> tuple[Program, ...]:
    """Return the instance host and the data plane."""
    return (
        Program(
            "host",
            (sys.executable, "-m", "dataplane.host"),
            # Servers of instances that exist need no database; new ones wait for it.
            is_ready=_host_is_settled,
            prepare=_forget_host_state,
            stop_seconds=60.0,
            stop_stage=1,
            clears_children=False,
        ),
        Program(
            "dataplane",
            (sys.executable, "-m", "dataplane"),
            after=("migrate", "redis"),
            is_ready=_dataplane_answers,
            stop_seconds=40.0,
            # Workers of a killed master drain beside the new ones (SO_REUSEPORT).
            clears_children=False,
        ),
    )


def _control_plane(home: Home) -> tuple[Program, ...]:
    """Return everything of Django's."""
    python = sys.executable
    celery = (python, "-m", "celery", "-A", "weftkit_site")
    schema = _schema_fingerprint() + system_postgres.identity(home)
    return (
        Program(
            "migrate",
            (python, "manage.py", "migrate", "--no-input", "-v", "1"),
            after=("postgres",),
            once=True,
            fingerprint=schema,
        ),
        Program(
            "static",
            (python, "manage.py", "collectstatic", "--no-input", "-v", "0"),
            once=True,
            fingerprint=_static_fingerprint(home),
        ),
        Program(
            "worker",
            (*celery, "worker", "--loglevel=info", f"--concurrency={WORKER_PROCESSES}",
             # There is one worker: nobody to greet or to listen to.
             "--without-gossip", "--without-mingle", "--without-heartbeat"),
            after=("migrate", "redis"),
            # A warm stop ends what runs; one that hangs costs nothing, because an operation whose
            # worker was killed is taken up again (design.md section 5).
            stop_seconds=8.0,
        ),
        Program(
            "bootstrap",
            (python, "manage.py", "weftkit_bootstrap", "--output", str(home.connections_file),
             "--wait", str(BOOTSTRAP_SECONDS_MAX),
             *(("--config", str(home.config)) if home.config else ())),
            after=("migrate", "redis"),
            once=True,
            fingerprint=_bootstrap_fingerprint(home, schema),
        ),
        Program(
            "web",
            # Requests are logged by `tenants.core.middleware`, without the tokens in addresses.
            (python, "-m", "weftkit_site.bounded_daphne", "-v", "0", "-e", _web_endpoint(home),
             "weftkit_site.asgi:application"),
            after=("migrate", "redis", "static"),
            is_ready=_web_answers,
        ),
        Program(
            "beat",
            (*celery, "beat", "--loglevel=info", "--pidfile=",
             "--schedule", str(home.state / "beat-schedule")),
            after=("migrate", "redis"),
        ),
    )  # fmt: skip


def _web_endpoint(home: Home) -> str:
    """Return where daphne listens, in Twisted's words (a colon inside a value is escaped)."""
    interface = f"interface={_escaped(home.bind)}"
    if not home.has_tls:
        return f"tcp:{home.console_port}:{interface}"
    certificate, key, _ = home.certificate_files
    return (
        f"ssl:{home.console_port}:{interface}"
        f":privateKey={_escaped(str(key))}:certKey={_escaped(str(certificate))}"
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(":", "\\:")


def _schema_fingerprint() -> str:
    """Return what changes whenever there may be something to migrate."""
    return _digest_of(
        [*CHECKOUT.glob("tenants/*/migrations/*.py"), *CHECKOUT.glob("requirements/*.txt")]
    )


def _static_fingerprint(home: Home) -> str:
    """Return what changes whenever static files may have, ours or a package's, or are gone."""
    ours = [path for path in CHECKOUT.glob("static/**/*") if path.is_file()]
    settings = CHECKOUT.glob("weftkit_site/settings/*.py")
    packages = CHECKOUT.glob("requirements/*.txt")
    return _digest_of([*ours, *settings, *packages]) + _digest_if_there(
        home.root / "static" / "staticfiles.json"
    )


def _digest_of(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _bootstrap_fingerprint(home: Home, schema: str) -> str:
    """Return what changes whenever the bootstrap could have something to do or to print."""
    facts = [
        schema,
        hashlib.sha256(home.config.read_bytes()).hexdigest() if home.config else "",
        sorted(ports.engine_ports(home).items()),
        home.console_port,
        home.public_host,
        [str(path) for path in home.certificate_files] if home.has_tls else [],
        _digest_if_there(home.connections_file),
        # `env:NAME` values change without the file. The digest is kept on disk, so it is keyed.
        [(user.username, user.password, user.roles) for user in home.settings.auth.users],
        [home.settings.auth.method, home.settings.auth.jwt_secret],
    ]
    key = (home.secrets / "master.key").read_bytes()
    return hmac.digest(key, json.dumps(facts).encode(), "sha256").hex()


def _digest_if_there(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


async def _forget_host_state(home: Home) -> None:
    """Remove what a killed host said of itself last."""
    paths.host_state(home.run_dir).unlink(missing_ok=True)


async def _host_is_settled(home: Home) -> bool:
    try:
        state = json.loads(paths.host_state(home.run_dir).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(state["is_settled"] and state["control_database"])


async def _dataplane_answers(home: Home) -> bool:
    # A worker is ready once it listens on every engine's port and knows the records.
    return await _says_ok(home.bind, home.admin_port, "/readyz")


async def _web_answers(home: Home) -> bool:
    return await _takes_connections(home.bind, home.console_port)


async def _takes_connections(bind: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            _, writing = await asyncio.open_connection(_reachable(bind), port)
            writing.close()
    except OSError:
        return False
    return True


async def _says_ok(bind: str, port: int, path: str) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reading, writing = await asyncio.open_connection(_reachable(bind), port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                writing.write(request.encode())
                return b" 200 " in await reading.readline()
            finally:
                writing.close()
    except OSError:
        return False


def _reachable(bind: str) -> str:
    """Return an address to reach a listener at, also if it listens on every address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(bind, bind)
