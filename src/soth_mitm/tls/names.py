"""The names that certificates carry: host names as A-labels and IP addresses."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator

from soth_mitm.addresses import normalise_host

# Tags and the object identifier of a certificate's alternative names (RFC 5280 section 4.2.1.6), in DER
_SEQUENCE, _OCTET_STRING, _EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0x30, 0x04, 0xA3, 0x82, 0x87
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")

HostName = str | ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(maxsize=4096)
def parse_name(name: str, *, wildcard: bool = False) -> HostName:
    """Return the canonical form of a host name or an IP address (brackets and zone are taken off an IPv6 one).

    An IPv4-mapped IPv6 address stays one, unlike in a policy: a client that connects to it compares its 16 bytes with the certificate.

    With `wildcard` the leftmost label may be `*`, before two further ones at least. Raises `ValueError` for what no certificate can name.
    """
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    star, rest = ("*.", bare[2:]) if wildcard and bare.startswith("*.") else ("", bare)
    rest = rest.partition("%")[0]
    try:
        host = normalise_host(rest)
    except ValueError as error:
        raise ValueError(f"the name {name[:64]!r} {error}") from None
    address = _address(host)
    if star:
        if address is not None or "." not in host:
            raise ValueError(f"the name {name[:64]!r} has a wildcard where none may be")
        return star + host
    if address is None:
        return host
    return ipaddress.IPv6Address(rest) if ":" in rest else address


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def alternative_names(certificate: bytes) -> tuple[str, ...]:
    """Return the DNS names and IP addresses among the alternative names of a certificate in DER, in its order.

    These are facts to show, not conditions: what cannot be read is left out, and nothing is raised because of what is in it.
    """
    names: list[str] = []
    for tag, content in _inside(certificate, _SEQUENCE, _SEQUENCE, _EXTENSIONS, _SEQUENCE):
        if tag != _SEQUENCE or not content.startswith(_SUBJECT_ALT_NAME):
            continue
        for kind, value in _inside(content, _OCTET_STRING, _SEQUENCE):
            name = _readable(kind, value)
            if name is not None:
                names.append(name)
    return tuple(names)


def _readable(kind: int, value: bytes) -> str | None:
    if kind == _DNS_NAME:
        return value.decode("ascii") if value.isascii() and value else None
    if kind == _IP_ADDRESS and len(value) in (4, 16):
        return str(ipaddress.ip_address(value))
    return None


def _inside(data: bytes, *path: int) -> Iterator[tuple[int, bytes]]:
    """Yield the tags and contents of the elements that lie in the first element with the first tag of `path`, and in it so on."""
    for wanted in path:
        data = next((content for tag, content in _elements(data) if tag == wanted), b"")
    return _elements(data)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of DER that follow one another in `data`, up to the first that is not whole."""
    at = 0
    while at + 2 <= len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size > 0x80:
            count = size - 0x80
            size, at = int.from_bytes(data[at : at + count]), at + count
        elif size == 0x80:
            return
        if at + size > len(data):
            return
        yield tag, data[at : at + size]
        at += size
