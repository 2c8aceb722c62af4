"""Content framed in chunks: our own reader and others find in it what was put in."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.feed import Reading, read_message, ways

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TRAILERS = [b"", b"A: 1\r\n", b"A: 1\r\nb:  2\t\r\n"]


@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 17, 255, 256, 4095, 4096, 65535, 65536, 1 << 20])
def test_the_size_is_in_lower_case_hex(made_bytes: Any, size: int) -> None:
    data = bytes(size)
    assert made_bytes.encode_chunk(data) == b"%x\r\n%b\r\n" % (size, data)


def test_no_data_is_no_chunk(made_bytes: Any) -> None:
    """A chunk of length 0 would end the body."""
    assert made_bytes.encode_chunk(b"") == b""


def test_the_end(made_bytes: Any) -> None:
    assert made_bytes.encode_last_chunk() == b"0\r\n\r\n"
    assert made_bytes.encode_last_chunk(b"A: 1\r\n") == b"0\r\nA: 1\r\n\r\n"


@pytest.mark.parametrize("trailers", TRAILERS)
@pytest.mark.parametrize("pieces", [[], [b"a"], [b"0\r\n\r\n", b"\r\n"], [b"hello", b"", b"0123456789abcdef" * 2, b"!"]])
def test_our_reader_finds_it_whatever_the_split(made_bytes: Any, pieces: list[bytes], trailers: bytes) -> None:
    body = b"".join(map(made_bytes.encode_chunk, pieces)) + made_bytes.encode_last_chunk(trailers)
    for split in ways(HEAD + body + b"HTTP"):
        outcome, _ = read_message(split, Reading(is_request=False))
        assert outcome.complete and not outcome.refused
        assert (outcome.content, outcome.trailers, outcome.relayed, outcome.left) == (b"".join(pieces), trailers, body, b"HTTP")


@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from(TRAILERS), st.integers(1, 50))
def test_another_reader_finds_it_whatever_the_split(made_bytes: Any, pieces: list[bytes], trailers: bytes, step: int) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    data = HEAD + b"".join(map(made_bytes.encode_chunk, pieces)) + made_bytes.encode_last_chunk(trailers)
    content = b""
    ended: list[tuple[bytes, bytes]] | None = None
    for at in range(0, len(data), step):
        client.receive_data(data[at : at + step])
        while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                ended = list(event.headers)
                break
    assert content == b"".join(pieces)
    assert ended == [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in trailers.split(b"\r\n")[:-1])]
