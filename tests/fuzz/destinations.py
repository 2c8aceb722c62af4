"""Destinations, targets and names: refused with a ValueError or read to one spelling, and a policy's map agrees with its patterns.

Input: text, UTF-8 where it can be; the first line is a target, each further line a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator

from soth_mitm.addresses import format_host_port, normalise_host, parse_bind_address, parse_target, split_host_port
from soth_mitm.destinations import DestinationMap, DestinationPattern
from soth_mitm.tls.names import parse_name


def run(data: bytes) -> None:
    """Test one input."""
    target, *lines = data.decode("utf-8", "surrogateescape" if data[:1] == b"!" else "replace").split("\n")
    patterns = [pattern for line in lines[:16] if (pattern := read_pattern(line)) is not None]
    check_spellings(target)
    try:
        host, port = parse_target(target)
    except ValueError as error:
        assert str(error).startswith(("is ", "has ")), error
        return
    assert 1 <= port <= 65535
    assert parse_target(format_host_port(host, port)) == (host, port), "a spelling that is not the last one"
    exact = DestinationPattern(host, port)
    assert exact.matches(host, port)
    # no HTTP request names a zone, so a pattern with one is refused
    assert read_pattern(str(exact)) == (None if "%" in host else exact)
    table = DestinationMap((pattern, pattern) for pattern in patterns)
    found = table.get(host, port)
    matching = [pattern for pattern in patterns if pattern.matches(host, port)]
    assert (found is None) == (not matching), "the map and its patterns disagree"
    assert found is None or found == min(matching, key=lambda pattern: (rank(pattern), patterns.index(pattern)))


def rank(pattern: DestinationPattern) -> int:
    """Order patterns by how exact they are."""
    return 2 if pattern.is_glob else 0 if pattern.port is not None else 1


def read_pattern(text: str) -> DestinationPattern | None:
    """Read a pattern, and see that it reads back from its own text."""
    try:
        pattern = DestinationPattern.parse(text)
    except ValueError as error:
        assert str(error).startswith(("is ", "has ")), error
        return None
    assert DestinationPattern.parse(str(pattern)) == pattern
    assert pattern.is_glob or pattern.matches(pattern.host, pattern.port or 1)
    return pattern


def check_spellings(text: str) -> None:
    """Whatever is accepted is accepted in its own output as well, unchanged."""
    for read, write in ((split_host_port, None), (normalise_host, normalise_host), (parse_bind_address, None), (parse_name, parse_name)):
        try:
            found = read(text)
        except ValueError as error:
            assert str(error)
            continue
        if write is not None:
            assert write(str(found)) == found, "a spelling that is not the last one"


def seeds() -> Iterator[bytes]:
    """Targets with patterns that have to do with them, and texts that are refused."""
    patterns = (
        "*.example.com:443\napi.example.com:*\nAPI.Example.com:443\n*:80\na*b*c.example:*\n[::1]:8080\n127.0.0.1:*\nbücher.example:443"
    )
    for target in (
        "api.example.com:443",
        "axbxc.example:1",
        "BÜCHER.example.:443",
        "xn--bcher-kva.example:443",
        "faß.example:443",
        "[2001:DB8::0:1]:65535",
        "[::ffff:127.0.0.1]:80",
        "127.1:80",
        "0x7f000001:80",
        "1.2.3.4:0",
        "::1:80",
        "example.com",
        "https://example.com:443",
        "[::1%eth0]:80",
        "a。b．c:1",
        "*.example.com:443",
        "a_b-c.example:80",
        "[::1]:443\n[:*]:1",
    ):
        yield f"{target}\n{patterns}".encode()
    yield b"!\xff\xfe.example:443\n*\xff:443"
