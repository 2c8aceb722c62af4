"""`filter_stream_chunk` in a proxy: what a client is sent of a stream, in every pairing of protocols, and what ends it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import itertools
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import brotli
import pytest
from h2.exceptions import ProtocolError

from soth_mitm import ChunkDecision, FrameKind, HandlerDecision, InterceptHandler, RawRequest, SseEvent, StreamChunk
from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

PAIRINGS = [(client, upstream) for client in ("h1", "h2") for upstream in ("h1", "h2")]
PASS, DROP, END = ChunkDecision.PASS, ChunkDecision.DROP, ChunkDecision.END
EVENTS = b"event: a\nid: 1\ndata: one\n\n: ping\n\ndata: two\n\ndata: three\r\n\r\n"
CANCEL = 8

Decide = Callable[[StreamChunk], ChunkDecision | Awaitable[ChunkDecision]]


class Filtering(Recording):
    """Decides as the test says, and notes what it was asked about."""

    def __init__(self, choose: Decide) -> None:
        super().__init__()
        self.choose = choose

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self._note("filter_stream_chunk", chunk)
        return self.choose(chunk)


class OnlyFilter(InterceptHandler):
    """Overrides nothing else."""

    def __init__(self, choose: Decide) -> None:
        self.choose = choose
        self.asked: list[StreamChunk] = []

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self.asked.append(chunk)
        return self.choose(chunk)


class AskedFirst(OnlyFilter):
    """Has the proxy offer HTTP/2 to a client before it knows what the upstream speaks."""

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.ALLOW


class Client:
    """A client of either protocol, in the middle of an answer."""

    def __init__(self, connection: WireClient, port: int, is_h2: bool) -> None:
        self.connection = connection
        self.authority = f"{HOST}:{port}"
        self.h2 = Http2Client(connection.socket, self.authority) if is_h2 else None

    def ask(self, path: str = "/x", method: str = "GET", **fields: str) -> Any:
        if self.h2 is not None:
            return self.h2.request(path, method=method, fields=[(name.replace("_", "-"), value) for name, value in fields.items()])
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        return self.connection.request(path, self.authority, method, None, lines)

    def begin(self, path: str = "/x") -> None:
        """Send a request, and read its answer by `read_until` and `rest`."""
        if self.h2 is not None:
            self.number = self.h2.open(path)
        else:
            self.connection.send(f"GET {path} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode())
            self.raw = b""

    def read_until(self, content: bytes) -> bytes:
        """Read until the answer's content has `content` in it; return all of it."""
        while content not in self.content():
            if self.h2 is not None:
                self.h2.read()
            else:
                data = self.connection.socket.recv(65536)
                if not data:
                    raise EOFError(self.raw)
                self.raw += data
        return self.content()

    def content(self) -> bytes:
        if self.h2 is not None:
            return self.h2.streams[self.number].body
        _, _, rest = self.raw.partition(b"\r\n\r\n")
        out = b""
        while True:
            line, mark, rest = rest.partition(b"\r\n")
            size = int(line, 16) if mark and line else 0
            if size == 0 or len(rest) < size + 2:
                return out
            out, rest = out + rest[:size], rest[size + 2 :]


class Scene:
    def __init__(self, running: Running, origin: Origin, client: str) -> None:
        self.running = running
        self.origin = origin
        connection = running.secured(origin.port, HOST, *(["h2", "http/1.1"] if client == "h2" else ["http/1.1"]))
        if (connection.tls.selected_alpn_protocol() == "h2") != (client == "h2"):
            # in monitor mode the upstream is reached first, and what it speaks is offered
            assert running.handler.__class__ is Filtering
            connection.socket.close()
            pytest.skip("a client is offered what the upstream speaks")
        self.client = Client(connection, origin.port, client == "h2")


SceneFactory = Callable[..., Scene]


@pytest.fixture(params=PAIRINGS, ids="".join)
def scene(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[SceneFactory]:
    client, upstream = request.param
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin(origin_ca.server_context(HOST, alpn=["h2"] if upstream == "h2" else []), host=HOST))
        made: list[Scene] = []

        def make(choose: Any, **keys: Any) -> Scene:
            plain = AskedFirst if request.param == ("h2", "h1") else OnlyFilter
            handler = choose if isinstance(choose, InterceptHandler) else plain(choose)
            made.append(Scene(proxy(handler, **{"http2.for_http1_clients": True, **keys}), origin, client))
            return made[-1]

        yield make
        for each in made:
            each.client.connection.socket.close()
            each.running.wait_idle()
            assert each.running.metrics().buffered_bytes == 0


def serve(
    origin: Origin, *pieces: bytes, head: str = "", media_type: str = "text/event-stream", trailers: bytes = b"", path: str = "/x"
) -> None:
    """Let the origin answer with these pieces, chunked, each written by itself."""

    def answer(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        text = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n{head}Transfer-Encoding: chunked\r\n\r\n"
        # the proxy may not want all of it
        with contextlib.suppress(ProtocolError):
            connection.send(text.encode())
            for piece in pieces:
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.send(b"0\r\n" + trailers + b"\r\n")

    origin.script(answer, path)


def decided(metrics: Any) -> tuple[int, ...]:
    return tuple(metrics.filtered_chunk_count_by_decision.values())


class TestStreams:
    def test_what_passes_keeps_its_bytes(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: PASS)
        for pieces in ([EVENTS], [EVENTS[at : at + 1] for at in range(len(EVENTS))]):
            serve(made.origin, *pieces)
            assert made.client.ask().body == EVENTS
        assert decided(made.running.metrics()) == (6, 0, 0, 0)
        assert sum(made.running.metrics().filter_count_by_seconds.values()) == 6

    def test_drop_and_replace(self, scene: SceneFactory) -> None:
        decisions = {b"one": ChunkDecision.replace("1", SseEvent("2", event="b")), b"two": DROP, b"three": PASS}
        made = scene(Filtering(lambda chunk: decisions[chunk.payload]))
        serve(made.origin, EVENTS[:30], EVENTS[30:])
        assert made.client.ask().body == (b"event: a\nid: 1\ndata: 1\n\nevent: b\ndata: 2\n\n: ping\n\ndata: three\r\n\r\n")
        handler = made.running.handler
        shown = [(chunk.payload, chunk.replaced, chunk.sequence) for chunk in handler.wait("on_stream_chunk", 3)]
        assert shown == [(b"1", True, 0), (b"2", True, 1), (b"three", False, 2)]
        asked = handler.of("filter_stream_chunk")
        assert [(chunk.payload, chunk.sequence, chunk.direction) for chunk in asked] == [
            (b"one", 0, "to_client"),
            (b"two", 1, "to_client"),
            (b"three", 2, "to_client"),
        ]
        assert all(chunk.request is handler.requests[0] and chunk.flow_id == chunk.request.flow_id for chunk in asked)
        assert all(chunk.connection_id == chunk.connection_meta.connection_id for chunk in asked)
        assert decided(made.running.metrics()) == (1, 1, 1, 0)
        names = [name for name in handler.names if name in ("on_request", "on_response", "filter_stream_chunk", "on_stream_chunk")]
        assert names == [
            *("on_request", "on_response", "filter_stream_chunk", "on_stream_chunk", "on_stream_chunk"),
            *("filter_stream_chunk", "filter_stream_chunk", "on_stream_chunk"),
        ]

    def test_the_head_says_nothing_of_other_bytes(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: PASS)
        head = 'ETag: "a"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n'
        head += "Content-MD5: x\r\nDigest: y\r\nX-Kept: z\r\n"
        length = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{head}Content-Length: {len(EVENTS)}\r\n\r\n".encode()
        made.origin.script(lambda connection, request: connection.send(length + EVENTS), "/x")
        answer = made.client.ask()
        assert answer.body == EVENTS
        for name in ("content-length", "etag", "last-modified", "accept-ranges", "content-md5", "digest"):
            assert answer.get(name) is None, name
        assert (answer.get("x-kept"), answer.get("content-type")) == ("z", "text/event-stream")

    def test_trailers_stay(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: DROP)
        serve(made.origin, EVENTS, head="Trailer: X-Sum\r\n", trailers=b"X-Sum: 1\r\n")
        answer = made.client.ask()
        assert answer.body == b": ping\n\n"
        trailers = answer.trailers
        assert "x-sum" in str(trailers).lower()

    @pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, br"])
    def test_codings_are_removed(self, scene: SceneFactory, coding: str) -> None:
        made = scene(lambda chunk: ChunkDecision.replace("x") if chunk.payload == b"two" else PASS)
        coded = EVENTS
        for each in coding.split(", "):
            coded = encoded(each, coded)
        serve(made.origin, *(coded[at : at + 7] for at in range(0, len(coded), 7)), head=f"Content-Encoding: {coding}\r\n")
        answer = made.client.ask(accept_encoding=coding)
        assert (answer.body, answer.get("content-encoding")) == (EVENTS.replace(b"two", b"x"), None)

    @pytest.mark.parametrize(
        ("head", "fields", "why"),
        [
            ("Content-Encoding: lzma\r\n", {}, "the content coding 'lzma' is not known"),
            ("Content-Encoding: gzip\r\n", {"accept_encoding": "gzip, identity;q=0"}, "takes no other coding"),
            ("Content-Encoding: gzip\r\n", {"accept_encoding": "gzip, *;q=0"}, "takes no other coding"),
        ],
    )
    def test_what_cannot_be_filtered_is_answered_502(self, scene: SceneFactory, head: str, fields: dict[str, str], why: str) -> None:
        made = scene(lambda chunk: PASS)
        serve(made.origin, gzip.compress(EVENTS), head=head)
        answer = made.client.ask(**fields)
        assert answer.status == 502 and why in answer.text
        assert made.running.handler.asked == []

    def test_a_part_of_a_stream_is_answered_502(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: PASS)
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Type: text/event-stream\r\nContent-Length: {len(EVENTS)}\r\n\r\n".encode()
        made.origin.script(lambda connection, request: connection.send(head + EVENTS), "/x")
        answer = made.client.ask()
        assert answer.status == 502 and "206" in answer.text

    def test_content_that_cannot_be_decoded_cuts_the_stream(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: PASS)
        coded = gzip.compress(EVENTS)
        serve(made.origin, coded[:-9], b"\xff" * 9, head="Content-Encoding: gzip\r\n")
        made.client.begin()
        assert_cut(made.client, EVENTS)
        assert made.running.metrics().cut_response_count == 1

    @pytest.mark.parametrize(
        ("media_type", "stream", "expected"),
        [
            ("application/x-ndjson", b'{"a": 1}\n\n{"b": 2}', b'"new"\n\n"new"'),
            ("application/json-seq", b'\x1e{"a": 1}\n', b'\x1e"new"\n'),
            ("application/grpc-web", struct.pack(">BI", 0, 3) + b"one", struct.pack(">BI", 0, 5) + b'"new"'),
            (
                "application/grpc-web-text",
                base64.b64encode(struct.pack(">BI", 0, 3) + b"one"),
                base64.b64encode(struct.pack(">BI", 0, 5) + b'"new"'),
            ),
        ],
    )
    def test_other_kinds(self, scene: SceneFactory, media_type: str, stream: bytes, expected: bytes) -> None:
        made = scene(lambda chunk: ChunkDecision.replace('"new"'))
        serve(made.origin, *(stream[at : at + 3] for at in range(0, len(stream), 3)), media_type=media_type)
        assert made.client.ask().body == expected

    def test_a_long_stream_keeps_its_order(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: DROP if int(chunk.payload) % 3 == 0 else PASS)
        events = [b"data: %d\n\n" % number for number in range(20_000)]
        whole = b"".join(events)
        serve(made.origin, *(whole[at : at + 50_000] for at in range(0, len(whole), 50_000)))
        assert made.client.ask().body == b"".join(event for number, event in enumerate(events) if number % 3)

    def test_head_and_empty_responses_are_as_they_came(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: END)
        text = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\nETag: "a"\r\n\r\n'
        made.origin.script(
            lambda connection, request: connection.send(text if request.method == "HEAD" else text.replace(b" 9", b" 0")), "/x"
        )
        for method in ("HEAD", "GET"):
            answer = made.client.ask(method=method)
            assert (answer.status, answer.get("etag"), answer.body) == (200, '"a"', b"")


class TestNotFiltered:
    @pytest.mark.parametrize(
        ("kinds", "media_type", "keys"),
        [
            ({FrameKind.GRPC_MESSAGE}, "text/event-stream", {}),
            (set(FrameKind), "text/plain", {}),
            (set(FrameKind), "text/event-stream", {"intercept_mode": "monitor"}),
        ],
    )
    def test_the_bytes_are_those_of_the_upstream(
        self, scene: SceneFactory, kinds: set[FrameKind], media_type: str, keys: dict[str, str]
    ) -> None:
        handler: Any = Filtering(lambda chunk: END)
        handler.filter_kinds = kinds
        made = scene(handler, **keys)
        coded = gzip.compress(EVENTS)
        serve(made.origin, coded, head='Content-Encoding: gzip\r\nETag: "a"\r\n', media_type=media_type)
        answer = made.client.ask()
        assert (answer.body, answer.get("content-encoding"), answer.get("etag")) == (coded, "gzip", '"a"')
        assert handler.of("filter_stream_chunk") == [] and decided(made.running.metrics()) == (0, 0, 0, 0)
        if media_type != "text/plain":
            assert [chunk.payload for chunk in handler.wait("on_stream_chunk", 3)] == [b"one", b"two", b"three"]


def encoded(coding: str, data: bytes) -> bytes:
    if coding == "br":
        return bytes(brotli.compress(data))
    if coding == "zstd":
        zstd = pytest.importorskip("backports.zstd")
        return bytes(zstd.compress(data))
    return gzip.compress(data)


def assert_cut(client: Client, content: bytes) -> None:
    """The client has that, and can tell that it is not all."""
    if client.h2 is not None:
        answer = client.h2.answer(client.number)
        assert (answer.body, answer.ended) == (content, False) and answer.reset is not None
        return
    with contextlib.suppress(EOFError, OSError):
        client.read_until(b"never")
    assert client.content() == content
    assert not client.raw.endswith(b"0\r\n\r\n")


class Gate:
    """A filter that suspends at a payload until the test opens it."""

    def __init__(self, payload: bytes = b"two", decision: ChunkDecision = PASS) -> None:
        self.payload = payload
        self.decision = decision
        self.reached = threading.Event()
        self.cancelled = threading.Event()
        self.is_open = False
        self.waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def open(self) -> None:
        self.is_open = True
        if self.waiting is not None:
            loop, event = self.waiting
            loop.call_soon_threadsafe(event.set)

    async def __call__(self, chunk: StreamChunk) -> ChunkDecision:
        if chunk.payload != self.payload:
            return PASS
        event = asyncio.Event()
        self.waiting = asyncio.get_running_loop(), event
        self.reached.set()
        try:
            if not self.is_open:
                await event.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.decision


BEFORE = EVENTS[: EVENTS.index(b"data: two")]


class TestHolds:
    @pytest.mark.parametrize("decision", [PASS, DROP])
    def test_nothing_of_an_event_leaves_before_its_decision(self, scene: SceneFactory, decision: ChunkDecision) -> None:
        gate = Gate(decision=decision)
        made = scene(gate)
        serve(made.origin, *(EVENTS[at : at + 1] for at in range(len(EVENTS))))
        made.client.begin()
        assert gate.reached.wait(9)
        assert made.client.read_until(BEFORE) == BEFORE
        made.client.connection.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            made.client.read_until(b"two")
        made.client.connection.socket.settimeout(9)
        gate.open()
        expected = EVENTS if decision is PASS else EVENTS.replace(b"data: two\n\n", b"")
        assert made.client.read_until(b"three\r\n\r\n") == expected

    def test_a_source_that_is_not_read_is_slowed(self, scene: SceneFactory) -> None:
        """While the handler decides on one event, of all that comes behind it no more is taken than fits into a window or a socket."""
        gate = Gate(b"0")
        made = scene(gate, **{"max_in_flight_bytes": 4 << 20, "body.max_size_bytes": 1 << 20})
        sent: list[int] = []
        event = b"data: " + b"x" * 16_000 + b"\n\n"

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 0\n\n")
            for number in range(4000):
                connection.send(event)
                sent.append(number)
            connection.close()

        made.origin.script(answer, "/x")
        made.client.begin()
        assert gate.reached.wait(9)
        held = 0
        for before in itertools.count():
            count = len(sent)
            held = max(held, made.running.metrics().buffered_bytes)
            gate.cancelled.wait(0.05)
            if count == len(sent) or before > 200:
                break
        assert len(sent) < 4000 and held < 4 << 20
        gate.open()
        read_whole(made.client, len(event) * 4000 + 9)

    def test_a_client_that_leaves_ends_the_wait(self, scene: SceneFactory) -> None:
        gate = Gate()
        made = scene(Recorder(gate))
        serve(made.origin, EVENTS)
        made.client.begin()
        assert gate.reached.wait(9)
        leave(made.client)
        assert gate.cancelled.wait(9)
        made.running.wait_idle("active_flows")
        assert made.running.metrics().handler_panic_count == 0
        assert made.running.handler.names.count("on_stream_end") == 1

    @pytest.mark.parametrize("decision", [PASS, END])
    def test_an_upstream_that_leaves_waits_for_the_decision(self, scene: SceneFactory, decision: ChunkDecision) -> None:
        gate = Gate(decision=decision)
        made = scene(gate)
        left = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            content = EVENTS[: EVENTS.index(b"data: three")] + b"data: thr"
            connection.send(head + b"%x\r\n%b\r\n" % (len(content), content))
            connection.wait(gate.reached)
            connection.reset()
            left.set()

        made.origin.script(answer, "/x")
        made.client.begin()
        assert left.wait(9)
        gate.open()
        if decision is PASS:
            assert_cut(made.client, EVENTS[: EVENTS.index(b"data: three")])
        else:
            assert_ended(made.client, BEFORE)

    def test_a_hook_that_is_late_goes_by_the_failure_policy(self, scene: SceneFactory) -> None:
        for policy in ("allow", "block"):
            gate = Gate()
            made = scene(gate, **{"handler.response_timeout_ms": 100, "handler.failure_policy": policy})
            serve(made.origin, EVENTS)
            made.client.begin()
            if policy == "allow":
                assert made.client.read_until(b"three\r\n\r\n") == EVENTS
            else:
                assert_ended(made.client, BEFORE)
            assert made.running.metrics().handler_timeout_count == 1


class Recorder(Filtering):
    """A `Filtering` whose filter suspends."""


def leave(client: Client) -> None:
    if client.h2 is not None:
        client.h2.h2.reset_stream(client.number, CANCEL)
        client.h2.flush()
    else:
        client.connection.socket.close()


def read_whole(client: Client, size: int) -> None:
    """Read content of that size and no more."""
    total = 0
    if client.h2 is not None:
        answer = client.h2.streams[client.number]
        while not answer.over:
            client.h2.read()
            total, answer.body = total + len(answer.body), b""
        assert answer.ended
    else:
        while not client.raw.endswith(b"\r\n0\r\n\r\n"):
            data = client.connection.socket.recv(1 << 20)
            total += len(data)
            client.raw = client.raw[-7:] + data
        # and the chunks' lines
        assert size < total < size * 1.1
        return
    assert total == size


def assert_ended(client: Client, content: bytes) -> None:
    """The client has that, and it ends in order."""
    if client.h2 is not None:
        answer = client.h2.answer(client.number)
        assert (answer.body, answer.ended, answer.reset) == (content, True, None)
        return
    while not client.raw.endswith(b"\r\n0\r\n\r\n"):
        data = client.connection.socket.recv(65536)
        assert data, client.raw
        client.raw += data
    assert client.content() == content


class TestEnds:
    def test_end_ends_the_response_and_cancels_the_upstream(self, scene: SceneFactory) -> None:
        made = scene(Filtering(lambda chunk: END if chunk.payload == b"two" else PASS))
        gone = threading.Event()

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    connection.send(b"%x\r\n%b\r\n" % (len(EVENTS), EVENTS))
            except (OSError, ProtocolError):
                gone.set()

        made.origin.script(answer, "/x")
        made.client.begin()
        assert_ended(made.client, BEFORE)
        # the connection is of use for another request
        serve(made.origin, b"data: one\n\n", path="/y")
        assert made.client.ask("/y").body == b"data: one\n\n"
        assert decided(made.running.metrics()) == (2, 0, 0, 1)
        assert made.running.metrics().cut_response_count == 1
        made.running.handler.wait("on_stream_end", 2)
        assert gone.wait(9)

    @pytest.mark.parametrize("policy", ["allow", "block"])
    @pytest.mark.parametrize("answer", [ValueError("on purpose"), None, "replace"])
    def test_failures(self, scene: SceneFactory, policy: str, answer: Any) -> None:
        def choose(chunk: StreamChunk) -> Any:
            if chunk.payload != b"two":
                return PASS
            if isinstance(answer, Exception):
                raise answer
            return ChunkDecision.replace() if answer == "replace" else answer

        made = scene(choose, **{"handler.failure_policy": policy})
        serve(made.origin, EVENTS)
        made.client.begin()
        if isinstance(answer, Exception) and policy == "allow":
            assert made.client.read_until(b"three\r\n\r\n") == EVENTS
        else:
            assert_ended(made.client, BEFORE)
        assert made.running.metrics().handler_panic_count == 1

    def test_recover_from_panics_off_cuts_the_stream(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: 1 / 0 if chunk.payload == b"two" else PASS, **{"handler.recover_from_panics": False})
        serve(made.origin, EVENTS)
        made.client.begin()
        assert_cut(made.client, BEFORE)

    def test_a_stream_that_is_cut_by_its_upstream_keeps_its_undecided_end(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: PASS)

        def answer(connection: ScriptedConnection, request: Request) -> None:
            content = BEFORE + b"data: tw"
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.send(b"%x\r\n%b\r\n" % (len(content), content))
            connection.reset()

        made.origin.script(answer, "/x")
        made.client.begin()
        assert_cut(made.client, BEFORE)
        assert [chunk.payload for chunk in made.running.handler.asked] == [b"one"]

    def test_a_last_event_without_its_blank_line(self, scene: SceneFactory) -> None:
        gate = Gate(b"last")
        gate.open()
        made = scene(gate)
        serve(made.origin, b"data: a\n\ndata: last")
        assert made.client.ask().body == b"data: a\n\ndata: last"
        assert [(chunk.payload, chunk.complete) for chunk in made.running.handler.asked] == [(b"a", True), (b"last", False)]

    @pytest.mark.parametrize("keys", [{}, {"body.incomplete": "refuse"}, {"body.overflow": "reject"}])
    def test_a_frame_that_is_too_long(self, scene: SceneFactory, keys: dict[str, str]) -> None:
        made = scene(lambda chunk: PASS, **{"body.max_size_bytes": 10_000, **keys})
        stream = b"data: a\n\ndata: " + b"x" * 200_000 + b"\n\ndata: b\n\n"
        serve(made.origin, *(stream[at : at + 10_000] for at in range(0, len(stream), 10_000)))
        made.client.begin()
        if keys:
            assert_ended(made.client, b"data: a\n\n")
        else:
            assert made.client.read_until(b"data: b\n\n") == stream
            assert [(len(chunk.payload), chunk.truncated) for chunk in made.running.handler.asked] == [
                (1, False),
                (10_000, True),
                (1, False),
            ]


MANY_EVENTS = b"".join(b"data: %d\n\n" % number for number in range(200))
FORMS = {
    "length": b"Content-Length: %d\r\n\r\n" % len(MANY_EVENTS) + MANY_EVENTS,
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % octet for octet in MANY_EVENTS) + b"0\r\n\r\n",
    "close": b"\r\n" + MANY_EVENTS,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("every", [1, 70])
def test_the_end_of_a_connection_does_not_overtake_what_is_decided_on(proxy: ProxyFactory, origin: Origin, form: str, every: int) -> None:
    """All of the response and the end (TLS) are read at once, and the hook suspends."""
    answered = threading.Event()

    async def later() -> ChunkDecision:
        await asyncio.sleep(0)
        return PASS

    class Later(OnlyFilter):
        def on_request(self, request: RawRequest) -> HandlerDecision:
            if request.path == "/last":
                # the loop stands still until all of the answer is here
                asyncio.get_running_loop().call_soon(answered.wait, 10)
            return HandlerDecision.ALLOW

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + FORMS[form])
        connection.close()
        answered.set()

    origin.script(script, "/last")
    running = proxy(Later(lambda chunk: later() if int(chunk.text) % every == 0 else PASS))
    with running.secured(origin.port) as client:
        assert client.request("/status/204", HOST).status == 204
        assert client.request("/last", HOST).body == MANY_EVENTS
    assert len(origin.connections) == 1
    running.wait_idle("active_connections", "active_flows", "buffered_bytes")


class TestUploads:
    """gRPC-Web over HTTP/1 and HTTP/2, as browsers speak it; grpcio's calls are in test_grpc_filters."""

    @staticmethod
    def message(payload: bytes) -> bytes:
        return struct.pack(">BI", 0, len(payload)) + payload

    def call(self, made: Scene, body: bytes) -> Any:
        client = made.client
        if client.h2 is not None:
            fields = [("content-type", "application/grpc-web"), ("content-length", str(len(body)))]
            return client.h2.request("/x", method="POST", fields=fields, body=body)
        return client.connection.request("/x", client.authority, "POST", body, "Content-Type: application/grpc-web\r\n")

    @pytest.mark.parametrize("asks", [True, False])
    def test_a_request_is_filtered_message_by_message(self, scene: SceneFactory, asks: bool) -> None:
        decisions = {b"one": PASS, b"two": DROP, b"three": ChunkDecision.replace("3", "4")}

        def choose(chunk: StreamChunk) -> ChunkDecision:
            return decisions.get(chunk.payload, PASS)

        made = scene(Filtering(choose) if asks else choose)
        serve(made.origin, self.message(b"ok"), media_type="application/grpc-web")
        answer = self.call(made, b"".join(map(self.message, (b"one", b"two", b"three"))))
        assert (answer.status, answer.body) == (200, self.message(b"ok"))
        (request,) = made.origin.wait_requests(1)
        assert bytes(request.body) == b"".join(map(self.message, (b"one", b"3", b"4")))
        assert request.get("content-length") is None
        assert decided(made.running.metrics()) == (2, 1, 1, 0)

    def test_a_handler_that_suspends(self, scene: SceneFactory) -> None:
        async def choose(chunk: StreamChunk) -> ChunkDecision:
            await asyncio.sleep(0)
            return DROP if chunk.payload[-1:] == b"7" else PASS

        made = scene(choose)
        payloads = [b"%d" % number for number in range(300)]
        serve(made.origin, self.message(b"ok"), media_type="application/grpc-web")
        assert self.call(made, b"".join(map(self.message, payloads))).body == self.message(b"ok")
        (request,) = made.origin.wait_requests(1)
        assert bytes(request.body) == b"".join(self.message(each) for each in payloads if each[-1:] != b"7")

    @pytest.mark.parametrize(
        ("choose", "status"),
        [(lambda chunk: END if chunk.payload == b"two" else PASS, 403), (lambda chunk: None if chunk.payload == b"two" else PASS, 502)],
    )
    def test_end_answers_where_no_response_has_begun(self, scene: SceneFactory, choose: Any, status: int) -> None:
        made = scene(choose)
        answer = self.call(made, self.message(b"one") + self.message(b"two") + self.message(b"three"))
        assert answer.status == status
        made.running.wait_idle("active_flows")
        for request in made.origin.requests:
            assert b"two" not in bytes(request.body) and b"three" not in bytes(request.body)

    def test_a_coding_that_is_not_known_is_answered_415(self, scene: SceneFactory) -> None:
        made = scene(lambda chunk: PASS)
        client = made.client
        if client.h2 is not None:
            fields = [("content-type", "application/grpc-web"), ("content-encoding", "lzma")]
            answer = client.h2.request("/x", method="POST", fields=fields, body=b"abc")
        else:
            answer = client.connection.request(
                "/x", client.authority, "POST", b"abc", "Content-Type: application/grpc-web\r\nContent-Encoding: lzma\r\n"
            )
        assert answer.status == 415 and made.origin.requests == []

    def test_a_body_of_the_handler_is_not_filtered(self, scene: SceneFactory) -> None:
        class Own(OnlyFilter):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                return HandlerDecision.forward(body=TestUploads.message(b"own"))

        made = scene(Own(lambda chunk: END if chunk.direction == "to_upstream" else PASS))
        serve(made.origin, self.message(b"ok"), media_type="application/grpc-web")
        assert self.call(made, self.message(b"one")).body == self.message(b"ok")
        assert bytes(made.origin.wait_requests(1)[0].body) == self.message(b"own")


OPENAI = (
    b"".join(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text for text in (b"Write to ann", b"@exam", b"ple.org", b" today"))
    + b"data: [DONE]\n\n"
)
ANTHROPIC = (
    b"".join(
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"%b"}}\n\n' % text
        for text in (b"Write to ann", b"@exam", b"ple.org", b" today")
    )
    + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


class Redacting(AskedFirst):
    """Takes an address out of the text of deltas, split over events or not: what may be its beginning is held back, as whole events."""

    filter_kinds = frozenset({FrameKind.SSE_DATA})
    ADDRESS = b"ann@example.org"

    def __init__(self) -> None:
        super().__init__(lambda chunk: PASS)
        self.held: list[bytes] = []

    async def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        begin, mark, rest = chunk.payload.partition(b'"content":"' if b"choices" in chunk.payload else b'"text":"')
        text, quote, end = rest.partition(b'"')
        if not mark:
            return PASS
        whole = b"".join(self.held) + text
        if any(whole.endswith(self.ADDRESS[:count]) for count in range(1, len(self.ADDRESS))):
            self.held = [whole]
            return DROP
        self.held = []
        clean = whole.replace(self.ADDRESS, b"[redacted]")
        return PASS if clean == text else ChunkDecision.replace(begin + mark + clean + quote + end)


@pytest.mark.parametrize("stream", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
def test_an_address_that_is_split_over_events_is_redacted(scene: SceneFactory, stream: bytes) -> None:
    made = scene(Redacting())
    serve(made.origin, *(stream[at : at + 11] for at in range(0, len(stream), 11)))
    body = made.client.ask().body
    assert b"ann" not in body and b"exam" not in body
    assert b"Write to [redacted]" in body and b" today" in body
    assert body.endswith(stream[-40:])
    # each event has its type, and is JSON as before
    for event in body.split(b"\n\n")[:-1]:
        assert event.startswith((b"data: ", b"event: content_block_delta\ndata: ", b"event: message_stop\ndata: "))


def test_a_client_of_http10_reads_until_the_end(proxy: ProxyFactory, plain_origin: Origin) -> None:
    serve(plain_origin, EVENTS)
    running = proxy(OnlyFilter(lambda chunk: PASS))
    with running.tunnel(plain_origin.port) as client:
        client.send(b"GET /x HTTP/1.0\r\n\r\n")
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")
    assert body == EVENTS and b"chunked" not in head.lower() and b"content-length" not in head.lower()
