"""A filter of a stream: what leaves is what was decided, whatever the pieces in which the stream came."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm import ChunkDecision, FrameKind, SseEvent, StreamChunk
from support.feeding import cut_at, splits
from support.filtered import Filter, settled, through

PASS, DROP, END = ChunkDecision.PASS, ChunkDecision.DROP, ChunkDecision.END
SSE, NDJSON, SEQ = "text/event-stream", "application/x-ndjson", "application/json-seq"
GRPC, WEB, TEXT = "application/grpc", "application/grpc-web", "application/grpc-web-text"
AWS = "application/vnd.amazon.eventstream"


def message(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


def aws(payload: bytes, headers: bytes = b"\x0b:event-type\7\0\5delta") -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


TRAILERS = message(b"grpc-status: 0\r\n", 0x80)
STREAMS: list[tuple[str, bytes, list[bytes]]] = [
    (SSE, b"event: a\nid: 1\ndata: x\ndata: y\n\n: ping\n\ndata:z\r\n\r\nretry: 10\n\nfoo: bar\ndata\n\n", [b"x\ny", b"z", b""]),
    (SSE, b": c\n\n\n\ndata: x\n\ndata: last", [b"x", b"last"]),
    (NDJSON, b'{"a": 1}\n\n{"b": 2}\r\n \n{"c": 3}', [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']),
    (SEQ, b'\x1e{"a":\n1}\n\x1e"b"\x1e[1]\n', [b'{"a":\n1}', b'"b"', b"[1]"]),
    (GRPC, message(b"one") + message(b"") + message(b"three"), [b"one", b"", b"three"]),
    (WEB, message(b"one") + message(b"two") + TRAILERS, [b"one", b"two"]),
    (AWS, aws(b"{}") + aws(b"") + aws(b"xyz"), [b"{}", b"", b"xyz"]),
]
KINDS = pytest.mark.parametrize(("media_type", "stream", "payloads"), STREAMS, ids=[f"{each[0]}-{len(each[1])}" for each in STREAMS])


def passes(chunk: StreamChunk) -> ChunkDecision:
    return PASS


# ---- any format


@KINDS
@pytest.mark.parametrize("observed", [False, True])
def test_what_passes_keeps_its_bytes_however_it_is_cut(media_type: str, stream: bytes, payloads: list[bytes], observed: bool) -> None:
    for pieces in splits(stream):
        made = Filter(passes, observed=observed)
        filtered = made.stream(media_type)
        for piece in pieces:
            filtered.feed(piece)
        assert filtered.finish() == stream
        assert [chunk.payload for chunk in made.asked] == payloads
        assert [chunk.sequence for chunk in made.asked] == list(range(len(payloads)))
        assert made.counted == (len(payloads), 0, 0, 0)
        assert [chunk.payload for chunk in filtered.shown] == (payloads if observed else [])


@KINDS
def test_nothing_of_what_is_dropped_leaves(media_type: str, stream: bytes, payloads: list[bytes]) -> None:
    left = {through(lambda chunk: DROP, media_type, pieces) for pieces in splits(stream)}
    assert len(left) == 1
    rest = left.pop()
    # what belongs to no frame
    assert rest in (b": ping\n\nretry: 10\n\n", b": c\n\n\n\n", b"\n \n", b"", TRAILERS)


@KINDS
def test_what_is_undecided_has_not_left(media_type: str, stream: bytes, payloads: list[bytes]) -> None:
    """Byte by byte: when the handler is asked about a frame, what has left are the frames before it, and what belongs to none."""
    seen: list[bytes] = []

    def look(chunk: StreamChunk) -> ChunkDecision:
        seen.append(filtered.out)
        return PASS

    filtered = Filter(look).stream(media_type)
    ends = []
    for place in range(len(stream)):
        before = len(seen)
        filtered.feed(stream[place : place + 1])
        ends += [place + 1] * (len(seen) - before)
    filtered.finish()
    ends += [len(stream)] * (len(seen) - len(ends))
    for payload, out, end in zip(payloads, seen, ends, strict=True):
        assert stream.startswith(out)
        # the frame, whole, is between what has left and what has come
        frame = stream[len(out) : end]
        assert payload in frame or payload.replace(b"\n", b"\ndata: ") in frame


REPLACED = {
    SSE: b"event: a\nid: 1\ndata: new\n\n: ping\n\ndata: new\r\n\r\nretry: 10\n\nfoo: bar\ndata: new\n\n",
    NDJSON: b"new\n\nnew\r\n \nnew",
    SEQ: b"\x1enew\n\x1enew\n\x1enew\n",
    GRPC: message(b"new") * 3,
    WEB: message(b"new") * 2 + TRAILERS,
    AWS: aws(b"new") * 3,
}


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("media_type", REPLACED)
def test_what_is_replaced_is_framed_as_its_original(media_type: str, observed: bool) -> None:
    stream, payloads = next((stream, payloads) for kind, stream, payloads in STREAMS if kind == media_type)
    for pieces in splits(stream):
        made = Filter(lambda chunk: ChunkDecision.replace("new"), observed=observed)
        filtered = made.stream(media_type)
        for piece in pieces:
            filtered.feed(piece)
        assert filtered.finish() == REPLACED[media_type]
        assert made.counted == (0, 0, len(payloads), 0)
        if observed:
            assert [(chunk.payload, chunk.replaced, chunk.sequence) for chunk in filtered.shown] == [
                (b"new", True, number) for number in range(len(payloads))
            ]
            assert [chunk.event_type for chunk in filtered.shown] == [chunk.event_type for chunk in made.asked]


@KINDS
def test_end_ends_behind_what_was_relayed(media_type: str, stream: bytes, payloads: list[bytes]) -> None:
    out = set()
    for pieces in splits(stream):
        count = itertools.count()
        made = Filter(lambda chunk, count=count: END if next(count) == 1 else PASS)  # type: ignore[misc]
        filtered = made.stream(media_type)
        for piece in pieces:
            if filtered.ending == "goes_on":
                filtered.feed(piece)
        if filtered.ending == "goes_on":
            filtered.finish()
        assert (filtered.ending, filtered.error, filtered.has_left) == ("ends", None, False)
        assert made.counted == (1, 0, 0, 1)
        assert [chunk.payload for chunk in made.asked] == payloads[:2]
        out.add(filtered.out)
    assert len(out) == 1
    assert stream.startswith(out.pop())


@KINDS
def test_a_hook_that_suspends_holds_its_frame(media_type: str, stream: bytes, payloads: list[bytes]) -> None:
    async def run(pieces: list[bytes]) -> None:
        gate = asyncio.Event()

        async def decide(chunk: StreamChunk) -> ChunkDecision:
            before.append(filtered.out)
            await gate.wait()
            after.append(filtered.out)
            return PASS

        before: list[bytes] = []
        after: list[bytes] = []
        made = Filter(decide, loop=asyncio.get_running_loop(), observed=True)
        filtered = made.stream(media_type)
        for piece in pieces:
            while filtered.is_waiting:
                gate.set()
                await settled(filtered)
                gate.clear()
            filtered.feed(piece)
            if filtered.is_waiting:
                assert filtered.waits == 1 and filtered.counted > 0
        gate.set()
        await settled(filtered)
        filtered.finish()
        await settled(filtered)
        assert filtered.out == stream and filtered.has_left and filtered.counted == 0
        assert before == after
        assert [chunk.payload for chunk in filtered.shown] == payloads

    for pieces in splits(stream):
        asyncio.run(run(pieces))


@pytest.mark.parametrize("media_type", [SSE, NDJSON, GRPC])
def test_a_stage_behind_the_filter_gets_what_left_it(media_type: str) -> None:
    stream = next(stream for kind, stream, _ in STREAMS if kind == media_type)
    for pieces in splits(stream):
        filtered = Filter(passes).stream(media_type, upper=True)
        for piece in pieces:
            filtered.feed(piece)
        assert filtered.finish() == stream.upper() and filtered.has_left and filtered.counted == 0


# ---- what goes wrong in the handler


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize(
    ("answer", "block", "ending", "counted", "failures"),
    [
        (ValueError("on purpose"), True, "ends", (0, 0, 0, 1), 1),
        (ValueError("on purpose"), False, "goes_on", (1, 0, 0, 0), 1),
        (asyncio.CancelledError(), True, "ends", (0, 0, 0, 1), 1),
        (KeyboardInterrupt(), False, "aborts", (0, 0, 0, 1), 1),
        (None, True, "ends", (0, 0, 0, 1), 1),
        (None, False, "ends", (0, 0, 0, 1), 1),
        (True, False, "ends", (0, 0, 0, 1), 1),
        (b"text", False, "ends", (0, 0, 0, 1), 1),
        (lambda: ChunkDecision.replace(), False, "ends", (0, 0, 0, 1), 1),
        (lambda: SseEvent("x", id="a\n"), False, "ends", (0, 0, 0, 1), 1),
        (ChunkDecision.replace("a\nb"), False, "ends", (0, 0, 0, 1), 1),
        (ChunkDecision.replace(SseEvent("a")), False, "ends", (0, 0, 0, 1), 1),
    ],
    ids=str,
)
def test_a_failing_hook(answer: Any, block: bool, ending: str, counted: tuple[int, ...], failures: int, suspends: bool) -> None:
    def fail() -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer

    async def later(chunk: StreamChunk) -> Any:
        await asyncio.sleep(0)
        return fail()

    async def run() -> None:
        made = Filter(later if suspends else lambda chunk: fail(), loop=asyncio.get_running_loop(), block=block)
        filtered = made.stream(NDJSON)
        filtered.feed(b"one\n")
        await settled(filtered)
        assert (filtered.ending, made.counted, made.counts.failures) == (ending, counted, failures)
        assert filtered.out == (b"one\n" if ending == "goes_on" else b"")
        assert (filtered.error is None) == (ending == "goes_on")
        assert len(made.reports) == failures

    asyncio.run(run())


@pytest.mark.parametrize(("block", "ending"), [(True, "ends"), (False, "goes_on")])
def test_a_hook_that_is_late(block: bool, ending: str) -> None:
    async def decide(chunk: StreamChunk) -> ChunkDecision:
        await asyncio.Event().wait()
        return END

    async def run() -> None:
        made = Filter(decide, loop=asyncio.get_running_loop(), block=block, seconds=0.02)
        filtered = made.stream(SSE)
        filtered.feed(b"data: a\n\n")
        assert filtered.is_waiting
        await settled(filtered)
        assert (filtered.ending, made.counts.timeouts) == (ending, 1)
        assert filtered.out == (b"" if block else b"data: a\n\n")
        # the time that it took is counted; a loop's clock may be a little early
        assert made.counters.filter_times.seconds >= 0.01 and sum(made.counters.filter_times.counts) == 1

    asyncio.run(run())


def test_recover_from_panics_off_ends_the_flow() -> None:
    made = Filter(lambda chunk: 1 / 0, recover=False, block=False)
    filtered = made.stream(SSE)
    filtered.feed(b"data: a\n\n")
    assert (filtered.ending, type(filtered.error), filtered.out) == ("aborts", ZeroDivisionError, b"")


def test_a_closed_filter_gives_its_hook_up() -> None:
    async def run() -> None:
        ended: list[str] = []

        async def decide(chunk: StreamChunk) -> ChunkDecision:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return PASS

        made = Filter(decide, loop=asyncio.get_running_loop())
        filtered = made.stream(SSE)
        filtered.feed(b"data: a\n\ndata: b\n\n")
        filtered.close()
        await settled(filtered)
        assert (filtered.out, ended, len(made.asked), made.counts.failures) == (b"", ["cancelled"], 1, 0)

    asyncio.run(run())


def test_a_plain_function_costs_no_task() -> None:
    """There is no loop to make one on."""
    assert through(passes, SSE, [b"data: a\n\n" * 1000]) == b"data: a\n\n" * 1000


def test_a_turn_of_the_loop_is_bounded() -> None:
    asked: list[int] = []
    made = Filter(lambda chunk: asked.append(1) or PASS)
    filtered = made.stream(NDJSON)
    filtered.feed(b"1\n" * 10_000)
    assert len(asked) == 10_000 and filtered.out == b"1\n" * 10_000


# ---- frames that are too long


LONG = [
    (SSE, b"data: " + b"x" * 300_000 + b"\n", b"\n"),
    (SSE, b"data: x\nfoo: " + b"y" * 300_000 + b"\n", b"\n"),
    (SSE, b"data: x\n" + b": y\n" * 60_000, b"\n"),
    (NDJSON, b"x" * 300_000, b"\n"),
    (SEQ, b'\x1e"' + b"x" * 300_000, b'"\n'),
    (GRPC, message(b"x" * 300_000)[:-1], b"x"),
    (AWS, aws(b"x" * 300_000)[:-1], aws(b"x" * 300_000)[-1:]),
]
LONG_FRAMES = pytest.mark.parametrize(("media_type", "begin", "end"), LONG, ids=[f"{each[0]}-{each[1][:9]!r}" for each in LONG])


def of(media_type: str) -> tuple[bytes, bytes]:
    """Return a short frame of the format, and how it begins."""
    short = {SSE: b"data: s\n\n", NDJSON: b"s\n", SEQ: b'\x1e"s"\n', GRPC: message(b"s"), AWS: aws(b"s")}[media_type]
    return short, short


@LONG_FRAMES
@pytest.mark.parametrize("size", [1, 100_000, 1 << 20])
@pytest.mark.parametrize("decision", [PASS, DROP])
def test_the_rest_of_a_frame_that_is_too_long_goes_its_way(
    media_type: str, begin: bytes, end: bytes, size: int, decision: ChunkDecision
) -> None:
    if size == 1 and media_type != NDJSON:
        size = 9_001
    short, _ = of(media_type)
    made = Filter(lambda chunk: decision if chunk.truncated else PASS, body_limit=100_000)
    filtered = made.stream(media_type)
    whole = short + begin + end + short
    held = 0
    for at in range(0, len(whole), size):
        filtered.feed(whole[at : at + size])
        held = max(held, filtered.counted)
    assert filtered.finish() == (whole if decision is PASS else short + short)
    if size < 100_000:
        assert held < 100_000 * 2 + 65536 * 2 + 20_000
    truncated = [chunk for chunk in made.asked if chunk.truncated]
    assert len(truncated) == 1 and not truncated[0].complete and len(truncated[0].payload) <= 100_000
    assert len(made.asked) == 3


@LONG_FRAMES
def test_a_frame_that_is_too_long_cannot_be_replaced(media_type: str, begin: bytes, end: bytes) -> None:
    made = Filter(lambda chunk: ChunkDecision.replace("new"), body_limit=100_000, block=False)
    filtered = made.stream(media_type)
    filtered.feed(begin + end)
    assert (filtered.ending, filtered.out, made.counted) == ("ends", b"", (0, 0, 0, 1))


@LONG_FRAMES
@pytest.mark.parametrize("flag", ["refuse_incomplete", "reject_overflow"])
def test_a_frame_that_is_too_long_ends_the_stream_where_it_is_to_be_refused(media_type: str, begin: bytes, end: bytes, flag: str) -> None:
    made = Filter(passes, body_limit=100_000, block=False, **{flag: True})
    filtered = made.stream(media_type)
    short, _ = of(media_type)
    filtered.feed(short)
    filtered.feed(begin + end)
    assert (filtered.ending, filtered.out, len(made.asked), made.counted) == ("ends", short, 1, (1, 0, 0, 1))
    assert "body.max_size_bytes" in str(filtered.error)


def test_a_payload_of_just_the_limit_is_whole() -> None:
    for media_type, stream in ((SSE, b"data: " + b"x" * 1000 + b"\n\n"), (NDJSON, b"x" * 1000 + b"\n"), (GRPC, message(b"x" * 1000))):
        made = Filter(passes, body_limit=1000, refuse_incomplete=True)
        filtered = made.stream(media_type)
        assert filtered.feed(stream) == stream
        assert [(len(chunk.payload), chunk.truncated) for chunk in made.asked] == [(1000, False)]


LONG = b"a" * 30_000


@pytest.mark.parametrize(
    ("media_type", "begin", "shown", "end"),
    [
        (SSE, b"data: " + LONG + b"\ndata: de", LONG + b"\nde", b"f\n\n"),
        (NDJSON, LONG, LONG, b"d\n"),
        (SEQ, b'\x1e"' + LONG, b'"' + LONG, b'"\n'),
        (GRPC, message(LONG + b"def")[:-3], LONG, b"def"),
        (AWS, aws(LONG + b"def")[:-7], LONG, aws(LONG + b"def")[-7:]),
    ],
)
def test_where_memory_is_short_a_frame_is_shown_as_far_as_it_has_come(media_type: str, begin: bytes, shown: bytes, end: bytes) -> None:
    made = Filter(passes)
    filtered = made.stream(media_type)
    made.arena.budget.set_limit(1)
    assert filtered.feed(begin) == b""
    filtered.wait_too_long()
    assert filtered.feed(end[:1]) == begin + end[:1]
    # a little is held however short it is, or there would be nothing to decide on
    short, _ = of(media_type)
    assert filtered.feed(end[1:] + short) == begin + end + short
    assert made.asked[0].truncated and made.asked[0].payload.startswith(shown) and not made.asked[1].truncated


# ---- codings, and what cannot be shown


@pytest.mark.parametrize("media_type", [SSE, NDJSON])
def test_content_codings_are_removed(media_type: str) -> None:
    stream = next(stream for kind, stream, _ in STREAMS if kind == media_type)
    coded = gzip.compress(stream)
    for pieces in [[coded], [coded[at : at + 1] for at in range(len(coded))]]:
        filtered = Filter(passes).stream(media_type, Content_Encoding="gzip")
        for piece in pieces:
            filtered.feed(piece)
        assert filtered.finish() == stream and filtered.error is None


def test_a_coding_that_is_cut_or_wrong_is_an_error() -> None:
    coded = gzip.compress(b"data: a\n\ndata: b\n\n" * 100)
    for wrong in (coded[:-12], coded[:20] + b"\xff\xff\xff" + coded[23:]):
        filtered = Filter(passes).stream(SSE, Content_Encoding="gzip")
        filtered.feed(wrong)
        filtered.finish()
        assert filtered.error and not filtered.has_left
    assert Filter(passes).stream(SSE, Content_Encoding="lzma").error == "the content coding 'lzma' is not known"


def test_a_compressed_message_passes_as_it_came_and_is_replaced_uncompressed() -> None:
    stream = message(gzip.compress(b"one"), 1) + message(b"two")
    made = Filter(lambda chunk: PASS if chunk.payload == b"two" else ChunkDecision.replace(b"x", b"yz"))
    filtered = made.stream(GRPC, grpc_encoding="gzip")
    assert filtered.feed(stream) == message(b"x") + message(b"yz") + message(b"two")
    assert through_grpc(stream) == stream


def through_grpc(stream: bytes) -> bytes:
    filtered = Filter(passes).stream(GRPC, grpc_encoding="gzip")
    out: bytes = filtered.feed(stream)
    return out


def test_text_of_grpc_web_is_decoded_and_encoded_again() -> None:
    content = message(b"one") + message(b"two") + TRAILERS
    stream = base64.b64encode(content[:7]) + base64.b64encode(content[7:])
    for pieces in splits(stream):
        made = Filter(lambda chunk: PASS if chunk.payload == b"one" else ChunkDecision.replace(b"2"))
        filtered = made.stream(TEXT)
        for piece in pieces:
            filtered.feed(piece)
        out = filtered.finish()
        assert b"".join(map(base64.b64decode, pieces_of_text(out))) == message(b"one") + message(b"2") + TRAILERS
        assert filtered.trailers == b"grpc-status: 0\r\n"


def pieces_of_text(text: bytes) -> list[bytes]:
    """Cut base64 behind each group that is padded."""
    pieces, begin = [], 0
    for at in range(0, len(text), 4):
        if text[at + 3 : at + 4] == b"=":
            pieces.append(text[begin : at + 4])
            begin = at + 4
    return [*pieces, text[begin:]]


@pytest.mark.parametrize(
    ("media_type", "wrong"),
    [
        (GRPC, b"\x02\0\0\0\1x"),
        (GRPC, message(b"x", 1)),
        (GRPC, message(b"x")[:-1]),
        (WEB, TRAILERS + message(b"x")),
        (AWS, aws(b"x")[:-1] + b"\0"),
        (AWS, b"\0" * 20),
        (AWS, aws(b"x")[:-1]),
        (SSE, b"event: " + b"x" * 20_000 + b"\ndata: a\n\n"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_cannot_be_shown_cuts_the_stream(media_type: str, wrong: bytes) -> None:
    good = {GRPC: message(b"good"), WEB: message(b"good"), AWS: aws(b"good"), SSE: b"data: good\n\n"}[media_type]
    for size in (1, 1 << 20):
        made = Filter(passes)
        filtered = made.stream(media_type)
        stream = good + wrong + good
        if wrong in (message(b"x")[:-1], aws(b"x")[:-1]):
            stream = good + wrong
        for at in range(0, len(stream), size):
            if filtered.ending == "goes_on":
                filtered.feed(stream[at : at + size])
        if filtered.ending == "goes_on":
            filtered.finish()
        assert filtered.ending == "cuts"
        rest = filtered.out.removeprefix(good)
        assert rest in (b"", TRAILERS) and filtered.out.startswith(good)
        assert made.counters.framing_errors == 1


# ---- server-sent events


def lines_read(stream: bytes) -> list[tuple[str, bytes]]:
    """Read events as many clients do: lines end with LF, or CRLF, and a CR elsewhere is a byte like any other."""
    events, data, kind = [], [], "message"
    for line in stream.split(b"\n")[:-1]:
        line = line.removesuffix(b"\r")
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                events.append((kind, b"\n".join(data)))
            data, kind = [], "message"
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode("utf-8", "replace") or "message"
    return events


def standard_read(stream: bytes) -> list[tuple[str, bytes]]:
    """Read events as the standard says: CR, LF and CRLF end a line; a byte order mark at the very beginning is skipped."""
    return lines_read(stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


PARTS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"data", b"data:", b"data: ", b"event: ", b"id:", b"retry: ", b":", b" ", b"x", b"42"),
    *(b"\0", b"\xef\xbb\xbf", b"\xc3", b"\x0b", b"\xe2\x80\xa8", b"data: x\n\n", b": c\n", b"event: e\n"),
]
UNCLEAR = dict.fromkeys((0, 0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029), "\ufffd")
STREAM = st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join)
PLACES = st.lists(st.integers(0, 200), max_size=6)


@given(STREAM, PLACES)
@settings(max_examples=400, deadline=None)
def test_readers_see_what_was_decided(stream: bytes, places: list[int]) -> None:
    """Two readers that disagree about lines find the events that the handler let pass, in what leaves."""
    made = Filter(passes)
    filtered = made.stream(SSE)
    for piece in cut_at(stream, places):
        filtered.feed(piece)
    out = filtered.finish()
    decided = [(chunk.event_type, chunk.payload) for chunk in made.asked if chunk.complete]
    assert decided == [event for event in standard_read(stream) if event is not None]
    # but for what ends a line or a text to some, in the type of an event
    clear = [(kind.translate(UNCLEAR), data) for kind, data in decided]
    assert standard_read(out) == clear
    assert lines_read(out) == clear
    # and the pieces decide nothing
    assert out == through(passes, SSE, [stream])


@given(STREAM.filter(lambda stream: not any(odd in stream for odd in (b"\r", b"\0", b"\xef", b"\x0b", b"\xe2"))), PLACES)
@settings(max_examples=300, deadline=None)
def test_a_stream_without_oddities_passes_as_it_came(stream: bytes, places: list[int]) -> None:
    assert through(passes, SSE, cut_at(stream, places)) == stream


@given(STREAM, PLACES, st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_any_decisions(stream: bytes, places: list[int], seed: int) -> None:
    """What is left of the events, in order, is what the decisions say."""
    options = [PASS, DROP, ChunkDecision.replace("r\rs"), ChunkDecision.replace(SseEvent("e", event="k"), b"f")]
    expected: list[bytes] = []

    def decide(chunk: StreamChunk) -> ChunkDecision:
        decision = options[(seed + zlib.crc32(chunk.payload)) % 4]
        if decision is PASS:
            expected.extend([chunk.payload] if chunk.complete else [])
        elif decision.kind == "replace":
            expected.extend([b"r\ns"] if len(decision.payloads) == 1 else [b"e", b"f"])
        return decision

    out = through(decide, SSE, cut_at(stream, places))
    assert [data for _, data in standard_read(out)] == expected
    assert [data for _, data in lines_read(out)] == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # a lone CR: others would see one line
        (b"data: a\rdata: b\n\n", b"data: a\ndata: b\n\n"),
        (b": x\rdata: b\n\n", b": x\ndata: b\n\n"),
        (b"event: a\rdata: b\r\r", b"event: a\ndata: b\n\n"),
        (b"data: a\n\r", b"data: a\n\n"),
        (b"event: a\r\n\r", b"event: a\n\n"),
        # a byte order mark
        (b"\xef\xbb\xbfdata: a\n\n", b"data: a\n\n"),
        (b"data: a\n\xef\xbb\xbfdata: b\n\n", b"data: a\n\n"),
        (b"data: a\xef\xbb\xbf\n\n", b"data: a\xef\xbb\xbf\n\n"),
        # NUL
        (b"id: a\0b\ndata: b\n\n", b"data: b\n\n"),
        (b"data: a\0b\n\n", b"data: a\0b\n\n"),
        (b"event: a\0b\ndata: b\n\n", b"event: a\xef\xbf\xbdb\ndata: b\n\n"),
        # what ends a line in Unicode hides one in what is not shown
        (b": x\x0bdata: evil\n\ndata: a\n\n", b"\ndata: a\n\n"),
        (b"foo: x\xe2\x80\xa8data: evil\ndata: a\n\n", b"data: a\n\n"),
        (b"event: x\xc2\x85data: evil\ndata: a\n\n", b"event: x\xef\xbf\xbddata: evil\ndata: a\n\n"),
        (b"data: x\xe2\x80\xa8y\n\n", b"data: x\xe2\x80\xa8y\n\n"),
    ],
)
def test_an_event_that_is_read_in_several_ways_leaves_in_one(stream: bytes, expected: bytes) -> None:
    for pieces in splits(stream):
        assert through(passes, SSE, pieces) == expected


def test_an_event_that_ends_with_cr_waits_for_the_byte_behind_it() -> None:
    """An LF there belongs to it. Nothing else would leave the same bytes however they are cut."""
    filtered = Filter(passes).stream(SSE)
    assert filtered.feed(b"data: a\r\n\r") == b""
    assert filtered.feed(b"\n") == b"data: a\r\n\r\n"
    assert filtered.feed(b"data: b\r\n\r") == b"data: a\r\n\r\n"
    assert filtered.feed(b"data: c") == b"data: a\r\n\r\ndata: b\n\n"


def test_comments_pass_unheld() -> None:
    filtered = Filter(passes).stream(SSE)
    assert filtered.feed(b": ping\n") == b": ping\n"
    assert filtered.feed(b"\nevent: a\n") == b": ping\n\n"
    assert filtered.feed(b": inside\n") == b": ping\n\n"
    assert filtered.feed(b"\n") == b": ping\n\nevent: a\n: inside\n\n"


@pytest.mark.parametrize(
    ("stream", "payloads", "expected"),
    [
        (b"id: 1\ndata: a\nevent: e\ndata: b\n: c\n\n", ["x"], b"id: 1\ndata: x\nevent: e\n: c\n\n"),
        (b"id: 1\r\ndata:a\r\nevent: e\r\n\r\n", ["x\ny"], b"id: 1\r\ndata: x\r\ndata: y\r\nevent: e\r\n\r\n"),
        (b"event: e\ndata: a\n\n", ["x", "y"], b"event: e\ndata: x\n\ndata: y\n\n"),
        (b"event: e\ndata: a\n\n", [SseEvent("x", event="f", id="7", retry=3), "y"], b"event: f\nid: 7\nretry: 3\ndata: x\n\ndata: y\n\n"),
        (b"event: e\ndata: a\n\n", ["x", SseEvent("z\r\nz")], b"event: e\ndata: x\n\ndata: z\ndata: z\n\n"),
        (b"event: e\rfoo: b\rdata: a\r\r", ["x\ry"], b"event: e\ndata: x\ndata: y\n\n"),
        (b"data: a\n\n", [""], b"data: \n\n"),
        (b"id: 3\ndata: a", ["x"], b"id: 3\ndata: x\n\n"),
        (b"data: a\nid: 3", ["x", "y"], b"data: x\nid: 3\n\ndata: y\n\n"),
    ],
)
def test_replaced_events_keep_their_other_lines(stream: bytes, payloads: list[Any], expected: bytes) -> None:
    for pieces in splits(stream):
        assert through(lambda chunk: ChunkDecision.replace(*payloads), SSE, pieces) == expected


def test_what_was_sent_is_shown() -> None:
    """With the types and ids that a client sees, numbered anew; what was dropped is not there."""
    stream = b"event: e\nid: 1\nretry: 5\ndata: a\n\ndata: drop\n\ndata: c\n\n"
    decisions = iter([ChunkDecision.replace("x", "y", SseEvent("z", event="f", id="9")), DROP, PASS])
    made = Filter(lambda chunk: next(decisions), observed=True)
    filtered = made.stream(SSE)
    filtered.feed(stream)
    assert [(c.payload, c.event_type, c.event_id, c.retry, c.replaced, c.sequence) for c in filtered.shown] == [
        (b"x", "e", "1", 5, True, 0),
        (b"y", "message", "1", None, True, 1),
        (b"z", "f", "9", None, True, 2),
        (b"c", "message", "1", None, False, 3),
    ]
    assert [chunk.sequence for chunk in made.asked] == [0, 1, 2]
    assert made.asked[2] is not filtered.shown[3]


def test_each_is_shown_when_it_has_left_and_before_the_next_is_asked_about() -> None:
    order: list[str] = []
    made = Filter(lambda chunk: order.append(f"ask {chunk.text} {len(filtered.shown)}") or PASS, observed=True)
    filtered = made.stream(SSE)
    filtered.feed(b"data: a\n\ndata: b\n\ndata: c\n\n")
    assert order == ["ask a 0", "ask b 1", "ask c 2"]
    assert filtered.shown_behind == [9, 18, 27]


# ---- lines, messages


@pytest.mark.parametrize(
    ("media_type", "stream", "payloads", "expected"),
    [
        (NDJSON, b"a\nb", ["1", "2"], b"1\n2\n1\n2"),
        (NDJSON, b"a\r\n", ["1", "2"], b"1\r\n2\r\n"),
        (SEQ, b"\x1ea\n", ["1", '{"x":\n2}'], b'\x1e1\n\x1e{"x":\n2}\n'),
        (GRPC, message(b"a"), [b"", b"12"], message(b"") + message(b"12")),
        (AWS, aws(b"a"), [b"1", b"2"], aws(b"1") + aws(b"2")),
    ],
)
def test_several_payloads(media_type: str, stream: bytes, payloads: list[Any], expected: bytes) -> None:
    assert through(lambda chunk: ChunkDecision.replace(*payloads), media_type, [stream]) == expected


@pytest.mark.parametrize(
    ("media_type", "payload", "why"),
    [
        (NDJSON, "a\nb", "no line feed"),
        (NDJSON, " ", "DROP leaves it out"),
        (SEQ, "\x1e1", "no RS"),
        (SEQ, "\n", "DROP leaves it out"),
        (NDJSON, SseEvent("a"), "an SseEvent cannot be a line of NDJSON"),
        (SEQ, SseEvent("a"), "cannot be a text of"),
        (GRPC, SseEvent("a"), "cannot be a message of gRPC"),
        (AWS, SseEvent("a"), "cannot be a message of AWS"),
    ],
)
def test_payloads_that_cannot_be_frames(media_type: str, payload: Any, why: str) -> None:
    short, _ = of(media_type)
    made = Filter(lambda chunk: ChunkDecision.replace("ok", payload), block=False)
    filtered = made.stream(media_type)
    filtered.feed(short)
    assert (filtered.ending, filtered.out, made.counted) == ("ends", b"", (0, 0, 0, 1))
    assert why in str(filtered.error) and made.reports == [filtered.error]


@given(
    st.lists(st.binary(max_size=40), max_size=8),
    PLACES,
    st.integers(0, 4),
    st.sampled_from([NDJSON, GRPC, AWS]),
)
@settings(max_examples=300, deadline=None)
def test_any_decisions_on_messages(payloads: list[bytes], places: list[int], seed: int, media_type: str) -> None:
    frame: Callable[[bytes], bytes] = {NDJSON: lambda payload: payload + b"\n", GRPC: message, AWS: aws}[media_type]
    if media_type == NDJSON:
        payloads = [json.dumps(list(payload)).encode() for payload in payloads]
    options = [PASS, DROP, ChunkDecision.replace("1"), ChunkDecision.replace("2", "3")]

    def choose(payload: bytes) -> ChunkDecision:
        return options[(seed + zlib.crc32(payload)) % 4]

    expected = b""
    for payload in payloads:
        decision = choose(payload)
        sent = [payload] if decision is PASS else [] if decision is DROP else [bytes(each) for each in decision.payloads]  # type: ignore[arg-type]
        expected += b"".join(map(frame, sent))
    stream = b"".join(map(frame, payloads))
    assert through(lambda chunk: choose(chunk.payload), media_type, cut_at(stream, places)) == expected


def test_a_split_address_is_redacted_by_drop_and_replace() -> None:
    """A value that is split over events: hold the first half back, then send both."""
    held: list[str] = []

    def redact(chunk: StreamChunk) -> ChunkDecision:
        text = "".join(held) + chunk.text
        held.clear()
        if text.endswith(("ann@ex", "ann@")):
            held.append(text)
            return DROP
        if "ann@example.org" in text:
            return ChunkDecision.replace(text.partition("ann@")[0], "[redacted]" + text.partition(".org")[2])
        return PASS if text == chunk.text else ChunkDecision.replace(text)

    out = through(redact, SSE, [b"data: mail \n\ndata: to ann@ex\n\ndata: ample.org now\n\ndata: bye\n\n"])
    assert [data for _, data in lines_read(out)] == [b"mail ", b"to ", b"[redacted] now", b"bye"]


def test_kinds_are_those_of_frames() -> None:
    """The data plane has them as bits, in this order."""
    assert [str(kind) for kind in FrameKind][:6] == [
        *("sse_data", "ndjson_line", "grpc_message", "eventstream_message", "websocket_text", "websocket_binary"),
    ]
