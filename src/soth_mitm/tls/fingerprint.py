"""JA3 and JA4, the two customary digests of what a TLS client offers.

JA3: https://github.com/salesforce/ja3; JA4: FoxIO's technical details of JA4, the TLS client part only. Both leave GREASE out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from soth_mitm.tls.client_hello import EXT_ALPN, EXT_SERVER_NAME, ClientHello

_JA4_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_EMPTY_DIGEST = "000000000000"


def ja3(hello: ClientHello) -> tuple[str, str]:
    """Return the JA3 string and its MD5 as hexadecimal digits."""
    lists = (hello.ciphers, hello.extensions, hello.groups, hello.point_formats)
    text = ",".join([str(hello.legacy_version), *("-".join(str(value) for value in _without_grease(each)) for each in lists)])
    return text, hashlib.md5(text.encode("ascii"), usedforsecurity=False).hexdigest()


def ja4(hello: ClientHello) -> str:
    """Return the JA4 fingerprint, of a client over TCP."""
    ciphers = _without_grease(hello.ciphers)
    extensions = _without_grease(hello.extensions)
    offered = max(_without_grease(hello.versions), default=hello.legacy_version)
    version = _JA4_VERSIONS.get(offered, "00")
    destination = "d" if EXT_SERVER_NAME in extensions else "i"
    counts = f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
    hashed = _hex_list(sorted(code for code in extensions if code not in (EXT_SERVER_NAME, EXT_ALPN)))
    signatures = _hex_list(_without_grease(hello.signature_algorithms))
    if hashed and signatures:
        hashed = f"{hashed}_{signatures}"
    return f"t{version}{destination}{counts}{_alpn_ends(hello.alpn)}_{_digest(_hex_list(sorted(ciphers)))}_{_digest(hashed)}"


def is_grease(value: int) -> bool:
    """Tell whether a 16-bit code point is one of the sixteen reserved by RFC 8701 (0x0a0a, 0x1a1a, … 0xfafa)."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def _without_grease(values: Iterable[int]) -> list[int]:
    return [value for value in values if not is_grease(value)]


def _hex_list(values: Iterable[int]) -> str:
    return ",".join(f"{value:04x}" for value in values)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12] if text else _EMPTY_DIGEST


def _alpn_ends(alpn: tuple[str, ...]) -> str:
    if not alpn:
        return "00"
    first = alpn[0]
    ends = first[0] + first[-1]
    if ends.isascii() and ends.isalnum():
        return ends
    digits = first.encode("latin-1").hex()
    return digits[0] + digits[-1]
