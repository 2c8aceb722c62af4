"""What one request and its response cost through two HTTP/2 sessions: ours and the `h2` library's.

`python -m pytest bench/micro/bench_http2.py --benchmark-enable` prints a table; `extra_info` of each row, and the line that is printed at
the end with `-s`, is microseconds for an exchange: the request's block is encoded and decoded, so is the response's, DATA is framed and
credited, both sides keep their streams. Every request differs in its path. Our sessions are driven by a compiled loop
(`http2_exchanges.pyx`, built here), since calls from Python would cost more than what they measure.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from bench.micro.compiled import compiled_loop
from pytest_benchmark.fixture import BenchmarkFixture

from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head

AT_ONCE = 10
COUNT = 1000
BROWSER = [
    (b"sec-ch-ua", b'"Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
    (b"referer", b"https://www.example.com/index.html"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9,de;q=0.8"),
    (b"cookie", b"session=0123456789abcdef0123456789abcdef; theme=dark"),
]
RESPONSE = [
    (b"date", b"Mon, 23 Nov 2026 09:00:00 GMT"),
    (b"server", b"nginx"),
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-cache"),
    (b"etag", b'"65f0-1024"'),
    (b"vary", b"Accept-Encoding"),
    (b"x-request-id", b"8c2f1f0e"),
]


def parsed(data: bytes, is_request: bool) -> Head:
    """Parse a head that is whole."""
    result = HeadReader(is_request).feed(data)
    assert result is not None
    return result[0]


def lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"


@pytest.fixture(scope="session")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The compiled loop."""
    return compiled_loop("http2_exchanges", tmp_path_factory.mktemp("http2_exchanges"))


def report(benchmark: Any, name: str, count: int) -> None:
    if benchmark.stats is not None:
        best = benchmark.stats.stats.min / count * 1e6
        benchmark.extra_info["microseconds"] = round(best, 3)
        # with -s only: what pytest captures says nothing
        sys.stderr.write(f"\n{name}: {best:.2f} µs for a request and its response\n")


@pytest.mark.parametrize("size", [1024, 16384])
def test_our_sessions(benchmark: BenchmarkFixture, exchanges: ModuleType, size: int) -> None:
    fields = lines(BROWSER)
    requests = [parsed(b"GET /assets/%d.js HTTP/1.1\r\nHost: www.example.com\r\n" % number + fields, True) for number in range(COUNT)]
    response = parsed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % size + lines(RESPONSE), False)
    pair = exchanges.Exchanges(response, bytes(size))
    received = benchmark(pair.run, requests, AT_ONCE)
    assert received == COUNT * size
    report(benchmark, f"ours, {size} octets", COUNT)


class LibraryPair:
    """The same with the library."""

    def __init__(self, size: int) -> None:
        self.content = bytes(size)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=False))
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=False))
        self.client.initiate_connection()
        self.server.initiate_connection()
        self.length = b"%d" % size
        self.received = 0
        self.bring()
        self.bring()

    def bring(self) -> None:
        for event in self.server.receive_data(self.client.data_to_send()):
            if isinstance(event, h2.events.StreamEnded):
                self.server.send_headers(event.stream_id, [(b":status", b"200"), (b"content-length", self.length), *RESPONSE])
                self.server.send_data(event.stream_id, self.content, end_stream=True)
        for event in self.client.receive_data(self.server.data_to_send()):
            if isinstance(event, h2.events.DataReceived):
                assert event.flow_controlled_length is not None and event.data is not None
                self.received += len(event.data)
                self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def run(self, count: int, at_once: int) -> int:
        self.received = 0
        for number in range(count):
            start = [(b":method", b"GET"), (b":authority", b"www.example.com"), (b":scheme", b"https")]
            path = (b":path", b"/assets/%d.js" % number)
            self.client.send_headers(self.client.get_next_available_stream_id(), [*start, path, *BROWSER], end_stream=True)
            if number % at_once == at_once - 1:
                self.bring()
        self.bring()
        return self.received


# what a connection's window holds at first is all that the library's peer is given: fewer at once
@pytest.mark.parametrize(("size", "at_once"), [(1024, AT_ONCE), (16384, 1)])
def test_the_librarys_sessions(benchmark: BenchmarkFixture, size: int, at_once: int) -> None:
    pair = LibraryPair(size)
    count = 99
    received = benchmark(pair.run, count, at_once)
    assert received == count * size
    report(benchmark, f"h2 {h2.__version__}, {size} octets", count)
