"""What event sinks are given of real traffic: records, content, messages and events; and that traffic does not notice them."""

from __future__ import annotations

import gc
import os
import ssl
import threading
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from soth_mitm import (
    ChunkDecision,
    ConnectDecision,
    ConnectTarget,
    Credential,
    EventSinkError,
    FrameKind,
    HandlerDecision,
    InterceptHandler,
    MitmProxyBuilder,
    RawRequest,
    RawResponse,
    ResponseDecision,
    Secret,
    StreamChunk,
)
from soth_mitm._dataplane.exchange.flow_recording import FlowFacts, FlowRecording, Recorder
from soth_mitm.observe import sink_feeds
from soth_mitm.observe.event_sink import SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowKind, FlowMessage, FlowUpdate
from soth_mitm.observe.recording import ConnectionRecording, ProxyRecording
from support.certs import TestCA
from support.http2_inside import Http2Client, http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, configure
from support.sinks import Collector
from support.websocket import BINARY, DEFLATE, FIN, MASK, RSV1, TEXT, accept, ask, closing, compressed, frame

Kind = FlowEventKind
EXTENDED = 8


class Plain(InterceptHandler):
    """Allows everything, and looks at nothing else."""

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.ALLOW


def ended(sink: Collector, count: int = 1) -> None:
    """Wait until so many flows are over."""
    sink.wait(lambda sink: len(sink.records) >= count)


class TestRecords:
    def test_a_request_and_its_response(self, proxy: ProxyFactory, origin: Origin) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with running.secured(origin.port) as client:
            client.send(
                b"POST /echo?q=1 HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
            )
            answer = client.read_answer()
            assert client.request("/bytes/10", HOST).status == 200
        ended(sink, 2)
        first, second = sink.records
        assert (first.kind, first.is_over, first.outcome, first.cause) == (FlowKind.HTTP, True, "answered", "")
        assert (first.decision, first.response_decision, first.protocol) == ("allowed", "not_asked", "http1")
        assert (first.scheme, first.host, first.port, first.method, first.path) == ("https", HOST, origin.port, "POST", "/echo?q=1")
        assert (first.http_version, first.upstream_http_version, first.http2_stream_id) == ("HTTP/1.1", "HTTP/1.1", 0)
        assert (first.status, first.answered_by, first.pattern) == (200, "upstream", "localhost:*")
        assert (b"X-One", b"1") in first.request_fields
        assert first.request_trailers == ((b"X-Trailer", b"t"),)
        assert (b"Content-Type", b"application/json") in first.response_fields
        assert (first.request_size, first.request_kept) == (11, 11)
        assert (first.response_size, first.response_kept) == (len(answer.body), len(answer.body))
        assert sink.body(first.flow_id, to_client=False) == b"hello world"
        assert sink.body(first.flow_id, to_client=True) == answer.body
        assert first.upstream_address == ("127.0.0.1", origin.port)
        assert first.upstream_connection_id == second.upstream_connection_id is not None
        assert first.connection.target == (HOST, origin.port)
        assert first.connection.tls_info is not None
        assert first.connection.tls_info.upstream_version == "TLSv1.3"
        timings = first.timings
        steps = (timings.decided, timings.acquired, timings.sent, timings.first_byte, timings.ended)
        assert None not in steps
        assert list(steps) == sorted(steps)  # type: ignore[type-var]
        assert timings.ended == first.took
        assert timings.tls is not None
        assert timings.dialled is not None
        assert 0 < timings.tls < timings.dialled
        # it was there already
        assert second.timings.dialled is None
        assert second.timings.tls is None
        assert first.started < second.started

    def test_over_http2(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with Origin(origin_ca.server_context(HOST, alpn=("h2",)), host=HOST) as origin:
            with running.secured(origin.port, HOST, "h2") as client:
                inside = Http2Client(client.socket, f"{HOST}:{origin.port}")
                for number in (1, 3):
                    assert inside.request("/echo", method="POST", body=b"x" * number).status == 200
            ended(sink, 2)
        for record, number in zip(sink.records, (1, 3), strict=True):
            assert (record.protocol, record.http_version, record.upstream_http_version) == ("http2", "HTTP/2", "HTTP/2")
            assert (record.http2_stream_id, record.request_size, record.status) == (number, number, 200)
            assert sink.body(record.flow_id, to_client=False) == b"x" * number
        keys = {event.stream_key for event in sink.events if event.flow_id == sink.records[0].flow_id}
        assert keys == {"h2:1"}

    def test_what_the_handler_does(self, proxy: ProxyFactory, origin: Origin) -> None:
        async def items() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        class Deciding(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                return {
                    "/block": HandlerDecision.block(418, "no"),
                    "/respond": HandlerDecision.respond(201, b"{}", headers={"content-type": "application/json"}),
                    "/items": HandlerDecision.respond(200, items()),
                    "/abort": HandlerDecision.abort(),
                }.get(request.path, HandlerDecision.ALLOW)

            def on_response_head(self, response: RawResponse) -> ResponseDecision:
                path = response.request.path
                if path == "/bytes/7":
                    return ResponseDecision.change(set={"x-changed": "yes"})
                if path == "/bytes/8":
                    return ResponseDecision.HOLD
                return ResponseDecision.block(451, "no") if path == "/bytes/9" else ResponseDecision.PASS

            def on_response_body(self, response: RawResponse) -> ResponseDecision:
                return ResponseDecision.replace(200, b"another")

        sink = Collector()
        running = proxy(Deciding(), sinks=[sink])
        for path in ("/block", "/respond", "/items", "/bytes/7", "/bytes/8", "/bytes/9"):
            with running.secured(origin.port) as client:
                client.request(path, HOST, "POST", b"asked")
        with running.secured(origin.port) as client:
            client.send(b"GET /abort HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with pytest.raises(ssl.SSLEOFError):
                client.read_to_end()
        ended(sink, 7)
        by_path = {record.path: record for record in sink.records}
        told = {
            path: (record.outcome, record.answered_by, record.status, record.decision, record.response_decision)
            for path, record in by_path.items()
        }
        assert told == {
            "/block": ("blocked", "handler", 418, "blocked", "not_asked"),
            "/respond": ("responded", "handler", 201, "answered", "not_asked"),
            "/items": ("responded", "handler", 200, "answered", "not_asked"),
            "/bytes/7": ("answered", "upstream", 200, "allowed", "changed"),
            "/bytes/8": ("answered", "handler", 200, "allowed", "replaced"),
            "/bytes/9": ("blocked", "handler", 451, "allowed", "blocked"),
            "/abort": ("aborted", "", 0, "aborted", "not_asked"),
        }
        bodies = {path: sink.body(record.flow_id, to_client=True) for path, record in by_path.items()}
        assert bodies == {
            "/block": b"no",
            "/respond": b"{}",
            "/items": b"one two",
            "/bytes/7": pattern(7),
            "/bytes/8": b"another",
            "/bytes/9": b"no",
            "/abort": b"",
        }
        assert all(record.response_size == len(bodies[path]) for path, record in by_path.items())
        assert all(sink.body(record.flow_id, to_client=False) == b"asked" for path, record in by_path.items() if path != "/abort")
        assert (b"x-changed", b"yes") in by_path["/bytes/7"].response_fields
        assert (b"content-type", b"application/json") in by_path["/respond"].response_fields

    def test_content_is_what_each_sink_wants_of_it(self, proxy: ProxyFactory, origin: Origin) -> None:
        much, little, none = Collector(content=3000), Collector(content=10), Collector(content=0)
        running = proxy(Plain(), sinks=[much, little, none])
        with running.secured(origin.port) as client:
            assert client.request("/bytes/100000", HOST, "POST", b"y" * 5000).status == 200
        for sink, kept in ((much, 3000), (little, 10), (none, 0)):
            ended(sink)
            (record,) = sink.records
            assert (record.request_size, record.request_kept) == (5000, kept)
            assert (record.response_size, record.response_kept) == (100000, kept)
            assert sink.body(record.flow_id, to_client=True) == pattern(100000)[:kept]
            assert sink.body(record.flow_id, to_client=False) == b"y" * kept

    def test_a_flow_that_stays_open_is_handed_over_as_it_changes(self, proxy: ProxyFactory, origin: Origin) -> None:
        steps = [threading.Event() for _ in range(3)]

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(steps[0])
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for number, step in enumerate(steps[1:]):
                connection.wait(step)
                connection.send(b"event: e\nid: %d\ndata: x\n\n" % number)
            connection.close()

        origin.script(script, "/events")
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with running.secured(origin.port) as client:
            client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sink.wait(lambda sink: sink.updates)
            head = sink.updates[0].record
            assert (head.is_over, head.status, head.took, head.outcome, head.answered_by) == (False, 0, None, "", "")
            steps[0].set()
            sink.wait(lambda sink: sink.updates[-1].record.status == 200)
            assert sink.updates[-1].record.answered_by == "upstream"
            steps[1].set()
            sink.wait(lambda sink: sink.updates[-1].pieces)
            assert not sink.updates[-1].record.is_over
            before = len(sink.updates)
            steps[2].set()
            client.read_to_end()
        ended(sink)
        assert len(sink.updates) > before
        (record,) = sink.records
        assert sink.body(record.flow_id, to_client=True) == b"event: e\nid: 0\ndata: x\n\nevent: e\nid: 1\ndata: x\n\n"
        told = [(event.stream_key, event.attributes["event"], event.attributes["id"]) for event in sink.of(Kind.SSE_EVENT)]
        assert told == [("sequence:1", "e", "0"), ("sequence:2", "e", "1")]
        assert all(event.protocol == "sse" for event in sink.of(Kind.SSE_EVENT))

    def test_a_filtered_response_is_what_left(self, proxy: ProxyFactory, origin: Origin) -> None:
        class Filtering(Plain):
            filter_kinds = frozenset({FrameKind.SSE_DATA})

            def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
                return ChunkDecision.DROP if chunk.event_id == "1" else ChunkDecision.PASS

        sink = Collector()
        running = proxy(Filtering(), sinks=[sink])
        with running.secured(origin.port) as client:
            answer = client.request("/sse/3/0", HOST)
        ended(sink)
        (record,) = sink.records
        assert sink.body(record.flow_id, to_client=True) == answer.body
        assert record.response_size == len(answer.body)
        assert [event.attributes["id"] for event in sink.of(Kind.SSE_EVENT)] == ["0", "2"]


class TestCredentials:
    def test_values_are_nowhere(self, proxy: ProxyFactory, origin: Origin) -> None:
        def script(connection: ScriptedConnection, request: Request) -> None:
            body = connection.read_body() + (request.get("authorization") or "").encode()
            connection.send(b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b" % (body, len(body), body))

        origin.script(script, "/echo")
        sink = Collector()
        credential = Credential("key-placeholder-1", Secret("sk-live-0123456789"), ["localhost:*"], place=("header:authorization",))
        running = proxy(Plain(), sinks=[sink], **{"credentials": [credential]})
        with running.secured(origin.port) as client:
            answer = client.request("/echo", HOST, "POST", b"", "Authorization: Bearer key-placeholder-1\r\n")
        assert origin.wait_requests(1)[0].get("authorization") == "Bearer sk-live-0123456789"
        assert b"key-placeholder-1" in answer.body
        ended(sink)
        told = repr(sink.items)
        assert "key-placeholder-1" in told
        assert "sk-live" not in told
        assert sink.body(sink.records[0].flow_id, to_client=True) == answer.body


class TestTunnels:
    def test_a_tunnel_is_counted_and_not_read(self, proxy: ProxyFactory, origin: Origin) -> None:
        class Tunnelling(InterceptHandler):
            def on_connect(self, target: ConnectTarget) -> ConnectDecision:
                return ConnectDecision.TUNNEL

        sink = Collector()
        running = proxy(Tunnelling(), sinks=[sink])
        with running.tunnel(origin.port) as client:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client.start_tls(context, HOST)
            assert client.request("/bytes/20000", HOST).status == 200
            sink.wait(lambda sink: any(update.record.response_size > 20000 for update in sink.updates))
            assert not sink.updates[-1].record.is_over
        ended(sink)
        (record,) = sink.records
        assert (record.kind, record.outcome, record.cause, record.protocol) == (FlowKind.TUNNEL, "tunnelled", "handler", "tunnel")
        assert (record.method, record.host, record.port, record.path, record.scheme) == ("CONNECT", HOST, origin.port, "", "")
        assert record.upstream_address == ("127.0.0.1", origin.port)
        assert record.timings.dialled is not None
        assert record.response_size > 20000 > record.request_size > 200
        assert all(update.pieces == () for update in sink.updates)
        kinds = [event.kind for event in sink.events if not event.flow_id]
        assert kinds == [
            Kind.CONNECTION_OPENED,
            Kind.CONNECT_RECEIVED,
            Kind.CONNECT_DECISION,
            Kind.STREAM_CLOSED,
            Kind.CONNECTION_CLOSED,
        ]
        (decision,) = sink.of(Kind.CONNECT_DECISION)
        assert decision.attributes == {"action": "tunnel", "by": "handler", "pattern": "localhost:*", "reason": "handler"}

    def test_what_is_not_intercepted_is_told_without_its_fields(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink], destinations=("a.example:443",), **{"interception.passthrough_unlisted": True})
        with running.client() as client:
            answer = client.request(f"http://127.0.0.1:{plain_origin.port}/bytes/50", "x", "POST", b"private", "X-Private: 1\r\n")
            assert answer.status == 200
        ended(sink)
        (record,) = sink.records
        assert (record.host, record.path, record.status, record.request_size, record.response_size) == (
            "127.0.0.1",
            "/bytes/50",
            200,
            7,
            50,
        )
        assert (record.request_fields, record.response_fields, record.request_kept, record.response_kept) == ((), (), 0, 0)
        assert "private" not in repr(sink.items).lower().replace("is_private", "")


class TestRefusals:
    def test_a_connect_that_is_blocked(self, proxy: ProxyFactory) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink], **{"interception.blocked": ["*.blocked.test:*"], "interception.explain_blocks": False})
        with running.client() as client:
            assert client.connect("a.blocked.test:443").status == 403
        ended(sink)
        (record,) = sink.records
        assert (record.kind, record.outcome, record.status, record.answered_by) == (FlowKind.REFUSED, "blocked", 403, "proxy")
        assert (record.method, record.host, record.port, record.pattern) == ("CONNECT", "a.blocked.test", 443, "*.blocked.test:*")
        assert "blocked" in record.cause
        closed = [event.attributes["reason"] for event in sink.of(Kind.STREAM_CLOSED) if not event.flow_id]
        assert closed in ([], ["blocked"])

    def test_a_block_that_is_explained_is_told_by_its_requests(self, proxy: ProxyFactory) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink], **{"interception.blocked": ["*.blocked.test:*"], "interception.explain_blocks": True})
        with running.secured(443, "a.blocked.test") as client:
            assert client.request("/x", "a.blocked.test").status == 403
        with running.tunnel(443, "a.blocked.test"):
            pass
        running.wait_idle()
        ended(sink, 2)
        assert [(record.kind, record.outcome, record.path) for record in sink.records] == [
            (FlowKind.HTTP, "blocked", "/x"),
            (FlowKind.REFUSED, "blocked", ""),
        ]

    def test_a_handshake_that_fails(self, proxy: ProxyFactory, origin: Origin) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLError):
            client.start_tls(ssl.create_default_context(), HOST)
        ended(sink)
        (record,) = sink.records
        assert (record.kind, record.outcome, record.status) == (FlowKind.REFUSED, "cut_by_client", 0)
        sink.wait(lambda sink: sink.of(Kind.TLS_HANDSHAKE_FAILED))
        (failed,) = sink.of(Kind.TLS_HANDSHAKE_FAILED)
        assert (failed.attributes["side"], failed.attributes["class"]) == ("client", "unknown_ca")
        assert record.cause

    @pytest.mark.parametrize(
        ("sent", "status"),
        [(b"CONNECT nowhere HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/9.9\r\n\r\n", 400), (b"\x16\x03\x01\x00\x05hello", 400)],
        ids=["target", "head", "tls"],
    )
    def test_what_cannot_be_read(self, proxy: ProxyFactory, sent: bytes, status: int) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with running.client() as client:
            client.send(sent)
            assert client.read_answer().status == status
        ended(sink)
        assert (sink.records[0].kind, sink.records[0].outcome, sink.records[0].status) == (FlowKind.REFUSED, "refused", status)
        sink.wait(lambda sink: sink.of(Kind.CONNECTION_CLOSED))
        kinds = [event.kind for event in sink.events if not event.flow_id]
        assert kinds == [Kind.CONNECTION_OPENED, Kind.CONNECT_PARSE_FAILED, Kind.STREAM_CLOSED, Kind.CONNECTION_CLOSED]
        assert running.metrics().illegal_event_count == 0


def chat(connection: ScriptedConnection, request: Request) -> None:
    """Accept, say hello, answer each message, and close as the client does."""
    deflate = DEFLATE if request.get("sec-websocket-extensions") else ""
    connection.send(accept(request, deflate))
    connection.send(frame(FIN | RSV1 | TEXT, compressed(b"hello")) if deflate else frame(FIN | TEXT, b"hello"))
    heard = b""
    while b"\x88" not in heard:
        heard += connection.receive()
    connection.send(frame(FIN | BINARY, b"\x00" * 300) + closing(1000, b"done"))
    connection.close()


class TestWebSockets:
    @pytest.mark.parametrize("handler", [Plain, Recording], ids=["unread", "read"])
    @pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
    def test_messages_as_they_left(self, proxy: ProxyFactory, plain_origin: Origin, handler: type, deflate: bool) -> None:
        plain_origin.script(chat, "/chat")
        sink = Collector(content=100)
        running = proxy(handler(), sinks=[sink])
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE if deflate else ""))
            assert client.read_head().status == 101
            sink.wait(lambda sink: any(update.messages for update in sink.updates))
            text = frame(TEXT, b"one ", MASK) + frame(FIN, b"two", MASK)
            client.send(text + closing(1001, b"bye", MASK))
            client.read_to_end()
        ended(sink)
        (record,) = sink.records
        messages = [message for update in sink.updates for message in update.messages]
        assert [(message.to_client, message.opcode, message.data, message.size) for message in messages] == [
            (True, 1, b"hello", 5),
            (False, 1, b"one two", 7),
            (False, 8, b"\x03\xe9bye", 5),
            (True, 2, b"\x00" * 100, 300),
            (True, 8, b"\x03\xe8done", 6),
        ]
        assert all(isinstance(message, FlowMessage) and message.at >= 0 for message in messages)
        assert (record.kind, record.outcome, record.status, record.protocol) == (FlowKind.WEBSOCKET, "tunnelled", 101, "websocket")
        assert record.websocket_close == (1001, "client")
        assert record.response_size > 300
        assert all(update.pieces == () for update in sink.updates)
        kinds = [event.kind for event in sink.events if event.flow_id]
        assert [kind for kind in kinds if kind is not Kind.REQUEST_DECISION] == [
            Kind.REQUEST_HEADERS,
            Kind.RESPONSE_HEADERS,
            Kind.WEBSOCKET_OPENED,
            Kind.WEBSOCKET_TURN_STARTED,
            Kind.WEBSOCKET_FRAME,
            Kind.WEBSOCKET_FRAME,
            Kind.WEBSOCKET_FRAME,
            Kind.WEBSOCKET_TURN_COMPLETED,
            Kind.WEBSOCKET_TURN_STARTED,
            Kind.WEBSOCKET_FRAME,
            Kind.WEBSOCKET_FRAME,
            Kind.WEBSOCKET_TURN_COMPLETED,
            Kind.WEBSOCKET_CLOSED,
            Kind.STREAM_CLOSED,
        ] or "silence" in str(sink.of(Kind.WEBSOCKET_TURN_COMPLETED))
        (closed,) = sink.of(Kind.WEBSOCKET_CLOSED)
        assert closed.attributes == {"by": "client", "code": 1001, "reason": ""}

    def test_over_http2(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        sink = Collector()
        with Origin(origin_ca.server_context(HOST, alpn=("h2", "http/1.1")), host=HOST) as origin:
            origin.settings = {EXTENDED: 1}
            origin.script(chat, "/chat")
            running = proxy(Plain(), sinks=[sink])
            wire, client = http2_client(running, origin.port)
            with wire:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                number = client.open(
                    "/chat", method="CONNECT", fields=((":protocol", "websocket"), ("sec-websocket-version", "13")), end=False
                )
                assert client.head(number).status == 200
                client.send(number, frame(FIN | TEXT, b"hi", MASK) + closing(1000, b"", MASK))
                client.answer(number)
            ended(sink)
        (record,) = sink.records
        assert (record.kind, record.http2_stream_id, record.protocol) == (FlowKind.WEBSOCKET, number, "websocket")
        messages = [message.data for update in sink.updates for message in update.messages if message.opcode != 8]
        # each side in its order
        assert sorted(messages) == [b"\x00" * 300, b"hello", b"hi"]
        assert running.metrics().illegal_event_count == 0

    def test_without_a_sink_for_messages_none_are_read(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script(chat, "/chat")
        sink = Collector(messages=False, kinds=frozenset({Kind.WEBSOCKET_OPENED, Kind.WEBSOCKET_CLOSED}))
        running = proxy(Plain(), sinks=[sink])
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            client.send(closing(1001, b"bye", MASK))
            client.read_to_end()
        ended(sink)
        assert running.metrics().websocket_message_count_by_kind["to_client_text"] == 0
        assert sink.records[0].websocket_close is None
        assert sink.records[0].response_size > 300
        assert [event.kind for event in sink.events] == [Kind.WEBSOCKET_OPENED, Kind.WEBSOCKET_CLOSED]


class TestNoHarm:
    def test_without_sinks_nothing_is_made(self, proxy: ProxyFactory, origin: Origin) -> None:
        kinds = (Recorder, FlowRecording, FlowFacts, ConnectionRecording, ProxyRecording)
        gc.collect()
        before = {id(each) for each in gc.get_objects() if isinstance(each, kinds)}
        running = proxy(Plain())
        with running.secured(origin.port) as client:
            for _ in range(3):
                assert client.request("/bytes/10", HOST).status == 200
            assert {id(each) for each in gc.get_objects() if isinstance(each, kinds)} <= before

    def test_a_sink_that_fails_or_hangs_changes_no_traffic(
        self, proxy: ProxyFactory, origin: Origin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sink_feeds, "CLOSE_SECONDS", 0.2)
        gate = threading.Event()

        class Failing(Collector):
            def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
                raise LookupError("on purpose")

        class Hanging(Collector):
            def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
                gate.wait()

        good = Collector()
        running = proxy(Plain(), sinks=[Failing(), Hanging(), good])
        with running.secured(origin.port) as client:
            for _ in range(20):
                assert client.request("/bytes/1000", HOST, "POST", b"z" * 1000).body == pattern(1000)
        ended(good, 20)
        running.wait_idle()
        running.handle.shutdown(10)
        metrics = running.metrics()
        assert metrics.event_sink_failure_count_by_sink["Failing"] > 0
        assert any(name.startswith("Hanging ") for name in metrics.dropped_event_count_by_sink_and_kind)
        assert not any(name.startswith("Collector ") for name in metrics.dropped_event_count_by_sink_and_kind)
        gate.set()

    def test_what_open_flows_keep_is_bounded(self, proxy: ProxyFactory, origin: Origin) -> None:
        size = 24 << 20
        sink = Collector(content=1 << 30, kinds=frozenset())
        running = proxy(Plain(), sinks=[sink])
        with running.secured(origin.port) as client:
            assert client.request(f"/bytes/{size}", HOST).body == pattern(size)
        ended(sink)
        (record,) = sink.records
        assert record.response_kept == record.response_size == size
        # handed over in parts, not kept until a tenth of a second was over
        assert max(sum(len(piece.data) for piece in update.pieces) for update in sink.updates) <= (8 << 20) + (1 << 20)
        assert zlib.crc32(sink.body(record.flow_id, to_client=True)) == zlib.crc32(pattern(size))

    def test_it_starts_with_what_the_sink_is_told_and_ends_with_its_close(self, tmp_path: Path, origin_ca: TestCA) -> None:
        class Opened(Collector):
            info: SinkInfo
            is_closed = False

            def open(self, info: SinkInfo) -> None:
                self.info = info

            def close(self, timeout: float) -> None:
                self.is_closed = True

        sink = Opened()
        proxy = MitmProxyBuilder(configure(tmp_path, origin_ca), Plain()).with_event_sink(sink).build()
        with proxy.start_in_thread() as handle:
            assert sink.info.pid == os.getpid()
            assert sink.info.listening == (f"127.0.0.1:{handle.port}",)
        assert sink.is_closed

    def test_a_sink_that_cannot_be_opened_stops_the_start(self, tmp_path: Path, origin_ca: TestCA) -> None:
        class Broken(Collector):
            def open(self, info: SinkInfo) -> None:
                raise PermissionError("not yours")

        other = Collector()
        builder = MitmProxyBuilder(configure(tmp_path, origin_ca), Plain()).with_event_sink(other).with_event_sink(Broken())
        with pytest.raises(ValueError, match="attached already"):
            builder.with_event_sink(other)
        with pytest.raises(EventSinkError, match="event sink Broken: cannot be opened: not yours"):
            builder.build().start_in_thread()
        # and can be tried again
        with MitmProxyBuilder(configure(tmp_path, origin_ca), Plain()).with_event_sink(other).build().start_in_thread():
            pass


class TestEvents:
    """The events that the tests above do not show."""

    def test_steps_of_a_request(self, proxy: ProxyFactory, origin: Origin) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with running.secured(origin.port) as client:
            client.send(b"POST /interim HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
            assert [client.read_head().status for _ in range(3)] == [100, 103, 200]
        ended(sink)
        running.wait_idle()
        sink.wait(lambda sink: sink.of(Kind.CONNECTION_CLOSED))
        of_flow = [event for event in sink.events if event.flow_id]
        kinds = [event.kind for event in of_flow]
        assert kinds[:8] == [
            Kind.REQUEST_HEADERS,
            Kind.REQUEST_BODY_CHUNK,
            Kind.REQUEST_DECISION,
            Kind.TLS_HANDSHAKE_STARTED,
            Kind.TLS_HANDSHAKE_SUCCEEDED,
            Kind.RESPONSE_HEADERS,
            Kind.RESPONSE_HEADERS,
            Kind.RESPONSE_HEADERS,
        ]
        assert set(kinds[8:-1]) == {Kind.RESPONSE_BODY_CHUNK}
        assert kinds[-1] is Kind.STREAM_CLOSED
        request, chunk, decision, _, secured, interim, _, final = of_flow[:8]
        assert request.attributes == {
            "authority": f"localhost:{origin.port}",
            "bytes": len(b"POST /interim HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"),
            "http2_stream_id": 0,
            "method": "POST",
            "path": "/interim",
        }
        assert (request.protocol, request.server_host, request.server_port) == ("http1", HOST, origin.port)
        assert chunk.attributes == {"bytes": 5, "offset": 0}
        assert decision.attributes == {"decision": "allowed", "reason": ""}
        assert (secured.attributes["side"], secured.attributes["version"], secured.attributes["resumed"]) == ("upstream", "TLSv1.3", 0)
        assert (interim.attributes["status"], interim.attributes["interim"]) == (100, 1)
        assert (final.attributes["status"], final.attributes["from"]) == (200, "upstream")
        assert final.attributes["media_type"] == "application/json"
        assert "interim" not in final.attributes
        closed = of_flow[-1].attributes
        assert (closed["reason"], closed["by"], closed["outcome"], closed["complete"]) == ("mitm_http_completed", "upstream", "answered", 1)
        assert [event.kind for event in sink.events if not event.flow_id] == [
            Kind.CONNECTION_OPENED,
            Kind.CONNECT_RECEIVED,
            Kind.CONNECT_DECISION,
            Kind.TLS_HANDSHAKE_STARTED,
            Kind.TLS_HANDSHAKE_SUCCEEDED,
            Kind.STREAM_CLOSED,
            Kind.CONNECTION_CLOSED,
        ]

    def test_an_upstream_whose_certificate_is_wrong(self, proxy: ProxyFactory) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with Origin(TestCA("Unknown Root").server_context(HOST), host=HOST) as origin, running.secured(origin.port) as client:
            assert client.request("/", HOST).status == 502
        ended(sink)
        (failed,) = sink.of(Kind.TLS_HANDSHAKE_FAILED)
        assert (failed.attributes["side"], failed.attributes["class"]) == ("upstream", "unknown_ca")
        assert failed.flow_id == sink.records[0].flow_id
        assert (sink.records[0].outcome, sink.records[0].answered_by) == ("upstream_error", "proxy")

    def test_a_call_of_grpc(self, proxy: ProxyFactory, origin: Origin) -> None:
        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.read_body()
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n"
                b"5\r\n\x00\x00\x00\x00\x00\r\n0\r\ngrpc-status: 5\r\ngrpc-message: none\r\n\r\n"
            )

        origin.script(script, "/test.Any/Call")
        sink = Collector()
        running = proxy(Plain(), sinks=[sink])
        with running.secured(origin.port) as client:
            head = "Content-Type: application/grpc\r\nTE: trailers\r\n"
            assert client.request("/test.Any/Call", HOST, "POST", b"\0\0\0\0\0", head).status == 200
        ended(sink)
        (record,) = sink.records
        assert (record.protocol, record.grpc_status) == ("grpc", "5")
        assert (b"grpc-status", b"5") in record.response_trailers
        told = sink.of(Kind.GRPC_REQUEST_HEADERS, Kind.GRPC_RESPONSE_HEADERS, Kind.GRPC_RESPONSE_TRAILERS)
        assert [event.attributes for event in told] == [
            {"method": "Call", "service": "test.Any"},
            {"status": 200},
            {"grpc_message": "none", "grpc_status": "5", "trailers_only": 0},
        ]
        assert told[0].stream_key == f"grpc:/test.Any/Call:{told[0].flow_sequence_id}"
        assert {event.protocol for event in told} == {"grpc"}
        assert running.metrics().illegal_event_count == 0

    def test_requests_in_absolute_form_name_their_destinations(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink], **{"interception.blocked": ["*.blocked.test:*"]})
        with running.client() as client:
            for host in ("127.0.0.1", "127.0.0.1", "localhost"):
                assert client.request(f"http://{host}:{plain_origin.port}/bytes/5", "x").status == 200
            assert client.request("http://a.blocked.test/", "x").status == 403
        ended(sink, 4)
        named = [(event.attributes["host"], event.attributes["form"]) for event in sink.of(Kind.CONNECT_RECEIVED)]
        assert named == [("127.0.0.1", "absolute"), ("localhost", "absolute"), ("a.blocked.test", "absolute")]
        assert [event.attributes["action"] for event in sink.of(Kind.CONNECT_DECISION)] == ["intercept", "intercept", "block"]
        assert [record.outcome for record in sink.records] == ["answered", "answered", "answered", "blocked"]
        assert running.metrics().illegal_event_count == 0

    def test_what_is_learnt_of_refusals(self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> None:
        sink = Collector()
        running = proxy(Plain(), sinks=[sink], **{"tls.learn_bypass": True, "tls.bypass_after_failures": 2})
        for count in (1, 2):
            with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLCertVerificationError):
                client.start_tls(origin_ca.client_context(), HOST)
            sink.wait(lambda sink, count=count: len(sink.of(Kind.CONNECTION_CLOSED)) == count)
        with running.tunnel(origin.port) as client:
            client.start_tls(origin_ca.client_context(), HOST)
            assert client.request("/bytes/5", HOST).status == 200
        ended(sink, 3)
        told = [event.attributes for event in sink.of(Kind.TLS_LEARNING_AUDIT)]
        assert [about["action"] for about in told] == ["refused", "refused", "opened", "used"]
        assert {about["host"] for about in told} == {HOST}
        assert [record.kind for record in sink.records] == [FlowKind.REFUSED, FlowKind.REFUSED, FlowKind.TUNNEL]
        assert sink.records[-1].cause == "bypass"
        assert running.metrics().illegal_event_count == 0
