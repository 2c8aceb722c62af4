"""A filter of a stream: what leaves does not depend on the pieces, frames are those of the framers, nothing undecided leaves.

Input: a byte that chooses the format, one for the decisions, one for the limit, two that cut the rest, then the stream's bytes.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from fuzz.cutting import every_way
from soth_mitm import ChunkDecision, SseEvent, StreamChunk
from soth_mitm._dataplane.wire.sse import SseFramer
from support.feeding import frames_of
from support.filtered import Filter
from support.samples import read_samples

FORMATS = (
    *("text/event-stream", "application/x-ndjson", "application/json-seq", "application/vnd.amazon.eventstream"),
    *("application/grpc", "application/grpc-web", "application/grpc-web-text"),
)
SSE = 0
DECISIONS = (
    *(ChunkDecision.PASS, ChunkDecision.PASS, ChunkDecision.DROP, ChunkDecision.replace('"r"'), ChunkDecision.replace("1", "2")),
    *(ChunkDecision.replace(SseEvent("e\rf", event="k", id="i", retry=1)), ChunkDecision.END, None),
)
UNCLEAR = dict.fromkeys((0, 0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029), "\ufffd")
LIMITS = (16, 64, 1 << 20, 1 << 20)


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 6:
        return
    number, seed, limit, first, second = data[0] % len(FORMATS), data[1], LIMITS[data[2] % 4], data[3], data[4]
    stream = data[5:]
    expected = outcome(number, seed, limit, [stream])
    for pieces in every_way(stream, first, second):
        assert outcome(number, seed, limit, pieces) == expected, "another split, another outcome"
    # nothing of a frame leaves by itself: what leaves where all are dropped, and where all pass, differs by the frames
    dropped, asked = filtered(number, limit, [stream], lambda chunk: ChunkDecision.DROP)
    passed, _ = filtered(number, limit, [stream], lambda chunk: ChunkDecision.PASS)
    if not asked:
        assert dropped.out == passed.out
    if number == SSE and passed.ending == "goes_on":
        decided = [(chunk.event_type, chunk.payload) for chunk in asked if chunk.complete]
        # but for what ends a line or a text to some, in the type of an event
        decided = [(kind.translate(UNCLEAR), payload) for kind, payload in decided]
        again = [(frame.event_type, frame.payload) for frame in frames_of(SseFramer(limit), [passed.out]) if frame.complete]
        assert again == decided, "another reader, other events"
        if not any(chunk.truncated for chunk in asked):
            assert lines_read(passed.out) == [payload for _, payload in decided]
        assert not lines_read(dropped.out)


def outcome(number: int, seed: int, limit: int, pieces: list[bytes]) -> tuple[object, ...]:
    """Return all that came of a stream."""

    def decide(chunk: StreamChunk) -> Any:
        return DECISIONS[(seed + zlib.crc32(chunk.payload)) % len(DECISIONS)]

    stream, asked = filtered(number, limit, pieces, decide)
    facts = [(chunk.payload, chunk.event_type, chunk.event_id, chunk.retry, chunk.complete, chunk.truncated) for chunk in asked]
    shown = [(chunk.payload, chunk.replaced, chunk.sequence) for chunk in stream.shown]
    return out_of(number, stream), stream.ending, stream.error is None, facts, shown


def out_of(number: int, stream: Any) -> bytes:
    """Return what left; base64 may be cut elsewhere."""
    out: bytes = stream.out
    if number != len(FORMATS) - 1:
        return out
    plain = b""
    while out:
        end = out.find(b"=")
        end = len(out) if end < 0 else (end // 4 + 1) * 4
        plain, out = plain + b64decode(out[:end]), out[end:]
    return plain


def filtered(number: int, limit: int, pieces: list[bytes], decide: Any) -> tuple[Any, list[StreamChunk]]:
    """Send a stream through a filter."""
    made = Filter(decide, observed=True, body_limit=limit, block=True)
    stream = made.stream(FORMATS[number])
    for piece in pieces:
        if stream.ending == "goes_on" and stream.error is None:
            stream.feed(piece)
    if stream.ending == "goes_on" and stream.error is None:
        stream.finish()
    assert sum(made.counted) == len(made.asked)
    return stream, made.asked


def lines_read(stream: bytes) -> list[bytes]:
    """Read the data of events as many clients do: a line ends with LF, or CRLF."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in stream.split(b"\n")[:-1]:
        name, _, value = line.removesuffix(b"\r").partition(b":")
        if not line.removesuffix(b"\r"):
            events += [b"\n".join(data)] if data else []
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return events


def seeds() -> Iterator[bytes]:
    """The corpus of event streams, and streams of the other formats."""
    for number, sample in enumerate(read_samples("sse")):
        yield bytes((0, number % 256, 2, 9, 3)) + sample.blocks["input"].data[:900]
    yield bytes((0, 0, 2, 9, 3)) + b"\xef\xbb\xbfdata: a\rdata: b\r\n\r\xe2\x80\xa8\n: c\x0bdata: d\n\nid: \0\ndata: e"
    yield bytes((0, 2, 0, 9, 3)) + b"data: " + b"x" * 200 + b"\n\ndata: b\n\n"
    yield bytes((1, 1, 2, 9, 3)) + b'{"a": 1}\r\n\n  \n{"b": 2}\n{"last": true}'
    yield bytes((2, 1, 2, 9, 3)) + b'\x1e{"a": 1}\n\x1e[1,\n 2]\n\x1e3\x1e4'
    message = struct.pack(">II", 16 + 2, 0)
    message += struct.pack(">I", zlib.crc32(message)) + b"{}"
    yield bytes((3, 1, 2, 9, 3)) + (message + struct.pack(">I", zlib.crc32(message))) * 2
    grpc = b"\0\0\0\0\3abc\0\0\0\0\0"
    for number in (4, 5):
        yield bytes((number, 1, 2, 9, 3)) + grpc + b"\0\0\0\0\1x"
    yield bytes((5, 1, 2, 9, 3)) + grpc + b"\x80\0\0\0\x10grpc-status: 0\r\n"
    yield bytes((6, 1, 2, 9, 3)) + b"AAAAAANhYmM=AAAAAAA="
