"""What a client begins to speak inside a CONNECT, and the ClientHello when that is TLS.

Pure functions of bytes. What they are given is the start of the client's stream, whole: call again with more of it, not with the rest.
"""

from __future__ import annotations

import enum
import re
from typing import Final, Literal

from soth_mitm._dataplane.wire.client_hello import MAX_HELLO_BYTES, ClientHello, MalformedHello, read_client_hello

__all__ = [
    "HTTP2_PREFACE",
    "MAX_HELLO_BYTES",
    "NEED_MORE",
    "ClientHello",
    "MalformedHello",
    "NeedMore",
    "Sniffed",
    "may_become",
    "parse_client_hello",
    "parse_tunnelled_hello",
    "sniff",
]

# RFC 8446 section 5.1: change_cipher_spec, alert, handshake, application_data
_RECORD_TYPES = bytes(range(0x14, 0x18))
_CLIENT_HELLO = 1

# Longer than any identification of SSH (RFC 4253 section 4.2). So many bytes without a blank are refused, as the beginning of a request.
_SNIFFED = 256
# What servers pass over before a request line. Then a word of any visible bytes, since many servers split the line and look no closer.
_BLANKS_AND_WORD = re.compile(rb"[ \t\n\v\f\r]*([^\x00-\x20\x7f]*)")
_BLANKS = re.compile(rb"[\t\v\f\r ]*")
# The second word, a comment, is not what any server takes for a target.
_SSH = re.compile(rb"SSH-(?:2\.0|1\.\d+)-[!-~]+(?: (?![/*])(?!\S*://)[!-~]+)?\r?\n")

# RFC 9113 section 3.4
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Sniffed = Literal["tls", "http", "http2", "sslv2", "other"]


class NeedMore(enum.Enum):
    """The type of `NEED_MORE`, which says that the bytes so far are the start of something that may yet be well-formed."""

    NEED_MORE = "need more"


NEED_MORE: Final = NeedMore.NEED_MORE


def parse_client_hello(data: bytes | bytearray | memoryview) -> ClientHello | Literal[NeedMore.NEED_MORE]:
    """Reassemble and parse the ClientHello at the start of `data`; what follows it is not looked at.

    Raises `MalformedHello` as soon as no continuation could be a ClientHello of at most `MAX_HELLO_BYTES`, its record headers included.
    """
    hello = read_client_hello(data)
    return NEED_MORE if hello is None else hello


def parse_tunnelled_hello(data: bytes | bytearray | memoryview) -> ClientHello | Literal[NeedMore.NEED_MORE] | None:
    """Read what the most lenient server would take for a ClientHello; None when no server would.

    Versions of records, empty records and warnings before the hello make no difference. Raises `MalformedHello` for a hello of which
    servers may read different things.
    """
    try:
        hello = read_client_hello(data, lenient=True)
    except MalformedHello as error:
        if error.is_hello:
            raise
        return None
    return NEED_MORE if hello is None else hello


def sniff(first_bytes: bytes | bytearray | memoryview) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    """Tell which protocol a client begins to speak. Silence, and what may yet become one or the other, is `NEED_MORE`.

    1. Nothing yet: more is needed.
    2. The type of any TLS record, whatever its version: TLS. Some servers do not look at the version, and pass over alerts.
    3. A two-byte SSLv2 header, message type 1 and a version: an SSLv2-style hello.
    4. A whole line ``SSH-2.0-software comments``, the identification of SSH (RFC 4253 section 4.2): other, although a blank is in it.
    5. The preface of HTTP/2, whole: HTTP/2 in clear text. Anything else that begins like it is HTTP, and no good request.
    6. A word, a blank, and whatever follows: HTTP, also behind blanks and empty lines. Servers differ in what they take for a method, a
       target or a blank; strict parsing answers all that is none.
    7. Everything else: lines of one word, and control characters.
    """
    data = bytes(first_bytes[:_SNIFFED])
    if not data:
        return NEED_MORE
    if data[0] in _RECORD_TYPES:
        return "tls"
    if data[0] & 0x80 and (kind := _sniff_sslv2(data)) != "other":
        return kind
    if data.startswith(b"SSH-"):
        if b"\n" not in data and len(data) < _SNIFFED:
            return NEED_MORE
        if _SSH.match(data):
            return "other"
    if data.startswith(HTTP2_PREFACE):
        return "http2"
    if HTTP2_PREFACE.startswith(data):
        return NEED_MORE
    return _sniff_http(data)


def may_become(first_bytes: bytes) -> Sniffed:
    """Tell what first bytes that have not ended are to be refused as, when no more will come."""
    if first_bytes[0] in _RECORD_TYPES:
        return "tls"
    return "sslv2" if first_bytes[0] & 0x80 and _sniff_sslv2(first_bytes) is NEED_MORE else "http"


def _sniff_sslv2(data: bytes) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    if len(data) > 2 and data[2] != _CLIENT_HELLO:
        return "other"
    if len(data) > 3 and data[3] not in (0, 3):
        return "other"
    if len(data) < 5:
        return NEED_MORE
    return "sslv2" if data[3] == 3 or data[4] == 2 else "other"


def _sniff_http(data: bytes) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    begun = _BLANKS_AND_WORD.match(data)
    assert begun is not None
    rest = data[begun.end() :]
    if not rest:
        return "http" if len(data) == _SNIFFED else NEED_MORE
    if not begun[1]:
        return "other"
    if rest[0] in b" \t":
        return "http"
    if rest[0] not in b"\v\f\r":
        return "other"
    # RFC 9112 section 3: these count as blanks for some. Binary protocols have them too, and go on with other control characters.
    following = rest[_BLANKS.match(rest).end() :][:1]  # type: ignore[union-attr]
    if not following:
        return "http" if len(data) == _SNIFFED else NEED_MORE
    return "http" if following > b" " and following != b"\x7f" else "other"
