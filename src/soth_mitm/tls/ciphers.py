"""Cipher suites as OpenSSL's cipher strings name them."""

from __future__ import annotations

import ssl

from soth_mitm.errors import InvalidConfigError

# Whatever a string allows: a suite without authentication skips the verification of certificates, one without encryption shows the traffic.
_NEVER = "!aNULL:!eNULL"


def cipher_string(text: str) -> str:
    """Return `text` without the suites that no string can allow."""
    return f"{text}:{_NEVER}"


def permits_http2(version: str | None, cipher: str | None) -> bool:
    """Tell whether HTTP/2 may be spoken over a connection: RFC 9113 section 9.2.2 forbids the weaker suites of TLS 1.2.

    What its appendix A leaves has ephemeral keys and authenticated encryption.
    """
    if version != "TLSv1.2":
        return True
    return cipher is not None and cipher.startswith(("ECDHE-", "DHE-")) and any(mode in cipher for mode in ("GCM", "CHACHA20", "CCM"))


def check_ciphers(text: str | None) -> None:
    """Raise `InvalidConfigError` if `upstream.ciphers` is a string in which OpenSSL finds no suite."""
    if text is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(cipher_string(text))
    except (ssl.SSLError, ValueError):
        raise InvalidConfigError(
            "upstream.ciphers",
            f"{text!r} names no cipher suite of this OpenSSL that authenticates and encrypts; write names with colons between them, as in "
            "`DEFAULT:@SECLEVEL=1`",
        ) from None
