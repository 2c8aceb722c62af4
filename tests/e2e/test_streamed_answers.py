"""Responses that a handler gives as async iterables: what a client is sent, and when the iterable is asked and closed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import runpy
import socket
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.http2_inside import Http2Client
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running
from support.source import ROOT
from support.wire_client import WireClient

INTERNAL_ERROR, CANCEL = 2, 8
EVENTS = {"Content-Type": "text/event-stream"}
user = contextvars.ContextVar("user", default="nobody")


class Streams(InterceptHandler):
    """Answers each request with a new iterable of `make`, and notes what became of it."""

    def __init__(self, make: Callable[[Streams, RawRequest], AsyncIterator[bytes]]) -> None:
        self.make = make
        self.notes: list[str] = []
        self.changed = threading.Condition()
        self.go = threading.Event()

    def note(self, text: str) -> None:
        with self.changed:
            self.notes.append(text)
            self.changed.notify_all()

    def wait(self, *texts: str) -> None:
        """Wait until each of `texts` was noted."""
        with self.changed:
            assert self.changed.wait_for(lambda: set(texts) <= set(self.notes), 9), self.notes

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        user.set(request.path)
        return HandlerDecision.respond(200, self.make(self, request), EVENTS)


async def three(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
    handler.note("begun")
    yield b"data: 1\n\n"
    yield b""
    await asyncio.sleep(0)
    yield b"data: 2\n\n"
    yield b"data: 3\n\n"
    handler.note("ended")


async def endless(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
    """Yields until it is closed, and notes each item that is asked for."""
    try:
        while True:
            yield pattern(16384)
            handler.note("item")
            await asyncio.sleep(0)
    finally:
        handler.note("closed")


async def silent(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
    """Yields one item and then waits until it is closed."""
    try:
        yield b"data: 1\n\n"
        handler.note("waiting")
        await asyncio.sleep(60)
    finally:
        handler.note("closed")


WHOLE = b"data: 1\n\ndata: 2\n\ndata: 3\n\n"


@pytest.fixture
def streams(proxy: ProxyFactory) -> Iterator[Callable[..., tuple[Running, Streams]]]:
    made: list[Running] = []

    def make(generator: Any, **keys: Any) -> tuple[Running, Streams]:
        handler = Streams(generator)
        made.append(proxy(handler, destinations=("*:*",), **keys))
        return made[-1], handler

    yield make
    for running in made:
        running.wait_idle()
        assert running.metrics().pool_miss_count == 0


def clear_text(running: Running) -> tuple[WireClient, Http2Client]:
    """Return a client of HTTP/2 in clear text, which needs no upstream to be offered it."""
    client = running.tunnel(80, "no-such-host.invalid")
    return client, Http2Client(client.socket, "no-such-host.invalid", "http")


class TestWhole:
    def test_http1(self, streams: Any) -> None:
        running, handler = streams(three)
        with running.secured(443) as client:
            for count in (1, 2):
                answer = client.request("/x", HOST)
                assert (answer.status, answer.body, answer.get("transfer-encoding")) == (200, WHOLE, "chunked")
                assert (answer.get("content-length"), answer.get("content-type")) == (None, "text/event-stream")
                assert handler.notes == ["begun", "ended"] * count
            # a body that was collected, and what is pipelined behind it
            client.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [client.read_answer().body for _ in range(2)] == [WHOLE, WHOLE]
        metrics = running.metrics()
        assert (metrics.answered_request_count, metrics.cancelled_own_body_count, metrics.handler_panic_count) == (4, 0, 0)

    def test_http10(self, streams: Any) -> None:
        running, _ = streams(three)
        with running.secured(443) as client:
            client.send(b"GET /x HTTP/1.0\r\n\r\n")
            head, _, body = client.read_to_end().partition(b"\r\n\r\n")
            assert body == WHOLE and b"transfer-encoding" not in head.lower() and b"Connection: close" in head

    def test_http2(self, streams: Any) -> None:
        running, handler = streams(three)
        connection, client = clear_text(running)
        with connection:
            numbers = [client.open("/x"), client.open("/y", method="POST", body=b"abc")]
            for number in numbers:
                answer = client.answer(number)
                assert (answer.status, bytes(answer.body), answer.ended, answer.get("content-length")) == (200, WHOLE, True, None)
        assert sorted(handler.notes) == ["begun"] * 2 + ["ended"] * 2

    def test_an_empty_one(self, streams: Any) -> None:
        async def nothing(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            for item in (b"", b""):
                yield item

        running, _ = streams(nothing)
        with running.secured(443) as client:
            assert (client.request("/x", HOST).body, client.request("/x", HOST).status) == (b"", 200)
        connection, client = clear_text(running)
        with connection:
            answer = client.request("/x")
            assert (answer.status, answer.body, answer.ended) == (200, b"", True)

    def test_its_context_is_that_of_the_hook(self, streams: Any) -> None:
        async def says(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            async with asyncio.timeout(9):
                await asyncio.sleep(0)
            yield user.get().encode()

        running, _ = streams(says)
        with running.secured(443) as client:
            assert [client.request(path, HOST).text for path in ("/one", "/two")] == ["/one", "/two"]

    @pytest.mark.parametrize("size", [1, 3_000_000])
    def test_items_of_any_size(self, streams: Any, size: int) -> None:
        async def items(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            for _ in range(3):
                yield pattern(size)

        running, _ = streams(items)
        with running.secured(443) as client:
            assert client.request("/x", HOST).body == 3 * pattern(size)
        connection, client = clear_text(running)
        with connection:
            assert bytes(client.request("/x").body) == 3 * pattern(size)


class TestHead:
    def test_it_is_never_begun(self, streams: Any) -> None:
        running, handler = streams(three)
        with running.secured(443) as client:
            answer = client.request("/x", HOST, "HEAD")
            assert (answer.status, answer.body, answer.get("content-type")) == (200, b"", "text/event-stream")
            assert client.request("/x", HOST, "HEAD").status == 200
        connection, client = clear_text(running)
        with connection:
            answer = client.request("/x", method="HEAD")
            assert (answer.status, answer.ended) == (200, True)
        assert handler.notes == []

    def test_one_that_can_be_closed_is(self, streams: Any) -> None:
        class Closes:
            def __init__(self, handler: Streams) -> None:
                self.handler = handler

            def __aiter__(self) -> Closes:
                self.handler.note("begun")
                return self

            async def aclose(self) -> None:
                await asyncio.sleep(0)
                self.handler.note("closed")

        running, handler = streams(lambda handler, request: Closes(handler))
        with running.secured(443) as client:
            assert client.request("/x", HOST, "HEAD").status == 200
        handler.wait("closed")
        assert handler.notes == ["closed"]


class TestPace:
    def test_each_item_is_sent_when_it_comes(self, streams: Any) -> None:
        running, handler = streams(silent)
        with running.secured(443) as client:
            client.send(f"GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            client.read_head()
            assert client.read_exactly(len(b"9\r\ndata: 1\n\n\r\n")) == b"9\r\ndata: 1\n\n\r\n"
            handler.wait("waiting")
        handler.wait("closed")

    @pytest.mark.parametrize("protocol", ["h1", "h2"])
    def test_a_client_that_does_not_read_is_waited_for(self, streams: Any, protocol: str) -> None:
        running, handler = streams(endless)
        connection, client = clear_text(running) if protocol == "h2" else (running.tunnel(80, "no-such-host.invalid"), None)
        with connection:
            if client is None:
                connection.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            else:
                client.open("/x")
            handler.wait("item")
            # what the proxy and the system hold of it is bounded: then no more is asked for
            count = -1
            while count != len(handler.notes):
                count = len(handler.notes)
                for _ in range(50):
                    running.metrics()
            assert len(handler.notes) < 800
            if client is None:
                connection.read_exactly(20_000_000)
            else:
                while len(client.streams[1].body) < 20_000_000:
                    client.read()
            assert len(handler.notes) > count
        handler.wait("closed")
        running.wait_idle()
        assert running.metrics().cancelled_own_body_count == 1


class TestClientLeaves:
    @pytest.mark.parametrize("how", ["fin", "reset"])
    @pytest.mark.parametrize("generator", [silent, endless])
    def test_http1(self, streams: Any, generator: Any, how: str) -> None:
        running, handler = streams(generator)
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            handler.wait("waiting" if generator is silent else "item")
            if how == "reset":
                client.reset()
            else:
                client.socket.shutdown(socket.SHUT_RDWR)
        handler.wait("closed")
        running.wait_idle()
        assert running.metrics().cancelled_own_body_count == 1

    def test_before_the_first_item(self, streams: Any) -> None:
        async def waits(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            try:
                handler.note("waiting")
                await asyncio.sleep(60)
                yield b""
            finally:
                await asyncio.sleep(0)
                handler.note("closed")

        running, handler = streams(waits)
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            handler.wait("waiting")
        handler.wait("closed")

    def test_http2_resets_one_stream(self, streams: Any) -> None:
        running, handler = streams(silent)
        connection, client = clear_text(running)
        with connection:
            number = client.open("/x")
            client.head(number)
            handler.wait("waiting")
            client.h2.reset_stream(number, CANCEL)
            client.flush()
            handler.wait("closed")
            other = client.open("/y")
            assert client.head(other).status == 200

    def test_one_that_swallows_its_cancellation(self, streams: Any) -> None:
        async def swallows(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            while not handler.go.is_set():
                try:
                    yield b"x"
                    handler.note("waiting")
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    handler.note("swallowed")

        running, handler = streams(swallows)
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            handler.wait("waiting")
        handler.wait("swallowed")
        running.wait_idle()

    def test_one_that_does_not_close(self, streams: Any) -> None:
        async def hangs(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            try:
                yield b"x"
                handler.note("waiting")
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(60)

        running, handler = streams(hangs, **{"handler.response_timeout_ms": 100})
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            handler.wait("waiting")
        running.wait_idle()
        assert running.metrics().handler_timeout_count == 1

    def test_one_that_yields_when_it_is_closed(self, streams: Any) -> None:
        async def yields(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            try:
                yield b"x"
                handler.note("waiting")
                yield b"y"
                handler.note("second")
                await asyncio.sleep(60)
            finally:
                handler.note("closed")
                yield b"late"

        running, handler = streams(yields)
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            handler.wait("second")
        handler.wait("closed")


class TestFailure:
    def test_before_the_first_item(self, streams: Any) -> None:
        async def fails(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            yield b""
            raise RuntimeError("on purpose")

        running, _ = streams(fails)
        with running.secured(443) as client:
            for count in (1, 2):
                answer = client.request("/x", HOST)
                assert (answer.status, answer.text) == (502, "the body that the policy handler gave failed before its end\n")
                assert running.metrics().handler_panic_count == count
        connection, client = clear_text(running)
        with connection:
            assert client.request("/x").status == 502

    @pytest.mark.parametrize("item", ["text", bytearray(b"x"), None])
    def test_what_is_no_bytes(self, streams: Any, item: Any) -> None:
        async def wrong(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            yield item

        running, _ = streams(wrong)
        with running.secured(443) as client:
            assert client.request("/x", HOST).status == 502

    def test_behind_the_first_item(self, streams: Any) -> None:
        async def fails(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            raise RuntimeError("on purpose")

        running, _ = streams(fails)
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            # no last chunk: the client can tell that it is not all
            assert client.read_to_end() == b"9\r\ndata: 1\n\n\r\n"
        connection, client = clear_text(running)
        with connection:
            answer = client.request("/x")
            assert (answer.status, answer.reset, answer.ended) == (200, INTERNAL_ERROR, False)
            assert client.request("/x").reset == INTERNAL_ERROR
        running.wait_idle()
        assert (running.metrics().handler_panic_count, running.metrics().cut_response_count) == (3, 3)

    def test_an_item_that_is_late(self, streams: Any) -> None:
        async def late(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            try:
                if request.path == "/some":
                    yield b"data: 1\n\n"
                await asyncio.sleep(60)
                yield b"never"
            finally:
                handler.note("closed")

        running, handler = streams(late, **{"timeouts.body_idle_ms": 150})
        with running.tunnel(80) as client:
            answer = client.request("/none", HOST)
            assert answer.status == 502
            client.send(b"GET /some HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_head()
            assert client.read_to_end() == b"9\r\ndata: 1\n\n\r\n"
        handler.wait("closed")
        assert running.metrics().handler_timeout_count == 2

    def test_an_iterable_serves_one_request(self, proxy: ProxyFactory) -> None:
        async def items() -> AsyncIterator[bytes]:
            yield b"once"

        decision = HandlerDecision.respond(200, items())

        class Shares(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                return decision

        running = proxy(Shares(), **{"handler.failure_policy": "allow"})
        with running.secured(443) as client:
            assert client.request("/x", HOST).text == "once"
            answer = client.request("/x", HOST)
            assert (answer.status, answer.text) == (502, "the decision of the policy handler was used before\n")
        assert running.metrics().handler_panic_count == 1

    def test_what_is_no_exception_ends_the_proxy(self, proxy: ProxyFactory) -> None:
        class Fatal(BaseException):
            pass

        async def fatal(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
            yield b"x"
            raise Fatal

        handler = Streams(fatal)
        running = proxy(handler)
        with running.tunnel(80) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_to_end()
            with pytest.raises(Fatal):
                running.handle.wait_closed()


class TestUploads:
    """The rest of the request, which is of no use, is read and thrown away while the response goes out."""

    @pytest.mark.parametrize("protocol", ["h1", "h2"])
    def test_a_client_that_says_all_before_it_reads(self, streams: Any, protocol: str) -> None:
        running, _ = streams(three, **{"body.buffer_request_bodies": False})
        if protocol == "h1":
            with running.tunnel(80) as client:
                client.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 100)
                client.send(b"x" * 1_000_000)
                answer = client.read_answer()
                assert (answer.body, answer.get("connection")) == (WHOLE, "close")
            return
        connection, h2 = clear_text(running)
        with connection:
            number = h2.open("/x", method="POST", end=False)
            assert bytes(h2.answer(number).body) == WHOLE
            assert h2.request("/y", method="POST", body=b"x" * 10).status == 200


def test_the_example_stands_in_for_a_model(proxy: ProxyFactory, origin: Any) -> None:
    example = runpy.run_path(str(ROOT / "docs/examples/edit.py"))
    running = proxy(example["Edit"]())
    with running.secured(origin.port) as client:
        answer = client.request("/v1/chat", HOST, "POST", b"{}")
        assert answer.get("content-type") == "text/event-stream"
        events = answer.body.split(b"\n\n")
        assert events[0] == b'data: {"delta": "this"}' and events[-2:] == [b"data: [DONE]", b""]
        echo = client.request("/echo", HOST, extra="Cookie: a=b\r\nAuthorization: Bearer mine\r\n").text
    assert '["Authorization", "Bearer of-the-team"]' in echo and "Cookie" not in echo


def test_the_end_of_the_proxy_ends_it(proxy: ProxyFactory) -> None:
    handler = Streams(silent)
    running = proxy(handler)
    with running.tunnel(80) as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        client.read_head()
        handler.wait("waiting")
        with pytest.raises(TimeoutError):
            running.handle.shutdown(0.1)
    handler.wait("closed")


def test_monitor_mode_closes_what_it_does_not_send(proxy: ProxyFactory, origin: Any) -> None:
    handler = Streams(three)
    running = proxy(handler, intercept_mode="monitor")
    with running.secured(origin.port) as client:
        assert client.request("/bytes/3", HOST).body == pattern(3)
    running.wait_idle()
    assert handler.notes == [] and running.metrics().ignored_decision_count == 1


def test_no_task_and_no_generator_is_left(streams: Any) -> None:
    tasks: list[set[Any]] = []

    async def counted(handler: Streams, request: RawRequest) -> AsyncIterator[bytes]:
        if request.path == "/count":
            tasks.append({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})
        yield b"x"
        if request.path == "/leave":
            handler.note("waiting")
            await asyncio.sleep(60)

    running, handler = streams(counted)
    for _ in range(2):
        for _ in range(20):
            handler.notes.clear()
            with running.tunnel(80) as client:
                client.send(b"GET /leave HTTP/1.1\r\nHost: x\r\n\r\n")
                client.read_head()
                handler.wait("waiting")
        running.wait_idle()
        with running.tunnel(80) as client:
            assert client.request("/count", HOST).text == "x"
    assert len(tasks[1]) <= len(tasks[0])
    running.wait_idle()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, types.AsyncGeneratorType) and each.ag_code is counted.__code__]
