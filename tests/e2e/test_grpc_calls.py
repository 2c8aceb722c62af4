"""gRPC through the proxy as grpcio speaks it: what arrives when, how calls end on either side, and what a handler sees.

Server and client are of this process, so that a test may act on either side of a call that is under way.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import ChunkDecision, HandlerDecision, InterceptHandler, MitmProxyBuilder, RawRequest, ShutdownTimeoutError, StreamChunk
from soth_mitm.observe.observation import EventKind
from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin
from support.recording import Observing, Recording
from support.running import HOST, ProxyFactory, Running, configure
from support.watcher import Watcher

grpc = pytest.importorskip("grpc")

PATIENCE = 20
LARGE = bytes(range(256)) * (8 << 12)
"""8 MiB."""
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
HANDLERS = [InterceptHandler, Recording, Observing]


class Service:
    """A server whose method is a function of the test: `behave(requests, context)` yields the answers. It notes each call."""

    def __init__(self, behave: Callable[[Iterator[bytes], Any], Iterator[bytes]], credentials: Any) -> None:
        self.behave = behave
        self.calls: list[Any] = []
        self.over = threading.Event()
        """A call ended, in whatever way."""
        self._threads = futures.ThreadPoolExecutor(8)
        self._server = grpc.server(self._threads, options=UNLIMITED)
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Any", {"Call": method}),))
        if credentials is None:
            self.port = self._server.add_insecure_port("localhost:0")
        else:
            self.port = self._server.add_secure_port("localhost:0", credentials)
        self._server.start()

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.calls.append(context)
        assert context.add_callback(self.over.set)
        return self.behave(requests, context)

    def close(self) -> None:
        self._server.stop(0).wait(PATIENCE)
        self._threads.shutdown()


def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """Answer each message with itself."""
    yield from requests


def credentials(origin_ca: TestCA) -> Any:
    chain, key = origin_ca.issue(HOST)
    return grpc.ssl_server_credentials([(key, chain)])


class Start:
    """Start services, over TLS unless told otherwise, and stop them when the test ends."""

    def __init__(self, origin_ca: TestCA) -> None:
        self._ca = origin_ca
        self._started: list[Service] = []

    def __call__(self, behave: Callable[[Iterator[bytes], Any], Iterator[bytes]] = echo, *, plain: bool = False) -> Service:
        self._started.append(Service(behave, None if plain else credentials(self._ca)))
        return self._started[-1]

    def close(self) -> None:
        for service in self._started:
            service.close()


@pytest.fixture(scope="session", autouse=True)
def _pollers(origin_ca: TestCA) -> Iterator[None]:
    """Hold what grpcio opens once for all its channels and servers, so that it is no leak of a test."""
    service = Service(echo, None)
    with grpc.insecure_channel(f"{HOST}:{service.port}", (("grpc.enable_http_proxy", 0),)) as made:
        assert list(call(made)) == [b"x"]
        yield
    service.close()


@pytest.fixture
def start(origin_ca: TestCA, proxy: ProxyFactory) -> Iterator[Start]:
    starting = Start(origin_ca)
    yield starting
    starting.close()


@contextmanager
def channel(running: Running, port: int, *options: tuple[str, Any], plain: bool = False) -> Iterator[Any]:
    """A channel of the client through the proxy."""
    every = (("grpc.http_proxy", running.url), ("grpc.enable_http_proxy", 1), ("grpc.use_local_subchannel_pool", 1), *UNLIMITED, *options)
    target = f"{HOST}:{port}"
    if plain:
        made = grpc.insecure_channel(target, every)
    else:
        made = grpc.secure_channel(target, grpc.ssl_channel_credentials(running.ca_path.read_bytes()), every)
    with made:
        yield made


def call(made: Any, requests: Any = (b"x",), kind: str = "stream_stream", **how: Any) -> Any:
    """Begin a call of the kind."""
    sent = iter(requests) if kind.startswith("stream") else b"".join(requests)
    return getattr(made, kind)("/test.Any/Call")(sent, timeout=PATIENCE, **how)


def failure(begun: Any) -> Any:
    """Read a call to its end; return the error that it ended in."""
    with pytest.raises(grpc.RpcError) as caught:
        list(begun)
    return caught.value


class TestKinds:
    @pytest.mark.parametrize("handler", HANDLERS)
    @pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
    def test_the_first_call(self, proxy: ProxyFactory, start: Start, kind: str, handler: Any) -> None:
        service = start()
        with channel(proxy(handler()), service.port) as made:
            begun = call(made, kind=kind)
            assert (list(begun) if kind.endswith("stream") else begun) in ([b"x"], b"x")

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_nothing_of_a_conversation_waits_for_its_end(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        """The server speaks first, then each side only when the other has."""

        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            context.send_initial_metadata((("x-early", "yes"), ("x-raw-bin", b"\x00\xff")))
            yield b"first"
            yield from requests

        service = start(behave)
        to_send: queue.Queue[bytes | None] = queue.Queue()
        with channel(proxy(handler()), service.port) as made:
            begun = call(made, iter(to_send.get, None), metadata=(("x-sent-bin", b"\xff\x00"),))
            initial = dict(begun.initial_metadata())
            assert (initial["x-early"], initial["x-raw-bin"]) == ("yes", b"\x00\xff")
            assert next(begun) == b"first"
            for message in (b"a", b"", b"b" * 100_000):
                to_send.put(message)
                assert next(begun) == message
            to_send.put(None)
            assert list(begun) == [] and begun.code() == grpc.StatusCode.OK
        assert dict(service.calls[0].invocation_metadata())["x-sent-bin"] == b"\xff\x00"

    @pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
    @pytest.mark.parametrize("handler", HANDLERS)
    def test_large_messages(self, proxy: ProxyFactory, start: Start, handler: Any, compression: Any) -> None:
        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            if compression is not None:
                context.set_compression(compression)
            yield from requests

        service = start(behave)
        running = proxy(handler())
        with channel(running, service.port) as made:
            assert list(call(made, [LARGE, b"end"], compression=compression)) == [LARGE, b"end"]
        if handler is InterceptHandler:
            return
        running.handler.wait("on_stream_end")
        for direction in ("to_upstream", "to_client"):
            seen = [chunk for chunk in running.handler.of("on_stream_chunk") if str(chunk.direction) == direction]
            assert [(chunk.sequence, chunk.payload == expected) for chunk, expected in zip(seen, [LARGE, b"end"], strict=True)] == [
                (0, True),
                (1, True),
            ]


class TestWhatTheHandlerSees:
    @pytest.mark.parametrize("handler", [Recording, Observing])
    def test_a_call(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        service = start()
        running = proxy(handler())
        with channel(running, service.port) as made:
            assert list(call(made, [b"a", b"b", b"c"])) == [b"a", b"b", b"c"]
        seen = running.handler
        seen.wait("on_stream_end")
        for direction in ("to_upstream", "to_client"):
            chunks = [chunk for chunk in seen.of("on_stream_chunk") if str(chunk.direction) == direction]
            assert [(chunk.sequence, chunk.payload, str(chunk.frame_kind)) for chunk in chunks] == [
                (number, payload, "grpc_message") for number, payload in enumerate([b"a", b"b", b"c"])
            ]
        (response,) = seen.of("on_response")
        assert response.streaming and response.trailers.get("grpc-status") == "0"
        assert response.request.path == "/test.Any/Call" and response.request.body_problem == "conversation"

    @pytest.mark.parametrize("handler", [Recording, Observing])
    def test_a_call_that_fails_with_trailers_only(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            context.set_trailing_metadata((("x-more-bin", b"\x01"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "none: \u00e4")
            yield b""

        service = start(behave)
        running = proxy(handler())
        with channel(running, service.port) as made:
            error = failure(call(made))
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "none: \u00e4")
            assert dict(error.trailing_metadata())["x-more-bin"] == b"\x01"
        (response,) = running.handler.wait("on_response")
        running.handler.wait("on_stream_end")
        assert response.headers.get("grpc-status") == "5"


class TestEnds:
    @pytest.mark.parametrize("handler", HANDLERS)
    def test_the_client_cancels(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        """The server hears of it, though it waits for a message."""
        service = start()
        to_send: queue.Queue[bytes | None] = queue.Queue()
        running = proxy(handler())
        with channel(running, service.port) as made:
            begun = call(made, iter(to_send.get, None))
            to_send.put(b"a")
            assert next(begun) == b"a" and not service.over.is_set()
            begun.cancel()
            assert service.over.wait(PATIENCE) and not service.calls[0].is_active()
            to_send.put(None)
            assert begun.code() == grpc.StatusCode.CANCELLED
            # the channel is as good as before
            assert list(call(made)) == [b"x"]

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_the_client_cancels_before_the_answer_began(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        begun_there = threading.Event()

        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            begun_there.set()
            yield from requests

        service = start(behave)
        to_send: queue.Queue[bytes | None] = queue.Queue()
        with channel(proxy(handler()), service.port) as made:
            begun = call(made, iter(to_send.get, None))
            assert begun_there.wait(PATIENCE)
            begun.cancel()
            assert service.over.wait(PATIENCE)
            to_send.put(None)

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_the_server_cancels(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            yield next(requests)
            context.cancel()
            yield from requests

        service = start(behave)
        to_send: queue.Queue[bytes | None] = queue.Queue()
        with channel(proxy(handler()), service.port) as made:
            begun = call(made, iter(to_send.get, None))
            to_send.put(b"a")
            assert next(begun) == b"a"
            assert failure(begun).code() == grpc.StatusCode.CANCELLED
            to_send.put(None)

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_the_deadline_is_the_clients_own(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        left: list[float] = []

        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            left.append(context.time_remaining())
            yield from requests

        service = start(behave)
        to_send: queue.Queue[bytes | None] = queue.Queue()
        with channel(proxy(handler()), service.port) as made:
            list(call(made))
            assert 0 < left[0] <= PATIENCE
            begun = made.stream_stream("/test.Any/Call")(iter(to_send.get, None), timeout=1)
            assert failure(begun).code() == grpc.StatusCode.DEADLINE_EXCEEDED
            to_send.put(None)
            assert service.over.wait(PATIENCE)

    @pytest.mark.parametrize("plain", [False, True])
    @pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
    def test_a_call_that_the_handler_blocks(self, proxy: ProxyFactory, start: Start, kind: str, plain: bool) -> None:
        """The others of the channel go on."""

        def decide(request: RawRequest) -> HandlerDecision:
            return HandlerDecision.block(403, "not this: 100 % \u00e4\n") if "x-bad" in request.headers else HandlerDecision.ALLOW

        service = start(plain=plain)
        running = proxy(Recording(decide))
        with channel(running, service.port, plain=plain) as made:
            for _ in range(2):
                error = failure(call(made, kind=kind, metadata=(("x-bad", "1"),)))
                assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not this: 100 % \u00e4")
                assert list(call(made, kind=kind)) == [b"x"]
        assert len(service.calls) == 2

    @pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
    def test_a_block_that_speaks_grpc(self, proxy: ProxyFactory, start: Start, kind: str) -> None:
        """Status and message are those of the handler."""
        headers = {"Content-Type": "application/grpc", "grpc-status": "9", "grpc-message": "not this %C3%A4"}
        running = proxy(Recording(lambda request: HandlerDecision.block(200, b"", headers)))
        service = start()
        with channel(running, service.port) as made:
            error = failure(call(made, kind=kind))
            assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not this \u00e4")
        assert service.calls == []

    @pytest.mark.parametrize(
        ("status", "code"),
        [(400, "INTERNAL"), (401, "UNAUTHENTICATED"), (404, "UNIMPLEMENTED"), (429, "UNAVAILABLE"), (451, "UNKNOWN"), (304, "UNKNOWN")],
    )
    def test_statuses_of_blocks(self, proxy: ProxyFactory, start: Start, status: int, code: str) -> None:
        """As clients translate them (http-grpc-status-mapping), however long the text is."""
        text = b"" if status == 304 else b"\xff" + b"long " * 1000
        running = proxy(Recording(lambda request: HandlerDecision.block(status, text, {"x-why": "so", "Content-Language": "en"})))
        service = start()
        with channel(running, service.port) as made:
            error = failure(call(made))
            assert error.code().name == code
            assert error.details() == ("long " * 1000)[:999].strip() if text else not error.details()
            fields = dict(error.trailing_metadata()) | dict(error.initial_metadata())
            assert fields.get("x-why") == "so" and "content-language" not in fields
        assert service.calls == []

    def test_a_call_that_cannot_be_inspected(self, proxy: ProxyFactory, start: Start) -> None:
        service = start()
        running = proxy(**{"body.incomplete": "refuse"})
        with channel(running, service.port) as made:
            error = failure(call(made))
            assert error.code() == grpc.StatusCode.UNKNOWN and error.details()
        assert service.calls == [] and running.handler.requests == []

    @pytest.mark.parametrize("plain", [False, True])
    def test_an_authority_that_the_policy_blocks(self, proxy: ProxyFactory, start: Start, plain: bool) -> None:
        service = start(plain=plain)
        running = proxy(**{"interception.explain_blocks": True, "interception.blocked": [f"{HOST}:*"]})
        with channel(running, service.port, plain=plain) as made:
            error = failure(call(made))
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED and "interception.blocked" in error.details()
        assert service.calls == []

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_an_upstream_that_is_not_there(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        service = start()
        service.close()
        with channel(proxy(handler()), service.port) as made:
            error = failure(call(made))
            assert error.code() == grpc.StatusCode.UNAVAILABLE and f"{HOST}:{service.port}" in error.details()

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_a_shutdown_while_a_call_is_under_way(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        service = start()
        to_send: queue.Queue[bytes | None] = queue.Queue()
        running = proxy(handler())
        with channel(running, service.port) as made:
            begun = call(made, iter(to_send.get, None))
            to_send.put(b"a")
            assert next(begun) == b"a"
            with pytest.raises(ShutdownTimeoutError):
                running.handle.shutdown(0.2)
            assert failure(begun).code() == grpc.StatusCode.UNAVAILABLE
            assert service.over.wait(PATIENCE)
            to_send.put(None)

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_a_call_that_ends_while_the_proxy_shuts_down(self, proxy: ProxyFactory, start: Start, handler: Any) -> None:
        service = start()
        to_send: queue.Queue[bytes | None] = queue.Queue()
        running = proxy(handler())
        with channel(running, service.port) as made:
            begun = call(made, iter(to_send.get, None))
            to_send.put(b"a")
            assert next(begun) == b"a"
            ending = threading.Thread(target=lambda: running.handle.shutdown(PATIENCE))
            ending.start()
            to_send.put(b"b")
            to_send.put(None)
            assert list(begun) == [b"b"] and begun.code() == grpc.StatusCode.OK
            ending.join()


class TestWeb:
    """gRPC-Web, as browsers send it over HTTP/2."""

    @pytest.mark.parametrize("handler", [Recording, Observing])
    def test_a_call(self, proxy: ProxyFactory, origin_ca: TestCA, handler: Any) -> None:
        message, trailers = b"\0\0\0\0\3abc", b"\x80\0\0\0\x10grpc-status: 0\r\n"

        def serve(connection: Any, request: Any) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\n")
            connection.send(b"Content-Length: %d\r\n\r\n" % len(message + trailers) + message + trailers)

        with Origin(origin_ca.server_context(HOST, alpn=("h2",)), host=HOST) as origin:
            origin.script(serve, "/test.Any/Call")
            running = proxy(handler())
            with running.secured(origin.port, HOST, "h2") as connection:
                client = Http2Client.inside(connection, origin.port)
                fields = (("content-type", "application/grpc-web+proto"),)
                answer = client.request("/test.Any/Call", method="POST", fields=fields, body=message)
                assert (answer.status, answer.body) == (200, message + trailers)
            running.handler.wait("on_stream_end")
            (response,) = running.handler.of("on_response")
            chunks = running.handler.of("on_stream_chunk")
            assert sorted((str(chunk.direction), chunk.payload) for chunk in chunks) == [("to_client", b"abc"), ("to_upstream", b"abc")]
            assert response.trailers.get("grpc-status") == "0" and origin.requests[0].version == "HTTP/2"

    def test_a_block_keeps_its_text(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Recording(lambda request: HandlerDecision.block(403, "not this")))
        with Origin(origin_ca.server_context(HOST, alpn=("h2",)), host=HOST) as origin:
            with running.secured(origin.port, HOST, "h2") as connection:
                client = Http2Client.inside(connection, origin.port)
                fields = (("content-type", "application/grpc-web+proto"),)
                answer = client.request("/test.Any/Call", method="POST", fields=fields, body=b"\0\0\0\0\0")
                assert (answer.status, answer.text, answer.get("grpc-status")) == (403, "not this", None)
            assert origin.connections == []


def test_a_reset_before_the_answer_is_named(proxy: ProxyFactory, start: Start) -> None:
    """As grpcio does with a GET."""
    service = start()
    running = proxy()
    with running.secured(service.port, HOST, "h2") as connection:
        answer = Http2Client.inside(connection, service.port).request("/test.Any/Call")
        assert answer.status == 502 and "reset the stream with error code 2 of HTTP/2 before it answered" in answer.text


class TestObservedCalls:
    """What an observer, such as the lines of `soth-mitm run`, is told of the end of a call."""

    @pytest.mark.parametrize(("messages", "code"), [((), "NOT_FOUND"), ((b"x",), "NOT_FOUND"), ((b"x",), "OK")])
    def test_the_end_of_a_call_has_its_status(self, tmp_path: Path, origin_ca: TestCA, start: Start, messages: Any, code: str) -> None:
        """Without a message the status stands in the head of the response, with one in its trailers."""
        watcher = Watcher()

        def behave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            yield from requests
            context.set_code(grpc.StatusCode[code])

        service = start(behave)
        handler = InterceptHandler()
        proxy = MitmProxyBuilder(configure(tmp_path, origin_ca), handler).with_observer(watcher).build()
        with proxy.start_in_thread() as handle, channel(Running(handle, handler), service.port) as made:
            begun = call(made, messages)
            if code == "OK":
                assert list(begun) == list(messages)
            else:
                failure(begun)
            (end,) = watcher.wait(EventKind.FLOW_END)
        assert (end.grpc_status, end.http_version) == (str(grpc.StatusCode[code].value[0]), "HTTP/2")


class Filtering(Recording):
    """Decides about each message as the test says, by its direction and content."""

    def __init__(self, choose: Callable[[str, bytes], Any], suspends: bool = False) -> None:
        super().__init__()
        self.choose = choose
        self.suspends = suspends

    async def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        if self.suspends:
            await asyncio.sleep(0)
        self._note("filter_stream_chunk", chunk)
        return self.choose(chunk.direction, chunk.payload)  # type: ignore[no-any-return]


class TestFilters:
    """`filter_stream_chunk` in both directions of a call."""

    @pytest.mark.parametrize("suspends", [False, True])
    @pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
    def test_both_directions(self, proxy: ProxyFactory, start: Start, compression: Any, suspends: bool) -> None:
        def choose(direction: str, payload: bytes) -> ChunkDecision:
            if payload == b"drop " + direction.encode():
                return ChunkDecision.DROP
            if payload == b"change " + direction.encode():
                return ChunkDecision.replace(b"changed", b"and more")
            return ChunkDecision.PASS

        running = proxy(Filtering(choose, suspends))
        service = start()
        sent = [b"a" * 2000, b"drop to_upstream", b"change to_upstream", b"drop to_client", b"change to_client", b""]
        with channel(running, service.port) as made:
            begun = call(made, sent, compression=compression)
            assert list(begun) == [b"a" * 2000, b"changed", b"and more", b"changed", b"and more", b""]
            assert begun.code() is grpc.StatusCode.OK
        shown = [(chunk.direction, chunk.payload, chunk.replaced) for chunk in running.handler.wait("on_stream_chunk", 12)]
        assert [each for each in shown if each[0] == "to_upstream" and each[2]] == [
            ("to_upstream", b"changed", True),
            ("to_upstream", b"and more", True),
        ]
        assert list(running.metrics().filtered_chunk_count_by_decision.values()) == [8, 2, 2, 0]

    @pytest.mark.parametrize("suspends", [False, True])
    def test_a_conversation_goes_on_while_one_direction_waits(self, proxy: ProxyFactory, start: Start, suspends: bool) -> None:
        """Each message is answered before the next is sent."""
        service = start()
        answers: queue.Queue[bytes] = queue.Queue()

        def requests() -> Iterator[bytes]:
            for number in range(50):
                yield b"%d" % number
                assert answers.get(timeout=PATIENCE) == b"%d" % number

        with channel(proxy(Filtering(lambda *_: ChunkDecision.PASS, suspends)), service.port) as made:
            for answer in call(made, requests()):
                answers.put(answer)

    def test_large_messages(self, proxy: ProxyFactory, start: Start) -> None:
        service = start()
        running = proxy(Filtering(lambda *_: ChunkDecision.PASS, True))
        with channel(running, service.port) as made:
            assert list(call(made, [LARGE, LARGE])) == [LARGE, LARGE]
        running.wait_idle()
        assert running.metrics().buffered_bytes == 0

    @pytest.mark.parametrize(("answer", "code"), [(ChunkDecision.END, "PERMISSION_DENIED"), (None, "UNAVAILABLE")], ids=["end", "failure"])
    @pytest.mark.parametrize("direction", ["to_client", "to_upstream"])
    def test_the_end_of_a_call(self, proxy: ProxyFactory, start: Start, direction: str, answer: Any, code: str) -> None:
        """The client has the messages before it, and a status; the server is cancelled."""
        running = proxy(Filtering(lambda where, payload: answer if (where, payload) == (direction, b"bad") else ChunkDecision.PASS))
        service = start()
        waiting: queue.Queue[bytes | None] = queue.Queue()
        with channel(running, service.port) as made:
            waiting.put(b"good")
            begun = call(made, iter(waiting.get, None))
            assert next(begun) == b"good"
            waiting.put(b"bad")
            error = failure(begun)
            assert error.code() is grpc.StatusCode[code]
            assert "filter_stream_chunk" in error.details() or "policy handler" in error.details()
            waiting.put(None)
            assert service.over.wait(PATIENCE)
        assert list(running.metrics().filtered_chunk_count_by_decision.values())[3] == 1

    def test_a_call_that_ends_before_its_response(self, proxy: ProxyFactory, start: Start) -> None:
        service = start()
        running = proxy(Filtering(lambda where, payload: ChunkDecision.END))
        with channel(running, service.port) as made:
            error = failure(call(made, [b"x"]))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED

    def test_a_coding_that_is_not_known(self, proxy: ProxyFactory, start: Start) -> None:
        """A message that the handler cannot be shown does not pass."""
        running = proxy(Filtering(lambda *_: ChunkDecision.PASS))
        service = start()
        with running.secured(service.port, HOST, "h2") as connection:
            client = Http2Client.inside(connection, service.port)
            fields = (("content-type", "application/grpc"), ("te", "trailers"), ("grpc-encoding", "snappy"))
            answer = client.request("/test.Any/Call", method="POST", fields=fields, body=b"\1\0\0\0\1x")
            assert answer.get("grpc-status") == "13" or answer.status == 400
        assert running.handler.of("filter_stream_chunk") == []
        assert running.metrics().stream_framing_error_count == 1

    def test_the_client_leaves_while_the_handler_decides(self, proxy: ProxyFactory, start: Start) -> None:
        reached, cancelled = threading.Event(), threading.Event()

        class Waits(Recording):
            async def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
                if chunk.direction == "to_upstream":
                    return ChunkDecision.PASS
                reached.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()
                return ChunkDecision.PASS

        service = start()
        running = proxy(Waits())
        with channel(running, service.port) as made:
            begun = call(made, [b"x"])
            assert reached.wait(PATIENCE)
            begun.cancel()
            assert cancelled.wait(PATIENCE) and service.over.wait(PATIENCE)
        running.wait_idle()
        assert running.metrics().handler_panic_count == 0
