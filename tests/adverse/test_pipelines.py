"""Clients that ask for more than they read, and handlers that fall behind: what waits is bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, RawResponse
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import WireClient

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = "no " * 4000
# together more than the kernel takes for a connection
COUNT = 5000


def moves(running: Running, client: WireClient, progress: list[int]) -> bool:
    """Let the proxy do whatever it can, and tell whether it did something."""
    before = len(progress)
    for _ in range(300):
        running.metrics()
    return len(progress) != before


class TestAnswersThatNobodyReads:
    def check(self, running: Running, client: WireClient, progress: list[int]) -> None:
        """Send all requests, see that they are not all served before somebody reads, and read all answers."""
        sending = threading.Thread(target=client.send, args=(GET * COUNT,))
        sending.start()
        while moves(running, client, progress) or not progress:
            pass
        assert len(progress) < COUNT
        # a client on TLS has one side at a time
        sending.join()
        for _ in range(COUNT):
            assert client.read_answer().text == ANSWER
        assert len(progress) == COUNT

    def test_of_our_own(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        asked: list[int] = []

        def block(request: RawRequest) -> HandlerDecision:
            asked.append(request.flow_id)
            return HandlerDecision.block(403, ANSWER)

        running = proxy(Recording(block))
        with running.tunnel(plain_origin.port) as client:
            self.check(running, client, asked)

    def test_of_an_upstream(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        served: list[int] = []

        def answer(connection: ScriptedConnection, request: Request) -> None:
            served.append(1)
            connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode())

        plain_origin.script(answer, "/x")
        running = proxy(InterceptHandler())
        with running.tunnel(plain_origin.port) as client:
            self.check(running, client, served)

    def test_of_a_refused_route(self, proxy: ProxyFactory) -> None:
        """No handler and no upstream is needed to be asked for much and read little."""
        running = proxy(InterceptHandler(), destinations=("example.test:80",), **{"interception.passthrough_unlisted": False})
        request = b"GET http://localhost:1/" + b"x" * 200 + b" HTTP/1.1\r\nHost: localhost:1\r\n\r\n"
        with running.client() as client:
            client.socket.setblocking(False)
            sent = seen = 0
            # the answers are shorter than the requests, but there is no end of them
            while True:
                before = (sent, seen)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sent += client.socket.send((request * 1000)[sent % len(request) :])
                for _ in range(300):
                    running.metrics()
                seen = running.metrics().total_flows
                assert sent < 64 << 20
                if (sent, seen) == before:
                    break
            assert seen * len(request) < sent
        running.wait_idle()


class TestHandlersThatFallBehind:
    @pytest.mark.parametrize("capacity", [1, 8])
    def test_with_responses(self, proxy: ProxyFactory, plain_origin: Origin, capacity: int) -> None:
        """A connection takes no further request while so many of its flows wait for the handler."""
        release = threading.Event()
        waiting: list[int] = []
        most = 0

        class Slow(Recording):
            async def on_response(self, response: RawResponse) -> None:
                nonlocal most
                waiting.append(response.flow_id)
                most = max(most, len(waiting))
                await asyncio.to_thread(release.wait, 10)
                waiting.remove(response.flow_id)
                await super().on_response(response)

        running = proxy(Slow(), **{"flow_runtime.dispatch_queue_capacity": capacity})
        with running.tunnel(plain_origin.port) as client:
            client.send(GET.replace(b"/x", b"/bytes/3") * 50)
            for _ in range(capacity):
                client.read_answer()
            while moves(running, client, waiting):
                pass
            assert len(waiting) == capacity
            release.set()
            for _ in range(50 - capacity):
                assert len(client.read_answer().body) == 3
        assert len(running.handler.wait("on_response", 50)) == 50
        assert most == capacity

    def test_and_have_half_a_head_behind_them(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """The rest of it is read once the handler is done, though no other request is served meanwhile."""
        release = threading.Event()

        class Slow(Recording):
            async def on_response(self, response: RawResponse) -> None:
                await asyncio.to_thread(release.wait, 10)
                await super().on_response(response)

        running = proxy(Slow(), **{"flow_runtime.dispatch_queue_capacity": 1})
        request = GET.replace(b"/x", b"/bytes/3")
        with running.tunnel(plain_origin.port) as client:
            client.send(request + request[:10])
            assert len(client.read_answer().body) == 3
            release.set()
            running.handler.wait("on_response", 1)
            client.send(request[10:])
            assert len(client.read_answer().body) == 3

    def test_and_time_out(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Their own deadline is the longest that a request waits for them."""

        class Hanging(Recording):
            async def on_response(self, response: RawResponse) -> None:
                await asyncio.Event().wait()

        running = proxy(Hanging(), **{"flow_runtime.dispatch_queue_capacity": 1, "handler.response_timeout_ms": 20})
        with running.tunnel(plain_origin.port) as client:
            client.send(GET.replace(b"/x", b"/bytes/3") * 5)
            for _ in range(5):
                assert len(client.read_answer().body) == 3
        running.handler.wait("on_connection_close")
        assert running.metrics().handler_timeout_count == 5


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
        # of these what they announce may yet come, and would be taken for the next answer
        (b"GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    ],
)
def test_content_where_there_is_none_reaches_nobody(proxy: ProxyFactory, plain_origin: Origin, method: bytes, answer: bytes) -> None:
    plain_origin.script(lambda connection, request: connection.send(answer), "/x")
    with proxy().tunnel(plain_origin.port) as client:
        client.send(GET.replace(b"GET", method) + GET.replace(b"/x", b"/bytes/7"))
        head = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        if b" 20" in head and b" 200 " not in head or b" 304 " in head:
            # nor what announces it
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith((b"Transfer-Encoding", b"Content-Length")))
        assert client.read_exactly(len(head)) == head
        assert len(client.read_answer().body) == 7
    assert len(plain_origin.connections) == 2
