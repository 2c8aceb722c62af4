"""An observer beside the proxy: told what happened, and unable to touch it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, MitmProxyBuilder, RawRequest
from soth_mitm.observe.observation import Event, EventKind, Verdict
from support.certs import TestCA
from support.origin import Origin
from support.recording import Recording
from support.running import Running, configure
from support.watcher import Watcher


def watched(tmp_path: Path, origin_ca: TestCA, handler: InterceptHandler, watcher: Watcher, **keys: object) -> Running:
    config = configure(tmp_path, origin_ca, **keys)
    return Running(MitmProxyBuilder(config, handler).with_observer(watcher).build().start_in_thread(), handler)


def decide(request: RawRequest) -> HandlerDecision:
    if "/fail" in request.path:
        raise LookupError("on purpose")
    return HandlerDecision.block(418, "no") if "/no" in request.path else HandlerDecision.ALLOW


def test_a_flow_is_told_from_its_decision_to_its_end(tmp_path: Path, origin_ca: TestCA, origin: Origin) -> None:
    watcher = Watcher()
    running = watched(tmp_path, origin_ca, Recording(decide), watcher)
    with running.handle, running.secured(origin.port) as client:
        for path, status in (("/bytes/3000?q=1", 200), ("/no", 418), ("/sse/2/0", 200), ("/fail", 502)):
            assert client.request(path, "localhost").status == status
        watcher.wait(EventKind.FLOW_END, 4)
    assert {event.url for event in watcher.events} == {
        f"https://localhost:{origin.port}{path}" for path in ("/bytes/3000?q=1", "/no", "/sse/2/0", "/fail")
    }
    assert all(event.method == "GET" and event.meta is not None for event in watcher.events)
    told = [(event.kind.value, event.verdict, event.status, event.is_stream, event.cause) for event in watcher.events]
    allowed, blocked, failed = Verdict.ALLOWED, Verdict.BLOCKED, Verdict.FAILED
    assert told == [
        ("request", allowed, 0, False, ""),
        ("response", allowed, 200, False, ""),
        ("flow_end", allowed, 200, False, ""),
        ("request", blocked, 418, False, ""),
        ("flow_end", blocked, 418, False, ""),
        ("request", allowed, 0, False, ""),
        ("response", allowed, 200, True, ""),
        ("flow_end", allowed, 200, True, ""),
        ("request", failed, 0, False, "on purpose"),
        ("flow_end", failed, 502, False, "on purpose"),
    ]
    assert watcher.wait(EventKind.FLOW_END)[0].size == 3000


def test_what_the_handler_answers_changes_or_ends_is_told(tmp_path: Path, origin_ca: TestCA, origin: Origin) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"12"
        yield b"345"

    async def fails() -> AsyncIterator[bytes]:
        yield b"12"
        raise LookupError("on purpose")

    def decide(request: RawRequest) -> HandlerDecision:
        made = {
            "/text": lambda: HandlerDecision.respond(201, "12345"),
            "/items": lambda: HandlerDecision.respond(200, items()),
            "/changed": lambda: HandlerDecision.forward(path="/bytes/7"),
            "/fails": lambda: HandlerDecision.respond(200, fails()),
            "/abort": lambda: HandlerDecision.abort("close"),
        }
        return made[request.path]()

    watcher = Watcher()
    running = watched(tmp_path, origin_ca, Recording(decide), watcher)
    with running.handle:
        with running.secured(origin.port) as client:
            for path, status in (("/text", 201), ("/items", 200), ("/changed", 200)):
                assert client.request(path, "localhost").status == status
            client.send(b"GET /fails HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.read_head().status == 200
            with pytest.raises(OSError):
                # cut: there is no close_notify
                client.read_to_end()
        with running.secured(origin.port) as client:
            client.send(b"GET /abort HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.read_to_end() == b""
        watcher.wait(EventKind.FLOW_END, 5)
    ends = [event for event in watcher.events if event.kind is EventKind.FLOW_END]
    # what the client asked for, whatever it was changed to
    assert [event.url.rpartition("/")[2] for event in ends] == ["text", "items", "changed", "fails", "abort"]
    assert [(event.verdict, event.status, event.size, event.cause) for event in ends] == [
        (Verdict.ANSWERED, 201, 0, ""),
        (Verdict.ANSWERED, 200, 5, ""),
        (Verdict.CHANGED, 200, 7, ""),
        (Verdict.ANSWERED, 200, 2, "on purpose"),
        (Verdict.ABORTED, 0, 0, ""),
    ]


def test_why_a_streamed_answer_did_not_come_is_told(tmp_path: Path, origin_ca: TestCA) -> None:
    async def silent() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    watcher = Watcher()
    handler = Recording(lambda _: HandlerDecision.respond(200, silent()))
    running = watched(tmp_path, origin_ca, handler, watcher, **{"timeouts.half_closed_client_ms": 100})
    with running.handle, running.tunnel(80) as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.end_writing()
        assert client.read_answer().status == 504
        (end,) = watcher.wait(EventKind.FLOW_END)
    assert (end.verdict, end.status) == (Verdict.ANSWERED, 504)
    assert "timeouts.half_closed_client_ms" in end.cause


def test_a_failure_that_is_let_go_is_told_of(tmp_path: Path, origin_ca: TestCA, plain_origin: Origin) -> None:
    watcher = Watcher()
    running = watched(tmp_path, origin_ca, Recording(decide), watcher, **{"handler.failure_policy": "allow"})
    with running.handle, running.tunnel(plain_origin.port) as client:
        assert client.request("/fail", "localhost").status == 200
        watcher.wait(EventKind.FLOW_END)
    assert [(event.kind.value, event.verdict, event.status) for event in watcher.events] == [
        ("request", Verdict.UNDECIDED, 0),
        ("response", Verdict.UNDECIDED, 200),
        ("flow_end", Verdict.UNDECIDED, 200),
    ]


def test_without_a_handler_there_are_events_too(tmp_path: Path, origin_ca: TestCA, plain_origin: Origin) -> None:
    watcher = Watcher()
    running = watched(tmp_path, origin_ca, InterceptHandler(), watcher)
    with running.handle, running.tunnel(plain_origin.port) as client:
        assert client.request("/bytes/3", "localhost").status == 200
        watcher.wait(EventKind.FLOW_END)
    assert [(event.kind.value, event.verdict) for event in watcher.events] == [("response", 0), ("flow_end", 0)]


def test_tunnels_and_refusals_say_why(tmp_path: Path, origin_ca: TestCA, plain_origin: Origin) -> None:
    watcher = Watcher()
    running = watched(tmp_path, origin_ca, Recording(intercept=lambda host: False), watcher)
    with running.handle:
        with running.client() as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
        with running.client() as client:
            assert client.connect(f"127.0.0.1:{plain_origin.port}").status == 200
        with running.client() as client:
            assert client.connect("localhost").status == 400
        ends = watcher.wait(EventKind.TUNNEL_END, 2)
        (refused,) = watcher.wait(EventKind.REFUSED)
    tunnels = watcher.wait(EventKind.TUNNEL, 2)
    assert [(event.host, event.port, event.cause) for event in tunnels] == [
        ("localhost", plain_origin.port, "handler"),
        ("127.0.0.1", plain_origin.port, "unlisted"),
    ]
    assert {event.host for event in ends} == {"localhost", "127.0.0.1"}
    assert refused.status == 400 and refused.meta is not None


def test_a_client_that_refuses_us_is_told_of(tmp_path: Path, origin_ca: TestCA, origin: Origin) -> None:
    watcher = Watcher()
    running = watched(tmp_path, origin_ca, InterceptHandler(), watcher)
    with running.handle, running.tunnel(origin.port) as client:
        with pytest.raises(OSError):
            client.start_tls(origin_ca.client_context())
        (failed,) = watcher.wait(EventKind.TLS_FAILED)
    assert failed.host == "localhost" and "unknown_ca" in failed.cause and failed.certificate_refused


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), SystemExit(1)])
def test_an_observer_that_raises_changes_nothing(
    tmp_path: Path, origin_ca: TestCA, plain_origin: Origin, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(error)
    running = watched(tmp_path, origin_ca, Recording(decide), watcher)
    with running.handle, running.tunnel(plain_origin.port) as client:
        for path, status in (("/no", 418), ("/bytes/3", 200), ("/no", 418), ("/fail", 502)):
            assert client.request(path, "localhost").status == status
        watcher.wait(EventKind.FLOW_END, 4)
    assert [request.target for request in plain_origin.requests] == ["/bytes/3"]
    assert sum("the observer failed" in record.getMessage() for record in caplog.records) == 1


def test_it_is_told_after_the_decision_has_had_its_effect(tmp_path: Path, origin_ca: TestCA, plain_origin: Origin) -> None:
    """One that waits in its first event holds the loop, but not the answer that was decided before it."""
    release = threading.Event()

    class Waits(Watcher):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            release.wait(10)

    running = watched(tmp_path, origin_ca, Recording(decide), Waits())
    with running.handle, running.tunnel(plain_origin.port) as client:
        client.send(b"GET /no HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_answer().status == 418
        release.set()
