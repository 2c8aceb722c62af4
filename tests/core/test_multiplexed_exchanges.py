"""Exchanges over connections that carry many streams, in every pairing with HTTP/1.

Real sockets on both sides, and between them the data plane with tests/doubles/multiplex.pyx in place of HTTP/2.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from soth_mitm import HandlerDecision
from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.http2.server import Http2ServerConnection
from support.doubles import load_double
from support.feed import Reading, read_message
from support.http2_client import Http2Client
from support.multiplex import CREDIT, HOP, Handler, Http1Peer, Message, MuxPeerStream, Scene, get, parsed, post, response
from support.samples import read_samples

pytestmark = pytest.mark.anyio

PAIRINGS = [("mux", "http1"), ("http1", "mux"), ("mux", "mux")]
CHUNKED = (b"Transfer-Encoding", b"chunked")
pairings = pytest.mark.parametrize("pairing", PAIRINGS, ids="-".join)
handlers = pytest.mark.parametrize("handler", [None, Handler], ids=["unseen", "decided"])


class RealClients:
    """The double, but for clients, which speak HTTP/2."""

    def __init__(self, double: Any) -> None:
        self.MuxServerConnection = Http2ServerConnection
        self.MuxClientConnection = double.MuxClientConnection
        self.client_peer = Http2Client


# what a window grows to for content that is announced (EXPECTED_AT_ONCE of http2/session)
EXPECTED_AT_ONCE = 1 << 20


def as_named(double: Any, lines: bytes) -> bytes:
    """Return trailer lines as they arrive: a client or upstream of HTTP/2 says names in lower case."""
    return re.sub(rb"(?m)^[^:]+:", lambda name: name[0].lower(), lines) if isinstance(double, RealClients) else lines


@pytest.fixture(scope="session")
def doubled() -> Any:
    return load_double("multiplex")


@pytest.fixture(params=["double", "http2_clients"])
def double(request: pytest.FixtureRequest, doubled: Any) -> Any:
    """What carries the streams of each side: where clients are "mux", they speak the double's format, and HTTP/2."""
    if request.param == "double":
        return doubled
    named = getattr(request.node, "callspec", None)
    given = {} if named is None else named.params
    if given.get("clients", given.get("pairing", ("mux",))[0]) == "http1":
        pytest.skip("no client has streams here")
    return RealClients(doubled)


@pairings
@handlers
async def test_a_request_and_its_response(double: Any, pairing: tuple[str, str], handler: Callable[[], Any] | None) -> None:
    async with Scene(double, *pairing, handler and handler()) as scene:
        client = await scene.connect()
        for content in (b"", b"x", b"0123456789" * 10_000):
            answer = await client.ask(post(content))
            assert (answer.status, answer.content, answer.complete) == (200, content, True)
            assert scene.seen[-1].content == content and scene.seen[-1].get(b"content-length") == b"%d" % len(content)
        answer = await client.ask(get(b"/there"))
        assert scene.seen[-1].start == b"GET /there HTTP/1.1" and answer.content == b""


def unsized(kind: str, content: bytes, trailers: bytes = b"", *fields: tuple[bytes, bytes]) -> Message:
    """Make a request whose length its head does not announce."""
    framing = [CHUNKED] if kind == "http1" else []
    return Message(b"POST / HTTP/1.1", [(b"Host", b"a.example"), *fields, *framing], content, trailers)


def target_of(message: Message) -> str:
    return message.start.split(b" ")[1].decode()


def to_mux(pairing: tuple[str, str]) -> bool:
    return pairing[1] == "mux"


# ---- many streams at once


@pytest.mark.parametrize("pairing", [("mux", "http1"), ("mux", "mux")], ids="-".join)
@handlers
async def test_many_streams_at_once(double: Any, pairing: tuple[str, str], handler: Callable[[], Any] | None) -> None:
    async with Scene(double, *pairing, handler and handler(), connection_pool__max_connections_per_host=4) as scene:
        client = await scene.connect()
        bodies = [b"%d:" % number * (number**2 * 3) for number in range(60)]
        answers = await asyncio.gather(*(client.ask(post(body)) for body in bodies))
        assert [(answer.status, answer.content, answer.complete) for answer in answers] == [(200, body, True) for body in bodies]
        assert len(scene.dialled) <= 4


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
async def test_one_stream_that_is_slow_blocked_or_reset_does_not_hold_the_others(double: Any, upstreams: str) -> None:
    late = asyncio.Event()

    async def answer(peer: Any) -> None:
        request = await scene.request(peer)
        match target_of(request):
            case "/slow":
                await late.wait()
            case "/reset":
                if upstreams == "mux":
                    peer.reset()
                else:
                    peer.writer.transport.abort()
                return
        await peer.say(response(b"z" * 500_000 if target_of(request) == "/blocked" else b"ok"))

    async with Scene(double, "mux", upstreams) as scene:
        scene.answer = answer
        client = await scene.connect()
        slow, blocked, reset = client.open(), client.open(), client.open()
        blocked.gives_credit = False
        await slow.say(get(b"/slow"))
        await blocked.say(get(b"/blocked"))
        await reset.say(get(b"/reset"))
        assert (await reset.whole()).status == 502
        await blocked.until(lambda: len(blocked.content) == CREDIT)
        for _ in range(20):
            assert (await client.ask(get())).content == b"ok"
        assert slow.message is None and len(blocked.content) == CREDIT
        late.set()
        blocked.gives_credit = True
        blocked.give(CREDIT)
        assert (await slow.whole()).content == b"ok"
        assert (await blocked.whole()).content == b"z" * 500_000


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
async def test_a_stream_that_its_client_resets(double: Any, upstreams: str) -> None:
    asked = asyncio.Event()
    streams: list[Any] = []

    async def answer(peer: Any) -> None:
        streams.append(peer)
        if target_of(await scene.request(peer)) == "/":
            await peer.say(response(b"ok"))
            return
        asked.set()
        await (peer.until(lambda: peer.reset_by is not None) if upstreams == "mux" else peer.reader.read())

    async with Scene(double, "mux", upstreams) as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        await stream.say(get(b"/waits"))
        await asyncio.wait_for(asked.wait(), 10)
        stream.reset()
        await scene.until(lambda: scene.counters.active_flows == 0, "the exchange goes on")
        assert (await client.ask(get())).content == b"ok"
        assert not client.closed and len(scene.dialled) == (1 if upstreams == "mux" else 2)
        if upstreams == "mux":
            await streams[0].until(lambda: streams[0].reset_by is not None)


@pytest.mark.parametrize("clients", ["http1", "mux"])
async def test_a_response_that_its_upstream_resets_is_cut(double: Any, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        if target_of(await scene.request(peer)) == "/":
            return await peer.say(response(b"ok"))
        peer.head(response(b"x" * 5000))
        await peer.send(b"x" * 100)
        return peer.reset()

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        cut = await client.ask(get(b"/cut"))
        assert cut.status == 200 and not cut.complete
        if clients == "http1":
            client = await scene.connect()
        assert (await client.ask(get())).content == b"ok"
        assert scene.counters.responses_cut == 1 and len(scene.dialled) == 1


# ---- retries


def is_refusal(double: Any, reply: Message) -> bool:
    """Tell whether a client hears of an upstream's refusal: a client of HTTP/2 gets its code, any other a 502."""
    if isinstance(double, RealClients):
        return reply.start == b"" and not reply.complete
    return reply.status == 502


@pytest.mark.parametrize("clients", ["http1", "mux"])
@pytest.mark.parametrize("size", [0, 10, 100_000])
@pytest.mark.parametrize("refusals", [1, 2])
async def test_what_was_refused_is_sent_again_once(double: Any, clients: str, size: int, refusals: int) -> None:
    content = b"c" * size
    tries = 0

    async def answer(peer: MuxPeerStream) -> None:
        nonlocal tries
        tries += 1
        if tries <= refusals:
            await peer.until(lambda: len(peer.content) >= min(size, 10))
            return peer.reset(b"refused")
        return await scene.echo(peer)

    async with Scene(double, clients, "mux", Handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(post(content))
        assert (tries, scene.counters.retries) == (2, 1)
        if refusals == 1:
            assert (reply.status, reply.content) == (200, content)
        else:
            assert is_refusal(double, reply)
        assert len(scene.dialled) <= 2


@pytest.mark.parametrize("clients", ["http1", "mux"])
@pytest.mark.parametrize(("method", "handler"), [(b"POST", Handler), (b"GET", None)])
async def test_what_may_have_been_processed_is_not_sent_again(double: Any, clients: str, method: bytes, handler: Any) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        peer.reset()

    async with Scene(double, clients, "mux", handler and handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        assert (await client.ask(post(b"abc", method=method))).status == 502
        assert len(scene.seen) == 1 and scene.counters.retries == 0


@pytest.mark.parametrize("clients", ["http1", "mux"])
async def test_a_body_that_was_not_collected_cannot_be_sent_again(double: Any, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await peer.until(lambda: peer.content)
        peer.reset(b"refused")

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        assert is_refusal(double, await client.ask(post(b"abc")))
        assert scene.counters.retries == 0


@pytest.mark.parametrize("clients", ["http1", "mux"])
async def test_a_request_without_content_is_sent_again(double: Any, clients: str) -> None:
    refused: list[MuxPeerStream] = []

    async def answer(peer: MuxPeerStream) -> None:
        if not refused:
            refused.append(peer)
            return peer.reset(b"refused")
        return await scene.echo(peer)

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        assert (await client.ask(get(method=b"DELETE"))).status == 200
        assert scene.counters.retries == 1


# ---- credit


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
@handlers
async def test_a_client_that_gives_no_credit_pauses_its_upstream(double: Any, upstreams: str, handler: Any) -> None:
    content = bytes(range(256)) * 16_000

    async def answer(peer: Any) -> None:
        request = await scene.request(peer)
        await peer.say(response(content if target_of(request) == "/big" else b"ok"))

    keys = {"body__max_size_bytes": 1024} if handler else {}
    async with Scene(double, "mux", upstreams, handler and handler(), **keys) as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        stream.gives_credit = False
        await stream.say(get(b"/big"))
        for count in range(1, 20):
            await stream.until(lambda expected=count: len(stream.content) == expected * CREDIT)
            assert (await client.ask(get())).content == b"ok"
            assert scene.arena.budget.held < 400_000
            stream.give(CREDIT)
        stream.gives_credit = True
        stream.give(CREDIT)
        whole = await stream.whole()
        assert whole.complete and whole.content == content


@pytest.mark.parametrize("clients", ["http1", "mux"])
@handlers
async def test_an_upstream_that_gives_no_credit_pauses_the_upload(double: Any, clients: str, handler: Any) -> None:
    content = bytes(range(256)) * 16_000
    streams: list[MuxPeerStream] = []

    async def answer(peer: MuxPeerStream) -> None:
        streams.append(peer)
        await scene.echo(peer)

    async with Scene(double, clients, "mux", handler and handler(), body__max_size_bytes=5000) as scene:
        scene.upstreams_give_credit = False
        scene.answer = answer
        client = await scene.connect()
        asking = asyncio.create_task(client.ask(post(content)))
        await scene.until(lambda: streams, "no request comes")
        for count in range(1, 20):
            await streams[0].until(lambda expected=count: len(streams[0].content) == expected * CREDIT)
            # a client of HTTP/2 may send at once what it announces
            assert scene.arena.budget.held < 400_000 + isinstance(double, RealClients) * EXPECTED_AT_ONCE
            streams[0].give(CREDIT)
        streams[0].gives_credit = True
        streams[0].give(CREDIT)
        reply = await asking
        assert reply.complete and reply.content == content


@pytest.mark.parametrize("clients", ["http1", "mux"])
@pytest.mark.parametrize("framed", ["length", "chunks"])
@handlers
async def test_an_end_needs_no_credit(double: Any, clients: str, framed: str, handler: Any) -> None:
    """Content that is as long as the credit, and then trailers, for which there is none."""
    content = b"x" * CREDIT
    trailers = b"X-Sum: 1\r\n" if framed == "chunks" else b""

    async def answer(peer: MuxPeerStream) -> None:
        await scene.echo(peer)

    async with Scene(double, clients, "mux", handler and handler()) as scene:
        scene.upstreams_give_credit = False
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(unsized(clients, content, trailers) if framed == "chunks" else post(content))
        assert reply.content == content
        assert scene.seen[0].trailers == as_named(double, trailers)


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
async def test_the_end_of_a_response_needs_no_credit(double: Any, upstreams: str) -> None:
    async def answer(peer: Any) -> None:
        await scene.request(peer)
        fields = [CHUNKED] if upstreams == "http1" else []
        await peer.say(Message(b"HTTP/1.1 200 OK", fields, b"x" * CREDIT, b"X-Sum: 1\r\n"))

    async with Scene(double, "mux", upstreams) as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        stream.gives_credit = False
        await stream.say(get())
        reply = await stream.whole()
        assert reply.complete and len(reply.content) == CREDIT and reply.trailers == as_named(double, b"X-Sum: 1\r\n")


# ---- decisions


class Deciding(Handler):
    """Blocks what says so, and lets what waits go on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def _later(self) -> Any:
        await self.go.wait()
        return HandlerDecision.ALLOW

    def on_request(self, request: Any) -> Any:
        super().on_request(request)
        if request.path == "/block":
            return HandlerDecision.block(403, "no\n" * 20_000)
        return self._later() if request.path == "/later" else HandlerDecision.ALLOW


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
async def test_each_stream_has_a_decision_of_its_own(double: Any, upstreams: str) -> None:
    handler = Deciding()
    async with Scene(double, "mux", upstreams, handler) as scene:
        client = await scene.connect()
        waiting = [client.open() for _ in range(5)]
        for number, stream in enumerate(waiting):
            await stream.say(post(b"%d" % number, target=b"/later"))
        blocked = await asyncio.gather(*(client.ask(post(b"x" * 3000, target=b"/block")) for _ in range(5)))
        assert [(answer.status, answer.content) for answer in blocked] == [(403, b"no\n" * 20_000)] * 5
        assert (await client.ask(post(b"free"))).content == b"free"
        assert [message.content for message in scene.seen] == [b"free"]
        handler.go.set()
        assert [(await stream.whole()).content for stream in waiting] == [b"%d" % number for number in range(5)]
        assert scene.counters.requests_blocked == 5


@pairings
@pytest.mark.parametrize("size", [0, 1, 3000, 100_000])
@pytest.mark.parametrize("limit", [1024, 1 << 20])
async def test_a_body_is_collected_and_sent_on_in_another_framing(double: Any, pairing: tuple[str, str], size: int, limit: int) -> None:
    handler = Handler()
    content = (bytes(range(256)) * 400)[:size]
    async with Scene(double, *pairing, handler, body__max_size_bytes=limit) as scene:
        client = await scene.connect()
        reply = await client.ask(unsized(pairing[0], content, b"X-Sum: 1\r\nX-Sum: 2\r\n"))
        assert (reply.status, reply.content) == (200, content)
        assert (scene.seen[0].content, scene.seen[0].trailers) == (content, as_named(double, b"X-Sum: 1\r\nX-Sum: 2\r\n"))
        request, body = handler.requests[0]
        assert body == content[:limit] and request.body_truncated == (size > limit)


@pairings
async def test_a_body_over_the_limit_is_refused(double: Any, pairing: tuple[str, str]) -> None:
    async with Scene(double, *pairing, Handler(), body__max_size_bytes=1024, body__overflow="reject") as scene:
        client = await scene.connect()
        assert (await client.ask(unsized(pairing[0], b"x" * 5000))).status == 413
        assert not scene.seen
        if pairing[0] == "mux":
            assert (await client.ask(get())).status == 200


@pairings
@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_a_body_of_unknown_length_is_relayed_as_it_comes(double: Any, pairing: tuple[str, str], size: int) -> None:
    async with Scene(double, *pairing) as scene:
        client = await scene.connect()
        reply = await client.ask(unsized(pairing[0], b"y" * size, b"X-Sum: 1\r\n"))
        assert reply.content == scene.seen[0].content == b"y" * size
        assert scene.seen[0].trailers == as_named(double, b"X-Sum: 1\r\n")


@pytest.mark.parametrize("clients", ["mux", "http1"])
@pytest.mark.parametrize(("method", "length"), [(b"POST", b"0"), (b"PUT", b"0"), (b"PATCH", b"0"), (b"DELETE", None), (b"GET", None)])
@handlers
async def test_no_content_is_said_where_content_is_expected(
    double: Any, clients: str, method: bytes, length: bytes | None, handler: Any
) -> None:
    """A head of HTTP/1 leaves as it came; one that says it by its end of stream needs a length (RFC 9110 section 8.6)."""
    async with Scene(double, clients, "http1", handler and handler()) as scene:
        client = await scene.connect()
        await client.ask(get(method=method))
        assert scene.seen[0].get(b"content-length") == (length if clients == "mux" else None)
        assert scene.seen[0].get(b"transfer-encoding") is None


async def test_trailers_of_a_request_with_a_length_are_dropped_and_counted(double: Any) -> None:
    async with Scene(double, "mux", "http1") as scene:
        client = await scene.connect()
        # not all of it is there when its head is sent on
        content = b"y" * 200_000
        request = post(content)
        request.trailers = b"X-Sum: 1\r\n"
        await client.ask(request)
        assert (scene.seen[0].content, scene.seen[0].trailers) == (content, b"")
        assert scene.counters.trailers_dropped == 1
        await client.ask(post(content))
        assert scene.counters.trailers_dropped == 1


@pytest.mark.parametrize("clients", ["http1", "mux"])
@pytest.mark.parametrize("size", [0, 100_000])
@handlers
async def test_fields_that_may_not_be_trailers(double: Any, clients: str, size: int, handler: Any) -> None:
    """They are dropped, and counted once in each message; nothing else of it changes, and the connections go on."""
    if clients == "mux" and not isinstance(double, RealClients):
        pytest.skip("the double's format has no rules")
    said = b"X-A: 1\r\nCookie: a=1\r\nIf-Match: *\r\nX-B: 2\r\nAuthorization: x\r\n"

    async def answer(peer: Any) -> None:
        await scene.request(peer)
        await peer.say(Message(b"HTTP/1.1 200 OK", [CHUNKED], b"y" * size, b"Set-Cookie: a=1\r\nGrpc-Status: 0\r\nContent-Type: x\r\n"))

    async with Scene(double, clients, "http1", shown := handler and handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        for number in range(1, 3):
            reply = await client.ask(unsized(clients, b"x" * size, said))
            passing = b"X-A: 1\r\nX-B: 2\r\n"
            assert (reply.content, reply.trailers) == (b"y" * size, as_named(double, b"Grpc-Status: 0\r\n"))
            assert (scene.seen[-1].content, scene.seen[-1].trailers) == (b"x" * size, as_named(double, passing))
            assert scene.counters.trailers_dropped == 2 * number
        if shown is not None:
            assert [name.lower() for name, _ in shown.requests[0][0].trailers.raw] == [b"x-a", b"x-b"]
            assert [name.lower() for name, _ in shown.responses[0].trailers.raw] == [b"grpc-status"]


@pytest.mark.parametrize("clients", ["http1", "mux"])
async def test_none_of_the_trailers_may_be_one(double: Any, clients: str) -> None:
    if clients == "mux" and not isinstance(double, RealClients):
        pytest.skip("the double's format has no rules")
    async with Scene(double, clients, "http1", Handler()) as scene:
        client = await scene.connect()
        reply = await client.ask(unsized(clients, b"x", b"Range: bytes=0-\r\n"))
        assert (reply.status, reply.content, reply.trailers) == (200, b"x", b"")
        assert (scene.seen[0].content, scene.seen[0].trailers, scene.counters.trailers_dropped) == (b"x", b"", 1)


# ---- responses


@pairings
@pytest.mark.parametrize("size", [0, 1, 100_000])
@handlers
async def test_a_response_of_unknown_length(double: Any, pairing: tuple[str, str], size: int, handler: Any) -> None:
    async def answer(peer: Any) -> None:
        await scene.request(peer)
        fields = [] if to_mux(pairing) else [CHUNKED]
        message = Message(b"HTTP/1.1 200 OK", fields, b"y" * size, b"X-Sum: 1\r\n")
        if to_mux(pairing):
            peer.head(message)
            await peer.send(message.content)
            peer.end(message.trailers)
        else:
            await peer.say(message)

    async with Scene(double, *pairing, handler and handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        for _ in range(2):
            reply = await client.ask(get())
            assert (reply.content, reply.trailers, reply.complete) == (b"y" * size, as_named(double, b"X-Sum: 1\r\n"), True)
            assert (reply.get(b"transfer-encoding") == b"chunked") == (pairing[0] == "http1")


@pytest.mark.parametrize("clients", ["mux", "http1"])
async def test_trailers_of_a_response_with_a_length(double: Any, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        peer.head(Message(b"HTTP/1.1 200 OK", [(b"Content-Length", b"2")]))
        await peer.send(b"ok")
        peer.end(b"X-Sum: 1\r\n")

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        reply = await (await scene.connect()).ask(get())
        assert (reply.content, reply.trailers) == (b"ok", as_named(double, b"X-Sum: 1\r\n") if clients == "mux" else b"")
        assert scene.counters.trailers_dropped == (clients == "http1")


async def test_a_response_of_unknown_length_for_a_client_of_http_1_0(double: Any) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        peer.head(Message(b"HTTP/1.1 200 OK"))
        await peer.send(b"y" * 50_000)
        peer.end(b"X-Sum: 1\r\n")

    async with Scene(double, "http1", "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(Message(b"GET / HTTP/1.0", [(b"Connection", b"keep-alive")]))
        assert reply.content == b"y" * 50_000 and reply.get(b"transfer-encoding") is None
        assert reply.get(b"connection") == b"close" and await client.reader.read() == b""


async def test_a_response_until_the_connection_ends(double: Any) -> None:
    async def answer(peer: Http1Peer) -> None:
        await scene.request(peer)
        await peer.say(Message(b"HTTP/1.1 200 OK", [], b"z" * 100_000))
        await peer.close()

    async with Scene(double, "mux", "http1") as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        stream.gives_credit = False
        await stream.say(get())
        await stream.until(lambda: len(stream.content) == CREDIT)
        assert (await client.ask(get())).content == b"z" * 100_000
        for count in range(2, 6):
            stream.give(CREDIT)
            await stream.until(lambda expected=count: len(stream.content) == expected * CREDIT)
        stream.gives_credit = True
        stream.give(CREDIT)
        reply = await stream.whole()
        assert reply.complete and reply.content == b"z" * 100_000


@pairings
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", b"200 OK"), (b"GET", b"204 No Content"), (b"GET", b"304 Not Modified")])
async def test_responses_without_content(double: Any, pairing: tuple[str, str], method: bytes, status: bytes) -> None:
    async def answer(peer: Any) -> None:
        await scene.request(peer)
        fields = [] if b"204" in status else [(b"Content-Length", b"5")]
        await peer.say(Message(b"HTTP/1.1 " + status, fields))

    async with Scene(double, *pairing, Handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        for _ in range(2):
            reply = await client.ask(get(method=method))
            assert reply.start == b"HTTP/1.1 " + status and reply.content == b"" and reply.complete
            assert reply.get(b"content-length") == (None if b"204" in status else b"5")


@pairings
async def test_interim_responses(double: Any, pairing: tuple[str, str]) -> None:
    async def answer(peer: Any) -> None:
        await scene.request(peer)
        hints = Message(b"HTTP/1.1 103 Early Hints", [(b"Link", b"</a>")])
        for _ in range(2):
            if to_mux(pairing):
                peer.head(hints)
            else:
                peer.writer.write(hints.head)
        await peer.say(response(b"ok"))

    async with Scene(double, *pairing, Handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        if pairing[0] == "mux":
            stream = client.open()
            await stream.say(get())
            assert (await stream.whole()).content == b"ok"
            interims = stream.interims
        else:
            assert (await client.ask(get())).content == b"ok"
            interims = client.interims
        assert [message.get(b"link") for message in interims] == [b"</a>"] * 2


@pairings
async def test_a_client_that_waits_for_100(double: Any, pairing: tuple[str, str]) -> None:
    async with Scene(double, *pairing, Handler()) as scene:
        client = await scene.connect()
        request = post(b"hello", (b"Expect", b"100-continue"))
        if pairing[0] == "mux":
            stream = client.open()
            stream.head(request)
            await stream.until(lambda: stream.interims)
            await stream.send(b"hello")
            stream.end()
            assert (await stream.whole()).content == b"hello"
        else:
            client.writer.write(request.head)
            assert (await client.head()).status == 100
            client.writer.write(b"hello")
            assert (await client.message()).content == b"hello"


@pairings
async def test_an_early_response(double: Any, pairing: tuple[str, str]) -> None:
    """The rest of the request is relayed on while its response is."""
    answered = asyncio.Event()

    async def answer(peer: Any) -> None:
        if to_mux(pairing):
            await peer.until(lambda: peer.content)
        else:
            request = await peer.head()
        await peer.say(response(b"early"))
        answered.set()
        if to_mux(pairing):
            await scene.request(peer)
        else:
            scene.seen.append(await peer.body(request))

    async with Scene(double, *pairing) as scene:
        scene.answer = answer
        client = await scene.connect()
        request = post(b"a" * 50_000)
        if pairing[0] == "mux":
            stream = client.open()
            stream.head(request)
            await stream.send(b"a" * 10)
            await answered.wait()
            reply = await stream.whole()
            await stream.send(b"a" * 49_990)
            stream.end()
        else:
            client.writer.write(request.head + b"a" * 10)
            await answered.wait()
            reply = await client.message()
            client.writer.write(b"a" * 49_990)
        assert reply.content == b"early"
        await scene.until(lambda: scene.seen, "the rest of the request does not come")
        assert scene.seen[0].content == b"a" * 50_000 and scene.seen[0].complete


@pytest.mark.parametrize("clients", ["http1", "mux"])
async def test_an_upstream_that_answers_and_takes_no_more(double: Any, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await peer.until(lambda: peer.content)
        await peer.say(response(b"e" * 60_000))
        peer.reset(b"no more")

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        request = post(b"a" * 50_000)
        if clients == "mux":
            stream = client.open()
            stream.head(request)
            await stream.send(b"a" * 10)
            reply = await stream.whole()
            await stream.until(lambda: stream.reset_by is not None)
        else:
            client.writer.write(request.head + b"a" * 10)
            reply = await client.message()
            assert await client.reader.read() == b""
        assert reply.complete and reply.content == b"e" * 60_000


class Watching(Handler):
    """Is shown frames."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.ends = 0

    def on_stream_chunk(self, chunk: Any) -> None:
        self.frames.append(chunk.payload)

    def on_stream_end(self, connection_id: Any, flow_id: int) -> None:
        self.ends += 1


@pairings
async def test_frames_of_a_stream_of_events(double: Any, pairing: tuple[str, str]) -> None:
    events = [b"data: %d\n\n" % number * 100 for number in range(100)]

    async def answer(peer: Any) -> None:
        await scene.request(peer)
        head = Message(b"HTTP/1.1 200 OK", [(b"Content-Type", b"text/event-stream"), *([] if to_mux(pairing) else [CHUNKED])])
        if to_mux(pairing):
            peer.head(head)
            for event in events:
                await peer.send(event)
            peer.end()
        else:
            head.content = b"".join(events)
            await peer.say(head)

    handler = Watching()
    async with Scene(double, *pairing, handler) as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(get())
        assert reply.complete and reply.content == b"".join(events)
        await scene.until(lambda: handler.ends == 1, "the handler is not told of the end")
        assert len(handler.frames) == 10_000


# ---- deadlines and ends


@pairings
async def test_an_upstream_that_does_not_answer(double: Any, pairing: tuple[str, str]) -> None:
    async def answer(peer: Any) -> None:
        request = await scene.request(peer)
        if target_of(request) == "/never":
            await (peer.until(lambda: peer.over and peer.reset_by is not None) if to_mux(pairing) else peer.reader.read())
            return
        await peer.say(response(b"ok"))

    async with Scene(double, *pairing, upstream__timeout_ms=100) as scene:
        scene.answer = answer
        client = await scene.connect()
        assert (await client.ask(get(b"/never"))).status == 504
        assert (await client.ask(get())).content == b"ok"
        assert scene.counters.upstream_timeouts == 1


@pairings
async def test_a_response_that_stops(double: Any, pairing: tuple[str, str]) -> None:
    async def answer(peer: Any) -> None:
        await scene.request(peer)
        head = response(b"x" * 100)
        if to_mux(pairing):
            peer.head(head)
            await peer.send(b"x" * 10)
            await peer.until(lambda: peer.reset_by is not None)
        else:
            peer.writer.write(head.head + b"x" * 10)
            await peer.reader.read()

    async with Scene(double, *pairing, timeouts__body_idle_ms=100) as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(get())
        assert not reply.complete and reply.content == b"x" * 10
        assert scene.counters.responses_cut == 1


@pairings
async def test_an_upload_that_stops(double: Any, pairing: tuple[str, str]) -> None:
    async with Scene(double, *pairing, timeouts__body_idle_ms=100) as scene:
        client = await scene.connect()
        request = post(b"x" * 100)
        if pairing[0] == "mux":
            stream = client.open()
            stream.head(request)
            await stream.send(b"x" * 10)
            assert (await stream.whole()).status == 408
            assert (await client.ask(get())).status == 200
        else:
            client.writer.write(request.head + b"x" * 10)
            assert (await client.message()).status == 408


@pytest.mark.parametrize("clients", ["http1", "mux"])
async def test_an_upload_that_is_not_taken(double: Any, clients: str) -> None:
    async with Scene(double, clients, "mux", timeouts__body_idle_ms=100) as scene:
        scene.upstreams_give_credit = False
        client = await scene.connect()
        request = post(b"x" * 100_000)
        if clients == "mux":
            stream = client.open()
            stream.head(request)
            sending = asyncio.create_task(stream.send(request.content))
            assert (await stream.whole()).status == 504
            await sending
        else:
            client.writer.write(request.head + request.content)
            assert (await client.message()).status == 504


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
async def test_a_client_that_gives_no_credit_for_too_long(double: Any, upstreams: str) -> None:
    async def answer(peer: Any) -> None:
        await scene.request(peer)
        await peer.say(response(b"x" * 1_000_000))

    async with Scene(double, "mux", upstreams, timeouts__body_idle_ms=100, http2__stall_timeout_ms=100) as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        stream.gives_credit = False
        await stream.say(get())
        assert not (await stream.whole()).complete
        assert len((await client.ask(get())).content) == 1_000_000


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
async def test_draining_lets_streams_end(double: Any, upstreams: str) -> None:
    go = asyncio.Event()

    async def answer(peer: Any) -> None:
        await scene.request(peer)
        await go.wait()
        await peer.say(response(b"ok"))

    async with Scene(double, "mux", upstreams) as scene:
        scene.answer = answer
        client = await scene.connect()
        streams = [client.open() for _ in range(5)]
        for stream in streams:
            await stream.say(get())
        await scene.until(lambda: len(scene.seen) == 5, "not all requests come")
        scene.settings.draining = True
        scene.served[0].drain()
        late = client.open()
        await late.say(get())
        if isinstance(double, RealClients):
            # it cannot know yet, so it is served
            streams.append(late)
            await scene.until(lambda: len(scene.seen) == 6, "the late request does not come")
        else:
            assert (await late.whole()).start == b"" and late.reset_by == b"refused"
        go.set()
        assert [(await stream.whole()).content for stream in streams] == [b"ok"] * len(streams)
        await client.ended()


@pytest.mark.parametrize("upstreams", ["http1", "mux"])
@pytest.mark.parametrize("how", ["abort", "client", "upstream"])
@handlers
async def test_a_connection_that_is_lost_with_many_streams(double: Any, upstreams: str, how: str, handler: Any) -> None:
    async def answer(peer: Any) -> None:
        if upstreams == "mux":
            await peer.until(lambda: peer.over)
        else:
            await peer.head()
        scene.seen.append(get())
        peer_writer = peer.peer.writer if upstreams == "mux" else peer.writer
        if how == "upstream" and (upstreams == "http1" or len(scene.seen) == 8):
            peer_writer.transport.abort()
        elif upstreams == "mux":
            await peer.until(lambda: peer.reset_by is not None or peer.peer.closed)
        else:
            await peer.reader.read()

    async with Scene(double, "mux", upstreams, handler and handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        streams = [client.open() for _ in range(8)]
        for number, stream in enumerate(streams):
            await stream.say(post(b"x" * 1000 * number))
        await scene.until(lambda: len(scene.seen) >= 8, "not all requests come")
        if how == "abort":
            scene.served[0].abort()
            await client.ended()
        elif how == "client":
            client.writer.transport.abort()
        else:
            assert [(await stream.whole()).status for stream in streams] == [502] * 8
            assert not client.closed
        await scene.until(lambda: scene.counters.active_flows == 0, "exchanges go on")


# ---- the pool


async def test_streams_of_one_connection_and_the_order_of_those_that_wait(double: Any) -> None:
    gate: list[MuxPeerStream] = []

    async def answer(peer: MuxPeerStream) -> None:
        request = await scene.request(peer)
        gate.append(peer)
        await peer.until(lambda: peer not in gate)
        await peer.say(response(target_of(request).encode()))

    async with Scene(double, "mux", "mux", streams=3, connection_pool__max_connections_per_host=2) as scene:
        scene.answer = answer
        client = await scene.connect()
        asking = [asyncio.create_task(client.ask(get(b"/%d" % number))) for number in range(20)]
        order: list[str] = []
        for _ in range(20):
            await scene.until(lambda: gate and len(gate) == min(6, 20 - len(order)), "no request comes")
            assert len(scene.dialled) == 2 and scene.pool.open == 2
            assert [connection.open_streams <= 3 for connection in scene.dialled] == [True, True]
            first = gate.pop(0)
            order.append(first.message and target_of(first.message) or "")
            first.wake()
        assert [(await task).content.decode() for task in asking] == [f"/{number}" for number in range(20)]
        assert [target_of(message) for message in scene.seen] == [f"/{number}" for number in range(20)]
        assert scene.pool.streams_expected == 3


async def test_one_connection_is_dialled_where_it_is_known_to_carry_all(double: Any) -> None:
    async with Scene(double, "mux", "mux", streams=10) as scene:
        client = await scene.connect()
        await client.ask(get())
        scene.dialled[0].abort()
        await scene.until(lambda: scene.pool.open == 0, "the connection goes on")
        answers = await asyncio.gather(*(client.ask(get()) for _ in range(10)))
        assert {answer.status for answer in answers} == {200} and len(scene.dialled) == 2


async def test_a_connection_that_ended_while_it_had_streams_carries_no_more(double: Any) -> None:
    held = asyncio.Event()

    async def answer(peer: MuxPeerStream) -> None:
        request = await scene.request(peer)
        if target_of(request) == "/last":
            peer.peer.writer.close()
            return
        if target_of(request) == "/held":
            held.set()
            return
        await peer.say(response(b"ok"))

    async with Scene(double, "mux", "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        await stream.say(get(b"/held"))
        await held.wait()
        last = await client.ask(post(b"x", target=b"/last"))
        assert last.status == 502 and (await stream.whole()).status in (200, 502)
        assert (await client.ask(get())).content == b"ok"


async def test_requests_that_met_a_connection_at_its_end_are_sent_again_on_another(double: Any) -> None:
    """Also where no other may be open at the time: none of them goes back to the one that ends."""

    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        if peer.peer is scene.accepted[0] and len(scene.seen) > 1:
            if len(scene.seen) == 4:
                peer.peer.writer.close()
            return
        await peer.say(response(b"ok"))

    async with Scene(double, "mux", "mux", connection_pool__max_connections_per_host=1) as scene:
        scene.answer = answer
        client = await scene.connect()
        await client.ask(get())
        answers = await asyncio.gather(*(client.ask(get()) for _ in range(3)))
        assert [answer.status for answer in answers] == [200] * 3
        assert (scene.counters.retries, len(scene.dialled)) == (3, 2)


# ---- the corpus


def well_formed(name: str) -> list[Any]:
    """Return the samples of messages that may go through: block, head and what was read of the body."""
    found = []
    for sample in read_samples("http1"):
        if name not in sample.blocks:
            continue
        block = sample.blocks[name]
        how = Reading(name == "request", request_method=block.options.get("request_method", "GET"), eof=block.options.get("eof") == "yes")
        outcome, head = read_message([block.data], how)
        if head is None or outcome.refused or not outcome.complete or head.facts["upgrade"] or head.method == "CONNECT":
            continue
        if name == "response" and head.status < 200:
            continue
        found.append(pytest.param(block, outcome, head, id=sample.name))
    return found


def neutral(head: bytes, outcome: Any) -> Message:
    """Make the message that a multiplexed peer says."""
    message = parsed(head)
    message.fields = [(name, value) for name, value in message.fields if name.lower() not in HOP]
    message.content, message.trailers = outcome.content, outcome.trailers
    return message


def leave_to_http2(message: Message) -> None:
    """Change a message to what HTTP/2 leaves of it (RFC 9113 sections 8.2 and 8.3)."""
    lines = [line.partition(b":") for line in message.trailers.split(b"\r\n") if line]
    # a value has no white space around it
    message.trailers = b"".join(name.lower() + b": " + value.strip(b" \t") + b"\r\n" for name, _, value in lines)
    message.fields = [(name.lower(), value) for name, value in message.fields]
    if message.start.startswith(b"HTTP/"):
        # there are no reason phrases
        message.start = b" ".join(message.start.split(b" ")[:2])
        if message.start.endswith(b" 204"):
            # RFC 9110 section 8.6: it has no length
            message.fields = [field for field in message.fields if field[0] != b"content-length"]
        return
    # Host is :authority, which stands before all fields
    message.fields.sort(key=lambda field: field[0] != b"host")


def compared(double: Any, message: Message, *, sized: bool) -> tuple[Any, ...]:
    """What has to be the same however the message came."""
    left_out = HOP if sized else HOP | {b"content-length"}
    message = replace(message, fields=[(name, value) for name, value in message.fields if name.lower() not in left_out])
    if isinstance(double, RealClients):
        leave_to_http2(message)
    return message.start, message.fields, message.content, message.trailers, message.complete


@pytest.mark.parametrize(("block", "outcome", "head"), well_formed("request"))
@handlers
async def test_requests_of_the_corpus(double: Any, block: Any, outcome: Any, head: Any, handler: Any) -> None:
    """Each arrives as it does from HTTP/1 to HTTP/1."""
    arrived = []
    sized = head.facts["content_length"] >= 0
    for pairing in [("http1", "http1"), *PAIRINGS]:
        async with Scene(double, *pairing, handler and handler()) as scene:
            client = await scene.connect()
            if pairing[0] == "mux":
                said = neutral(rewrite_request(head, False, "a.example"), outcome)
                if b"max-forwards" in head.raw.lower():
                    # it is counted down once more
                    said.fields = [(name, value) for name, value in neutral(head.raw, outcome).fields]
                reply = await client.ask(said)
            else:
                client.writer.write(block.data[: len(block.data) - len(outcome.left)])
                reply = await client.message(bodiless=head.method == "HEAD")
            seen = [compared(double, message, sized=sized) for message in scene.seen]
            arrived.append((seen, reply.status, reply.content if seen else b""))
    assert arrived == arrived[:1] * 4


@pytest.mark.parametrize(("block", "outcome", "head"), well_formed("response"))
@pytest.mark.parametrize("minor", [b"1", b"0"])
async def test_responses_of_the_corpus(double: Any, block: Any, outcome: Any, head: Any, minor: bytes) -> None:
    """Each arrives as it does from HTTP/1 to HTTP/1, but for the trailers that an HTTP/1.0 client cannot be sent."""
    method = block.options.get("request_method", "GET").encode()

    async def answer(peer: Any) -> None:
        await scene.request(peer)
        if isinstance(peer, MuxPeerStream):
            await peer.say(neutral(rewrite_response(head), outcome))
            return
        peer.writer.write(block.data[: len(block.data) - len(outcome.left)])
        if block.options.get("eof") == "yes":
            peer.writer.write_eof()

    arrived = []
    sized = head.facts["content_length"] >= 0
    for pairing in [("http1", "http1"), *PAIRINGS]:
        async with Scene(double, *pairing, Handler()) as scene:
            scene.answer = answer
            client = await scene.connect()
            request = get(method=method)
            if pairing[0] == "http1":
                request.start = request.start[:-1] + minor
            reply = await client.ask(request)
            if minor == b"0":
                reply.trailers = b""
            arrived.append(compared(double, reply, sized=sized))
    assert arrived == arrived[:1] * 4
