"""Where a webhook may go: public addresses over HTTPS, and what an operator allows besides.

Names are resolved here and the connection goes to the very address that was checked: a name that
answers otherwise the second time gains nothing. Redirects are not followed at all.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

URL_CHARACTERS_MAX = 500
ADDRESSES_MAX = 4
PORTS = {"https": 443, "http": 80}
# Ways into IPv4 by an IPv6 address: translation (RFC 6052, 8215), 6to4, Teredo.
TUNNELS = [
    ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
]

Address = IPv4Address | IPv6Address


class TargetError(Exception):
    """The address is not one that webhooks go to; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL: connect to one of `addresses`, call it by `host`."""

    url: SplitResult
    host: str
    port: int
    addresses: tuple[Address, ...]


def url_check(url: str) -> str:
    """Return `url` if its form is right; a literal address is looked at as well."""
    parts, host, _ = _split(url)
    literal = _literal(host)
    if literal is not None:
        _demand_allowed(literal, parts.scheme)
    elif parts.scheme != "https" and not settings.WEBHOOK_NETWORKS:
        raise TargetError("use https")
    return url


async def resolve(url: str) -> Target:
    """Resolve the name and check every address that it has; TargetError, or OSError by DNS."""
    parts, host, port = _split(url)
    literal = _literal(host)
    if literal is not None:
        addresses: list[Address] = [literal]
    else:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(ip_address(str(each[4][0])) for each in found))
    for address in addresses:
        _demand_allowed(address, parts.scheme)
    return Target(parts, host, port, tuple(addresses[:ADDRESSES_MAX]))


def _split(url: str) -> tuple[SplitResult, str, int]:
    if len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise TargetError(f"up to {URL_CHARACTERS_MAX} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetError("not an address of the web") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise TargetError("https://<host>/<path>")
    if parts.username is not None or parts.password is not None:
        raise TargetError("no user and password: messages are signed instead")
    if parts.fragment:
        raise TargetError("no fragment")
    return parts, parts.hostname, port or PORTS[parts.scheme]


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        # `127.1`, `0x7f000001` and `2130706433` are addresses to the system's resolver.
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _demand_allowed(address: Address, scheme: str) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    seen: Address = mapped or address
    if any(seen in network for network in map(ip_network, settings.WEBHOOK_NETWORKS)):
        return
    is_tunnel = any(seen in network for network in TUNNELS)
    if not seen.is_global or seen.is_multicast or is_tunnel:
        raise TargetError(
            f"{seen} is not a public address (WEFTKIT_WEBHOOK_NETWORKS allows networks of your own)"
        )
    if scheme != "https":
        raise TargetError("use https")
