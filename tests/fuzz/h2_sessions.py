"""HTTP/2 sessions: any frames, whole or in octets, and whatever the owner does in between.

Input: a byte of options, then operations. An operation is a byte that chooses it and one that says for which stream or how much; a frame
has a byte of flags, one for its length and its payload besides. What must hold: any split tells the same; what is told of a stream comes in
the order of a message; what is sent is frames that may be sent, on streams that may send them, within the windows that were given; and when
all streams are released nothing is held.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from soth_mitm._dataplane.http2.frame import inspect_frame, make_frame
from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.http2.session_probe import SessionProbe
from soth_mitm._dataplane.memory import ledger
from soth_mitm._dataplane.memory.buffer import Arena
from support.heads import parse_request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4

# options
CLIENT, SMALL, BARE, EAGER = 1, 2, 4, 8


class Act:
    """Operations; what is below is a frame of that type."""

    RAW = 0x20
    HEAD = 0x21
    CONTENT = 0x22
    TRAILERS = 0x23
    RESET = 0x24
    RELEASE = 0x25
    CONSUME = 0x26
    LEAVE = 0x27
    TIME = 0x28
    ROOM = 0x29
    OPEN = 0x2A
    UNSENT = 0x2B
    FLUSH = 0x2C
    PINGS = 0x2D


MOST_OPERATIONS = 60
MOST_EAGER = 100
SMALL_LIMITS = {
    "max_streams": 3,
    "list_size": 300,
    "initial_window": 500,
    "max_window": 2000,
    "reset_burst": 5,
    "resets_per_second": 1,
    "glitch_burst": 12,
    "glitches_per_second": 1,
    "max_queued_replies": 6,
}
WORDS = (
    b"\x82\x87\x84\x41\x01a",  # GET https / a
    b"\x88",  # 200
    b"\x5c\x013",  # content-length: 3
    PREFACE,
    struct.pack(">HI", 4, 100),
    struct.pack(">HI", 3, 1),
)


class Wire:
    """What is sent, as the peer would see it. Knows nothing of sessions."""

    def __init__(self, is_client: bool) -> None:
        self.is_client = is_client
        self.rest = b""
        self.decoder = HpackDecoder()
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.opened: set[int] = set()
        self.given: dict[int, int] = {}
        self.used: dict[int, int] = {}
        self.initial = self.connection = 65535
        self.block: tuple[int, bytes, bool] | None = None
        self.left = False
        self.highest = 0

    def granted(self, frame: bytes) -> None:
        """A frame of the peer's gives window."""
        kind, stream = frame[3], struct.unpack(">I", frame[5:9])[0] & 0x7FFFFFFF
        if kind == WINDOW_UPDATE and len(frame) == 13:
            increment = struct.unpack(">I", frame[9:])[0] & 0x7FFFFFFF
            if stream == 0:
                self.connection += increment
            else:
                self.given[stream] = self.given.get(stream, 0) + increment
        elif kind == SETTINGS and not frame[4] & ACK:
            for at in range(9, len(frame) - 5, 6):
                name, value = struct.unpack(">HI", frame[at : at + 6])
                if name == 4:
                    self.initial = max(self.initial, value)

    def see(self, data: bytes) -> None:
        data = self.rest + data
        if self.is_client and not self.opened and data.startswith(PREFACE):
            data = data[24:]
        while data:
            length, kind, flags, stream, content = inspect_frame(data)
            assert content is not None, "half a frame is sent"
            self.frame(kind, flags, stream, content)
            data = data[9 + length :]
        self.rest = b""

    def frame(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        assert kind != PUSH_PROMISE and kind != PRIORITY
        if self.block is not None:
            assert kind == CONTINUATION and stream == self.block[0], "a frame within a block"
        if kind in (HEADERS, DATA, CONTINUATION):
            assert stream not in self.ended and stream not in self.reset, "a frame behind the end of its stream"
        if kind == RST_STREAM:
            self.reset.add(stream)
        elif kind == HEADERS:
            self.opened.add(stream)
            if self.is_client and stream > self.highest:
                assert stream % 2 == 1
                self.highest = stream
            self.block = (stream, content, bool(flags & END_STREAM))
        elif kind == CONTINUATION:
            assert self.block is not None
            self.block = (stream, self.block[1] + content, self.block[2])
        elif kind == DATA:
            assert stream in self.opened
            self.used[stream] = self.used.get(stream, 0) + len(content)
            assert self.used[stream] <= self.initial + self.given.get(stream, 0), "more than the stream's window"
            assert sum(self.used.values()) <= self.connection, "more than the connection's window"
            if flags & END_STREAM:
                self.ended.add(stream)
        elif kind == WINDOW_UPDATE:
            assert 0 < struct.unpack(">I", content)[0] < 2**31
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS:
            assert self.block is not None
            assert self.decoder.decode_block(self.block[1])[0]
            if self.block[2]:
                self.ended.add(stream)
            self.block = None


class Scene:
    """One session, its owner and its peer. `bytewise`: octets come one by one."""

    def __init__(self, options: int, bytewise: bool) -> None:
        self.is_client = bool(options & CLIENT)
        self.arena = Arena()
        limits = Http2Limits(**SMALL_LIMITS) if options & SMALL else Http2Limits()
        self.probe = SessionProbe(not self.is_client, self.arena, limits, offers_connect=bool(options & SMALL))
        self.bytewise = bytewise
        self.is_eager = bool(options & EAGER)
        # of what records everything no one says that it is full
        self.eagerness = MOST_EAGER
        self.wire = Wire(self.is_client)
        self.told: list[tuple[Any, ...]] = []
        self.streams: set[int] = set()
        self.released: set[int] = set()
        self.state: dict[int, str] = {}
        self.input = b""
        self.ends = 0
        self.probe.call_with_events(self.note)
        self.probe.begin()
        if not options & BARE:
            preface = b"" if self.is_client else PREFACE
            self.feed(preface + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0))

    def note(self, event: tuple[Any, ...]) -> None:
        """Each event may follow those before it."""
        name, stream = event[0], event[1] if len(event) > 1 else 0
        assert not self.ends, "told behind the end"
        if name == "failed":
            self.ends += 1
        elif name in ("head", "data", "trailers", "end", "reset", "writable"):
            before = self.state.get(stream, "")
            assert stream not in self.released, f"{name} of a stream that was released"
            allowed = {
                "head": before in ("", "interim"),
                "data": before in ("head", "data"),
                "trailers": before in ("head", "data"),
                "end": before in ("head", "data", "trailers") or before.startswith("reset"),
                "reset": not before.startswith("reset"),
                "writable": True,
            }[name]
            assert allowed, f"{name} behind {before or 'nothing'}"
            self.streams.add(stream)
            if name == "head" and event[2].status and event[2].status < 200:
                self.state[stream] = "interim"
            elif name == "reset":
                self.state[stream] = "reset" + before
            elif name != "writable":
                self.state[stream] = name
        if name == "writable" and self.is_eager and self.eagerness:
            self.eagerness -= 1
            # more than a turn lets through, and once more
            self.probe.data(stream, bytes(20_000))
            self.probe.data(stream, bytes(300), True)
        if name == "failed":
            # which of two faults was found first depends on how the octets came
            event = ("failed",)
        if name == "head":
            event = ("head", stream, event[2].raw, event[3])
        if name == "data" and self.told and self.told[-1][:2] == ("data", stream):
            self.told[-1] = ("data", stream, self.told[-1][2] + event[2])
        elif name != "writable":
            self.told.append(event)

    def feed(self, data: bytes) -> None:
        if data and data[:24] != PREFACE and len(data) >= 9:
            self.wire.granted(data)
        for piece in [data[at : at + 1] for at in range(len(data))] if self.bytewise else [data]:
            self.input = self.probe.feed_all(self.input + piece)
        assert len(self.input) < 16384 + 9
        self.settle()

    def settle(self) -> None:
        self.wire.see(self.probe.take_sent())

    def act(self, verb: int, number: int, flags: int, payload: bytes) -> None:
        """Let one thing happen."""
        probe, known = self.probe, number in self.streams
        match verb:
            case _ if verb < Act.RAW:
                self.feed(make_frame(verb, flags, number, payload))
            case Act.RAW:
                self.feed(payload)
            case Act.HEAD if known and not self.is_client:
                probe.own_head(number, 100 + 100 * (flags % 5), [(b"X-A", payload[:20].hex().encode())], is_end=flags > 200)
            case Act.CONTENT if known:
                probe.data(number, bytes(flags * 300), flags % 2 == 1)
            case Act.TRAILERS if known:
                probe.trailers(number, b"X-T: 1\r\n" if flags % 2 else b"Host: a\r\n")
            case Act.RESET if known:
                probe.reset(number, flags)
                self.state[number] = "reset"
            case Act.RELEASE if known:
                self.release(number)
            case Act.CONSUME if known and number not in self.released:
                kept = probe.kept(number)
                if kept:
                    self.take(number, min(len(kept), 1 + flags * 10))
            case Act.LEAVE:
                (probe.drain, probe.goaway, probe.finish_drain)[number % 3]()
            case Act.TIME:
                probe.session.now += number / 4
                (probe.check_head, probe.check_stalls, lambda: probe.check_settings(10.0))[flags % 3]()
            case Act.ROOM:
                probe.give_room(number, flags * 10)
            case Act.OPEN if self.is_client:
                head = parse_request(b"POST /%d HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (flags, payload.hex().encode()))
                assert head is not None
                opened = probe.open(head[0], flags % 2 == 1)
                if opened is not None:
                    self.streams.add(opened)
            case Act.UNSENT:
                probe.count_unsent(bool(flags % 2))
            case Act.FLUSH:
                self.settle()
                probe.serve()
            case Act.PINGS:
                probe.ping()
            case _:
                pass
        self.settle()

    def take(self, number: int, count: int) -> None:
        # what was kept is told as if it had been taken at once
        self.told.append(("data", number, self.probe.kept(number)[:count]))
        self.probe.consume(number, count)

    def release(self, number: int) -> None:
        if number not in self.released:
            self.released.add(number)
            self.probe.release(number)

    def end(self) -> list[tuple[Any, ...]]:
        """The owner has done with everything: nothing is held."""
        for stream in self.streams:
            self.release(stream)
            self.probe.reset(stream)
        self.settle()
        assert self.arena.budget.held == 0
        assert self.probe.session.active == 0 or self.probe.session.has_failed
        left, size, _ = self.probe.windows()
        assert 0 <= left <= size == 2**30
        return self.told


def parse(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Read operations; whatever the fuzzer writes is one."""
    at = 1
    for _ in range(MOST_OPERATIONS):
        if at + 3 >= len(data):
            return
        verb, number, flags, length = data[at : at + 4]
        at += 4
        payload = data[at : at + length]
        at += length
        yield verb % 0x30, number % 16, flags, payload


def play(data: bytes, bytewise: bool) -> list[tuple[Any, ...]]:
    scene = Scene(data[0], bytewise)
    for operation in parse(data):
        scene.act(*operation)
    return scene.end()


def run(data: bytes) -> None:
    """Test one input."""
    if not data:
        return
    whole, bytewise = play(data, False), play(data, True)
    assert joined(whole) == joined(bytewise), "another split, other events"
    left = {name: count for name, count in ledger.counts().items() if count}
    assert not left, left


def joined(told: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What was told of each stream, content joined."""
    result: dict[Any, list[tuple[Any, ...]]] = {}
    for event in told:
        of_stream = result.setdefault(event[1] if event[0] in ("head", "data", "trailers", "end", "reset") else "", [])
        if event[0] == "data" and of_stream and of_stream[-1][0] == "data":
            of_stream[-1] = ("data", event[1], of_stream[-1][2] + event[2])
        else:
            of_stream.append(event)
    return sorted(result.items(), key=str)


def operation(verb: int, number: int = 0, flags: int = 0, payload: bytes = b"") -> bytes:
    return bytes((verb, number, flags, len(payload))) + payload


def seeds() -> Iterator[bytes]:
    """Exchanges, and what goes wrong with them."""
    encoder = HpackEncoder()
    request = [(b":method", b"POST", False), (b":scheme", b"https", False), (b":path", b"/", False), (b":authority", b"a", False)]
    block = encoder.encode_block(request)
    with_length = encoder.encode_block([*request, (b"content-length", b"5", False), (b"cookie", b"a=1", False), (b"cookie", b"b=2", False)])
    both = END_STREAM | END_HEADERS
    head = operation(HEADERS, 1, END_HEADERS, with_length)
    yield bytes((0,)) + head + operation(DATA, 1, END_STREAM, b"hello") + operation(Act.HEAD, 1, 1) + operation(Act.CONTENT, 1, 3)
    yield (
        bytes((0,))
        + head
        + operation(DATA, 1, 8, b"\x01hel\0")
        + operation(Act.ROOM, 1)
        + operation(DATA, 1, END_STREAM, b"lo")
        + operation(Act.CONSUME, 1)
    )
    yield (
        bytes((0,))
        + operation(HEADERS, 1, 0, block[:3])
        + operation(CONTINUATION, 1, END_HEADERS, block[3:])
        + operation(RST_STREAM, 1, 0, bytes(4))
    )
    yield (
        bytes((SMALL,))
        + b"".join(operation(HEADERS, stream, both, block) for stream in (1, 3, 5, 7, 9))
        + operation(Act.RESET, 1)
        + operation(Act.RELEASE, 1)
    )
    yield (
        bytes((SMALL,))
        + operation(HEADERS, 1, END_HEADERS, block)
        + operation(DATA, 1, 0, bytes(200)) * 3
        + operation(Act.UNSENT, 0, 1)
        + operation(PING, 0, 0, bytes(8)) * 7
    )
    yield (
        bytes((CLIENT,))
        + operation(Act.OPEN, 0, 1) * 2
        + operation(HEADERS, 1, both, b"\x88")
        + operation(GOAWAY, 0, 0, bytes(8))
        + operation(Act.OPEN, 0, 1)
    )
    yield (
        bytes((CLIENT,))
        + operation(Act.OPEN, 0, 0)
        + operation(Act.CONTENT, 1, 250)
        + operation(WINDOW_UPDATE, 0, 0, b"\0\0\xff\0")
        + operation(WINDOW_UPDATE, 1, 0, b"\0\0\xff\0")
        + operation(Act.FLUSH)
        + operation(SETTINGS, 0, 0, struct.pack(">HI", 4, 10))
        + operation(Act.TIME, 15, 1) * 17
    )
    yield (
        bytes((BARE,))
        + operation(Act.RAW, 0, 0, PREFACE + make_frame(SETTINGS, 0, 0))
        + operation(Act.LEAVE, 0)
        + operation(HEADERS, 1, both, block)
        + operation(Act.LEAVE, 2)
    )
    yield (
        bytes((0,))
        + head
        + operation(Act.HEAD, 1, 1)
        + operation(Act.TRAILERS, 1, 1)
        + operation(Act.PINGS)
        + operation(DATA, 1, 0, b"more than five")
        + operation(HEADERS, 1, both, b"\x40\x01x\x01y")
    )
    yield (
        bytes((CLIENT | EAGER,))
        + operation(Act.OPEN) * 3
        + b"".join(operation(Act.CONTENT, stream, 254) for stream in (1, 3, 5))
        + operation(WINDOW_UPDATE, 0, 0, b"\0\2\0\0")
        + operation(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20))
        + operation(Act.FLUSH)
    )
    yield bytes((0,)) + operation(HEADERS, 1) + operation(CONTINUATION, 1, END_HEADERS)
