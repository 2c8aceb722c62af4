"""Requests that a handler changes: what arrives at the upstream, in every pairing of protocols and with every kind of body."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

forward = HandlerDecision.forward
PAIRINGS = [(client, upstream) for client in ("h1", "h2") for upstream in ("h1", "h2")]
Fields = Sequence[tuple[str, str]]


class Asking:
    """A client of either protocol behind one interface."""

    def __init__(self, connection: WireClient, port: int, is_h2: bool) -> None:
        self.connection = connection
        self.authority = f"{HOST}:{port}"
        self.h2 = Http2Client(connection.socket, self.authority) if is_h2 else None

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, fields: Fields = (), *, chunked: bool = False) -> Any:
        """Send a request and return the answer."""
        if self.h2 is not None:
            length = () if chunked or body is None else (("content-length", str(len(body))),)
            return self.h2.request(path, method=method, body=body, fields=[*length, *((name.lower(), value) for name, value in fields)])
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        if not chunked or body is None:
            return self.connection.request(path, self.authority, method, body, lines)
        pieces = [body[start : start + 4000] for start in range(0, len(body), 4000)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.authority}\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode()
        self.connection.send(head + framed)
        return self.connection.read_answer(method)

    def ask_with_trailers(self, trailers: Fields, fields: Fields = ()) -> Any:
        """Send a request with the body `old`; return what the origin says of it."""
        names = ", ".join(name for name, _ in trailers)
        if self.h2 is not None:
            lowered = [(name.lower(), value) for name, value in [*fields, ("Trailer", names)]]
            number = self.h2.open("/echo", method="POST", body=b"old", end=False, fields=lowered)
            self.h2.h2.send_headers(number, [(name.lower(), value) for name, value in trailers], end_stream=True)
            self.h2.flush()
            return json.loads(self.h2.answer(number).text)
        head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", self.authority), *fields, ("Trailer", names)])
        lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
        start = f"POST /echo HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n3\r\nold\r\n"
        self.connection.send(f"{start}0\r\n{lines}\r\n".encode())
        return json.loads(self.connection.read_answer("POST").text)


class Scene:
    """A proxy whose handler decides as the test says, an origin of one protocol, and a client of one protocol."""

    def __init__(self, running: Running, origin: Origin, client: str) -> None:
        self.running = running
        self.origin = origin
        connection = running.secured(origin.port, HOST, *(["h2", "http/1.1"] if client == "h2" else ["http/1.1"]))
        assert (connection.tls.selected_alpn_protocol() == "h2") == (client == "h2")
        self.client = Asking(connection, origin.port, client == "h2")

    def received(self) -> Request:
        """Return the newest request of the origin."""
        return self.origin.requests[-1]


SceneFactory = Callable[..., Scene]


@pytest.fixture(params=PAIRINGS, ids="".join)
def scene(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[SceneFactory]:
    client, upstream = request.param
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin(origin_ca.server_context(HOST, alpn=["h2"] if upstream == "h2" else []), host=HOST))

        def make(decide: Any, **keys: Any) -> Scene:
            handler = decide if isinstance(decide, InterceptHandler) else Recording(lambda _: decide)
            made = Scene(proxy(handler, **{"http2.for_http1_clients": True, **keys}), origin, client)
            stack.callback(made.client.connection.socket.close)
            return made

        yield make


def named(request: Request, name: str) -> list[str]:
    """Return the values of a header."""
    return [value for each, value in request.headers if each.lower() == name.lower()]


class TestHead:
    DECISION = forward(set={"X-Set": "new", "X-Two": ["1", "2"]}, add={"X-Kept": "more"}, remove=["X-Gone"])
    SENT = (("X-Kept", "a"), ("X-Set", "old"), ("X-Gone", "b"), ("X-SET", "old again"))

    @pytest.mark.parametrize(
        ("body", "chunked"),
        [(None, False), (b"", False), (pattern(1000), False), (pattern(300_000), False), (pattern(300_000), True)],
        ids=["none", "empty", "length", "long", "chunked"],
    )
    @pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
    def test_with_every_body(self, scene: SceneFactory, body: bytes | None, chunked: bool, streamed: bool) -> None:
        made = scene(self.DECISION, **{"body.buffer_request_bodies": not streamed})
        answer = made.client.ask("/echo", "GET" if body is None else "POST", body, self.SENT, chunked=chunked)
        echo = json.loads(answer.text)
        assert echo["body_length"] == len(body or b"")
        assert echo["body_sha256"] == hashlib.sha256(body or b"").hexdigest()
        names = [(name.lower(), value) for name, value in echo["headers"] if name.lower().startswith("x-")]
        assert names == [("x-kept", "a"), ("x-set", "new"), ("x-two", "1"), ("x-two", "2"), ("x-kept", "more")]
        metrics = made.running.metrics()
        assert (metrics.changed_request_count, metrics.allowed_request_count) == (1, 1)

    def test_what_changes_nothing_is_not_counted(self, scene: SceneFactory) -> None:
        made = scene(forward(set={"X-One": "1"}, remove=["absent"]))
        assert made.client.ask("/echo", fields=[("X-One", "1")]).status == 200
        assert (made.running.metrics().changed_request_count, made.running.metrics().allowed_request_count) == (0, 1)

    def test_the_handler_is_shown_what_came(self, scene: SceneFactory) -> None:
        made = scene(self.DECISION)
        made.client.ask("/echo", fields=self.SENT)
        response = made.running.handler.wait("on_response")[0]
        assert response.request.headers.get_all("x-set") == ["old", "old again"]

    def test_each_request_has_its_own(self, scene: SceneFactory) -> None:
        class Counts(InterceptHandler):
            count = 0

            def on_request(self, request: RawRequest) -> HandlerDecision:
                self.count += 1
                return forward(set={"X-Count": str(self.count)}) if self.count != 2 else HandlerDecision.ALLOW

        made = scene(Counts())
        counts = [dict(json.loads(made.client.ask("/echo").text)["headers"]) for _ in range(3)]
        assert [{name.lower(): value for name, value in each.items()}.get("x-count") for each in counts] == ["1", None, "3"]

    def test_a_coroutine(self, scene: SceneFactory) -> None:
        class Waits(InterceptHandler):
            async def on_request(self, request: RawRequest) -> HandlerDecision:
                await asyncio.sleep(0)
                return TestHead.DECISION

        made = scene(Waits())
        made.client.ask("/echo", "PUT", b"12345", self.SENT)
        assert named(made.received(), "x-set") == ["new"]

    def test_a_field_that_the_client_guessed_and_named_in_connection(self, scene: SceneFactory) -> None:
        made = scene(forward(set={"X-Gate": "1"}))
        if made.client.h2 is not None:
            pytest.skip("a head of HTTP/2 has no Connection")
        made.client.ask("/echo", fields=[("Connection", "x-gate"), ("X-Gate", "1")])
        assert named(made.received(), "x-gate") == ["1"]

    def test_a_trace_that_ends_here_does_not_show_what_was_set(self, scene: SceneFactory) -> None:
        made = scene(forward(set={"X-Api-Key": "secret", "X-Kept": "secret"}))
        answer = made.client.ask("/echo", "TRACE", fields=[("Max-Forwards", "0"), ("X-Kept", "mine")])
        assert answer.status == 200
        assert "mine" in answer.text and "secret" not in answer.text
        assert made.origin.requests == []


class TestStartLineAndBody:
    def test_method_and_path(self, scene: SceneFactory) -> None:
        made = scene(forward(method="PUT", path="/echo?changed=1"))
        echo = json.loads(made.client.ask("/else", "POST", b"12345").text)
        assert (echo["method"], echo["path"], echo["body_length"]) == ("PUT", "/echo?changed=1", 5)

    def test_a_method_without_content(self, scene: SceneFactory) -> None:
        made = scene(forward(method="POST", path="/echo"))
        echo = json.loads(made.client.ask("/else").text)
        assert (echo["method"], echo["body_length"]) == ("POST", 0)
        assert named(made.received(), "content-length") in (["0"], [])

    @pytest.mark.parametrize("size", [0, 5, 2_000_000])
    @pytest.mark.parametrize("body", [None, b"old", pattern(100_000)], ids=["none", "short", "long"])
    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_another_body(self, scene: SceneFactory, size: int, body: bytes | None, chunked: bool) -> None:
        made = scene(forward(body=pattern(size), set={"Content-Type": "x/y"}))
        fields = [("Content-Encoding", "gzip"), ("Digest", "sha-256=x"), ("Signature", "kept")] if body is None else [("Signature", "kept")]
        echo = json.loads(made.client.ask("/echo", "POST", body, fields, chunked=chunked).text)
        assert (echo["body_length"], echo["body_sha256"]) == (size, hashlib.sha256(pattern(size)).hexdigest())
        received = made.received()
        assert named(received, "content-type") == ["x/y"] and named(received, "signature") == ["kept"]
        assert named(received, "content-encoding") == named(received, "digest") == named(received, "transfer-encoding") == []
        # of no content END_STREAM says enough
        assert named(received, "content-length") == [str(size)] or (size == 0 and received.version == "HTTP/2")

    def test_text_is_utf8(self, scene: SceneFactory) -> None:
        made = scene(forward(body="später"))
        assert json.loads(made.client.ask("/echo", "POST", b"x").text)["body_length"] == len("später".encode())
        assert bytes(made.received().body) == "später".encode()

    def test_a_stream(self, scene: SceneFactory) -> None:
        class Streams(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                async def items() -> Any:
                    for start in range(0, 1_000_000, 50_000):
                        await asyncio.sleep(0)
                        yield b""
                        yield pattern(1_000_000)[start : start + 50_000]

                return forward(body=items())

        made = scene(Streams())
        echo = json.loads(made.client.ask("/echo", "POST", b"old").text)
        assert (echo["body_length"], echo["body_sha256"]) == (1_000_000, hashlib.sha256(pattern(1_000_000)).hexdigest())
        made.client.connection.socket.close()
        made.running.wait_idle()
        assert made.running.metrics().cancelled_own_body_count == 0

    def test_a_stream_that_fails_is_no_whole_request(self, scene: SceneFactory) -> None:
        class Fails(InterceptHandler):
            origin: Origin

            def on_request(self, request: RawRequest) -> HandlerDecision:
                async def items() -> Any:
                    yield b"beginning"
                    # or the end of the connection could reach the origin before it has read the head
                    await asyncio.to_thread(self.origin.wait_heads, 1)
                    raise RuntimeError("on purpose")

                return forward(body=items())

        handler = Fails()
        made = scene(handler)
        handler.origin = made.origin
        answer = made.client.ask("/echo", "POST", b"old")
        assert answer.status == 502 and "the body that the policy handler gave failed" in answer.text
        assert not made.received().complete
        assert made.running.metrics().handler_panic_count == 1

    def test_trailers_go_with_the_body(self, scene: SceneFactory) -> None:
        made = scene(forward(body=b"new"))
        echo = made.client.ask_with_trailers([("X-End", "yes")])
        assert (echo["body_length"], echo["trailers"]) == (3, [])
        assert named(made.received(), "trailer") == []


class TestTrailers:
    """A server may merge trailers into the head: what is set or removed there comes back by none."""

    SENT = (("X-Gate", "evil"), ("X-End", "yes"), ("X-GONE", "evil"), ("x-gate", "evil too"), ("X-Added", "kept"))

    @pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
    def test_what_is_set_or_removed(self, scene: SceneFactory, streamed: bool) -> None:
        decision = forward(set={"x-GATE": "1"}, add={"X-Added": "1"}, remove=["X-Gone"])
        made = scene(decision, **{"body.buffer_request_bodies": not streamed})
        echo = made.client.ask_with_trailers(self.SENT)
        assert [(name.lower(), value) for name, value in echo["trailers"]] == [("x-end", "yes"), ("x-added", "kept")]
        assert (echo["body_length"], named(made.received(), "x-gate")) == (3, ["1"])
        made.running.wait_idle("active_flows")
        assert made.running.metrics().dropped_trailers_count == 1
        # the handler is shown what came
        shown = made.running.handler.wait("on_response")[0].request
        assert streamed or shown.trailers.get_all("x-gate") == ["evil", "evil too"]

    @pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
    def test_nothing_is_left_of_them(self, scene: SceneFactory, streamed: bool) -> None:
        made = scene(forward(remove=["X-Gone"]), **{"body.buffer_request_bodies": not streamed})
        echo = made.client.ask_with_trailers([("x-gone", "evil")])
        assert (echo["body_length"], echo["trailers"]) == (3, [])
        # in a head that has the value already
        made = scene(forward(set={"X-Gate": "1"}), **{"body.buffer_request_bodies": not streamed})
        echo = made.client.ask_with_trailers([("x-gate", "evil")], [("X-Gate", "1")])
        assert (echo["body_length"], echo["trailers"], named(made.received(), "x-gate")) == (3, [], ["1"])

    @pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
    def test_other_trailers_stay(self, scene: SceneFactory, streamed: bool) -> None:
        made = scene(forward(set={"X-Gate": "1"}), **{"body.buffer_request_bodies": not streamed})
        echo = made.client.ask_with_trailers([("X-End", "yes")])
        assert [(name.lower(), value) for name, value in echo["trailers"]] == [("x-end", "yes")]
        made.running.wait_idle("active_flows")
        assert made.running.metrics().dropped_trailers_count == 0


class TestSigned:
    DECISION = forward(set={"X-Set": "1"})

    @pytest.mark.parametrize(
        ("decision", "fields", "count"),
        [
            (DECISION, [("Signature", "a=:b:")], 1),
            (DECISION, [("SIGNATURE-INPUT", "a=()"), ("Signature", "a=:b:")], 1),
            (DECISION, [("Authorization", "AWS4-HMAC-SHA256 Credential=x")], 1),
            (forward(body=b"new"), [("Signature", "a=:b:")], 1),
            (DECISION, [("Authorization", "Bearer AWS4-HMAC"), ("X-Signature", "a")], 0),
            (forward(set={"signature": "mine"}), [("Signature", "a=:b:")], 0),
            (forward(set={"X-Set": "1"}, remove=["AUTHORIZATION"]), [("Authorization", "AWS4-HMAC-SHA256 x")], 0),
            (forward(set={"x-set": "1"}), [("Signature", "a=:b:"), ("X-Set", "1")], 0),
        ],
    )
    def test_they_are_counted(self, scene: SceneFactory, decision: HandlerDecision, fields: Fields, count: int) -> None:
        made = scene(decision)
        assert made.client.ask("/echo", "POST", b"old", fields).status == 200
        assert made.running.metrics().changed_signed_message_count == count


class TestChanged:
    """`RawRequest.changed` says what is sent."""

    DECISIONS = {
        "head": TestHead.DECISION,
        "line": forward(method="PUT", path="/echo?x=%20"),
        "body": forward(body=b"new", set={"Content-Type": "x/y"}, remove=["x-kept"]),
        "trailers": forward(remove=["X-End", "x-gone"]),
        "nothing": forward(),
    }

    @pytest.mark.parametrize("name", DECISIONS)
    def test_it_is_what_arrives(self, scene: SceneFactory, name: str) -> None:
        decision, changed = self.DECISIONS[name], []

        def decide(request: RawRequest) -> HandlerDecision:
            changed.append(request.changed(decision))
            return decision

        class Decides(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                return decide(request)

        made = scene(Decides())
        made.client.ask_with_trailers([("X-End", "yes")], TestHead.SENT)
        received, (expected,) = made.received(), changed
        framing = ("content-length", "transfer-encoding", "trailer", "host", ":authority", ":scheme", ":method", ":path")

        def fields(pairs: Any) -> list[tuple[str, str]]:
            return [(name.lower(), value) for name, value in pairs if name.lower() not in framing]

        assert (expected.method, expected.path) == (received.method, received.target)
        assert fields(expected.headers.items()) == fields(received.headers)
        assert expected.body == bytes(received.body)
        assert fields(expected.trailers.items()) == fields(received.trailers)


class TestWhatCannotBeApplied:
    """A failure of the hook, and nothing goes on, whatever the policy."""

    @pytest.mark.parametrize(
        ("decision", "method", "body"),
        [
            (forward(method="HEAD"), "GET", None),
            (forward(method="GET"), "HEAD", None),
            (forward(method="TRACE"), "POST", b"x"),
            (forward(method="TRACE", body=b"x"), "GET", None),
            (forward(body=b"x"), "TRACE", None),
            (forward(set={"X": "y" * 70_000}), "GET", None),
            (forward(path="*"), "GET", None),
        ],
        ids=lambda value: repr(value)[:40],
    )
    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_it_is_answered_502(self, scene: SceneFactory, decision: HandlerDecision, method: str, body: bytes | None, policy: str) -> None:
        made = scene(decision, **{"handler.failure_policy": policy})
        answer = made.client.ask("/echo", method, body)
        assert answer.status == 502
        if method != "HEAD":
            assert answer.text == "the decision of the policy handler cannot be applied to this request\n"
        assert made.origin.requests == []
        metrics = made.running.metrics()
        assert (metrics.handler_panic_count, metrics.blocked_request_count, metrics.allowed_request_count) == (1, 1, 0)

    def test_a_body_that_was_not_shown_whole(self, scene: SceneFactory) -> None:
        made = scene(forward(body=b"new"), **{"body.max_size_bytes": 100})
        assert made.client.ask("/echo", "POST", b"x" * 101).status == 502
        assert made.origin.requests == []

    def test_a_body_that_is_not_collected(self, scene: SceneFactory) -> None:
        made = scene(forward(body=b"new"), **{"body.buffer_request_bodies": False})
        assert made.client.ask("/echo", "POST", b"x" * 101).status == 502
        assert made.origin.requests == []

    def test_an_iterable_serves_one_request(self, scene: SceneFactory) -> None:
        async def items() -> Any:
            yield b"once"

        made = scene(forward(body=items()))
        assert json.loads(made.client.ask("/echo", "POST", b"old").text)["body_length"] == 4
        assert made.client.ask("/echo", "POST", b"old").status == 502
        assert len(made.origin.requests) == 1


class TestRetry:
    def answers_once(self, connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        if len(connection.connection.requests) > 1:
            connection.close()
            return
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def served(
        self, proxy: ProxyFactory, origin: Origin, decide: Callable[[RawRequest], HandlerDecision], method: str
    ) -> tuple[int, list[Request]]:
        origin.script(self.answers_once)
        running = proxy(Recording(decide))
        with running.tunnel(origin.port) as client:
            assert client.request("/first", HOST).status == 200
            status = client.request("/x", HOST, method, b"old").status
        return status, origin.requests[1:]

    @pytest.mark.parametrize("body", [None, pattern(100_000)], ids=["kept", "replaced"])
    def test_what_is_sent_again_is_the_changed_request(self, proxy: ProxyFactory, plain_origin: Origin, body: bytes | None) -> None:
        decision = forward(set={"X-Changed": "1"}, body=body)
        status, (lost, again) = self.served(proxy, plain_origin, lambda _: decision, "PUT")
        assert status == 200
        assert named(again, "x-changed") == ["1"]
        assert (lost.raw_head, lost.raw_body) == (again.raw_head, again.raw_body)
        assert bytes(again.body) == (body or b"old")

    @pytest.mark.parametrize(("method", "changed", "times"), [("PUT", "POST", 1), ("POST", "PUT", 2)])
    def test_the_changed_method_says_whether(
        self, proxy: ProxyFactory, plain_origin: Origin, method: str, changed: str, times: int
    ) -> None:
        def decide(request: RawRequest) -> HandlerDecision:
            return HandlerDecision.ALLOW if request.path == "/first" else forward(method=changed)

        status, sent = self.served(proxy, plain_origin, decide, method)
        assert (status, len(sent)) == (200 if times == 2 else 502, times)

    def test_a_stream_is_never_sent_again(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def decide(request: RawRequest) -> HandlerDecision:
            async def items() -> Any:
                yield b"once"

            return HandlerDecision.ALLOW if request.path == "/first" else forward(body=items())

        status, sent = self.served(proxy, plain_origin, decide, "PUT")
        assert (status, len(sent)) == (502, 1)


def test_a_login_that_a_handler_sets_belongs_to_one_client(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        return forward(set={"Authorization": "NTLM abc"}) if request.path == "/login" else HandlerDecision.ALLOW

    running = proxy(Recording(decide))
    with running.tunnel(plain_origin.port) as one, running.tunnel(plain_origin.port) as other:
        assert one.request("/bytes/1?login", HOST).status == 200
        assert one.request("/login", HOST).status in (200, 404)
        assert other.request("/bytes/2", HOST).status == 200
        assert one.request("/bytes/3", HOST).status == 200
    connections = {request.target: request.connection_index for request in plain_origin.requests}
    # the server takes what comes over the connection of the login for that user's
    assert connections["/bytes/2"] != connections["/login"] == connections["/bytes/3"]


def test_on_http1_what_is_not_named_keeps_its_bytes(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(Recording(lambda _: forward(set={"x-two": "2"}, remove=["x-three"])))
    with running.tunnel(plain_origin.port) as client:
        client.send(b"GET /echo HTTP/1.1\r\nhOsT:localhost\r\nx-ONE:  a \r\nX-tWO: 1\r\nX-Three: 3\r\nx-one:\tb\r\n\r\n")
        assert client.read_answer().status == 200
    assert plain_origin.requests[0].raw_head == b"GET /echo HTTP/1.1\r\nhOsT:localhost\r\nx-ONE:  a \r\nX-tWO: 2\r\nx-one:\tb\r\n\r\n"


def test_monitor_mode_changes_nothing(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Recording(lambda _: forward(set={"X": "1"}, body=b"new", path="/other")), intercept_mode="monitor")
    with running.secured(origin.port) as client:
        echo = json.loads(client.request("/echo", HOST, "POST", b"old").text)
        assert (echo["path"], echo["body_length"]) == ("/echo", 3)
    running.wait_idle()
    assert (running.metrics().ignored_decision_count, running.metrics().changed_request_count) == (1, 0)
