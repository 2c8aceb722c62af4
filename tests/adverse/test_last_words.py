"""Upstreams that answer, and close on what they have not read: the reset that follows does not swallow the answer.

Such an upstream refuses an upload that is too large. Its answer and the RST arrive together, and what is written next fails before anybody
has read the answer. To make that happen each time, the proxy's loop is held by a plain `on_request` of another client meanwhile.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from soth_mitm import HandlerDecision, RawRequest
from support.arrival import wait_arrival
from support.certs import TestCA
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

pytestmark = pytest.mark.skipif(os.name != "posix", reason="winloop reads by itself; what it has not read is not asked for")

UPLOADS = {
    "length": b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n",
    "chunked": b"POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
}
REFUSAL = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n"


class Refuser:
    """A server of one connection that leaves most of what it is sent unread."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = ThreadPoolExecutor(1)
        self._accepted = self._thread.submit(self._accept)

    def _accept(self) -> socket.socket:
        accepted, self._peer = self._listening.accept()
        accepted.settimeout(10)
        # what waits in the system when the connection is reset is lost
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted if self._context is None else self._context.wrap_socket(accepted, server_side=True)

    def read_some(self) -> bytes:
        """Take a little."""
        return self._accepted.result(10).recv(1000)

    def answer_and_leave(self, answer: bytes) -> None:
        """Answer and close; return when the answer and the reset lie in the proxy's socket."""
        connection = self._accepted.result(10)
        connection.sendall(answer)
        connection.close()
        wait_arrival(self._peer, reset=True)

    def close(self) -> None:
        self._listening.close()
        self._thread.shutdown()


@pytest.fixture(params=["plain", "tls"])
def refuser(request: pytest.FixtureRequest, origin_ca: TestCA) -> Iterator[Refuser]:
    running = Refuser(origin_ca.server_context(HOST) if request.param == "tls" else None)
    yield running
    running.close()


@pytest.fixture
def plain_refuser() -> Iterator[Refuser]:
    running = Refuser(None)
    yield running
    running.close()


def while_the_loop_is_held(running: Running, port: int, act: Callable[[], None]) -> None:
    """Let another client's request be decided on, and `act` during that."""

    def decide(request: RawRequest) -> HandlerDecision:
        act()
        return HandlerDecision.block(204)

    running.handler.decide = decide
    with running.client() as other:
        assert other.request(f"http://localhost:{port}/other", f"localhost:{port}").status == 204


def refused(running: Running, refuser: Refuser, client: WireClient, answer: bytes, framing: str = "length") -> None:
    """Upload until the refusal is under way."""
    client.send(UPLOADS[framing] + bytes(100_000))
    assert refuser.read_some().startswith(b"POST /up ")

    def act() -> None:
        client.send(bytes(10_000))
        refuser.answer_and_leave(answer)

    while_the_loop_is_held(running, refuser.port, act)


def connected(running: Running, refuser: Refuser) -> WireClient:
    return running.tunnel(refuser.port) if refuser._context is None else running.secured(refuser.port)


def chunked(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


@pytest.mark.parametrize("content", [b"no\n", pattern(40_000)], ids=["short", "long"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_answer_that_is_all_there_is_relayed(proxy: ProxyFactory, refuser: Refuser, framing: str, content: bytes) -> None:
    head = "HTTP/1.1 413 Too Large\r\nConnection: close\r\n"
    if framing == "length":
        answer = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    else:
        answer = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(content)
    running = proxy(**{"body.buffer_request_bodies": False})
    with connected(running, refuser) as client:
        refused(running, refuser, client, answer, framing)
        answered = client.read_answer()
        assert (answered.status, answered.body, answered.get("connection")) == (413, content, "close")
        assert client.read_to_end() == b""
    running.wait_idle()
    metrics = running.metrics()
    assert (metrics.relayed_response_count, metrics.cut_response_count, metrics.upstream_error_count) == (1, 0, 0)
    assert metrics.upstream_connections == 0


def test_interim_answers_are_relayed_too(proxy: ProxyFactory, refuser: Refuser) -> None:
    running = proxy(**{"body.buffer_request_bodies": False})
    with connected(running, refuser) as client:
        refused(running, refuser, client, b"HTTP/1.1 103 Early Hints\r\n\r\n" + REFUSAL)
        assert [client.read_answer().status for _ in range(2)] == [103, 413]


def test_an_answer_that_ends_with_its_connection_has_no_end(proxy: ProxyFactory, plain_refuser: Refuser) -> None:
    """A reset may have swallowed the rest, so the client is not told that this was all."""
    running = proxy(**{"body.buffer_request_bodies": False})
    with running.tunnel(plain_refuser.port) as client:
        refused(running, plain_refuser, client, b"HTTP/1.1 413 Too Large\r\n\r\nno\n")
        assert client.read_until(b"no\n").startswith(b"HTTP/1.1 413 ")
        with pytest.raises(ConnectionResetError):
            client.read_to_end()
    running.wait_idle()
    assert running.metrics().cut_response_count == 1


def test_the_last_bytes_of_a_tunnel(proxy: ProxyFactory, plain_refuser: Refuser) -> None:
    running = proxy(destinations=("localhost:1",))
    with running.tunnel(plain_refuser.port) as client:
        client.send(bytes(100_000))
        assert plain_refuser.read_some()

        def act() -> None:
            client.send(bytes(10_000))
            plain_refuser.answer_and_leave(pattern(40_000))

        while_the_loop_is_held(running, 1, act)
        assert client.read_exactly(40_000) == pattern(40_000)
        with pytest.raises(ConnectionResetError):
            client.read_to_end()
