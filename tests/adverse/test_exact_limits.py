"""Limits hold to the byte: what has exactly as many passes, one more does not, however the reads were cut."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable

import pytest

from soth_mitm import MitmConfig
from support.judge import Judge
from support.running import ProxyFactory, Running
from support.tap import Journal, Tap
from support.wire_client import WireClient

LIMIT = 512
DEFAULT = MitmConfig().max_http_head_bytes
FIELDS = 256
CHUNK_LINE = 4096

Feed = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def last_bytes(data: bytes) -> list[bytes]:
    """All but the last bytes, which come one by one."""
    return [data[:-5], *single_bytes(data[-5:])]


every_feed = pytest.mark.parametrize("feed", [whole, single_bytes, last_bytes])
over = pytest.mark.parametrize("over", [0, 1], ids=["exactly", "one-more"])


def padded(start: bytes, length: int) -> bytes:
    """Return a head that begins with `start` and has `length` bytes in all."""
    return start + b"X: " + b"x" * (length - len(start) - 3 - 4) + b"\r\n\r\n"


def send(client: WireClient, pieces: list[bytes]) -> None:
    for piece in pieces:
        client.send(piece)


@pytest.fixture
def running(proxy: ProxyFactory, journal: Journal) -> Running:
    return proxy(Judge(journal), max_http_head_bytes=LIMIT)


class TestRequestHeads:
    @over
    @every_feed
    def test_intercepted(self, running: Running, tap: Tap, feed: Feed, over: int) -> None:
        with running.secured(tap.port) as client:
            assert client.request("/", "localhost").status == 200
            mark = tap.journal.mark()
            wire = padded(b"GET / HTTP/1.1\r\nHost: localhost\r\n", LIMIT + over)
            send(client, feed(wire))
            answer = client.read_answer()
            if not over:
                assert answer.status == 200
                tap.journal.wait_plain(mark, wire)
                return
            assert answer.status == 431 and str(LIMIT) in answer.text and "max_http_head_bytes" in answer.text
            assert client.read_to_end() == b""
        tap.assert_silence(mark)

    @over
    @every_feed
    def test_forwarded(self, running: Running, plain_tap: Tap, feed: Feed, over: int) -> None:
        """What counts is the head that came, not the shorter one that leaves."""
        authority = b"localhost:%d" % plain_tap.port
        with running.client() as client:
            send(client, feed(padded(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n" % (authority, authority), LIMIT + over)))
            assert client.read_answer().status == (431 if over else 200)

    @over
    @every_feed
    def test_of_connect(self, running: Running, plain_tap: Tap, feed: Feed, over: int) -> None:
        authority = b"localhost:%d" % plain_tap.port
        with running.client() as client:
            send(client, feed(padded(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority), LIMIT + over)))
            answer = client.read_answer("CONNECT")
            assert answer.status == (431 if over else 200)
            if over:
                assert "max_http_head_bytes" in answer.text
                assert client.read_to_end() == b""
            else:
                assert client.request("/", "localhost").status == 200

    @over
    @every_feed
    def test_an_empty_line_before_is_not_counted(self, running: Running, plain_tap: Tap, feed: Feed, over: int) -> None:
        with running.tunnel(plain_tap.port) as client:
            send(client, feed(b"\r\n" + padded(b"GET / HTTP/1.1\r\nHost: localhost\r\n", LIMIT + over)))
            assert client.read_answer().status == (431 if over else 200)

    @pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
    def test_the_largest_default_head_behind_an_empty_line(self, proxy: ProxyFactory, tap: Tap, plain_tap: Tap, secure: bool) -> None:
        """It has as many bytes as a read buffer holds, and two more."""
        running = proxy()
        with running.secured(tap.port) if secure else running.tunnel(plain_tap.port) as client:
            send(client, last_bytes(b"\r\n" + padded(b"GET / HTTP/1.1\r\nHost: localhost\r\n", DEFAULT)))
            assert client.read_answer().status == 200

    @over
    def test_of_pipelined_requests(self, running: Running, plain_tap: Tap, over: int) -> None:
        """Each has the whole limit for itself, and what stands behind a head is not of it."""
        head = padded(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 700\r\n", LIMIT)
        last = padded(b"GET / HTTP/1.1\r\nHost: localhost\r\n", LIMIT + over)
        with running.tunnel(plain_tap.port) as client:
            client.send((head + bytes(700)) * 3 + last)
            assert [client.read_answer().status for _ in range(4)] == [200, 200, 200, 431 if over else 200]

    @over
    @pytest.mark.parametrize("feed", [whole, last_bytes])
    def test_the_number_of_fields(self, proxy: ProxyFactory, journal: Journal, tap: Tap, feed: Feed, over: int) -> None:
        running = proxy(Judge(journal))
        fields = b"".join(b"X%d: y\r\n" % number for number in range(FIELDS - 1 + over))
        with running.secured(tap.port) as client:
            send(client, feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n"))
            answer = client.read_answer()
            assert answer.status == (431 if over else 200)
            assert not over or f"more than {FIELDS} fields" in answer.text


class TestResponseHeads:
    @over
    @every_feed
    @pytest.mark.parametrize("status", [200, 103])
    def test_length(self, running: Running, tap: Tap, feed: Feed, over: int, status: int) -> None:
        start = b"HTTP/1.1 103 Early Hints\r\n" if status == 103 else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        wire = padded(start, LIMIT + over)
        rest = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if status == 103 else b"ok"
        tap.respond = lambda connection, request: [connection.send(piece) for piece in feed(wire + rest)] and None
        with running.secured(tap.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if over:
                answer = client.read_answer()
                assert answer.status == 502 and str(LIMIT) in answer.text and "max_http_head_bytes" in answer.text
                return
            assert client.read_exactly(len(wire + rest)) == wire + rest

    @over
    def test_the_number_of_fields(self, proxy: ProxyFactory, tap: Tap, over: int) -> None:
        fields = b"".join(b"X%d: y\r\n" % number for number in range(FIELDS - 1 + over))
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + fields + b"\r\nok"
        tap.respond = lambda connection, request: connection.send(wire)
        with proxy().secured(tap.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if over:
                answer = client.read_answer()
                assert answer.status == 502 and f"more than {FIELDS} fields" in answer.text
            else:
                assert client.read_exactly(len(wire)) == wire


CHUNKED_UP = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_DOWN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def with_trailers(over: int) -> bytes:
    """Return a chunked body whose trailer section has as many bytes as a head may have, its final CRLF included."""
    return b"2\r\nok\r\n0\r\n" + padded(b"", LIMIT + over)


def with_many_trailers(over: int) -> bytes:
    return b"2\r\nok\r\n0\r\n" + b"A:\r\n" * (FIELDS + over) + b"\r\n"


def with_extension(over: int) -> bytes:
    """Return a chunked body with a chunk-size line as long as it may be, its CRLF included."""
    return b"2;" + b"e" * (CHUNK_LINE + over - 4) + b"\r\nok\r\n0\r\n\r\n"


@over
class TestFieldsByKey:
    """max_header_fields, in heads and trailers, of either side; what is refused names the key."""

    FIELDS = 40

    def many(self, over: int, others: int = 1) -> bytes:
        return b"X:\r\n" * (self.FIELDS - others + over) + b"\r\n"

    def test_of_requests(self, proxy: ProxyFactory, journal: Journal, tap: Tap, over: int) -> None:
        running = proxy(Judge(journal), max_header_fields=self.FIELDS)
        with running.secured(tap.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + self.many(over))
            answer = client.read_answer()
            assert answer.status == (431 if over else 200)
            assert not over or answer.text == "the request head has more than 40 fields (max_header_fields)\n"

    def test_of_connect(self, proxy: ProxyFactory, journal: Journal, tap: Tap, over: int) -> None:
        with proxy(Judge(journal), max_header_fields=self.FIELDS).client() as client:
            client.send(b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost\r\n" % tap.port + self.many(over))
            assert client.read_head().status == (431 if over else 200)

    def test_of_responses(self, proxy: ProxyFactory, journal: Journal, tap: Tap, over: int) -> None:
        running = proxy(Judge(journal), max_header_fields=self.FIELDS)
        tap.respond = lambda connection, request: connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + self.many(over))
        with running.secured(tap.port) as client:
            answer = client.request("/", "localhost")
            assert answer.status == (502 if over else 200)
            assert not over or answer.text == "the upstream's response head has more than 40 fields (max_header_fields)\n"

    def test_of_trailers(self, proxy: ProxyFactory, journal: Journal, tap: Tap, over: int) -> None:
        running = proxy(Judge(journal), max_header_fields=self.FIELDS)
        with running.secured(tap.port) as client:
            client.send(CHUNKED_UP + b"0\r\n" + self.many(over, 0))
            answer = client.read_answer()
            assert answer.status == (400 if over else 200)
            assert not over or answer.text.endswith("(max_header_fields)\n")


@every_feed
@over
@pytest.mark.parametrize("body", [with_trailers, with_many_trailers, with_extension])
class TestChunkedFraming:
    LIMITS = {with_trailers: LIMIT, with_many_trailers: 65536, with_extension: LIMIT}

    def test_of_requests(
        self, proxy: ProxyFactory, journal: Journal, tap: Tap, body: Callable[[int], bytes], feed: Feed, over: int
    ) -> None:
        running = proxy(Judge(journal), max_http_head_bytes=self.LIMITS[body])
        with running.secured(tap.port) as client:
            assert client.request("/", "localhost").status == 200
            mark = tap.journal.mark()
            send(client, feed(CHUNKED_UP + body(over)))
            answer = client.read_answer()
            assert answer.status == (400 if over else 200)
            if over:
                assert client.read_to_end() == b""
                tap.assert_silence(mark)
            else:
                tap.journal.wait_plain(mark, CHUNKED_UP + body(over))

    def test_of_responses(
        self, proxy: ProxyFactory, journal: Journal, tap: Tap, body: Callable[[int], bytes], feed: Feed, over: int
    ) -> None:
        running = proxy(Judge(journal), max_http_head_bytes=self.LIMITS[body])
        wire = CHUNKED_DOWN + body(over)
        tap.respond = lambda connection, request: [connection.send(piece) for piece in feed(wire)] and None
        with running.secured(tap.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not over:
                assert client.read_exactly(len(wire)) == wire
                return
            seen = b""
            with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                while piece := client.socket.recv(1 << 16):
                    seen += piece
                    if seen.startswith(b"HTTP/1.1 502 "):
                        # it came with the head, of which nothing was sent yet
                        assert body is with_extension and b"malformed" in seen
                        return
                pytest.fail("the client was told that this is the end")
            assert wire.startswith(seen) and len(seen) <= len(CHUNKED_DOWN + b"2\r\nok\r\n0\r\n")
