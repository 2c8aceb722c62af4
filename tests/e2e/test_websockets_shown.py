"""Messages of a WebSocket in `on_stream_chunk`: what is shown, in which order, and that the traffic does not notice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from soth_mitm import StreamChunk
from support.certs import TestCA
from support.http2_inside import http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    FIN,
    MASK,
    PING,
    PONG,
    RSV1,
    TEXT,
    Slow,
    Unread,
    accept,
    ask,
    closing,
    compressed,
    frame,
)

Shown = list[tuple[str, bytes]]
EXTENDED = 8


def shown(running: Running, direction: str = "to_upstream") -> Shown:
    """Return (kind, payload) of the chunks of one direction so far, whose sequence is checked."""
    chunks = [chunk for chunk in running.handler.of("on_stream_chunk") if chunk.direction == direction]
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.request.path == "/chat" and chunk.flow_id == chunk.request.flow_id for chunk in chunks)
    return [(chunk.frame_kind.removeprefix("websocket_"), chunk.payload) for chunk in chunks]


def talking(*frames: bytes, more: str = "") -> tuple[Callable[[ScriptedConnection, Request], None], list[bytes]]:
    """Return a script that accepts, says these frames and reads on to the end, and what it has read then."""
    heard: list[bytes] = []

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(accept(request, more) + b"".join(frames))
        with contextlib.suppress(OSError):
            while data := connection.receive():
                heard.append(data)
        connection.close()

    return script, heard


FRAGMENTS = frame(TEXT, b"one \xc3", MASK) + frame(FIN | PING, b"?", MASK) + frame(CONTINUATION, b"\xa9", MASK) + frame(FIN, b" two", MASK)


class TestShown:
    @pytest.mark.parametrize("cut", [1, 2, 7, 0], ids=["octets", "pairs", "sevens", "at once"])
    def test_whole_messages_and_closes_in_order(self, proxy: ProxyFactory, plain_origin: Origin, cut: int) -> None:
        said = [frame(FIN | TEXT, b"hello"), frame(FIN | PING, b"p"), frame(FIN | BINARY, b"\x00\xff"), frame(FIN | CLOSE, b"\x03\xe8bye")]
        script, heard = talking(*said)
        plain_origin.script(script, "/chat")
        running = proxy()
        sent = frame(FIN | TEXT, b"", MASK) + FRAGMENTS + frame(FIN | PONG, b"p", MASK) + frame(FIN | CLOSE, b"", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            for at in range(0, len(sent), cut or len(sent)):
                client.send(sent[at : at + (cut or len(sent))])
            assert client.read_exactly(len(b"".join(said))) == b"".join(said)
            client.end_writing()
            assert client.read_to_end() == b""
        running.wait_idle()
        # the traffic keeps its octets
        assert b"".join(heard) == sent
        assert shown(running) == [("text", b""), ("text", "one é two".encode()), ("close", b"")]
        assert shown(running, "to_client") == [("text", b"hello"), ("binary", b"\x00\xff"), ("close", b"\x03\xe8bye")]
        names = running.handler.names
        assert names.index("on_response") < names.index("on_stream_chunk")
        assert (names.count("on_stream_end"), names[-2:]) == (1, ["on_stream_end", "on_connection_close"])
        metrics = running.metrics()
        assert (metrics.websocket_violation_count, metrics.websocket_decode_error_count, metrics.stream_chunk_count) == (0, 0, 6)

    def test_compressed_ones(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        data = pattern(200_000)
        script, heard = talking(frame(FIN | RSV1 | BINARY, compressed(data)), more=DEFLATE)
        plain_origin.script(script, "/chat")
        running = proxy()
        packed = compressed(b"hello hello hello")
        sent = frame(RSV1 | TEXT, packed[:5], MASK) + frame(FIN | PING, b"", MASK) + frame(FIN, packed[5:], MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE))
            assert client.read_head().status == 101
            client.send(sent)
            running.handler.wait("on_stream_chunk", 2)
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        assert b"".join(heard) == sent
        assert shown(running) == [("text", b"hello hello hello")]
        assert shown(running, "to_client") == [("binary", data)]

    def test_a_message_that_is_too_long_is_cut(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, heard = talking()
        plain_origin.script(script, "/chat")
        running = proxy(**{"body.max_size_bytes": 1000})
        sent = frame(FIN | BINARY, pattern(5000), MASK) + frame(FIN | TEXT, b"next", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            client.send(sent)
            running.handler.wait("on_stream_chunk", 2)
        running.wait_idle()
        assert b"".join(heard) == sent
        first, second = running.handler.of("on_stream_chunk")
        assert (first.payload, first.truncated, first.complete) == (pattern(1000), True, False)
        assert (second.payload, second.truncated, second.complete) == (b"next", False, True)

    def test_many_in_one_piece(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """More than one turn of the loop shows. The end behind them waits."""
        script, heard = talking(*(frame(FIN | TEXT, b"%d" % number) for number in range(5000)), frame(FIN | CLOSE, b"\x03\xe8"))
        plain_origin.script(script, "/chat")
        running = proxy(**{"flow_runtime.dispatch_queue_capacity": 8})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + b"".join(frame(FIN | TEXT, b"%d" % number, MASK) for number in range(5000)))
            assert client.read_head().status == 101
            running.handler.wait("on_stream_chunk", 10_001)
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        assert shown(running) == [("text", b"%d" % number) for number in range(5000)]
        assert shown(running, "to_client") == [*(("text", b"%d" % number) for number in range(5000)), ("close", b"\x03\xe8")]
        assert running.metrics().dropped_dispatch_work_count == 0
        assert len(b"".join(heard)) == sum(len(frame(FIN | TEXT, b"%d" % number, MASK)) for number in range(5000))

    def test_much_that_was_compressed(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """More than one turn of the loop inflates. The end behind it waits."""
        data = bytes(8 << 20)
        script, _ = talking()

        def say(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request, DEFLATE) + frame(FIN | RSV1 | BINARY, compressed(data)) + frame(FIN | CLOSE, b""))
            connection.close()

        plain_origin.script(say, "/chat")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE))
            assert client.read_head().status == 101
            client.read_to_end()
        running.wait_idle()
        assert shown(running, "to_client") == [("binary", data), ("close", b"")]
        assert running.metrics().websocket_decode_error_count == 0


class TestNotShown:
    def test_without_a_hook_nothing_is_read(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Not even whether it is WebSocket."""
        sent = b"\xff\xff no frames \x00" * 1000
        script, heard = talking(sent)
        plain_origin.script(script, "/chat")
        running = proxy(Unread())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + sent)
            assert client.read_head().status == 101
            assert client.read_exactly(len(sent)) == sent
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        assert b"".join(heard) == sent
        metrics = running.metrics()
        assert (metrics.websocket_violation_count, metrics.stream_chunk_count, metrics.tunnel_count) == (0, 0, 1)
        assert len(running.handler.of("on_stream_end")) == 1

    def test_deflate_that_is_malformed_ends_the_decoding_of_its_direction(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, heard = talking(frame(FIN | TEXT, b"fine"), more=DEFLATE)
        plain_origin.script(script, "/chat")
        running = proxy()
        sent = (
            frame(FIN | TEXT, b"before", MASK)
            + frame(FIN | RSV1 | TEXT, b"\xff\xff\xff", MASK)
            + frame(FIN | TEXT, b"after", MASK)
            + frame(FIN | CLOSE, b"\x03\xe8", MASK)
        )
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE))
            assert client.read_head().status == 101
            client.send(sent)
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        assert b"".join(heard) == sent
        assert shown(running) == [("text", b"before"), ("close", b"\x03\xe8")]
        assert shown(running, "to_client") == [("text", b"fine")]
        assert running.metrics().websocket_decode_error_count == 1


class TestPressure:
    def test_a_hook_that_is_slow_is_waited_for(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """A queue that is full stops the reading; nothing is dropped, and nothing is lost."""
        script, heard = talking()
        plain_origin.script(script, "/chat")
        running = proxy(Slow(), **{"flow_runtime.dispatch_queue_capacity": 4, "flow_runtime.dispatch_queue_send_timeout_ms": 60_000})
        messages = [frame(FIN | BINARY, pattern(100_000), MASK) for _ in range(200)]
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            sending = threading.Thread(target=lambda: client.send(b"".join(messages)))
            sending.start()
            running.handler.wait("on_stream_chunk", 1)
            # far less than all of it has been taken
            sending.join(1)
            assert sending.is_alive()
            assert len(running.handler.of("on_stream_chunk")) == 1
            running.handler.go.set()
            sending.join(30)
            running.handler.wait("on_stream_chunk", 200)
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        assert b"".join(heard) == b"".join(messages)
        assert shown(running) == [("binary", pattern(100_000))] * 200
        assert running.metrics().dropped_dispatch_work_count == 0

    def test_a_hook_that_fails_changes_nothing(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        class Failing(Recording):
            async def on_stream_chunk(self, chunk: StreamChunk) -> None:
                await super().on_stream_chunk(chunk)
                raise RuntimeError("a bug of the handler")

        script, heard = talking(frame(FIN | TEXT, b"hello"))
        plain_origin.script(script, "/chat")
        running = proxy(Failing())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"one", MASK) + frame(FIN | TEXT, b"two", MASK))
            assert client.read_head().status == 101
            assert client.read_exactly(7) == frame(FIN | TEXT, b"hello")
            running.handler.wait("on_stream_chunk", 3)
        running.wait_idle()
        assert shown(running) == [("text", b"one"), ("text", b"two")]
        assert b"".join(heard) == frame(FIN | TEXT, b"one", MASK) + frame(FIN | TEXT, b"two", MASK)

    def test_a_hook_whose_failure_cuts(self, proxy: ProxyFactory, origin: Origin) -> None:
        class Failing(Recording):
            def on_stream_chunk(self, chunk: StreamChunk) -> None:
                raise RuntimeError("a bug of the handler")

        script, _ = talking()
        origin.script(script, "/chat")
        running = proxy(Failing(), **{"handler.recover_from_panics": False})
        with running.secured(origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            client.send(frame(FIN | TEXT, b"one", MASK))
            assert client.read_to_end() == closing(1011, b"a hook of the proxy failed")
        origin.wait_closed(1)
        running.wait_idle()
        assert len(running.handler.of("on_stream_end")) == 1


class TestEnds:
    @pytest.mark.parametrize("end", ["close", "reset"])
    def test_a_client_that_vanishes_in_a_message(self, proxy: ProxyFactory, origin: Origin, end: str) -> None:
        script, _ = talking()
        origin.script(script, "/chat")
        running = proxy()
        client = running.secured(origin.port)
        client.send(ask())
        assert client.read_head().status == 101
        client.send(frame(FIN | TEXT, b"whole", MASK) + frame(TEXT, b"half", MASK))
        running.handler.wait("on_stream_chunk", 1)
        getattr(client, end)()
        origin.wait_closed(1)
        running.wait_idle()
        assert shown(running) == [("text", b"whole")]
        assert len(running.handler.of("on_stream_end")) == 1

    def test_silence_ends_it(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, _ = talking(frame(FIN | TEXT, b"hello"))
        plain_origin.script(script, "/chat")
        running = proxy(**{"timeouts.tunnel_idle_ms": 50})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            assert client.read_to_end() == frame(FIN | TEXT, b"hello") + closing(1001, b"no message for too long")
        plain_origin.wait_closed(1)

    def test_a_drain(self, proxy: ProxyFactory, origin: Origin) -> None:
        script, _ = talking(frame(FIN | TEXT, b"hello"))
        origin.script(script, "/chat")
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            assert client.read_exactly(7) == frame(FIN | TEXT, b"hello")
            stopping = threading.Thread(target=lambda: running.handle.shutdown(10))
            stopping.start()
            assert client.read_to_end() == closing(1001, b"the proxy is shutting down")
        stopping.join(20)
        assert len(running.handler.of("on_stream_end")) == 1


class TestOverHttp2:
    @pytest.mark.parametrize("alpn", [("http/1.1",), ("h2", "http/1.1")], ids=["http1", "http2"])
    def test_both_ways(self, proxy: ProxyFactory, origin_ca: TestCA, alpn: tuple[str, ...]) -> None:
        data = pattern(300_000)
        said = frame(FIN | RSV1 | BINARY, compressed(data)) + frame(FIN | PING, b"p") + frame(FIN | BINARY, data)
        running = proxy()
        with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn), host=HOST) as origin:
            origin.settings = {EXTENDED: 1}
            script, heard = talking(said, more=DEFLATE)
            origin.script(script, "/chat")
            connection, client = http2_client(running, origin.port)
            with connection:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-extensions", "permessage-deflate"))
                number = client.open("/chat", method="CONNECT", fields=fields, end=False)
                client.send(number, FRAGMENTS)
                assert client.head(number).status == 200
                client.send(number, frame(FIN | CLOSE, b"\x03\xe8", MASK), end=True)
                answer = client.answer(number)
                assert (answer.body, answer.ended) == (said, True)
        running.wait_idle()
        assert b"".join(heard) == FRAGMENTS + frame(FIN | CLOSE, b"\x03\xe8", MASK)
        assert shown(running) == [("text", "one é two".encode()), ("close", b"\x03\xe8")]
        assert shown(running, "to_client") == [("binary", data), ("binary", data)]
        assert len(running.handler.of("on_stream_end")) == 1


@contextlib.asynccontextmanager
async def echoing(context: Any, compress: bool) -> AsyncIterator[int]:
    """A server of aiohttp that sends each message back; its port."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=compress, max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/chat", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0, ssl_context=context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class TestAiohttp:
    @pytest.mark.anyio
    @pytest.mark.parametrize("compress", [0, 15], ids=["plain", "deflate"])
    async def test_client_and_server(self, proxy: ProxyFactory, origin_ca: TestCA, compress: int) -> None:
        running = proxy()
        texts = [f"message {number} " * 20 for number in range(50)]
        large = pattern(3 << 20)
        async with echoing(origin_ca.server_context(HOST, "127.0.0.1"), bool(compress)) as port, aiohttp.ClientSession() as session:
            address = f"https://{HOST}:{port}/chat"
            async with session.ws_connect(
                address, proxy=running.url, ssl=running.client_context(), compress=compress, max_msg_size=0
            ) as socket:
                assert socket.compress == compress
                for text in texts:
                    await socket.send_str(text)
                await socket.send_bytes(large)
                back = [(await socket.receive()).data for _ in range(51)]
                await socket.close(code=1000, message=b"done")
        assert back == [*texts, large]
        await asyncio.to_thread(running.wait_idle)
        expected = [*(("text", text.encode()) for text in texts), ("binary", large)]
        assert shown(running) == [*expected, ("close", b"\x03\xe8done")]
        assert shown(running, "to_client")[:51] == expected
        assert shown(running, "to_client")[51][0] == "close"
