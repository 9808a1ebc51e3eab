"""Rules between keys of weftkit.toml: each check yields what is wrong and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engines.kit.settings.catalogue import ENGINES, RESERVED_PORTS
from engines.kit.settings.positions import Path
from engines.kit.settings.schema import Settings

Finding = tuple[Path, str]


def check_auth(settings: Settings) -> Iterator[Finding]:
    """Each method has what it needs."""
    if settings.auth.method == "jwt" and not settings.auth.jwt_secret:
        yield ("auth", "method"), "auth.method 'jwt' needs auth.jwt_secret"
    if settings.auth.method == "mtls" and not settings.tls.enabled:
        yield ("auth", "method"), "auth.method 'mtls' needs tls.enabled = true"
    if settings.auth.method == "mtls" and not settings.tls.ca_file:
        yield ("auth", "method"), "auth.method 'mtls' needs tls.ca_file"


# Users that every Redis server of an instance has: our own, and Redis's, which is switched off.
RESERVED_USERS = frozenset({"weftkit", "default"})


def check_users(settings: Settings) -> Iterator[Finding]:
    """User names are unique, and leave the names of generated keys alone."""
    seen: set[str] = set()
    for index, user in enumerate(settings.auth.users):
        place = ("auth", "users", index, "username")
        if user.username in seen:
            yield place, f"user '{user.username}' is declared twice"
        if user.username.startswith("wk_"):
            yield place, "user names that begin with 'wk_' are those of generated keys"
        if user.username in RESERVED_USERS:
            yield place, f"the user name '{user.username}' is reserved"
        seen.add(user.username)


def check_tls(settings: Settings) -> Iterator[Finding]:
    """A certificate comes with its key."""
    if bool(settings.tls.cert_file) != bool(settings.tls.key_file):
        given, missing = (
            ("cert_file", "key_file") if settings.tls.cert_file else ("key_file", "cert_file")
        )
        yield ("tls", given), f"tls.{given} needs tls.{missing}"


def check_ports(settings: Settings) -> Iterator[Finding]:
    """No two enabled engines listen on one port."""
    owners = dict(RESERVED_PORTS)
    # Keys that the file sets come last, so that the line named is one that can be changed.
    for name in sorted(ENGINES, key=lambda name: settings.is_given(name, "port")):
        section = settings.engine(name)
        if not section.enabled:
            continue
        if section.port in owners:
            owner = owners[section.port]
            yield (name, "port"), f"port {section.port} of [{name}] is already that of {owner}"
        owners.setdefault(section.port, f"[{name}]")
    for name in ENGINES:
        port = settings.pool_port(name)
        if settings.engine(name).enabled and port in owners:
            yield (
                (name, "pool_port"),
                f"pool_port {port} of [{name}] is already that of {owners[port]}",
            )


def check_supported(settings: Settings) -> Iterator[Finding]:
    """Sections whose keys are known, and that nothing implements yet."""
    for name in ("distribution", "cdc"):
        if getattr(settings, name).enabled:
            yield (name, "enabled"), f"[{name}] is not supported yet; set enabled = false"


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    check_auth,
    check_users,
    check_tls,
    check_ports,
    check_supported,
)
