"""WebSocket streams of one direction: any split, the messages and the violation that a plainer reader finds; what is read can be written.

Input: a byte of options, one for the most that is shown, two that cut the rest, then operations; or, with RAW, octets as they are on the
wire. An operation is a byte that chooses it, a byte of bits, one for a length, and its payload.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from fuzz.cutting import every_way
from fuzz.plain_websocket import CUT_LONG, REFUSE_LONG, SHOW_LONG, TAIL, Plain, Rules, read_stream, unmasked
from soth_mitm._dataplane.websocket.frame import FrameReader, make_frame_head
from soth_mitm._dataplane.websocket.message_reader import MessageReader
from soth_mitm._dataplane.websocket.message_writer import MessageWriter
from soth_mitm._dataplane.websocket.violations import VIOLATION_NAMES, describe_violation

# options
CLIENT, COMPRESSED, FORGETS, REFUSES, SMALL, RAW, SKIPS, SHOWS = 1, 2, 4, 8, 16, 32, 64, 128
FIN, RSV1 = 0x80, 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9
LARGE = 100_000
MOST_OPERATIONS = 40
# name, kind, payload, is_complete, is_compressed, begin, end
Event = tuple[str, int, bytes | None, bool, bool, int, int]

WORDS = (
    TAIL,
    b"\x81\x80\0\0\0\0",
    b"\xc1\x01\0",
    b"\x88\x02\x03\xe8",
    b"\x7f\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xf0\x9f\x98\x80",
    b"\x03\0",
)


class Act:
    """Operations."""

    FRAME = 0
    MESSAGE = 1
    ZEROS = 2
    LAST = 3
    OCTETS = 4
    WRONG_SIDE = 5
    COUNT = 6


class Composer:
    """Puts a stream together out of operations."""

    def __init__(self, from_client: bool, forgets: bool) -> None:
        self.from_client, self.forgets = from_client, forgets
        self.compressor = zlib.compressobj(wbits=-15)

    def frame(self, bits: int, payload: bytes, masks: bool | None = None) -> bytes:
        key = bytes((bits, 0x5A, len(payload) & 0xFF, 0xFF)) if (self.from_client if masks is None else masks) else b""
        return make_frame_head(bits, len(payload), key) + unmasked(payload, key)

    def compressed(self, content: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
        if self.forgets:
            self.compressor = zlib.compressobj(wbits=-15)
        done = self.compressor.compress(content) + self.compressor.flush(mode)
        if mode == zlib.Z_FINISH:
            self.compressor = zlib.compressobj(wbits=-15)
            return done + b"\0"
        return done.removesuffix(TAIL)

    def octets(self, verb: int, bits: int, payload: bytes) -> bytes:
        """Return what one operation puts on the wire."""
        match verb:
            case Act.MESSAGE:
                kind, compressed = (TEXT, BINARY)[bits & 1], bits & 2
                content = self.compressed(payload) if compressed else payload
                size = max(1, len(content) // (1 + (bits >> 2 & 3)))
                pieces = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
                return b"".join(
                    self.frame(
                        (CONTINUATION if number else kind | (RSV1 if compressed else 0)) | (FIN if number == len(pieces) - 1 else 0), piece
                    )
                    + (self.frame(FIN | PING, piece[:125]) if bits & 0x10 else b"")
                    for number, piece in enumerate(pieces)
                )
            case Act.ZEROS:
                return self.frame(FIN | RSV1 | BINARY, self.compressed(bytes(bits * 4000) + payload))
            case Act.LAST:
                return self.frame(FIN | RSV1 | TEXT, self.compressed(payload, zlib.Z_FINISH))
            case Act.OCTETS:
                return payload
            case Act.WRONG_SIDE:
                return self.frame(bits, payload, not self.from_client)
            case _:
                return self.frame(bits, payload)


def compose(data: bytes, composer: Composer) -> bytes:
    """Read operations; whatever the fuzzer writes is one."""
    stream, at = b"", 0
    for _ in range(MOST_OPERATIONS):
        if at + 3 > len(data):
            break
        verb, bits, length = data[at : at + 3]
        at += 3
        stream += composer.octets(verb % Act.COUNT, bits, data[at : at + length])
        at += length
    return stream


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 5:
        return
    options, size, first, second = data[:4]
    rules = Rules(
        bool(options & CLIENT),
        bool(options & COMPRESSED),
        not options & FORGETS,
        SHOW_LONG if options & SHOWS else REFUSE_LONG if options & REFUSES else CUT_LONG,
        1 + size if options & SMALL else LARGE,
    )
    stream = data[4:] if options & RAW else compose(data[4:], Composer(rules.from_client, bool(options & FORGETS)))
    expected = read_stream(stream, rules)
    compare(*play([stream], rules), expected)
    for pieces in every_way(stream, first, second):
        compare(*play(pieces, rules), expected)
        if options & SKIPS:
            skip(pieces, rules)
    write_again(expected.events, rules)


def compare(events: list[Event], violation: str, expected: Plain) -> None:
    if expected.maybe and len(events) > len(expected.events) and events[-1][0] == "long":
        events = events[:-1]
    assert events == expected.events, "other messages"
    assert violation in expected.wrong if expected.wrong else violation == "none", f"{violation} instead of {set(expected.wrong)}"


def play(pieces: list[bytes], rules: Rules) -> tuple[list[Event], str]:
    """Feed pieces as a read buffer does; its events, and the violation."""
    reader = MessageReader(rules.from_client, rules.most, rules.may_compress, rules.takeover, rules.when_long)
    events: list[Event] = []
    rest, fed = b"", 0
    for piece in pieces:
        rest += piece
        fed += len(piece)
        while True:
            name, taken = reader.read(rest)
            rest = rest[taken:]
            assert reader.held_octets() <= rules.most + fed, "more is held than is shown"
            if name == "turn":
                reader.renew_turn()
            elif name in ("message", "long", "end", "control", "close"):
                events.append((name, reader.kind, reader.payload, reader.is_complete, reader.is_compressed, reader.begin, reader.end))
            elif name != "ignored" or not taken:
                break
        assert len(rest) < 14 or name in ("violation", "ignored"), "a head is kept waiting"
    if reader.violation:
        code, reason = describe_violation(reader.violation, rules.from_client)
        assert code in (1002, 1007, 1009) and len(reason) <= 60
        assert reader.read(rest) == ("violation", 0)
    return events, VIOLATION_NAMES[reader.violation]


def skip(pieces: list[bytes], rules: Rules) -> None:
    """An observer that skips messages behind one that it cannot decode sees the frames that a reader of frames sees."""
    reader = MessageReader(rules.from_client, rules.most, rules.may_compress, rules.takeover, rules.when_long)
    frames = FrameReader(rules.from_client, rules.may_compress)
    rest, unread, skipped = b"", b"", False
    for piece in pieces:
        rest += piece
        unread += piece
        while True:
            name, taken = reader.read(rest)
            rest = rest[taken:]
            if name == "turn":
                reader.renew_turn()
            elif name == "violation" and VIOLATION_NAMES[reader.violation] in ("deflate_data", "too_long"):
                reader.skip_messages()
                assert reader.violation == 0 and reader.held_octets() == 0
                skipped = True
            elif name in ("message", "long", "end"):
                assert not skipped
            elif name in ("more", "violation") or (name == "ignored" and not taken):
                break
        _, taken = frames.steps(unread)
        unread = unread[taken:]
    name = VIOLATION_NAMES[reader.violation]
    if name not in ("text_not_utf8", "close_length", "close_code", "close_reason"):
        assert rest == unread and frames.violation == reader.violation


def write_again(events: list[Event], rules: Rules) -> None:
    """What was read is written as one frame each, and read as the same."""
    writer, reader = MessageWriter(rules.from_client), MessageReader(rules.from_client, LARGE * 100)
    for told, kind, payload, *_ in events:
        if told == "end":
            continue
        octets = payload or b""
        data = writer.write_frame(FIN | kind, octets)
        name, taken = reader.read(data)
        assert taken == len(data) and name != "violation" and reader.kind == kind
        assert reader.payload == (None if kind > CLOSE else octets)


def operation(verb: int, bits: int = 0, payload: bytes = b"") -> bytes:
    """Write one operation."""
    return bytes((verb, bits, len(payload))) + payload


def seeds() -> Iterator[bytes]:
    """Yield the inputs to begin with."""
    head = bytes((CLIENT | COMPRESSED, 0, 40, 90))
    text = "ab ä € 😀 ab ä € 😀".encode()
    plain = operation(Act.MESSAGE, 0x14, text) + operation(Act.FRAME, FIN | PING, b"p") + operation(Act.MESSAGE, 1, b"\xff\0")
    packed = operation(Act.MESSAGE, 2, text) + operation(Act.MESSAGE, 0x1E, text) + operation(Act.MESSAGE, 3, b"\0" * 50)
    close = operation(Act.FRAME, FIN | CLOSE, b"\x03\xe8bye") + operation(Act.OCTETS, 0, b"\xff\xff")
    yield head + plain + packed + close
    yield bytes((COMPRESSED, 0, 3, 200)) + plain + packed + close
    yield bytes((COMPRESSED | FORGETS, 0, 3, 200)) + packed + operation(Act.LAST, 0, text) + packed
    yield head + packed + operation(Act.LAST, 0, text) + packed + operation(Act.FRAME, FIN | RSV1 | TEXT) + packed
    yield bytes((COMPRESSED | SMALL | SKIPS, 9, 9, 9)) + operation(Act.ZEROS, 0, b"x" * 50) + operation(Act.ZEROS, 250) + packed
    yield bytes((COMPRESSED | SMALL | SHOWS | SKIPS, 9, 9, 9)) + plain + packed + operation(Act.ZEROS, 0, b"x" * 200) + packed
    yield bytes((COMPRESSED | SMALL | REFUSES, 30, 9, 9)) + plain + operation(Act.MESSAGE, 0, b"x" * 31)
    yield (
        bytes((CLIENT | COMPRESSED | SKIPS, 0, 9, 9)) + operation(Act.FRAME, RSV1 | TEXT, b"\xff") + operation(Act.FRAME, FIN, b"x") + plain
    )
    yield bytes((CLIENT, 0, 1, 1)) + operation(Act.WRONG_SIDE, FIN | TEXT, b"abc")
    yield (
        bytes((0, 0, 1, 1))
        + operation(Act.FRAME, TEXT, b"a\xf0\x9f")
        + operation(Act.FRAME, FIN, b"\x98\x80")
        + operation(Act.FRAME, FIN, b"b")
    )
    for payload in (b"\x03", b"\x03\xed", b"\x03\xe8\xff", b""):
        yield bytes((0, 0, 1, 1)) + operation(Act.FRAME, FIN | CLOSE, payload)
    yield bytes((RAW, 0, 5, 5)) + b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff" + b"x" * 40
    yield bytes((RAW | CLIENT, 0, 5, 5)) + b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x00\x01\x02\x03\x04"
    yield bytes((RAW, 0, 5, 5)) + b"\x01\x03Hel\x80\x02lo\xc1\x07\xf2H\xcd\xc9\xc9\x07\x00"
    yield bytes((RAW | COMPRESSED, 0, 5, 5)) + b"\xc1\x07\xf2H\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00" + b"\x82\x7e\x00\x05short"
