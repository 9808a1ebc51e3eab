"""CIDR lists, and whether an address is in one. An empty list lets everyone in."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from tenants.core.errors import invalid_field

CIDRS_MAX = 200


def cidrs_clean(values: Sequence[str], *, field: str) -> list[str]:
    """Return the networks in canonical form, each once; refuse what is none."""
    if len(values) > CIDRS_MAX:
        raise invalid_field(field, f"at most {CIDRS_MAX} networks")
    found = []
    for value in values:
        try:
            found.append(str(ip_network(value.strip())))
        except ValueError as error:
            raise invalid_field(field, f"{value!r} is no network: {error}") from error
    return list(dict.fromkeys(found))


def address_allowed(address: str, cidrs: Sequence[str]) -> bool:
    """Say whether `address` may come in."""
    if not cidrs:
        return True
    try:
        seen = ip_address(address)
    except ValueError:
        return False
    # A dual-stack listener reports IPv4 clients as ::ffff:a.b.c.d.
    seen = getattr(seen, "ipv4_mapped", None) or seen
    networks = [ip_network(cidr) for cidr in cidrs]
    return any(seen.version == network.version and seen in network for network in networks)
