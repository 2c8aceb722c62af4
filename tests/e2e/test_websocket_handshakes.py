"""The opening handshake of WebSocket (RFC 6455 section 4), judged on both sides before a byte of the WebSocket is relayed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.http2_inside import http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory
from support.websocket import DEFLATE, KEY, Unread, accept, ask, echo

OTHERS = "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n"
MIXED = "Sec-WebSocket-Extensions: bbf-usp-protocol, permessage-deflate; client_max_window_bits, other; x=1\r\n"


def accepting(more: str) -> Callable[[ScriptedConnection, Request], None]:
    """Return a script that accepts with these fields."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(accept(request, more))
        while connection.receive():
            pass
        connection.close()

    return script


def switching(answer: str) -> Callable[[ScriptedConnection, Request], None]:
    """Return a script that sends such a 101 and is told nothing more."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n\x81\x02hi".encode())
        assert connection.receive() == b""

    return script


class TestRequests:
    def test_a_good_one(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(echo, "/chat")
        running = proxy(Unread())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask("Sec-WebSocket-Protocol: a, b\r\nOrigin: https://else.example\r\n") + b"early")
            assert client.read_head().status == 101
            assert client.read_exactly(5) == b"early"
        assert plain_origin.requests[0].raw_head == ask("Sec-WebSocket-Protocol: a, b\r\nOrigin: https://else.example\r\n")
        metrics = running.metrics()
        assert (metrics.upgrade_count, metrics.websocket_upgrade_count, metrics.websocket_bad_handshake_count) == (1, 1, 0)

    @pytest.mark.parametrize(
        "request_",
        [
            ask(version="8"),
            ask("Sec-WebSocket-Version: 13\r\n"),
            ask(key="c2hvcnQ="),
            ask(f"Sec-WebSocket-Key: {KEY}\r\n"),
            ask(method="POST", more="Content-Length: 0\r\n"),
            ask("Content-Length: 2\r\n") + b"{}",
            ask("Transfer-Encoding: chunked\r\n") + b"2\r\n{}\r\n0\r\n\r\n",
            ask(version="13, 8"),
        ],
        ids=["version", "two versions", "a short key", "two keys", "POST", "content", "chunks", "a list of versions"],
    )
    def test_one_that_opens_none_goes_on_without_its_upgrade(self, proxy: ProxyFactory, plain_origin: Origin, request_: bytes) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(request_)
            assert client.read_answer().status == 200
            # what follows is a request, and not the first frame
            assert client.request("/bytes/4", "localhost").body == pattern(4)
        sent = plain_origin.requests[0]
        assert (sent.path, sent.get("upgrade"), sent.get("connection")) == ("/chat", None, None)
        assert [request.path for request in running.handler.requests] == ["/chat", "/bytes/4"]
        metrics = running.metrics()
        assert (metrics.websocket_bad_handshake_count, metrics.upgrade_count) == (1, 0)

    def test_on_a_stream_of_http2(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        connection, client = http2_client(running, origin.port)
        with connection:
            while not client.h2.remote_settings.enable_connect_protocol:
                client.read()
            number = client.open("/chat", method="CONNECT", fields=((":protocol", "websocket"), ("sec-websocket-version", "8")), end=False)
            answer = client.answer(number)
            assert answer.status == 400
            assert b"Sec-WebSocket-Version" in answer.body
        assert running.metrics().websocket_bad_handshake_count == 1


class TestAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n",
            "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n" + 2 * "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            "Connection: Upgrade\r\nUpgrade: tcp\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        ],
        ids=["no accept", "a wrong one", "no Connection", "two accepts", "another protocol"],
    )
    def test_one_that_opens_none_is_answered_502(self, proxy: ProxyFactory, plain_origin: Origin, answer: str) -> None:
        plain_origin.script(switching(answer), "/chat")
        running = proxy(Unread())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            answered = client.read_answer()
            assert answered.status == 502
            assert b"\x81\x02hi" not in answered.body
        plain_origin.wait_closed(1)
        assert running.metrics().websocket_upgrade_count == 0
        assert running.metrics().websocket_bad_handshake_count == ("tcp" not in answer)

    @pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "426 Upgrade Required", "503 Service Unavailable"])
    def test_any_other_status_is_relayed_and_the_connection_goes_on(self, proxy: ProxyFactory, plain_origin: Origin, status: str) -> None:
        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(f"HTTP/1.1 {status}\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno".encode())

        plain_origin.script(refuse, "/chat")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            answer = client.read_answer()
            assert (answer.status, answer.get("sec-websocket-version"), answer.body) == (int(status[:3]), "13", b"no")
            assert client.request("/bytes/4", "localhost").body == pattern(4)
        assert running.metrics().websocket_bad_handshake_count == 0


class TestExtensions:
    @pytest.mark.parametrize(
        ("offered", "sent"),
        [
            (DEFLATE, DEFLATE),
            (OTHERS, ""),
            (MIXED, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
            ("Sec-WebSocket-Extensions: x;;\r\n", ""),
        ],
        ids=["deflate", "another", "both", "malformed"],
    )
    def test_where_messages_are_read_only_deflate_is_offered(
        self, proxy: ProxyFactory, plain_origin: Origin, offered: str, sent: str
    ) -> None:
        plain_origin.script(echo, "/chat")
        running = proxy(Recording())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(offered))
            assert client.read_head().status == 101
        assert plain_origin.requests[0].raw_head == ask(sent)
        assert running.metrics().websocket_removed_offer_count == {DEFLATE: 0, MIXED: 2}.get(offered, 1)

    def test_where_they_are_not_read_everything_is(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(accepting(OTHERS), "/chat")
        with proxy(Unread()).tunnel(plain_origin.port) as client:
            client.send(ask(MIXED))
            assert client.read_head().get("sec-websocket-extensions") == "x-webkit-deflate-frame"
        assert plain_origin.requests[0].raw_head == ask(MIXED)

    @pytest.mark.parametrize(
        "agreed",
        [OTHERS, 2 * DEFLATE, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=7\r\n"],
        ids=["another", "twice", "a window of 7 bits"],
    )
    def test_an_agreement_that_cannot_be_read_is_answered_502(self, proxy: ProxyFactory, plain_origin: Origin, agreed: str) -> None:
        plain_origin.script(accepting(agreed), "/chat")
        running = proxy(Recording())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(MIXED))
            assert client.read_answer().status == 502
        plain_origin.wait_closed(1)
        assert running.metrics().websocket_bad_handshake_count == 1
