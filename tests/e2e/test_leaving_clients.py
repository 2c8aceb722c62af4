"""A request whose client has left holds its upstream connection no longer: at once where the client says so, else for a bounded time."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import ConnectTarget, HandlerDecision, InterceptHandler, RawRequest, RawResponse
from support.http2_inside import Http2Client, http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import TIMEOUT, WireClient

KEY = "timeouts.half_closed_client_ms"
REQUEST = f"GET /silent HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
EVENT = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
MANY = 4
Leave = Callable[[WireClient], None]


class Silent:
    """An origin that answers `/silent` only when it is told to; with `begins` it has sent that before."""

    def __init__(self, origin: Origin, begins: bytes = b"") -> None:
        self.origin = origin
        self.begins = begins
        self.go_on = threading.Event()
        origin.script(self._answer, "/silent")

    def _answer(self, connection: ScriptedConnection, request: Request) -> None:
        if self.begins:
            connection.send(self.begins)
        connection.wait(self.go_on)
        if not self.begins:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def silent(request: pytest.FixtureRequest, origin: Origin, plain_origin: Origin) -> Iterator[Silent]:
    silent = Silent(origin if request.param else plain_origin)
    yield silent
    silent.go_on.set()


def connect(running: Running, silent: Silent) -> WireClient:
    secure = silent.origin.url().startswith("https")
    return running.secured(silent.origin.port) if secure else running.tunnel(silent.origin.port)


def reset(client: WireClient) -> None:
    client.reset()


def end_direction(client: WireClient) -> None:
    """Send a FIN, in TLS behind a close_notify; what comes can still be read."""
    if isinstance(client.socket, ssl.SSLSocket):
        client.socket.setblocking(False)
        # which would also wait for the other side's, and minds what was not read
        with pytest.raises(ssl.SSLError, match=r"not complete \(read\)|APPLICATION_DATA_AFTER_CLOSE_NOTIFY"):
            client.socket.unwrap()
        client.socket.settimeout(TIMEOUT)
    socket.socket.shutdown(client.socket, socket.SHUT_WR)


def close(client: WireClient) -> None:
    """As a program does that closes its connection in order."""
    end_direction(client)
    client.close()


def unread(client: WireClient) -> None:
    """Behind what will not be read any more: the next request, which it had pipelined."""
    client.send(REQUEST)
    close(client)


@pytest.mark.parametrize("leave", [reset, close, unread])
@pytest.mark.parametrize("begins", [b"", EVENT], ids=["no answer", "silent events"])
def test_who_has_left_makes_room(proxy: ProxyFactory, silent: Silent, leave: Leave, begins: bytes) -> None:
    """The pool has room for them and no more; `upstream.timeout_ms` is far away."""
    silent.begins = begins
    running = proxy(Recording(), **{KEY: 100, "connection_pool.max_connections_per_host": MANY})
    clients = [connect(running, silent) for _ in range(MANY)]
    for client in clients:
        client.send(REQUEST)
    silent.origin.wait_heads(MANY)
    if begins:
        for client in clients:
            client.read_until(b"data: 1\n\n")
    for client in clients:
        leave(client)
    with connect(running, silent) as client:
        assert client.request("/bytes/3", HOST).status == 200
    running.wait_idle()
    running.handler.wait("on_connection_close", MANY + 1)
    if begins:
        assert len(running.handler.of("on_stream_end")) == MANY


def test_who_resets_is_not_waited_for(proxy: ProxyFactory, silent: Silent) -> None:
    running = proxy(**{KEY: 600_000, "connection_pool.max_connections_per_host": 1})
    client = connect(running, silent)
    client.send(REQUEST)
    silent.origin.wait_heads(1)
    reset(client)
    running.handler.wait("on_connection_close")
    running.wait_idle()
    assert running.metrics().upstream_connections == 0


def test_who_has_ended_its_direction_is_still_answered(proxy: ProxyFactory, silent: Silent) -> None:
    running = proxy(**{KEY: 600_000})
    with connect(running, silent) as client:
        client.send(REQUEST)
        silent.origin.wait_heads(1)
        end_direction(client)
        silent.go_on.set()
        assert client.read_answer().text == "late"


def test_who_is_told_nothing_in_time_is_told_why(proxy: ProxyFactory, plain_origin: Origin) -> None:
    silent = Silent(plain_origin)
    running = proxy(**{KEY: 50})
    with connect(running, silent) as client:
        client.send(REQUEST)
        silent.origin.wait_heads(1)
        end_direction(client)
        answer = client.read_answer()
        assert answer.status == 504 and KEY in answer.text
        assert client.read_to_end() == b""
    running.wait_idle()
    silent.go_on.set()


def test_a_download_goes_on_while_it_moves(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """In pieces, for many times as long as silence would be waited for; the client says when it has had one."""
    turn = threading.Semaphore(0)

    def stream(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for _ in range(20):
            assert turn.acquire(timeout=10)
            connection.send(b"x")

    plain_origin.script(stream, "/stream")
    running = proxy(**{KEY: 1000})
    with running.tunnel(plain_origin.port) as client:
        client.send(f"GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        end_direction(client)
        client.read_until(b"\r\n\r\n")
        for _ in range(20):
            # paces the test, and each pause is far shorter than the time that is allowed
            threading.Event().wait(0.1)
            turn.release()
            assert client.read_exactly(1) == b"x"


def test_a_slow_reader_is_not_taken_for_one_that_left(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(**{KEY: 300})
    with running.tunnel(plain_origin.port) as client:
        client.send(f"GET /bytes/30000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        client.read_until(b"\r\n\r\n")
        end_direction(client)
        # does not read for much longer than that
        threading.Event().wait(1.0)
        assert len(client.read_exactly(30_000_000)) == 30_000_000


class TestWhileWaiting:
    """Before an upstream has heard of the request."""

    def test_for_a_pool_slot(self, proxy: ProxyFactory, silent: Silent) -> None:
        running = proxy(**{KEY: 100, "connection_pool.max_connections_per_host": 1})
        with connect(running, silent) as first:
            first.send(REQUEST)
            silent.origin.wait_heads(1)
            second = connect(running, silent)
            second.send(REQUEST)
            running.handler.wait("on_request", 2)
            second.close()
            running.handler.wait("on_connection_close")
            silent.go_on.set()
            assert first.read_answer().text == "late"
        assert len(silent.origin.requests) == 1

    def test_for_the_decision(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        class Slow(Recording):
            async def on_request(self, request: RawRequest) -> HandlerDecision:
                await super().on_request(request)
                await asyncio.sleep(3600)
                return HandlerDecision.ALLOW

        running = proxy(Slow(), **{KEY: 50, "handler.request_timeout_ms": 2000})
        with running.tunnel(plain_origin.port) as client:
            client.send(REQUEST)
            running.handler.wait("on_request")
            end_direction(client)
            answer = client.read_answer()
            assert answer.status == 504 and KEY in answer.text
        assert plain_origin.requests == []

    def test_for_a_dial(self, proxy: ProxyFactory) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
            running = proxy(**{KEY: 50})
            with running.tunnel(full.getsockname()[1], "127.0.0.1") as client:
                client.send(REQUEST)
                end_direction(client)
                answer = client.read_answer()
                assert answer.status == 504 and KEY in answer.text


class Unasked(InterceptHandler):
    """Sees what passes and decides nothing, so no request body is collected."""

    def on_response(self, response: RawResponse) -> None: ...


class Late(Recording):
    """Answers `on_connect` when the client has ended its direction for long."""

    async def on_connect(self, target: ConnectTarget) -> None:
        self._note("on_connect", target)
        self.loop, self.going_on = asyncio.get_running_loop(), asyncio.Event()
        self._note("asked", target)
        await self.going_on.wait()


class TestWhatCameBeforeTheEnd:
    """A request is served though its client has ended its direction before the body was taken from the read buffer."""

    CHUNKS = 3000

    @pytest.mark.parametrize("cut", [0, 1, 7], ids=["whole", "last byte", "last chunk"])
    def test_a_body_that_one_turn_of_the_loop_does_not_move(self, proxy: ProxyFactory, plain_origin: Origin, cut: int) -> None:
        """More pieces than are moved in a turn, and their end in the same read of the socket."""
        running = proxy(Unasked())
        body = b"1\r\na\r\n" * self.CHUNKS + b"0\r\n\r\n"
        with running.tunnel(plain_origin.port) as client:
            head = f"POST /bytes/3 HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            client.send(head + body[: len(body) - cut])
            end_direction(client)
            if cut:
                with pytest.raises(ConnectionResetError):
                    client.read_to_end()
            else:
                answer = client.read_answer()
                assert (answer.status, answer.get("connection")) == (200, "close")
                assert client.read_to_end() == b""
        running.wait_idle()
        if not cut:
            assert plain_origin.requests[0].body == b"a" * self.CHUNKS

    @pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
    def test_for_a_pool_slot(self, proxy: ProxyFactory, silent: Silent, is_whole: bool) -> None:
        running = proxy(Unasked(), **{"connection_pool.max_connections_per_host": 1})
        with connect(running, silent) as first, connect(running, silent) as second:
            first.send(REQUEST)
            silent.origin.wait_heads(1)
            second.send(f"POST /bytes/3 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\n{'hello' if is_whole else 'hell'}".encode())
            end_direction(second)
            silent.go_on.set()
            assert first.read_answer().text == "late"
            if is_whole:
                assert second.read_answer().status == 200
                assert silent.origin.requests[-1].body == b"hello"
            else:
                with pytest.raises((ConnectionResetError, ssl.SSLError)):
                    second.read_to_end()
        running.wait_idle()

    @pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
    def test_for_on_connect(self, proxy: ProxyFactory, plain_origin: Origin, is_whole: bool) -> None:
        handler = Late()
        running = proxy(handler)
        with running.client() as client:
            authority = f"{HOST}:{plain_origin.port}"
            head = f"POST http://{authority}/bytes/3 HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 5\r\n\r\n"
            client.send(head.encode() + (b"hello" if is_whole else b"hell"))
            end_direction(client)
            handler.wait("asked")
            handler.loop.call_soon_threadsafe(handler.going_on.set)
            if is_whole:
                assert client.read_answer().status == 200
                assert [request.body for request in handler.requests] == [b"hello"]
            else:
                with pytest.raises(ConnectionResetError):
                    client.read_to_end()
                assert handler.requests == [] and plain_origin.requests == []
        running.wait_idle()


class Undecided(Recording):
    """Decides when it is let go, and notes when it is cancelled; `stubborn`: and goes on then."""

    def __init__(self, *, stubborn: bool = False) -> None:
        super().__init__()
        self.stubborn = stubborn
        self.go_on = threading.Event()

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        self._note("on_request", request)
        if request.path != "/silent":
            return HandlerDecision.ALLOW
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self._note("cancelled", request)
            if not self.stubborn:
                raise
            await asyncio.to_thread(self.go_on.wait, 20)
            self._note("returned", request)
        return HandlerDecision.ALLOW


UPLOAD = f"POST /silent HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 50000\r\n\r\n".encode() + b"x" * 50_000
UNTIL_THEN = {"handler.request_timeout_ms": 60_000, KEY: 100}


def nothing_is_left(running: Running, origin: Origin, count: int) -> None:
    """The hooks of so many requests were cancelled; that is no failure, and nothing was forwarded."""
    assert len(running.handler.wait("cancelled", count)) == count
    running.wait_idle("active_flows", "buffered_bytes")
    metrics = running.metrics()
    assert (metrics.handler_timeout_count, metrics.handler_panic_count, metrics.upstream_timeout_count) == (0, 0, 0)
    assert "/silent" not in [request.target for request in origin.requests]
    assert not running.handler.of("on_response") or {each.request.path for each in running.handler.of("on_response")} == {"/bytes/3"}
    assert not running.handler.of("on_stream_end")


@pytest.mark.parametrize("leave", [reset, close, unread])
@pytest.mark.parametrize("request_bytes", [REQUEST, UPLOAD], ids=["get", "post"])
def test_nobody_decides_for_who_has_left(proxy: ProxyFactory, silent: Silent, leave: Leave, request_bytes: bytes) -> None:
    running = proxy(Undecided(), **UNTIL_THEN)
    client = connect(running, silent)
    client.send(request_bytes)
    running.handler.wait("on_request")
    leave(client)
    nothing_is_left(running, silent.origin, 1)
    running.wait_idle()
    assert len(running.handler.wait("on_connection_close")) == 1


def http2_clients(running: Running, silent: Silent) -> tuple[WireClient, Http2Client]:
    port = silent.origin.port
    if silent.origin.url().startswith("https"):
        return http2_client(running, port)
    client = running.tunnel(port)
    return client, Http2Client.inside(client, port, scheme="http")


@pytest.mark.parametrize("leave", [reset, close])
@pytest.mark.parametrize("body", [None, b"x" * 50_000], ids=["get", "post"])
def test_nobody_decides_for_streams_whose_client_has_left(proxy: ProxyFactory, silent: Silent, leave: Leave, body: bytes | None) -> None:
    running = proxy(Undecided(), **UNTIL_THEN)
    connection, client = http2_clients(running, silent)
    for _ in range(MANY):
        client.open("/silent", method="GET" if body is None else "POST", body=body)
    running.handler.wait("on_request", MANY)
    leave(connection)
    nothing_is_left(running, silent.origin, MANY)
    running.wait_idle()
    assert len(running.handler.wait("on_connection_close")) == 1


@pytest.mark.parametrize("body", [None, b"x" * 50_000], ids=["get", "post"])
def test_nobody_decides_for_a_stream_that_was_reset(proxy: ProxyFactory, silent: Silent, body: bytes | None) -> None:
    running = proxy(Undecided(), **UNTIL_THEN)
    connection, client = http2_clients(running, silent)
    with connection:
        for _ in range(MANY):
            number = client.open("/silent", method="GET" if body is None else "POST", body=body)
            running.handler.wait("on_request")
            client.h2.reset_stream(number, 8)
            client.flush()
        nothing_is_left(running, silent.origin, MANY)
        if running.handler.requests[0].scheme == "https":
            assert client.request("/bytes/3").status == 200
    running.wait_idle()


@pytest.mark.parametrize("silent", [True], indirect=True, ids=["tls"])
def test_the_slot_of_a_hook_that_does_not_end_is_taken(proxy: ProxyFactory, silent: Silent) -> None:
    """Whoever opens and resets streams has no more of them decided on at once than others."""
    running = proxy(Undecided(stubborn=True), http2_max_concurrent_streams=2, **UNTIL_THEN)
    connection, client = http2_clients(running, silent)
    with connection:
        for _ in range(2):
            number = client.open("/silent")
            client.h2.reset_stream(number, 8)
            client.flush()
        running.handler.wait("cancelled", 2)
        assert client.request("/bytes/3").reset == 7
        running.handler.go_on.set()
        running.handler.wait("returned", 2)
        running.wait_idle("active_flows")
        assert client.request("/bytes/3").status == 200
    assert [request.target for request in silent.origin.requests] == ["/bytes/3"]
