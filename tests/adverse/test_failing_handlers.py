"""Handlers that fail, hang or vanish at the worst moment."""

import asyncio
import threading
from collections.abc import Callable
from uuid import UUID

import pytest

from soth_mitm import (
    ChunkDecision,
    HandlerDecision,
    InterceptHandler,
    MitmConfig,
    MitmProxyBuilder,
    RawRequest,
    RawResponse,
    ResponseDecision,
    StreamChunk,
)
from soth_mitm.errors import ShutdownTimeoutError
from support.origin import Origin
from support.recording import Recording
from support.running import ProxyFactory

CUT = {"handler.recover_from_panics": False}


class FailsAtOnce(InterceptHandler):
    async def on_response(self, response: RawResponse) -> None:
        raise RuntimeError("on purpose")


class FailsLater(InterceptHandler):
    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("on purpose")


class FailsInTheQueue(InterceptHandler):
    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        if chunk.sequence == 0:
            await asyncio.sleep(0.01)
            return
        raise RuntimeError("on purpose")

    async def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("handler", [FailsAtOnce, FailsLater, FailsInTheQueue])
@pytest.mark.parametrize("path", ["/bytes/10", "/sse/5/0"])
def test_failure_that_cuts_ends_the_connection_once(
    proxy: ProxyFactory, plain_origin: Origin, handler: type[InterceptHandler], path: str
) -> None:
    running = proxy(handler(), **CUT)
    with running.tunnel(plain_origin.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        if (handler is FailsAtOnce) or path.startswith("/sse"):
            try:
                client.read_to_end()
            except ConnectionResetError:
                pass
    running.wait_idle()
    assert running.metrics().total_connections == 1


class DecidesTooLate(InterceptHandler):
    """Its hooks look only, and one of them suspends."""

    def on_response(self, response: RawResponse) -> None:
        return ResponseDecision.block(403)  # type: ignore[return-value]

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        await asyncio.sleep(0)
        return ChunkDecision.DROP  # type: ignore[return-value]

    def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        return "done"  # type: ignore[return-value]


@pytest.mark.parametrize("recovers", [True, False])
def test_a_decision_of_a_hook_that_only_looks_is_told_of(
    proxy: ProxyFactory, plain_origin: Origin, caplog: pytest.LogCaptureFixture, recovers: bool
) -> None:
    running = proxy(DecidesTooLate(), **{"handler.recover_from_panics": recovers})
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/sse/5/0", "localhost").status == 200
    running.wait_idle()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "DecidesTooLate.on_response failed" in said[0] and "on_response only looks" in said[0] and "on_response_head about" in said[0]
    assert "DecidesTooLate.on_stream_chunk failed" in said[1] and "filter_stream_chunk about" in said[1]
    assert running.metrics().handler_panic_count == 0


def test_failures_of_different_lines_are_logged_apart(proxy: ProxyFactory, plain_origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    class Fails(InterceptHandler):
        def on_request(self, request: RawRequest) -> HandlerDecision:
            if request.path == "/one":
                raise ValueError("one")
            raise ValueError(request.path)

    running = proxy(Fails())
    for path in ("/one", "/two", "/one", "/three"):
        with running.tunnel(plain_origin.port) as client:
            assert client.request(path, "localhost").status == 502
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "ValueError('one')" in said[0] and "ValueError('/two')" in said[1]


def test_hook_that_awaits_what_was_cancelled(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """CancelledError from the first step is a failure like another."""

    async def decide(request: RawRequest) -> HandlerDecision:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        raise AssertionError

    running = proxy(Recording(decide), **{"handler.failure_policy": "block"})
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/bytes/1", "localhost").status == 502
        running.handler.decide = None
        assert client.request("/bytes/1", "localhost").status == 200
    assert running.metrics().handler_panic_count == 1


class CancelledResponse(InterceptHandler):
    async def on_response(self, response: RawResponse) -> None:
        raise asyncio.CancelledError


class FailsAtAChunk(InterceptHandler):
    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("rest", [0, 5], ids=["whole", "more to come"])
def test_hook_that_cuts_an_upload_at_a_message_of_it(proxy: ProxyFactory, plain_origin: Origin, rest: int) -> None:
    """The exchange is over within the read that brought the message."""
    plain_origin.script(lambda connection, request: connection.read_body())
    message = b"\0\0\0\0\3abc"
    running = proxy(FailsAtAChunk(), **CUT)
    for _ in range(3):
        with running.tunnel(plain_origin.port) as client:
            head = "POST /call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\n"
            client.send(f"{head}Content-Length: {len(message) + rest}\r\n\r\n".encode() + message)
            with pytest.raises((EOFError, OSError)):
                client.read_answer()
    running.wait_idle("active_connections", "active_flows", "buffered_bytes")


def test_cancelled_on_response_leaves_the_connection_in_use(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(CancelledResponse())
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/bytes/1", "localhost").status == 200
        assert client.request("/bytes/1", "localhost").status == 200


def test_close_is_told_after_the_decision_that_the_client_did_not_wait_for(proxy: ProxyFactory, plain_origin: Origin) -> None:
    order: list[str] = []
    release = threading.Event()

    async def decide(request: RawRequest) -> HandlerDecision:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            # what it does then is waited for as well
            await asyncio.to_thread(release.wait, 10)
            order.append(" ".join(handler.names))
            raise
        raise AssertionError

    handler = Recording(decide)
    running = proxy(handler)
    client = running.tunnel(plain_origin.port)
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    handler.wait("on_request")
    client.reset()
    while running.metrics().active_flows:
        pass
    release.set()
    handler.wait("on_connection_close")
    assert order and "on_connection_close" not in order[0]


@pytest.mark.parametrize("vanish", [False, True])
def test_hung_hook_does_not_outlive_the_proxy(make_config: Callable[..., MitmConfig], plain_origin: Origin, vanish: bool) -> None:
    """On asyncio's own loop as well."""

    async def decide(request: RawRequest) -> HandlerDecision:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def main() -> None:
        handler = Recording(decide)
        handle = await MitmProxyBuilder(make_config(), handler).build().start()
        reader, writer = await asyncio.open_connection("127.0.0.1", handle.port)
        writer.write(b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % plain_origin.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.to_thread(handler.wait, "on_request")
        if vanish:
            writer.transport.abort()
        with pytest.raises(ShutdownTimeoutError):
            await handle.shutdown(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        writer.transport.abort()
        assert "on_connection_close" in handler.names

    asyncio.run(main())
