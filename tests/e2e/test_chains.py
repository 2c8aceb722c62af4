"""Chains in a proxy: what several members make of one response, of one stream, and of the messages of a WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.test_filters import serve
from tests.e2e.test_response_decisions import Decides, says
from tests.e2e.test_websocket_filter import Talk, frames_of

from soth_mitm import (
    Chain,
    ChunkDecision,
    FrameKind,
    HandlerDecision,
    InterceptHandler,
    RawRequest,
    RawResponse,
    ResponseDecision,
    StreamChunk,
)
from support.certs import TestCA
from support.origin import Origin
from support.pairings import PAIRINGS, PairedClient, paired_origin
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.websocket import FIN, MASK, TEXT, frame
from support.websocket import ask as opening

PASS, HOLD, UNFILTERED = ResponseDecision.PASS, ResponseDecision.HOLD, ResponseDecision.UNFILTERED
change, replace = ResponseDecision.change, ResponseDecision.replace


class Allows(InterceptHandler):
    """Has the proxy offer HTTP/2 to a client before it knows what the upstream speaks."""

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.ALLOW


class Filters(InterceptHandler):
    """Filters, and says something of heads if the test wants that."""

    def __init__(
        self, choose: Callable[[StreamChunk], Any], head: ResponseDecision | None = None, kinds: Any = frozenset(FrameKind)
    ) -> None:
        self.choose, self.filter_kinds = choose, kinds  # type: ignore[misc]
        self.asked: list[bytes] = []
        if head is not None:
            self.on_response_head = lambda response: head  # type: ignore[method-assign]

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self.asked.append(chunk.payload)
        return self.choose(chunk)


def says_instead(old: bytes, new: bytes) -> Callable[[StreamChunk], ChunkDecision]:
    return lambda chunk: ChunkDecision.replace(chunk.payload.replace(old, new)) if old in chunk.payload else ChunkDecision.PASS


class Scene:
    def __init__(self, running: Running, origin: Origin, client: PairedClient) -> None:
        self.running, self.origin, self.client = running, origin, client


@pytest.fixture(params=PAIRINGS, ids="".join)
def scene(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[Callable[..., Scene]]:
    client, upstream = request.param
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(paired_origin(origin_ca, upstream))

        def make(*members: Any, **keys: Any) -> Scene:
            running = proxy(Chain(Allows(), *members), **{"http2.for_http1_clients": True, **keys})
            made = Scene(running, origin, PairedClient(running, origin.port, client))
            stack.callback(made.client.close)
            return made

        yield make


BODY = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nold"


class TestResponses:
    def test_what_each_leaves(self, scene: Callable[..., Scene]) -> None:
        first = Decides(change(set={"X-One": "1"}))
        second = Decides(HOLD, lambda response: replace(body=response.body + b" second"))
        third = Decides(change(set={"X-Three": "3"}, status=203))
        fourth = Decides(HOLD, lambda response: replace(body=response.body + b" fourth"))
        made = scene(first, second, third, fourth)
        made.origin.script(says(BODY))
        answer = made.client.ask("/x")
        assert (answer.status, answer.body, answer.get("x-one"), answer.get("x-three")) == (203, b"old second fourth", "1", "3")
        assert (answer.get("etag"), answer.get("content-type"), answer.get("content-length")) == (None, "text/plain", "17")
        (last,) = fourth.of("on_response_body")
        assert (last.body, last.status, last.headers["x-one"], last.body_complete) == (b"old second", 203, "1", True)
        assert third.of("on_response_body") == []
        (observed,) = first.wait("on_response")
        assert (observed.body, observed.status) == (answer.body, 203)
        made.client.close()
        made.running.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")

    def test_a_block_behind_a_hold(self, scene: Callable[..., Scene]) -> None:
        made = scene(Decides(change(set={"X-One": "1"})), Decides(HOLD), Decides(ResponseDecision.block(451, "no")), Decides(HOLD))
        made.origin.script(says(BODY))
        answer = made.client.ask("/x")
        assert (answer.status, answer.body, answer.get("x-one")) == (451, b"no", None)
        assert made.running.metrics().blocked_response_count == 1

    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_a_hold_of_a_stream_is_refused(self, scene: Callable[..., Scene], policy: str) -> None:
        made = scene(Decides(PASS), Decides(HOLD), Filters(lambda chunk: ChunkDecision.PASS), **{"handler.failure_policy": policy})
        serve(made.origin, b"data: 1\n\n")
        assert made.client.ask("/x").status == 502

    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_what_cannot_be_applied_is_refused(self, scene: Callable[..., Scene], policy: str) -> None:
        made = scene(Decides(HOLD, replace(206, "other length")), Decides(PASS), **{"handler.failure_policy": policy})
        made.origin.script(says(BODY))
        assert made.client.ask("/x").status == 502

    def test_upstreams_that_end_while_they_are_held(self, scene: Callable[..., Scene]) -> None:
        """What a chain has to remember goes with the exchange."""
        made = scene(Decides(change(set={"X-One": "1"})), Decides(HOLD))
        made.origin.script(says(BODY[:-1], ends=True))
        assert made.client.ask("/x").status == 502
        made.client.close()
        made.running.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")


EVENTS = b"event: e\ndata: one\n\ndata: two\n\n"


class TestStreams:
    def test_each_sees_what_the_one_before_left(self, scene: Callable[..., Scene]) -> None:
        first, second = Filters(says_instead(b"one", b"1")), Filters(says_instead(b"1", b"first"))
        watch = Recording()
        made = scene(first, watch, second)
        serve(made.origin, EVENTS)
        assert made.client.ask("/x").body == b"event: e\ndata: first\n\ndata: two\n\n"
        assert (first.asked, second.asked) == ([b"one", b"two"], [b"1", b"two"])
        assert [chunk.payload for chunk in watch.wait("on_stream_chunk", 2)] == [b"first", b"two"]

    def test_a_drop_and_an_end(self, scene: Callable[..., Scene]) -> None:
        last = Filters(lambda chunk: ChunkDecision.END if chunk.payload == b"two" else ChunkDecision.PASS)
        made = scene(Filters(lambda chunk: ChunkDecision.DROP if chunk.payload == b"one" else ChunkDecision.PASS), last)
        serve(made.origin, EVENTS + b"data: three\n\n")
        assert made.client.ask("/x").body == b""
        assert last.asked == [b"two"]

    def test_unfiltered_is_about_one_member(self, scene: Callable[..., Scene]) -> None:
        other = Filters(lambda chunk: ChunkDecision.PASS)
        shy = Filters(lambda chunk: ChunkDecision.END, UNFILTERED)
        made = scene(shy, other, Decides(change(set={"X-One": "1"})))
        serve(made.origin, EVENTS)
        answer = made.client.ask("/x")
        assert (answer.body, answer.get("x-one")) == (EVENTS, "1")
        assert (shy.asked, other.asked) == ([], [b"one", b"two"])

    def test_a_member_without_a_filter_opens_nothing(self, scene: Callable[..., Scene]) -> None:
        other = Filters(lambda chunk: ChunkDecision.END)
        made = scene(Decides(UNFILTERED), other)
        serve(made.origin, EVENTS)
        assert made.client.ask("/x").body == b""
        assert other.asked == [b"one"]

    def test_a_stream_that_all_leave_unfiltered_keeps_its_bytes(self, scene: Callable[..., Scene]) -> None:
        members = [Filters(lambda chunk: ChunkDecision.END, UNFILTERED) for _ in range(2)]
        made = scene(Decides(change(set={"X-One": "1"})), *members)
        text = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nETag: x\r\nContent-Length: {len(EVENTS)}\r\n\r\n".encode()
        made.origin.script(says(text + EVENTS))
        answer = made.client.ask("/x")
        assert (answer.body, answer.get("etag"), answer.get("x-one")) == (EVENTS, "x", "1")
        assert [member.asked for member in members] == [[], []]


def test_messages_of_a_websocket(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """Each member decides about its own kinds; one that has said UNFILTERED at the 101 about none."""
    shy = Filters(lambda chunk: ChunkDecision.END, UNFILTERED)
    text = Filters(says_instead(b"one", b"1"), kinds=frozenset({FrameKind.WEBSOCKET_TEXT}))
    events = Filters(lambda chunk: ChunkDecision.END, kinds=frozenset({FrameKind.SSE_DATA}))
    running = proxy(Chain(shy, text, events, Filters(says_instead(b"1", b"first"))))
    talk = Talk(plain_origin, frame(FIN | TEXT, b"one for you"))
    with running.tunnel(plain_origin.port) as client:
        client.send(opening())
        assert client.read_head().status == 101
        assert frames_of(client.read_exactly(2 + 13)) == [(FIN | TEXT, b"first for you")]
        client.send(frame(FIN | TEXT, b"one for me", MASK))
        assert frames_of(talk.wait(2 + 4 + 12)) == [(FIN | TEXT, b"first for me")]
    running.wait_idle()
    assert (shy.asked, events.asked, text.asked) == ([], [], [b"one for you", b"one for me"])


def test_heads_that_one_member_decides_are_its_own() -> None:
    """Nothing stands between a lone member and the proxy."""

    class Looks(InterceptHandler):
        def on_response_head(self, response: RawResponse) -> ResponseDecision:
            return PASS

    one = Looks()
    assert Chain(one, Recording()).on_response_head == one.on_response_head
