"""gRPC messages out of the bytes of a call."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.http.messages import FrameKind
from soth_mitm._dataplane.wire.grpc import GrpcFramer
from support.feeding import cut_at, facts_of_every_split, frames_of


def message(payload: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(payload)) + payload


def payloads(framer_budget: int, stream: bytes, encoding: bytes | None = None) -> list[tuple[object, object]]:
    found = facts_of_every_split(lambda: GrpcFramer(framer_budget, encoding), stream)
    assert all(kind is FrameKind.GRPC_MESSAGE for _, kind, *_ in found)
    return [(payload, truncated) for payload, _, truncated, *_ in found]


def test_messages_are_put_together_whatever_the_split() -> None:
    stream = message(b"one") + message(b"") + message(b"three" * 3)
    assert payloads(100, stream) == [(b"one", False), (b"", False), (b"three" * 3, False)]


def test_a_message_of_exactly_the_budget_is_whole_and_a_longer_one_is_cut() -> None:
    stream = message(b"12345") + message(b"1234567") + message(b"next")
    assert payloads(5, stream) == [(b"12345", False), (b"12345", True), (b"next", False)]


@pytest.mark.parametrize(("encoding", "encode"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_the_compression_flag_is_honoured_message_by_message(encoding: bytes, encode: object) -> None:
    assert callable(encode)
    stream = message(encode(b"packed"), 1) + message(b"plain") + message(b"", 1)
    assert payloads(100, stream, encoding) == [(b"packed", False), (b"plain", False), (b"", False)]


def test_a_compressed_message_whose_content_is_over_the_budget_is_cut() -> None:
    stream = message(gzip.compress(b"x" * 1000), 1) + message(b"next")
    assert payloads(100, stream, b"gzip") == [(b"x" * 100, True), (b"next", False)]


def test_what_is_there_of_a_compressed_message_over_the_budget_is_decoded() -> None:
    content = bytes(range(256)) * 4
    stored = zlib.compressobj(level=0, wbits=31)
    packed = stored.compress(content) + stored.flush()
    ((payload, truncated),) = payloads(200, message(packed, 1), b"gzip")
    assert truncated and isinstance(payload, bytes) and payload and content.startswith(payload)


@pytest.mark.parametrize("encoding", [None, b"identity", b"snappy", b"gzip"])
def test_a_compressed_message_that_cannot_be_decoded_is_counted_and_the_next_one_delivered(encoding: bytes | None) -> None:
    framer = GrpcFramer(100, encoding)
    frames = frames_of(framer, [message(b"not compressed", 1) + message(b"next")])
    assert [frame.payload for frame in frames] == [b"next"]
    assert framer.error_count == 1 and not framer.failed


@pytest.mark.parametrize("flag", [2, 0x80, 0xFF])
def test_an_unknown_flag_stops_framing(flag: int) -> None:
    assert payloads(100, message(b"one") + message(b"two", flag) + message(b"three")) == [(b"one", False)]
    framer = GrpcFramer(100)
    framer.frames(bytes([flag]))
    assert framer.failed and framer.error_count == 1
    assert framer.frames(message(b"one")) == []


@pytest.mark.parametrize("cut", [b"\0", b"\0\0\0\0\5", b"\0\0\0\0\5four", message(b"x" * 200)[:-1]])
def test_a_message_that_the_end_cuts_is_counted_as_an_error(cut: bytes) -> None:
    framer = GrpcFramer(100)
    delivered = frames_of(framer, [message(b"one"), cut])
    assert [frame.payload for frame in delivered][0] == b"one"
    assert framer.error_count == 1


def test_a_huge_length_costs_no_memory() -> None:
    framer = GrpcFramer(100)
    (frame,) = framer.frames(b"\0\xff\xff\xff\xff" + b"x" * 1000)
    assert frame.truncated and frame.payload == b"x" * 100
    assert framer.frames(b"\0" * 1000) == []


@given(st.lists(st.binary(max_size=30), max_size=8), st.lists(st.integers(0, 300), max_size=8), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_any_messages_any_split_any_budget(contents: list[bytes], places: list[int], budget: int) -> None:
    stream = b"".join(message(content) for content in contents)
    frames = frames_of(GrpcFramer(budget), cut_at(stream, places))
    assert [(frame.payload, frame.truncated) for frame in frames] == [(content[:budget], len(content) > budget) for content in contents]


def test_the_encoding_may_be_named() -> None:
    assert GrpcFramer(budget=7, encoding=b"gzip").budget == 7
