"""Server-sent events: the samples of tests/corpus/sse, an oracle written from the standard, and the bounds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.http.messages import FrameKind
from soth_mitm._dataplane.wire.sse import SseFramer
from support.feeding import cut_at, facts, facts_of_every_split, frames_of
from support.samples import Sample, read_samples


@pytest.mark.parametrize("sample", read_samples("sse"), ids=lambda sample: sample.name)
def test_sample_gives_its_events_however_it_is_cut(sample: Sample) -> None:
    block = sample.blocks["input"]
    expected = []
    for line in sample.blocks["events"].text.splitlines():
        event = {"type": "message", "id": None, "retry": None, "truncated": False, "complete": True} | json.loads(line)
        payload = event["data"].encode()
        complete = event["complete"] and not event["truncated"]
        expected.append((payload, FrameKind.SSE_DATA, event["truncated"], event["type"], event["id"], event["retry"], complete))

    budget = int(block.options.get("budget", "65536"))
    assert facts_of_every_split(lambda: SseFramer(budget), block.data) == expected


Facts = tuple[bytes, FrameKind, bool, str, str | None, int | None, bool]


def reference(stream: bytes) -> list[Facts]:
    """Interpret an event stream as the standard words it: on the whole text, line by line, without a budget."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    *lines, rest = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    # an event without its end is delivered as well, with what is there of its data
    lines += [rest] if rest.startswith(b"data:") else []
    events: list[Facts] = []
    data, event_type = b"", b""
    last_id: str | None = None
    retry: int | None = None
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                kind = event_type.decode("utf-8", "replace") or "message"
                events.append((data[:-1], FrameKind.SSE_DATA, False, kind, last_id, retry, True))
                retry = None
            data, event_type = b"", b""
        elif name == b"data":
            data += value + b"\n"
        elif name == b"event":
            event_type = value
        elif name == b"id" and b"\0" not in value:
            last_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 15:
            retry = int(value)
    if data:
        events.append((data[:-1], FrameKind.SSE_DATA, False, event_type.decode("utf-8", "replace") or "message", last_id, retry, False))
    return events


LINE_ENDS = [b"\n", b"\r", b"\r\n", b"\n\n"]
PARTS = [*LINE_ENDS, b"data", b"data:", b"data: ", b"event: ", b"id:", b"retry: ", b":", b" ", b"x", b"42", b"\0", b"\xef\xbb\xbf", b"\xc3"]


@given(st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join), st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_standard_for_any_text_and_any_split(stream: bytes, places: list[int]) -> None:
    found = [facts(frame) for frame in frames_of(SseFramer(1 << 20), cut_at(stream, places))]
    assert found == reference(stream)


@given(
    st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join),
    st.lists(st.integers(0, 200), max_size=6),
    st.integers(1, 12),
)
@settings(max_examples=200, deadline=None)
def test_a_budget_cuts_payloads_and_changes_nothing_else(stream: bytes, places: list[int], budget: int) -> None:
    found = [facts(frame) for frame in frames_of(SseFramer(budget), cut_at(stream, places))]
    assert found == [
        (data[:budget], kind, len(data) > budget, *rest, complete and len(data) <= budget)
        for data, kind, _, *rest, complete in reference(stream)
    ]


def test_the_payload_of_a_large_event_survives_reads_of_every_size() -> None:
    payload = bytes(range(32, 127)) * 5000
    stream = b"data: " + payload + b"\n\n"
    for size in (1000, 65536, len(stream)):
        frames = frames_of(SseFramer(1 << 20), [stream[at : at + size] for at in range(0, len(stream), size)])
        assert [frame.payload for frame in frames] == [payload]


def test_a_field_that_is_too_long_is_ignored_and_counted() -> None:
    stream = b"id: 1\nid: " + b"x" * 16385 + b"\nevent: " + b"y" * 16385 + b"\nretry: " + b"1" * 16 + b"\ndata: a\n\n"
    for pieces in ([stream], [stream[:9000], stream[9000:]]):
        framer = SseFramer(100)
        (frame,) = frames_of(framer, pieces)
        assert (frame.event_id, frame.event_type, frame.retry) == ("1", "message", None)
        assert framer.error_count == 3


def test_a_field_of_the_longest_length_is_taken() -> None:
    (frame,) = frames_of(SseFramer(100), [b"\xef\xbb\xbfid: " + b"x" * 16000, b"x" * 384 + b"\ndata: a\n\n"])
    assert frame.event_id == "x" * 16384


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 65530, b"x" * 65536, b":" * 65536, b"data: x\n" * 8192],
    ids=["data", "name", "comment", "lines"],
)
def test_an_endless_line_or_event_holds_no_more_than_the_budget(piece: bytes) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    framer = SseFramer(100_000)
    tracemalloc.start()
    try:
        for _ in range(200):
            assert framer.frames(piece) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 400_000


def test_a_stream_of_bare_cr_costs_time_in_proportion_to_its_length() -> None:
    # The next LF is looked for once for each feed, not once for each line: otherwise this is 10^11 steps
    framer = SseFramer(1000)
    assert len(framer.frames(b"data\r\r" * 100_000)) == 100_000


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_without_room_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="budget"):
        SseFramer(budget)
