"""Peers that vanish, at each stage, by FIN and by RST: nothing of their connections is left, and the handler heard of each end once."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import sys
from collections.abc import Callable

import pytest

from soth_mitm import HandlerDecision, RawRequest
from support.leaks import DescriptorWatch, what_remains
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Observing, Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import RESET_ON_CLOSE, WireClient

Leave = Callable[[WireClient], None]


def fin(client: WireClient) -> None:
    client.close()


def rst(client: WireClient) -> None:
    client.reset()


@pytest.fixture(params=[fin, rst], ids=["fin", "rst"])
def leave(request: pytest.FixtureRequest) -> Leave:
    return request.param


def nothing_is_left(running: Running, watch: DescriptorWatch, connections: int) -> None:
    """Check that every connection is over, for the handler and for the system."""
    running.handler.wait("on_connection_close", connections)
    running.wait_idle()
    assert sorted(meta.connection_id for meta in running.handler.of("on_connection_open")) == sorted(
        running.handler.of("on_connection_close")
    )
    running.handle.shutdown(5)
    left = what_remains(watch.added)
    assert not left, left


def client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    engine = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        engine.do_handshake()
    return outgoing.read()


def request_bytes(origin: Origin, path: str = "/bytes/5", body: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost:{origin.port}\r\n{body}\r\n".encode()


def after_connecting(running: Running, origin: Origin) -> WireClient:
    client = running.client()
    running.handler.wait("on_connection_open")
    return client


def inside_the_connect_head(running: Running, origin: Origin) -> WireClient:
    client = running.client()
    client.send(b"CONNECT localhost:443 HTTP/1.1\r\nHos")
    running.handler.wait("on_connection_open")
    return client


def right_after_the_connect(running: Running, origin: Origin) -> WireClient:
    """Before its answer can have come."""
    client = running.client()
    client.send(f"CONNECT localhost:{origin.port} HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
    return client


def after_the_200(running: Running, origin: Origin) -> WireClient:
    return running.tunnel(origin.port)


def inside_the_client_hello(running: Running, origin: Origin) -> WireClient:
    client = running.tunnel(origin.port)
    client.send(client_hello(running.client_context())[:100])
    return client


def after_the_client_hello(running: Running, origin: Origin) -> WireClient:
    client = running.tunnel(origin.port)
    client.send(client_hello(running.client_context()))
    return client


def inside_the_handshake(running: Running, origin: Origin) -> WireClient:
    client = running.tunnel(origin.port)
    client.send(client_hello(running.client_context()))
    assert client.read_exactly(1) == b"\x16"
    return client


def after_the_handshake(running: Running, origin: Origin) -> WireClient:
    return running.secured(origin.port)


def inside_a_request_head(running: Running, origin: Origin) -> WireClient:
    client = running.secured(origin.port)
    client.send(request_bytes(origin)[:20])
    return client


def inside_a_collected_body(running: Running, origin: Origin) -> WireClient:
    client = running.secured(origin.port)
    client.send(request_bytes(origin, body="Content-Length: 100000\r\n") + b"x" * 5000)
    return client


def while_the_handler_is_suspended(running: Running, origin: Origin) -> WireClient:
    async def wait(request: RawRequest) -> HandlerDecision:
        await asyncio.Event().wait()
        return HandlerDecision.ALLOW

    running.handler.decide = wait
    client = running.secured(origin.port)
    client.send(request_bytes(origin))
    running.handler.wait("on_request")
    return client


def while_waiting_for_the_response(running: Running, origin: Origin) -> WireClient:
    def listen(connection: ScriptedConnection, request: object) -> None:
        while connection.receive():
            pass

    origin.script(listen, "/wait")
    client = running.secured(origin.port)
    client.send(request_bytes(origin, "/wait"))
    origin.wait_heads(1)
    return client


def inside_a_response_body(running: Running, origin: Origin) -> WireClient:
    client = running.secured(origin.port)
    client.send(request_bytes(origin, "/bytes/20000000"))
    client.read_head()
    client.read_exactly(100_000)
    return client


def inside_a_stream(running: Running, origin: Origin) -> WireClient:
    def stream(connection: ScriptedConnection, request: object) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        while connection.receive():
            pass

    origin.script(stream, "/stream")
    client = running.secured(origin.port)
    client.send(request_bytes(origin, "/stream"))
    client.read_until(b"data: 1\n\n")
    running.handler.wait("on_stream_chunk")
    return client


STAGES = [
    after_connecting,
    inside_the_connect_head,
    right_after_the_connect,
    after_the_200,
    inside_the_client_hello,
    after_the_client_hello,
    inside_the_handshake,
    after_the_handshake,
    inside_a_request_head,
    inside_a_collected_body,
    while_the_handler_is_suspended,
    while_waiting_for_the_response,
    inside_a_response_body,
    inside_a_stream,
]


class TestClients:
    @pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
    def test_vanish(self, proxy: ProxyFactory, origin: Origin, leave: Leave, stage: Callable[[Running, Origin], WireClient]) -> None:
        watch = DescriptorWatch()
        running = proxy(Recording(), **{"handler.request_timeout_ms": 200})
        leave(stage(running, origin))
        nothing_is_left(running, watch, 1)
        if stage is inside_a_stream:
            assert running.handler.names[-2:] == ["on_stream_end", "on_connection_close"]

    def test_vanish_from_a_streamed_upload(self, proxy: ProxyFactory, origin: Origin, leave: Leave) -> None:
        watch = DescriptorWatch()
        running = proxy(**{"body.buffer_request_bodies": False})
        client = running.secured(origin.port)
        client.send(request_bytes(origin, "/echo", "Content-Length: 100000\r\n") + b"x" * 5000)
        origin.wait_heads(1)
        leave(client)
        origin.wait_closed(1)
        assert not origin.requests[0].complete
        nothing_is_left(running, watch, 1)

    def test_vanish_while_the_upstream_lets_us_wait(self, proxy: ProxyFactory, leave: Leave) -> None:
        watch = DescriptorWatch()
        # which has no say about requests, so that the upstream is dialled before the first one
        running = proxy(Observing())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = running.tunnel(listening.getsockname()[1])
            client.send(client_hello(running.client_context()))
            listening.settimeout(5)
            accepted, _ = listening.accept()
            leave(client)
            # long before the deadline of the handshake with the upstream, which is still under way
            running.handler.wait("on_connection_close", timeout=5)
            accepted.close()
        nothing_is_left(running, watch, 1)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems answer more connections than the backlog has room for")
    @pytest.mark.parametrize("secure", [False, True], ids=["tunnel", "intercepted"])
    def test_vanish_while_the_upstream_is_being_connected_to(self, proxy: ProxyFactory, leave: Leave, secure: bool) -> None:
        watch = DescriptorWatch()
        running = proxy(Observing(), destinations=("127.0.0.1:*" if secure else "example.test:1",))
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
            target = f"127.0.0.1:{full.getsockname()[1]}"
            client = running.client()
            client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            if secure:
                assert client.read_answer("CONNECT").status == 200
                client.send(client_hello(running.client_context()))
            else:
                running.handler.wait("on_connection_open")
                # as far as the dial
                running.metrics()
            leave(client)
            # long before upstream.connect_timeout_ms
            running.handler.wait("on_connection_close", timeout=5)
        nothing_is_left(running, watch, 1)

    def test_half_closing_before_a_tunnel_stands_is_no_farewell(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Who has sent something and then ended its direction waits for the answer."""

        def answer(connection: ScriptedConnection) -> None:
            assert connection.receive_exactly(4) == b"ping"
            assert connection.receive() == b""
            connection.send(b"pong")
            connection.close()

        plain_origin.script_connections(answer)
        running = proxy(destinations=("example.test:1",))
        with running.client() as client:
            target = f"{HOST}:{plain_origin.port}"
            client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nping".encode())
            client.end_writing()
            assert client.read_answer("CONNECT").status == 200
            assert client.read_to_end() == b"pong"

    def test_vanish_from_a_tunnel(self, proxy: ProxyFactory, plain_origin: Origin, leave: Leave) -> None:
        def listen(connection: ScriptedConnection) -> None:
            while connection.receive():
                pass
            connection.close()

        plain_origin.script_connections(listen)
        watch = DescriptorWatch()
        running = proxy(destinations=("example.test:1",))
        client = running.tunnel(plain_origin.port)
        client.send(b"some bytes")
        leave(client)
        plain_origin.wait_closed(1)
        nothing_is_left(running, watch, 1)


@pytest.fixture(params=["fin", "rst"])
def end(request: pytest.FixtureRequest) -> Callable[[ScriptedConnection], None]:
    return ScriptedConnection.close if request.param == "fin" else ScriptedConnection.reset


class TestUpstreams:
    @pytest.mark.parametrize("moment", ["at once", "after the ClientHello"])
    @pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
    def test_vanish_before_tls(self, proxy: ProxyFactory, moment: str, reset: bool) -> None:
        watch = DescriptorWatch()
        running = proxy(Observing())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(5)
            port = listening.getsockname()[1]
            with running.tunnel(port) as client:
                client.send(client_hello(running.client_context()))
                accepted, _ = listening.accept()
                if moment != "at once":
                    accepted.settimeout(5)
                    assert accepted.recv(1) == b"\x16"
                if reset:
                    # with nothing sent yet it might reach a proxy that does not know that it is connected, and then connects again
                    assert select.select([accepted], [], [], 5)[0]
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                accepted.close()
                ((host, error),) = running.handler.wait("on_tls_failure")
                assert (host, error.side, error.reason) == (HOST, "upstream", "eof_or_reset")
                # our answer to the ClientHello, for a page inside TLS
                assert client.read_exactly(1) == b"\x16"
        nothing_is_left(running, watch, 1)

    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["after the request", "inside the response head"])
    def test_vanish_before_the_body_is_a_502(
        self, proxy: ProxyFactory, origin: Origin, end: Callable[[ScriptedConnection], None], sent: bytes
    ) -> None:
        def vanish(connection: ScriptedConnection, request: object) -> None:
            connection.send(sent)
            end(connection)

        origin.script(vanish, "/vanish")
        watch = DescriptorWatch()
        running = proxy()
        with running.secured(origin.port) as client:
            answer = client.request("/vanish", "localhost")
            assert answer.status == 502 and "closed the connection" in answer.text
            assert client.request("/bytes/3", "localhost").body == pattern(3)
        nothing_is_left(running, watch, 1)

    @pytest.mark.parametrize(
        "start",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
        ],
        ids=["length", "chunked", "stream"],
    )
    def test_vanish_inside_the_body_cuts_the_client(
        self, proxy: ProxyFactory, origin: Origin, end: Callable[[ScriptedConnection], None], start: bytes
    ) -> None:
        def vanish(connection: ScriptedConnection, request: object) -> None:
            connection.send(start)
            end(connection)

        origin.script(vanish, "/vanish")
        watch = DescriptorWatch()
        running = proxy()
        with running.secured(origin.port) as client, pytest.raises((EOFError, OSError)):
            client.request("/vanish", "localhost")
        nothing_is_left(running, watch, 1)
        assert running.metrics().cut_response_count == 1
        (request,) = running.handler.requests
        assert running.handler.of("on_stream_end") == ([request.flow_id] if b"event-stream" in start else [])

    def test_a_reset_is_not_taken_for_the_end_of_a_body(self, proxy: ProxyFactory, origin: Origin) -> None:
        def vanish(connection: ScriptedConnection, request: object) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
            connection.reset()

        origin.script(vanish, "/vanish")
        running = proxy()
        with running.secured(origin.port) as client, pytest.raises(OSError):
            client.request("/vanish", "localhost")

    def test_a_fin_without_close_notify_is_not_taken_for_the_end_of_a_body(self, proxy: ProxyFactory, origin: Origin) -> None:
        def truncate(connection: ScriptedConnection, request: object) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
            origin.loop.call_soon_threadsafe(connection.connection.abort)

        origin.script(truncate, "/truncate")
        running = proxy()
        with running.secured(origin.port) as client, pytest.raises(OSError):
            client.request("/truncate", "localhost")
        running.wait_idle()
        assert running.metrics().cut_response_count == 1

    def test_an_idle_connection_that_vanished_is_not_used(self, proxy: ProxyFactory, origin: Origin) -> None:
        watch = DescriptorWatch()
        running = proxy()
        with running.secured(origin.port) as client:
            assert client.request("/bytes/3", "localhost").body == pattern(3)
            origin.loop.call_soon_threadsafe(origin.connections[0].cut)
            origin.wait_closed(1)
            assert client.request("/bytes/4", "localhost").body == pattern(4)
        assert len(origin.connections) == 2
        nothing_is_left(running, watch, 1)

    def test_vanish_from_a_tunnel(self, proxy: ProxyFactory, plain_origin: Origin, end: Callable[[ScriptedConnection], None]) -> None:
        def vanish(connection: ScriptedConnection) -> None:
            connection.receive()
            end(connection)

        plain_origin.script_connections(vanish)
        watch = DescriptorWatch()
        running = proxy(destinations=("example.test:1",))
        with running.tunnel(plain_origin.port) as client:
            client.send(b"go")
            try:
                assert client.read_to_end() == b""
            except ConnectionResetError:
                pass
        nothing_is_left(running, watch, 1)
