"""Messages that the handler sends on a WebSocket, and flows that it closes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from h2.settings import SettingCodes

from soth_mitm import HandlerDecision, RawRequest, StreamChunk
from support.certs import TestCA
from support.http2_inside import http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.websocket import BINARY, CONTINUATION, FIN, MASK, TEXT, Unread, accept, ask, closing, frame, unmasked

GOOD = frame(FIN | TEXT, b"good", MASK)


class Heard:
    """What an upstream has heard."""

    def __init__(self) -> None:
        self.data = b""
        self._changed = threading.Condition()

    def add(self, data: bytes) -> None:
        with self._changed:
            self.data += data
            self._changed.notify_all()

    def wait(self, data: bytes) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.data == data, 10), self.data


def open_socket(running: Running, origin: Origin, said: bytes = b"") -> tuple[Any, int, threading.Event, Heard]:
    """Return a client with an open WebSocket, the number of its flow, what lets its upstream end at what it hears next, and that."""
    heard = Heard()
    go = threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(accept(request) + said)
        try:
            while data := connection.receive():
                heard.add(data)
                if go.is_set():
                    break
        except OSError:
            pass
        connection.close()

    origin.script(script, "/chat")
    client = running.tunnel(origin.port)
    client.send(ask())
    assert client.read_head().status == 101
    running.handler.wait("on_response", 1)
    return client, running.handler.of("on_response")[0].request.flow_id, go, heard


class TestInject:
    def test_both_directions(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, go, heard = open_socket(running, plain_origin)
        with client:
            running.handle.inject(flow, "to you é")
            assert client.read_exactly(11) == frame(FIN | TEXT, "to you é".encode())
            go.set()
            running.handle.inject(flow, b"\x00to them", direction="to_upstream")
            client.read_to_end()
        running.wait_idle()
        assert unmasked(heard.data) == (FIN | BINARY, b"\x00to them")
        shown = [(chunk.direction, chunk.frame_kind, chunk.payload, chunk.injected) for chunk in running.handler.of("on_stream_chunk")]
        assert shown == [
            ("to_client", "websocket_text", "to you é".encode(), True),
            ("to_upstream", "websocket_binary", b"\x00to them", True),
        ]
        assert running.metrics().websocket_injected_message_count == 2

    def test_it_waits_for_the_end_of_a_message(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, go, heard = open_socket(running, plain_origin)
        with client:
            first, last = frame(TEXT, b"one ", MASK), frame(FIN | CONTINUATION, b"two", MASK)
            client.send(first + last[:7])
            heard.wait(first + last[:7])
            sending = threading.Thread(target=lambda: running.handle.inject(flow, "between", direction="to_upstream"))
            sending.start()
            sending.join(0.2)
            assert sending.is_alive()
            go.set()
            # the border lies within what is read at once
            client.send(last[7:] + GOOD)
            sending.join(10)
            assert not sending.is_alive()
            client.read_to_end()
        running.wait_idle()
        data = heard.data
        assert data.startswith(first + last)
        assert unmasked(data[len(first + last) :][:13]) == (FIN | TEXT, b"between")
        assert [chunk.payload for chunk in running.handler.of("on_stream_chunk")] == [b"one two", b"between", b"good"]

    def test_it_waits_while_the_receiver_does_not_read(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, _, _ = open_socket(running, plain_origin)
        large = pattern(1 << 20)
        done = []

        def send() -> None:
            for number in range(200):
                running.handle.inject(flow, large)
                done.append(number)

        with client:
            sending = threading.Thread(target=send)
            sending.start()
            sending.join(1)
            assert sending.is_alive()
            # what the two sockets hold, and one buffer of ours
            assert len(done) < 100
            whole = frame(FIN | BINARY, large)
            for _ in range(200):
                assert client.read_exactly(len(whole)) == whole
            sending.join(30)
        running.wait_idle()
        assert len(done) == 200

    def test_more_than_the_queue_holds(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """All are sent, in order; those for which there was no room have waited for their place."""
        running = proxy()
        client, flow, _, _ = open_socket(running, plain_origin)
        handle = running.handle._handle

        async def send_all() -> None:
            await asyncio.gather(*(handle.inject(flow, f"{number:03}") for number in range(300)))

        with client:
            running.handle._on_loop(send_all)
            expected = b"".join(frame(FIN | TEXT, b"%03d" % number) for number in range(300))
            assert client.read_exactly(len(expected)) == expected
        running.wait_idle()

    def test_a_hook_answers_what_it_sees(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        class Answering(Recording):
            running: Running

            def on_stream_chunk(self, chunk: StreamChunk) -> None:
                if not chunk.injected:
                    self.running.handle.inject(chunk.flow_id, b"seen " + chunk.payload)

        handler = Answering()
        running = handler.running = proxy(handler)
        client, _, _, _ = open_socket(running, plain_origin)
        with client:
            client.send(GOOD)
            assert client.read_exactly(11) == frame(FIN | BINARY, b"seen good")
        running.wait_idle()

    def test_over_http2(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy()
        with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=("h2", "http/1.1")), host=HOST) as origin:
            origin.settings = {8: 1}
            heard: list[bytes] = []

            def script(connection: ScriptedConnection, request: Request) -> None:
                connection.send(accept(request))
                heard.append(connection.receive())
                connection.close()

            origin.script(script, "/chat")
            connection, client = http2_client(running, origin.port)
            with connection:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"))
                number = client.open("/chat", method="CONNECT", fields=fields, end=False)
                assert client.head(number).status == 200
                running.handler.wait("on_response", 1)
                flow = running.handler.of("on_response")[0].request.flow_id
                running.handle.inject(flow, "down")
                running.handle.inject(flow, "up", direction="to_upstream")
                answer = client.answer(number)
                assert answer.body == frame(FIN | TEXT, b"down")
        running.wait_idle()
        assert unmasked(heard[0]) == (FIN | TEXT, b"up")

    @pytest.mark.parametrize("alpn", [("http/1.1",), ("h2", "http/1.1")], ids=["http1", "http2"])
    def test_over_http2_it_waits_for_the_window(self, proxy: ProxyFactory, origin_ca: TestCA, alpn: tuple[str, ...]) -> None:
        running = proxy()
        with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn), host=HOST) as origin:
            origin.settings = {8: 1}

            def script(connection: ScriptedConnection, request: Request) -> None:
                connection.send(accept(request))
                connection.receive()
                connection.close()

            origin.script(script, "/chat")
            connection, client = http2_client(running, origin.port)
            with connection:
                client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
                client.flush()
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"))
                number = client.open("/chat", method="CONNECT", fields=fields, end=False)
                assert client.head(number).status == 200
                running.handler.wait("on_response", 1)
                flow = running.handler.of("on_response")[0].request.flow_id
                sending = threading.Thread(target=lambda: running.handle.inject(flow, "down"))
                sending.start()
                sending.join(0.2)
                assert sending.is_alive()
                client.h2.increment_flow_control_window(1 << 16, number)
                client.flush()
                while len(client.streams[number].body) < 6:
                    client.read()
                sending.join(10)
                assert not sending.is_alive()
                assert client.streams[number].body == frame(FIN | TEXT, b"down")
                client.send(number, GOOD, end=True)
                client.answer(number)
        running.wait_idle()


class TestRefused:
    def test_what_is_no_open_websocket(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, _, _ = open_socket(running, plain_origin)
        with pytest.raises(LookupError, match=f"flow {flow + 1} is over, or is no WebSocket"):
            running.handle.inject(flow + 1, "")
        with pytest.raises(ValueError, match="direction"):
            running.handle.inject(flow, "", direction="up")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="payload: expected str or bytes, got int"):
            running.handle.inject(flow, 1)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            running.handle.inject(flow, "\ud800")
        client.close()
        running.wait_idle()
        with pytest.raises(LookupError, match="is over"):
            running.handle.inject(flow, "late")

    def test_what_is_too_long(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{"body.max_size_bytes": 1000})
        client, flow, _, _ = open_socket(running, plain_origin)
        with client, pytest.raises(ValueError, match=r"1001 bytes are over body.max_size_bytes \(1000\)"):
            running.handle.inject(flow, bytes(1001))

    def test_behind_a_close(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, _, _ = open_socket(running, plain_origin)
        with client:
            client.send(frame(FIN | 8, b"", MASK))
            running.handler.wait("on_stream_chunk", 1)
            with pytest.raises(LookupError, match="is closing"):
                running.handle.inject(flow, "late", direction="to_upstream")

    def test_one_that_waits_when_the_websocket_ends(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, _, heard = open_socket(running, plain_origin)
        client.send(frame(TEXT, b"one ", MASK))
        heard.wait(frame(TEXT, b"one ", MASK))
        failure: list[BaseException] = []

        def send() -> None:
            try:
                running.handle.inject(flow, "never", direction="to_upstream")
            except LookupError as error:
                failure.append(error)

        sending = threading.Thread(target=send)
        sending.start()
        sending.join(0.1)
        assert sending.is_alive()
        client.close()
        sending.join(10)
        assert [str(error) for error in failure] == ["the WebSocket is over"]

    def test_where_nobody_reads(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Unread())
        client, flow, _, _ = open_socket(running, plain_origin)
        with client, pytest.raises(LookupError, match="no WebSocket whose messages are read"):
            running.handle.inject(flow, "blind")


class TestCloseFlow:
    def test_a_websocket(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        client, flow, _, heard = open_socket(running, plain_origin)
        with client:
            running.handle.close_flow(flow, 4000, "enough")
            assert client.read_to_end() == closing(4000, b"enough")
        running.wait_idle()
        assert unmasked(heard.data) == (FIN | 8, (4000).to_bytes(2, "big") + b"enough")
        with pytest.raises(LookupError, match=f"flow {flow} is over"):
            running.handle.close_flow(flow)

    @pytest.mark.parametrize(("code", "reason"), [(1005, ""), (70_000, ""), (1000, "x" * 124)])
    def test_a_close_that_must_not_be_sent(self, proxy: ProxyFactory, plain_origin: Origin, code: int, reason: str) -> None:
        running = proxy()
        client, flow, _, _ = open_socket(running, plain_origin)
        with client, pytest.raises(ValueError, match=r"Close"):
            running.handle.close_flow(flow, code, reason)

    def test_one_that_nobody_reads(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Unread())
        client, flow, _, _ = open_socket(running, plain_origin)
        with client:
            running.handle.close_flow(flow)
            with pytest.raises(OSError):
                client.read_exactly(1)
        running.wait_idle()

    @pytest.mark.parametrize("where", ["in its hook", "while its upstream is silent"])
    def test_any_other_flow(self, proxy: ProxyFactory, plain_origin: Origin, where: str) -> None:
        asked, go = threading.Event(), threading.Event()

        class Closing(Recording):
            running: Running

            async def on_request(self, request: RawRequest) -> HandlerDecision:
                await super().on_request(request)
                if where == "in its hook":
                    self.running.handle.close_flow(request.flow_id)
                return HandlerDecision.ALLOW

        def script(connection: ScriptedConnection, request: Request) -> None:
            asked.set()
            connection.wait(go)

        plain_origin.script(script, "/silent")
        handler = Closing()
        running = handler.running = proxy(handler)
        with running.tunnel(plain_origin.port) as client:
            client.send(b"GET /silent HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if where != "in its hook":
                assert asked.wait(10)
                running.handle.close_flow(handler.of("on_request")[0].flow_id)
            with pytest.raises(OSError):
                client.read_exactly(1)
        go.set()
        running.wait_idle()
