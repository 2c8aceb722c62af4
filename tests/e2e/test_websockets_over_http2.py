"""WebSocket on a stream of HTTP/2 (RFC 8441): an upgrade or an extended CONNECT upstream, after the same decision as any request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import h2.settings
import pytest

from soth_mitm import HandlerDecision, RawRequest
from support.certs import TestCA
from support.http2_inside import Http2Client, http2_client
from support.leaks import what_remains
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.websocket import Unread

Script = Callable[[ScriptedConnection, Request], None]

NO_ERROR, CANCEL = 0, 8
EXTENDED = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
ASK = (("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"))


@pytest.fixture
def proxy(proxy: ProxyFactory) -> ProxyFactory:
    """Proxies that relay what is no WebSocket inside: their handlers do not read it."""
    return lambda handler=None, **keys: proxy(Unread() if handler is None else handler, **keys)


def accept(request: Request, *, wrong: bool = False) -> bytes:
    """Return the head that accepts the WebSocket, in the version of HTTP that it was asked for in."""
    if request.version == "HTTP/2":
        assert request.get("sec-websocket-key") is None
        return b"HTTP/1.1 200 OK\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    key = (request.get("sec-websocket-key") or "").encode()
    assert len(base64.b64decode(key)) == 16
    digest = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n"
        b"Sec-WebSocket-Accept: " + (b"x" if wrong else b"") + digest + b"\r\n\r\n"
    )


def echo(connection: ScriptedConnection, request: Request) -> None:
    """Speak first, send back what comes, and when the client has ended, a last word."""
    connection.send(accept(request) + b"ready\n")
    while data := connection.receive():
        connection.send(data)
    if can_half_close(connection):
        connection.send(b"bye\n")
    connection.close()


async def parts() -> AsyncIterator[bytes]:
    """A body that is sent as it comes."""
    yield b"the first part"


def hold(connection: ScriptedConnection, request: Request) -> None:
    """Say nothing."""
    connection.send(accept(request) + b"ready\n")
    with contextlib.suppress(OSError):
        while connection.receive():
            pass


def can_half_close(connection: ScriptedConnection) -> bool:
    """Whether the origin can speak on behind the other side's end: in TLS, asyncio cannot."""
    return getattr(connection.connection, "tls", None) is None


@contextlib.contextmanager
def serving(origin_ca: TestCA, *alpn: str, script: Script, settings: dict[int, int] | None = None) -> Iterator[Origin]:
    """An origin that serves `script` at /chat."""
    with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn), host=HOST) as origin:
        origin.settings = settings or {}
        origin.script(script, "/chat")
        yield origin


KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "http1": (("http/1.1",), {}),
    "http2": (("h2", "http/1.1"), {"settings": {EXTENDED: 1}}),
    "http2 without it": (("h2", "http/1.1"), {}),
}


@pytest.fixture(params=KINDS)
def upstream(request: pytest.FixtureRequest, origin_ca: TestCA) -> Callable[[Script], contextlib.AbstractContextManager[Origin]]:
    """An upstream of each kind, by its script."""
    alpn, how = KINDS[request.param]
    return lambda script: serving(origin_ca, *alpn, script=script, **how)


def ask(client: Http2Client, *, protocol: str = "websocket", more: tuple[tuple[str, str], ...] = (), end: bool = False) -> int:
    """Ask for a WebSocket, once the proxy has said that it knows them; return the stream."""
    while not client.h2.remote_settings.enable_connect_protocol:
        client.read()
    return client.open("/chat?x", method="CONNECT", fields=((":protocol", protocol), *ASK, *more), end=end)


def read_until(client: Http2Client, number: int, length: int) -> bytes:
    """Return what came of a WebSocket when it is that long or over."""
    stream = client.streams[number]
    while len(stream.body) < length and not stream.over:
        client.read()
    return stream.body


class TestChanged:
    """What `forward` changes of the request that opens a WebSocket, for each kind of upstream."""

    def test_head_and_path(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        decision = HandlerDecision.forward(
            set={"X-Gate": "1", "sec-websocket-protocol": "chat, other"},
            add={"X-More": ["a", "b"]},
            remove=["cookie"],
            path="/chat?changed",
        )

        class Changes(Unread):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                assert request.changed(decision).path == "/chat?changed"
                return decision

        running = proxy(Changes())
        with upstream(echo) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client, more=(("cookie", "a=b"), ("x-kept", "1"), ("x-gate", "guessed")))
                assert client.head(number).status == 200
                client.send(number, b"bytes")
                assert read_until(client, number, 11) == b"ready\nbytes"
                client.send(number, b"", end=True)
                client.answer(number)
            request = next(request for request in origin.requests if request.path.startswith("/chat"))
            values = [(name.lower(), value) for name, value in request.headers]
            assert request.target == "/chat?changed"
            for name, expected in {
                "x-gate": ["1"],
                "x-more": ["a", "b"],
                "cookie": [],
                "x-kept": ["1"],
                "sec-websocket-protocol": ["chat, other"],
                "sec-websocket-version": ["13"],
            }.items():
                assert [value for each, value in values if each == name] == expected, name
        running.wait_idle()
        assert running.metrics().changed_request_count == 1

    @pytest.mark.parametrize(
        "decision", [HandlerDecision.forward(method="GET"), HandlerDecision.forward(body=b"x")], ids=["method", "body"]
    )
    def test_what_cannot_be_changed(self, proxy: ProxyFactory, upstream: Callable[..., Any], decision: HandlerDecision) -> None:
        running = proxy(Recording(lambda _: decision))
        with upstream(echo) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                assert client.head(ask(client)).status == 502
            assert not [request for request in origin.requests if request.path.startswith("/chat")]


class TestOpen:
    @pytest.mark.rule(58)
    def test_both_ways_and_a_fin_each(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        running = proxy()
        with upstream(echo) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                client.send(number, b"early ")
                assert client.head(number).status == 200
                assert client.streams[number].get("sec-websocket-protocol") == "chat"
                for name in ("sec-websocket-accept", "upgrade", "connection"):
                    assert client.streams[number].get(name) is None
                assert read_until(client, number, 12) == b"ready\nearly "
                # another stream goes on meanwhile
                assert client.request("/bytes/70000").body == pattern(70_000)
                client.send(number, b"later\n")
                assert read_until(client, number, 18) == b"ready\nearly later\n"
                client.send(number, b"", end=True)
                answer = client.answer(number)
                assert (answer.body.removesuffix(b"bye\n"), answer.ended, answer.reset) == (b"ready\nearly later\n", True, None)
                assert answer.body.endswith(b"bye\n") == (origin.requests[-1].version == "HTTP/2" and origin.settings != {})
            request = next(request for request in origin.requests if request.path.startswith("/chat"))
            assert request.get("sec-websocket-version") == "13"
        running.handler.wait("on_connection_close")
        seen = running.handler.requests[0]
        assert (seen.method, seen.path, seen.http_version) == ("GET", "/chat?x", "HTTP/2")
        assert seen.headers["upgrade"] == "websocket"
        response = next(response for response in running.handler.of("on_response") if response.request.path == "/chat?x")
        assert (response.status, response.streaming) == (101, True)
        assert "on_stream_end" in running.handler.names
        running.wait_idle()

    def test_what_answers_a_last_message_arrives(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        """Browsers end their stream with their Close. A server of HTTP/1 that hears of the end at once may drop its own Close."""
        running = proxy()
        with upstream(echo) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                assert read_until(client, number, 6) == b"ready\n"
                client.send(number, b"close\n", end=True)
                answer = client.answer(number)
                assert (answer.body.removesuffix(b"bye\n"), answer.ended, answer.reset) == (b"ready\nclose\n", True, None)
        running.wait_idle()
        assert running.metrics().upgrade_count == 1

    def test_much_both_ways_while_nothing_is_read(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        data = pattern(3_000_000)

        def flood(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            sender = threading.Thread(target=connection.send, args=(data,))
            sender.start()
            got = b""
            while len(got) < len(data):
                got += connection.receive()
            assert got == data
            sender.join()
            connection.send(b"all")
            connection.close()

        running = proxy()
        with upstream(flood) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                assert client.head(number).status == 200
                client.send(number, data)
                assert client.request("/bytes/9").status == 200
                assert read_until(client, number, len(data) + 3) == data + b"all"
                # or its script would find the stream reset
                assert client.answer(number).ended

    def test_an_end_with_the_request(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        with upstream(echo) as origin:
            connection, client = http2_client(proxy(), origin.port)
            with connection:
                answer = client.answer(ask(client, end=True))
                assert (answer.body.removesuffix(b"bye\n"), answer.ended) == (b"ready\n", True)

    def test_an_upstream_in_clear_text_that_speaks_on(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(echo, "/chat")
        running = proxy(**{"upstream.connect_to": [f"{HOST}:*=http://127.0.0.1:{plain_origin.port}"]})
        connection, client = http2_client(running, plain_origin.port)
        with connection:
            number = ask(client)
            client.send(number, b"all\n", end=True)
            answer = client.answer(number)
            assert (answer.body, answer.ended, answer.reset) == (b"ready\nall\nbye\n", True, None)


class TestEnds:
    def test_the_client_resets(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        ended = threading.Event()

        def wait_for_the_end(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            with contextlib.suppress(OSError):
                while connection.receive():
                    pass
            ended.set()

        running = proxy()
        with upstream(wait_for_the_end) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                assert client.head(number).status == 200
                client.h2.reset_stream(number, CANCEL)
                client.flush()
                assert ended.wait(10)
                assert client.request("/bytes/9").body == pattern(9)
        running.wait_idle()

    def test_the_upstream_resets(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        def cut(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            connection.receive()
            connection.reset()

        with upstream(cut) as origin:
            connection, client = http2_client(proxy(), origin.port)
            with connection:
                number = ask(client)
                assert client.head(number).status == 200
                client.send(number, b"x")
                assert client.answer(number).reset == CANCEL
                assert client.request("/bytes/9").body == pattern(9)

    @pytest.mark.parametrize("length", [60_000, 90_000], ids=["all is relayed", "the client's window is full"])
    def test_the_upstream_resets_behind_its_end(self, proxy: ProxyFactory, origin_ca: TestCA, length: int) -> None:
        """What it said is whole. A RST_STREAM with another code would let clients drop it."""
        data = pattern(length)

        def end_and_reset(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            connection.receive()
            connection.send(data)
            connection.close()
            connection.reset()

        running = proxy()
        with serving(origin_ca, "h2", script=end_and_reset, settings={EXTENDED: 1}) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                assert client.head(number).status == 200
                client.send(number, b"x")
                assert not what_remains(
                    lambda: {} if running.metrics().http2_resets_received_by_code["INTERNAL_ERROR"] else {"a reset": "has not come"}
                )
                answer = client.answer(number)
                assert (answer.body, answer.ended) == (data, True)
                while answer.reset is None:
                    client.read()
                assert answer.reset == NO_ERROR
                assert client.request("/bytes/9").body == pattern(9)
        running.wait_idle()

    def test_the_client_resets_an_upstream_in_clear_text(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Where TLS does not tell an end from a loss, a RST does."""
        ends: list[bytes | OSError] = []

        def wait_for_the_end(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            try:
                ends.append(connection.receive())
            except OSError as error:
                ends.append(error)

        plain_origin.script(wait_for_the_end, "/chat")
        running = proxy(**{"upstream.connect_to": [f"{HOST}:*=http://127.0.0.1:{plain_origin.port}"]})
        connection, client = http2_client(running, plain_origin.port)
        with connection:
            number = ask(client)
            assert client.head(number).status == 200
            client.h2.reset_stream(number, CANCEL)
            client.flush()
            plain_origin.wait_closed(1)
        assert [type(end) for end in ends] == [ConnectionResetError]

    def test_silence(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        running = proxy(**{"timeouts.tunnel_idle_ms": 300})
        with upstream(hold) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                assert client.answer(ask(client)).reset == CANCEL

    def test_the_upstream_closes_behind_much_that_is_not_read_yet(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        data, sent = pattern(400_000), threading.Event()

        def say_all(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            connection.receive()
            connection.send(data)
            connection.close()
            sent.set()

        running = proxy()
        with upstream(say_all) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                assert client.head(number).status == 200
                client.send(number, b"x")
                # without a window of HTTP/2 before it, the upstream is gone before the client reads
                assert origin.settings or sent.wait(10)
                answer = client.answer(number)
                assert (len(answer.body), answer.ended, answer.reset) == (len(data), True, None)
                assert client.request("/bytes/9").body == pattern(9)
        running.wait_idle()

    def test_a_drain(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        running = proxy()
        with upstream(hold) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                number = ask(client)
                read_until(client, number, 6)
                stopping = threading.Thread(target=lambda: running.handle.shutdown(10))
                stopping.start()
                client.read_to_end()
                assert client.streams[number].over
            stopping.join(20)

    def test_the_client_ends_and_reads_slowly(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """An upstream of HTTP/1 that is not read is not silent. The end of its client would let it drop what it still has to say."""
        data, fin = pattern(400_000), threading.Event()

        def say_all(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request) + data)
            assert connection.receive() == b"close\n"
            assert connection.receive() == b""
            fin.set()
            connection.close()

        plain_origin.script(say_all, "/chat")
        running = proxy(**{"upstream.connect_to": [f"{HOST}:*=http://127.0.0.1:{plain_origin.port}"]})
        connection, client = http2_client(running, plain_origin.port)
        with connection:
            number = ask(client)
            client.send(number, b"close\n", end=True)
            assert not fin.wait(2)
            answer = client.answer(number)
            assert (answer.body, answer.ended) == (data, True)
            assert fin.wait(10)


class TestRefused:
    def test_by_the_handler_and_nothing_is_dialled(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        class Blocking(Recording):
            async def on_request(self, request: RawRequest) -> HandlerDecision:
                return HandlerDecision.block(403) if request.path.startswith("/chat") else HandlerDecision.ALLOW

        with upstream(echo) as origin:
            connection, client = http2_client(proxy(Blocking()), origin.port)
            with connection:
                number = ask(client)
                client.send(number, b"early")
                assert client.answer(number).status == 403
                assert client.request("/bytes/9").body == pattern(9)
            assert [request.path for request in origin.requests] == ["/bytes/9"]

    @pytest.mark.parametrize(
        "decide",
        [lambda: HandlerDecision.block(200), lambda: HandlerDecision.respond(204), lambda: HandlerDecision.respond(299, parts())],
        ids=["block", "respond", "respond in parts"],
    )
    def test_by_the_handler_with_a_status_that_would_open_it(
        self, proxy: ProxyFactory, upstream: Callable[..., Any], decide: Callable[[], HandlerDecision]
    ) -> None:
        """To a client of HTTP/1 every status but 101 is a refusal. To one of HTTP/2 each 2xx is the WebSocket."""
        with upstream(echo) as origin:
            running = proxy(Recording(lambda request: decide()))
            connection, client = http2_client(running, origin.port)
            with connection:
                answer = client.answer(ask(client))
                assert answer.status == 502
                assert answer.text == (
                    f"the answer to the request for a WebSocket was {decide().status}, with which a WebSocket over HTTP/2 begins\n"
                )
            assert origin.requests == []
        running.wait_idle()

    @pytest.mark.parametrize("status", [403, 426])
    def test_by_the_upstream(self, proxy: ProxyFactory, upstream: Callable[..., Any], status: int) -> None:

        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status)

        with upstream(refuse) as origin:
            connection, client = http2_client(proxy(), origin.port)
            with connection:
                number = ask(client)
                client.send(number, b"early")
                answer = client.answer(number)
                assert (answer.status, answer.body) == (status, b"no")
                assert client.request("/bytes/9").body == pattern(9)

    @pytest.mark.rule(58)
    @pytest.mark.parametrize("how", ["wrong", "no 101"])
    def test_a_bridge_that_the_upstream_does_not_build(self, proxy: ProxyFactory, origin_ca: TestCA, how: str) -> None:
        """The one is no WebSocket, the other is no 101: a 2xx would begin the WebSocket for this client."""

        def accept_badly(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request, wrong=True) if how == "wrong" else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")

        with serving(origin_ca, "http/1.1", script=accept_badly) as origin:
            connection, client = http2_client(proxy(), origin.port)
            with connection:
                number = ask(client)
                client.send(number, b"early")
                assert client.answer(number).status == 502
                assert client.request("/bytes/9").body == pattern(9)

    @pytest.mark.parametrize(
        ("protocol", "more", "status"),
        [("connect-udp", (), 501), ("websocket", (("content-length", "5"),), 400)],
        ids=["another protocol", "content"],
    )
    def test_by_the_proxy(
        self, proxy: ProxyFactory, upstream: Callable[..., Any], protocol: str, more: tuple[tuple[str, str], ...], status: int
    ) -> None:
        with upstream(echo) as origin:
            connection, client = http2_client(proxy(), origin.port)
            with connection:
                assert client.answer(ask(client, protocol=protocol, more=more)).status == status
            assert origin.requests == []

    def test_a_name_that_is_not_the_connections(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        with upstream(echo) as origin:
            connection, client = http2_client(proxy(), origin.port)
            with connection:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                number = client.open("/chat", method="CONNECT", fields=((":protocol", "websocket"), *ASK), authority="b.example", end=False)
                assert client.answer(number).status == 421
            assert origin.requests == []

    def test_a_conversation_where_none_may_be(self, proxy: ProxyFactory, upstream: Callable[..., Any]) -> None:
        running: Running = proxy(**{"body.incomplete": "refuse"})
        with upstream(echo) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                assert client.answer(ask(client)).status == 415
            assert origin.requests == []
