"""HTTP/2 as the peers of a scene speak it: frames made of what a script says, and streams read back from frames.

What a peer says is one frame for each operation. The data of the operation is a letter for the kind of the frame, one for the stream, one
for the flags, and the payload::

    H1@GET /path            HEADERS: a start line, which stands for the pseudo-headers, and field lines `name:value`
    H1A200                  the same of a server, with END_STREAM
    T1@x-checksum:1         HEADERS without a start line: trailers, with END_STREAM
    D1Ahello                DATA with END_STREAM
    R1@8                    RST_STREAM with a code
    W1@100, W0@100          WINDOW_UPDATE
    S0@4=100 3=1            SETTINGS; with flag A an acknowledgement
    P0@, G0@0, G0@5 2       PING, GOAWAY with a last stream and a code
    U1@, Y1@, C1@           PUSH_PROMISE, PRIORITY, CONTINUATION with the payload as it is
    X0@                     these bytes, which are no frame
    F1@                     the first byte of the payload is the kind of the frame, the second its flags

Stream `1` is the first that a client opens, `2` the second, and so on; `0` is the connection, other letters are even numbers. The flags are
the low bits of a letter: 1 END_STREAM or ACK, 2 the block is cut and goes on in a CONTINUATION, 4 the frame leaves with the next one, 8 the
second half of it leaves with the next one, 16 padding, 32 END_HEADERS is missing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from fuzz.operations import MANY, MOST_MESSAGES
from fuzz.plain_http import passes_as_trailer
from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
SETTINGS_INITIAL_WINDOW = 4
FRAME_HEAD = 9
FRAME_SIZE = 16384
FIRST_WINDOW = 65535
# No block of a script decodes to as much
LIST_SIZE = 1 << 20
MOST_FIGURES = 10

# flags of an operation
ENDS, CUT, HELD, HALF, PADS, OPEN = 1, 2, 4, 8, 16, 32

Fields = list[tuple[bytes, bytes]]


class FrameMaker:
    """Makes the bytes of one side."""

    def __init__(self, scheme: bytes) -> None:
        self._scheme = scheme
        self._encoder = HpackEncoder()
        # the end of a frame that was sent in part, or frames that leave with the next one
        self._waiting = b""
        self._is_cut = False

    def make(self, data: bytes) -> bytes:
        """Return what an operation says, and what waited before it."""
        frames = b""
        flags = 0
        if data:
            kind, number, flags, payload = chr(data[0]), *stream_and_flags(data)
            frames = self._frames(kind, number, flags, payload)
        if flags & HELD:
            self._waiting += frames
            return b""
        whole = self._waiting + frames
        half = len(whole) - len(frames) // 2 if flags & HALF else len(whole)
        self._waiting = whole[half:]
        self._is_cut = half < len(whole)
        return whole[:half]

    def reply(self, frame: bytes) -> bytes:
        """Return what is to be sent for a frame that no operation asked for: nothing, while another is sent in part."""
        if not self._is_cut:
            return frame
        self._waiting += frame
        return b""

    def _frames(self, kind: str, number: int, flags: int, payload: bytes) -> bytes:
        ends = END_STREAM if flags & ENDS else 0
        numbers = [int(word[:MOST_FIGURES]) for word in payload[:64].translate(DIGITS).split()]
        match kind:
            case "H" | "T":
                block = self._encoder.encode_block([(name, value, False) for name, value in self._fields(kind, payload)])
                return self._block(number, (ends or (END_STREAM if kind == "T" else 0)), flags, block)
            case "R":
                return make_frame(RST_STREAM, 0, number, struct.pack(">I", first(numbers)))
            case "W":
                return make_frame(WINDOW_UPDATE, 0, number, struct.pack(">I", first(numbers)))
            case "S":
                return make_frame(SETTINGS, ends, number, b"" if ends else pairs(numbers))
            case "P":
                return make_frame(PING, ends, number, payload[:8].ljust(8, b"p"))
            case "G":
                return make_frame(GOAWAY, 0, number, struct.pack(">II", first(numbers), first(numbers[1:])))
            case "U":
                return make_frame(PUSH_PROMISE, END_HEADERS, number, payload)
            case "Y":
                return make_frame(PRIORITY, 0, number, payload)
            case "C":
                return make_frame(CONTINUATION, 0 if flags & OPEN else END_HEADERS, number, payload)
            case "X":
                return payload
            case "F":
                return make_frame(payload[0] if payload else 0, payload[1] if payload[1:] else 0, number, payload[2:])
        return self._content(number, ends, flags, payload)

    def _content(self, number: int, ends: int, flags: int, payload: bytes) -> bytes:
        frames = b""
        pad = bytes(5) if flags & PADS else b""
        room = FRAME_SIZE - 1 - len(pad)
        pieces = [payload[at : at + room] for at in range(0, len(payload), room)] or [b""]
        for piece in pieces:
            content = bytes((len(pad),)) + piece + pad if pad else piece
            frames += make_frame(DATA, (ends if piece is pieces[-1] else 0) | (PADDED if pad else 0), number, content)
        return frames

    def _block(self, number: int, ends: int, flags: int, block: bytes) -> bytes:
        whole = 0 if flags & OPEN else END_HEADERS
        if flags & CUT:
            half = len(block) // 2
            return make_frame(HEADERS, ends, number, block[:half]) + make_frame(CONTINUATION, whole, number, block[half:])
        if flags & PADS:
            return make_frame(HEADERS, ends | whole | PADDED | HAS_PRIORITY, number, b"\x03" + bytes(5) + block + bytes(3))
        return make_frame(HEADERS, ends | whole, number, block)

    def _fields(self, kind: str, payload: bytes) -> Fields:
        lines = payload.split(b"\n")
        fields: Fields = []
        if kind == "H" and not lines[0].startswith(b":"):
            method, _, rest = lines.pop(0).partition(b" ")
            path, _, authority = rest.partition(b" ")
            if method.isdigit():
                fields = [(b":status", method)]
            else:
                fields = [(b":method", method), (b":scheme", self._scheme), (b":path", path), (b":authority", authority or b"a.example")]
        for line in lines:
            begin = 1 if line.startswith(b":") else 0
            at = line.find(b":", begin)
            fields.append((line, b"") if at < 0 else (line[:at], line[at + 1 :]))
        return fields


DIGITS = bytes(byte if 48 <= byte < 58 else 32 for byte in range(256))


def stream_and_flags(data: bytes) -> tuple[int, int, bytes]:
    """Return the number of the stream, the flags, and the payload of an operation."""
    letter = data[1] if len(data) > 1 else 48
    number = 2 * (letter - 48) - 1 if 49 <= letter < 58 else 0 if letter == 48 else 2 * (letter % 16)
    return number, data[2] & 0x3F if len(data) > 2 else 0, data[3:]


def first(numbers: list[int]) -> int:
    return numbers[0] & 0xFFFFFFFF if numbers else 0


def pairs(numbers: list[int]) -> bytes:
    return b"".join(struct.pack(">HI", name & 0xFFFF, value & 0xFFFFFFFF) for name, value in zip(numbers[::2], numbers[1::2], strict=False))


class StreamHead(NamedTuple):
    """What a message begins with; the upgrade that an extended CONNECT is has the method GET (RFC 8441)."""

    method: str
    path: str
    status: int


@dataclass
class StreamMessage:
    """One message on a stream, as far as it went. `fields` are empty until its head came; interim heads stand in `interims`."""

    number: int
    fields: Fields = field(default_factory=list)
    interims: list[Fields] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    trailers: Fields | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def complete(self) -> bool:
        return self.ended

    def pseudo(self, name: bytes) -> bytes:
        return dict(self.fields).get(name, b"")

    @property
    def head(self) -> StreamHead:
        method = b"GET" if self.pseudo(b":protocol").lower() == b"websocket" else self.pseudo(b":method")
        status = self.pseudo(b":status")
        return StreamHead(method.decode("latin-1"), self.pseudo(b":path").decode("latin-1"), int(status) if status.isdigit() else 0)


class FrameReader:
    """The streams that one side speaks of, read as it is fed. It stops at what no reader can go on behind; that is its `fault`."""

    def __init__(self, has_preface: bool) -> None:
        self.streams: dict[int, StreamMessage] = {}
        self.fault = ""
        self.rest = b""
        self.goaways: list[tuple[int, int]] = []
        self.pongs: list[bytes] = []
        """What PINGs were answered with."""
        self._preface = has_preface
        self._decoder = HpackDecoder()
        # number, fragments and flags of a block that goes on
        self._block: tuple[int, bytes, int] | None = None

    @property
    def messages(self) -> list[StreamMessage]:
        """Those whose head came, in their order."""
        return [message for message in self.streams.values() if message.fields]

    @property
    def at_boundary(self) -> bool:
        """No frame and no block has begun."""
        return not self.rest and self._block is None

    @property
    def is_complete(self) -> bool:
        """Every message that has begun has ended."""
        return self.at_boundary and all(message.ended or message.reset is not None for message in self.messages)

    @property
    def unfinished(self) -> tuple[int, bytes]:
        """Return the stream and the content of a DATA frame that came in part: nobody waits for the rest of it."""
        if self.fault or self._preface or len(self.rest) < FRAME_HEAD or self.rest[3] != DATA or self._block is not None:
            return 0, b""
        length, flags, number = int.from_bytes(self.rest[:3], "big"), self.rest[4], int.from_bytes(self.rest[5:FRAME_HEAD], "big")
        content = self.rest[FRAME_HEAD:]
        if flags & PADDED:
            content = content[1 : max(0, length - content[0])] if content else b""
        return number & 0x7FFFFFFF, content

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Read on; return the frames that came whole: kind, flags, stream, payload."""
        self.rest += data
        frames = []
        if self._preface and not self.fault:
            if not PREFACE.startswith(self.rest[: len(PREFACE)]):
                self.fault = "no preface"
            elif len(self.rest) >= len(PREFACE):
                self.rest = self.rest[len(PREFACE) :]
                self._preface = False
            else:
                return []
        while not self.fault and len(self.rest) >= FRAME_HEAD:
            length, kind, flags, number = int.from_bytes(self.rest[:3], "big"), *struct.unpack(">BBI", self.rest[3:FRAME_HEAD])
            if len(self.rest) < FRAME_HEAD + length:
                break
            frame = kind, flags, number & 0x7FFFFFFF, self.rest[FRAME_HEAD : FRAME_HEAD + length]
            self.rest = self.rest[FRAME_HEAD + length :]
            frames.append(frame)
            self._read(*frame)
        return frames

    def _read(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != CONTINUATION or number != self._block[0]):
            self.fault = "a frame within a block"
            return
        if kind in (HEADERS, DATA):
            content = unpadded(kind, flags, payload)
            if content is None:
                self.fault = "padding beyond its frame"
                return
            if kind == HEADERS:
                self._block = number, content, flags
            else:
                self._content(number, content, flags)
        elif kind == CONTINUATION:
            if self._block is None:
                self.fault = "a block that goes on and has not begun"
                return
            self._block = number, self._block[1] + payload, self._block[2] | (flags & END_HEADERS)
        elif kind == RST_STREAM and len(payload) == 4 and number in self.streams and self.streams[number].reset is None:
            self.streams[number].reset = int.from_bytes(payload, "big")
        elif kind == PING and flags & ACK:
            self.pongs.append(payload)
        elif kind == GOAWAY and len(payload) >= 8:
            last, code = struct.unpack(">II", payload[:8])
            self.goaways.append((last & 0x7FFFFFFF, code))
        if self._block is not None and self._block[2] & END_HEADERS:
            number, block, flags = self._block
            self._block = None
            try:
                fields, is_over = self._decoder.decode_block(block, LIST_SIZE)
            except ValueError as error:
                self.fault = str(error)
                return
            self._head(number, [(name, value) for name, value, _ in fields], bool(flags & END_STREAM))

    def _head(self, number: int, fields: Fields, ends: bool) -> None:
        message = self.streams.setdefault(number, StreamMessage(number))
        if message.ended or message.reset is not None:
            return
        if message.fields:
            message.trailers = fields
        elif fields[:1] and fields[0][0] == b":status" and fields[0][1].startswith(b"1"):
            message.interims.append(fields)
        else:
            message.fields = fields
        message.ended = ends

    def _content(self, number: int, content: bytes, flags: int) -> None:
        message = self.streams.get(number)
        if message is not None and not message.ended and message.reset is None:
            message.content += content
            message.ended = bool(flags & END_STREAM)


def unpadded(kind: int, flags: int, payload: bytes) -> bytes | None:
    """Return what is in a frame besides padding and priority, None if it has more of them than room."""
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            return None
        payload = payload[1 : len(payload) - payload[0]]
    if kind == HEADERS and flags & HAS_PRIORITY:
        return payload[5:] if len(payload) >= 5 else None
    return payload


class StrictReader(FrameReader):
    """Reads what the proxy sends, and asserts that it may be sent. `granted` is told each frame that the proxy was given."""

    def __init__(self, proxy_is_client: bool) -> None:
        super().__init__(has_preface=proxy_is_client)
        self._is_client = proxy_is_client
        self._initial = self._connection = FIRST_WINDOW
        self._given: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._highest = 0
        self._has_settings = False

    def granted(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A frame that the proxy was given: it may open windows."""
        if kind == WINDOW_UPDATE and len(payload) == 4:
            increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if number:
                self._given[number] = self._given.get(number, 0) + increment
            else:
                self._connection += increment
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload) - 5, 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == SETTINGS_INITIAL_WINDOW:
                    # one that shrinks is in force when it is acknowledged, which is not looked at here
                    self._initial = max(self._initial, value)

    def _read(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        assert kind in (DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION), f"a frame of kind {kind}"
        assert len(payload) <= FRAME_SIZE
        assert self._has_settings or kind == SETTINGS, "something before SETTINGS"
        self._has_settings = True
        message = self.streams.get(number)
        if kind in (HEADERS, DATA, CONTINUATION):
            assert not flags & PADDED
            assert number % 2 == 1 and (message is None or (not message.ended and message.reset is None) or self._block), (
                "a frame behind the end of its stream"
            )
        if kind == HEADERS and self._is_client and message is None:
            assert number > self._highest, "streams out of order"
            self._highest = number
        if kind == DATA:
            assert message is not None and message.fields, "content without a head"
            self._used[number] = self._used.get(number, 0) + len(payload)
            assert self._used[number] <= self._initial + self._given.get(number, 0), "more than the stream's window"
            assert sum(self._used.values()) <= self._connection, "more than the connection's window"
        elif kind == RST_STREAM:
            # it may be one more, to a frame on a stream that is closed (RFC 9113 section 5.1)
            assert number and len(payload) == 4
            self.streams.setdefault(number, StreamMessage(number))
        elif kind == WINDOW_UPDATE:
            assert 0 < int.from_bytes(payload, "big") < 2**31
        elif kind == GOAWAY:
            last = int.from_bytes(payload[:4], "big")
            assert not self.goaways or last <= self.goaways[-1][0], "a GOAWAY that takes back the one before"
        super()._read(kind, flags, number, payload)
        assert not self.fault, self.fault

    def _head(self, number: int, fields: Fields, ends: bool) -> None:
        message = self.streams.get(number)
        has_head = message is not None and bool(message.fields)
        check_fields(fields, is_trailers=has_head, is_request=self._is_client)
        assert not has_head or ends, "trailers without an end"
        super()._head(number, fields, ends)


class WatchedReader(StrictReader):
    """Reads what the proxy may have sent, or a peer through it: what may not be sent is its `fault`."""

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        try:
            return super().feed(data)
        except AssertionError as error:
            self.fault = str(error) or "a rule"
            return []


class Http2Talk:
    """One connection as a peer has it; `said` and `heard` are what it said and was sent.

    It begins with its preface and SETTINGS, acknowledges those of the proxy and answers its PINGs, unless it is `bare`: then the input
    says everything.
    """

    def __init__(self, *, is_client: bool, bare: bool = False, scheme: bytes = b"http", watched: bool = False) -> None:
        self.said = FrameReader(has_preface=is_client)
        self.heard = (WatchedReader if watched else StrictReader)(proxy_is_client=not is_client)
        self._maker = FrameMaker(scheme)
        self._is_client = is_client
        self._bare = bare

    @property
    def directions(self) -> tuple[FrameReader, FrameReader]:
        """Return requests and responses."""
        return (self.said, self.heard) if self._is_client else (self.heard, self.said)

    def begin(self) -> bytes:
        """Return what every connection begins with."""
        return b"" if self._bare else (PREFACE if self._is_client else b"") + make_frame(SETTINGS, 0, 0)

    def speak(self, data: bytes, many: bool) -> list[bytes]:
        """Return what an operation has it say: many times the content, or a frame for many streams."""
        if not many:
            return [self._maker.make(data)]
        if data[:1] == b"D" and data[3:]:
            return [self._maker.make(data[:3] + data[3:] * (1 + MANY // len(data[3:])))]
        letter = data[1] if len(data) > 1 else 48
        letters = [letter if letter == 48 else min(letter + more, 0x7F) for more in range(MOST_MESSAGES)]
        return [self._maker.make(data[:1] + bytes((other,)) + data[2:]) for other in letters]

    def say(self, data: bytes) -> None:
        """The proxy reads this."""
        for frame in self.said.feed(data):
            self.heard.granted(*frame)

    def hear(self, data: bytes) -> bytes:
        """The proxy has written this; return what is said to that."""
        replies = b""
        for kind, flags, _, payload in self.heard.feed(data):
            if kind in (SETTINGS, PING) and not flags & ACK and not self._bare:
                replies += self._maker.reply(make_frame(kind, ACK, 0, payload if kind == PING else b""))
        return replies


def check_fields(fields: Fields, *, is_trailers: bool, is_request: bool) -> None:
    """What RFC 9113 sections 8.2 and 8.3 demand of every sender."""
    names = [name for name, _ in fields]
    pseudo = [name for name in names if name.startswith(b":")]
    assert names[: len(pseudo)] == pseudo and len(set(pseudo)) == len(pseudo), names
    if is_trailers:
        assert not pseudo and all(map(passes_as_trailer, names)), names
    elif is_request:
        assert b":method" in pseudo and set(pseudo) <= {b":method", b":scheme", b":path", b":authority", b":protocol"}, names
    else:
        assert pseudo == [b":status"], names
    for name, value in fields:
        assert name == name.lower() and value == value.strip(b" \t") and not set(value) & set(b"\r\n\0"), (name, value)
        assert name not in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"), name
        assert name != b"te" or value.lower() == b"trailers", value
