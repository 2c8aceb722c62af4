"""The names that certificates carry: host names as A-labels and IP addresses, in one canonical spelling."""

from __future__ import annotations

import functools
import ipaddress
import re

HostName = str | ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_NAME_BYTES = 253
# Underscores are no host-name characters by RFC 952, but they are in use, and clients do ask for them.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


@functools.lru_cache(maxsize=4096)
def parse_name(name: str, *, wildcard: bool = False) -> HostName:
    """Return the canonical form of a host name or an IP address (brackets and zone are taken off an IPv6 one).

    Host names become lower-case A-labels without the trailing dot; with `wildcard` the leftmost label may be `*`.
    Raises `ValueError` for what no certificate can name.
    """
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        return ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        pass
    ascii_name = _to_ascii(name.removesuffix(".")).lower()
    if len(ascii_name) > MAX_NAME_BYTES:
        raise ValueError(f"host name of {len(ascii_name)} bytes; DNS allows {MAX_NAME_BYTES}: {name[:64]!r}…")
    labels = ascii_name.split(".")
    if wildcard and labels[0] == "*" and len(labels) > 2:
        labels = labels[1:]
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"not a host name: {name!r} (label {label!r})")
    return ascii_name


def _to_ascii(name: str) -> str:
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not a host name: {name!r} ({error})") from error
