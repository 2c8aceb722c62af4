"""What RFC 9112 asks of whoever passes messages on: who may keep a connection, what ends a body, what stops here, what comes before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import WireClient

STREAMED = {"body.buffer_request_bodies": False}
Script = Callable[[ScriptedConnection, Request], None]


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest, origin: Origin, plain_origin: Origin) -> Origin:
    return origin if request.param == "tls" else plain_origin


def connected(running: Running, server: Origin) -> WireClient:
    return (running.secured if server.url().startswith("https") else running.tunnel)(server.port)


def get(path: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/{version}", "Host: localhost", *fields, "")).encode()


def post(path: str, *fields: str) -> bytes:
    return get(path, *fields, method="POST")


def saying(*pieces: bytes) -> Script:
    """Answer with exactly these bytes, once the request is there."""

    def say(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        for piece in pieces:
            connection.send(piece)

    return say


class TestEarlyAnswers:
    def test_the_client_is_told_that_its_upload_is_refused(self, proxy: ProxyFactory, server: Origin) -> None:
        """An upstream that closes in the middle of an upload ends the client's connection too, and the answer says so."""

        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.receive_exactly(3)
            connection.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n")
            connection.close()

        server.script(refuse, "/up")
        running = proxy(**STREAMED)
        with connected(running, server) as client:
            client.send(post("/up", "Content-Length: 1000000") + b"abc")
            answer = client.read_answer()
            assert (answer.status, answer.body, answer.get("connection")) == (413, b"no\n", "close")
            client.send(bytes(10_000))
            assert client.read_to_end() == b""
        running.wait_idle()
        assert running.metrics().cut_response_count == 0

    def test_an_upstream_that_goes_on_reading_gets_the_rest(self, proxy: ProxyFactory, server: Origin) -> None:
        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n")
            connection.read_body()

        server.script(answer, "/up")
        with connected(proxy(**STREAMED), server) as client:
            client.send(post("/up", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
            assert client.read_answer().body == b"ok\n"
            client.send(b"2;x=y\r\nde\r\n0\r\nX-End: 1\r\n\r\n" + get("/bytes/3"))
            assert client.read_answer().body == pattern(3)
        upload = server.wait_requests(2)[0]
        assert bytes(upload.raw_body) == b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-End: 1\r\n\r\n"

    def test_an_answer_that_waits_for_the_rest_of_the_upload(self, proxy: ProxyFactory, server: Origin) -> None:
        """Both directions go on at once: each side sends only after it has received."""

        def converse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            for _ in range(5):
                connection.send(connection.receive_exactly(1))

        server.script(converse, "/both")
        with connected(proxy(**STREAMED), server) as client:
            client.send(post("/both", "Content-Length: 5"))
            assert client.read_head().status == 200
            for byte in (b"h", b"e", b"l", b"l", b"o"):
                client.send(byte)
                assert client.read_exactly(1) == byte


class TestUploads:
    @pytest.mark.parametrize(
        "keys", [STREAMED, {"intercept_mode": "monitor"}, {"body.max_size_bytes": 10_000}], ids=lambda keys: next(iter(keys))
    )
    def test_that_fill_the_buffer_before_they_have_an_upstream(self, proxy: ProxyFactory, server: Origin, keys: dict[str, object]) -> None:
        """The rest is read once what lies there has left."""
        go_on = threading.Event()

        def wait(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(go_on)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server.script(wait, "/wait")
        running = proxy(**keys, **{"connection_pool.max_connections_per_host": 1})
        body = pattern(8_000_000)
        with connected(running, server) as first, connected(running, server) as client:
            first.send(get("/wait"))
            server.wait_heads(1)
            sending = threading.Thread(target=client.send, args=(post("/up", f"Content-Length: {len(body)}") + body,))
            sending.start()
            # round trips through the proxy's loop, in which it reads whatever it can
            for _ in range(500):
                running.metrics()
            go_on.set()
            assert first.read_answer().body == b"ok"
            sending.join()
            assert client.read_answer().status == 200
        assert bytes(server.requests[-1].body) == body


class TestPipelining:
    def test_answers_keep_the_order_whatever_the_hooks_take(self, proxy: ProxyFactory, server: Origin) -> None:
        """Odd requests are decided upon late, every third one is blocked, and some have bodies."""
        turns = 20

        async def decide(request: RawRequest) -> HandlerDecision:
            number = int(request.path.rpartition("/")[2])
            for _ in range(number % 2 * 10):
                await asyncio.sleep(0)
            return HandlerDecision.block(403, str(number)) if number % 3 == 0 else HandlerDecision.ALLOW

        class Slow(Recording):
            async def on_response(self, response: object) -> None:
                await asyncio.sleep(0.001)
                await super().on_response(response)  # type: ignore[arg-type]

        running = proxy(Slow(decide))
        wire = b"".join(
            post(f"/bytes/{number}", "Content-Length: 3") + b"abc" if number % 4 == 0 else get(f"/bytes/{number}")
            for number in range(turns)
        )
        with connected(running, server) as client:
            client.send(wire)
            for number in range(turns):
                answer = client.read_answer()
                if number % 3 == 0:
                    assert (answer.status, answer.text) == (403, str(number))
                else:
                    assert answer.body == pattern(number)
        assert [request.path for request in running.handler.requests] == [f"/bytes/{number}" for number in range(turns)]
        assert [request.target for request in server.requests] == [f"/bytes/{number}" for number in range(turns) if number % 3]

    def test_the_last_of_them_closes(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(), server) as client:
            client.send(get("/bytes/1") + get("/bytes/2", "Connection: close") + get("/bytes/3"))
            assert client.read_answer().body == pattern(1)
            last = client.read_answer()
            assert (last.body, last.get("connection")) == (pattern(2), "close")
            assert client.read_to_end() == b""
        assert [request.target for request in server.requests] == ["/bytes/1", "/bytes/2"]


class TestBodiless:
    @pytest.mark.parametrize(
        ("method", "head"),
        [
            ("HEAD", "200 OK\r\nContent-Length: 5000"),
            ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
            ("HEAD", "200 OK"),
            ("HEAD", "404 Not Found\r\nContent-Length: 5000\r\nContent-Type: text/event-stream"),
            ("GET", "204 No Content"),
            ("GET", "204 No Content\r\nContent-Length: 0"),
            ("POST", "204 No Content\r\nContent-Length: 7"),
            ("GET", '304 Not Modified\r\nContent-Length: 5000\r\nETag: "x"'),
            ("GET", "304 Not Modified\r\nTransfer-Encoding: chunked"),
            ("GET", "304 Not Modified\r\nContent-Encoding: gzip\r\nContent-Length: 5000"),
        ],
    )
    def test_a_length_without_content(self, proxy: ProxyFactory, server: Origin, method: str, head: str) -> None:
        """What a status does not have is not announced, and may come yet: then the upstream's connection serves nobody else."""
        wire = f"HTTP/1.1 {head}\r\n\r\n".encode()
        server.script(saying(wire), "/x")
        running = proxy()
        empty = "POST 204" in f"{method} {head}" or "GET 304 Not Modified\r\nTransfer" in f"{method} {head}"
        relayed = f"HTTP/1.1 {head.splitlines()[0]}\r\n\r\n".encode() if empty else wire
        with connected(running, server) as client:
            client.send(get("/x", *(["Content-Length: 0"] if method == "POST" else []), method=method) * 2 + get("/bytes/3"))
            assert client.read_exactly(2 * len(relayed)) == relayed * 2
            assert client.read_answer().body == pattern(3)
        assert len(server.connections) == (3 if empty else 1)
        if "event-stream" not in head:
            assert [response.body for response in running.handler.wait("on_response", 3)] == [b"", b"", pattern(3)]


class TestCloseDelimited:
    def test_the_end_of_the_connection_is_the_end_of_the_body(self, proxy: ProxyFactory, server: Origin) -> None:
        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + pattern(100_000))
            connection.close()

        server.script(answer, "/close")
        running = proxy()
        with connected(running, server) as client:
            client.send(get("/close") + get("/bytes/3"))
            answered = client.read_answer()
            assert (answered.body, answered.get("connection")) == (pattern(100_000), "close")
        (response,) = running.handler.wait("on_response")
        assert response.body == pattern(100_000)
        assert running.metrics().cut_response_count == 0

    @pytest.mark.parametrize(
        "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"]
    )
    def test_a_reset_is_an_error_for_the_client(self, proxy: ProxyFactory, server: Origin, head: bytes) -> None:
        """Also for one without TLS, to whom a FIN would say that this is all."""
        received = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(head + b"half")
            connection.wait(received)
            connection.reset()

        server.script(answer, "/cut")
        running = proxy()
        with connected(running, server) as client:
            client.send(get("/cut"))
            client.read_until(b"half")
            received.set()
            with pytest.raises(OSError):
                client.read_to_end()
        running.wait_idle()
        assert running.metrics().cut_response_count == 1
        assert len(running.handler.of("on_response")) == (b"event-stream" in head)

    def test_tls_that_is_cut_is_an_error_for_a_client_without_tls(self, proxy: ProxyFactory, origin: Origin) -> None:
        received = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            connection.wait(received)
            origin.loop.call_soon_threadsafe(connection.connection.abort)

        origin.script(answer, "/cut")
        running = proxy()
        with running.client() as client:
            client.send(f"GET {origin.url('/cut')} HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
            client.read_until(b"half")
            received.set()
            with pytest.raises(OSError):
                client.read_to_end()


class TestVersions:
    def test_a_client_of_1_0_keeps_its_connection_when_it_asks_to(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(), server) as client:
            for count in range(3):
                client.send(get(f"/bytes/{count}", "Connection: keep-alive", version="1.0"))
                answer = client.read_answer()
                assert (answer.version, answer.body, answer.get("connection")) == ("HTTP/1.1", pattern(count), "keep-alive")
            client.send(get("/bytes/3", version="1.0"))
            answer = client.read_answer()
            assert (answer.body, answer.get("connection")) == (pattern(3), "close")
            assert client.read_to_end() == b""

    def test_a_client_of_1_0_is_told_when_the_end_of_the_connection_is_its_answer(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(), server) as client:
            client.send(get("/close/3", "Connection: keep-alive", version="1.0"))
            answer = client.read_answer()
            assert (answer.body, answer.get("connection")) == (pattern(3), "close")

    @pytest.mark.parametrize("asks", [True, False])
    def test_a_client_of_1_0_is_forwarded_in_1_1(self, proxy: ProxyFactory, server: Origin, asks: bool) -> None:
        """RFC 9112 section 2.3: with a Host, without an expectation, and over a connection that serves the next one as well."""
        heads: list[bytes] = []

        def answer(connection: ScriptedConnection, request: Request) -> None:
            heads.append(request.raw_head)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server.script(answer, "/x")
        running = proxy()
        for _ in range(2):
            with connected(running, server) as client:
                host = f"Host: localhost:{server.port}\r\n" * asks
                client.send(f"GET /x HTTP/1.0\r\n{host}Expect: 100-continue\r\nTE: trailers\r\n\r\n".encode())
                assert client.read_answer().body == b"ok"
                assert client.read_to_end() == b""
        assert heads == [f"GET /x HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode()] * 2
        assert len(server.connections) == 1

    @pytest.mark.parametrize("keep", [True, False])
    def test_chunks_are_taken_off_for_a_client_of_1_0(self, proxy: ProxyFactory, server: Origin, keep: bool) -> None:
        """Its answer ends with the connection, whatever it asked for, and the handler sees content and trailers as ever."""
        server.script(
            saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\no", b"k\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), "/x"
        )
        running = proxy()
        with connected(running, server) as client:
            client.send(get("/x", *["Connection: keep-alive"] * keep, version="1.0"))
            assert client.read_to_end() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nokabc"
        response = running.handler.wait("on_response")[0]
        assert (response.body, response.trailers.raw) == (b"okabc", [(b"X-Sum", b"1")])
        with connected(running, server) as client:
            client.send(get("/x", version="1.0", method="HEAD"))
            assert client.read_to_end() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"

    def test_chunks_that_are_cut_never_look_whole_to_a_client_of_1_0(self, proxy: ProxyFactory, server: Origin) -> None:
        server.script(saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"), "/x")
        with connected(proxy(), server) as client:
            client.send(get("/x", version="1.0"))
            client.read_until(b"ok")
            with pytest.raises(OSError):
                client.read_to_end()

    @pytest.mark.parametrize("keep", [True, False])
    def test_an_upstream_of_1_0(self, proxy: ProxyFactory, server: Origin, keep: bool) -> None:
        """The client's connection goes on either way; the upstream's only if it says so."""

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(
                b"HTTP/1.0 200 OK\r\n" + b"Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n" * keep + b"Content-Length: 3\r\n\r\nabc"
            )
            if not keep:
                connection.close()

        server.script(answer, "/x")
        with connected(proxy(), server) as client:
            for _ in range(3):
                client.send(get("/x"))
                answered = client.read_answer()
                assert (answered.version, answered.body) == ("HTTP/1.1", b"abc")
                assert answered.headers == [("Content-Length", "3")]
        assert len(server.connections) == (1 if keep else 3)

    def test_interim_responses_are_not_for_a_client_of_1_0(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(), server) as client:
            client.send(get("/interim", version="1.0"))
            assert client.read_answer().status == 200
            assert client.read_to_end() == b""

    def test_expect_of_a_client_of_1_0_is_not_answered(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(), server) as client:
            client.send(post("/x", "Expect: 100-continue", "Content-Length: 3").replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc")
            assert client.read_answer().status == 200


class TestHopByHop:
    def test_what_connection_names_stops_here_both_ways(self, proxy: ProxyFactory, server: Origin) -> None:
        server.script(
            saying(
                b"HTTP/1.1 200 OK\r\nX-a: 1\r\nConnection: close, x-HOP\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"
                b"Upgrade: h2c\r\nx-hop: 2\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nX-b:  2 \r\n\r\n"
            ),
            "/x",
        )
        with connected(proxy(), server) as client:
            fields = (
                "X-a: 1",
                "Connection: X-Hop ,keep-alive,",
                "x-hop: 1",
                "TE: trailers",
                "Keep-Alive: 5",
                "connection: X-too",
                "X-Too: 1",
            )
            client.send(get("/x", *fields, "Proxy-Authorization: Basic eA==", "X-b:  2 "))
            assert (
                client.read_until(b"\r\n\r\n")
                == b"HTTP/1.1 200 OK\r\nX-a: 1\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nX-b:  2 \r\n\r\n"
            )
            # `Connection: close` was about the upstream's connection
            assert client.request("/bytes/3", "localhost").body == pattern(3)
        assert server.requests[0].raw_head == b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-a: 1\r\nX-b:  2 \r\n\r\n"

    def test_trailers_pass_both_ways(self, proxy: ProxyFactory, server: Origin) -> None:
        answer = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;a=b\r\nabc\r\n00\r\nX-Sum:  7 \r\nx-more:\r\n\r\n"
        )
        server.script(saying(answer), "/x")
        wire = b"1\r\na\r\n0;last\r\nX-Up: 1\r\nx-up: 2\r\n\r\n"
        running = proxy()
        with connected(running, server) as client:
            client.send(post("/x", "Transfer-Encoding: chunked", "Trailer: X-Up") + wire)
            assert client.read_exactly(len(answer)) == answer
        assert bytes(server.requests[0].raw_body) == wire
        assert running.handler.requests[0].trailers.get_all("x-up") == ["1", "2"]
        (response,) = running.handler.wait("on_response")
        assert (response.body, response.trailers.raw) == (b"abc", [(b"X-Sum", b"7"), (b"x-more", b"")])


class TestInterim:
    def test_many_of_them(self, proxy: ProxyFactory, server: Origin) -> None:
        interim = b"".join(b"HTTP/1.1 %d \r\nX-Number: %d\r\n\r\n" % (number % 2 and 102 or 103, number) for number in range(64))
        server.script(saying(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "/many")
        running = proxy()
        with connected(running, server) as client:
            client.send(get("/many") + get("/bytes/3"))
            assert client.read_exactly(len(interim)) == interim
            assert client.read_answer().body == b"ok"
            assert client.read_answer().body == pattern(3)
        assert [response.status for response in running.handler.wait("on_response", 2)] == [200, 200]

    def test_a_flood_of_them_ends(self, proxy: ProxyFactory, server: Origin) -> None:
        def flood(connection: ScriptedConnection, request: Request) -> None:
            while True:
                connection.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

        server.script(flood, "/flood")
        running = proxy(InterceptHandler())
        with connected(running, server) as client:
            client.send(get("/flood") + get("/bytes/3"))
            assert [client.read_head().status for _ in range(64)] == [102] * 64
            assert client.read_answer().status == 502
            assert client.read_answer().body == pattern(3)

    def test_a_client_that_does_not_read_them_holds_the_upstream_back(self, proxy: ProxyFactory, server: Origin) -> None:
        sent = 0
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </" + b"x" * 500_000 + b">; rel=preload\r\n\r\n"
        count = 64

        def flood(connection: ScriptedConnection, request: Request) -> None:
            nonlocal sent
            for _ in range(count):
                connection.send(interim)
                sent += 1
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server.script(flood, "/flood")
        running = proxy(InterceptHandler(), max_http_head_bytes=1 << 20)
        with connected(running, server) as client:
            client.send(get("/flood"))
            server.wait_heads(1)
            before = -1
            while before != sent:
                before = sent
                # round trips through the proxy's loop, in which it moves whatever it can
                for _ in range(300):
                    running.metrics()
            assert sent < count
            assert running.metrics().buffered_bytes < 8 << 20
            for _ in range(count):
                assert client.read_head().status == 103
            assert client.read_answer().body == b"ok"

    def test_each_begins_the_time_of_the_answer_anew(self, proxy: ProxyFactory, server: Origin) -> None:
        """An upstream that says that it is at work is waited for, and one that says no more is not."""
        said = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            for _ in range(4):
                # shorter than upstream.timeout_ms, and together longer
                said.wait(0.3)
                connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            if request.raw_head.startswith(b"GET /x "):
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            else:
                connection.receive()

        server.script(answer, "/x")
        server.script(answer, "/y")
        with connected(proxy(**{"upstream.timeout_ms": 800}), server) as client:
            for path, status in (("/x", 200), ("/y", 504)):
                client.send(get(path))
                assert [client.read_head().status for _ in range(4)] == [102] * 4
                assert client.read_answer().status == status

    @pytest.mark.parametrize("over", [0, 1])
    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_there_are_64_at_most(self, proxy: ProxyFactory, server: Origin, over: int, version: str) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\n\r\n" * (64 + over)
        server.script(saying(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "/x")
        with connected(proxy(), server) as client:
            for _ in range(2):
                client.send(get("/x", "Connection: keep-alive", version=version))
                if version == "1.1":
                    assert {client.read_head().status for _ in range(64)} == {103}
                answer = client.read_answer()
                assert answer.status == (502 if over else 200)
                if over:
                    assert answer.text == "the upstream sent more than 64 interim responses\n"
                    return


class TestExpect:
    HEAD = post("/x", "Expect: 100-continue", "Content-Length: 5")

    def test_is_the_upstreams_to_answer_when_we_do_not_buffer(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(**STREAMED), server) as client:
            client.send(self.HEAD)
            (request,) = server.wait_heads(1)
            assert request.raw_head == self.HEAD and not request.complete
            assert client.read_answer().status == 100
            client.send(b"hello" + get("/bytes/3"))
            assert client.read_answer().status == 200
            assert client.read_answer().body == pattern(3)
        assert bytes(server.requests[0].body) == b"hello"

    def test_is_the_upstreams_to_answer_when_nobody_decides(self, proxy: ProxyFactory, server: Origin) -> None:
        with connected(proxy(InterceptHandler()), server) as client:
            client.send(self.HEAD)
            assert client.read_answer().status == 100
            client.send(b"hello")
            assert client.read_answer().status == 200

    @pytest.mark.parametrize("status", [417, 401])
    def test_a_refusal_is_relayed_and_the_body_may_follow(self, proxy: ProxyFactory, server: Origin, status: int) -> None:
        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
            assert connection.receive_exactly(5) == b"hello"

        server.script(refuse, "/x")
        with connected(proxy(**STREAMED), server) as client:
            client.send(self.HEAD)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (status, None)
            client.send(b"hello")
        server.wait_heads(1)

    def test_a_refusal_that_closes(self, proxy: ProxyFactory, server: Origin) -> None:
        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        server.script(refuse, "/x")
        with connected(proxy(**STREAMED), server) as client:
            client.send(self.HEAD)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (417, "close")
            assert client.read_to_end() == b""

    def test_a_block_comes_instead_of_100(self, proxy: ProxyFactory, server: Origin) -> None:
        running = proxy(Recording(lambda request: HandlerDecision.block(403, "no\n")), **STREAMED)
        with connected(running, server) as client:
            client.send(self.HEAD)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (403, "close")
            assert client.read_to_end() == b""
        assert server.requests == []

    def test_other_expectations_pass(self, proxy: ProxyFactory, server: Origin) -> None:
        server.script(saying(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), "/x")
        with connected(proxy(), server) as client:
            client.send(post("/x", "Expect: something", "Content-Length: 5") + b"hello")
            assert client.read_answer().status == 417
        assert server.requests[0].get("expect") == "something"
