"""What reaches `on_stream_chunk` of each kind of stream: gRPC and gRPC-Web in both directions, events, lines, texts, messages of AWS."""

from __future__ import annotations

import asyncio
import base64
import gzip
import struct
import zlib
from collections.abc import Callable

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, RawResponse, StreamChunk
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.tap import Tap, TapConnection, message_end
from support.wire_client import Answer, WireClient

Seen = list[tuple[str, str, bytes, int]]


def message(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


TRAILERS = message(b"grpc-status: 0\r\ngrpc-message: fine\r\n", 0x80)
CALL = message(b"one") + message(b"") + message(b"three")
REPLY = message(b"hello") + message(b"world")


def base64_pieces(*pieces: bytes) -> bytes:
    return b"".join(base64.b64encode(piece) for piece in pieces)


def respond_with(tap: Tap, kind: str, body: bytes, extra: str = "") -> None:
    """Let the origin answer every request with this stream, chunked, cut in the middle."""
    half = len(body) // 2
    pieces = [piece for piece in (body[:half], body[half:]) if piece]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode()

    def respond(connection: TapConnection, request: bytes) -> None:
        connection.send(head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")

    tap.respond = respond


def post(client: WireClient, kind: str, body: bytes, *, chunked: bool = False, extra: str = "") -> Answer:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    client.send(f"POST /call HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{extra}{framing}\r\n\r\n".encode() + wire)
    return client.read_answer()


def seen(running: Running) -> Seen:
    running.wait_idle()
    return [(chunk.direction, str(chunk.frame_kind), chunk.payload, chunk.sequence) for chunk in running.handler.of("on_stream_chunk")]


def call(direction: str, *payloads: bytes, kind: str = "grpc_message") -> Seen:
    return [(direction, kind, payload, number) for number, payload in enumerate(payloads)]


class OnlyChunks(Recording):
    """Overrides nothing that makes a request wait."""

    on_request = None  # type: ignore[assignment]
    on_response = None  # type: ignore[assignment]


class TestGrpc:
    @pytest.mark.parametrize("chunked", [True, False])
    @pytest.mark.parametrize("handler", [Recording, OnlyChunks])
    @pytest.mark.parametrize("mode", ["enforce", "monitor"])
    @pytest.mark.parametrize(
        "kind", ["application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web-text+proto"]
    )
    def test_messages_of_both_directions(
        self, proxy: ProxyFactory, plain_tap: Tap, kind: str, mode: str, handler: Callable[[], Recording], chunked: bool
    ) -> None:
        up, down = CALL, REPLY if "web" not in kind else REPLY + TRAILERS
        if "text" in kind:
            up, down = base64_pieces(CALL[:7], CALL[7:]), base64_pieces(REPLY, TRAILERS)
        respond_with(plain_tap, kind, down)
        running = proxy(handler(), intercept_mode=mode)
        with running.tunnel(plain_tap.port) as client:
            assert post(client, kind, up, chunked=chunked).body == down
            assert post(client, kind, up, chunked=chunked).body == down
        found = seen(running)
        assert [chunk for chunk in found if chunk[0] == "to_upstream"] == 2 * call("to_upstream", b"one", b"", b"three")
        assert [chunk for chunk in found if chunk[0] == "to_client"] == 2 * call("to_client", b"hello", b"world")
        metrics = running.metrics()
        assert (metrics.stream_framing_error_count, metrics.buffered_bytes, metrics.stream_chunk_count) == (0, 0, 10)
        assert running.handler.names.count("on_stream_end") == 2
        for chunk in running.handler.of("on_stream_chunk"):
            assert (chunk.request.path, chunk.request.flow_id, chunk.complete) == ("/call", chunk.flow_id, True)

    @pytest.mark.parametrize("mode", ["enforce", "monitor"])
    def test_the_handler_is_asked_before_it_is_shown_messages(self, proxy: ProxyFactory, plain_tap: Tap, mode: str) -> None:
        respond_with(plain_tap, "application/grpc-web", REPLY)
        running = proxy(intercept_mode=mode)
        with running.tunnel(plain_tap.port) as client:
            post(client, "application/grpc-web", CALL)
        running.wait_idle()
        names = [name for name in running.handler.names if name.startswith(("on_request", "on_stream", "on_response"))]
        assert names[0] == "on_request" and names[-1] == "on_stream_end"
        assert all(chunk.request is running.handler.requests[0] for chunk in running.handler.of("on_stream_chunk"))
        # what is collected is shown to the decision as well
        assert running.handler.requests[0].body == (CALL if mode == "enforce" else b"")

    def test_the_trailers_frame_is_no_message_but_the_trailers_of_the_response(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        respond_with(plain_tap, "application/grpc-web+proto", REPLY + TRAILERS)
        running = proxy()
        with running.tunnel(plain_tap.port) as client:
            post(client, "application/grpc-web+proto", b"")
        running.wait_idle()
        (response,) = running.handler.of("on_response")
        assert response.trailers.items() == [("grpc-status", "0"), ("grpc-message", "fine")]

    def test_a_blocked_call_is_shown_no_message(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        running = proxy(Recording(lambda request: HandlerDecision.block(403)))
        with running.tunnel(plain_tap.port) as client:
            assert post(client, "application/grpc-web", CALL).status == 403
        assert seen(running) == []
        assert "on_stream_end" not in running.handler.names

    def test_messages_of_a_call_that_is_answered_otherwise(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        respond_with(plain_tap, "text/plain", b"no such method")
        running = proxy()
        with running.tunnel(plain_tap.port) as client:
            assert post(client, "application/grpc", CALL).body == b"no such method"
        assert seen(running) == call("to_upstream", b"one", b"", b"three")
        assert running.handler.of("on_response")[0].body == b"no such method"
        assert running.handler.names.count("on_stream_end") == 1

    def test_a_long_upload_is_shown_in_turns(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        """Each message once, in order, though what was collected is far more than is framed at once."""
        contents = [pattern(number % 5000) for number in range(1000)]
        body = b"".join(message(content) for content in contents)
        running = proxy(**{"flow_runtime.dispatch_queue_capacity": 8})
        respond_with(plain_tap, "application/grpc-web", REPLY)
        with running.tunnel(plain_tap.port) as client:
            assert post(client, "application/grpc-web", body).status == 200
        assert [chunk[2] for chunk in seen(running) if chunk[0] == "to_upstream"] == contents

    def test_a_handler_that_suspends_paces_the_upload(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        class Slow(InterceptHandler):
            def __init__(self) -> None:
                self.seen: list[bytes] = []

            async def on_request(self, request: RawRequest) -> HandlerDecision:
                return HandlerDecision.ALLOW

            async def on_stream_chunk(self, chunk: StreamChunk) -> None:
                await asyncio.sleep(0)
                self.seen.append(chunk.payload)

        contents = [b"%d" % number for number in range(1000)]
        body = b"".join(message(content) for content in contents)
        running = proxy(Slow(), **{"flow_runtime.dispatch_queue_capacity": 4})
        respond_with(plain_tap, "text/plain", b"ok")
        with running.tunnel(plain_tap.port) as client:
            assert post(client, "application/grpc-web", body).status == 200
        running.wait_idle()
        metrics = running.metrics()
        # what did not fit when all had been relayed is counted
        assert len(running.handler.seen) + metrics.dropped_dispatch_work_count == len(contents)
        assert metrics.buffered_bytes == 0
        seen = set(running.handler.seen)
        assert running.handler.seen == [content for content in contents if content in seen]

    def test_a_plain_upload_is_no_stream(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        running = proxy()
        with running.tunnel(plain_tap.port) as client:
            assert post(client, "application/grpcfoo", CALL).status == 200
            assert post(client, "application/x-ndjson", b"{}\n").status == 200
        assert seen(running) == []
        assert [request.body for request in running.handler.requests] == [CALL, b"{}\n"]


def aws(payload: bytes, event_type: str) -> bytes:
    name = event_type.encode()
    headers = b"\x0b:event-type\7" + struct.pack(">H", len(name)) + name + b"\x0d:message-type\7\0\5event"
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


LINES = call("to_client", b'{"a": 1}', b'{"b": 2}', kind="ndjson_line")


class TestResponses:
    @pytest.mark.parametrize(
        ("kind", "body", "expected"),
        [
            ("application/x-ndjson", b'{"a": 1}\n{"b": 2}', LINES),
            ("application/stream+json; charset=utf-8", b'{"a": 1}\n\n{"b": 2}\n', LINES),
            ("application/json-seq", b'\x1e{"a": 1}\n\x1e{"b": 2}\n', LINES),
            ("application/json-seq", b'\x1e{"a":\n 1}\n', call("to_client", b'{"a":\n 1}', kind="ndjson_line")),
            (
                "application/vnd.amazon.eventstream",
                aws(b"{}", "delta") + aws(b"", "end"),
                call("to_client", b"{}", b"", kind="eventstream_message"),
            ),
            ("application/vnd.acme+lines", b'{"a": 1}\n{"b": 2}', LINES),
            ("Application/Vnd.Acme+SSE; x=y", b"data: a\n\n", call("to_client", b"a", kind="sse_data")),
            ("text/plain", b"data: a\n\n", []),
        ],
    )
    def test_kinds(self, proxy: ProxyFactory, plain_tap: Tap, kind: str, body: bytes, expected: Seen) -> None:
        types = ["application/vnd.acme+lines=ndjson", "application/vnd.ACME+sse = sse"]
        respond_with(plain_tap, kind, body)
        running = proxy(**{"streams.types": types})
        with running.tunnel(plain_tap.port) as client:
            assert post(client, "text/plain", b"x").body == body
        assert seen(running) == expected
        assert running.metrics().stream_framing_error_count == 0

    def test_the_type_of_a_message_of_aws(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        respond_with(plain_tap, "application/vnd.amazon.eventstream", aws(b"{}", "contentBlockDelta"))
        running = proxy()
        with running.tunnel(plain_tap.port) as client:
            post(client, "text/plain", b"x")
        assert running.handler.wait("on_stream_chunk")[0].event_type == "contentBlockDelta"

    @pytest.mark.parametrize("coding", ["", "gzip"])
    def test_the_last_event_without_its_blank_line_is_delivered_as_incomplete(
        self, proxy: ProxyFactory, plain_tap: Tap, coding: str
    ) -> None:
        body = b'data: {"n": 1}\n\nevent: usage\ndata: {"tokens": 7}'
        respond_with(
            plain_tap, "text/event-stream", gzip.compress(body) if coding else body, f"Content-Encoding: {coding}\r\n" if coding else ""
        )
        running = proxy()
        with running.tunnel(plain_tap.port) as client:
            post(client, "application/json", b'{"stream": true}')
        first, last = running.handler.wait("on_stream_chunk", 2)
        assert (first.payload, first.complete) == (b'{"n": 1}', True)
        assert (last.payload, last.event_type, last.complete, last.truncated) == (b'{"tokens": 7}', "usage", False, False)
        assert last.request is running.handler.requests[0] and last.request.body == b'{"stream": true}'

    def test_a_frame_that_is_cut_to_the_budget_is_not_complete(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        respond_with(plain_tap, "text/event-stream", b"data: " + b"x" * 2000 + b"\n\n")
        running = proxy(**{"body.max_size_bytes": 1000})
        with running.tunnel(plain_tap.port) as client:
            post(client, "text/plain", b"x")
        (chunk,) = running.handler.wait("on_stream_chunk")
        assert (len(chunk.payload), chunk.truncated, chunk.complete) == (1000, True, False)

    def test_the_trailers_of_a_stream_are_there_at_its_end(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        def respond(connection: TapConnection, request: bytes) -> None:
            assert message_end(request) is not None
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.send(head + b"9\r\ndata: a\n\n\r\n0\r\nX-Sum: 1\r\n\r\n")

        plain_tap.respond = respond
        running = proxy()
        with running.tunnel(plain_tap.port) as client:
            post(client, "text/plain", b"x")
        running.handler.wait("on_stream_end")
        (response,) = running.handler.of("on_response")
        assert isinstance(response, RawResponse)
        assert response.trailers.get("x-sum") == "1"


def test_the_request_that_chunks_carry_is_let_go_when_memory_is_scarce(proxy: ProxyFactory, plain_tap: Tap) -> None:
    """As much as the budget is kept; a stream goes on all the same, and its chunks say so."""
    respond_with(plain_tap, "text/event-stream", b"".join(b"data: %b\n\n" % (b"x" * 30_000) for _ in range(4)))
    running = proxy(**{"max_in_flight_bytes": 65536, "body.max_size_bytes": 65536})
    with running.tunnel(plain_tap.port) as client:
        post(client, "text/plain", bytes(60_000))
    running.wait_idle()
    chunks = running.handler.wait("on_stream_chunk", 4)
    assert all(chunk.request.path == "/call" for chunk in chunks)
    assert all(chunk.request.body in (bytes(60_000), b"") for chunk in chunks)
    assert all(chunk.request.body_problem == "too_long" for chunk in chunks if not chunk.request.body)
    assert running.metrics().buffered_bytes == 0
