"""What happens to a connection and to its requests: intercepted, tunnelled, blocked; decided before the upstream hears of them."""

from __future__ import annotations

import ssl
import threading

import pytest

from soth_mitm import HandlerDecision, RawRequest
from support.certs import TestCA
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory

BLOCK = HandlerDecision.block(403, "blocked by policy\n", {"X-Policy": "7"})


def authority(origin: Origin) -> str:
    return f"localhost:{origin.port}"


def absolute(origin: Origin, path: str) -> str:
    return f"http://{authority(origin)}{path}"


def block_secrets(request: RawRequest) -> HandlerDecision:
    return BLOCK if "secret" in request.path else HandlerDecision.ALLOW


def greet_and_echo(connection: ScriptedConnection) -> None:
    """Speak first, as SMTP servers do; then send back what comes, and when the client has ended, a last word."""
    connection.send(b"220 ready\r\n")
    while data := connection.receive():
        connection.send(data)
    connection.send(b"bye\r\n")
    connection.close()


class TestPolicy:
    def test_a_listed_destination_is_intercepted(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            issuer = dict(pair for (pair,) in client.tls.getpeercert()["issuer"])
            assert "soth" in issuer["commonName"].lower()
            assert client.request("/bytes/5", authority(origin)).body == pattern(5)
        (request,) = running.handler.requests
        assert request.connection_meta.target == ("localhost", origin.port)
        assert request.connection_meta.process_info.pid is not None
        assert request.connection_meta.tls_info.version == "TLSv1.3"
        # nothing is dialled before the decision; the response knows both sides
        running.handler.wait("on_response")
        (response,) = running.handler.of("on_response")
        assert response.connection_meta.tls_info.upstream_version == "TLSv1.3"

    def test_an_unlisted_destination_is_tunnelled(self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> None:
        running = proxy(destinations=("example.test:443",))
        with running.tunnel(origin.port) as client:
            client.start_tls(origin_ca.client_context())
            assert client.request("/bytes/5", authority(origin)).body == pattern(5)
        running.handler.wait("on_connection_close")
        assert running.handler.names == ["on_connection_open", "on_connection_close"]
        assert running.metrics().tunnel_count == 1

    def test_an_unlisted_destination_is_blocked_when_asked(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(destinations=("example.test:443",), **{"interception.passthrough_unlisted": False})
        with running.client() as client:
            answer = client.connect(authority(origin))
            assert answer.status == 403
            for named in (f"localhost:{origin.port}", "interception.destinations", "interception.passthrough_unlisted"):
                assert named in answer.text
            assert answer.text.endswith("\n") and answer.text.count("\n") == 1
            assert client.read_to_end() == b""
        assert origin.connections == []

    def test_the_handler_may_refuse_to_intercept(self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> None:
        running = proxy(Recording(intercept=lambda host: False))
        with running.tunnel(origin.port) as client:
            client.start_tls(origin_ca.client_context())
            assert client.request("/bytes/5", authority(origin)).body == pattern(5)
        assert running.handler.of("should_intercept_tls") == ["localhost"]
        assert running.handler.requests == []

    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_a_raising_should_intercept_is_answered_by_the_policy(
        self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA, policy: str
    ) -> None:
        def fail(host: str) -> bool:
            raise LookupError(host)

        running = proxy(Recording(intercept=fail), **{"handler.failure_policy": policy})
        with running.client() as client:
            answer = client.connect(authority(origin))
            if policy == "block":
                assert answer.status == 403 and "handler.failure_policy" in answer.text
                assert origin.connections == []
            else:
                assert answer.status == 200
                client.start_tls(origin_ca.client_context())
                assert client.request("/bytes/5", authority(origin)).body == pattern(5)
        assert running.metrics().handler_panic_count == 1


class TestDecision:
    def test_a_blocked_request_never_reaches_the_origin(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(Recording(block_secrets))
        with running.secured(origin.port) as client:
            answer = client.request("/secret", authority(origin), "POST", b"x" * 100_000)
            assert (answer.status, answer.text, answer.get("x-policy")) == (403, "blocked by policy\n", "7")
            assert client.request("/bytes/5", authority(origin)).body == pattern(5)
        assert b"secret" not in b"".join(connection.received for connection in origin.connections)
        metrics = running.metrics()
        assert (metrics.blocked_request_count, metrics.allowed_request_count) == (1, 1)
        assert running.handler.requests[0].body == b"x" * 100_000

    def test_a_blocked_plain_request_opens_no_connection(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Recording(block_secrets))
        with running.client() as client:
            assert client.request(absolute(plain_origin, "/secret"), authority(plain_origin)).status == 403
        assert plain_origin.connections == []

    def test_a_blocked_head_has_no_body(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(Recording(block_secrets))
        with running.secured(origin.port) as client:
            answer = client.request("/secret", authority(origin), "HEAD")
            assert (answer.status, answer.get("content-length")) == (403, "18")
            assert client.request("/bytes/5", authority(origin)).body == pattern(5)

    def test_monitor_counts_blocks_and_applies_none(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(Recording(block_secrets), intercept_mode="monitor")
        with running.secured(origin.port) as client:
            assert client.request("/secret", authority(origin), "POST", b"abc").status == 200
            (request,) = running.handler.wait("on_request")
        assert (request.path, request.body, request.body_complete) == ("/secret", b"abc", True)
        running.wait_idle()
        assert running.metrics().ignored_block_count == 1


class TestPlainHttp:
    def test_each_request_goes_to_its_own_host_with_its_own_decision(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        with Origin() as other:
            listed = (f"localhost:{plain_origin.port}", f"127.0.0.1:{other.port}")
            running = proxy(destinations=listed, **{"interception.passthrough_unlisted": False})
            with running.client() as client:
                first = client.request(absolute(plain_origin, "/bytes/3"), authority(plain_origin))
                second = client.request(other.url("/bytes/4"), f"127.0.0.1:{other.port}")
                refused = client.request("http://elsewhere.test/x", "elsewhere.test")
                again = client.request(absolute(plain_origin, "/bytes/5"), authority(plain_origin))
            assert [first.body, second.body, again.body] == [pattern(3), pattern(4), pattern(5)]
            assert refused.status == 403
            assert [request.target for request in plain_origin.requests] == ["/bytes/3", "/bytes/5"]
            assert [request.target for request in other.requests] == ["/bytes/4"]
        targets = [request.connection_meta.target for request in running.handler.requests]
        assert targets == [("localhost", plain_origin.port), ("127.0.0.1", other.port), ("localhost", plain_origin.port)]

    def test_unlisted_plain_requests_are_forwarded_unseen(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(destinations=("example.test:80",))
        with running.client() as client:
            assert client.request(absolute(plain_origin, "/bytes/3"), authority(plain_origin)).body == pattern(3)
        assert running.handler.requests == []

    def test_what_leaves_is_what_came_without_the_hop_by_hop_fields(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        host = authority(plain_origin)
        with proxy().client() as client:
            client.send(
                f"GET {absolute(plain_origin, '/a?b=c')} HTTP/1.1\r\nhOsT: {host}\r\nX-Twice: 1\r\nx-twice:  2\r\n"
                "Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n".encode()
            )
            assert client.read_answer().status == 200
        assert plain_origin.requests[0].raw_head == f"GET /a?b=c HTTP/1.1\r\nhOsT: {host}\r\nX-Twice: 1\r\nx-twice:  2\r\n\r\n".encode()

    def test_plain_http_inside_connect(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Recording(block_secrets))
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", authority(plain_origin)).body == pattern(3)
            assert client.request("/secret", authority(plain_origin)).status == 403
        assert [(request.scheme, request.path) for request in running.handler.requests] == [("http", "/bytes/3"), ("http", "/secret")]
        assert [request.target for request in plain_origin.requests] == ["/bytes/3"]


class TestImpatience:
    def test_a_request_right_behind_the_connect(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        host = authority(plain_origin)
        with proxy().client() as client:
            client.send(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nGET /bytes/3 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert client.read_answer("CONNECT").status == 200
            assert client.read_answer().body == pattern(3)

    def test_everything_byte_by_byte(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = running.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with running.tunnel(origin.port) as client:

            def drip() -> None:
                for byte in outgoing.read():
                    client.send(bytes((byte,)))

            while True:
                try:
                    engine.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    drip()
                    incoming.write(client.socket.recv(1 << 16))
            engine.write(f"POST /x HTTP/1.1\r\nHost: {authority(origin)}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            engine.write(b"3\r\nabc\r\n0\r\n\r\n")
            drip()
            origin.wait_requests(1)
            running.handler.wait("on_response")
        assert bytes(origin.requests[0].body) == b"abc"
        assert running.handler.requests[0].body == b"abc"

    @pytest.mark.parametrize("listed", [True, False], ids=["intercepted", "tunnelled"])
    def test_a_client_that_ends_its_direction_gets_its_answer(self, proxy: ProxyFactory, plain_origin: Origin, listed: bool) -> None:
        running = proxy(destinations=("localhost:*",) if listed else ("example.test:1",))
        with running.tunnel(plain_origin.port) as client:
            client.send(f"GET /slow/50 HTTP/1.1\r\nHost: {authority(plain_origin)}\r\n\r\n".encode())
            client.end_writing()
            assert client.read_answer().status == 200


class TestTunnels:
    def test_other_bytes_inside_connect_are_tunnelled(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script_connections(greet_and_echo)
        running = proxy(**{"interception.unknown_protocol": "tunnel"})
        with running.tunnel(plain_origin.port) as client:
            client.send(b"\x00\x01\x02 neither TLS nor HTTP")
            assert client.read_until(b"HTTP") == b"220 ready\r\n\x00\x01\x02 neither TLS nor HTTP"
            client.end_writing()
            assert client.read_to_end() == b"bye\r\n"

    def test_other_bytes_are_refused_otherwise(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(b"\x00\x01\x02")
            assert client.read_answer().status == 400
        assert plain_origin.connections == []

    def test_the_client_may_end_first(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script_connections(greet_and_echo)
        with proxy(destinations=("example.test:1",)).tunnel(plain_origin.port) as client:
            data = pattern(3_000_000)
            assert client.read_until(b"\r\n") == b"220 ready\r\n"
            client.send(data[:1000])
            assert client.read_exactly(1000) == data[:1000]
            client.end_writing()
            assert client.read_to_end() == b"bye\r\n"

    def test_the_upstream_may_end_first(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        received: list[bytes] = []

        def end_first(connection: ScriptedConnection) -> None:
            connection.send(b"that is all")
            connection.half_close()
            while data := connection.receive():
                received.append(data)
            connection.close()

        plain_origin.script_connections(end_first)
        with proxy(destinations=("example.test:1",)).tunnel(plain_origin.port) as client:
            assert client.read_to_end() == b"that is all"
            client.send(pattern(500_000))
            client.end_writing()
            plain_origin.wait_closed(1)
        assert b"".join(received) == pattern(500_000)


class TestHooksInOrder:
    def test_keep_alive_requests_on_one_connection(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            for count in range(5):
                assert client.request(f"/bytes/{count}", authority(origin)).body == pattern(count)
        (closed,) = running.handler.wait("on_connection_close")
        assert running.handler.names == [
            "on_connection_open",
            "should_intercept_tls",
            *["on_request", "on_response"] * 5,
            "on_connection_close",
        ]
        identities = {request.connection_meta.connection_id for request in running.handler.requests}
        assert identities == {closed, running.handler.of("on_connection_open")[0].connection_id}
        assert len({request.flow_id for request in running.handler.requests}) == 5
        assert len(origin.connections) == 1

    def test_pipelined_requests_are_answered_in_order(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(b"".join(f"GET /bytes/{count} HTTP/1.1\r\nHost: {authority(origin)}\r\n\r\n".encode() for count in range(1, 9)))
            assert [client.read_answer().body for _ in range(8)] == [pattern(count) for count in range(1, 9)]
        running.handler.wait("on_connection_close")
        assert running.handler.names[2:-1] == ["on_request", "on_response"] * 8

    def test_the_response_is_shown_whole(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            client.request("/chunked/100000/7?trailers", authority(origin))
            (response,) = running.handler.wait("on_response")
        assert (response.status, response.body, response.streaming) == (200, pattern(100_000), False)
        assert response.trailers.get("x-sha256") is not None
        assert response.request is running.handler.requests[0]

    def test_interim_responses_pass_and_are_not_shown(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(f"GET /interim HTTP/1.1\r\nHost: {authority(origin)}\r\n\r\n".encode())
            answers = [client.read_answer() for _ in range(3)]
            assert [answer.status for answer in answers] == [100, 103, 200]
            assert answers[1].get("link") == "</style.css>; rel=preload"
            running.handler.wait("on_response")
        assert [response.status for response in running.handler.of("on_response")] == [200]

    def test_expect_continue_is_answered_by_us_when_we_buffer(self, proxy: ProxyFactory, origin: Origin) -> None:
        with proxy().secured(origin.port) as client:
            client.send(f"POST /x HTTP/1.1\r\nHost: {authority(origin)}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
            assert client.read_answer().status == 100
            assert origin.requests == []
            client.send(b"hello")
            assert client.read_answer().status == 200


class TestEvents:
    def test_an_event_arrives_before_the_next_is_sent(self, proxy: ProxyFactory, origin: Origin) -> None:
        go_on = threading.Event()
        events = [b"id: 1\nevent: tick\ndata: one\n\n", b"data: two\ndata: lines\n\n"]

        def stream(connection: ScriptedConnection, request: object) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % sum(map(len, events)))
            connection.send(events[0])
            connection.wait(go_on)
            connection.send(events[1])

        origin.script(stream, "/events")
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(f"GET /events HTTP/1.1\r\nHost: {authority(origin)}\r\n\r\n".encode())
            assert client.read_head().status == 200
            assert client.read_exactly(len(events[0])) == events[0]
            (first,) = running.handler.wait("on_stream_chunk")
            assert (first.payload, first.event_id, first.event_type, first.sequence) == (b"one", "1", "tick", 0)
            assert not go_on.is_set() and running.handler.of("on_stream_end") == []
            go_on.set()
            assert client.read_exactly(len(events[1])) == events[1]
            assert running.handler.wait("on_stream_chunk", 2)[1].payload == b"two\nlines"
            running.handler.wait("on_stream_end")
            assert client.request("/bytes/3", authority(origin)).body == pattern(3)
        running.handler.wait("on_connection_close")
        assert running.handler.names[2:] == [
            *("on_request", "on_response", "on_stream_chunk", "on_stream_chunk", "on_stream_end"),
            *("on_request", "on_response", "on_connection_close"),
        ]
        assert running.handler.of("on_response")[0].streaming
