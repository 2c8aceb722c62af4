"""Credentials in messages of WebSockets: put in on the way out, turned back on the way in, and never where they do not belong."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from h2.exceptions import ProtocolError
from tests.e2e.test_websocket_filter import TAIL, Talk, by_word, frames_of, told

from soth_mitm import ChunkDecision, Credential, InterceptHandler, InvalidConfigError, Secret, StreamChunk
from support.certs import TestCA
from support.http2_inside import http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.websocket import BINARY, CLOSE, CONTINUATION, DEFLATE, FIN, MASK, PING, RSV1, TEXT, accept, ask, compressed, frame

PLACEHOLDER, VALUE = b"key-placeholder-1", b'sk-"live"-0123456789'
QUOTED = json.dumps(VALUE.decode())[1:-1].encode()
MISDIRECTED = b"placeholder_misdirected: that credential is not for here"


class Filtering(Recording):
    """Decides by a function, and notes what it was asked about."""

    def __init__(self, choose: Callable[[StreamChunk], Any]) -> None:
        super().__init__()
        self.choose = choose

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self._note("filter_stream_chunk", chunk)
        return self.choose(chunk)


def credential(*destinations: str, place: tuple[str, ...] = ("websocket",), source: Any = None, **more: Any) -> Credential:
    return Credential(PLACEHOLDER.decode(), source or Secret(VALUE), destinations or ["localhost:*"], place=place, **more)


class Answers(Talk):
    """An upstream that answers a Close and ends."""

    def _talk(self, connection: ScriptedConnection, request: Request) -> None:
        # a stream of HTTP/2 may be over before the answer is sent
        with contextlib.suppress(OSError, ProtocolError):
            connection.send(accept(request, self._more))
            for piece in self._said_pieces:
                connection.send(piece)
            while data := connection.receive():
                self._pieces.append(data)
                if is_closed(self.heard):
                    connection.send(ANSWERED)
                    break
            connection.close()
        self.ended.set()

    def __init__(self, origin: Origin, *said: bytes, more: str = "") -> None:
        self._said_pieces = said
        super().__init__(origin, *said, more=more)


def is_closed(data: bytes) -> bool:
    try:
        return any(bits == FIN | CLOSE for bits, _ in frames_of(data))
    except (AssertionError, IndexError):
        return False


class Client:
    """A client of a WebSocket, on a connection of HTTP/1 or a stream of HTTP/2."""

    def __init__(self, running: Running, port: int, version: str, more: str = "") -> None:
        self.wire: Any
        if version == "h1":
            self.wire, self.h2 = running.secured(port), None
            self.wire.send(ask(more))
            self.head = self.wire.read_head()
            assert self.head.status == 101
            return
        self.wire, self.h2 = http2_client(running, port)
        while not self.h2.h2.remote_settings.enable_connect_protocol:
            self.h2.read()
        fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        fields += [("sec-websocket-extensions", "permessage-deflate")] if more else []
        self.number = self.h2.open("/chat", method="CONNECT", fields=fields, end=False)
        self.head = self.h2.head(self.number)
        assert self.head.status == 200

    def send(self, data: bytes, end: bool = False) -> None:
        if self.h2 is None:
            self.wire.send(data)
        else:
            self.h2.send(self.number, data, end=end)

    def rest(self) -> bytes:
        """Read to the end, and end as well."""
        if self.h2 is None:
            left = self.wire.read_to_end()
        else:
            stream = self.h2.streams[self.number]
            while not stream.over:
                self.h2.read()
            left = stream.body
        self.wire.socket.close()
        return left  # type: ignore[no-any-return]


class Scene:
    def __init__(self, proxy: ProxyFactory, origin: Origin, client: str, stack: ExitStack) -> None:
        self._proxy, self.origin, self.client, self._stack = proxy, origin, client, stack

    def begin(
        self, *said: bytes, handler: Any = None, more: str = "", credentials: Any = None, **keys: Any
    ) -> tuple[Running, Talk, Client]:
        talk = Answers(self.origin, *said, more=more)
        running = self._proxy(handler, credentials=[credential()] if credentials is None else credentials, **keys)
        client = Client(running, self.origin.port, self.client, more)
        self._stack.callback(client.wire.socket.close)
        return running, talk, client


@pytest.fixture(params=[("h1", "h1"), ("h2", "h1"), ("h2", "h2")], ids="".join)
def scene(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[Scene]:
    client, upstream = request.param
    with ExitStack() as stack:
        alpn = ("h2", "http/1.1") if upstream == "h2" else ("http/1.1",)
        origin = stack.enter_context(Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn), host=HOST))
        origin.settings = {8: 1}
        yield Scene(proxy, origin, client, stack)


def texts(data: bytes) -> list[bytes]:
    return [payload for bits, payload in frames_of(data) if bits & 15 in (TEXT, BINARY)]


CLOSED, ANSWERED = frame(FIN | CLOSE, b"\x03\xe8", MASK), frame(FIN | CLOSE, b"\x03\xe8")


class TestPutIn:
    @pytest.mark.parametrize("handler", [None, Recording(), "filter"], ids=["none", "observer", "filter"])
    def test_the_value_goes_out_and_nobody_sees_it(self, scene: Scene, handler: Any) -> None:
        handler = Filtering(lambda chunk: ChunkDecision.PASS) if handler == "filter" else handler
        running, talk, client = scene.begin(handler=handler)
        plain = frame(FIN | TEXT, b"nothing in it", MASK)
        client.send(frame(FIN | TEXT, b"auth " + PLACEHOLDER, MASK) + frame(TEXT, b'{"key": "key-place', MASK))
        client.send(frame(FIN | PING, b"1", MASK) + frame(FIN | CONTINUATION, b'holder-1"}', MASK) + plain + CLOSED, end=True)
        client.rest()
        running.wait_idle("active_connections", "active_flows", "buffered_bytes")
        assert texts(talk.heard) == [b"auth " + VALUE, b'{"key": "' + QUOTED + b'"}', b"nothing in it"]
        assert talk.heard.endswith(plain + CLOSED), "what passes keeps its octets"
        if handler is not None:
            for hook in ("filter_stream_chunk", "on_stream_chunk"):
                shown = [chunk.payload for chunk in handler.of(hook)]
                assert not any(b"sk-" in payload for payload in shown)
            assert handler.of("on_stream_chunk")[0].payload == b"auth " + PLACEHOLDER
        assert running.metrics().credentials_put_in_by_placeholder[PLACEHOLDER.decode()] == 2

    def test_what_a_handler_says(self, scene: Scene) -> None:
        running, talk, client = scene.begin(handler=Filtering(lambda _: ChunkDecision.replace("now " + PLACEHOLDER.decode(), "then")))
        client.send(frame(FIN | TEXT, b"hello", MASK) + CLOSED, end=True)
        client.rest()
        running.wait_idle("active_connections")
        assert texts(talk.heard) == [b"now " + VALUE, b"then"]
        assert [chunk.payload for chunk in running.handler.of("on_stream_chunk")][:2] == [b"now " + PLACEHOLDER, b"then"]

    def test_what_a_handler_injects(self, scene: Scene) -> None:
        running, talk, client = scene.begin(frame(FIN | TEXT, b"ready"), handler=Recording())
        (chunk,) = running.handler.wait("on_stream_chunk")
        running.handle.inject(chunk.flow_id, PLACEHOLDER.decode(), direction="to_upstream")
        client.send(CLOSED, end=True)
        client.rest()
        running.wait_idle("active_connections")
        assert texts(talk.heard) == [VALUE]

    def test_not_where_it_is_not_meant(self, scene: Scene) -> None:
        running, talk, client = scene.begin(credentials=[credential(place=("header:authorization",))])
        sent = frame(FIN | TEXT, b"auth " + PLACEHOLDER, MASK) + CLOSED
        client.send(sent, end=True)
        client.rest()
        running.wait_idle("active_connections")
        assert talk.heard == sent

    def test_not_in_binary_messages(self, scene: Scene) -> None:
        running, talk, client = scene.begin()
        sent = frame(FIN | BINARY, b"auth " + PLACEHOLDER, MASK) + CLOSED
        client.send(sent, end=True)
        client.rest()
        running.wait_idle("active_connections")
        assert talk.heard == sent

    def test_compressed_messages(self, scene: Scene) -> None:
        """It leaves without compression; what follows is compressed anew, as its windows differ."""
        running, talk, client = scene.begin(more=DEFLATE)
        packer = zlib.compressobj(wbits=-15)

        def packed(payload: bytes) -> bytes:
            data = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
            return frame(FIN | RSV1 | TEXT, data, MASK)

        first, second, third = packed(b"first message"), packed(b"second " + PLACEHOLDER), packed(b"third message, " + PLACEHOLDER[:9])
        client.send(first + second + third + CLOSED, end=True)
        client.rest()
        running.wait_idle("active_connections")
        assert talk.heard.startswith(first)
        inflater = zlib.decompressobj(wbits=-15)
        heard = [
            (bool(bits & RSV1), inflater.decompress(payload + TAIL) if bits & RSV1 else payload)
            for bits, payload in frames_of(talk.heard)
            if bits & 15 == TEXT
        ]
        assert heard == [(True, b"first message"), (False, b"second " + VALUE), (True, b"third message, " + PLACEHOLDER[:9])]

    def test_in_monitor_mode(self, scene: Scene) -> None:
        if scene.client == "h2":
            pytest.skip("a client is offered what the upstream speaks, and the extended CONNECT is not known by then")
        running, talk, client = scene.begin(frame(FIN | TEXT, VALUE), handler=Recording(), intercept_mode="monitor")
        client.send(frame(FIN | TEXT, PLACEHOLDER, MASK) + CLOSED, end=True)
        assert texts(client.rest()) == [PLACEHOLDER]
        running.wait_idle("active_connections")
        assert texts(talk.heard) == [VALUE]

    def test_a_value_that_is_no_text(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(credentials=[credential(source=Secret(b"\xff" * 20), redact=False)])
        with running.secured(origin.port) as client:
            client.send(ask())
            answer = client.read_answer()
        assert answer.status == 502 and "credential_unavailable: the value cannot stand in JSON" in answer.text
        assert origin.requests == []


class TestTurnedBack:
    @pytest.mark.parametrize("cut", [1, 5, 0], ids=["octets", "fives", "at once"])
    def test_a_value_does_not_come_back(self, scene: Scene, cut: int) -> None:
        plain = frame(FIN | TEXT, b"nothing in it")
        said = (
            plain + frame(TEXT, b"it is sk-") + frame(FIN | CONTINUATION, VALUE[3:] + b".") + frame(FIN | TEXT, b'{"k": "' + QUOTED + b'"}')
        )
        said += frame(FIN | BINARY, b"\x00" + VALUE) + plain
        pieces = [said[at : at + (cut or len(said))] for at in range(0, len(said), cut or len(said))]
        running, talk, client = scene.begin(*pieces, handler=Filtering(by_word))
        client.send(CLOSED, end=True)
        left = client.rest()
        assert texts(left) == [
            b"nothing in it",
            b"it is " + PLACEHOLDER + b".",
            b'{"k": "' + PLACEHOLDER + b'"}',
            b"\x00" + b"*" * len(VALUE),
            b"nothing in it",
        ]
        assert left.startswith(plain) and left.endswith(plain + ANSWERED)
        for hook in ("filter_stream_chunk", "on_stream_chunk"):
            assert not any(b"live" in chunk.payload for chunk in running.handler.of(hook))
        assert running.metrics().redacted_value_count == 3

    def test_the_reason_of_a_close(self, scene: Scene) -> None:
        reason = b"wrong key: " + VALUE + b" " + b"x" * (123 - 12 - len(VALUE))
        running, talk, client = scene.begin(frame(FIN | CLOSE, b"\x0f\xa1" + reason), handler=Recording())
        client.send(frame(FIN | CLOSE, b"\x0f\xa1", MASK), end=True)
        assert frames_of(client.rest())[0] == (FIN | CLOSE, b"\x0f\xa1" + reason.replace(VALUE, PLACEHOLDER))
        shown = running.handler.wait("on_stream_chunk", 1)
        assert not any(VALUE in chunk.payload for chunk in shown)

    def test_a_compressed_message(self, scene: Scene) -> None:
        payload = compressed(b"it is " + VALUE)
        running, talk, client = scene.begin(frame(FIN | RSV1 | TEXT, payload), more=DEFLATE)
        client.send(CLOSED, end=True)
        bits, left = frames_of(client.rest())[0]
        assert bits == FIN | RSV1 | TEXT
        assert zlib.decompressobj(wbits=-15).decompress(left + TAIL) == b"it is " + PLACEHOLDER

    def test_without_redact(self, scene: Scene) -> None:
        said = frame(FIN | TEXT, VALUE)
        running, talk, client = scene.begin(said, credentials=[credential(redact=False)])
        client.send(CLOSED, end=True)
        assert client.rest() == said + ANSWERED


ELSEWHERE = [credential("elsewhere.example:443")]
KEYS = {"credentials": ELSEWHERE, "interception.destinations": ["localhost:*", "elsewhere.example:443"]}


class TestMisdirected:
    @pytest.mark.parametrize("secret", [PLACEHOLDER, VALUE, QUOTED], ids=["placeholder", "value", "in JSON"])
    @pytest.mark.parametrize("kind", [TEXT, BINARY])
    def test_it_closes(self, scene: Scene, secret: bytes, kind: int) -> None:
        good = frame(FIN | TEXT, b"good", MASK)
        running, talk, client = scene.begin(**KEYS)
        client.send(good + frame(kind, b"auth " + secret[:5], MASK) + frame(FIN | CONTINUATION, secret[5:] + b".", MASK) + good)
        assert told(client.rest()) == (1008, MISDIRECTED)
        assert talk.ended.wait(10)
        running.wait_idle("active_connections", "active_flows", "buffered_bytes")
        assert talk.heard.startswith(good) and told(talk.heard) == (1008, MISDIRECTED)
        assert texts(talk.heard) == [b"good"] and secret[:5] not in talk.heard
        assert running.metrics().blocked_placeholder_count == 1

    @pytest.mark.parametrize("secret", [PLACEHOLDER, VALUE], ids=["placeholder", "value"])
    def test_the_reason_of_a_close(self, scene: Scene, secret: bytes) -> None:
        running, talk, client = scene.begin(**KEYS)
        client.send(frame(FIN | TEXT, b"good", MASK) + frame(FIN | CLOSE, b"\x03\xe8bye " + secret, MASK))
        assert told(client.rest()) == (1008, MISDIRECTED)
        running.wait_idle("active_connections", "active_flows", "buffered_bytes")
        assert talk.ended.wait(10)
        assert texts(talk.heard) == [b"good"] and told(talk.heard) == (1008, MISDIRECTED)
        assert running.metrics().blocked_placeholder_count == 1

    def test_what_a_handler_says(self, scene: Scene) -> None:
        running, talk, client = scene.begin(handler=Filtering(lambda _: ChunkDecision.replace("good", PLACEHOLDER)), **KEYS)
        client.send(frame(FIN | TEXT, b"hello", MASK))
        assert told(client.rest()) == (1008, MISDIRECTED)
        running.wait_idle("active_connections")
        assert talk.ended.wait(10)
        assert texts(talk.heard) == []

    def test_what_a_handler_injects(self, scene: Scene) -> None:
        running, talk, client = scene.begin(frame(FIN | TEXT, b"ready"), handler=Recording(), **KEYS)
        (chunk,) = running.handler.wait("on_stream_chunk")
        with pytest.raises(ValueError, match="may not go to this upstream"):
            running.handle.inject(chunk.flow_id, PLACEHOLDER, direction="to_upstream")
        assert told(client.rest()) == (1008, MISDIRECTED)
        running.wait_idle("active_connections")
        assert talk.ended.wait(10)
        assert texts(talk.heard) == []

    @pytest.mark.parametrize("to", ["client", "upstream"])
    def test_what_is_too_long_to_be_searched(self, scene: Scene, to: str) -> None:
        long = frame(FIN | TEXT, b"x" * 5000 + VALUE, MASK if to == "upstream" else b"")
        said = (long,) if to == "client" else ()
        running, talk, client = scene.begin(*said, **{"body.max_size_bytes": 4096})
        if to == "upstream":
            client.send(long)
        left = client.rest()
        assert told(left)[0] == 1009 and b"xx" not in left
        running.wait_idle("active_connections", "active_flows", "buffered_bytes")
        assert talk.ended.wait(10)
        assert b"xx" not in talk.heard

    def test_what_is_not_complete_in_time(self, scene: Scene) -> None:
        running, talk, client = scene.begin(**{"body.buffer_timeout_ms": 200})
        client.send(frame(TEXT, PLACEHOLDER[:10], MASK))
        assert told(client.rest()) == (1008, b"the message was not complete in time")
        running.wait_idle("active_connections")
        assert talk.ended.wait(10)
        assert texts(talk.heard) == []


def test_violations_cannot_be_relayed_unread(proxy: ProxyFactory) -> None:
    with pytest.raises(InvalidConfigError, match=r"websocket\.on_violation: must be `close` where there are credentials"):
        proxy(InterceptHandler(), credentials=[credential()], **{"websocket.on_violation": "relay"})
