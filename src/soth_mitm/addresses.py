"""Hosts and ports as text: one spelling for each host, one reading of `host:port`.

Nothing here resolves a name. What cannot be read raises `ValueError` with the reason, worded to follow the text at fault.
"""

import functools
import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

# What a resolver accepts as a name, after lower-casing: labels of 63, underscores included because service records use them.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# The address of "all interfaces" is none that a client can connect to.
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LABEL_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
_JOINERS = "\u200c\u200d"
MAX_NAME = 253
DEFAULT_PORTS = {"http": 80, "https": 443}


def split_host_port(text: str) -> tuple[str, str]:
    """Split `host:port` or `[v6]:port` at the right colon; neither part is checked further, the brackets are removed.

    An address in brackets is returned normalised, so that a colon in the host always means IPv6.
    """
    if not text:
        raise ValueError("is empty")
    if "//" in text:
        raise ValueError("is a URL; write only the host and the port, such as `api.example.com:443`")
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError("has no closing `]`")
        if "*" in inner:
            raise ValueError("has `*` inside an IPv6 address; only the port of an address may be `*`")
        host = normalise_host(f"[{inner}]")
        if not rest.startswith(":"):
            raise ValueError(f"has no port; write `{format_host_port(host, 443)}`" if not rest else "has text between `]` and the port")
        return host, rest[1:]
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"has no port; write `{text}:443`")
    if ":" in host:
        raise ValueError("is an IPv6 address without brackets; write `[2001:db8::1]:443`")
    if not host:
        raise ValueError("has no host")
    return host, port


def parse_port(text: str, *, lowest: int = 1) -> int:
    """Return the port that `text` spells in decimal digits, `lowest` to 65535."""
    if not text:
        raise ValueError("has no port")
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"has port `{text}`, which is not a number")
    port = int(text) if len(text) <= 5 else 65536
    if not lowest <= port <= 65535:
        raise ValueError(f"has port {text}, which is not within {lowest}..65535")
    return port


@functools.lru_cache(maxsize=4096)
def normalise_host(host: str) -> str:
    """Return the one spelling of `host` that policies, pools and certificates compare.

    Names are lower-case A-labels without a trailing dot, IPv6 addresses are compressed and without brackets. Every other spelling of an
    IPv4 address would reach the same host past a policy that names it: `::ffff:127.0.0.1` becomes `127.0.0.1`, and what ends in a number
    but has not four decimal parts (`127.1`, `0x7f000001`) is refused.
    """
    if host.startswith("[") and host.endswith("]"):
        return _normalise_ipv6(host[1:-1])
    if ":" in host:
        return _normalise_ipv6(host)
    name = host.lower() if host.isascii() else _to_a_labels(host)
    if name.endswith("."):
        name = name[:-1]
    if not name:
        raise ValueError("has no host")
    if len(name) > MAX_NAME:
        raise ValueError(f"has a host of {len(name)} characters; a name has at most {MAX_NAME}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"has a host that is not a name: {host!r}")
    if _ends_in_number(name):
        try:
            IPv4Address(name)
        except AddressValueError:
            raise ValueError(f"has host `{name}`, neither a name nor an IPv4 address in four decimal parts") from None
    return name


@functools.lru_cache(maxsize=4096)
def parse_target(text: str) -> tuple[str, int]:
    """Return the normalised host and the port of `host:port`, as a CONNECT names it."""
    host, port = split_host_port(text)
    return normalise_host(host), parse_port(port)


@functools.lru_cache(maxsize=4096)
def parse_authority(text: str, default_port: int) -> tuple[str, int]:
    """Return the normalised host and the port of the authority of a URL, or of Host."""
    bracketed_without_port = text.startswith("[") and text.endswith("]")
    if ":" not in text or bracketed_without_port:
        return normalise_host(text), default_port
    host, port = split_host_port(text)
    return (normalise_host(host), default_port) if not port else parse_target(text)


def parse_bind_address(text: str) -> tuple[str, int]:
    """Return the host and the port to listen on; port 0 asks the system for a free one.

    The host must be named: a proxy that listens on every interface by accident serves the whole network.
    """
    if text.startswith(":") and text.count(":") == 1:
        raise ValueError(f"has no host; write `127.0.0.1{text}`, or `0.0.0.0{text}` to listen on every interface")
    if text.isascii() and text.isdigit():
        raise ValueError(f"has no host; write `127.0.0.1:{text}`, or `0.0.0.0:{text}` to listen on every interface")
    if text and ":" not in text and "//" not in text:
        raise ValueError(f"has no port; write `{text}:8080`")
    host, port = split_host_port(text)
    return normalise_host(host), parse_port(port, lowest=0)


def format_host_port(host: str, port: int | str) -> str:
    """Return `host:port` with brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=4096)
def format_authority(host: str, port: int, scheme: str) -> str:
    """Return the authority of a URL, without the port where that is the scheme's own."""
    return format_host_port(host, port) if port != DEFAULT_PORTS[scheme] else f"[{host}]" if ":" in host else host


def refuse_zone(host: str, port: int | str) -> None:
    """Raise `ValueError` for the address of an interface: a zone is about one machine, and no HTTP request names it."""
    address, zone, _ = host.partition("%")
    if zone:
        raise ValueError(f"has a zone, which no client can ask for; write `{format_host_port(address, port)}`")


def is_address(host: str) -> bool:
    """Tell whether a normalised host is an IP address and no name."""
    return ":" in host or _ends_in_number(host)


def is_loopback(host: str) -> bool:
    """Tell whether a normalised host is an address that only this machine reaches; a name is none."""
    return is_address(host) and ip_address(host.partition("%")[0]).is_loopback


def _normalise_ipv6(text: str) -> str:
    if len(text) > MAX_NAME:
        # a zone may have any length, and what is accepted is kept: here, and in what goes by hosts
        raise ValueError(f"has a host of {len(text)} characters; an address has at most {MAX_NAME}")
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise ValueError(f"has `{text}` where an IPv6 address should be") from None
    return str(address.ipv4_mapped or address)


def _ends_in_number(name: str) -> bool:
    """Tell whether resolvers would read `name` as an IPv4 address (WHATWG URL, "ends in a number")."""
    last = name.rpartition(".")[2]
    return last.isdigit() or (last.startswith("0x") and all(digit in "0123456789abcdef" for digit in last[2:]))


def _to_a_labels(host: str) -> str:
    """Encode a host with non-ASCII characters as browsers do (UTS #46, non-transitional).

    The `idna` codec of the standard library is IDNA 2003: it turns `ß` into `ss`, which is somebody else's domain.
    """
    labels = host.translate(_LABEL_DOTS).split(".")
    return ".".join(label.lower() if label.isascii() else _to_a_label(label) for label in labels)


def _to_a_label(label: str) -> str:
    # Lower-cased one by one: `str.lower` of a whole word makes a final sigma, which is another label.
    folded = unicodedata.normalize("NFKC", "".join(character.lower() for character in unicodedata.normalize("NFKC", label)))
    if folded.isascii():
        return folded
    for character in folded:
        if unicodedata.category(character)[0] in "CZ" and character not in _JOINERS:
            raise ValueError(f"has a host with U+{ord(character):04X}, which no name may contain")
        if character.isascii() and not (character.isalnum() or character in "-_"):
            raise ValueError(f"has a host with `{character}` in a label")
    return "xn--" + folded.encode("punycode").decode("ascii")
