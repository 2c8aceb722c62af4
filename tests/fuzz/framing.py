"""Framers and decoders of streams: any split, the same frames; never more than the budget; no exception.

Input: a byte that chooses what is tested, one for the budget, two that cut the rest, then the stream's bytes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import brotli

from fuzz.cutting import every_way
from soth_mitm._dataplane.decode import Decoder, decode_body, decoder_for
from soth_mitm._dataplane.frames import Framer
from soth_mitm._dataplane.grpc import GrpcFramer
from soth_mitm._dataplane.ndjson import NdjsonFramer
from soth_mitm._dataplane.sse import SseFramer
from support.feeding import facts, frames_of
from support.samples import read_samples

CODINGS = (b"gzip", b"deflate", b"br", b"zstd", b"gzip, br", b"br, zstd, deflate", b"identity", b"unheard-of")
FRAMERS: tuple[Callable[[int], Framer], ...] = (
    SseFramer,
    NdjsonFramer,
    GrpcFramer,
    lambda budget: GrpcFramer(budget, b"gzip"),
    lambda budget: GrpcFramer(budget, b"deflate"),
    lambda budget: GrpcFramer(budget, b"br"),
    lambda budget: GrpcFramer(budget, b"zstd"),
)


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 4:
        return
    chosen, size, first, second = data[:4]
    budget = 65536 if size == 255 else 1 + size
    stream = data[4:]
    if chosen < 128:
        check_framer(FRAMERS[chosen % len(FRAMERS)], budget, stream, first, second)
    else:
        check_decoder(CODINGS[chosen % len(CODINGS)], budget, stream, first, second)


def check_framer(make: Callable[[int], Framer], budget: int, stream: bytes, first: int, second: int) -> None:
    """Frame the stream in every way."""

    def framed(pieces: list[bytes]) -> tuple[object, ...]:
        framer = make(budget)
        frames = frames_of(framer, pieces)
        assert all(len(frame.payload) <= budget for frame in frames), "a frame beyond the budget"
        return [facts(frame) for frame in frames], framer.error_count, framer.failed

    expected = framed([stream])
    for pieces in every_way(stream, first, second):
        assert framed(pieces) == expected, "another split, other frames"


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
        yield bytes((1, 20, 9, 3)) + sample.blocks["input"].data
    lines = b'{"a": 1}\r\n\n  \n{"b": "' + b"x" * 40 + b'"}\n{"last": true}'
    yield bytes((1, 30, 5, 5)) + lines
    raw = zlib.compressobj(wbits=-15)
    encoded = {
        b"gzip": gzip.compress(lines) + gzip.compress(b"second member"),
        b"deflate": zlib.compress(lines),
        b"br": brotli.compress(lines),
        b"gzip, br": brotli.compress(gzip.compress(lines)),
    }
    for coding, content in encoded.items():
        yield bytes((128 + CODINGS.index(coding) + 8 - 128 % 8, 255, 4, 7)) + content
    yield bytes((129, 255, 4, 7)) + raw.compress(lines) + raw.flush()
    for flag, number, message in (
        (0, 2, lines),
        (1, 3, gzip.compress(lines)),
        (1, 4, zlib.compress(lines)),
        (1, 5, brotli.compress(lines)),
    ):
        frame = bytes((flag,)) + len(message).to_bytes(4) + message
        yield bytes((number, 255, 11, 2)) + frame + b"\0\0\0\0\0" + frame
