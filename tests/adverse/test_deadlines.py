"""Every stage of a connection ends, by the key that says when; what is slow but within its time is not disturbed."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, ShutdownTimeoutError, StreamChunk
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import WireClient

STREAMED = {"body.buffer_request_bodies": False}
# milliseconds: where the end is all that is waited for, and where something has to be done before it, on a busy machine too
SHORT = 60
LONG = 1000
GET = b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest, origin: Origin, plain_origin: Origin) -> Origin:
    return origin if request.param == "tls" else plain_origin


def connected(running: Running, server: Origin) -> WireClient:
    return (running.secured if server.url().startswith("https") else running.tunnel)(server.port)


def let_a_head_be_late(running: Running) -> None:
    """Return when `timeouts.client_head_ms` has passed for a connection that began now, so for all that began before."""
    with running.client() as client:
        client.send(b"G")
        assert client.read_answer().status == 408


class TestClientHead:
    KEYS = {"timeouts.client_head_ms": SHORT}

    @pytest.mark.parametrize("start", [b"C", b"CONNECT local", b"GET http://localhost/ HTTP/1.1\r\nHo", b"\r\n"])
    def test_a_first_head_that_does_not_end(self, proxy: ProxyFactory, start: bytes) -> None:
        running = proxy(**self.KEYS)
        with running.client() as client:
            client.send(start)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (408, "close") and "timeouts.client_head_ms" in answer.text
            assert client.read_to_end() == b""
        running.handler.wait("on_connection_close")

    def test_a_later_head_that_does_not_end(self, proxy: ProxyFactory, server: Origin) -> None:
        running = proxy(**self.KEYS)
        with connected(running, server) as client:
            client.send(GET + GET[:20])
            assert client.read_answer().body == pattern(3)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (408, "close") and "timeouts.client_head_ms" in answer.text
            assert client.read_to_end() == b""
        running.wait_idle()
        assert running.metrics().refused_request_count == 1

    def test_a_head_that_trickles_in(self, proxy: ProxyFactory, server: Origin) -> None:
        """The time is that of the whole head, not from byte to byte."""
        running = proxy(**{"timeouts.client_head_ms": LONG // 2})
        with connected(running, server) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            for _ in range(60):
                client.send(b"x")
                # a pause is far shorter than the time that is allowed, and all of them are far longer
                if select.select([client.socket], [], [], 0.05)[0]:
                    break
            else:
                pytest.fail("each byte gave it more time")
            assert client.read_answer().status == 408

    def test_begins_with_the_first_byte(self, proxy: ProxyFactory, server: Origin) -> None:
        """A connection without a request is idle, not late: before the first one too, and inside TLS."""
        running = proxy(**self.KEYS)
        with running.client() as silent, connected(running, server) as ready:
            let_a_head_be_late(running)
            let_a_head_be_late(running)
            assert silent.connect(f"localhost:{server.port}").status == 200
            ready.send(GET)
            assert ready.read_answer().body == pattern(3)


class TestClientIdle:
    KEYS = {"timeouts.client_idle_ms": LONG}

    def test_before_the_first_byte(self, proxy: ProxyFactory) -> None:
        running = proxy(**self.KEYS)
        with running.client() as client:
            assert client.read_to_end() == b""
        running.handler.wait("on_connection_close")

    @pytest.mark.parametrize("requests", [0, 1, 3])
    def test_between_requests(self, proxy: ProxyFactory, server: Origin, requests: int) -> None:
        """In order: what TLS clients take for a truncation is none."""
        running = proxy(**self.KEYS)
        with connected(running, server) as client:
            client.send(GET * requests)
            for _ in range(requests):
                assert client.read_answer().body == pattern(3)
            # a connection in plain text that has not begun to speak HTTP is a tunnel's
            if requests or server.url().startswith("https"):
                assert client.read_to_end() == b""
        running.handler.wait("on_connection_close")

    def test_does_not_count_while_a_request_is_under_way(self, proxy: ProxyFactory, server: Origin) -> None:
        go_on = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(go_on)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server.script(answer, "/slow")
        running = proxy(**self.KEYS)
        with connected(running, server) as client:
            client.send(GET.replace(b"/bytes/3", b"/slow"))
            for _ in range(2):
                with running.client() as other:
                    assert other.read_to_end() == b""
            go_on.set()
            assert client.read_answer().body == b"ok"


class TestClientHandshake:
    KEYS = {"timeouts.client_tls_handshake_ms": LONG}

    @pytest.mark.parametrize("whole", [False, True], ids=["half a ClientHello", "no Finished"])
    def test_that_does_not_end(self, proxy: ProxyFactory, origin: Origin, whole: bool) -> None:
        running = proxy(**self.KEYS)
        outgoing = ssl.MemoryBIO()
        engine = running.client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
        hello = outgoing.read()
        with running.tunnel(origin.port) as client:
            client.send(hello if whole else hello[:100])
            ((host, error),) = running.handler.wait("on_tls_failure")
            assert (host, error.side, error.reason) == ("localhost", "client", "timeout")
            client.read_to_end()
        running.handler.wait("on_connection_close")
        assert running.metrics().tls_client_failure_count == 1


class TestResponseHead:
    KEYS = {"upstream.timeout_ms": LONG}

    @pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
    def test_that_does_not_come(self, proxy: ProxyFactory, server: Origin, start: bytes) -> None:
        def hang(connection: ScriptedConnection, request: Request) -> None:
            connection.send(start)
            assert connection.receive() == b""

        server.script(hang, "/hang")
        running = proxy(**self.KEYS)
        with connected(running, server) as client:
            client.send(GET.replace(b"/bytes/3", b"/hang") + GET)
            answer = client.read_answer()
            if answer.status == 103:
                answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (504, None) and "upstream.timeout_ms" in answer.text
            assert client.read_answer().body == pattern(3)
        server.wait_closed(1)
        assert running.metrics().upstream_timeout_count == 1

    def test_its_time_begins_when_the_request_is_sent(self, proxy: ProxyFactory, server: Origin) -> None:
        def hang(connection: ScriptedConnection, request: Request) -> None:
            assert connection.receive() == b""

        server.script(hang, "/hang")
        running = proxy(**self.KEYS, **STREAMED)
        with connected(running, server) as client:
            client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nfirst")
            server.wait_heads(1)
            for _ in range(2):
                with connected(running, server) as other:
                    assert other.request("/hang", "localhost").status == 504
            client.send(b"later")
            assert client.read_answer().status == 200

    def test_its_time_begins_when_what_was_collected_has_left(self, proxy: ProxyFactory, server: Origin) -> None:
        """The upstream takes the body late; that it has not answered before is no wonder."""
        go_on = threading.Event()

        def hang(connection: ScriptedConnection, request: Request) -> None:
            assert connection.receive() == b""

        def take_late(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(go_on)
            connection.read_body()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server.script(hang, "/hang")
        server.script(take_late, "/up")
        running = proxy(**self.KEYS)
        with connected(running, server) as client:
            # more than all buffers hold
            body = bytes(24 << 20)
            client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            server.wait_heads(1)
            for _ in range(2):
                with connected(running, server) as other:
                    assert other.request("/hang", "localhost").status == 504
            go_on.set()
            assert client.read_answer().body == b"ok"
        assert server.requests[0].length == len(body)


class TestClaim:
    def test_a_connection_that_does_not_become_free(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        go_on = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(go_on)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        plain_origin.script(answer, "/slow")
        running = proxy(
            **{
                "connection_pool.max_connections_per_host": 1,
                "upstream.connect_timeout_ms": LONG // 2,
                "timeouts.upstream_tls_handshake_ms": LONG // 2,
            }
        )
        with running.tunnel(plain_origin.port) as first, running.tunnel(plain_origin.port) as second:
            first.send(GET.replace(b"/bytes/3", b"/slow"))
            plain_origin.wait_heads(1)
            answered = second.request("/bytes/3", "localhost")
            assert answered.status == 503 and "connection_pool.max_connections_per_host" in answered.text
            go_on.set()
            assert first.read_answer().body == b"ok"
            assert second.request("/bytes/3", "localhost").body == pattern(3)


class TestBodies:
    KEYS = {"timeouts.body_idle_ms": SHORT}
    UPLOAD = b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\nabc"

    @pytest.mark.parametrize("keys", [STREAMED, {"body.buffer_timeout_ms": 1}], ids=["streamed", "buffered"])
    def test_an_upload_that_stops(self, proxy: ProxyFactory, server: Origin, keys: dict[str, int]) -> None:
        running = proxy(**self.KEYS, **keys)
        with connected(running, server) as client:
            client.send(self.UPLOAD)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (408, "close") and "timeouts.body_idle_ms" in answer.text
            assert client.read_to_end() == b""
        server.wait_closed(1)
        assert not server.requests[0].complete

    def test_an_upload_that_the_upstream_does_not_take(self, proxy: ProxyFactory) -> None:
        """That is not the client's fault."""
        running = proxy(**{"timeouts.body_idle_ms": LONG}, **STREAMED)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            with running.tunnel(silent.getsockname()[1]) as client:
                # more than all buffers hold; what is left of it is read away once the answer is there
                client.send(self.UPLOAD + bytes(20 << 20))
                answer = client.read_answer()
                assert (answer.status, answer.get("connection")) == (504, "close")
                assert "timeouts.body_idle_ms" in answer.text and "upstream" in answer.text
        running.wait_idle()
        metrics = running.metrics()
        assert (metrics.upstream_timeout_count, metrics.refused_request_count) == (1, 0)

    @pytest.mark.parametrize("head", [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"\r\nhalf"])
    def test_a_download_that_stops(self, proxy: ProxyFactory, server: Origin, head: bytes) -> None:
        def hang(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\n" + head)
            assert connection.receive() == b""

        server.script(hang, "/hang")
        running = proxy(**self.KEYS)
        with connected(running, server) as client:
            client.send(GET.replace(b"/bytes/3", b"/hang"))
            client.read_until(b"half")
            if server.url().startswith("https") or head == b"\r\nhalf":
                with pytest.raises(OSError):
                    client.read_to_end()
            else:
                # the framing shows that more was to come
                assert client.read_to_end() == head.partition(b"half")[2]
        server.wait_closed(1)
        running.wait_idle()
        metrics = running.metrics()
        assert (metrics.upstream_timeout_count, metrics.cut_response_count) == (1, 1)

    def test_a_client_that_does_not_read(self, proxy: ProxyFactory, server: Origin) -> None:
        """It is cut, so that its upstream connection is free again; and the upstream is not blamed."""
        running = proxy(InterceptHandler(), **{"timeouts.body_idle_ms": LONG})
        with connected(running, server) as client:
            client.send(GET.replace(b"/bytes/3", b"/bytes/100000000"))
            client.read_head()
            server.wait_closed(1)
        running.wait_idle()
        metrics = running.metrics()
        assert (metrics.upstream_timeout_count, metrics.cut_response_count) == (0, 1)

    def test_a_handler_that_is_slow_cuts_nothing(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """While a full queue holds the response back, its body does not stand still by itself."""
        release = threading.Event()
        first = threading.Event()

        class Slow(Recording):
            async def on_stream_chunk(self, chunk: StreamChunk) -> None:
                if chunk.sequence == 0:
                    first.set()
                    await asyncio.to_thread(release.wait, 10)
                await super().on_stream_chunk(chunk)

        running = proxy(
            Slow(), **{"timeouts.body_idle_ms": LONG, "timeouts.client_head_ms": LONG, "flow_runtime.dispatch_queue_capacity": 1}
        )
        with running.tunnel(plain_origin.port) as client:
            client.send(GET.replace(b"/bytes/3", b"/sse/2000/0"))
            assert client.read_head().status == 200
            assert first.wait(10)
            for _ in range(3):
                let_a_head_be_late(running)
            release.set()
            client.read_until(b"0\r\n\r\n")
        assert len(running.handler.wait("on_stream_chunk", 2000)) == 2000
        assert running.metrics().dropped_dispatch_work_count == 0


class TestTunnels:
    def test_silence_in_both_directions(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def greet(connection: ScriptedConnection) -> None:
            connection.send(b"hello")
            assert connection.receive() == b""

        plain_origin.script_connections(greet)
        running = proxy(destinations=("example.test:1",), **{"timeouts.tunnel_idle_ms": SHORT})
        with running.tunnel(plain_origin.port) as client:
            assert client.read_to_end() == b"hello"
        plain_origin.wait_closed(1)
        running.handler.wait("on_connection_close")


class TestDecisions:
    def test_a_decision_that_does_not_come_in_time(self, proxy: ProxyFactory, server: Origin) -> None:
        async def think(request: RawRequest) -> HandlerDecision:
            await asyncio.Event().wait()
            return HandlerDecision.ALLOW

        running = proxy(Recording(think), **{"handler.request_timeout_ms": SHORT, "handler.failure_policy": "block"})
        with connected(running, server) as client:
            client.send(GET)
            answer = client.read_answer()
            assert answer.status == 502 and "handler.failure_policy" in answer.text
        assert server.requests == []


class TestDrain:
    def test_a_flow_that_does_not_end(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{"timeouts.drain_ms": SHORT})
        with running.tunnel(plain_origin.port) as client:
            client.send(GET.replace(b"/bytes/3", b"/sse/1000000/1"))
            client.read_until(b"data: ")
            with pytest.raises(ShutdownTimeoutError) as caught:
                running.handle.shutdown()
            assert (caught.value.aborted, caught.value.timeout) == (1, SHORT / 1000)
            with pytest.raises(OSError):
                client.read_to_end()
        assert running.handler.names[-2:] == ["on_stream_end", "on_connection_close"]

    def test_a_flow_that_ends(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{"timeouts.drain_ms": 10_000})
        with running.tunnel(plain_origin.port) as client:
            client.send(GET.replace(b"/bytes/3", b"/sse/100/1"))
            client.read_until(b"data: ")
            running.handle.shutdown()
            client.read_until(b"0\r\n\r\n")
            assert client.read_to_end() == b""
