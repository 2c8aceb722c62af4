"""Framers and decoders of streams: any split, the frames that a plainer reader finds; never more than the budget; no exception.

Input: a byte that chooses what is tested and how, one for the budget, two that cut the rest, then the stream's bytes.
"""

from __future__ import annotations

import base64
import gzip
import struct
import sys
import zlib
from collections.abc import Callable, Iterator

import brotli

from fuzz.cutting import every_way
from fuzz.plain_frames import Framed, frame_eventstream, frame_grpc, frame_grpc_web, frame_lines, frame_sse, frame_texts
from soth_mitm._dataplane.wire.decode import Decoder, decode_body, decoder_for
from soth_mitm._dataplane.wire.eventstream import EventStreamFramer
from soth_mitm._dataplane.wire.framer import Framer
from soth_mitm._dataplane.wire.grpc import GrpcFramer
from soth_mitm._dataplane.wire.ndjson import JsonSeqFramer, NdjsonFramer
from soth_mitm._dataplane.wire.sse import SseFramer
from support.feeding import facts, frames_of
from support.samples import read_samples

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = (b"gzip", b"deflate", b"br", b"zstd", b"gzip, br", b"br, zstd, deflate", b"identity", b"unheard-of")
GRPC_CODINGS = (None, b"gzip", b"deflate", b"br", b"zstd")
ENCODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstd.compress,
}
# What chooses, see `run`
DECODES, STRETCHED, ENCODED = 128, 64, 64
STRETCH, STRETCHES_TO = b"\xfe", b"x" * 1000


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 4:
        return
    chosen, size, first, second = data[:4]
    budget = 65536 if size == 255 else 1 + size
    stream = data[4:]
    number = chosen % 64
    if not chosen & DECODES:
        check_framer(number, budget, stream.replace(STRETCH, STRETCHES_TO) if chosen & STRETCHED else stream, first, second)
    elif chosen & ENCODED:
        check_encoded(CODINGS[number % 6], budget, stream, first, second)
    else:
        check_decoder(CODINGS[number % len(CODINGS)], budget, stream, first, second)


# The framers that have no coding of their own, then those of gRPC and of gRPC-Web with each coding
PLAIN: tuple[tuple[Callable[[bytes, int], Framed], Callable[[int], Framer]], ...] = (
    (frame_sse, SseFramer),
    (frame_lines, NdjsonFramer),
    (frame_texts, JsonSeqFramer),
    (frame_eventstream, EventStreamFramer),
)
GRPC = len(PLAIN)
WEB = GRPC + len(GRPC_CODINGS)
WEB_TEXT = WEB + len(GRPC_CODINGS)
FRAMERS = WEB_TEXT + len(GRPC_CODINGS)


def frame_plainly(number: int, stream: bytes, budget: int) -> Framed:
    """Return what the framer of this number makes of a stream."""
    kind = number % FRAMERS
    if kind < GRPC:
        return PLAIN[kind][0](stream, budget)
    coding = GRPC_CODINGS[(kind - GRPC) % len(GRPC_CODINGS)]
    return frame_grpc(stream, budget, coding) if kind < WEB else frame_grpc_web(stream, budget, coding, kind >= WEB_TEXT)


def framer_of(number: int, budget: int) -> Framer:
    """Return the framer of this number."""
    kind = number % FRAMERS
    if kind < GRPC:
        return PLAIN[kind][1](budget)
    coding = GRPC_CODINGS[(kind - GRPC) % len(GRPC_CODINGS)]
    return GrpcFramer(budget, coding, web=kind >= WEB, text=kind >= WEB_TEXT)


def check_framer(number: int, budget: int, stream: bytes, first: int, second: int) -> None:
    """Frame the stream in every way."""

    def framed(pieces: list[bytes]) -> tuple[object, ...]:
        framer = framer_of(number, budget)
        frames = frames_of(framer, pieces)
        assert all(len(frame.payload) <= budget for frame in frames), "a frame beyond the budget"
        return [facts(frame) for frame in frames], framer.error_count, framer.failed

    expected = framed([stream])
    plain = frame_plainly(number, stream, budget)
    assert ([(frame[0], *frame[2:]) for frame in expected[0]], *expected[1:]) == (plain.frames, plain.errors, plain.failed), "other frames"
    for pieces in every_way(stream, first, second):
        assert framed(pieces) == expected, "another split, other frames"


def check_encoded(coding: bytes, limit: int, content: bytes, first: int, second: int) -> None:
    """What was encoded comes out again, whole or up to the limit."""
    stream = content
    for name in coding.split(b", "):
        stream = ENCODERS[name](stream)
    for pieces in ([stream], *every_way(stream, first, second)):
        decoder = decoder_for(coding, limit)
        assert decoder is not None
        out = b"".join(decoder.feed(piece) for piece in pieces)
        decoder.finish()
        assert out == content[:limit] and decoder.overflow == (len(content) > limit), "not what was encoded"
        assert (decoder.error is not None) == decoder.overflow, decoder.error


def check_decoder(coding: bytes, limit: int, stream: bytes, first: int, second: int) -> None:
    """Decode the stream in every way; where it has a fault, how much comes out before it may differ."""

    def decoded(pieces: list[bytes], per_feed: bool) -> tuple[bytes, Decoder | None]:
        decoder = decoder_for(coding, limit, per_feed)
        if decoder is None:
            return b"".join(pieces), None
        out = [decoder.feed(piece) for piece in pieces]
        assert all(len(piece) <= limit for piece in out)
        assert decoder.finish() == b"" and decoder.feed(b"more" if decoder.error else b"") == b""
        return b"".join(out), decoder

    whole, decoder = decoded([stream], False)
    content, fault = decode_body(coding, stream, limit)
    assert content == (stream if fault else whole)
    if decoder is None:
        return
    assert (fault is None) == (decoder.error is None) or not stream
    assert decoder.overflow <= (decoder.error is not None) and len(whole) <= limit == limit
    for pieces in every_way(stream, first, second):
        out, other = decoded(pieces, False)
        assert other is not None and len(out) <= limit
        assert (other.error is None) == (decoder.error is None), "another split, another verdict"
        if decoder.error is None:
            assert out == whole, "another split, another content"
        else:
            assert out.startswith(whole) or whole.startswith(out)
        decoded(pieces, True)


def seeds() -> Iterator[bytes]:
    """The corpus of event streams, and streams as encoders make them."""
    for sample in read_samples("sse"):
        yield bytes((0, 255, 9, 3)) + sample.blocks["input"].data
        yield bytes((0, 20, 9, 3)) + sample.blocks["input"].data
    # fields as long as they may be, and one byte longer
    for count in (384, 385):
        yield bytes((STRETCHED, 255, 9, 3)) + b"id: " + STRETCH * 16 + b"x" * count + b"\nretry: 123456789012345\ndata: x\n\n"
    yield bytes((0, 255, 9, 3)) + b"retry: 1234567890123456\ndata: x\n\n"
    lines = b'{"a": 1}\r\n\n  \n{"b": "' + b"x" * 40 + b'"}\n{"last": true}'
    yield bytes((1, 30, 5, 5)) + lines
    for number, coding in enumerate(CODINGS[:6]):
        stream = lines
        for name in coding.split(b", "):
            stream = ENCODERS[name](stream)
        yield bytes((DECODES | number, 255, 4, 7)) + stream + (gzip.compress(b"second member") if coding == b"gzip" else b"")
        yield bytes((DECODES | ENCODED | number, 255, 4, 7)) + lines
    raw = zlib.compressobj(wbits=-15)
    yield bytes((DECODES | 1, 255, 4, 7)) + raw.compress(lines) + raw.flush()
    # messages as long as may be, and a byte longer
    for size in (10, 11):
        yield bytes((GRPC, 9, 11, 2)) + b"\0\0\0\0" + bytes((size,)) + b"x" * size + b"\0\0\0\0\0"
    for number, name in enumerate(GRPC_CODINGS):
        message = lines if name is None else ENCODERS[name](lines)
        frame = bytes((name is not None,)) + len(message).to_bytes(4) + message
        yield bytes((GRPC + number, 255, 11, 2)) + frame + b"\0\0\0\0\0" + frame
        trailers = b"grpc-status:0\r\nbad line\r\nx: y\r\n"
        web = frame + frame + b"\x80" + len(trailers).to_bytes(4) + trailers
        yield bytes((WEB + number, 255, 11, 2)) + web
        yield bytes((WEB + number, 30, 11, 2)) + web + frame
        for text in (base64.b64encode(web), base64.b64encode(frame) + base64.b64encode(web), base64.b64encode(web)[:-3] + b"."):
            yield bytes((WEB_TEXT + number, 255, 11, 2)) + text
    for text in (b'\x1e{"a": 1}\n\x1e[1,\n 2]\n', b'1 \n\x1e\n"\\"\n{"\n\x1e}\n', b'\x1e{"a": "' + b"x" * 40 + b'"}   \n\x1etrue'):
        yield bytes((2, 255, 11, 2)) + text
        yield bytes((2, 9, 11, 2)) + text
    for size in (0, 9, 10, 11):
        message = aws_message(b"x" * size, b"\x0b:event-type\7\0\5delta\4flag\0\4when\10" + bytes(8))
        yield bytes((3, 9, 11, 2)) + message + message
        yield bytes((3, 9, 11, 2)) + message[:-1] + b"?" + message
        yield bytes((3, 9, 11, 2)) + message + message[:3] + b"?" + message[4:]
    yield (
        bytes((3, 255, 11, 2))
        + aws_message(b"{}", b"\x0f:exception-type\7\0\1E\x0b:event-type\7\0\1T")
        + aws_message(b"{}", b"\3abc\7\0\5x")
    )


def aws_message(payload: bytes, headers: bytes) -> bytes:
    """Return one message of an event stream of AWS."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))
