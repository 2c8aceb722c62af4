"""Addresses in the form in which kernels compare them."""

from __future__ import annotations

import functools
import socket

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


@functools.lru_cache(maxsize=1024)
def pack_host(host: str) -> bytes:
    """Return `host` in network order: 4 bytes for IPv4 and IPv4-mapped IPv6, 16 for other IPv6 (a `%scope` is left out).

    Raises ValueError for anything that is not an IP address as text.
    """
    numeric = host.partition("%")[0]
    family = socket.AF_INET6 if ":" in numeric else socket.AF_INET
    try:
        packed = socket.inet_pton(family, numeric)
    except OSError as error:
        raise ValueError(f"{host!r} is not an IP address: pass a socket's own address, not a name") from error
    return packed[12:] if packed.startswith(_MAPPED_PREFIX) else packed


def map_to_v6(packed: bytes) -> bytes:
    """Return the 16-byte form of a packed address, IPv4 as IPv4-mapped IPv6."""
    return packed if len(packed) == 16 else _MAPPED_PREFIX + packed


def interface_of(host: str) -> int:
    """Return the interface index that the `%scope` of a link-local address names, 0 without one or if there is none of that name."""
    scope = host.partition("%")[2]
    if not scope or scope.isdecimal():
        return int(scope or 0)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        return 0
