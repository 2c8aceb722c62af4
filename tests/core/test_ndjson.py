"""Newline-delimited JSON: lines, blanks, the last line, the budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.http.messages import FrameKind
from soth_mitm._dataplane.wire.ndjson import NdjsonFramer
from support.feeding import cut_at, facts, facts_of_every_split, frames_of

NDJSON = FrameKind.NDJSON_LINE


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"", []),
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b"1\n2", [b"1", b"2"]),
        (b"1\n2\r", [b"1", b"2"]),
        (b"\n\r\n \t \n1\n\n", [b"1"]),
        (b"1\n  ", [b"1"]),
        (b" 1 \n", [b" 1 "]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"not json\n\xff\0\n", [b"not json", b"\xff\0"]),
    ],
)
def test_lines(stream: bytes, lines: list[bytes]) -> None:
    found = facts_of_every_split(lambda: NdjsonFramer(1000), stream) if stream else []
    assert found == [(line, NDJSON, False, None, None, None, True) for line in lines]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"12345\n", [(b"12345", False)]),
        (b"12345\r\n", [(b"12345", False)]),
        (b"123456\n7\n", [(b"12345", True), (b"7", False)]),
        (b"12345\r\r\n", [(b"12345", True)]),
        (b"123456\r\n", [(b"12345", True)]),
        (b"1234567890\r\n7", [(b"12345", True), (b"7", False)]),
        (b"1234567890", [(b"12345", True)]),
        (b"          \n", []),
    ],
)
def test_a_line_over_the_budget_is_cut_and_marked(stream: bytes, expected: list[tuple[bytes, bool]]) -> None:
    found = facts_of_every_split(lambda: NdjsonFramer(5), stream)
    assert [(payload, truncated) for payload, _, truncated, *_ in found] == expected


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b" ", b"{}", b"abc"]), max_size=40).map(b"".join),
    st.lists(st.integers(0, 100), max_size=6),
    st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_any_split_gives_the_same_lines(stream: bytes, places: list[int], budget: int) -> None:
    whole = [facts(frame) for frame in frames_of(NdjsonFramer(budget), [stream])]
    assert [facts(frame) for frame in frames_of(NdjsonFramer(budget), cut_at(stream, places))] == whole
    if len(stream) <= budget:
        assert [frame[0] for frame in whole] == [line.removesuffix(b"\r") for line in stream.split(b"\n") if line.strip(b" \t\r")]


def test_an_endless_line_holds_no_more_than_the_budget() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    framer = NdjsonFramer(100_000)
    tracemalloc.start()
    try:
        for _ in range(200):
            assert framer.frames(b"x" * 65536) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300_000
    (frame,) = framer.last_frames()
    assert frame.truncated and len(frame.payload) == 100_000
