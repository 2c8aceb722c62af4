"""Framers and decoders of streams: any split, the frames that a plainer reader finds; never more than the budget; no exception.

Input: a byte that chooses what is tested and how, one for the budget, two that cut the rest, then the stream's bytes.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator

import brotli

from fuzz.cutting import every_way
from fuzz.plain_frames import Framed, frame_grpc, frame_lines, frame_sse
from soth_mitm._dataplane.decode import Decoder, decode_body, decoder_for
from soth_mitm._dataplane.frames import Framer
from soth_mitm._dataplane.grpc import GrpcFramer
from soth_mitm._dataplane.ndjson import NdjsonFramer
from soth_mitm._dataplane.sse import SseFramer
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


def frame_plainly(number: int, stream: bytes, budget: int) -> Framed:
    """Return what the framer of this number makes of a stream."""
    kind = number % (2 + len(GRPC_CODINGS))
    if kind == 0:
        return frame_sse(stream, budget)
    return frame_lines(stream, budget) if kind == 1 else frame_grpc(stream, budget, GRPC_CODINGS[kind - 2])


def framer_of(number: int, budget: int) -> Framer:
    """Return the framer of this number."""
    kind = number % (2 + len(GRPC_CODINGS))
    if kind == 0:
        return SseFramer(budget)
    return NdjsonFramer(budget) if kind == 1 else GrpcFramer(budget, GRPC_CODINGS[kind - 2])


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
        yield bytes((2, 9, 11, 2)) + b"\0\0\0\0" + bytes((size,)) + b"x" * size + b"\0\0\0\0\0"
    for number, name in enumerate(GRPC_CODINGS):
        message = lines if name is None else ENCODERS[name](lines)
        frame = bytes((name is not None,)) + len(message).to_bytes(4) + message
        yield bytes((2 + number, 255, 11, 2)) + frame + b"\0\0\0\0\0" + frame
