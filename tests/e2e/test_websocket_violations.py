"""What becomes of a WebSocket whose messages are read when a peer breaks RFC 6455 section 5."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from support.certs import TestCA
from support.http2_inside import http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.running import HOST, ProxyFactory
from support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    FIN,
    MASK,
    PING,
    RSV1,
    TEXT,
    Slow,
    Unread,
    accept,
    ask,
    closing,
    compressed,
    frame,
    unmasked,
)

GOOD = frame(FIN | TEXT, b"good", MASK)
BY_CLIENT = {
    "unmasked": (frame(FIN | TEXT, b"bad"), 1002, b"client: unmasked frame"),
    "compressed": (frame(FIN | RSV1 | TEXT, b"bad", MASK), 1002, b"client: compressed bit not allowed here"),
    "no start": (frame(FIN | CONTINUATION, b"bad", MASK), 1002, b"client: continuation of no message"),
    "a fragment of a ping": (frame(PING, b"bad", MASK), 1002, b"client: fragmented control frame"),
    "a length": (b"\x81\xff" + (1 << 63).to_bytes(8, "big") + MASK, 1002, b"client: length over 63 bits"),
    "a code": (frame(FIN | CLOSE, b"\x03\xed", MASK), 1002, b"client: close code that must not be sent"),
    "no UTF-8": (frame(FIN | TEXT, b"bad \xff and more", MASK), 1007, b"client: text is not UTF-8"),
}

# these are found in a payload, of which some may have passed before; the others in a head, which passes whole
IN_PAYLOAD = ("a code", "no UTF-8")


def hearing(*said: bytes) -> tuple[Callable[[ScriptedConnection, Request], None], list[bytes], threading.Event]:
    """Return a script that accepts, says this, and ends when its client has; what it has heard by then; and whether it has ended."""
    heard: list[bytes] = []
    ended = threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(accept(request) + b"".join(said))
        with contextlib.suppress(OSError):
            while data := connection.receive():
                heard.append(data)
        ended.set()
        connection.close()

    return script, heard, ended


class TestClosed:
    @pytest.mark.parametrize(
        ("name", "cut"),
        [*((name, 0) for name in BY_CLIENT), *((name, 1) for name in BY_CLIENT if name not in IN_PAYLOAD)],
    )
    def test_by_the_client(self, proxy: ProxyFactory, plain_origin: Origin, name: str, cut: int) -> None:
        bad, code, reason = BY_CLIENT[name]
        script, heard, ended = hearing()
        plain_origin.script(script, "/chat")
        running = proxy()
        sent = GOOD + bad + GOOD
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            with contextlib.suppress(OSError):
                for at in range(0, len(sent), cut or len(sent)):
                    client.send(sent[at : at + (cut or len(sent))])
            # the innocent one is told as well; what the client sends on is read and goes nowhere
            assert client.read_to_end() == closing(code, reason)
        assert ended.wait(10)
        running.wait_idle()
        data = b"".join(heard)
        assert data.startswith(GOOD)
        assert unmasked(data[len(GOOD) :]) == (FIN | CLOSE, code.to_bytes(2, "big") + reason)
        assert [chunk.payload for chunk in running.handler.of("on_stream_chunk")] == [b"good"]
        assert running.metrics().websocket_violation_count == 1
        assert len(running.handler.of("on_stream_end")) == 1

    @pytest.mark.parametrize("cut", [6, 9, 10, 18, 19])
    @pytest.mark.parametrize("name", ["no UTF-8", "text that is cut", "a code", "a reason"])
    def test_within_a_frame(self, proxy: ProxyFactory, plain_origin: Origin, name: str, cut: int) -> None:
        """Its beginning has passed when the octets come that are wrong: none of these does, so the frame does not arrive whole.

        No frame can follow there, so its receiver is told the end alone.
        """
        bad, code, reason = {
            "no UTF-8": (frame(FIN | TEXT, b"and so on and \xff", MASK), 1007, b"client: text is not UTF-8"),
            "text that is cut": (frame(FIN | TEXT, b"and so on an \xf0\x9f\x98", MASK), 1007, b"client: text is not UTF-8"),
            "a reason": (frame(FIN | CLOSE, b"\x03\xe8and so on an\xff", MASK), 1007, b"client: close reason is not UTF-8"),
            "a code": (frame(FIN | CLOSE, b"\x03\xedand so on and", MASK), 1002, b"client: close code that must not be sent"),
        }[name]
        begun, ended, heard = threading.Event(), threading.Event(), []

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            heard.append(connection.receive_exactly(cut))
            begun.set()
            while data := connection.receive():
                heard.append(data)
            ended.set()
            connection.close()

        plain_origin.script(script, "/chat")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + bad[:cut])
            assert client.read_head().status == 101
            assert begun.wait(10)
            client.send(bad[cut:])
            assert client.read_to_end() == closing(code, reason)
        assert ended.wait(10)
        running.wait_idle()
        assert b"".join(heard) == bad[:cut]
        assert running.handler.of("on_stream_chunk") == []

    def test_text_whose_fault_is_found_in_a_later_turn(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """All of the frame is here before it is judged, since one turn of the loop inflates so much and no more."""
        heard: list[bytes] = []
        ended = threading.Event()

        def agree(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request, DEFLATE))
            with contextlib.suppress(OSError):
                while data := connection.receive():
                    heard.append(data)
            ended.set()
            connection.close()

        plain_origin.script(agree, "/chat")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE))
            assert client.read_head().status == 101
            client.send(GOOD + frame(FIN | RSV1 | TEXT, compressed(bytes(3 << 20) + b"\xff"), MASK) + GOOD)
            assert client.read_to_end() == closing(1007, b"client: text is not UTF-8")
        assert ended.wait(10)
        running.wait_idle()
        data = b"".join(heard)
        assert data[: len(GOOD)] == GOOD
        assert unmasked(data[len(GOOD) :])[0] == FIN | CLOSE

    def test_what_is_behind_a_close_is_dropped(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, heard, ended = hearing()
        plain_origin.script(script, "/chat")
        running = proxy()
        last = frame(FIN | CLOSE, b"\x03\xe8", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            client.send(GOOD + last + GOOD + b"\xff\xff")
            client.send(GOOD)
            client.end_writing()
            assert client.read_to_end() == b""
        assert ended.wait(10)
        running.wait_idle()
        assert b"".join(heard) == GOOD + last
        assert running.metrics().websocket_violation_count == 1

    @pytest.mark.parametrize("how", ["silence", "drain"])
    def test_what_waits_for_a_slow_handler_is_read_before_it_passes(self, proxy: ProxyFactory, plain_origin: Origin, how: str) -> None:
        """More than one turn of the loop shows, and the handler has no room for a second one when the WebSocket is ended."""
        script, heard, ended = hearing()
        plain_origin.script(script, "/chat")
        keys = {"flow_runtime.dispatch_queue_capacity": 4, "flow_runtime.dispatch_queue_send_timeout_ms": 60_000}
        running = proxy(Slow(), **keys, **({"timeouts.tunnel_idle_ms": 300} if how == "silence" else {}))
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            client.send(GOOD * 200 + frame(FIN | TEXT, b"bad") + GOOD)
            running.handler.wait("on_stream_chunk", 1)
            stopping = threading.Thread(target=lambda: running.handle.shutdown(30))
            if how == "drain":
                stopping.start()
            assert client.read_to_end() == closing(1002, b"client: unmasked frame")
            running.handler.go.set()
        assert ended.wait(10)
        if how == "drain":
            stopping.join(20)
        else:
            running.wait_idle()
        data = b"".join(heard)
        assert data[: len(GOOD) * 200] == GOOD * 200
        assert unmasked(data[len(GOOD) * 200 :])[0] == FIN | CLOSE

    def test_by_the_upstream(self, proxy: ProxyFactory, origin: Origin) -> None:
        script, heard, ended = hearing(frame(FIN | TEXT, b"good"), frame(BINARY, b"part"), frame(FIN | TEXT, b"bad"))
        origin.script(script, "/chat")
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            reason = b"upstream: message inside a fragmented message"
            assert client.read_to_end() == frame(FIN | TEXT, b"good") + frame(BINARY, b"part") + closing(1002, reason)
        assert ended.wait(10)
        running.wait_idle()
        assert unmasked(b"".join(heard)) == (FIN | CLOSE, (1002).to_bytes(2, "big") + reason)

    def test_on_a_stream_of_http2(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        script, heard, ended = hearing()
        running = proxy()
        with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=("http/1.1",)), host=HOST) as origin:
            origin.script(script, "/chat")
            connection, client = http2_client(running, origin.port)
            with connection:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"))
                number = client.open("/chat", method="CONNECT", fields=fields, end=False)
                assert client.head(number).status == 200
                client.send(number, GOOD + frame(FIN | TEXT, b"bad"))
                answer = client.answer(number)
                assert (answer.body, answer.ended) == (closing(1002, b"client: unmasked frame"), True)
            assert ended.wait(10)
        running.wait_idle()
        assert unmasked(b"".join(heard)[len(GOOD) :])[0] == FIN | CLOSE

    def test_peers_that_do_not_end_are_left(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        released = threading.Event()

        def stay(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            connection.wait(released)

        plain_origin.script(stay, "/chat")
        running = proxy(**{"websocket.close_timeout_ms": 50})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"bad"))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1002, b"client: unmasked frame")
            running.handler.wait("on_stream_end")
            released.set()
        running.wait_idle()


class TestRelayed:
    def test_where_the_configuration_says_so(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, heard, ended = hearing(frame(FIN | TEXT, b"fine"))
        plain_origin.script(script, "/chat")
        running = proxy(**{"websocket.on_violation": "relay"})
        sent = GOOD + frame(FIN | TEXT, b"bad") + GOOD
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + sent)
            assert client.read_head().status == 101
            assert client.read_exactly(6) == frame(FIN | TEXT, b"fine")
            client.end_writing()
            assert client.read_to_end() == b""
        assert ended.wait(10)
        running.wait_idle()
        assert b"".join(heard) == sent
        assert sorted(chunk.payload for chunk in running.handler.of("on_stream_chunk")) == [b"fine", b"good"]
        assert running.metrics().websocket_violation_count == 1

    def test_where_nothing_is_read(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, heard, ended = hearing()
        plain_origin.script(script, "/chat")
        running = proxy(Unread())
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"bad"))
            assert client.read_head().status == 101
            client.end_writing()
            assert client.read_to_end() == b""
        assert ended.wait(10)
        assert b"".join(heard) == frame(FIN | TEXT, b"bad")
        assert running.metrics().websocket_violation_count == 0
