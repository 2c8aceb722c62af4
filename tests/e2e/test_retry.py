"""One safe retry: a request whose kept connection closed before it was answered is sent again exactly when that can do no harm."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from soth_mitm import InterceptHandler
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import WireClient

End = Callable[[ScriptedConnection], None]


@pytest.fixture(params=["fin", "rst"])
def end(request: pytest.FixtureRequest) -> End:
    return ScriptedConnection.close if request.param == "fin" else ScriptedConnection.reset


class Fickle:
    """An origin that answers the first request of a connection only; at a second one it says `last_words` and ends the connection."""

    def __init__(self, origin: Origin, end: End = ScriptedConnection.close, last_words: bytes = b"") -> None:
        self.origin = origin
        self.end = end
        self.last_words = last_words
        origin.script(self._answer)

    def _answer(self, connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        if len(connection.connection.requests) > 1 or request.path == "/never":
            if self.last_words:
                connection.send(self.last_words)
            self.end(connection)
            return
        text = b"" if request.method == "HEAD" else b"ok"
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    def seen(self, path: str) -> list[Request]:
        """Return the requests for `path` that arrived, on whichever connection."""
        return [request for request in self.origin.requests if request.path == path]


def prepared(running: Running, origin: Origin) -> WireClient:
    """Return a client behind which a connection to the origin was used once and is kept."""
    client = running.tunnel(origin.port)
    assert client.request("/first", "localhost").status == 200
    return client


class TestSentAgain:
    @pytest.mark.parametrize(
        "method", ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "PUT", "PROPFIND", "REPORT", "SEARCH", "QUERY", "VERSION-CONTROL", "ACL"]
    )
    def test_what_does_no_harm_twice(self, proxy: ProxyFactory, plain_origin: Origin, end: End, method: str) -> None:
        fickle = Fickle(plain_origin, end)
        running = proxy()
        with prepared(running, plain_origin) as client:
            assert client.request("/x", "localhost", method).status == 200
        lost, again = fickle.seen("/x")
        assert (lost.connection_index, again.connection_index) == (0, 1)
        assert lost.raw_head == again.raw_head
        metrics = running.metrics()
        assert (metrics.retry_count, metrics.upstream_error_count, metrics.relayed_response_count) == (1, 0, 2)

    @pytest.mark.parametrize(
        "framed",
        [
            b"Content-Length: 20\r\n\r\n" + pattern(20),
            b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
        ],
        ids=["length", "chunked"],
    )
    def test_a_body_that_was_collected(self, proxy: ProxyFactory, plain_origin: Origin, framed: bytes) -> None:
        fickle = Fickle(plain_origin)
        running = proxy()
        with prepared(running, plain_origin) as client:
            client.send(b"PUT /x HTTP/1.1\r\nHost: localhost\r\n" + framed)
            assert client.read_answer().status == 200
        lost, again = fickle.seen("/x")
        assert lost.complete and again.complete
        assert lost.raw_head + lost.raw_body == again.raw_head + again.raw_body
        assert bytes(again.raw_head + again.raw_body).endswith(framed)
        # asked about once, whatever it took to send it
        assert [request.path for request in running.handler.requests] == ["/first", "/x"]

    def test_a_pipelined_request_in_its_order(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        fickle = Fickle(plain_origin)
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(4)))
            assert [client.read_answer().status for _ in range(4)] == [200] * 4
        assert [len(fickle.seen(f"/{number}")) for number in range(4)] == [1, 2, 2, 2]
        assert running.metrics().retry_count == 3

    def test_inside_tls(self, proxy: ProxyFactory, origin: Origin, end: End) -> None:
        fickle = Fickle(origin, end)
        running = proxy()
        with running.secured(origin.port) as client:
            assert client.request("/first", "localhost").status == 200
            assert client.request("/x", "localhost").status == 200
        assert len(fickle.seen("/x")) == 2
        assert running.metrics().retry_count == 1


class TestNotSentAgain:
    def fails(self, running: Running, client: WireClient, fickle: Fickle, request: bytes, *, times: int = 1) -> None:
        """Send a request for `/x`; it is answered 502 after having reached the origin `times`, and the client may go on."""
        client.send(request)
        answer = client.read_answer()
        assert answer.status == 502 and answer.text.strip().endswith("closed the connection before it answered")
        assert len(fickle.seen("/x")) == times
        metrics = running.metrics()
        assert (metrics.retry_count, metrics.upstream_error_count) == (times - 1, 1)
        assert client.request("/after", "localhost").status == 200

    @pytest.mark.parametrize("framed", ["Content-Length: 2\r\n\r\nhi", "Content-Length: 0\r\n\r\n", "\r\n"], ids=["body", "empty", "none"])
    @pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK", "BREW", "PROPFIN", "PROPFINDS", "acl", "get"])
    def test_what_may_do_harm_twice(self, proxy: ProxyFactory, plain_origin: Origin, end: End, method: str, framed: str) -> None:
        """Though it is here as a whole: its body was collected for the decision."""
        fickle = Fickle(plain_origin, end)
        running = proxy()
        with prepared(running, plain_origin) as client:
            self.fails(running, client, fickle, f"{method} /x HTTP/1.1\r\nHost: localhost\r\n{framed}".encode())

    def test_on_a_connection_that_was_new(self, proxy: ProxyFactory, plain_origin: Origin, end: End) -> None:
        fickle = Fickle(plain_origin, end)
        plain_origin.script(lambda connection, request: end(connection), "/x")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            self.fails(running, client, fickle, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def test_twice(self, proxy: ProxyFactory, plain_origin: Origin, end: End) -> None:
        fickle = Fickle(plain_origin, end)
        plain_origin.script(lambda connection, request: end(connection), "/x")
        running = proxy()
        with prepared(running, plain_origin) as client:
            self.fails(running, client, fickle, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", times=2)
        assert len({request.connection_index for request in fickle.seen("/x")}) == 2

    def test_twice_over_connections_that_were_kept(self, proxy: ProxyFactory) -> None:
        """Where a new connection cannot be made, the second attempt takes one that is there; there is no third one."""
        get = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
        listening = socket.create_server(("127.0.0.1", 0))
        running = proxy(**{"upstream.retry_delay_ms": 10})
        with ExitStack() as stack:
            clients = [stack.enter_context(running.tunnel(listening.getsockname()[1], "127.0.0.1")) for _ in range(3)]
            servers: list[socket.socket] = []
            for client in clients:
                client.send(get)
                servers.append(stack.enter_context(listening.accept()[0]))
                assert servers[-1].recv(65536) == get
            listening.close()
            for server in servers:
                server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert [client.read_answer().status for client in clients] == [200] * 3
            assert running.metrics().idle_upstream_connections == 3
            clients[0].send(get)
            seen = 0
            while clients[0].socket not in (ready := select.select([clients[0].socket, *servers], [], [], 10)[0]):
                for server in ready:
                    seen += server.recv(65536) == get
                    server.close()
                    servers.remove(server)
            assert clients[0].read_answer().status == 502
        assert (seen, running.metrics().retry_count) == (2, 1)

    @pytest.mark.parametrize(
        "words", [b"H", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["a byte", "half", "1xx"]
    )
    def test_after_a_byte_of_an_answer(self, proxy: ProxyFactory, plain_origin: Origin, words: bytes) -> None:
        fickle = Fickle(plain_origin, last_words=words)
        running = proxy()
        with prepared(running, plain_origin) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if b"103" in words:
                assert client.read_answer().status == 103
            assert client.read_answer().status == 502
        assert len(fickle.seen("/x")) == 1
        assert running.metrics().retry_count == 0

    def test_a_body_that_streamed(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        fickle = Fickle(plain_origin)
        running = proxy(InterceptHandler(), **{"body.buffer_request_bodies": False})
        with prepared(running, plain_origin) as client:
            self.fails(running, client, fickle, b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")

    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    def test_a_body_that_was_collected_in_part(self, proxy: ProxyFactory, plain_origin: Origin, method: str) -> None:
        """Its first part, which was held for the decision, is not the request."""
        fickle = Fickle(plain_origin)
        running = proxy(Recording(), **{"body.max_size_bytes": 1000})
        with prepared(running, plain_origin) as client:
            client.send(f"{method} /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n".encode() + pattern(1500))
            running.handler.wait("on_request", 2)
            self.fails(running, client, fickle, pattern(3000)[1500:])
        (request,) = fickle.seen("/x")
        assert bytes(request.body) == pattern(3000)

    def test_when_told_not_to(self, proxy: ProxyFactory, plain_origin: Origin, end: End) -> None:
        fickle = Fickle(plain_origin, end)
        running = proxy(**{"upstream.retry_on_failure": False})
        with prepared(running, plain_origin) as client:
            self.fails(running, client, fickle, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")


class TestNotSentOverAnOldConnection:
    """A request that could not be sent again goes over a new connection where the kept one was unused for long."""

    KEY = "connection_pool.unsafe_reuse_idle_ms"
    POST = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"

    def answered_by(self, running: Running, origin: Origin, request: bytes) -> int:
        """Send a request, of a client of its own; return the number of the origin's connection that it came over."""
        with running.tunnel(origin.port) as client:
            client.send(request)
            assert client.read_answer().status == 200
        return origin.requests[-1].connection_index

    def test_it_succeeds_though_the_upstream_closes(self, proxy: ProxyFactory, plain_origin: Origin, end: End) -> None:
        """At a second request on a connection, which is how it looks when it was closing at that moment."""
        fickle = Fickle(plain_origin, end)
        running = proxy(**{self.KEY: 0})
        for number in range(3):
            assert self.answered_by(running, plain_origin, self.POST) == number
        assert len(fickle.seen("/x")) == 3
        metrics = running.metrics()
        assert (metrics.retry_count, metrics.upstream_error_count, metrics.idle_upstream_connections) == (0, 0, 3)

    def test_a_request_that_can_be_sent_again_takes_what_is_there(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{self.KEY: 0})
        get = b"GET /bytes/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert [self.answered_by(running, plain_origin, get) for _ in range(3)] == [0, 0, 0]

    def test_a_body_that_streams_cannot(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(InterceptHandler(), **{self.KEY: 0, "body.buffer_request_bodies": False})
        put = b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
        assert [self.answered_by(running, plain_origin, put) for _ in range(2)] == [0, 1]

    def test_a_body_that_is_here_in_part_cannot(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """What was collected for the decision is kept until it is sent, but it is not the request."""
        running = proxy(Recording(), **{self.KEY: 0, "body.max_size_bytes": 1000})
        put = b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n" + pattern(3000)
        assert [self.answered_by(running, plain_origin, put) for _ in range(2)] == [0, 1]

    def test_nothing_can_when_it_is_not_to_be_sent_again(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{self.KEY: 0, "upstream.retry_on_failure": False})
        get = b"GET /bytes/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert [self.answered_by(running, plain_origin, get) for _ in range(2)] == [0, 1]

    def test_one_that_was_used_just_now_is_used(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{self.KEY: 600_000})
        assert [self.answered_by(running, plain_origin, self.POST) for _ in range(3)] == [0, 0, 0]

    def test_where_there_is_no_room_the_oldest_goes(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{self.KEY: 0, "connection_pool.max_connections_per_host": 1})
        assert [self.answered_by(running, plain_origin, self.POST) for _ in range(3)] == [0, 1, 2]
        assert running.metrics().upstream_connections == 1

    def test_a_new_one_that_fails_is_done_without(self, proxy: ProxyFactory) -> None:
        """The server serves one client and listens no more: the connection that is there is better than none."""
        listening = socket.create_server(("127.0.0.1", 0))
        running = proxy(**{self.KEY: 0})
        with running.tunnel(listening.getsockname()[1], "127.0.0.1") as client:
            client.send(self.POST)
            server, _ = listening.accept()
            listening.close()
            with server:
                for _ in range(2):
                    received = b""
                    while not received.endswith(b"hi"):
                        received += server.recv(65536)
                    server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    assert client.read_answer().status == 200
                    if not running.metrics().pool_hit_count:
                        client.send(self.POST)


class TestKeepAliveTimeout:
    """`Keep-Alive: timeout=N` is the upstream's word on how long it keeps the connection; a part of that is left for what is under way."""

    @pytest.mark.parametrize(
        ("field", "used"),
        [
            ("timeout=0", False),
            ("max=5, Timeout=0", False),
            ("timeout=1", False),
            ("timeout=30", True),
            ("max=5", True),
            ("xtimeout=0", True),
            ("timeout=", True),
            ("timeout=99999999999999999999", True),
        ],
    )
    def test_it_is_obeyed(self, proxy: ProxyFactory, plain_origin: Origin, field: str, used: bool) -> None:
        answer = f"HTTP/1.1 200 OK\r\nKeep-Alive: {field}\r\nContent-Length: 0\r\n\r\n".encode()
        plain_origin.script(lambda connection, request: connection.send(answer))
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            for turn in range(2):
                assert client.request("/x", "localhost").get("keep-alive") is None
                if turn == 0 and field == "timeout=1":
                    # half a second of it is left out; the time itself is what is tested
                    threading.Event().wait(0.6)
        assert [request.connection_index for request in plain_origin.requests] == [0, 0 if used else 1]
        assert running.metrics().retry_count == 0
