"""Uploads that are collected before the decision: kept once, sent on byte for byte as they came, and counted as long as they are held."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.judge import Judge
from support.leaks import what_remains
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.tap import OK, Journal, Tap, TapConnection
from support.wire_client import WireClient

BLOCK = 65536
LIMIT = 100_000


def head(decide: str = "allow", method: str = "POST") -> bytes:
    return f"{method} /up HTTP/1.1\r\nHost: localhost\r\nX-Decide: {decide}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def spelt(content: bytes, sizes: list[int], seed: int = 0) -> bytes:
    """Return chunks of these sizes, each size spelt in its own way, and a trailer section."""
    choice = random.Random(seed)
    pieces, at = [], 0
    for size in sizes:
        line = choice.choice((b"%x", b"%X", b"%08x", b"%x;a", b'%X; name="a;b"', b"00%x;" + b"e" * 40)) % size
        pieces.append(line + b"\r\n" + content[at : at + size] + b"\r\n")
        at += size
    assert at == len(content)
    return b"".join(pieces) + b"000;last=1\r\nX-Sum: 1\r\nx-sum:  2 \t\r\nEmpty:\r\n\r\n"


def uploads() -> Iterator[tuple[str, bytes, bytes]]:
    """Name, content and wire of bodies."""
    yield "nothing", b"", b"0\r\n\r\n"
    yield "single-bytes", pattern(3000), b"".join(b"1\r\n%c\r\n" % byte for byte in pattern(3000)) + b"0\r\n\r\n"
    sizes = [1, 2, 16, 17, 255, 256, 4095, 4096, 16383, 16384, 16385]
    yield "all-spellings", pattern(sum(sizes)), spelt(pattern(sum(sizes)), sizes)
    # where a write is full just before, at and behind an edge
    for size in (BLOCK - 8, BLOCK - 7, BLOCK - 6, BLOCK - 1, BLOCK, BLOCK + 1, LIMIT):
        yield f"one-chunk-{size}", pattern(size), b"%x\r\n%b\r\n0\r\n\r\n" % (size, pattern(size))
    many = random.Random(7).choices((1, 5, 100, 1000, 1400), k=100)
    yield "many", pattern(sum(many)), spelt(pattern(sum(many)), many, 7)


UPLOADS = {name: (content, wire) for name, content, wire in uploads()}


def whole(data: bytes) -> list[bytes]:
    return [data]


def cut_anywhere(data: bytes) -> list[bytes]:
    choice = random.Random(len(data))
    edges = sorted({0, len(data), *(choice.randrange(len(data) + 1) for _ in range(30))})
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


@pytest.fixture(params=["tls", "plain"])
def either(request: pytest.FixtureRequest, tap: Tap, plain_tap: Tap) -> Tap:
    """An origin with TLS and one without."""
    return tap if request.param == "tls" else plain_tap


def connected(running: Running, tap: Tap, request: pytest.FixtureRequest) -> WireClient:
    return running.secured(tap.port) if request.node.callspec.params["either"] == "tls" else running.tunnel(tap.port)


@pytest.mark.parametrize("feed", [whole, cut_anywhere])
def test_what_is_sent_on_is_what_came(
    proxy: ProxyFactory, either: Tap, request: pytest.FixtureRequest, feed: Callable[[bytes], list[bytes]]
) -> None:
    """All on one connection, each shown whole."""
    running = proxy(Judge(either.journal), **{"body.max_size_bytes": LIMIT})
    with connected(running, either, request) as client:
        for name, (content, body) in UPLOADS.items():
            mark = either.journal.mark()
            for piece in feed(head() + body):
                client.send(piece)
            assert client.read_answer().status == 200, name
            either.journal.wait_plain(mark, head() + body)
            (asked,) = either.journal.since(mark, "asked")
            assert asked.value.raw_body == content, name
            assert (asked.value.body_complete, asked.value.body_truncated) == (True, False)
            assert [value for _, value in asked.value.trailers.raw] == ([b"1", b"2", b""] if b"X-Sum" in body else [])
        assert running.metrics().buffered_bytes == 0


@pytest.mark.parametrize("either", ["plain"], indirect=True)
def test_byte_by_byte(proxy: ProxyFactory, either: Tap) -> None:
    running = proxy(Judge(either.journal), **{"body.max_size_bytes": LIMIT})
    content = pattern(200)
    wire = head() + spelt(content, [1, 1, 2, 16, 180])
    with running.tunnel(either.port) as client:
        mark = either.journal.mark()
        for byte in wire:
            client.send(bytes([byte]))
        assert client.read_answer().status == 200
        either.journal.wait_plain(mark, wire)
        assert either.journal.since(mark, "asked")[0].value.raw_body == content


@pytest.mark.parametrize("feed", [whole, cut_anywhere])
@pytest.mark.parametrize("limit", [1, 15, 16, 17, 272, 4000])
def test_what_is_over_the_limit_is_sent_on_and_not_shown(
    proxy: ProxyFactory, either: Tap, request: pytest.FixtureRequest, feed: Callable[[bytes], list[bytes]], limit: int
) -> None:
    """The limit may lie inside a chunk, at its end, or at the beginning of the next; what is collected of the rest is sent before it."""
    running = proxy(Judge(either.journal), **{"body.max_size_bytes": limit})
    sizes = [16, 256, 4096, 1, 1, 1, 70_000]
    content = pattern(sum(sizes))
    wire = head() + spelt(content, sizes, limit)
    with connected(running, either, request) as client:
        mark = either.journal.mark()
        for piece in feed(wire):
            client.send(piece)
        assert client.read_answer().status == 200
        either.journal.wait_plain(mark, wire)
        (asked,) = either.journal.since(mark, "asked")
        assert asked.value.raw_body == content[:limit]
        assert (asked.value.body_complete, asked.value.body_truncated) == (False, True)
        assert running.metrics().buffered_bytes == 0


@pytest.mark.parametrize("name", ["single-bytes", "all-spellings", "one-chunk-65536", "many"])
def test_it_is_sent_whole_once_more(proxy: ProxyFactory, either: Tap, request: pytest.FixtureRequest, name: str) -> None:
    """On a kept connection that closed without an answer."""

    def leave_the_second(connection: TapConnection, message: bytes) -> None:
        if message.startswith(b"PUT") and connection.index == 0:
            connection.close()
        else:
            connection.send(OK)

    either.respond = leave_the_second
    wire = head(method="PUT") + UPLOADS[name][1]
    running = proxy(Judge(either.journal), **{"body.max_size_bytes": LIMIT})
    with connected(running, either, request) as client:
        assert client.request("/", "localhost").status == 200
        mark = either.journal.mark()
        client.send(wire)
        assert client.read_answer().status == 200
        either.journal.wait_plain(mark, wire + wire)
        assert len(either.journal.since(mark, "asked")) == 1
        assert running.metrics().retry_count == 1
        assert running.metrics().buffered_bytes == 0


class TestCounted:
    """What is held counts in `buffered_bytes`, to the byte and heads included, from the read to the last use."""

    BODIES = {
        "length": ("Content-Length: 3000", pattern(3000)),
        "chunked": ("Transfer-Encoding: chunked", spelt(pattern(3000), [1000, 1, 1999])),
        "single-bytes": ("Transfer-Encoding: chunked", UPLOADS["single-bytes"][1]),
    }

    @pytest.mark.parametrize("framing", BODIES)
    def test_it_is_held_once_while_it_is_decided_on(self, proxy: ProxyFactory, journal: Journal, tap: Tap, framing: str) -> None:
        """Framing counts as content does, though it is under no limit of its own."""
        field, body = self.BODIES[framing]
        running = proxy(Judge(journal), **{"body.max_size_bytes": 3000, "body.overflow": "reject"})
        with running.secured(tap.port) as client:
            head = f"POST /up HTTP/1.1\r\nHost: localhost\r\nX-Decide: suspend\r\n{field}\r\n\r\n".encode()
            client.send(head + body)
            (asked,) = journal.wait(0, "asked")
            assert asked.value.raw_body == pattern(3000)
            assert running.metrics().buffered_bytes == len(head) + len(body)
            running.handler.release()
            assert client.read_answer().status == 200
            assert running.metrics().buffered_bytes == 0

    @pytest.mark.parametrize("framing", BODIES)
    @pytest.mark.parametrize("shown_again", [False, True], ids=["on_request", "on_response-too"])
    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_it_is_let_go_when_nobody_needs_it(
        self, proxy: ProxyFactory, origin: Origin, framing: str, shown_again: bool, method: str
    ) -> None:
        """While its answer is awaited: all of it may be sent once more (PUT), or else what `on_response` is shown is left."""

        def answer_late(connection: ScriptedConnection, request: Request) -> None:
            connection.read_body()
            connection.wait(seen)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        class Asked(InterceptHandler):
            async def on_request(self, request: RawRequest) -> HandlerDecision:
                return HandlerDecision.ALLOW

        seen = threading.Event()
        origin.script(answer_late)
        field, body = self.BODIES[framing]
        running = proxy(Recording() if shown_again else Asked(), **{"body.max_size_bytes": 3000})
        with running.secured(origin.port) as client:
            head = f"{method} /up HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n".encode()
            client.send(head + body)
            (request,) = origin.wait_requests(1)
            assert bytes(request.raw_body) == body
            left = len(head) + (len(body) if method == "PUT" else 3000 * shown_again)
            remains = what_remains(lambda: {} if running.metrics().buffered_bytes == left else {"held": running.metrics().buffered_bytes})
            assert not remains, (remains, left)
            seen.set()
            assert client.read_answer().status == 200
            assert running.metrics().buffered_bytes == 0
