"""Upgrades to protocols that we do not know: relayed as they come after 101, unless they would carry requests or TLS past the policy."""

from __future__ import annotations

import threading

import pytest

from soth_mitm import HandlerDecision, RawRequest
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import WireClient

ASK = "POST /attach HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{more}\r\n"
SWITCH = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
GET = b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def ask(more: str = "Content-Length: 0\r\n") -> bytes:
    return ASK.format(more=more).encode()


def switch_and_echo(connection: ScriptedConnection, request: Request) -> None:
    """Speak first, in one piece with the 101; then send back what comes, and when the client has ended, a last word."""
    connection.read_body()
    connection.send(SWITCH + b"ready\n")
    while data := connection.receive():
        connection.send(data)
    connection.send(b"bye\n")
    connection.close()


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest, origin: Origin, plain_origin: Origin) -> Origin:
    return origin if request.param == "tls" else plain_origin


def connected(running: Running, server: Origin) -> WireClient:
    return (running.secured if server.url().startswith("https") else running.tunnel)(server.port)


class TestSwitched:
    @pytest.mark.parametrize("body", ["", "Content-Length: 12\r\n", "Transfer-Encoding: chunked\r\n"], ids=["none", "length", "chunked"])
    def test_both_sides_relay_what_they_sent_before_the_101_was_read(self, proxy: ProxyFactory, server: Origin, body: str) -> None:
        server.script(switch_and_echo, "/attach")
        running = proxy()
        content = {"": b"", "C": b'{"Tty":true}', "T": b'c\r\n{"Tty":true}\r\n0\r\n\r\n'}[body[:1]]
        with connected(running, server) as client:
            client.send(ask(body) + content + b"early ")
            assert client.read_until(b"\r\n\r\n") == SWITCH
            client.send(b"later\n")
            assert client.read_exactly(18) == b"ready\nearly later\n"
            data = pattern(200_000)
            for _ in range(15):
                client.send(data)
                assert client.read_exactly(len(data)) == data
        (request,) = server.requests
        assert request.raw_head == ask(body)
        assert bytes(request.body) == (b'{"Tty":true}' if body else b"")
        running.handler.wait("on_connection_close")
        calls = [name for name in running.handler.names if name != "should_intercept_tls"]
        assert calls == ["on_connection_open", "on_request", "on_response", "on_stream_end", "on_connection_close"]
        assert running.handler.requests[0].headers["upgrade"] == "tcp"
        (response,) = running.handler.of("on_response")
        assert (response.status, response.streaming) == (101, True)
        running.wait_idle()
        assert running.metrics().upgrade_count == 1

    def test_the_client_may_end_first(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(switch_and_echo, "/attach")
        with proxy().tunnel(plain_origin.port) as client:
            client.send(ask() + b"all\n")
            client.end_writing()
            assert client.read_to_end() == SWITCH + b"ready\nall\nbye\n"

    def test_the_upstream_may_end_first(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        received: list[bytes] = []

        def end_first(connection: ScriptedConnection, request: Request) -> None:
            connection.send(SWITCH + b"that is all")
            connection.half_close()
            while data := connection.receive():
                received.append(data)
            connection.close()

        plain_origin.script(end_first, "/attach")
        with proxy().tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_to_end() == SWITCH + b"that is all"
            client.send(pattern(500_000))
            client.end_writing()
            plain_origin.wait_closed(1)
        assert b"".join(received) == pattern(500_000)

    def test_interim_responses_come_before(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """RFC 9110 section 7.8: to Expect and Upgrade together 100 is the first answer."""
        plain_origin.script(switch_and_echo, "/attach")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask("Expect: 100-continue\r\nContent-Length: 4\r\n"))
            assert client.read_answer().status == 100
            client.send(b"body")
            assert client.read_until(b"\r\n\r\n") == SWITCH
            client.send(b"x")
            assert client.read_exactly(7) == b"ready\nx"

    def test_other_names_and_several_of_them(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def switch(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            connection.send(connection.receive(2))

        plain_origin.script(switch, "/exec")
        head = b"GET /exec HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, upgrade\r\nUpgrade: other/1, ,spdy/3.1\r\n\r\n"
        with proxy().tunnel(plain_origin.port) as client:
            client.send(head + b"ok")
            assert client.read_head().status == 101
            assert client.read_exactly(2) == b"ok"
        assert plain_origin.requests[0].raw_head == head

    def test_absolute_form(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(switch_and_echo, "/attach")
        with proxy().client() as client:
            host = f"localhost:{plain_origin.port}"
            client.send(ask().replace(b" /attach", f" http://{host}/attach".encode()).replace(b"Host: localhost", f"Host: {host}".encode()))
            assert client.read_until(b"\r\n\r\n") == SWITCH
            client.send(b"x")
            assert client.read_exactly(7) == b"ready\nx"

    def test_what_looks_like_a_request_is_none_any_more(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(switch_and_echo, "/attach")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + GET)
            assert client.read_until(b"\r\n\r\n") == SWITCH
            client.send(GET)
            assert client.read_exactly(6 + 2 * len(GET)) == b"ready\n" + GET + GET
        assert len(running.handler.requests) == len(plain_origin.requests) == 1

    @pytest.mark.parametrize("end", ["close", "reset"])
    def test_a_client_that_vanishes(self, proxy: ProxyFactory, server: Origin, end: str) -> None:
        server.script(switch_and_echo, "/attach")
        running = proxy()
        client = connected(running, server)
        client.send(ask())
        assert client.read_until(b"ready\n").startswith(SWITCH)
        getattr(client, end)()
        server.wait_closed(1)
        running.handler.wait("on_connection_close")
        running.wait_idle()
        assert len(running.handler.of("on_stream_end")) == 1

    def test_an_upstream_that_vanishes(self, proxy: ProxyFactory, server: Origin) -> None:
        def vanish(connection: ScriptedConnection, request: Request) -> None:
            connection.send(SWITCH + b"half")
            connection.receive_exactly(1)
            connection.reset()

        server.script(vanish, "/attach")
        running = proxy()
        with connected(running, server) as client:
            client.send(ask())
            assert client.read_until(b"half").startswith(SWITCH)
            client.send(b"x")
            # what was cut does not look as if it had ended in order
            with pytest.raises(OSError):
                client.read_to_end()
        running.wait_idle()
        assert len(running.handler.of("on_stream_end")) == 1

    def test_silence_ends_it(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(switch_and_echo, "/attach")
        running = proxy(**{"timeouts.tunnel_idle_ms": 50})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_to_end() == SWITCH + b"ready\n"
        plain_origin.wait_closed(1)


class TestNotSwitched:
    def test_a_refusal_leaves_an_ordinary_connection(self, proxy: ProxyFactory, server: Origin) -> None:
        """What the client sent too early is its next request then."""
        running = proxy()
        with connected(running, server) as client:
            client.send(ask() + GET)
            assert client.read_answer().status == 200
            assert client.read_answer().body == pattern(3)
            assert client.request("/bytes/4", "localhost").body == pattern(4)
        assert [request.target for request in server.requests] == ["/attach", "/bytes/3", "/bytes/4"]
        assert [request.path for request in running.handler.requests] == ["/attach", "/bytes/3", "/bytes/4"]

    def test_what_comes_early_waits_for_the_answer(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Neither the origin nor the handler hears of it before."""
        answer = threading.Event()

        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(answer)
            connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        plain_origin.script(refuse, "/attach")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + GET)
            plain_origin.wait_heads(1)
            # a connection that came later is served before
            with running.tunnel(plain_origin.port) as other:
                assert other.request("/bytes/5", "localhost").body == pattern(5)
            assert [request.path for request in running.handler.requests] == ["/attach", "/bytes/5"]
            assert plain_origin.connections[0].received.endswith(b"\r\n\r\n") and GET not in plain_origin.connections[0].received
            answer.set()
            assert client.read_answer().status == 400
            assert client.read_answer().body == pattern(3)

    def test_a_block(self, proxy: ProxyFactory, server: Origin) -> None:
        def block(request: RawRequest) -> HandlerDecision:
            return HandlerDecision.block(403, "no\n") if "upgrade" in request.headers else HandlerDecision.ALLOW

        running = proxy(Recording(block))
        with connected(running, server) as client:
            client.send(ask() + GET)
            assert client.read_answer().status == 403
            assert client.read_answer().body == pattern(3)
        assert [request.target for request in server.requests] == ["/bytes/3"]

    def test_a_block_in_monitor_mode(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(switch_and_echo, "/attach")
        running = proxy(Recording(lambda request: HandlerDecision.block(403, "no\n")), intercept_mode="monitor")
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + b"x")
            assert client.read_until(b"x") == SWITCH + b"ready\nx"
        running.handler.wait("on_connection_close")
        assert running.handler.names[-4:] == ["on_request", "on_response", "on_stream_end", "on_connection_close"]
        running.wait_idle()
        assert running.metrics().ignored_block_count == 1

    @pytest.mark.parametrize(
        "fields",
        [
            "Upgrade: h2c",
            "Upgrade: H2C",
            "Upgrade: HTTP/2.0",
            "Upgrade: http",
            "Upgrade: TLS/1.0",
            "Upgrade: tls",
            "Upgrade: connect-udp",
            "Upgrade: connect-ip",
            "Upgrade: tcp, h2c",
            "Upgrade: h2c,tcp",
            "Upgrade: tcp\r\nUpgrade: TLS/1.2",
            "Upgrade: ",
            "Upgrade: , ,",
            "Upgrade: t cp",
            "Upgrade: tcp/1/2",
            "Upgrade: tcp/",
            "Upgrade: /1",
            "Upgrade: tcp;q=1",
        ],
    )
    def test_protocols_that_would_go_past_the_policy(self, proxy: ProxyFactory, plain_origin: Origin, fields: str) -> None:
        with proxy().tunnel(plain_origin.port) as client:
            asked = f"Connection: Upgrade, HTTP2-Settings\r\n{fields}\r\nHTTP2-Settings: AAMA\r\n"
            client.send(f"GET /x HTTP/1.1\r\nHost: localhost\r\n{asked}\r\n".encode())
            assert client.read_answer().status == 200
            assert client.request("/bytes/4", "localhost").body == pattern(4)
        assert plain_origin.requests[0].raw_head == b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def test_settings_that_connection_does_not_name_stop_too(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        with proxy().tunnel(plain_origin.port) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nhttp2-settings: AAMA\r\n\r\n")
            assert client.read_answer().status == 200
        assert plain_origin.requests[0].raw_head == b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"

    @pytest.mark.parametrize("line", ["GET /x HTTP/1.1\r\nUpgrade: tcp", "GET /x HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: tcp"])
    def test_half_an_upgrade_is_none(self, proxy: ProxyFactory, plain_origin: Origin, line: str) -> None:
        with proxy().tunnel(plain_origin.port) as client:
            client.send(f"{line}\r\nHost: localhost\r\n\r\n".encode())
            assert client.read_answer().status == 200
        assert plain_origin.requests[0].get("upgrade") is None

    @pytest.mark.parametrize(
        ("fields", "answer"),
        [
            ("", "Connection: Upgrade\r\nUpgrade: tcp\r\n"),
            ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            ("Connection: Upgrade\r\nUpgrade: tcp\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            ("Connection: Upgrade\r\nUpgrade: tcp\r\n", "Connection: Upgrade\r\nUpgrade: tcp, websocket\r\n"),
            ("Connection: Upgrade\r\nUpgrade: tcp\r\n", "Connection: Upgrade\r\nUpgrade: tcp2\r\n"),
            ("Connection: Upgrade\r\nUpgrade: tcp\r\n", "Connection: Upgrade\r\n"),
            ("Connection: Upgrade\r\nUpgrade: tcp\r\n", ""),
        ],
    )
    def test_a_switch_that_was_not_asked_for(self, proxy: ProxyFactory, server: Origin, fields: str, answer: str) -> None:
        def switch(connection: ScriptedConnection, request: Request) -> None:
            connection.send(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n".encode())
            assert connection.receive() == b""

        server.script(switch, "/x")
        running = proxy()
        with connected(running, server) as client:
            client.send(f"GET /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() + GET)
            refusal = client.read_answer()
            assert refusal.status == 502 and "protocol" in refusal.text
            assert client.read_answer().body == pattern(3)
        running.wait_idle()
        assert running.metrics().upgrade_count == 0

    def test_a_switch_in_the_middle_of_the_upload(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """The client cannot change protocols inside a message (RFC 9110 section 7.8)."""

        def switch(connection: ScriptedConnection, request: Request) -> None:
            connection.send(SWITCH)
            while connection.receive():
                pass

        plain_origin.script(switch, "/attach")
        with proxy().tunnel(plain_origin.port) as client:
            client.send(ask("Content-Length: 5\r\n") + b"abc")
            refusal = client.read_answer()
            assert (refusal.status, refusal.get("connection")) == (502, "close")
            assert client.read_to_end() == b""
