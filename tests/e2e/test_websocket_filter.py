"""Messages of a WebSocket in `filter_stream_chunk`: what passes, what is dropped or replaced, and what the two ends read then."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from soth_mitm import ChunkDecision, FrameKind, InterceptHandler, InvalidConfigError, RawResponse, ResponseDecision, SseEvent, StreamChunk
from support.certs import TestCA
from support.http2_inside import http2_client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory
from support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    FIN,
    MASK,
    PING,
    PONG,
    RSV1,
    TEXT,
    accept,
    ask,
    closing,
    compressed,
    frame,
    unmasked,
)

Decide = Callable[[StreamChunk], Any]
TAIL = b"\x00\x00\xff\xff"
ENDED = b"ended by the handler of the proxy"
UNDECIDED = b"the handler of the proxy did not decide"


class Filtering(Recording):
    """Decides by a function."""

    def __init__(self, decide_chunk: Decide) -> None:
        super().__init__()
        self.decide_chunk = decide_chunk

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self._note("filter_stream_chunk", chunk)
        return self.decide_chunk(chunk)


class FilteringOnly(Filtering):
    """The same, and has no hook for what has passed."""

    on_stream_chunk = InterceptHandler.on_stream_chunk


class Unasked(Filtering):
    """The same without `on_request`: `body.incomplete = "refuse"` refuses a WebSocket before it is asked about."""

    on_request = InterceptHandler.on_request


def by_word(chunk: StreamChunk) -> ChunkDecision:
    """Decide as the message says."""
    match chunk.payload.split(b" ")[0]:
        case b"drop":
            return ChunkDecision.DROP
        case b"end":
            return ChunkDecision.END
        case b"twice":
            return ChunkDecision.replace("first " + chunk.text, "second " + chunk.text)
        case b"edit":
            return ChunkDecision.replace(chunk.payload.replace(b"edit", b"EDITED"))
        case _:
            return ChunkDecision.PASS


class Talk:
    """An upstream that accepts, says something and hears the rest."""

    def __init__(self, origin: Origin, *said: bytes, more: str = "") -> None:
        self._pieces: list[bytes] = []
        self._count = 0
        self.ended = threading.Event()
        self._changed = threading.Condition()
        self._said, self._more = b"".join(said), more
        origin.script(self._talk, "/chat")

    def _talk(self, connection: ScriptedConnection, request: Request) -> None:
        connection.send(accept(request, self._more) + self._said)
        with contextlib.suppress(OSError):
            while data := connection.receive():
                with self._changed:
                    self._pieces.append(data)
                    self._count += len(data)
                    self._changed.notify_all()
        self.ended.set()
        connection.close()

    @property
    def heard(self) -> bytes:
        with self._changed:
            return b"".join(self._pieces)

    def wait(self, count: int) -> bytes:
        """Wait until so many octets were heard."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, 30), (self._count, count)
            return b"".join(self._pieces)


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return FIN, RSV and opcode, and the payload in the clear, of each frame."""
    found = []
    while data:
        bits, length, at = data[0], data[1] & 0x7F, 2
        if length > 125:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        key = b""
        if data[1] & 0x80:
            key, at = data[at : at + 4], at + 4
        payload = data[at : at + length]
        assert len(payload) == length, data
        found.append((bits, bytes(octet ^ key[at % 4] for at, octet in enumerate(payload)) if key else payload))
        data = data[at + length :]
    return found


def told(data: bytes) -> tuple[int, bytes]:
    """Return code and reason of the Close that is the last frame."""
    bits, payload = frames_of(data)[-1]
    assert bits == FIN | CLOSE
    return int.from_bytes(payload[:2], "big"), payload[2:]


class TestPlain:
    @pytest.mark.parametrize("cut", [1, 3, 7, 0], ids=["octets", "threes", "sevens", "at once"])
    @pytest.mark.parametrize("kind", [Filtering, FilteringOnly])
    def test_each_decision(self, proxy: ProxyFactory, plain_origin: Origin, kind: type[Filtering], cut: int) -> None:
        talk = Talk(plain_origin)
        running = proxy(kind(by_word))
        kept = [
            frame(FIN | TEXT, b"pass", MASK),
            frame(TEXT, b"in ", MASK) + frame(CONTINUATION, b"", MASK) + frame(FIN | CONTINUATION, b"parts", MASK),
            frame(FIN | BINARY, b"", MASK),
        ]
        sent = (
            kept[0]
            + frame(FIN | TEXT, b"drop this", MASK)
            + frame(TEXT, b"dr", MASK)
            + frame(FIN | CONTINUATION, b"op that", MASK)
            + kept[1]
            + frame(FIN | TEXT, b"edit me", MASK)
            + frame(FIN | BINARY, b"twice", MASK)
            + kept[2]
            + frame(FIN | CLOSE, b"\x03\xe8", MASK)
        )
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            for at in range(0, len(sent), cut or len(sent)):
                client.send(sent[at : at + (cut or len(sent))])
            client.end_writing()
            assert client.read_to_end() == b""
        running.wait_idle()
        # what passes keeps its octets
        assert talk.heard.startswith(kept[0] + kept[1])
        assert kept[2] in talk.heard
        assert frames_of(talk.heard) == [
            (FIN | TEXT, b"pass"),
            (TEXT, b"in "),
            (CONTINUATION, b""),
            (FIN | CONTINUATION, b"parts"),
            (FIN | TEXT, b"EDITED me"),
            (FIN | BINARY, b"first twice"),
            (FIN | BINARY, b"second twice"),
            (FIN | BINARY, b""),
            (FIN | CLOSE, b"\x03\xe8"),
        ]
        asked = running.handler.of("filter_stream_chunk")
        assert [chunk.sequence for chunk in asked] == list(range(7))
        assert {(chunk.direction, chunk.request.path) for chunk in asked} == {("to_upstream", "/chat")}
        shown = [(chunk.payload, chunk.replaced) for chunk in running.handler.of("on_stream_chunk")]
        expected = [
            (b"pass", False),
            (b"in parts", False),
            (b"EDITED me", True),
            (b"first twice", True),
            (b"second twice", True),
            (b"", False),
            (b"\x03\xe8", False),
        ]
        assert shown == (expected if kind is Filtering else [])
        assert running.metrics().filtered_chunk_count_by_decision == {"pass": 3, "drop": 2, "replace": 2, "end": 0}

    def test_the_other_direction(self, proxy: ProxyFactory, origin: Origin) -> None:
        Talk(origin, frame(FIN | TEXT, b"drop"), frame(FIN | TEXT, b"edit"), frame(FIN | PING, b"p"), frame(FIN | TEXT, b"pass"))
        running = proxy(Filtering(by_word))
        with running.secured(origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            expected = frame(FIN | TEXT, b"EDITED") + frame(FIN | PING, b"p") + frame(FIN | TEXT, b"pass")
            assert client.read_exactly(len(expected)) == expected
        running.wait_idle()

    def test_end(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Filtering(by_word))
        good = frame(FIN | TEXT, b"good", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + good + frame(FIN | TEXT, b"end it", MASK) + good)
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1008, ENDED)
        assert talk.ended.wait(10)
        running.wait_idle()
        assert talk.heard.startswith(good)
        assert told(talk.heard) == (1008, ENDED)
        assert len(frames_of(talk.heard)) == 2
        assert running.metrics().websocket_close_count_by_side["proxy"] == 1

    @pytest.mark.parametrize("answer", [None, True, ChunkDecision.replace(SseEvent("no")), ChunkDecision.replace(b"\xff no text")], ids=str)
    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_an_answer_that_means_nothing_ends_it(self, proxy: ProxyFactory, plain_origin: Origin, answer: Any, policy: str) -> None:
        talk = Talk(plain_origin)
        running = proxy(Filtering(lambda _: answer), **{"handler.failure_policy": policy})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"secret", MASK))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1008, UNDECIDED)
        assert talk.ended.wait(10)
        running.wait_idle()
        assert b"secret" not in b"".join(payload for _, payload in frames_of(talk.heard))
        assert running.metrics().handler_panic_count == 1

    @pytest.mark.parametrize(("policy", "passes"), [("allow", True), ("block", False)])
    def test_a_failure_goes_by_the_policy(self, proxy: ProxyFactory, plain_origin: Origin, policy: str, passes: bool) -> None:
        def fail(chunk: StreamChunk) -> ChunkDecision:
            raise RuntimeError("a bug of the handler")

        talk = Talk(plain_origin)
        running = proxy(Filtering(fail), **{"handler.failure_policy": policy})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"secret", MASK))
            assert client.read_head().status == 101
            if passes:
                assert talk.wait(12) == frame(FIN | TEXT, b"secret", MASK)
            else:
                assert client.read_to_end() == closing(1008, UNDECIDED)
        running.wait_idle()

    def test_a_failure_that_ends_its_flow(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def fail(chunk: StreamChunk) -> ChunkDecision:
            raise RuntimeError("a bug of the handler")

        talk = Talk(plain_origin)
        running = proxy(Filtering(fail), **{"handler.recover_from_panics": False})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"secret", MASK))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1011, b"a hook of the proxy failed")
        assert talk.ended.wait(10)
        running.wait_idle()
        assert told(talk.heard)[0] == 1011

    def test_kinds_that_are_not_filtered_are_not_held(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        class OnlyText(Filtering):
            filter_kinds = frozenset({FrameKind.WEBSOCKET_TEXT})

        talk = Talk(plain_origin)
        running = proxy(OnlyText(lambda _: ChunkDecision.DROP))
        first = frame(BINARY, b"drop: half of ", MASK)
        rest = frame(FIN | CONTINUATION, b"it", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + first)
            assert client.read_head().status == 101
            assert talk.wait(len(first)) == first
            client.send(frame(FIN | PING, b"", MASK) + rest + frame(FIN | TEXT, b"text", MASK))
            running.handler.wait("filter_stream_chunk")
        running.wait_idle()
        assert talk.heard == first + frame(FIN | PING, b"", MASK) + rest
        assert [chunk.payload for chunk in running.handler.of("on_stream_chunk")] == [b"drop: half of it"]
        assert [chunk.payload for chunk in running.handler.of("filter_stream_chunk")] == [b"text"]

    def test_monitor_mode_asks_nothing(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Filtering(lambda _: ChunkDecision.END), intercept_mode="monitor")
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"text", MASK))
            assert client.read_head().status == 101
            talk.wait(10)
        running.wait_idle()
        assert running.handler.of("filter_stream_chunk") == []

    def test_a_way_around_is_refused(self, proxy: ProxyFactory) -> None:
        with pytest.raises(InvalidConfigError, match=r"websocket.on_violation.*must be `close` while filter_stream_chunk"):
            proxy(Filtering(by_word), **{"websocket.on_violation": "relay"})


class Held(Filtering):
    """Decides about the messages that begin with b"hold" when it is let go."""

    def __init__(self) -> None:
        super().__init__(by_word)
        self.go = threading.Event()

    async def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self._note("filter_stream_chunk", chunk)
        if chunk.payload.startswith(b"hold"):
            await asyncio.to_thread(self.go.wait, 20)
        return self.decide_chunk(chunk)


class TestHeld:
    def test_only_pings_and_pongs_overtake(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Held())
        held, ping, pong = frame(FIN | TEXT, b"hold", MASK), frame(FIN | PING, b"1", MASK), frame(FIN | PONG, b"2", MASK)
        last = frame(FIN | CLOSE, b"\x03\xe8", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + held + ping)
            assert client.read_head().status == 101
            assert talk.wait(len(ping)) == ping
            client.send(pong[:3])
            client.send(pong[3:] + frame(FIN | TEXT, b"next", MASK) + frame(FIN | PING, b"3", MASK) + last)
            assert talk.wait(len(ping + pong)) == ping + pong
            # the other direction is not held
            running.handle.inject(running.handler.of("filter_stream_chunk")[0].flow_id, "across")
            assert client.read_exactly(8) == frame(FIN | TEXT, b"across")
            running.handler.go.set()
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        assert talk.heard == ping + pong + held + frame(FIN | TEXT, b"next", MASK) + frame(FIN | PING, b"3", MASK) + last

    def test_a_ping_between_the_fragments_of_what_is_held(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Filtering(by_word))
        parts = frame(TEXT, b"a", MASK), frame(FIN | CONTINUATION, b"b", MASK)
        ping = frame(FIN | PING, b"between", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + parts[0] + ping[:4])
            assert client.read_head().status == 101
            client.send(ping[4:])
            assert talk.wait(len(ping)) == ping
            client.send(parts[1])
            assert talk.wait(len(ping + parts[0] + parts[1])) == ping + parts[0] + parts[1]
        running.wait_idle()

    def test_a_message_of_the_handlers_goes_before_what_is_held(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Held())
        held = frame(FIN | TEXT, b"hold", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + held)
            assert client.read_head().status == 101
            flow = running.handler.wait("filter_stream_chunk")[0].flow_id
            running.handle.inject(flow, "before", direction="to_upstream")
            running.handler.go.set()
            assert talk.wait(12 + len(held))[12:] == held
        running.wait_idle()
        assert unmasked(talk.heard[:12]) == (FIN | TEXT, b"before")

    def test_what_is_not_decided_when_it_ends_does_not_pass(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Held(), **{"websocket.idle_timeout_ms": 200})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"hold", MASK) + frame(FIN | TEXT, b"next", MASK))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1001, b"no message for too long")
        assert talk.ended.wait(10)
        running.handler.go.set()
        running.wait_idle()
        assert told(talk.heard) == (1001, b"no message for too long")
        assert len(frames_of(talk.heard)) == 1

    def test_an_end_behind_it_waits(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Held())
        held = frame(FIN | TEXT, b"hold", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + held)
            assert client.read_head().status == 101
            client.end_writing()
            running.handler.wait("filter_stream_chunk")
            assert not talk.ended.wait(0.1)
            running.handler.go.set()
            assert client.read_to_end() == b""
        running.wait_idle()
        assert talk.heard == held

    def test_much_is_not_read_meanwhile(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Held())
        message = frame(FIN | BINARY, pattern(100_000), MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, b"hold", MASK))
            assert client.read_head().status == 101
            running.handler.wait("filter_stream_chunk")
            sending = threading.Thread(target=lambda: client.send(message * 300))
            sending.start()
            sending.join(1)
            assert sending.is_alive()
            assert running.metrics().buffered_bytes < 1 << 20
            running.handler.go.set()
            sending.join(30)
            talk.wait(10 + 300 * len(message))
        running.wait_idle()


class TestLong:
    @pytest.mark.parametrize(("decision", "passes"), [(ChunkDecision.PASS, True), (ChunkDecision.DROP, False)], ids=["pass", "drop"])
    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "deflate"])
    def test_its_beginning_is_decided_about(
        self, proxy: ProxyFactory, plain_origin: Origin, decision: ChunkDecision, passes: bool, packed: bool
    ) -> None:
        talk = Talk(plain_origin, more=DEFLATE if packed else "")
        running = proxy(Filtering(lambda chunk: decision if chunk.truncated else ChunkDecision.PASS), **{"body.max_size_bytes": 1000})
        data = pattern(5000)
        payload, bits = (compressed(data), RSV1) if packed else (data, 0)
        long = frame(bits | BINARY, payload[:700], MASK) + frame(FIN | PING, b"", MASK) + frame(FIN | CONTINUATION, payload[700:], MASK)
        after = frame(FIN | TEXT, b"after", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE if packed else ""))
            assert client.read_head().status == 101
            for at in range(0, len(long), 900):
                client.send(long[at : at + 900])
            client.send(after)
            talk.wait(len(after))
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        ping = frame(FIN | PING, b"", MASK)
        assert len(talk.heard) == (len(long) + len(after) if passes else len(ping + after))
        first, _ = running.handler.of("filter_stream_chunk")
        assert (first.payload, first.truncated) == (data[:1000], True)

    def test_one_that_cannot_be_compressed_again(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """One before it was dropped, so its receiver remembers other octets; and it is not here to be compressed again."""
        talk = Talk(plain_origin, more=DEFLATE)
        running = proxy(Filtering(by_word), **{"body.max_size_bytes": 1000})
        sender = zlib.compressobj(wbits=-15)
        texts = b"drop " + pattern(900), pattern(5000)
        packed = [(sender.compress(text) + sender.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL) for text in texts]
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE) + b"".join(frame(FIN | RSV1 | BINARY, each, MASK) for each in packed))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1009, b"client: message too long to be read")
        assert talk.ended.wait(10)
        running.wait_idle()
        assert len(frames_of(talk.heard)) == 1

    def test_it_cannot_be_replaced(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Filtering(lambda _: ChunkDecision.replace("x")), **{"body.max_size_bytes": 1000})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | BINARY, bytes(5000), MASK))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1008, UNDECIDED)
        assert talk.ended.wait(10)
        running.wait_idle()
        assert len(frames_of(talk.heard)) == 1

    @pytest.mark.parametrize("key", [{"body.incomplete": "refuse"}, {"body.overflow": "reject"}], ids=["incomplete", "overflow"])
    def test_it_is_refused_where_the_configuration_says_so(self, proxy: ProxyFactory, plain_origin: Origin, key: dict[str, str]) -> None:
        talk = Talk(plain_origin)
        running = proxy(Unasked(by_word), **{"body.max_size_bytes": 1000}, **key)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | BINARY, bytes(5000), MASK))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1009, b"client: message too long to be read")
        assert talk.ended.wait(10)
        running.wait_idle()
        assert running.handler.of("filter_stream_chunk") == []

    @pytest.mark.parametrize("refuses", [False, True])
    def test_one_that_does_not_end(self, proxy: ProxyFactory, plain_origin: Origin, refuses: bool) -> None:
        talk = Talk(plain_origin)
        more = {"body.incomplete": "refuse"} if refuses else {}
        running = proxy(Unasked(by_word), **{"body.buffer_timeout_ms": 100}, **more)
        begun = frame(TEXT, b"for ever", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + begun)
            assert client.read_head().status == 101
            if refuses:
                assert client.read_to_end() == closing(1008, b"the message was not complete in time")
            else:
                assert talk.wait(len(begun)) == begun
                rest = frame(FIN | CONTINUATION, b" and ever", MASK)
                client.send(rest)
                assert talk.wait(len(begun + rest)) == begun + rest
        running.wait_idle()
        asked = running.handler.of("filter_stream_chunk")
        assert [(chunk.payload, chunk.truncated) for chunk in asked] == ([] if refuses else [(b"for ever", True)])

    def test_fragments_without_end_are_bounded(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin)
        running = proxy(Filtering(by_word), **{"body.max_size_bytes": 1000})
        empty = frame(CONTINUATION, b"", MASK)
        sent = frame(TEXT, b"drop me", MASK) + empty * 40_000 + frame(FIN | CONTINUATION, b"", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + sent + frame(FIN | TEXT, b"next", MASK))
            assert client.read_head().status == 101
            assert talk.wait(10) == frame(FIN | TEXT, b"next", MASK)
        running.wait_idle()
        # before it was complete: so much of it is not kept
        assert [chunk.truncated for chunk in running.handler.of("filter_stream_chunk")] == [True, False]


class TestCompressed:
    @pytest.mark.parametrize("recompress", [True, False])
    @pytest.mark.parametrize("bits", [15, 9])
    def test_the_receiver_reads_what_it_should(self, proxy: ProxyFactory, plain_origin: Origin, bits: int, recompress: bool) -> None:
        """With the window of all messages, whatever was changed."""
        more = f"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits={bits}\r\n"
        talk = Talk(plain_origin, more=more)
        running = proxy(Filtering(by_word), **{"websocket.recompress": recompress})
        sender = zlib.compressobj(wbits=-bits)
        words = [b"pass", b"edit", b"drop", b"pass", b"twice", b"pass"]
        texts = [b"%s the same words again and again %d " % (words[number % 6], number // 3) * (1 + number % 7) for number in range(120)]
        texts += [b"pass " + pattern(400).hex().encode()[:500] for _ in range(120)]
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(more))
            assert client.read_head().status == 101
            for text in texts:
                packed = (sender.compress(text) + sender.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
                client.send(frame(FIN | RSV1 | TEXT, packed, MASK))
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        receiver = zlib.decompressobj(wbits=-bits)
        read = [receiver.decompress(payload + TAIL) if head & RSV1 else payload for head, payload in frames_of(talk.heard)]
        expected: list[bytes] = []
        for text in texts:
            match text.split(b" ")[0]:
                case b"drop":
                    continue
                case b"edit":
                    expected.append(text.replace(b"edit", b"EDITED"))
                case b"twice":
                    expected += [b"first " + text, b"second " + text]
                case _:
                    expected.append(text)
        assert read == expected
        metrics = running.metrics()
        assert (metrics.websocket_recoded_message_count > 0) is True
        assert metrics.websocket_compressed_message_count == len(texts)
        heads = {head for head, _ in frames_of(talk.heard)}
        assert heads == ({FIN | RSV1 | TEXT} if recompress else {FIN | RSV1 | TEXT, FIN | TEXT})

    def test_what_cannot_be_inflated_ends_it(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        talk = Talk(plain_origin, more=DEFLATE)
        running = proxy(Filtering(by_word))
        with running.tunnel(plain_origin.port) as client:
            client.send(ask(DEFLATE) + frame(FIN | RSV1 | TEXT, b"\xff\xff\xff", MASK))
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1007, b"client: compressed data malformed")
        assert talk.ended.wait(10)
        running.wait_idle()
        assert told(talk.heard) == (1007, b"client: compressed data malformed")


class TestOverHttp2:
    @pytest.mark.parametrize("alpn", [("http/1.1",), ("h2", "http/1.1")], ids=["http1", "http2"])
    def test_both_ways(self, proxy: ProxyFactory, origin_ca: TestCA, alpn: tuple[str, ...]) -> None:
        running = proxy(Filtering(by_word))
        with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn), host=HOST) as origin:
            origin.settings = {8: 1}
            talk = Talk(origin, frame(FIN | TEXT, b"edit"), frame(FIN | BINARY, pattern(300_000)), frame(FIN | TEXT, b"drop"))
            connection, client = http2_client(running, origin.port)
            with connection:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"))
                number = client.open("/chat", method="CONNECT", fields=fields, end=False)
                assert client.head(number).status == 200
                client.send(number, frame(FIN | TEXT, b"drop", MASK) + frame(FIN | TEXT, b"pass", MASK))
                client.send(number, frame(FIN | CLOSE, b"\x03\xe8", MASK), end=True)
                answer = client.answer(number)
                assert answer.body == frame(FIN | TEXT, b"EDITED") + frame(FIN | BINARY, pattern(300_000))
        running.wait_idle()
        assert talk.heard == frame(FIN | TEXT, b"pass", MASK) + frame(FIN | CLOSE, b"\x03\xe8", MASK)

    @pytest.mark.parametrize("alpn", [("http/1.1",), ("h2", "http/1.1")], ids=["http1", "http2"])
    def test_pings_overtake(self, proxy: ProxyFactory, origin_ca: TestCA, alpn: tuple[str, ...]) -> None:
        running = proxy(Held())
        held, next_one = frame(FIN | TEXT, b"hold", MASK), frame(FIN | TEXT, b"next", MASK)
        ping, last = frame(FIN | PING, b"1", MASK), frame(FIN | CLOSE, b"\x03\xe8", MASK)
        with Origin(origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn), host=HOST) as origin:
            origin.settings = {8: 1}
            talk = Talk(origin)
            connection, client = http2_client(running, origin.port)
            with connection:
                while not client.h2.remote_settings.enable_connect_protocol:
                    client.read()
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"))
                number = client.open("/chat", method="CONNECT", fields=fields, end=False)
                assert client.head(number).status == 200
                client.send(number, held)
                running.handler.wait("filter_stream_chunk")
                for octet in ping:
                    client.send(number, bytes((octet,)))
                assert talk.wait(len(ping)) == ping
                # a ping that comes behind another message does not
                client.send(number, next_one)
                client.send(number, ping)
                client.send(number, last, end=True)
                running.handler.go.set()
                assert client.answer(number).ended
        running.wait_idle()
        assert talk.heard == ping + held + next_one + ping + last


class TestOpening:
    """A 101 is decided on in `on_response_head` before the WebSocket is open."""

    @staticmethod
    def deciding(decision: ResponseDecision, *, later: bool) -> Filtering:
        class Deciding(Filtering):
            def on_response_head(self, response: RawResponse) -> Any:
                self._note("on_response_head", response.status)

                async def decide() -> ResponseDecision:
                    await asyncio.sleep(0)
                    return decision

                return decide() if later else decision

        return Deciding(by_word)

    @pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
    @pytest.mark.parametrize("decision", [ResponseDecision.PASS, ResponseDecision.UNFILTERED], ids=["pass", "unfiltered"])
    def test_it_opens(self, proxy: ProxyFactory, plain_origin: Origin, decision: ResponseDecision, later: bool) -> None:
        said = frame(FIN | TEXT, b"drop") + frame(FIN | TEXT, b"pass")
        talk = Talk(plain_origin, said)
        running = proxy(self.deciding(decision, later=later))
        sent = frame(FIN | TEXT, b"drop", MASK) + frame(FIN | TEXT, b"pass", MASK)
        is_filtered = decision is ResponseDecision.PASS
        with running.tunnel(plain_origin.port) as client:
            # the first frames come before the 101 is decided on
            client.send(ask() + sent)
            assert client.read_head().status == 101
            expected = frame(FIN | TEXT, b"pass") if is_filtered else said
            assert client.read_exactly(len(expected)) == expected
            wanted = sent[len(sent) // 2 :] if is_filtered else sent
            assert talk.wait(len(wanted)) == wanted
        running.wait_idle()
        assert running.handler.of("on_response_head") == [101]
        assert len(running.handler.of("filter_stream_chunk")) == (4 if is_filtered else 0)

    @pytest.mark.parametrize("is_lost", [False, True], ids=["open", "lost"])
    def test_on_a_connection_that_was_used_before(self, proxy: ProxyFactory, plain_origin: Origin, is_lost: bool) -> None:
        """What came on it before is no part of this response, which is not complete with its 101."""
        said, go = frame(FIN | TEXT, b"pass"), threading.Event()
        waiting, is_let = threading.Event(), threading.Event()

        class Deciding(Filtering):
            async def on_response_head(self, response: RawResponse) -> ResponseDecision:
                if response.status == 101:
                    waiting.set()
                    await asyncio.to_thread(is_let.wait, 30)
                return ResponseDecision.PASS

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            connection.wait(waiting)
            if is_lost:
                connection.reset()
            else:
                connection.send(said)
            go.set()

        plain_origin.script(script, "/chat")
        running = proxy(Deciding(by_word))
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/5", HOST).status == 200
            client.send(ask())
            assert go.wait(10)
            if is_lost:
                plain_origin.wait_closed(1)
            is_let.set()
            if is_lost:
                # whether the proxy reads behind the 101, and so hears of it, before it is decided on is not said
                assert client.read_head().status in (101, 502)
                with contextlib.suppress(OSError):
                    client.read_to_end()
            else:
                assert client.read_head().status == 101
                assert client.read_exactly(len(said)) == said
        assert len(plain_origin.connections) == 1
        running.wait_idle()

    @pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
    @pytest.mark.parametrize(
        "decision",
        [ResponseDecision.block(503, b"no"), ResponseDecision.HOLD, ResponseDecision.replace(200, b"no")],
        ids=lambda made: made.kind,
    )
    def test_it_stays_shut(self, proxy: ProxyFactory, plain_origin: Origin, decision: ResponseDecision, later: bool) -> None:
        secret = b"nothing of this"
        talk = Talk(plain_origin, frame(FIN | TEXT, secret))
        running = proxy(self.deciding(decision, later=later))
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + frame(FIN | TEXT, secret, MASK))
            answer = client.read_head()
            assert answer.status != 101
            assert secret not in client.read_to_end()
        assert talk.ended.wait(30)
        assert talk.heard == b""
        running.wait_idle()
        assert running.handler.of("filter_stream_chunk") == []
