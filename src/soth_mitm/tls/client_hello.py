"""What a client begins to speak inside a CONNECT, and the ClientHello when that is TLS.

Pure functions of bytes. What they are given is the start of the client's stream, whole: call again with more of it, not with the rest.
"""

from __future__ import annotations

import enum
import re
from typing import Final, Literal

from soth_mitm._dataplane.client_hello import MAX_HELLO_BYTES, MAX_RECORDS, ClientHello, MalformedHello, read_client_hello

__all__ = [
    "MAX_HELLO_BYTES",
    "MAX_RECORDS",
    "NEED_MORE",
    "ClientHello",
    "MalformedHello",
    "NeedMore",
    "Sniffed",
    "parse_client_hello",
    "sniff",
]

_RECORD_HANDSHAKE = 0x16
_CLIENT_HELLO = 1

_HTTP_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_SNIFFED = 64
_HTTP_TARGETS = (b"/", b"* ", b"http://", b"https://")

Sniffed = Literal["tls", "http", "ssh", "sslv2", "other"]


class NeedMore(enum.Enum):
    """The type of `NEED_MORE`, which says that the bytes so far are the start of something that may yet be well-formed."""

    NEED_MORE = "need more"


NEED_MORE: Final = NeedMore.NEED_MORE


def parse_client_hello(data: bytes | bytearray | memoryview) -> ClientHello | Literal[NeedMore.NEED_MORE]:
    """Reassemble and parse the ClientHello at the start of `data`; what follows it is not looked at.

    Raises `MalformedHello` as soon as no continuation could be a ClientHello of at most `MAX_HELLO_BYTES`.
    """
    hello = read_client_hello(data)
    return NEED_MORE if hello is None else hello


def sniff(first_bytes: bytes | bytearray | memoryview) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    """Tell which protocol a client begins to speak. Silence, and clients that let the server speak first, stay `NEED_MORE`.

    1. Nothing yet: more is needed.
    2. A handshake record of any 3.x version: TLS.
    3. A two-byte SSLv2 header, message type 1 and a version: an SSLv2-style hello.
    4. ``SSH-``: SSH (RFC 4253 section 4.2).
    5. A method token, blanks, and a target in origin, asterisk or absolute form, or any target of CONNECT: HTTP.
    6. The same behind empty lines: HTTP. Servers pass over them, so a request that begins so must not pass unseen.
    7. Everything else.
    """
    data = bytes(first_bytes[:_SNIFFED])
    if not data:
        return NEED_MORE
    if data[0] in b"\r\n":
        begun = bytes(first_bytes).lstrip(b"\r\n")
        if len(first_bytes) - len(begun) >= _SNIFFED:
            return "http"
        return _sniff_http(begun[:_SNIFFED]) if begun else NEED_MORE
    if data[0] == _RECORD_HANDSHAKE:
        return NEED_MORE if len(data) < 2 else "tls" if data[1] == 3 else "other"
    if data[0] & 0x80:
        return _sniff_sslv2(data)
    if data.startswith(b"SSH-"):
        return "ssh"
    return _sniff_http(data)


def _sniff_sslv2(data: bytes) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    if len(data) > 2 and data[2] != _CLIENT_HELLO:
        return "other"
    if len(data) > 3 and data[3] not in (0, 3):
        return "other"
    if len(data) < 5:
        return NEED_MORE
    return "sslv2" if data[3] == 3 or data[4] == 2 else "other"


def _sniff_http(data: bytes) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    token = _HTTP_TOKEN.match(data)
    if token is None:
        return "other"
    rest = data[token.end() :]
    if not rest:
        return NEED_MORE
    target = rest.lstrip(b" \t")[:8].lower()
    if rest[0] not in b" \t":
        return "other"
    if not target:
        # strict parsing refuses more than one blank, and says so
        return NEED_MORE if len(data) < _SNIFFED else "http"
    if token.group() == b"CONNECT":
        return "http"
    if target.startswith(_HTTP_TARGETS):
        return "http"
    return NEED_MORE if any(form.startswith(target) for form in _HTTP_TARGETS) else "other"
