"""What clients do with a proxy, one act each: requests that end in every way, over every protocol, tunnels, and connections without any."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, StreamChunk
from support.http2_inside import Http2Client
from support.origin import Origin, Request, ScriptedConnection
from support.running import HOST, Running
from support.websocket import CLOSE, FIN, MASK, TEXT, accept, ask, frame
from support.wire_client import RESET_ON_CLOSE

KEYS = {
    "destinations": ("localhost:*", "127.0.0.1:*"),
    "interception.blocked": ["*.blocked.test:*"],
    "interception.passthrough_unlisted": True,
    "upstream.timeout_ms": 1500,
    "upstream.retry_on_failure": False,
    "timeouts.half_closed_client_ms": 200,
}


class Court(InterceptHandler):
    """Decides by path, and remembers which flow has which."""

    def __init__(self) -> None:
        self._flows: dict[str, int] = {}
        self._changed = threading.Condition()

    def flow(self, path: str) -> int:
        """Return the flow with that path, when it is here."""
        with self._changed:
            assert self._changed.wait_for(lambda: path in self._flows, 10)
            return self._flows[path]

    def on_request(self, request: RawRequest) -> HandlerDecision:
        with self._changed:
            self._flows[request.path] = request.flow_id
            self._changed.notify_all()
        match request.path.strip("/").partition("/")[0]:
            case "blocked":
                return HandlerDecision.block(418, "no\n")
            case "responded":
                return HandlerDecision.respond(203, "here\n")
            case "aborted":
                return HandlerDecision.abort()
            case "fails":
                raise ZeroDivisionError("of the test")
        return HandlerDecision.ALLOW

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        pass


class Scene(NamedTuple):
    running: Running
    tls: Origin
    http2: Origin
    plain: Origin
    elsewhere: int
    """A port of 127.0.0.2 that sends back what it is sent."""


class Expected(NamedTuple):
    """Of the flow of one act; None where it is none of our flows."""

    pattern: str
    protocol: str
    outcome: str
    status_class: str


Act = Callable[[Scene], Expected | None]
NUMBERS = itertools.count()


def unique(path: str) -> str:
    return f"{path}/{next(NUMBERS)}"


def answered(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        assert client.request("/bytes/100", HOST).status == 200
    return Expected("localhost:*", "http1", "answered", "2xx")


def uploaded(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert client.read_answer().status == 200
    return Expected("localhost:*", "http1", "answered", "2xx")


def not_found(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port, "127.0.0.1") as client:
        assert client.request("/status/404", "127.0.0.1").status == 404
    return Expected("127.0.0.1:*", "http1", "answered", "4xx")


def answered_over_http2(scene: Scene) -> Expected:
    with scene.running.secured(scene.http2.port, HOST, "h2") as client:
        assert Http2Client(client.socket, f"{HOST}:{scene.http2.port}").request("/bytes/100").status == 200
    return Expected("localhost:*", "http2", "answered", "2xx")


def blocked_over_http2(scene: Scene) -> Expected:
    with scene.running.secured(scene.http2.port, HOST, "h2") as client:
        assert Http2Client(client.socket, f"{HOST}:{scene.http2.port}").request("/blocked").status == 418
    return Expected("localhost:*", "http2", "blocked", "4xx")


def reset_by_a_client_of_http2(scene: Scene) -> Expected:
    with scene.running.secured(scene.http2.port, HOST, "h2") as client:
        inside = Http2Client(client.socket, f"{HOST}:{scene.http2.port}")
        path = unique("/hangs")
        number = inside.open(path)
        scene.running.handler.flow(path)
        inside.h2.reset_stream(number, 8)
        inside.flush()
        # the same connection goes on
        assert inside.request("/bytes/1").status == 200
    return Expected("localhost:*", "http2", "cut_by_client", "none")


def events(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        assert client.request("/sse/3/1", HOST).status == 200
    return Expected("localhost:*", "sse", "answered", "2xx")


def lines(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        assert client.request("/lines", HOST).status == 200
    return Expected("localhost:*", "streamable_http", "answered", "2xx")


def blocked(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        assert client.request("/blocked", HOST).status == 418
    return Expected("localhost:*", "http1", "blocked", "4xx")


def blocked_by_the_policy(scene: Scene) -> Expected:
    with scene.running.client() as client:
        assert client.request("http://a.blocked.test/", "a.blocked.test").status == 403
    return Expected("*.blocked.test:*", "http1", "blocked", "4xx")


def blocked_as_the_handler_failed(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        assert client.request("/fails", HOST).status == 502
    return Expected("localhost:*", "http1", "blocked", "5xx")


def responded(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        assert client.request("/responded", HOST).status == 203
    return Expected("localhost:*", "http1", "responded", "2xx")


def aborted(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        client.send(b"GET /aborted HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(ssl.SSLEOFError):
            client.read_to_end()
    return Expected("localhost:*", "http1", "aborted", "none")


def refused(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        assert client.request("/x", "a.blocked.test").status == 421
    return Expected("localhost:*", "http1", "refused", "4xx")


def refused_target(scene: Scene) -> Expected:
    with scene.running.client() as client:
        assert client.request("http://127.1/", "x").status == 400
    return Expected("unlisted", "http1", "refused", "4xx")


def refused_body(scene: Scene) -> Expected:
    with scene.running.secured(scene.tls.port) as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
        assert client.read_answer().status == 400
    return Expected("localhost:*", "http1", "refused", "4xx")


def unreachable(scene: Scene) -> Expected:
    with scene.running.client() as client:
        # what is not open refuses
        assert client.request("http://127.0.0.1:1/", "x").status == 502
    return Expected("127.0.0.1:*", "http1", "upstream_error", "5xx")


def late(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        assert client.request("/slow/60000", HOST).status == 504
    return Expected("localhost:*", "http1", "upstream_timeout", "5xx")


def cut_by_the_upstream(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        client.send(b"GET /cut/1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_head().status == 200
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_exactly(1000)
    return Expected("localhost:*", "http1", "cut_by_upstream", "2xx")


def left_before_the_response(scene: Scene) -> Expected:
    """Its end may be that of its direction alone, so it is told 504 in the end, which nobody hears."""
    with scene.running.tunnel(scene.plain.port) as client:
        path = unique("/hangs")
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        scene.running.handler.flow(path)
    return Expected("localhost:*", "http1", "cut_by_client", "5xx")


def reset_before_the_response(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        path = unique("/hangs")
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        scene.running.handler.flow(path)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    return Expected("localhost:*", "http1", "cut_by_client", "none")


def left_within_the_response(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        client.send(b"GET /bytes/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_head().status == 200
    return Expected("localhost:*", "http1", "cut_by_client", "2xx")


def cut_by_the_handle(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        path = unique("/hangs")
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        scene.running.handle.close_flow(scene.running.handler.flow(path))
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_head()
    return Expected("localhost:*", "http1", "cut_by_proxy", "none")


def websocket(scene: Scene) -> Expected:
    with scene.running.tunnel(scene.plain.port) as client:
        client.send(ask())
        assert client.read_head().status == 101
        assert client.read_exactly(7) == frame(FIN | TEXT, b"hello")
        client.send(frame(FIN | TEXT, b"hello", MASK) + frame(FIN | CLOSE, b"\x03\xe8", MASK))
        client.read_to_end()
    return Expected("localhost:*", "websocket", "tunnelled", "1xx")


def tunnel(scene: Scene) -> None:
    with scene.running.client() as client:
        # the same machine, under an address that no pattern lists
        assert client.connect(f"127.0.0.2:{scene.elsewhere}").status == 200
        client.send(b"hello")
        assert client.read_exactly(5) == b"hello"


def handshake_only(scene: Scene) -> None:
    with scene.running.secured(scene.tls.port):
        pass


def handshake_that_fails(scene: Scene) -> None:
    with scene.running.tunnel(scene.tls.port) as client, pytest.raises(ssl.SSLError):
        client.start_tls(ssl.create_default_context(), HOST)


def nothing(scene: Scene) -> None:
    with scene.running.client():
        pass


ACTS: tuple[Act, ...] = (
    *(answered, uploaded, not_found, answered_over_http2, blocked_over_http2, reset_by_a_client_of_http2, events, lines),
    *(blocked, blocked_by_the_policy, blocked_as_the_handler_failed, responded, aborted, refused, refused_target, refused_body),
    *(unreachable, late, cut_by_the_upstream, left_before_the_response, reset_before_the_response, left_within_the_response),
    *(cut_by_the_handle, websocket, tunnel, handshake_only, handshake_that_fails, nothing),
)


def greet(connection: ScriptedConnection, request: Request) -> None:
    """Open a WebSocket, say hello, and close it when the client does."""
    connection.send(accept(request) + frame(FIN | TEXT, b"hello"))
    while b"\x88" not in connection.receive():
        pass
    connection.send(frame(FIN | CLOSE, b"\x03\xe8"))
    connection.close()


def write_lines(connection: ScriptedConnection, request: Request) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 6\r\n\r\n{}\n{}\n")


def hang(connection: ScriptedConnection, request: Request) -> None:
    """Answer nothing until the proxy has left."""
    while connection.receive():
        pass


def script_of(otherwise: Callable[[Request], Any], request: Request) -> Any:
    path = request.path
    return hang if path.startswith("/hangs/") else {"/lines": write_lines, "/chat": greet}.get(path) or otherwise(request)
