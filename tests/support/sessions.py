"""HTTP/2 sessions in tests: two of ours on one wire, and frames written by hand."""

from __future__ import annotations

import struct
from typing import Any

from soth_mitm._dataplane.http2.frame import inspect_frame, make_frame
from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.http2.session_probe import SessionProbe
from soth_mitm._dataplane.http2.settings import make_settings
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.wire.head import Head
from support.heads import parse_request, parse_response

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")]
POST = [(b":method", b"POST"), *REQUEST[1:]]
RESPONSE = [(b":status", b"200")]

Event = tuple[Any, ...]


def request_head(text: bytes = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n") -> Head:
    result = parse_request(text)
    assert result is not None
    return result[0]


def response_head(text: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Head:
    result = parse_response(text)
    assert result is not None
    return result[0]


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Read frames: type, flags, stream, and content without padding."""
    frames = []
    data = data.removeprefix(PREFACE)
    while data:
        length, kind, flags, stream, content = inspect_frame(data)
        assert content is not None, "a frame is not whole"
        frames.append((kind, flags, stream, content))
        data = data[9 + length :]
    return frames


def resets_of(data: bytes) -> list[tuple[int, int]]:
    """The streams that were reset, with the codes."""
    return [(stream, struct.unpack(">I", content)[0]) for kind, _, stream, content in frames_of(data) if kind == RST_STREAM]


def goaways_of(data: bytes) -> list[tuple[int, int]]:
    return [struct.unpack(">II", content[:8]) for kind, _, _, content in frames_of(data) if kind == GOAWAY]


def updates_of(data: bytes) -> list[tuple[int, int]]:
    return [(stream, struct.unpack(">I", content)[0]) for kind, _, stream, content in frames_of(data) if kind == WINDOW_UPDATE]


class Peer:
    """One session of ours, and a peer whose frames are written by hand. The peer's SETTINGS have come already."""

    def __init__(
        self,
        is_server: bool = True,
        settings: dict[str, int] | None = None,
        *,
        start: bool = True,
        arena: Arena | None = None,
        **options: Any,
    ) -> None:
        self.arena = Arena() if arena is None else arena
        limits = Http2Limits(**{name: value for name, value in options.items() if name != "offers_connect"})
        self.ours = SessionProbe(is_server, self.arena, limits, offers_connect=options.get("offers_connect", False))
        self.ours.begin()
        self.began = self.ours.take_sent()
        self.encoder = HpackEncoder()
        self.decoder = HpackDecoder()
        self.rest = b""
        self.sent = b""
        if start:
            preface = PREFACE if is_server else b""
            self.feed(preface + make_frame(SETTINGS, 0, 0, make_settings(settings or {}, not is_server)) + make_frame(SETTINGS, ACK, 0))
            self.sent = b""
            self.ours.take_events()

    def feed(self, data: bytes, now: float | None = None) -> None:
        """Show octets, and collect what is sent."""
        if now is not None:
            self.ours.session.now = now
        self.rest = self.ours.feed_all(self.rest + data)
        self.sent += self.ours.take_sent()

    def block(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        return self.encoder.encode_block([(name, value, False) for name, value in fields])

    def headers(self, stream: int, fields: list[tuple[bytes, bytes]], end: bool = False) -> bytes:
        return make_frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.block(fields))

    def data(self, stream: int, content: bytes, end: bool = False) -> bytes:
        return make_frame(DATA, END_STREAM if end else 0, stream, content)

    def window(self, stream: int, increment: int) -> bytes:
        return make_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))

    def reset(self, stream: int, code: int = 8) -> bytes:
        return make_frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def took(self) -> bytes:
        """What was sent since the last call."""
        self.sent += self.ours.take_sent()
        sent, self.sent = self.sent, b""
        return sent

    def events(self) -> list[Event]:
        """What was told since the last call; heads as their number and lines."""
        return [plain(event) for event in self.ours.take_events()]

    def names(self) -> list[str]:
        return [event[0] for event in self.ours.take_events()]

    @property
    def failure(self) -> str:
        """The code's name, "" while nothing failed."""
        for event in self.ours.take_events():
            if event[0] == "failed":
                code: str = event[1]
                return code
        return ""


def plain(event: Event) -> Event:
    """An event that can be compared."""
    if event[0] == "head":
        head: Head = event[2]
        return (*event[:2], head.status or head.method, head.fields, *event[3:])
    return event


class Pair:
    """A client and a server of ours, on one wire."""

    def __init__(self, piece: int = 0, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> None:
        self.arena = Arena()
        self.client = SessionProbe(False, self.arena, Http2Limits(**client or {}))
        self.server = SessionProbe(True, self.arena, Http2Limits(**server or {}))
        self.piece = piece
        self.to_server = self.to_client = b""
        self.client.begin()
        self.server.begin()
        self.settle()

    def settle(self) -> None:
        """Bring octets both ways until nothing is under way."""
        while True:
            self.to_server += self.client.take_sent()
            self.to_client += self.server.take_sent()
            before = len(self.to_server), len(self.to_client)
            self.to_server = self._feed(self.server, self.to_server)
            self.to_client = self._feed(self.client, self.to_client)
            self.client.serve()
            self.server.serve()
            if before == (len(self.to_server), len(self.to_client)) and not self.client.session.has_more:
                sent = self.client.take_sent(), self.server.take_sent()
                if sent == (b"", b""):
                    return
                self.to_server += sent[0]
                self.to_client += sent[1]

    def _feed(self, probe: SessionProbe, data: bytes) -> bytes:
        if not self.piece:
            return probe.feed_all(data)
        rest = b""
        for at in range(0, len(data), self.piece):
            rest = probe.feed_all(rest + data[at : at + self.piece])
        return rest

    def tick(self, now: float) -> None:
        self.client.session.now = self.server.session.now = now
