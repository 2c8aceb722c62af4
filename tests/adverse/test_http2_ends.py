"""Connections of HTTP/2 whose client answers nothing, whose handler fails, or whose proxy ends: each stream has an end of its own."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soth_mitm import HandlerDecision, MitmConfig, RawRequest
from support.certs import TestCA
from support.http2_inside import http2_client
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running

KIB = 1024
INTERNAL_ERROR, CANCEL = 2, 8
MANY = 6


@pytest.fixture
def h2_origin(origin_ca: TestCA) -> Iterator[Origin]:
    """An HTTPS origin that speaks HTTP/2."""
    with Origin(origin_ca.server_context(HOST, alpn=["h2"]), host=HOST) as origin:
        yield origin


def shutting_down(running: Running) -> tuple[threading.Thread, list[BaseException]]:
    """Return a thread that shuts the proxy down within 5 s, and what it failed with."""
    failures: list[BaseException] = []

    def end() -> None:
        try:
            running.handle.shutdown(5)
        except TimeoutError as failure:
            failures.append(failure)

    ending = threading.Thread(target=end)
    ending.start()
    return ending, failures


class TestAClientThatIgnoresEverything:
    """It answers no PING, heeds no GOAWAY and closes nothing."""

    @pytest.mark.parametrize("requests", [0, 1, 20])
    def test_a_shutdown_does_not_wait_for_it(self, proxy: ProxyFactory, h2_origin: Origin, requests: int) -> None:
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            numbers = [client.open(f"/bytes/{count}") for count in range(requests)]
            assert [client.answer(number).body for number in numbers] == [pattern(count) for count in range(requests)]
            # which raises if a connection is cut
            running.handle.shutdown(5)
            client.read_to_end(answering=False)
        assert client.goaways == [(2**31 - 1, 0), (2 * requests - 1 if requests else 0, 0)]

    def test_nor_after_a_stream_that_ends_meanwhile(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        going, started = threading.Event(), threading.Event()

        def slow(connection: Any, request: Any) -> None:
            started.set()
            connection.wait(going)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        h2_origin.script(slow, "/slow")
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            number = client.open("/slow")
            assert started.wait(10)
            ending, failures = shutting_down(running)
            while not client.goaways:
                client.hear()
            going.set()
            ending.join()
            client.read_to_end(answering=False)
        assert client.streams[number].body == b"ok" and client.goaways == [(2**31 - 1, 0), (number, 0)]
        assert not failures

    def test_a_client_of_http1_that_stays_is_not_waited_for_either(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        going, started = threading.Event(), threading.Event()

        def slow(connection: Any, request: Any) -> None:
            started.set()
            connection.wait(going)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        plain_origin.script(slow, "/slow")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert started.wait(10)
            ending, failures = shutting_down(running)
            going.set()
            assert client.read_answer().text == "ok"
            ending.join()
        assert not failures


WAYS = ("raise", "raise-later", "late", "nonsense", "nothing", "block", "allow", "allow-later")


async def suspend_and_fail() -> HandlerDecision:
    await asyncio.sleep(0.01)
    raise RuntimeError("on purpose")


async def allow_later() -> HandlerDecision:
    await asyncio.sleep(0.05)
    return HandlerDecision.ALLOW


async def hang() -> HandlerDecision:
    await asyncio.sleep(60)
    return HandlerDecision.ALLOW


def in_one_of_many_ways(request: RawRequest) -> Any:
    match request.path.split("/")[1]:
        case "raise":
            raise ValueError("on purpose")
        case "raise-later":
            return suspend_and_fail()
        case "late":
            return hang()
        case "nonsense":
            return "allow"
        case "nothing":
            return None
        case "block":
            return HandlerDecision.block(451, request.path.encode())
        case "allow-later":
            return allow_later()
    return HandlerDecision.ALLOW


@pytest.mark.parametrize("policy", ["block", "allow"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_handlers_that_fail_on_many_streams_at_once(proxy: ProxyFactory, h2_origin: Origin, policy: str, method: str) -> None:
    """Each stream gets its own answer, and the others go on."""
    keys = {"handler.request_timeout_ms": 300, "handler.failure_policy": policy}
    running = proxy(Recording(in_one_of_many_ways), **keys)
    connection, client = http2_client(running, h2_origin.port)
    with connection:
        asked = [
            (way, count, client.open(f"/{way}/{count}", method=method, body=pattern(count) if method == "POST" else None))
            for count in range(MANY)
            for way in WAYS
        ]
        allowed = set()
        for way, count, number in asked:
            answer = client.answer(number)
            assert answer.reset is None, (way, answer)
            fails = way in ("raise", "raise-later", "late")
            if way == "block":
                assert (answer.status, answer.text) == (451, f"/{way}/{count}")
            elif way in ("nonsense", "nothing") or (fails and policy == "block"):
                assert answer.status == 502, (way, answer)
            else:
                assert answer.status == 200, (way, answer)
                allowed.add(f"/{way}/{count}")
        # and the connection goes on
        assert client.request("/bytes/9").body == pattern(9)
    assert {request.target for request in h2_origin.requests} == allowed | {"/bytes/9"}
    metrics = running.metrics()
    assert (metrics.handler_timeout_count, metrics.handler_panic_count) == (MANY, 4 * MANY)
    assert metrics.total_connections == 1
    running.wait_idle()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_recovery_a_failure_ends_its_stream_only(proxy: ProxyFactory, h2_origin: Origin, method: str) -> None:
    keys = {"handler.request_timeout_ms": 300, "handler.recover_from_panics": False}
    running = proxy(Recording(in_one_of_many_ways), **keys)
    connection, client = http2_client(running, h2_origin.port)
    with connection:
        asked = [
            (way, client.open(f"/{way}/{count}", method=method, body=pattern(count) if method == "POST" else None))
            for count in range(MANY)
            for way in WAYS
        ]
        for way, number in asked:
            answer = client.answer(number)
            if way in ("block", "allow", "allow-later"):
                assert answer.status == (451 if way == "block" else 200)
            else:
                # a deadline of ours is CANCEL
                assert (answer.headers, answer.reset) == ([], CANCEL if way == "late" else INTERNAL_ERROR), way
        assert client.request("/bytes/9").body == pattern(9)
    assert Counter(request.target.split("/")[1] for request in h2_origin.requests) == {"allow": MANY, "allow-later": MANY, "bytes": 1}
    running.wait_idle()


class FailsBehindTheDecision(Recording):
    """Allows everything and fails at the response, at each chunk and at the end."""

    async def on_response(self, response: Any) -> None:
        await super().on_response(response)
        if "odd" in response.request.path:
            raise ValueError("on purpose")
        await asyncio.sleep(60)

    def on_stream_chunk(self, chunk: Any) -> Any:
        raise ValueError("on purpose")

    async def on_stream_end(self, connection_id: Any, flow_id: int) -> None:  # type: ignore[override]
        self._note("on_stream_end", flow_id)
        raise ValueError("on purpose")


def test_handlers_that_fail_at_the_response_of_many_streams(proxy: ProxyFactory, h2_origin: Origin) -> None:
    running = proxy(FailsBehindTheDecision(), **{"handler.response_timeout_ms": 100})
    connection, client = http2_client(running, h2_origin.port)
    with connection:
        numbers = [client.open(f"/sse/5/0?{'odd' if count % 2 else 'even'}") for count in range(20)]
        answers = [client.answer(number) for number in numbers]
        assert [answer.status for answer in answers] == [200] * 20
        assert len({answer.body for answer in answers}) == 1 and answers[0].body.count(b"data:") == 5
    ends = running.handler.wait("on_stream_end", 20)
    assert len(set(ends)) == len(ends) == 20, "a flow's end is told once"
    running.wait_idle()


@pytest.mark.parametrize("way", ["shutdown", "reload"])
def test_small_budgets_and_an_end_in_the_middle(
    proxy: ProxyFactory, h2_origin: Origin, make_config: Callable[..., MitmConfig], way: str
) -> None:
    """Streams that together keep many times the budget all finish, though the proxy ends or is reloaded with half of it."""
    going, deciding = threading.Event(), threading.Event()

    async def decide(request: RawRequest) -> HandlerDecision:
        deciding.set()
        await asyncio.to_thread(going.wait, 20)
        return HandlerDecision.ALLOW

    small = {"max_in_flight_bytes": 256 * KIB, "body.max_size_bytes": 128 * KIB, "max_http_head_bytes": 16 * KIB}
    running = proxy(Recording(decide), **small)
    connection, client = http2_client(running, h2_origin.port)
    with connection:
        bodies = {}
        for count in range(20):
            body = bytes([count]) * (40 * KIB)
            bodies[client.open("/echo", method="POST", fields=[("content-length", str(len(body)))], end=False)] = body
        first, *others = bodies
        client.send(first, bodies[first], end=True)
        assert deciding.wait(10)
        ending = threading.Thread(target=lambda: running.handle.shutdown(20))
        if way == "reload":
            running.handle.reload(make_config(**small | {"max_in_flight_bytes": 128 * KIB}))
        else:
            ending.start()
        going.set()
        for number in others:
            client.send(number, bodies[number], end=True)
        for number, body in bodies.items():
            answer = client.answer(number)
            assert answer.status == 200, answer.text
            assert hashlib.sha256(body).hexdigest() in answer.text
        if way == "shutdown":
            client.read_to_end()
            ending.join()
            assert client.goaways[-1] == (max(bodies), 0)
    running.wait_idle()
    assert running.metrics().buffered_bytes == 0
    assert len(running.handler.wait("on_connection_close")) == 1
