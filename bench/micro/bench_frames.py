"""What framing and decoding cost: ``pytest bench/micro/bench_frames.py --benchmark-enable``. One round takes one mebibyte of content."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm._dataplane.wire.decode import decode_body
from soth_mitm._dataplane.wire.framer import Framer
from soth_mitm._dataplane.wire.grpc import GrpcFramer
from soth_mitm._dataplane.wire.ndjson import NdjsonFramer
from soth_mitm._dataplane.wire.sse import SseFramer

MEBIBYTE = 1 << 20
READ = 65536

TOKEN = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}'


def filled(unit: bytes) -> bytes:
    return unit * (MEBIBYTE // len(unit))


STREAMS: dict[str, tuple[Callable[[], Framer], bytes]] = {
    "sse tokens": (lambda: SseFramer(MEBIBYTE), filled(b"data: " + TOKEN + b"\n\n")),
    "sse named events, CRLF": (lambda: SseFramer(MEBIBYTE), filled(b"event: delta\r\ndata: " + TOKEN + b"\r\n\r\n")),
    "sse 256 KiB events": (lambda: SseFramer(MEBIBYTE), filled(b"data: " + b"x" * (262144 - 8) + b"\n\n")),
    "ndjson lines": (lambda: NdjsonFramer(MEBIBYTE), filled(TOKEN + b"\n")),
    "grpc messages": (lambda: GrpcFramer(MEBIBYTE), filled(struct.pack(">BI", 0, 200) + b"x" * 200)),
}


@pytest.mark.parametrize("name", list(STREAMS))
def test_frame_one_mebibyte(benchmark: Any, name: str) -> None:
    make, stream = STREAMS[name]
    pieces = [stream[at : at + READ] for at in range(0, len(stream), READ)]

    def run() -> int:
        framer = make()
        return sum([len(framer.frames(piece)) for piece in pieces])

    count = benchmark(run)
    benchmark.extra_info["frames"] = count
    assert count > 0


@pytest.mark.parametrize(("coding", "encode"), [(b"gzip", gzip.compress), (b"br", brotli.compress)], ids=["gzip", "br"])
def test_decode_one_mebibyte(benchmark: Any, coding: bytes, encode: Callable[[bytes], bytes]) -> None:
    content = b"".join([b"%d " % number + TOKEN for number in range(8000)])[:MEBIBYTE]
    decoded, error = benchmark(decode_body, coding, encode(content), 2 * MEBIBYTE)
    assert error is None and decoded == content


def test_decode_a_small_body(benchmark: Any) -> None:
    _, error = benchmark(decode_body, b"gzip", gzip.compress(TOKEN), MEBIBYTE)
    assert error is None


def test_look_up_a_header(benchmark: Any) -> None:
    request = RawRequest.build(headers=[(f"X-Header-{number}", "value") for number in range(15)] + [("Authorization", "x")])
    assert benchmark(lambda: request.headers["authorization"]) == "x"
