"""What a handler decides about responses: what the client receives, in every pairing of protocols and with every kind of body."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import runpy
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import h2.exceptions
import pytest

from soth_mitm import HandlerDecision, RawRequest, ResponseDecision
from soth_mitm._dataplane.http.messages import RawResponse
from support.certs import TestCA
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.pairings import PAIRINGS, PairedClient, paired_origin
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.source import ROOT

change, replace, block = ResponseDecision.change, ResponseDecision.replace, ResponseDecision.block
PASS, HOLD = ResponseDecision.PASS, ResponseDecision.HOLD
Decide = Callable[[RawResponse], Any]


class Decides(Recording):
    """Answers about heads and bodies as the test says, and notes what it was asked."""

    def __init__(self, head: Decide | ResponseDecision = PASS, body: Decide | ResponseDecision = PASS) -> None:
        super().__init__()
        self.head, self.body = head, body

    def on_response_head(self, response: RawResponse) -> Any:
        self._note("on_response_head", response)
        return self.head(response) if callable(self.head) else self.head

    def on_response_body(self, response: RawResponse) -> Any:
        self._note("on_response_body", response)
        return self.body(response) if callable(self.body) else self.body


class Waits(Decides):
    """Waits for `go` where it decides. `waiting` is set when it does, `cancelled` when it was cancelled."""

    def __init__(self, decision: ResponseDecision, *, at_body: bool = False) -> None:
        super().__init__(HOLD if at_body else self._wait, self._wait)
        self.decision = decision
        self.waiting, self.cancelled, self._go = threading.Event(), threading.Event(), threading.Event()
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def _wait(self, response: RawResponse) -> ResponseDecision:
        if response.request is not None and response.request.path == "/other":
            return PASS
        event = asyncio.Event()
        self._wake = asyncio.get_running_loop(), event
        self.waiting.set()
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.decision

    def go(self) -> None:
        assert self._wake is not None
        self._wake[0].call_soon_threadsafe(self._wake[1].set)


class Scene:
    def __init__(self, running: Running, origin: Origin, client: PairedClient) -> None:
        self.running, self.origin, self.client = running, origin, client

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **how: Any) -> Any:
        return self.client.ask(path, method, body, **how)


SceneFactory = Callable[..., Scene]


def scenes(request: Any, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[SceneFactory]:
    client, upstream = request.param
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(paired_origin(origin_ca, upstream))

        def make(handler: Any, **keys: Any) -> Scene:
            running = proxy(handler, **{"http2.for_http1_clients": True, **keys})
            made = Scene(running, origin, PairedClient(running, origin.port, client))
            stack.callback(made.client.close)
            return made

        yield make


@pytest.fixture(params=PAIRINGS, ids="".join)
def scene(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[SceneFactory]:
    yield from scenes(request, proxy, origin_ca)


@pytest.fixture(params=[("h1", "h1"), ("h2", "h2")], ids="".join)
def pair(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[SceneFactory]:
    yield from scenes(request, proxy, origin_ca)


def says(wire: bytes, *, ends: bool = False) -> Callable[[ScriptedConnection, Request], None]:
    """Return a script that answers with these bytes."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        # a stream of HTTP/2 may be reset by then
        with contextlib.suppress(h2.exceptions.ProtocolError):
            connection.send(wire)
            if ends:
                connection.close()

    return script


CONTENT = pattern(5000)
DESCRIBED = b'ETag: "1"\r\nContent-MD5: x\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nX-One: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n'
ZIPPED = gzip.compress(CONTENT, mtime=0)
FORMS = {
    "none": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n", b"", False),
    "length": (b"HTTP/1.1 200 OK\r\n%bContent-Length: 5000\r\n\r\n" + CONTENT, CONTENT, False),
    "chunked": (
        b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n7d0\r\n"
        + CONTENT[:2000]
        + b"\r\nbb8\r\n"
        + CONTENT[2000:]
        + b"\r\n0\r\n\r\n",
        CONTENT,
        False,
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1388\r\n" + CONTENT + b"\r\n0\r\nX-Sum: 9\r\n\r\n",
        CONTENT,
        False,
    ),
    "close": (b"HTTP/1.1 200 OK\r\n%bConnection: close\r\n\r\n" + CONTENT, CONTENT, True),
    "gzip": (
        b"HTTP/1.1 200 OK\r\n%bContent-Encoding: gzip\r\nContent-Length: " + str(len(ZIPPED)).encode() + b"\r\n\r\n" + ZIPPED,
        ZIPPED,
        False,
    ),
}
FRAMING = ("content-length", "transfer-encoding", "connection", "trailer", ":status")


def fields(answer: Any) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in answer.headers if name.lower() not in FRAMING]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> tuple[bytes, bytes, bool]:
    wire, sent, ends = FORMS[request.param]
    head, separator, body = wire.partition(b"\r\n\r\n")
    return head.replace(b"%b", DESCRIBED) + separator + body, sent, ends


class TestEveryForm:
    """Each decision, with each form of body, in each pairing."""

    @pytest.mark.parametrize("held", [False, True], ids=["head", "held"])
    def test_pass(self, scene: SceneFactory, form: tuple[bytes, bytes, bool], held: bool) -> None:
        wire, sent, ends = form
        plain = scene(Recording())
        plain.origin.script(says(wire, ends=ends))
        expected = plain.ask("/x")
        handler = Decides(HOLD if held else PASS, PASS)
        made = scene(handler)
        answer = made.ask("/x")
        assert (answer.status, answer.body, answer.trailers or []) == (expected.status, expected.body, expected.trailers or [])
        if held and made.client.h2 is None and made.origin.connections[-1].http2 is not None:
            # the length of a body that came without one is known by now
            assert fields(answer) == fields(expected)
        else:
            assert answer.headers == expected.headers
        if made.client.h2 is None and made.origin.connections[-1].http2 is None:
            assert answer.raw == expected.raw
        (head,) = handler.of("on_response_head")
        assert (head.body, head.body_complete, head.status, head.request.path) == (b"", False, 200, "/x")
        if held:
            (body,) = handler.of("on_response_body")
            assert (body.raw_body, body.body_complete, body.decode_error) == (sent, True, None)
            assert body.body == (CONTENT if sent else b"")
        (observed,) = handler.wait("on_response")
        assert (observed.raw_body, observed.body_complete) == (sent, True)
        made.client.close()
        made.running.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")

    @pytest.mark.parametrize("held", [False, True], ids=["head", "held"])
    def test_change(self, scene: SceneFactory, form: tuple[bytes, bytes, bool], held: bool) -> None:
        wire, sent, ends = form
        decision = change(set={"x-one": ["2", "3"], "X-New": "n"}, add={"Set-Cookie": "c"}, remove=["etag"], status=203)
        handler = Decides(HOLD if held else decision, decision)
        made = scene(handler)
        made.origin.script(says(wire, ends=ends))
        answer = made.ask("/x")
        assert (answer.status, answer.body) == (203, sent)
        kept = [("content-md5", "x"), ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT"), ("x-one", "2"), ("x-one", "3")]
        kept += [("set-cookie", "a"), ("set-cookie", "b")]
        kept += [("content-encoding", "gzip")] if sent == ZIPPED else []
        assert sorted(fields(answer)) == sorted([*kept, ("x-new", "n"), ("set-cookie", "c")])
        expected = [("x-sum", "9")] if b"X-Sum" in wire else []
        assert [(name.lower(), value) for name, value in answer.trailers or []] == expected
        (observed,) = handler.wait("on_response")
        assert (observed.status, observed.headers.get_all("x-one"), observed.raw_body) == (203, ["2", "3"], sent)
        assert made.running.metrics().changed_response_count == 1

    @pytest.mark.parametrize("held", [False, True], ids=["head", "held"])
    @pytest.mark.parametrize("streamed", [False, True], ids=["bytes", "iterable"])
    @pytest.mark.parametrize("own", [False, True], ids=["kept-head", "own-head"])
    def test_replace(self, scene: SceneFactory, form: tuple[bytes, bytes, bool], held: bool, streamed: bool, own: bool) -> None:
        wire, _, ends = form

        async def items() -> AsyncIterator[bytes]:
            yield b"another "
            yield b""
            yield b"body"

        def decide(_: RawResponse) -> ResponseDecision:
            body = items() if streamed else b"another body"
            return replace(201, body, {"X-Own": "1"}) if own else replace(body=body, set={"X-New": "n"}, remove=["set-cookie"])

        handler = Decides((lambda _: HOLD) if held else decide, decide)
        made = scene(handler)
        made.origin.script(says(wire, ends=ends))
        answer = made.ask("/x")
        assert (answer.status, answer.body, answer.trailers or []) == (201 if own else 200, b"another body", [])
        if own:
            assert fields(answer) == [("x-own", "1"), ("content-type", "text/plain; charset=utf-8")]
        else:
            assert fields(answer) == [("x-one", "1"), ("x-new", "n")]
        if not streamed:
            assert answer.get("content-length") == "12"
        elif made.client.h2 is None:
            assert (answer.get("content-length"), answer.get("transfer-encoding")) == (None, "chunked")
        (observed,) = handler.wait("on_response")
        assert (observed.body, observed.status, observed.headers.get("etag")) == (b"another body", answer.status, None)
        # the client goes on
        made.origin.script(says(b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx"))
        assert made.ask("/y").body == b"another body"
        metrics = made.running.metrics()
        assert (metrics.replaced_response_count, metrics.cut_response_count) == (2, 0)

    @pytest.mark.parametrize("held", [False, True], ids=["head", "held"])
    def test_block(self, scene: SceneFactory, form: tuple[bytes, bytes, bool], held: bool) -> None:
        wire, _, ends = form
        decision = block(403, "not for you", {"X-Why": "secret"})
        handler = Decides(HOLD if held else decision, decision)
        made = scene(handler)
        made.origin.script(says(wire, ends=ends))
        for _ in range(2):
            answer = made.ask("/x")
            assert (answer.status, answer.body, answer.get("x-why"), answer.get("x-one")) == (403, b"not for you", "secret", None)
        assert handler.of("on_response") == []
        assert made.running.metrics().blocked_response_count == 2
        made.client.close()
        made.running.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")


class TestWithoutBody:
    @pytest.mark.parametrize("status", [204, 304])
    def test_hold_is_asked_at_once(self, scene: SceneFactory, status: int) -> None:
        handler = Decides(HOLD, change(set={"X-New": "1"}))
        made = scene(handler)
        made.origin.script(says(b'HTTP/1.1 %d X\r\nETag: "1"\r\n\r\n' % status))
        answer = made.ask("/x")
        assert (answer.status, answer.body, answer.get("x-new"), answer.get("content-length")) == (status, b"", "1", None)
        (body,) = handler.of("on_response_body")
        assert (body.body, body.body_complete) == (b"", True)

    def test_head_keeps_its_fields(self, scene: SceneFactory) -> None:
        made = scene(Decides(change(set={"X-New": "1"}, status=203)))
        answer = made.ask("/bytes/5000", "HEAD")
        assert (answer.status, answer.get("content-length"), answer.get("x-new"), answer.body) == (203, "5000", "1", b"")
        assert made.ask("/bytes/10", "HEAD").get("content-length") == "10"

    def test_head_announces_a_replacement_and_is_sent_none(self, scene: SceneFactory) -> None:
        made = scene(Decides(replace(body=b"12345")))
        for _ in range(2):
            answer = made.ask("/bytes/5000", "HEAD")
            assert (answer.status, answer.get("content-length"), answer.body) == (200, "5", b"")

    def test_head_never_begins_an_iterable(self, scene: SceneFactory) -> None:
        begun = []

        async def items() -> AsyncIterator[bytes]:
            begun.append(1)
            yield b"x"

        made = scene(Decides(lambda _: replace(body=items())))
        assert [made.ask("/bytes/5", "HEAD").status for _ in range(2)] == [200, 200]
        assert begun == []

    @pytest.mark.parametrize("status", [204, 205, 304])
    def test_a_replacement_without_content(self, scene: SceneFactory, status: int) -> None:
        made = scene(Decides(replace(status)))
        for _ in range(2):
            answer = made.ask("/bytes/5000")
            assert (answer.status, answer.body, answer.get("content-length")) == (status, b"", "0" if status == 205 else None)

    def test_content_in_place_of_none(self, scene: SceneFactory) -> None:
        made = scene(Decides(replace(200, b"now there is")))
        for path in ("/status/204", "/status/304"):
            answer = made.ask(path)
            assert (answer.status, answer.body, answer.get("content-length")) == (200, b"now there is", "12")


class TestWhatCannotBeApplied:
    PARTIAL = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-4/10\r\nContent-Length: 5\r\n\r\n12345"
    CODED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(ZIPPED), ZIPPED)
    PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"

    @pytest.mark.parametrize(
        ("head", "wire", "why"),
        [
            (change(status=200), b"HTTP/1.1 204 X\r\n\r\n", "a response with status 204 has no body"),
            (change(status=404), b"HTTP/1.1 304 X\r\n\r\n", "a response with status 304 has no body"),
            (replace(body=b"x"), b"HTTP/1.1 304 X\r\n\r\n", "a response with status 304 has none"),
            (replace(body=b"1234"), PARTIAL, "the body of a 206 keeps its length"),
            (replace(206, b"12345"), PLAIN, "the body of a 206 keeps its length"),
            (replace(body=b"x"), CODED, "identity;q=0"),
            (change(set={"X": "y" * 70_000}), PLAIN, "longer than 65536"),
            (
                HOLD,
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n",
                "a stream is decided on at its head",
            ),
            (HOLD, b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n", "a stream is decided on at its head"),
            ("PASS", PLAIN, "must return a ResponseDecision"),
            (None, PLAIN, "must return a ResponseDecision (ResponseDecision.PASS"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_it_is_a_failure_and_answered_502(
        self, pair: SceneFactory, head: Any, wire: bytes, why: str, policy: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = pair(Decides(head), **{"handler.failure_policy": policy})
        made.origin.script(says(wire))
        answer = made.ask("/x", fields=[("Accept-Encoding", "gzip, identity;q=0")])
        assert answer.status == 502
        assert "policy handler" in answer.text
        assert why in caplog.text
        metrics = made.running.metrics()
        assert (metrics.handler_panic_count, metrics.blocked_response_count, metrics.held_responses) == (1, 1, 0)

    def test_a_body_of_the_same_length_for_a_range(self, pair: SceneFactory) -> None:
        for handler in (Decides(replace(body=b"abcde")), Decides(HOLD, replace(body=b"abcde"))):
            made = pair(handler)
            made.origin.script(says(self.PARTIAL))
            answer = made.ask("/x")
            assert (answer.status, answer.body, answer.get("content-range")) == (206, b"abcde", "bytes 0-4/10")

    def test_hold_twice(self, pair: SceneFactory) -> None:
        made = pair(Decides(HOLD, HOLD))
        assert made.ask("/bytes/5").status == 502

    def test_an_iterable_serves_one_response(self, pair: SceneFactory) -> None:
        async def items() -> AsyncIterator[bytes]:
            yield b"once"

        made = pair(Decides(replace(body=items())))
        assert made.ask("/bytes/5").body == b"once"
        assert made.ask("/bytes/5").status == 502


class TestFailures:
    def raises(self, response: RawResponse) -> ResponseDecision:
        raise RuntimeError("broken")

    @pytest.mark.parametrize("at_body", [False, True], ids=["head", "body"])
    def test_by_policy(self, pair: SceneFactory, at_body: bool) -> None:
        for policy, status in (("allow", 200), ("block", 502)):
            made = pair(Decides(HOLD if at_body else self.raises, self.raises), **{"handler.failure_policy": policy})
            answer = made.ask("/bytes/5000")
            assert answer.status == status
            assert (answer.body == pattern(5000)) == (policy == "allow")

    @pytest.mark.parametrize("at_body", [False, True], ids=["head", "body"])
    def test_a_deadline(self, pair: SceneFactory, at_body: bool) -> None:
        for policy, status in (("allow", 200), ("block", 502)):
            handler = Waits(PASS, at_body=at_body)
            made = pair(handler, **{"handler.failure_policy": policy, "handler.response_timeout_ms": 50})
            answer = made.ask("/bytes/100000")
            assert answer.status == status
            assert (answer.body == pattern(100000)) == (policy == "allow")
            assert handler.cancelled.wait(9)
            assert made.running.metrics().handler_timeout_count == 1

    def test_a_refused_decision_blocks(self, pair: SceneFactory) -> None:
        made = pair(Decides(lambda _: block(99)), **{"handler.failure_policy": "allow"})
        assert made.ask("/bytes/5").status == 502

    def test_without_recovery_the_flow_is_cut(self, pair: SceneFactory) -> None:
        made = pair(Decides(self.raises), **{"handler.recover_from_panics": False, "handler.failure_policy": "allow"})
        if made.client.h2 is None:
            with pytest.raises((EOFError, OSError)):
                made.ask("/bytes/5")
        else:
            assert made.ask("/bytes/5").reset is not None


class TestNothingBeforeTheDecision:
    @pytest.mark.parametrize("at_body", [False, True], ids=["head", "body"])
    def test_no_byte(self, scene: SceneFactory, at_body: bool) -> None:
        handler = Waits(PASS, at_body=at_body)
        made = scene(handler)
        number = made.client.begin("/bytes/60000")
        assert handler.waiting.wait(9)
        # another exchange from its beginning to its end: whatever was to be sent before is here
        if made.client.h2 is not None:
            assert made.ask("/other").status == 200
        else:
            other = PairedClient(made.running, made.origin.port, "h1")
            assert other.ask("/other").status == 200
            other.close()
        assert not made.client.has_heard(number)
        metrics = made.running.metrics()
        assert (metrics.held_responses, metrics.held_bytes) == (1, 60000 if at_body else 0)
        handler.go()
        assert made.client.answer(number).body == pattern(60000)

    def test_a_pipeline_keeps_its_order(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        handler = Waits(change(set={"X-Late": "1"}))
        with paired_origin(origin_ca, "h1") as origin:
            running = proxy(handler)
            client = PairedClient(running, origin.port, "h1")
            client.begin("/bytes/10")
            client.begin("/other")
            assert handler.waiting.wait(9)
            assert not client.has_heard(0)
            handler.go()
            first, second = client.answer(0), client.answer(0)
            assert (first.get("x-late"), first.body) == ("1", pattern(10))
            assert json.loads(second.body)["path"] == "/other"
            client.close()

    def test_interim_responses_pass(self, scene: SceneFactory) -> None:
        made = scene(Decides(change(set={"X-New": "1"})))
        answer = made.ask("/interim")
        if made.client.h2 is not None:
            assert [dict(each)[":status"] for each in answer.interim] == ["103"] or answer.interim
            assert answer.get("x-new") == "1"
        else:
            statuses = [answer.status]
            while answer.status < 200:
                answer = made.client.answer(0)
                statuses.append(answer.status)
            assert statuses[-1] == 200 and 103 in statuses
            assert answer.get("x-new") == "1"


class TestWhoLeaves:
    @pytest.mark.parametrize("at_body", [False, True], ids=["head", "body"])
    def test_the_client(self, scene: SceneFactory, at_body: bool) -> None:
        handler = Waits(PASS, at_body=at_body)
        made = scene(handler)
        made.client.begin("/bytes/60000")
        assert handler.waiting.wait(9)
        made.client.connection.reset()
        assert handler.cancelled.wait(9)
        made.running.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")

    @pytest.mark.parametrize("how", ["close", "reset"])
    def test_the_upstream_before_the_body_is_whole(self, scene: SceneFactory, how: str) -> None:
        handler = Decides(HOLD, PASS)
        made = scene(handler)

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            handler.wait("on_response_head")
            connection.close() if how == "close" else connection.reset()

        made.origin.script(script)
        answer = made.ask("/x")
        assert (answer.status, "before its response was whole" in answer.text) == (502, True)
        assert handler.of("on_response_body") == []

    def test_the_upstream_while_the_head_is_decided_on(self, scene: SceneFactory) -> None:
        for decision in (PASS, block(403, b"no")):
            handler = Waits(decision)
            made = scene(handler)

            def script(connection: ScriptedConnection, request: Request, handler: Waits = handler) -> None:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                assert handler.waiting.wait(9)
                connection.reset()
                handler.go()

            made.origin.script(script)
            if decision is not PASS:
                assert made.ask("/x").body == b"no"
            elif made.client.h2 is not None:
                answer = made.ask("/x")
                assert answer.reset is not None and not answer.ended
            else:
                with pytest.raises((EOFError, OSError)):
                    made.ask("/x")

    @pytest.mark.parametrize("decision", [PASS, change(set={"x-one": "2"}), HOLD], ids=lambda each: each.kind)
    def test_the_upstream_behind_a_whole_early_answer(self, pair: SceneFactory, decision: ResponseDecision) -> None:
        """Over HTTP/2 it resets a stream whose upload it does not want; over HTTP/1 it closes. The answer is whole all the same."""
        handler = Waits(decision)
        handler.body = PASS
        made = pair(handler)
        is_multiplexed = made.client.h2 is not None

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + CONTENT)
            assert handler.waiting.wait(9)
            if is_multiplexed:
                connection.reset()
            else:
                connection.close()
            handler.go()

        made.origin.script(script)
        number = made.client.begin("/x", "POST", pattern(300_000))
        answer = made.client.answer(number)
        assert (answer.status, answer.body) == (200, CONTENT)

    def test_a_slow_upstream_is_decided_on_as_far_as_it_came(self, scene: SceneFactory) -> None:
        handler = Decides(HOLD, change(set={"X-New": "1"}))
        go = threading.Event()

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            connection.wait(go)
            connection.send(b"done")

        made = scene(handler, **{"body.buffer_timeout_ms": 50})
        made.origin.script(script)
        number = made.client.begin("/x")
        (body,) = handler.wait("on_response_body")
        assert (body.body, body.body_complete, body.body_truncated) == (b"half", False, False)
        go.set()
        answer = made.client.answer(number)
        assert (answer.status, answer.body, answer.get("x-new")) == (200, b"halfdone", "1")


ENDINGS = {
    "length": b"Content-Length: 5000\r\n\r\n" + CONTENT,
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + CONTENT + b"\r\n0\r\n\r\n",
    "close": b"\r\n" + CONTENT,
    "cut": b"Content-Length: 5001\r\n\r\n" + CONTENT,
}


class TestEndsInOneRead:
    """The response and the end of its connection (TLS) are read together: the end does not overtake what the decision held back."""

    @pytest.mark.parametrize("form", ENDINGS)
    @pytest.mark.parametrize(
        "decision", [PASS, change(set={"x-one": "2"}), HOLD, replace(body=b"new"), block(403)], ids=lambda each: each.kind
    )
    def test_it(self, proxy: ProxyFactory, origin: Origin, decision: ResponseDecision, form: str) -> None:
        answered = threading.Event()

        class Later(Decides):
            async def on_response_head(self, response: RawResponse) -> Any:
                await asyncio.sleep(0)
                return PASS if response.request is None or response.request.path == "/first" else decision

            async def on_response_body(self, response: RawResponse) -> Any:
                await asyncio.sleep(0)
                self._note("on_response_body", response)
                return PASS

            def on_request(self, request: RawRequest) -> Any:
                if request.path != "/first":
                    # the loop stands still until all of the answer is here
                    asyncio.get_running_loop().call_soon(answered.wait, 10)
                return HandlerDecision.ALLOW

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\n" + ENDINGS[form])
            connection.close()
            answered.set()

        origin.script(script, "/last")
        origin.script(says(b"HTTP/1.1 204 No Content\r\n\r\n"), "/first")
        running = proxy(Later())
        with running.secured(origin.port) as client:
            assert client.request("/first", HOST).status == 204
            client.send(f"GET /last HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            if form == "cut" and decision.kind in ("pass", "change"):
                assert client.read_head().status == 200
                assert client.read_exactly(5000) == CONTENT
                with pytest.raises((EOFError, OSError)):
                    client.read_exactly(1)
            else:
                answer = client.read_answer()
                body = {"replace": b"new", "block": b""}.get(decision.kind, CONTENT)
                if form == "cut" and decision is HOLD:
                    assert answer.status == 502
                else:
                    assert (answer.status, answer.body) == (decision.status or 200, body)
        assert len(origin.connections) == 1
        running.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")


class TestLimits:
    KEYS = {"body.max_size_bytes": 1000}

    @pytest.mark.parametrize("path", ["/bytes/5000", "/chunked/5000/9", "/close/5000"])
    def test_too_long_is_decided_on_at_its_beginning(self, scene: SceneFactory, path: str) -> None:
        handler = Decides(HOLD, change(set={"X-New": "1"}))
        made = scene(handler, **self.KEYS)
        answer = made.ask(path)
        assert (answer.body, answer.get("x-new")) == (pattern(5000), "1")
        (body,) = handler.of("on_response_body")
        assert (body.body, body.body_complete, body.body_truncated) == (pattern(1000), False, True)

    def test_what_was_not_shown_whole_is_not_replaced(self, scene: SceneFactory) -> None:
        made = scene(Decides(HOLD, replace(body=b"x")), **self.KEYS)
        assert made.ask("/bytes/5000").status == 502
        assert made.ask("/bytes/1000").body == b"x"

    @pytest.mark.parametrize("keys", [{"body.overflow": "reject"}, {"body.incomplete": "refuse"}], ids=str)
    def test_too_long_is_refused(self, scene: SceneFactory, keys: dict[str, Any]) -> None:
        handler = Decides(HOLD, PASS)
        made = scene(handler, **self.KEYS, **keys)
        for path in ("/bytes/5000", "/chunked/5000/9"):
            answer = made.ask(path)
            assert (answer.status, "body.max_size_bytes" in answer.text) == (502, True)
        assert handler.of("on_response_body") == []
        assert made.ask("/bytes/1000").body == pattern(1000)

    def test_incomplete_is_refused(self, scene: SceneFactory) -> None:
        handler = Decides(HOLD, PASS)
        made = scene(handler, **{"body.incomplete": "refuse", "body.buffer_timeout_ms": 50})
        over = threading.Event()

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            connection.wait(over)

        made.origin.script(script, "/late")
        made.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf"), "/bad")
        answer = made.ask("/late")
        assert (answer.status, "body.buffer_timeout_ms" in answer.text) == (502, True)
        answer = made.ask("/bad")
        assert (answer.status, "cannot be decoded" in answer.text) == (502, True)
        assert handler.of("on_response_body") == []
        over.set()

    def test_a_hundred_held_responses_are_bounded(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        size, budget = 1 << 20, 8 << 20
        most = 0
        with paired_origin(origin_ca, "h1") as origin:
            made = proxy(Decides(HOLD, PASS), **{"max_in_flight_bytes": budget, "body.max_size_bytes": 2 * size})
            clients = [PairedClient(made, origin.port, "h1") for _ in range(100)]
            for client in clients:
                client.begin(f"/bytes/{size}")
            for client in clients:
                most = max(most, made.metrics().held_bytes)
                assert hashlib.sha256(client.answer(0).body).digest() == hashlib.sha256(pattern(size)).digest()
                client.close()
            # what one exchange may keep beyond it, and what is on its way to clients that do not read
            assert most <= budget + 2 * size
            made.wait_idle("active_connections", "active_flows", "held_responses", "held_bytes", "buffered_bytes")


class TestUpstreamConnections:
    def asked(self, made: Scene, path: str, count: int = 3) -> int:
        for _ in range(count):
            made.ask(path)
        return len(made.origin.connections)

    @pytest.mark.parametrize("decision", [block(403), replace(body=b"x"), HOLD], ids=repr)
    def test_a_short_rest_is_drained(self, scene: SceneFactory, decision: ResponseDecision) -> None:
        made = scene(Decides(decision, block(403)))
        assert self.asked(made, "/bytes/60000") == 1

    @pytest.mark.parametrize("decision", [block(403), replace(body=b"x")], ids=repr)
    def test_a_long_one_is_reset(self, pair: SceneFactory, decision: ResponseDecision) -> None:
        made = pair(Decides(decision))
        assert self.asked(made, "/bytes/3000000") == (3 if made.client.h2 is None else 1)

    def test_an_early_answer_is_blocked_while_the_upload_goes_on(self, scene: SceneFactory) -> None:
        handler = Decides(block(403, b"no"))
        made = scene(handler)
        made.origin.script(lambda connection, request: connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        number = made.client.begin("/x", "POST", pattern(300_000))
        assert made.client.answer(number).body == b"no"

    def test_an_early_answer_is_replaced_while_the_upload_goes_on(self, scene: SceneFactory) -> None:
        made = scene(Decides(replace(body=b"mine")))
        made.origin.script(lambda connection, request: connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        number = made.client.begin("/x", "POST", pattern(300_000))
        assert made.client.answer(number).body == b"mine"

    def test_expect(self, scene: SceneFactory) -> None:
        for decision in (PASS, replace(body=b"mine")):
            made = scene(Decides(decision))
            answer = made.ask("/echo", "POST", b"12345", fields=[("Expect", "100-continue")])
            while answer.status < 200:
                answer = made.client.answer(0)
            assert answer.status == 200
            assert (answer.body == b"mine") == (decision is not PASS)


class TestStreams:
    def test_decided_at_their_head(self, scene: SceneFactory) -> None:
        handler = Decides(change(set={"X-New": "1"}))
        made = scene(handler)
        answer = made.ask("/sse/3/0")
        assert (answer.get("x-new"), answer.body.count(b"event: tick")) == ("1", 3)
        (head,) = handler.of("on_response_head")
        assert (head.streaming, head.body) == (True, b"")
        assert len(handler.wait("on_stream_chunk", 3)) == 3

    def test_a_replacement_that_is_a_stream_is_shown_as_one(self, scene: SceneFactory) -> None:
        async def items() -> AsyncIterator[bytes]:
            yield b"data: 1\n\nda"
            yield b"ta: 2\n\n"

        handler = Decides(lambda _: replace(200, items(), {"Content-Type": "text/event-stream"}))
        made = scene(handler)
        answer = made.ask("/bytes/5")
        assert answer.body == b"data: 1\n\ndata: 2\n\n"
        assert [chunk.payload for chunk in handler.wait("on_stream_chunk", 2)] == [b"1", b"2"]
        assert handler.wait("on_response")[0].streaming

    def test_a_stream_that_is_replaced_by_bytes(self, scene: SceneFactory) -> None:
        handler = Decides(replace(200, b"{}", {"Content-Type": "application/json"}))
        made = scene(handler)
        assert made.ask("/sse/3/1").body == b"{}"
        (observed,) = handler.wait("on_response")
        assert (observed.streaming, observed.body) == (False, b"{}")
        assert handler.of("on_stream_chunk") == []


def test_trailers_bring_back_no_name_that_was_decided(scene: SceneFactory) -> None:
    for handler in (Decides(change(remove=["X-Sha256"])), Decides(HOLD, change(set={"x-sha256": "mine"}))):
        made = scene(handler)
        answer = made.ask("/chunked/5000/3?trailers")
        assert (answer.body, answer.trailers or []) == (pattern(5000), [])


def test_monitor_mode_asks_nothing(pair: SceneFactory, caplog: pytest.LogCaptureFixture) -> None:
    handler = Decides(block(403), block(403))
    made = pair(handler, intercept_mode="monitor")
    assert made.ask("/bytes/5").body == pattern(5)
    assert handler.of("on_response_head") == []
    assert "on_response_head and on_response_body are not called" in caplog.text


def test_what_was_asked_for_is_shown(scene: SceneFactory) -> None:
    handler = Decides(HOLD)
    made = scene(handler)
    made.ask("/echo", "POST", b"asked")
    for name in ("on_response_head", "on_response_body", "on_response"):
        (response,) = handler.wait(name)
        assert response.request is handler.requests[0]
    names = [name for name in handler.names if name.startswith(("on_re",))]
    assert names == ["on_request", "on_response_head", "on_response_body", "on_response"]


class TestExample:
    """docs/examples/redact.py, which takes a field and a tool out of answers."""

    def redact(self) -> Any:
        return runpy.run_path(str(ROOT / "docs/examples/redact.py"))["Redact"]()

    @pytest.mark.parametrize("coded", [False, True], ids=["plain", "gzip"])
    def test_a_field_of_a_json_answer(self, pair: SceneFactory, coded: bool) -> None:
        body = json.dumps({"name": "A", "salary": 5, "reports": [{"name": "B", "salary": 6}]}).encode()
        body = gzip.compress(body) if coded else body
        coding = b"Content-Encoding: gzip\r\n" if coded else b""
        made = pair(self.redact())
        made.origin.script(
            says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (coding, len(body), body))
        )
        answer = made.ask("/people")
        assert json.loads(answer.body) == {"name": "A", "reports": [{"name": "B"}]}
        assert (answer.get("content-encoding"), answer.get("content-length")) == (None, str(len(answer.body)))

    def test_a_tool_of_a_list(self, pair: SceneFactory) -> None:
        tools = [{"name": "search"}, {"name": "run_shell"}]
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode()
        made = pair(self.redact())
        made.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
        answer = made.ask("/mcp", "POST", b'{"method": "tools/list"}')
        assert json.loads(answer.body)["result"]["tools"] == [{"name": "search"}]

    def test_what_cannot_be_read_is_blocked(self, pair: SceneFactory) -> None:
        made = pair(self.redact())
        made.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{x}"))
        assert made.ask("/x").status == 502
