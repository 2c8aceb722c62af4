"""The first message of a TLS client, read before anything is answered (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

Pure functions of bytes. What they are given is the start of the client's stream, whole: call again with more of it, not with
the rest. Values that are not understood, GREASE (RFC 8701) among them, are kept as they came.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, Literal

MAX_HELLO_BYTES = 65536
# A limit on fragmentation, since every call walks all records again; real clients use one to three.
MAX_RECORDS = 256

_RECORD_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_MAX_RECORD_BYTES = 1 << 14

# Alert descriptions, RFC 8446 section 6.
_UNEXPECTED_MESSAGE = 10
_RECORD_OVERFLOW = 22
_ILLEGAL_PARAMETER = 47
_DECODE_ERROR = 50
_PROTOCOL_VERSION = 70

EXT_SERVER_NAME = 0
EXT_SUPPORTED_GROUPS = 10
EXT_EC_POINT_FORMATS = 11
EXT_SIGNATURE_ALGORITHMS = 13
EXT_ALPN = 16
EXT_SUPPORTED_VERSIONS = 43
EXT_ENCRYPTED_CLIENT_HELLO = 0xFE0D

# Not a full check of host names: what could not be logged, compared with a policy or put into a certificate is refused.
_SNI = re.compile(rb"[A-Za-z0-9_.:-]{1,255}")
_HTTP_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_HTTP_TARGETS = (b"/", b"* ", b"http://", b"https://")

Sniffed = Literal["tls", "http", "ssh", "sslv2", "other"]


class NeedMore(enum.Enum):
    """The type of `NEED_MORE`, which says that the bytes so far are the start of something that may yet be well-formed."""

    NEED_MORE = "need more"


NEED_MORE: Final = NeedMore.NEED_MORE


class MalformedHello(ValueError):
    """The client's first bytes are no ClientHello; `alert` is the description to send in a fatal alert."""

    def __init__(self, message: str, alert: int) -> None:
        super().__init__(message)
        self.alert = alert


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers, in the order it was sent; numbers are the registry's code points.

    `versions` is supported_versions, `()` from clients before TLS 1.3. `sni` is in lower case, without trailing dot. `alpn`
    maps bytes to characters one to one (Latin-1). With `has_ech`, `sni` is the outer name. `raw_length` counts the bytes
    from the first record header to the end of the record in which the hello ends.
    """

    legacy_version: int
    versions: tuple[int, ...]
    sni: str | None
    alpn: tuple[str, ...]
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    groups: tuple[int, ...]
    point_formats: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    has_ech: bool
    session_id_length: int
    raw_length: int


def parse_client_hello(data: bytes | bytearray | memoryview) -> ClientHello | Literal[NeedMore.NEED_MORE]:
    """Reassemble and parse the ClientHello at the start of `data`; what follows it is not looked at.

    Raises `MalformedHello` as soon as no continuation could be a ClientHello of at most `MAX_HELLO_BYTES`.
    """
    whole = _reassemble(bytes(data))
    if whole is None:
        return NEED_MORE
    message, raw_length = whole
    return _parse_message(_Cursor(message, 0, len(message)), raw_length)


def sniff(first_bytes: bytes | bytearray | memoryview) -> Sniffed | Literal[NeedMore.NEED_MORE]:
    """Tell which protocol a client begins to speak. Silence, and clients that let the server speak first, stay `NEED_MORE`.

    1. Nothing yet: more is needed.
    2. A handshake record of any 3.x version: TLS.
    3. A two-byte SSLv2 header, message type 1 and a version: an SSLv2-style hello.
    4. ``SSH-``: SSH (RFC 4253 section 4.2).
    5. A method token, a space, and a target in origin, asterisk or absolute form, or any target of CONNECT: HTTP.
    6. Everything else.
    """
    data = bytes(first_bytes[:64])
    if not data:
        return NEED_MORE
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
        return NEED_MORE if token.end() < 32 else "other"
    if not rest.startswith(b" "):
        return "other"
    target = rest[1:9].lower()
    if token.group() == b"CONNECT" and target:
        return "http"
    if target.startswith(_HTTP_TARGETS):
        return "http"
    return NEED_MORE if any(form.startswith(target) for form in _HTTP_TARGETS) else "other"


def _reassemble(data: bytes) -> tuple[bytes, int] | None:
    """Join the handshake bytes of the records; None when the message is not whole yet."""
    message = bytearray()
    at = 0
    for _ in range(MAX_RECORDS):
        header = data[at : at + 5]
        _check_record_header(header)
        if len(header) < 5:
            return None
        length = int.from_bytes(header[3:5])
        fragment = data[at + 5 : at + 5 + length]
        message += fragment
        total = _message_length(message)
        if len(fragment) < length:
            return None
        at += 5 + length
        if total is not None and len(message) >= total:
            return bytes(message[4:total]), at
    raise MalformedHello(f"ClientHello spread over more than {MAX_RECORDS} records", _DECODE_ERROR)


def _check_record_header(header: bytes) -> None:
    if header and header[0] != _RECORD_HANDSHAKE:
        raise MalformedHello(f"record of type {header[0]} where a ClientHello was due", _UNEXPECTED_MESSAGE)
    if len(header) > 1 and header[1] != 3:
        raise MalformedHello(f"record version {header[1]}.x is not TLS", _PROTOCOL_VERSION)
    if len(header) == 5:
        length = int.from_bytes(header[3:5])
        if length > _MAX_RECORD_BYTES:
            raise MalformedHello(f"record of {length} bytes", _RECORD_OVERFLOW)
        if length == 0:
            raise MalformedHello("empty handshake record", _UNEXPECTED_MESSAGE)


def _message_length(message: bytearray) -> int | None:
    """Return the length of the handshake message with its header, or None while the header is not whole."""
    if message and message[0] != _CLIENT_HELLO:
        raise MalformedHello(f"handshake message of type {message[0]} where a ClientHello was due", _UNEXPECTED_MESSAGE)
    if len(message) < 4:
        return None
    length = int.from_bytes(message[1:4])
    if length > MAX_HELLO_BYTES:
        raise MalformedHello(f"ClientHello of {length} bytes; at most {MAX_HELLO_BYTES} are read", _DECODE_ERROR)
    return 4 + length


class _Cursor:
    """Reads forward in a part of a message; reading past its end is a decode error."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self._at = start
        self._end = end

    def has_more(self) -> bool:
        return self._at < self._end

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def take(self, size: int) -> bytes:
        start = self._skip(size)
        return self._data[start : self._at]

    def take_rest(self) -> bytes:
        return self.take(self._end - self._at)

    def vector(self, length_size: int, minimum: int = 0) -> _Cursor:
        """Open the vector that begins here with a length of `length_size` bytes, and step over it."""
        length = self.uint(length_size)
        if length < minimum:
            raise MalformedHello(f"vector of {length} bytes where {minimum} are the least", _DECODE_ERROR)
        start = self._skip(length)
        return _Cursor(self._data, start, self._at)

    def uints(self, size: int) -> tuple[int, ...]:
        """Read all that is left as numbers of `size` bytes."""
        data = self.take_rest()
        if len(data) % size:
            raise MalformedHello(f"list of {len(data)} bytes, not a multiple of {size}", _DECODE_ERROR)
        return tuple(int.from_bytes(data[at : at + size]) for at in range(0, len(data), size))

    def finish(self, what: str) -> None:
        if self._at != self._end:
            raise MalformedHello(f"{self._end - self._at} bytes too many in {what}", _DECODE_ERROR)

    def _skip(self, size: int) -> int:
        start = self._at
        if start + size > self._end:
            raise MalformedHello("a length in the ClientHello points past its end", _DECODE_ERROR)
        self._at = start + size
        return start


def _parse_message(body: _Cursor, raw_length: int) -> ClientHello:
    legacy_version = body.uint(2)
    body.take(32)
    session_id_length = body.uint(1)
    if session_id_length > 32:
        raise MalformedHello(f"session id of {session_id_length} bytes", _DECODE_ERROR)
    body.take(session_id_length)
    ciphers = body.vector(2, minimum=2).uints(2)
    body.vector(1, minimum=1)
    extensions: dict[int, _Cursor] = {}
    if body.has_more():  # TLS 1.2 and older may end here
        listed = body.vector(2)
        body.finish("the ClientHello")
        while listed.has_more():
            code = listed.uint(2)
            if code in extensions:
                raise MalformedHello(f"extension {code} sent twice", _ILLEGAL_PARAMETER)
            extensions[code] = listed.vector(2)
    return ClientHello(
        legacy_version=legacy_version,
        versions=_list_of(extensions, EXT_SUPPORTED_VERSIONS, length_size=1, item_size=2),
        sni=_server_name(extensions.get(EXT_SERVER_NAME)),
        alpn=_protocol_names(extensions.get(EXT_ALPN)),
        ciphers=ciphers,
        extensions=tuple(extensions),
        groups=_list_of(extensions, EXT_SUPPORTED_GROUPS, length_size=2, item_size=2),
        point_formats=_list_of(extensions, EXT_EC_POINT_FORMATS, length_size=1, item_size=1),
        signature_algorithms=_list_of(extensions, EXT_SIGNATURE_ALGORITHMS, length_size=2, item_size=2),
        has_ech=EXT_ENCRYPTED_CLIENT_HELLO in extensions,
        session_id_length=session_id_length,
        raw_length=raw_length,
    )


def _list_of(extensions: dict[int, _Cursor], code: int, *, length_size: int, item_size: int) -> tuple[int, ...]:
    """Read the extension that is one list of numbers; an absent one is an empty list."""
    extension = extensions.get(code)
    if extension is None:
        return ()
    items = extension.vector(length_size, minimum=item_size).uints(item_size)
    extension.finish(f"extension {code}")
    return items


def _server_name(extension: _Cursor | None) -> str | None:
    """Read server_name (RFC 6066 section 3): at most one name of type host_name; other types have no defined form."""
    if extension is None:
        return None
    listed = extension.vector(2, minimum=1)
    extension.finish("server_name")
    if listed.uint(1) != 0:
        return None
    name = listed.vector(2, minimum=1)
    raw = name.take_rest()
    if listed.has_more():
        raise MalformedHello("server_name with more than one name", _ILLEGAL_PARAMETER)
    if not _SNI.fullmatch(raw):
        raise MalformedHello(f"server_name {raw[:64]!r} is not a host name", _ILLEGAL_PARAMETER)
    return raw.decode("ascii").lower().removesuffix(".") or None


def _protocol_names(extension: _Cursor | None) -> tuple[str, ...]:
    """Read the ALPN list (RFC 7301 section 3.1); names are opaque bytes, GREASE ones included."""
    if extension is None:
        return ()
    listed = extension.vector(2, minimum=2)
    extension.finish("ALPN")
    names = []
    while listed.has_more():
        names.append(listed.vector(1, minimum=1).take_rest().decode("latin-1"))
    return tuple(names)
