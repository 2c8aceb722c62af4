"""JA3 and JA4, the two customary digests of what a TLS client offers.

JA3: https://github.com/salesforce/ja3; JA4: FoxIO's technical details of JA4, the TLS client part only. Both leave GREASE out.
"""

from __future__ import annotations

import functools
import hashlib

from soth_mitm._dataplane.wire.client_hello import ClientHello
from soth_mitm._dataplane.wire.fingerprint import is_grease, ja3_text, ja4_texts

__all__ = ["is_grease", "ja3", "ja4"]

_JA4_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_EMPTY_DIGEST = "000000000000"
# A program offers the same again and again. What is longer than any real client's offer is not kept.
_KEPT_DIGESTS = 512
_KEPT_TEXT = 1024


def ja3(hello: ClientHello) -> tuple[str, str]:
    """Return the JA3 string and its MD5 as hexadecimal digits."""
    text = ja3_text(hello)
    return text, _md5(text) if len(text) <= _KEPT_TEXT else _md5.__wrapped__(text)


def ja4(hello: ClientHello) -> str:
    """Return the JA4 fingerprint, of a client over TCP."""
    parts = ja4_texts(hello)
    assemble = _ja4 if len(parts[-1]) + len(parts[-2]) <= _KEPT_TEXT else _ja4.__wrapped__
    return assemble(*parts, hello.first_alpn)


@functools.lru_cache(_KEPT_DIGESTS)
def _ja4(ciphers: int, extensions: int, offered: int, has_name: bool, sorted_ciphers: str, hashed: str, first_alpn: bytes) -> str:
    version = _JA4_VERSIONS.get(offered, "00")
    destination = "d" if has_name else "i"
    counts = f"{min(ciphers, 99):02}{min(extensions, 99):02}"
    return f"t{version}{destination}{counts}{_alpn_ends(first_alpn)}_{_sha256(sorted_ciphers)}_{_sha256(hashed)}"


@functools.lru_cache(_KEPT_DIGESTS)
def _md5(text: str) -> str:
    return hashlib.md5(text.encode("ascii"), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12] if text else _EMPTY_DIGEST


def _alpn_ends(first: bytes) -> str:
    if not first:
        return "00"
    ends = first[:1] + first[-1:]
    if ends.isalnum():
        return ends.decode("ascii")
    digits = first.hex()
    return digits[0] + digits[-1]
