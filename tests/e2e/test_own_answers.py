"""What a handler answers itself, and what it ends without an answer: nothing is dialled for either."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.http2_inside import Http2Client
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import TIMEOUT, WireClient

# While nothing is decided, the client is offered HTTP/2 by what its upstream spoke before.
CANCEL, INTERNAL_ERROR = 8, 2


class Answers(InterceptHandler):
    """Answers as the path says."""

    def __init__(self, **decisions: HandlerDecision) -> None:
        self.decisions = decisions

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return self.decisions.get(request.path[1:].partition("?")[0], HandlerDecision.ALLOW)


class AnswersLater(Answers):
    """The same, in another turn of the loop."""

    async def on_request(self, request: RawRequest) -> HandlerDecision:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().on_request(request)


DECISIONS = {
    "text": HandlerDecision.respond(200, "hello"),
    "json": HandlerDecision.respond(201, b"{}", {"Content-Type": "application/json", "X-Own": "1"}),
    "none": HandlerDecision.respond(),
    "no_content": HandlerDecision.respond(204, headers={"X-Own": "1"}),
    "not_modified": HandlerDecision.respond(304, headers={"ETag": '"1"'}),
    "long": HandlerDecision.respond(200, pattern(3_000_000)),
    "close": HandlerDecision.abort("close"),
    "reset": HandlerDecision.abort(),
}


@pytest.fixture(params=[Answers, AnswersLater])
def running(request: pytest.FixtureRequest, proxy: ProxyFactory) -> Running:
    return proxy(request.param(**DECISIONS), destinations=("*:*",))


@pytest.fixture
def client(running: Running, looked_up: list[str]) -> Iterator[WireClient]:
    """A client of HTTP/1 of an origin that does not exist."""
    with running.secured(443, "no-such-host.invalid") as client:
        yield client
    running.wait_idle()
    assert looked_up == [] and running.metrics().pool_miss_count == 0


@pytest.fixture
def h2(proxy: ProxyFactory) -> Iterator[tuple[Http2Client, Running]]:
    """A client of HTTP/2 in clear text, which needs no upstream to be offered it."""
    running = proxy(Answers(**DECISIONS), destinations=("*:*",))
    with running.tunnel(80, "no-such-host.invalid") as client:
        yield Http2Client(client.socket, "no-such-host.invalid", "http"), running
    running.wait_idle()
    assert running.metrics().pool_miss_count == 0


def counts(running: Running) -> tuple[int, int, int, int]:
    metrics = running.metrics()
    return (
        metrics.answered_request_count,
        metrics.aborted_request_count,
        metrics.blocked_request_count,
        metrics.allowed_request_count,
    )


def assert_reset(client: WireClient) -> None:
    """Read the socket itself: the ssl module takes a RST for an end."""
    assert client.buffered() == b""
    with socket.socket(fileno=os.dup(client.socket.fileno())) as raw, pytest.raises(ConnectionResetError):
        raw.settimeout(TIMEOUT)
        while raw.recv(1 << 16):
            # session tickets that nobody has read
            pass


class TestRespond:
    def test_http1(self, running: Running, client: WireClient) -> None:
        answer = client.request("/text", HOST)
        assert (answer.status, answer.text, answer.get("content-length")) == (200, "hello", "5")
        answer = client.request("/json", HOST, "POST", b"x" * 100_000)
        assert (answer.status, answer.text, answer.get("content-type"), answer.get("x-own")) == (201, "{}", "application/json", "1")
        assert client.request("/none", HOST).get("content-length") == "0"
        answer = client.request("/no_content", HOST)
        assert (answer.status, answer.get("content-length"), answer.get("x-own")) == (204, None, "1")
        answer = client.request("/not_modified", HOST)
        assert (answer.status, answer.get("content-length"), answer.get("etag")) == (304, None, '"1"')
        assert client.request("/long", HOST).body == pattern(3_000_000)
        assert counts(running) == (6, 0, 0, 0)

    def test_head(self, client: WireClient) -> None:
        answer = client.request("/text", HOST, "HEAD")
        assert (answer.status, answer.body, answer.get("content-length")) == (200, b"", "5")
        assert client.request("/text", HOST).text == "hello"

    def test_an_http10_client(self, client: WireClient) -> None:
        client.send(b"GET /text HTTP/1.0\r\n\r\n")
        answer = client.read_answer()
        assert (answer.status, answer.text, answer.get("connection")) == (200, "hello", "close")
        assert client.read_to_end() == b""

    def test_pipelined(self, running: Running, client: WireClient) -> None:
        paths = ["text", "none", "json", "text"]
        client.send(b"".join(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode() for path in paths))
        assert [client.read_answer().status for _ in paths] == [200, 200, 201, 200]
        assert counts(running)[0] == len(paths)

    def test_expect(self, running: Running, proxy: ProxyFactory) -> None:
        head = f"POST /text HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode()
        with running.secured(443) as client:
            # it is collected, and so asked for
            client.send(head)
            assert client.read_head().status == 100
            client.send(b"12345")
            assert client.read_answer().text == "hello"
            assert client.request("/text", HOST).text == "hello"
        at_head = proxy(Answers(**DECISIONS), **{"body.buffer_request_bodies": False})
        with at_head.secured(443) as client:
            client.send(head)
            answer = client.read_answer()
            assert (answer.status, answer.text, answer.get("connection")) == (200, "hello", "close")
            assert client.read_to_end() == b""

    def test_while_the_body_is_on_its_way(self, proxy: ProxyFactory) -> None:
        running = proxy(Answers(**DECISIONS), **{"body.buffer_request_bodies": False})
        with running.secured(443) as client:
            client.send(f"POST /text HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 10)
            answer = client.read_answer()
            assert (answer.text, answer.get("connection")) == ("hello", "close")
            client.send(b"x" * 100_000)
        running.wait_idle()

    def test_http2(self, h2: tuple[Http2Client, Running]) -> None:
        client, running = h2
        assert (client.request("/text").text, client.request("/text").get("content-length")) == ("hello", "5")
        answer = client.request("/json", method="POST", body=b"x" * 100_000)
        assert (answer.status, answer.text, answer.get("x-own")) == (201, "{}", "1")
        assert (client.request("/no_content").status, client.request("/no_content").get("content-length")) == (204, None)
        head = client.request("/text", method="HEAD")
        assert (head.text, head.get("content-length"), head.ended) == ("", "5", True)
        assert client.request("/long").body == pattern(3_000_000)
        assert counts(running) == (7, 0, 0, 0)

    def test_http2_while_the_body_is_on_its_way(self, proxy: ProxyFactory) -> None:
        running = proxy(Answers(**DECISIONS), **{"body.buffer_request_bodies": False})
        with running.tunnel(80) as connection:
            client = Http2Client(connection.socket, HOST, "http")
            answer = client.request("/text", method="POST", body=b"12345", end=False)
            assert answer.text == "hello"
            # NO_ERROR: what was given is all, and the rest of the request is not wanted
            assert answer.ended or answer.reset == 0


class TestAbort:
    def test_close(self, running: Running, client: WireClient) -> None:
        client.send(f"GET /close HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert client.read_to_end() == b""
        assert counts(running) == (0, 1, 0, 0)

    @pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
    def test_reset(self, running: Running, tls: bool) -> None:
        with running.secured(443) if tls else running.tunnel(80) as client:
            client.send(f"GET /reset HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert_reset(client)
        assert counts(running) == (0, 1, 0, 0)

    @pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
    @pytest.mark.parametrize("how", ["close", "reset"])
    def test_behind_responses(self, running: Running, how: str, tls: bool) -> None:
        with running.secured(443) if tls else running.tunnel(80) as client:
            requests = [b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"text", b"long", how.encode(), b"text")]
            client.send(b"".join(requests))
            # the responses to earlier requests arrive whole, however long, and nothing else does
            assert client.read_answer().text == "hello"
            assert client.read_answer().body == pattern(3_000_000)
            if how == "close":
                assert client.read_to_end() == b""
            else:
                assert_reset(client)
        assert counts(running) == (2, 1, 0, 0)

    def test_while_the_body_is_on_its_way(self, proxy: ProxyFactory) -> None:
        running = proxy(Answers(**DECISIONS), **{"body.buffer_request_bodies": False})
        with running.secured(443) as client:
            client.send(f"POST /close HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 10)
            assert client.read_to_end() == b""
        running.wait_idle()

    @pytest.mark.parametrize(("how", "code"), [("close", CANCEL), ("reset", INTERNAL_ERROR)])
    def test_http2(self, h2: tuple[Http2Client, Running], how: str, code: int) -> None:
        client, running = h2
        answer = client.request(f"/{how}")
        assert (answer.reset, answer.headers) == (code, [])
        answer = client.request(f"/{how}", method="POST", body=b"x" * 1000)
        assert answer.reset == code
        # the connection goes on
        assert client.request("/text").text == "hello"
        assert counts(running) == (1, 2, 0, 0)


@pytest.mark.parametrize("name", ["text", "close", "reset"])
def test_monitor_mode_forwards_what_it_is_to_answer(proxy: ProxyFactory, origin: Origin, name: str) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        return DECISIONS[name]

    running = proxy(Recording(decide), intercept_mode="monitor")
    with running.secured(origin.port) as client:
        for _ in range(2):
            assert client.request("/bytes/3", HOST).body == pattern(3)
    running.wait_idle()
    assert counts(running) == (0, 0, 0, 0)
    assert (running.metrics().ignored_decision_count, running.metrics().ignored_block_count) == (2, 0)


def test_a_refused_argument_blocks(proxy: ProxyFactory) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        return HandlerDecision.respond(99)

    running = proxy(Recording(decide), **{"handler.failure_policy": "allow"})
    with running.secured(443) as client:
        answer = client.request("/x", HOST)
        assert answer.status == 502 and "failed to make the decision that it wanted" in answer.text
    assert running.metrics().pool_miss_count == 0


def test_a_client_that_leaves_first_is_not_counted(proxy: ProxyFactory) -> None:
    entered, left = asyncio.Event(), []

    class Waits(InterceptHandler):
        async def on_request(self, request: RawRequest) -> HandlerDecision:
            entered.set()
            try:
                await asyncio.sleep(60)
            finally:
                left.append(True)
            return DECISIONS["text"]

    running = proxy(Waits(), **{"handler.request_timeout_ms": 300})
    with running.secured(443) as client:
        client.send(f"GET /text HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        client.socket.shutdown(socket.SHUT_RDWR)
    running.wait_idle()
    assert left == [True]
    assert counts(running)[0] == 0
