"""Ten thousand requests on one connection, through the proxy and without it: what arrives is what was sent, to the byte, both times."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, RawResponse
from support.certs import TestCA
from support.exchanges import exchange, stripped
from support.running import HOST, ProxyFactory
from support.wire_client import WireClient

REQUESTS = 10_000
# what is sent at once fits into anybody's buffers, so that nobody waits for somebody who waits for him
PIPELINED, PIPELINED_BYTES = 20, 30_000


class RawReader(WireClient):
    """Reads messages as they are on the wire."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    def message(self, *, bodiless: bool = False) -> bytes:
        """Read one message, 1xx before it included."""
        raw = head = self.read_until(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):
            head = self.read_until(b"\r\n\r\n")
            raw += head
        fields = head.lower()
        if bodiless or fields.startswith((b"http/1.1 204", b"http/1.1 304")):
            return raw
        if b"\r\ntransfer-encoding: chunked\r\n" in fields:
            return raw + self._chunked()
        _, found, rest = fields.partition(b"\r\ncontent-length: ")
        return raw + self.read_exactly(int(rest.partition(b"\r\n")[0])) if found else raw

    def _chunked(self) -> bytes:
        pieces = []
        while size := int((line := self.read_until(b"\r\n")).partition(b";")[0], 16):
            pieces += (line, self.read_exactly(size + 2))
        pieces.append(line)
        while (line := self.read_until(b"\r\n")) != b"\r\n":
            pieces.append(line)
        return b"".join((*pieces, line))


class NumberedOrigin:
    """Answers each request with the response of its number, and remembers the digest of what it was sent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.received: dict[int, str] = {}
        self._context = context
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End, once every client has."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        # shut down, it does not accept any more
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(accepted,)))
                self._threads[-1].start()

    def _serve(self, accepted: socket.socket) -> None:
        with self._context.wrap_socket(accepted, server_side=True) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = RawReader(sock)
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    request = client.message()
                    number = int(request.partition(b"?")[0].rpartition(b"/")[2])
                    self.received[number] = digest(request)
                    sock.sendall(exchange(number).response)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def numbered_origin(origin_ca: TestCA) -> Iterator[NumberedOrigin]:
    running = NumberedOrigin(origin_ca.server_context(HOST))
    yield running
    running.close()


class Comparing(InterceptHandler):
    """Compares what it is shown with what was sent."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.responses: list[int] = []
        self.differing: list[str] = []

    def on_request(self, request: RawRequest) -> HandlerDecision:
        number = int(request.path.partition("?")[0][1:])
        self.requests.append(number)
        if request.body != exchange(number).sent or not request.body_complete:
            self.differing.append(f"the body of request {number}")
        return HandlerDecision.ALLOW

    def on_response(self, response: RawResponse) -> None:
        number = int(response.request.path.partition("?")[0][1:])
        self.responses.append(number)
        if not response.streaming and response.body != exchange(number).received:
            self.differing.append(f"the body of response {number}")


def batches() -> Iterator[range]:
    """Yield the numbers of requests to be sent at once."""
    start, size = 0, 0
    for number in range(REQUESTS):
        length = len(exchange(number).request)
        if number - start == PIPELINED or size + length > PIPELINED_BYTES:
            yield range(start, number)
            start, size = number, 0
        size += length
    yield range(start, REQUESTS)


def talk(client: RawReader, through_a_proxy: bool) -> list[str]:
    """Send all requests and compare their answers; return the digests of the requests as they are to arrive."""
    sent = []
    for numbers in batches():
        exchanges = [exchange(number) for number in numbers]
        client.send(b"".join(item.request for item in exchanges))
        for number, item in zip(numbers, exchanges, strict=True):
            answer = client.message(bodiless=item.method == "HEAD")
            request, response = (stripped(item.request), stripped(item.response)) if through_a_proxy else (item.request, item.response)
            assert answer == response, number
            sent.append(digest(request))
    return sent


def test_without_the_proxy(numbered_origin: NumberedOrigin, origin_ca: TestCA) -> None:
    """The yardstick: client and origin are not at fault."""
    sock = socket.create_connection((HOST, numbered_origin.port), 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with RawReader(origin_ca.client_context().wrap_socket(sock, server_hostname=HOST)) as client:
        sent = talk(client, False)
    assert [numbered_origin.received[number] for number in range(REQUESTS)] == sent


def test_through_the_proxy(numbered_origin: NumberedOrigin, proxy: ProxyFactory) -> None:
    handler = Comparing()
    running = proxy(handler)
    with RawReader(running.secured(numbered_origin.port).socket) as client:
        sent = talk(client, True)
    assert [numbered_origin.received[number] for number in range(REQUESTS)] == sent
    running.wait_idle()
    assert handler.requests == handler.responses == list(range(REQUESTS))
    assert handler.differing == []
    metrics = running.metrics()
    assert (metrics.total_flows, metrics.relayed_response_count, metrics.cut_response_count) == (REQUESTS, REQUESTS, 0)
    # the yardstick again: one connection of the client, one to the origin
    assert (metrics.total_connections, metrics.pool_miss_count) == (1, 1)
