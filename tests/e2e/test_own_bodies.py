"""Bodies that a handler gives a request: how fast they are asked for, what of them is shown, and when they are closed."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, StreamChunk
from support.http2_inside import Http2Client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running

forward, respond = HandlerDecision.forward, HandlerDecision.respond
CANCEL = 8
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GRPC_WEB = "Content-Type: application/grpc-web+proto\r\n"


def message(number: int, size: int = 16384) -> bytes:
    """Return a message of gRPC-Web that begins with its number."""
    payload = number.to_bytes(4, "big") + bytes(size - 4)
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class Source:
    """An async iterable that notes that it is closed, also if nothing was taken of it."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.begun = False

    def __aiter__(self) -> Source:
        self.begun = True
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        return b"item"

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed.set()


class Streams(InterceptHandler):
    """Gives the first request for /x a body of `make`, and counts what is asked for."""

    def __init__(self, make: Callable[[Streams], AsyncIterator[bytes]]) -> None:
        self.make = make
        self.asked = 0
        self.closed = threading.Event()
        self.go = threading.Event()

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return forward(body=self.make(self)) if request.path == "/x" else HandlerDecision.ALLOW


async def endless(handler: Streams) -> AsyncIterator[bytes]:
    try:
        while True:
            handler.asked += 1
            yield b"item"
            await asyncio.sleep(0.02)
    finally:
        handler.closed.set()


async def fails_when_told(handler: Streams) -> AsyncIterator[bytes]:
    yield b"item"
    await asyncio.get_running_loop().run_in_executor(None, handler.go.wait, 9)
    raise RuntimeError("on purpose")


def settled(running: Running, value: Callable[[], int]) -> int:
    """Return a count that has stopped growing: the loop has gone round many times since."""
    count = -1
    while count != value():
        count = value()
        for _ in range(50):
            running.metrics()
    return count


class TestEarlyResponses:
    """The upstream has answered whole, and the body goes on."""

    def answers_early(self, connection: ScriptedConnection, request: Request) -> None:
        connection.send(OK)
        while connection.receive():
            pass

    def test_an_endless_body_does_not_hold_the_client(
        self, proxy: ProxyFactory, plain_origin: Origin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("soth_mitm.proxy.settings.LINGER_SECONDS", 0.3)
        plain_origin.script(self.answers_early, "/x")
        handler = Streams(endless)
        running = proxy(handler)
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/x", HOST, "POST", b"old").text == "ok"
            assert client.request("/bytes/3", HOST).body == pattern(3)
        assert handler.closed.wait(9)
        running.wait_idle()
        assert running.metrics().cancelled_own_body_count == 1

    def test_one_that_fails_leaves_the_next_request(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(self.answers_early, "/x")
        handler = Streams(fails_when_told)
        running = proxy(handler)
        with running.tunnel(plain_origin.port) as client:
            head = f"HTTP/1.1\r\nHost: {HOST}\r\n".encode()
            client.send(b"POST /x " + head + b"Content-Length: 3\r\n\r\nold" + b"GET /bytes/3 " + head + b"\r\n")
            first = client.read_answer()
            handler.go.set()
            assert (first.text, first.get("connection")) == ("ok", None)
            assert client.read_answer().body == pattern(3)
            assert client.request("/bytes/4", HOST).body == pattern(4)
        # what the upstream got of it is no whole request
        assert not plain_origin.requests[0].complete
        assert running.metrics().handler_panic_count == 1

    def test_one_that_fails_while_the_response_comes_cuts_it(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def begins(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nbegun")
            while connection.receive():
                pass

        plain_origin.script(begins, "/x")
        handler = Streams(fails_when_told)
        running = proxy(handler)
        with running.tunnel(plain_origin.port) as client:
            client.send(f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nold".encode())
            client.read_head()
            assert client.read_exactly(5) == b"begun"
            handler.go.set()
            assert client.read_to_end() == b""
        running.wait_idle()
        assert running.metrics().cut_response_count == 1


class Shows(Recording):
    """Gives /x a body of messages, and is slow to look at them."""

    def __init__(self, body: Callable[[Shows], Any]) -> None:
        super().__init__()
        self.body = body
        self.asked = 0

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        self.gate, self.loop = asyncio.Event(), asyncio.get_running_loop()
        return forward(body=self.body(self)) if request.path == "/x" else HandlerDecision.ALLOW

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        self._note("on_stream_chunk", chunk)
        await self.gate.wait()

    def open(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.set)


MESSAGES = 400


async def messages(handler: Shows) -> AsyncIterator[bytes]:
    for number in range(MESSAGES):
        handler.asked += 1
        yield message(number)


def numbers(handler: Shows, count: int) -> list[int]:
    """Return the numbers of the messages that were shown, once there are `count`."""
    return [int.from_bytes(chunk.payload[:4], "big") for chunk in handler.wait("on_stream_chunk", count)]


class TestShown:
    KEYS: dict[str, Any] = {"flow_runtime.dispatch_queue_capacity": 4, "flow_runtime.dispatch_queue_send_timeout_ms": 60_000}

    @pytest.mark.parametrize("kind", ["iterable", "bytes"])
    def test_a_handler_that_is_behind_is_waited_for(self, proxy: ProxyFactory, plain_origin: Origin, kind: str) -> None:
        whole = b"".join(message(number) for number in range(MESSAGES))
        handler = Shows(messages if kind == "iterable" else lambda _: whole)
        running = proxy(handler, **self.KEYS)
        with running.tunnel(plain_origin.port) as client:
            client.send(f"POST /x HTTP/1.1\r\nHost: {HOST}\r\n{GRPC_WEB}Content-Length: 3\r\n\r\nold".encode())
            handler.wait("on_stream_chunk")
            plain_origin.wait_heads(1)
            if kind == "iterable":
                assert settled(running, lambda: handler.asked) < 20
            assert settled(running, lambda: len(plain_origin.requests[0].body)) < 20 * len(message(0))
            handler.open()
            assert client.read_answer().status in (200, 404)
        assert numbers(handler, MESSAGES) == list(range(MESSAGES))
        assert running.metrics().dropped_dispatch_work_count == 0

    def test_little_that_is_decoded_to_much(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        coded = gzip.compress(b"".join(message(number) for number in range(MESSAGES)))
        handler = Recording(lambda _: forward(body=coded, set={"Content-Encoding": "gzip"}))
        running = proxy(handler)
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", HOST, "POST", b"old", GRPC_WEB).status == 200
        shown = [chunk for chunk in handler.wait("on_stream_chunk", MESSAGES) if chunk.direction == "to_upstream"]
        assert [int.from_bytes(chunk.payload[:4], "big") for chunk in shown] == list(range(MESSAGES))
        assert bytes(plain_origin.requests[0].body) == coded

    @pytest.mark.parametrize("is_lost_at", [0, 1_000_000])
    def test_what_is_sent_again_is_shown_once(self, proxy: ProxyFactory, plain_origin: Origin, is_lost_at: int) -> None:
        # more than the system takes at once
        whole = b"".join(message(number, 100_000) for number in range(MESSAGES))

        def loses_the_second(connection: ScriptedConnection, request: Request) -> None:
            if len(connection.connection.requests) > 1:
                connection.receive_exactly(is_lost_at)
                connection.reset()
                return
            connection.read_body()
            connection.send(OK)

        class ShowsAll(Recording):
            def on_request(self, request: RawRequest) -> HandlerDecision:  # type: ignore[override]
                return forward(body=whole) if request.path == "/x" else HandlerDecision.ALLOW

        plain_origin.script(loses_the_second)
        handler = ShowsAll()
        running = proxy(handler)
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/first", HOST).status == 200
            assert client.request("/x", HOST, "PUT", b"old", GRPC_WEB).status == 200
        running.wait_idle()
        assert running.metrics().retry_count == 1
        assert [int.from_bytes(chunk.payload[:4], "big") for chunk in handler.of("on_stream_chunk")] == list(range(MESSAGES))


@pytest.mark.parametrize("kind", ["answer", "request"])
def test_an_item_that_lies_here_counts_for_the_budget(proxy: ProxyFactory, plain_origin: Origin, kind: str) -> None:
    size = 50_000_000
    go = threading.Event()

    def reads_later(connection: ScriptedConnection, request: Request) -> None:
        connection.wait(go)
        connection.read_body()
        connection.send(OK)

    async def large() -> AsyncIterator[bytes]:
        yield bytes(size)

    plain_origin.script(reads_later)
    running = proxy(Recording(lambda _: respond(200, large()) if kind == "answer" else forward(body=large())))
    with running.tunnel(plain_origin.port) as client:
        client.send(f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nold".encode())
        if kind == "answer":
            client.read_head()
        else:
            plain_origin.wait_heads(1)
        assert settled(running, lambda: running.metrics().buffered_bytes) > size - 20_000_000
        go.set()
        if kind == "answer":
            client.read_exactly(size)
        else:
            assert client.read_answer().text == "ok"
    running.wait_idle()
    assert running.metrics().buffered_bytes == 0


class TestNotApplied:
    """An iterable of a decision that is not applied is closed, and never begun."""

    def closed(self, source: Source, running: Running) -> None:
        assert source.closed.wait(9)
        assert not source.begun
        running.wait_idle("active_flows")

    @pytest.mark.parametrize(
        ("make", "keys"),
        [
            (lambda body: forward(body=body, method="HEAD"), {}),
            (lambda body: forward(body=body, set={"X": "y" * 70_000}), {}),
            (lambda body: forward(body=body), {"body.buffer_request_bodies": False}),
            (lambda body: forward(body=body), {"body.max_size_bytes": 2}),
            (lambda body: forward(body=body, to="127.0.0.2:1"), {"interception.blocked": ["127.0.0.2:*"]}),
            (lambda body: respond(200, body), {"intercept_mode": "monitor"}),
            (lambda body: forward(body=body), {"intercept_mode": "monitor"}),
        ],
        ids=["method", "head", "streamed", "too long", "redirect", "respond in monitor mode", "forward in monitor mode"],
    )
    def test_what_is_refused(self, proxy: ProxyFactory, plain_origin: Origin, make: Any, keys: dict[str, Any]) -> None:
        source = Source()
        decision = make(source)
        running = proxy(Recording(lambda _: decision), **keys)
        with running.tunnel(plain_origin.port) as client:
            answer = client.request("/echo", HOST, "POST", b"old")
            assert (answer.status == 200) == ("intercept_mode" in keys)
            self.closed(source, running)

    def test_no_upstream(self, proxy: ProxyFactory) -> None:
        source = Source()
        running = proxy(Recording(lambda _: forward(body=source, to="127.0.0.1:1")), destinations=("*:*",))
        with running.tunnel(80) as client:
            assert client.request("/echo", HOST, "POST", b"old").status == 502
            self.closed(source, running)

    def test_a_request_that_ends_here(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        source = Source()
        running = proxy(Recording(lambda _: forward(body=source)))
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/echo", HOST, "OPTIONS", None, "Max-Forwards: 0\r\n").status == 200
            self.closed(source, running)

    @pytest.mark.parametrize("protocol", ["h1", "h2"])
    @pytest.mark.parametrize("kind", ["respond", "forward"])
    def test_a_client_that_has_left(self, proxy: ProxyFactory, kind: str, protocol: str) -> None:
        source = Source()
        asked, left = threading.Event(), threading.Event()

        class Late(InterceptHandler):
            """Decides when its client has left, though it is cancelled then."""

            async def on_request(self, request: RawRequest) -> HandlerDecision:
                try:
                    asked.set()
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    left.set()
                return respond(200, source) if kind == "respond" else forward(body=source)

        running = proxy(Late(), destinations=("*:*",))
        with running.tunnel(80) as client:
            if protocol == "h1":
                client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
                assert asked.wait(9)
                client.close()
            else:
                h2 = Http2Client(client.socket, HOST, "http")
                number = h2.open("/x")
                assert asked.wait(9)
                h2.h2.reset_stream(number, CANCEL)
                h2.flush()
            assert left.wait(9)
            self.closed(source, running)

    @pytest.mark.parametrize("mode", ["enforce", "monitor"])
    @pytest.mark.parametrize("policy", ["block", "allow"])
    def test_a_hook_that_was_late(self, proxy: ProxyFactory, plain_origin: Origin, policy: str, mode: str) -> None:
        source = Source()

        class Late(InterceptHandler):
            async def on_request(self, request: RawRequest) -> HandlerDecision:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
                return respond(200, source)

        running = proxy(Late(), **{"handler.request_timeout_ms": 100, "handler.failure_policy": policy, "intercept_mode": mode})
        with running.tunnel(plain_origin.port) as client:
            status = client.request("/bytes/3", HOST).status
            assert status == (200 if policy == "allow" or mode == "monitor" else 502)
            self.closed(source, running)
