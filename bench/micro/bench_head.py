"""What it costs to read a head, to write it, and to follow a chunked body.

`python -m pytest bench/micro/bench_head.py --benchmark-enable` prints nanoseconds or microseconds per call. The calls go through the Python
face of the modules (about 100 ns each, see `test_smallest_head`), which the data plane does not use.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head

BROWSER = (
    b"GET /assets/app/main-4f2a91c7.js?v=12 HTTP/1.1\r\n"
    b"Host: www.example.com\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Referer: https://www.example.com/index.html\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 09:00:00 GMT\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n"
    b'Connection: keep-alive\r\nCache-Control: no-cache\r\nETag: "65f0-1024"\r\nVary: Accept-Encoding\r\nX-Request-Id: 8c2f1f0e\r\n\r\n'
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def parsed(data: bytes, is_request: bool) -> Head:
    """Parse a head that is whole."""
    result = HeadReader(is_request).feed(data)
    assert result is not None
    return result[0]


def test_smallest_head(benchmark: BenchmarkFixture) -> None:
    """Mostly the call itself: take it off the others."""
    benchmark(parsed, b"GET / HTTP/1.0\r\n\r\n", is_request=True)


def test_browser_head(benchmark: BenchmarkFixture) -> None:
    benchmark(parsed, BROWSER, is_request=True)


def test_response_head(benchmark: BenchmarkFixture) -> None:
    benchmark(parsed, RESPONSE, is_request=False)


def test_request_written(benchmark: BenchmarkFixture) -> None:
    benchmark(rewrite_request, parsed(BROWSER, is_request=True))


def test_response_written(benchmark: BenchmarkFixture) -> None:
    benchmark(rewrite_response, parsed(RESPONSE, is_request=False))


@pytest.mark.parametrize("size", [16, 1024, 16384])
def test_mebibyte_of_chunks(benchmark: BenchmarkFixture, size: int) -> None:
    """A mebibyte of content in chunks of `size`, in reads of at most 64 KiB; each run is copied once."""
    head = parsed(CHUNKED, is_request=False)
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    each = max(1, 65536 // len(chunk))
    read, reads = chunk * each, (1 << 20) // (size * each)

    def relay() -> int:
        body = BodyReader.of_response(head)
        for _ in range(reads):
            at = 0
            while consumed := body.feed(read, at)[0]:
                at += consumed
        return body.payload_total

    assert benchmark(relay) == reads * each * size
