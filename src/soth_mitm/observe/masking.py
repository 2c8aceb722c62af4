"""`Masker`: takes credentials out of what a sink keeps. Heads, URLs, JSON and forms, whole or in pieces.

>>> masker = Masker(key=bytes(32))
>>> masker.value(b"Authorization", b"Bearer 0123456789abcdef").decode()
'Bearer masked #55b8a6d5 · 16 bytes'

What is masked is said in docs/sinks.md. Values are known by their names: a key in the middle of a text is not found. Content has to be
without its content coding, and is given from its first byte on. Nothing that a peer sends raises.
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from soth_mitm.observe.flow_record import Fields
from soth_mitm.observe.masked_names import BODY_NAMES, HEAD_FIELDS, QUERY_NAMES, HeadField, NameSet, check_names
from soth_mitm.observe.masked_text import FormMask, TextMask, TextNames
from soth_mitm.observe.masked_value import CUT, ValueMask

_SCHEMES = frozenset(
    (
        *(b"basic", b"bearer", b"digest", b"negotiate", b"ntlm", b"token", b"apikey", b"dpop", b"hawk", b"hoba", b"mutual", b"oauth"),
        *(b"privatetoken", b"scram-sha-1", b"scram-sha-256", b"vapid", b"gnap", b"bot", b"key", b"sharedkey", b"sharedaccesssignature"),
        *(b"aws4-hmac-sha256", b"aws4-ecdsa-p256-sha256", b"goog4-rsa-sha256", b"googlelogin"),
    )
)
_SCHEMES_OF_ANY_FIELD = (b"bearer ", b"basic ", b"aws4-hmac-sha256 ")
_FIRST_OF_SCHEMES = b"bBaA"
_WITH_CREDENTIALS = re.compile(rb"([A-Za-z][\w-]*)([ \t]+)(.+)", re.DOTALL)
# A name in a URL, and in a URL that is the value of a parameter
_PARAMETER = re.compile(r"(?:[?&;#]|%3[FfBb]|%26|%23)((?:[\w.\-~$+*\[\]]|%(?:2[DdEe]|5[FfBbDd]|[46][1-9A-Fa-f]|[57][0-9Aa]))+)(=|%3[Dd])")
_ENDS = {"=": re.compile(r"""[&#\s"'<>,]"""), "%": re.compile(r"""[&#\s"'<>,]|%26|%23""")}
_USER = re.compile(r"(?<=://)[^/\s@?#]*(?=@)")
_SUBPROTOCOL_KEYS = re.compile(rb"(openai-insecure-api-key\.|base64url\.bearer\.authorization\.k8s\.io\.)([^,]+)", re.IGNORECASE)
_FORM = "application/x-www-form-urlencoded"
_BINARY = ("image/", "audio/", "video/", "font/")
_BY_LINES = ("text/event-stream", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json")
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)


class ContentMask(Protocol):
    """Masks one content that arrives in pieces."""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what is certain now. It holds 64 KiB of a value at most."""

    def finish(self, data: bytes = b"") -> bytes:
        """Take the last piece, which ends the content or is where it was cut; return all that is left."""


class _Nothing:
    """Lets a content pass."""

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self, data: bytes = b"") -> bytes:
        return data


class _Withheld:
    """Stands for a content that has an encoding in which nothing can be found."""

    def __init__(self) -> None:
        self._is_told = False

    def feed(self, data: bytes) -> bytes:
        if self._is_told or not data:
            return b""
        self._is_told = True
        return CUT.encode()

    def finish(self, data: bytes = b"") -> bytes:
        return self.feed(data)


class Masker:
    """Masks by name.

    `names` are more names of head fields, parameters and fields of JSON, case ignored, `*` for any part of one. `key` is that of the
    tags, 16 to 64 bytes, to be kept secret: with it values can be tried; None: there are no tags. `unmasked`: nothing is masked.
    `ValueError` and `TypeError` say what is wrong with an argument.
    """

    def __init__(self, names: Iterable[str] = (), *, key: bytes | None, unmasked: bool = False) -> None:
        more = check_names(names)
        self.unmasked = unmasked
        self._mask = ValueMask(key)
        self._head: dict[bytes, HeadField] = {name.encode(): kind for name, kind in HEAD_FIELDS.items()}
        for name in more:
            self._head.setdefault(name.lower().encode(), HeadField.WHOLE)
        self._head_globs = NameSet(name for name in more if "*" in name) if any("*" in name for name in more) else None
        self._query = NameSet((*QUERY_NAMES, *more))
        self._form = NameSet((*QUERY_NAMES, *BODY_NAMES, *more))
        self._text = TextNames((*BODY_NAMES, *more), (*QUERY_NAMES, *more))

    # ---- heads

    def head(self, fields: Fields) -> Fields:
        """Return the fields of a head or of trailers, masked; the same object if there is nothing to mask."""
        if self.unmasked:
            return fields
        changed: list[tuple[bytes, bytes]] | None = None
        for at, (name, value) in enumerate(fields):
            if self._head_globs is None and name.lower() not in self._head and b"=" not in value and value[:1] not in _FIRST_OF_SCHEMES:
                # nearly all of them
                continue
            masked = self.value(name, value)
            if masked != value:
                changed = list(fields) if changed is None else changed
                changed[at] = name, masked
        return fields if changed is None else tuple(changed)

    def value(self, name: bytes, value: bytes) -> bytes:
        """Return the value of one field of a head, masked."""
        if self.unmasked or not value:
            return value
        name = name.lower()
        kind = self._head.get(name)
        if kind is None:
            if self._head_globs is not None and name.decode("latin-1") in self._head_globs:
                return self._mask.in_head(value)
            if value[:17].lower().startswith(_SCHEMES_OF_ANY_FIELD):
                return self._credentials(value)
            if b"=" in value and (b"?" in value or b"&" in value or b"#" in value):
                return self._url(value)
            return value
        match kind:
            case HeadField.CREDENTIALS:
                return self._credentials(value)
            case HeadField.COOKIE:
                return b"; ".join(self._cookie(each) for each in value.split(b";"))
            case HeadField.SET_COOKIE:
                cookie, semicolon, attributes = value.partition(b";")
                return self._cookie(cookie) + semicolon + attributes
            case HeadField.URL:
                return self._url(value)
            case HeadField.SUBPROTOCOL:
                return _SUBPROTOCOL_KEYS.sub(lambda found: found[1] + self._mask.in_head(found[2]), value)
            case HeadField.WHOLE:
                return self._mask.in_head(value)

    def _credentials(self, value: bytes) -> bytes:
        parts = _WITH_CREDENTIALS.fullmatch(value)
        if parts is None or parts[1].lower() not in _SCHEMES:
            return self._mask.in_head(value)
        return parts[1] + parts[2] + self._mask.in_head(parts[3])

    def _cookie(self, pair: bytes) -> bytes:
        name, equals, value = pair.strip().partition(b"=")
        if not equals:
            return self._mask.in_head(name) if name else b""
        return name + equals + (self._mask.in_head(value) if value else b"")

    # ---- URLs

    def path(self, path: str) -> str:
        """Return a target in origin form, or a whole URL, with the values of such parameters masked, percent-encoded as they have to be."""
        if self.unmasked or ("=" not in path and "@" not in path and "%3" not in path):
            return path
        if "@" in path:
            path = _USER.sub(self._user, path)
        out: list[str] = []
        done = at = 0
        while (found := _PARAMETER.search(path, at)) is not None:
            # a value may be a URL that has parameters of its own
            at = found.end()
            if unquote_name(found[1]) in self._query:
                end = _ENDS[found[2][0]].search(path, at)
                stop = len(path) if end is None else end.start()
                value = path[at:stop]
                out += (path[done:at], self._mask.in_url(value.encode("utf-8", "surrogateescape")).decode() if value else "")
                done = at = stop
            else:
                at -= len(found[2])
        return path if not done else "".join(out) + path[done:]

    def _user(self, found: re.Match[str]) -> str:
        name, colon, password = found[0].partition(":")
        secret = (password if colon else name).encode("utf-8", "surrogateescape")
        masked = self._mask.in_url(secret).decode() if secret else ""
        return f"{name}:{masked}" if colon else masked

    def _url(self, value: bytes) -> bytes:
        # latin-1 has a character for each byte
        text = value.decode("latin-1")
        masked = self.path(text)
        return value if masked == text else masked.encode("latin-1")

    # ---- content

    def stream(self, media_type: str = "") -> ContentMask:
        """Return what masks a content in pieces. `media_type` is its Content-Type, with the parameters of that."""
        essence = media_type.partition(";")[0].strip().lower()
        if self.unmasked or essence.startswith(_BINARY):
            return _Nothing()
        if essence == _FORM:
            return FormMask(self._form, self._mask)
        if "utf-16" in media_type.lower() or "utf-32" in media_type.lower():
            return _Withheld()
        new = partial(TextMask, self._text, self._mask)
        if essence == "multipart/form-data":
            boundary = _BOUNDARY.search(media_type)
            named = "" if boundary is None else boundary[1] or boundary[2]
            return new(boundary=named.encode("latin-1", "replace"))
        return new(by_lines=essence in _BY_LINES)

    def body(self, content: bytes, media_type: str = "") -> bytes:
        """Return a whole content, or the beginning of one, masked; the same object if there is nothing to mask."""
        masked = self.stream(media_type).finish(content)
        return content if masked == content else masked

    def text(self, content: bytes) -> bytes:
        """Return one message masked: of a WebSocket, or the data of an event."""
        return self.body(content)


def unquote_name(name: str) -> str:
    """Return the name of a parameter without its escapes."""
    return name if "%" not in name else re.sub("%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), name)
