"""Bodies of every framing and size, in both directions, byte for byte."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import Answer, WireClient

SIZES = [0, 1, 16383, 16384, 16385, 65535, 65536, 65537, (1 << 20) + 1]
HUGE = 20 << 20
PIECE = 60_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunks(body: bytes, trailers: bytes = b"") -> Iterator[bytes]:
    for start in range(0, len(body), PIECE):
        piece = body[start : start + PIECE]
        yield b"%X;note=1\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n%b\r\n" % trailers


def get(client: WireClient, origin: Origin, path: str) -> Answer:
    return client.request(path, f"localhost:{origin.port}")


def post_head(origin: Origin, framing: str, path: str = "/echo") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost:{origin.port}\r\n{framing}\r\n\r\n".encode()


@pytest.fixture(params=["seen", "unseen"])
def running(request: pytest.FixtureRequest, proxy: ProxyFactory) -> Running:
    """A proxy with a handler that looks at everything, and one with a handler that looks at nothing."""
    return proxy() if request.param == "seen" else proxy(InterceptHandler())


class TestResponses:
    def test_by_content_length(self, running: Running, origin: Origin) -> None:
        with running.secured(origin.port) as client:
            for size in SIZES:
                assert sha256(get(client, origin, f"/bytes/{size}").body) == sha256(pattern(size)), size
        assert len(origin.connections) == 1

    def test_chunked_with_trailers(self, running: Running, origin: Origin) -> None:
        with running.secured(origin.port) as client:
            for size in SIZES:
                answer = get(client, origin, f"/chunked/{size}/5?trailers")
                assert sha256(answer.body) == sha256(pattern(size)), size
                assert answer.trailers == [("X-Sha256", sha256(pattern(size)))]

    def test_until_close(self, running: Running, origin: Origin) -> None:
        for size in SIZES:
            with running.secured(origin.port) as client:
                assert sha256(get(client, origin, f"/close/{size}").body) == sha256(pattern(size)), size

    def test_chunk_framing_is_not_changed(self, running: Running, origin: Origin) -> None:
        wire = b"".join(chunks(pattern(200_000), b"X-One: 1\r\nx-two:  2\r\n"))

        def send(connection: ScriptedConnection, request: object) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)

        origin.script(send, "/wire")
        with running.secured(origin.port) as client:
            assert get(client, origin, "/wire").raw == wire

    @pytest.mark.parametrize("path", [f"/bytes/{HUGE}", f"/chunked/{HUGE}/300", f"/close/{HUGE}"])
    def test_huge(self, running: Running, origin: Origin, path: str) -> None:
        with running.secured(origin.port) as client:
            assert sha256(get(client, origin, path).body) == sha256(pattern(HUGE))

    def test_a_client_that_does_not_read_holds_the_upstream_back(self, running: Running, origin: Origin) -> None:
        sent = 0
        stopped = threading.Event()

        def endless(connection: ScriptedConnection, request: object) -> None:
            nonlocal sent
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
            data = pattern(HUGE)
            for start in range(0, HUGE, PIECE):
                connection.send(data[start : start + PIECE])
                sent = start
            stopped.set()

        origin.script(endless, "/endless")
        with running.secured(origin.port) as client:
            client.send(f"GET /endless HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
            assert client.read_head().status == 200
            # what kernels and the proxy hold is far less than this; without back-pressure it would all be gone in a fraction of this time
            assert not stopped.wait(0.5), sent
            assert running.metrics().bytes_from_upstreams < HUGE
            assert sha256(client.read_exactly(HUGE)) == sha256(pattern(HUGE))
            assert stopped.wait(10)


class TestRequests:
    @pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "streamed"])
    def test_by_content_length(self, proxy: ProxyFactory, origin: Origin, buffered: bool) -> None:
        running = proxy(**{"body.buffer_request_bodies": buffered})
        with running.secured(origin.port) as client:
            for size in SIZES:
                client.request("/echo", f"localhost:{origin.port}", "POST", pattern(size))
                received = origin.requests[-1]
                assert (received.length, received.digest.hexdigest()) == (size, sha256(pattern(size)))
        for size, request in zip(SIZES, running.handler.requests, strict=True):
            assert request.body_complete == (buffered or size == 0)
            assert sha256(request.body) == sha256(pattern(size) if buffered else b"")

    @pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "streamed"])
    def test_chunked_with_trailers(self, proxy: ProxyFactory, origin: Origin, buffered: bool) -> None:
        running = proxy(**{"body.buffer_request_bodies": buffered})
        with running.secured(origin.port) as client:
            for size in SIZES:
                wire = b"".join(chunks(pattern(size), b"X-End: yes\r\n"))
                client.send(post_head(origin, "Transfer-Encoding: chunked") + wire)
                assert client.read_answer().status == 200
                received = origin.requests[-1]
                assert bytes(received.raw_body) == wire
                assert received.trailers == [("X-End", "yes")]
                request = running.handler.requests[-1]
                if buffered:
                    assert sha256(request.body) == sha256(pattern(size))
                    assert request.trailers.get("x-end") == "yes"

    @pytest.mark.parametrize("framing", [f"Content-Length: {HUGE}", "Transfer-Encoding: chunked"])
    def test_huge(self, running: Running, origin: Origin, framing: str) -> None:
        with running.secured(origin.port) as client:
            client.send(post_head(origin, framing))
            body = pattern(HUGE)
            for piece in [body] if "Length" in framing else chunks(body):
                client.send(piece)
            assert client.read_answer().status == 200
        assert origin.requests[-1].digest.hexdigest() == sha256(body)

    def test_the_body_streams_after_the_decision_when_not_buffered(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"body.buffer_request_bodies": False})
        with running.secured(origin.port) as client:
            client.send(post_head(origin, "Content-Length: 10") + b"first")
            origin.wait_heads(1)
            (request,) = running.handler.requests
            assert (request.body, request.body_complete) == (b"", False)
            client.send(b"later")
            assert client.read_answer().status == 200
        assert bytes(origin.requests[0].body) == b"firstlater"

    def test_an_early_response_is_relayed_while_the_upload_goes_on(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"body.buffer_request_bodies": False})
        with running.secured(origin.port) as client:
            client.send(post_head(origin, "Content-Length: 10", "/early") + b"first")
            assert client.read_answer().body == b"early\n"
            client.send(b"later")
            assert get(client, origin, "/bytes/3").body == pattern(3)
        assert bytes(origin.requests[0].body) == b"firstlater"


def test_bodies_that_come_byte_by_byte_are_shown_whole(proxy: ProxyFactory, plain_origin: Origin) -> None:
    body = pattern(300)

    def dribble(connection: ScriptedConnection, request: object) -> None:
        connection.read_body()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            connection.send(bytes([byte]))

    plain_origin.script(dribble)
    running = proxy()
    with running.tunnel(plain_origin.port) as client:
        for framing, wire in (("Content-Length: 300", body), ("Transfer-Encoding: chunked", b"".join(chunks(body)))):
            client.send(post_head(plain_origin, framing))
            for byte in wire:
                client.send(bytes([byte]))
            assert client.read_answer().body == body
    assert [request.body for request in running.handler.requests] == [body] * 2
    assert [response.body for response in running.handler.wait("on_response", 2)] == [body] * 2
    assert [bytes(request.body) for request in plain_origin.requests] == [body] * 2


class TestOverflow:
    LIMIT = 10_000

    def test_stream_decides_on_the_first_part(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"body.max_size_bytes": self.LIMIT})
        with running.secured(origin.port) as client:
            client.request("/echo", f"localhost:{origin.port}", "POST", pattern(500_000))
        (request,) = running.handler.requests
        assert request.body == pattern(self.LIMIT)
        assert (request.body_truncated, request.body_complete) == (True, False)
        assert origin.requests[0].digest.hexdigest() == sha256(pattern(500_000))

    @pytest.mark.parametrize("framing", ["Content-Length: 10001", "Transfer-Encoding: chunked"])
    def test_reject_answers_413(self, proxy: ProxyFactory, origin: Origin, framing: str) -> None:
        running = proxy(**{"body.max_size_bytes": self.LIMIT, "body.overflow": "reject"})
        with running.secured(origin.port) as client:
            body = pattern(self.LIMIT + 1)
            client.send(post_head(origin, framing) + (body if "Length" in framing else b"".join(chunks(body))))
            answer = client.read_answer()
            assert answer.status == 413 and "body.max_size_bytes" in answer.text
        assert origin.requests == []
        assert running.handler.requests == []

    def test_reject_lets_the_limit_itself_through(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"body.max_size_bytes": self.LIMIT, "body.overflow": "reject"})
        with running.secured(origin.port) as client:
            for framing, wire in (
                (f"Content-Length: {self.LIMIT}", pattern(self.LIMIT)),
                ("Transfer-Encoding: chunked", b"".join(chunks(pattern(self.LIMIT)))),
            ):
                client.send(post_head(origin, framing) + wire)
                assert client.read_answer().status == 200
        assert [(request.body_complete, request.body_truncated) for request in running.handler.requests] == [(True, False)] * 2

    def test_a_block_on_the_first_part_stops_the_rest(self, proxy: ProxyFactory, origin: Origin) -> None:
        def block(request: RawRequest) -> HandlerDecision:
            return HandlerDecision.block(403, "no\n")

        running = proxy(Recording(block), **{"body.max_size_bytes": self.LIMIT})
        with running.secured(origin.port) as client:
            client.send(post_head(origin, "Content-Length: 500000") + pattern(100_000))
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (403, "close")
        assert origin.requests == []

    def test_a_slow_body_is_decided_on_as_it_is(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"body.buffer_timeout_ms": 30})
        with running.secured(origin.port) as client:
            client.send(post_head(origin, "Content-Length: 10") + b"first")
            (request,) = running.handler.wait("on_request")
            assert (request.body, request.body_complete) == (b"first", False)
            client.send(b"later")
            assert client.read_answer().status == 200
        assert bytes(origin.requests[0].body) == b"firstlater"
