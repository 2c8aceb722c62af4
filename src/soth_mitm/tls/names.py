"""The names that certificates carry: host names as A-labels and IP addresses, spelt as policies and pools spell them."""

from __future__ import annotations

import functools
import ipaddress

from soth_mitm.addresses import normalise_host

HostName = str | ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(maxsize=4096)
def parse_name(name: str, *, wildcard: bool = False) -> HostName:
    """Return the canonical form of a host name or an IP address (brackets and zone are taken off an IPv6 one).

    With `wildcard` the leftmost label may be `*`, before two further ones at least. Raises `ValueError` for what no certificate can name.
    """
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    star, rest = ("*.", bare[2:]) if wildcard and bare.startswith("*.") else ("", bare)
    try:
        host = normalise_host(rest.partition("%")[0])
    except ValueError as error:
        raise ValueError(f"the name {name[:64]!r} {error}") from None
    address = _address(host)
    if star:
        if address is not None or "." not in host:
            raise ValueError(f"the name {name[:64]!r} has a wildcard where none may be")
        return star + host
    return host if address is None else address


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
