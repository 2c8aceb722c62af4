"""`max_in_flight_bytes`: what all connections hold together is bounded, everybody moves on, and nobody's bytes are lost."""

import asyncio
import contextlib
import gzip
import hashlib
import ssl
import sys
import threading
from collections.abc import Callable, Iterator

import brotli  # type: ignore[import-untyped]
import pytest

from soth_mitm import ChunkDecision, HandlerDecision, InterceptHandler, MitmConfig, RawRequest, RawResponse, StreamChunk
from support.leaks import what_remains
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.websocket import CLOSE, CONTINUATION, FIN, TEXT, Slow, accept, ask, frame
from support.wire_client import WireClient

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KIB = 1024
BUDGET = 512 * KIB
BODY = 200 * KIB
MANY = 24
# By how much the budget may be exceeded: what one flow keeps, one read, and for each connection a smallest read and a TLS record
SLACK = BODY + (256 + MANY * (4 + 16)) * KIB
SMALL = {"max_in_flight_bytes": BUDGET, "body.max_size_bytes": 256 * KIB, "connection_pool.max_connections_per_host": MANY}


class Watch:
    """Asks for the metrics all the time, on a thread of its own; `most` is the most that was held."""

    def __init__(self, running: Running) -> None:
        self.most = 0
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.is_set():
            self.most = max(self.most, self._running.metrics().buffered_bytes)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def wait_until(running: Running, name: str, value: int) -> None:
    """Wait until a metric is at least `value`."""
    left = what_remains(lambda: {} if getattr(running.metrics(), name) >= value else {name: getattr(running.metrics(), name)}, 30)
    assert not left, left


@contextlib.contextmanager
def clients(running: Running, port: int, count: int) -> Iterator[list[WireClient]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running.secured(port)) for _ in range(count)]


def upload(client: WireClient, number: int, size: int = BODY, part: int | None = None, chunk: int = 0) -> bytes:
    """Send the first `part` bytes of a body, all when None, in chunks of `chunk` bytes or by its length, and return the whole body."""
    body = bytes([number]) * size
    framing = "Transfer-Encoding: chunked" if chunk else f"Content-Length: {size}"
    data = (b"%x\r\n%b\r\n" % (chunk, body[:chunk])) * (size // chunk) + b"0\r\n\r\n" if chunk else body
    client.send(f"POST /echo HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + data[:part])
    return body


def assert_echoed(client: WireClient, body: bytes) -> None:
    answer = client.read_answer()
    assert answer.status == 200, answer.text
    assert hashlib.sha256(body).hexdigest() in answer.text


@pytest.mark.parametrize(("size", "chunk"), [(BODY, 0), (BODY, BODY), (BODY // 8, 16)], ids=["length", "chunked", "small-chunks"])
def test_uploads_that_together_exceed_the_budget_all_complete(proxy: ProxyFactory, origin: Origin, size: int, chunk: int) -> None:
    """Each is collected whole before its decision, though together they are many times the budget. Framing counts as content does."""
    running = proxy(Recording(), **SMALL)
    with clients(running, origin.port, MANY) as all_clients:
        with Watch(running) as watch:
            bodies = [upload(client, number, size, chunk=chunk) for number, client in enumerate(all_clients)]
            for client, body in zip(all_clients, bodies, strict=True):
                assert_echoed(client, body)
        running.wait_idle("active_flows", "buffered_bytes")
        assert running.metrics().waiting_flows == 0
    assert all(request.body_complete and len(request.body) == size for request in running.handler.requests)
    assert len(running.handler.requests) == MANY
    assert running.metrics().paced_flow_count > 0
    assert watch.most <= BUDGET + SLACK


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("overflow", ["stream", "reject"])
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_every_way_to_decide_while_the_budget_is_short(
    proxy: ProxyFactory, origin: Origin, mode: str, buffered: bool, overflow: str, chunked: bool
) -> None:
    """Bodies within `body.max_size_bytes` and beyond it, together many times the budget: nobody's is lost, cut or mixed up."""
    limit, count = 64 * KIB, 12
    keys = {"max_in_flight_bytes": 2 * limit, "body.max_size_bytes": limit, "connection_pool.max_connections_per_host": count}
    running = proxy(Recording(), **keys, **{"intercept_mode": mode, "body.buffer_request_bodies": buffered, "body.overflow": overflow})
    with clients(running, origin.port, count) as all_clients:
        sizes = [(limit, limit + 50 * KIB)[number % 2] for number in range(count)]
        bodies = [upload(client, number, sizes[number], chunk=2 * KIB if chunked else 0) for number, client in enumerate(all_clients)]
        for client, body in zip(all_clients, bodies, strict=True):
            if mode == "enforce" and buffered and overflow == "reject" and len(body) > limit:
                assert client.read_answer().status == 413
            else:
                assert_echoed(client, body)
    running.wait_idle()
    assert running.metrics().buffered_bytes == running.metrics().waiting_flows == 0
    asked = running.handler.requests
    assert len(asked) == (count // 2 if mode == "enforce" and buffered and overflow == "reject" else count)
    for request in asked:
        # what was kept of it is its beginning, and it says whether that is all
        assert set(request.body) <= {request.body[0]} if request.body else not request.body_complete
        assert request.body_complete == (len(request.body) == limit and not request.body_truncated)


def test_nothing_reaches_the_upstream_before_its_decision_while_others_wait(proxy: ProxyFactory, origin: Origin) -> None:
    decided: list[asyncio.Event] = []

    async def decide(request: RawRequest) -> HandlerDecision:
        event = asyncio.Event()
        decided.append(event)
        await event.wait()
        return HandlerDecision.ALLOW

    def release(number: int) -> None:
        decided[number].set()

    running = proxy(Recording(decide), **SMALL)
    with clients(running, origin.port, MANY) as all_clients:
        bodies = [upload(client, number) for number, client in enumerate(all_clients)]
        wait_until(running, "waiting_flows", MANY - 5)
        waiting = running.metrics()
        # whoever had room is asked about; of the others nobody was, and of none has anything gone out
        assert 1 <= len(decided) <= 3
        assert waiting.bytes_to_upstreams == 0
        assert waiting.buffered_bytes <= BUDGET + SLACK
        assert origin.requests == []
        for number in range(MANY):
            running.handler.wait("on_request", number + 1)
            running.handle._loop.call_soon_threadsafe(release, number)
        for client, body in zip(all_clients, bodies, strict=True):
            assert_echoed(client, body)
    assert all(request.body_complete for request in running.handler.requests)


def test_uploads_that_stall_are_decided_on_what_arrived(proxy: ProxyFactory, origin: Origin) -> None:
    """Nobody gets further by itself: the budget is full of parts of bodies, and their senders stopped."""
    running = proxy(Recording(), **SMALL, **{"body.buffer_timeout_ms": 300})
    with clients(running, origin.port, MANY) as all_clients:
        bodies = [upload(client, number, part=BODY // 2) for number, client in enumerate(all_clients)]
        running.handler.wait("on_request", MANY)
        assert not any(request.body_complete for request in running.handler.requests)
        for client, body in zip(all_clients, bodies, strict=True):
            client.send(body[BODY // 2 :])
        for client, body in zip(all_clients, bodies, strict=True):
            assert_echoed(client, body)
        running.wait_idle("active_flows", "buffered_bytes")


def test_traffic_that_is_taken_goes_on_while_kept_bodies_fill_the_budget(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Recording(), **SMALL)
    with clients(running, origin.port, MANY) as all_clients, running.secured(origin.port) as other:
        for number, client in enumerate(all_clients):
            upload(client, number, part=BODY - 1)
        wait_until(running, "waiting_flows", MANY - 5)
        assert running.metrics().buffered_bytes > BUDGET // 2
        # no request body to collect, and of the response only the copy would have to wait
        assert other.request("/sse/50/0", "localhost").body.count(b"data:") == 50
        assert other.request("/status/204", "localhost").status == 204
        for client in all_clients:
            client.reset()
    running.wait_idle()
    assert running.metrics().buffered_bytes == 0


class Copying(InterceptHandler):
    """Takes the bodies of responses."""

    def __init__(self) -> None:
        self.responses: list[RawResponse] = []

    def on_response(self, response: RawResponse) -> None:
        self.responses.append(response)


def test_copies_of_responses_wait_for_each_other_and_are_whole(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Copying(), **SMALL)
    with clients(running, origin.port, MANY) as all_clients:
        with Watch(running) as watch:
            for client in all_clients:
                client.send(b"GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % BODY)
            for client in all_clients:
                assert client.read_answer().body == pattern(BODY)
        running.wait_idle("active_flows", "buffered_bytes")
    assert [response.body for response in running.handler.responses] == [pattern(BODY)] * MANY
    assert not any(response.body_truncated for response in running.handler.responses)
    metrics = running.metrics()
    assert metrics.paced_flow_count > 0
    assert metrics.shortened_copy_count == 0
    assert watch.most <= BUDGET + SLACK


class Filtering(InterceptHandler):
    """Decides about each frame."""

    def __init__(self) -> None:
        self.chunks: list[StreamChunk] = []

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        self.chunks.append(chunk)
        return ChunkDecision.PASS


class Looking(InterceptHandler):
    """Is shown each frame."""

    def __init__(self) -> None:
        self.chunks: list[StreamChunk] = []

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        self.chunks.append(chunk)


EVENTS = (b"data: " + b"x" * 1000 + b"\n\n") * 8000
BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.compress,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "br, gzip": lambda data: gzip.compress(brotli.compress(data)),
}


@pytest.mark.parametrize("coding", BOMBS)
def test_what_is_small_until_it_is_decoded_is_decoded_as_its_client_takes_it(
    proxy: ProxyFactory, plain_origin: Origin, coding: str
) -> None:
    """Eight megabytes in a few dozen bytes or some kilobytes: one read of them is not what is held."""
    packed = BOMBS[coding](EVENTS)

    def script(connection: ScriptedConnection, request: Request) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        connection.send(f"{head}Content-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed)

    plain_origin.script(script, "/events")
    keys = {"max_in_flight_bytes": 16 * KIB * KIB, "body.max_size_bytes": 9 * KIB * KIB, "connection_pool.max_connections_per_host": 8}
    running = proxy(Filtering(), **keys)
    with contextlib.ExitStack() as stack, Watch(running) as watch:
        clients = [stack.enter_context(running.tunnel(plain_origin.port)) for _ in range(8)]
        for client in clients:
            client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for client in clients:
            assert client.read_answer().body == EVENTS
    assert watch.most < 4 * KIB * KIB
    running.wait_idle("active_flows", "buffered_bytes")


def test_a_flow_that_holds_nothing_any_more_does_not_wait(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: 2\n\n")
        connection.wait(more, 30)
        connection.send(b"data: 3\n\n")
        connection.close()

    more = threading.Event()
    plain_origin.script(script, "/events")
    handler = Slow()
    running = proxy(handler, **SMALL)
    with contextlib.ExitStack() as stack:
        for number in range(2):
            upload(stack.enter_context(running.tunnel(plain_origin.port)), number, part=BODY - 1)
        wait_until(running, "buffered_bytes", 2 * BODY - 2)
        client = stack.enter_context(running.tunnel(plain_origin.port))
        client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # of which the second waits for the hook to return from the first
        assert client.read_until(b"data: 2\n\n")
        wait_until(running, "waiting_flows", 1)
        handler.go.set()
        handler.wait("on_stream_chunk", 2)
        more.set()
        assert client.read_to_end() == b"data: 3\n\n"
    running.wait_idle()


SHORT = frame(FIN | TEXT, b"short")
STREAMS = {
    # what comes first, what completes the frame, what comes then
    "events": (b"data: " + pattern(BODY).replace(b"\n", b"_").replace(b"\r", b"_"), b"\n\n", b"data: short\n\n"),
    "messages": (frame(TEXT, b"x" * BODY), frame(FIN | CONTINUATION, b"y"), SHORT + frame(FIN | CLOSE, b"\x03\xe8")),
}


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("handler", [Filtering, Looking])
def test_frames_that_do_not_end_are_cut_where_memory_is_short(
    proxy: ProxyFactory, plain_origin: Origin, handler: type[Filtering | Looking], kind: str, again: bool
) -> None:
    """What is held of a frame is bounded as what is kept of a body is, also where one such frame follows another. All of it passes."""
    begin, end, last = STREAMS[kind]
    first = begin + end + begin if again else begin

    def script(connection: ScriptedConnection, request: Request) -> None:
        if kind == "messages":
            connection.send(accept(request))
        else:
            length = len(first + end + last)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % length)
        connection.send(first)
        connection.wait(over, 30)
        connection.send(end + last)
        if kind == "messages":
            connection.close()

    over = threading.Event()
    plain_origin.script(script, "/chat")
    running = proxy(handler(), **SMALL, **{"flow_runtime.dispatch_queue_send_timeout_ms": 100})
    came: dict[WireClient, bytes] = {}

    def waiting() -> dict[str, int]:
        for client in came:
            with contextlib.suppress(BlockingIOError):
                while data := client.socket.recv(1 << 18):
                    came[client] += data
        # those that were there first may hold a whole frame
        late = sum(len(data) < len(first) for data in came.values())
        return {"late": late} if late > 4 else {}

    with contextlib.ExitStack() as stack, Watch(running) as watch:
        for _ in range(MANY):
            client = stack.enter_context(running.tunnel(plain_origin.port))
            client.send(ask() if kind == "messages" else b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.read_head().status in (101, 200)
            came[client] = client.buffered()
            client.socket.setblocking(False)
        left = what_remains(waiting, 30)
        assert not left, left
        over.set()
        for client, data in came.items():
            client.socket.settimeout(30)
            whole = first + end + last
            framed = len(whole) if handler is Looking or kind == "messages" else None
            if framed is not None:
                assert data + client.read_exactly(framed - len(data)) == whole
            else:
                while not data.endswith(b"0\r\n\r\n"):
                    data += client.socket.recv(1 << 18)
    running.wait_idle("active_connections", "active_flows", "buffered_bytes")
    # a filter has a frame twice: as it came, and as it is read
    assert watch.most <= BUDGET + SLACK + BODY + MANY * 2 * 16 * KIB
    chunks = [chunk for chunk in running.handler.chunks if chunk.frame_kind != "websocket_close"]
    assert len(chunks) == MANY * (3 if again else 2)
    assert sum(chunk.truncated for chunk in chunks) > MANY // 2
    assert sum(chunk.payload == b"short" and not chunk.truncated for chunk in chunks) == MANY


def test_copies_that_wait_for_too_long_end_and_the_traffic_goes_on(proxy: ProxyFactory, origin: Origin) -> None:
    """The flow that may go on does not, since its upstream stopped; the others do not wait for ever."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY + pattern(BODY)[:-1])
        connection.wait(end)
        connection.send(pattern(BODY)[-1:])

    end = threading.Event()
    origin.script(script, "/stops")
    running = proxy(Copying(), **SMALL, **{"flow_runtime.dispatch_queue_send_timeout_ms": 200})
    with clients(running, origin.port, MANY) as all_clients:
        for client in all_clients:
            client.send(b"GET /stops HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # all that has come is passed on, though no flow has ended
        for client in all_clients:
            assert client.read_head().status == 200
            assert client.read_exactly(BODY - 1) == pattern(BODY)[:-1]
        end.set()
        for client in all_clients:
            assert client.read_exactly(1) == pattern(BODY)[-1:]
        assert running.metrics().cut_response_count == 0
        what_remains(lambda: {} if len(running.handler.responses) == MANY else {"responses": 1}, 30)
    cut = [response for response in running.handler.responses if response.body_truncated]
    assert 0 < len(cut) == running.metrics().shortened_copy_count < MANY
    assert all(pattern(BODY).startswith(response.raw_body) for response in running.handler.responses)
    assert all(len(response.raw_body) == BODY for response in running.handler.responses if response not in cut)
    assert running.metrics().buffered_bytes == 0


def test_reload_applies_at_once(proxy: ProxyFactory, origin: Origin, make_config: Callable[..., MitmConfig]) -> None:
    running = proxy(Recording(), **SMALL)
    with clients(running, origin.port, MANY) as all_clients:
        bodies = [upload(client, number, part=BODY - 1) for number, client in enumerate(all_clients)]
        wait_until(running, "waiting_flows", MANY - 5)
        running.handle.reload(make_config(**{**SMALL, "max_in_flight_bytes": 64 * BUDGET}))
        # those that waited read on, without anybody having finished
        left = what_remains(lambda: {} if running.metrics().buffered_bytes >= MANY * (BODY - 1) else {"missing": 1}, 30)
        assert not left, running.metrics()
        assert running.metrics().waiting_flows == 0
        for client, body in zip(all_clients, bodies, strict=True):
            client.send(body[-1:])
            assert_echoed(client, body)


class Late(InterceptHandler):
    """Takes its time over each event of a stream."""

    def __init__(self) -> None:
        self.go_on: asyncio.Event | None = None
        self.seen = 0

    async def on_stream_chunk(self, chunk: object) -> None:
        self.go_on = self.go_on or asyncio.Event()
        await self.go_on.wait()
        self.seen += 1


def test_frames_that_wait_for_their_hook_count_and_pace(proxy: ProxyFactory, plain_origin: Origin) -> None:
    event = b"data: " + bytes(b"x" * 32 * KIB) + b"\n\n"
    count = 64

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % (count * len(event)))
        for _ in range(count):
            connection.send(event)

    plain_origin.script(script, "/events")
    running = proxy(Late(), **{**SMALL, "body.max_size_bytes": BUDGET})
    with running.tunnel(plain_origin.port) as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_head().status == 200
        wait_until(running, "buffered_bytes", BUDGET // 2)
        before = -1
        while before != (before := running.metrics().bytes_from_upstreams):
            for _ in range(200):
                running.metrics()
        # the queue of one flow may hold body.max_size_bytes; it is the budget that ends it here
        assert running.metrics().buffered_bytes < BUDGET
        running.handle._loop.call_soon_threadsafe(running.handler.go_on.set)
        assert client.read_exactly(count * len(event)) == event * count
        left = what_remains(lambda: {} if running.handler.seen == count else {"seen": running.handler.seen}, 30)
        assert not left
        assert running.metrics().dropped_dispatch_work_count == 0
    running.wait_idle()
    assert running.metrics().buffered_bytes == 0


class Gates(InterceptHandler):
    """Waits before the decision, and when the response is complete."""

    def __init__(self) -> None:
        self.gates = (asyncio.Event(), asyncio.Event())

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        await self.gates[0].wait()
        return HandlerDecision.forward(set={"x-more": "y" * 10 * KIB})

    async def on_response(self, response: RawResponse) -> None:
        await self.gates[1].wait()


def wait_between(running: Running, least: int, most: int) -> None:
    """Wait until the proxy holds so many bytes."""
    left = what_remains(lambda: {} if least <= (held := running.metrics().buffered_bytes) < most else {"held": held}, 30)
    assert not left, left


def test_heads_count_until_the_last_hook_has_returned(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """The request as it came and as it was changed, and the response."""
    plain_origin.script(
        lambda connection, request: connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: %b\r\n\r\n" % (b"x" * 20 * KIB)), "/"
    )
    running = proxy(Gates())
    with running.tunnel(plain_origin.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * 15 * KIB))
        for gate, wanted in zip(running.handler.gates, (15, 60), strict=True):
            wait_between(running, wanted * KIB, (wanted + 2) * KIB)
            running.handle._loop.call_soon_threadsafe(gate.set)
        assert client.read_head().status == 200
        running.wait_idle("active_flows", "buffered_bytes")


@pytest.mark.parametrize("kind", ["tunnel", "intercepted", "plain"])
def test_slow_reader_holds_little_and_its_end_gives_it_back(
    proxy: ProxyFactory, origin: Origin, plain_origin: Origin, kind: str, make_config: Callable[..., MitmConfig]
) -> None:
    size = 24 << 20
    server = plain_origin if kind == "plain" else origin
    running = proxy(InterceptHandler(), **({"destinations": ("nobody.example:1",)} if kind == "tunnel" else {}))
    client = running.tunnel(server.port)
    if kind != "plain":
        client.start_tls(running.client_context() if kind == "intercepted" else origin_context(make_config()))
    with client:
        client.send(b"GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size)
        before = -1
        while before != (before := running.metrics().bytes_from_upstreams) or not before:
            for _ in range(300):
                running.metrics()
        # of the read that did not fit: what could not be sent on, and what was not decrypted for that reason
        assert 0 < running.metrics().buffered_bytes <= (64 + 256 + 2 * 32) * KIB
        assert client.read_answer().body == pattern(size)
        running.wait_idle("active_flows", "buffered_bytes")
        client.send(b"GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size)
        wait_until(running, "buffered_bytes", 1)
        client.reset()
    running.wait_idle()
    assert running.metrics().buffered_bytes == 0


def origin_context(config: MitmConfig) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(config.upstream.ca_bundle_path))


def test_idle_connections_hold_nothing_and_incomplete_heads_little(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(InterceptHandler())
    with clients(running, origin.port, 8) as all_clients:
        for client in all_clients:
            assert len(client.request("/bytes/300000", "localhost").body) == 300_000
        running.wait_idle("active_flows", "buffered_bytes")
        for client in all_clients:
            client.send(b"GET /bytes/1 HTTP/1.1\r\nHost: loc")
        wait_until(running, "buffered_bytes", 1)
        assert running.metrics().buffered_bytes <= 8 * 2 * KIB
        for client in all_clients:
            client.send(b"alhost\r\n\r\n")
            assert client.read_answer().body == pattern(1)
        running.wait_idle("active_flows", "buffered_bytes")
