"""Bodies that are collected: kept once, the content is what came, and what is sent on is what came, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.exchange.body_buffer import BodyKeeper
from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm.errors import WireError
from support.feed import ways
from support.heads import parse_request

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = 1 << 62
BODY = b'5\r\nhello\r\n003;a="b;c"\r\nabc\r\n1;x\r\n!\r\n0a\r\n0123456789\r\n000;last\r\nA: 1\r\na:  2 \r\n\r\n'
CONTENT = b"helloabc!0123456789"


def keeper(limit: int = ENDLESS, head: bytes = CHUNKED) -> BodyKeeper:
    """Return the keeper of the body behind a head."""
    parsed = parse_request(head)
    assert parsed is not None
    return BodyKeeper(parsed[0], limit)


def of_length(length: int, limit: int = ENDLESS) -> BodyKeeper:
    return keeper(limit, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length)


def feed(body: BodyKeeper, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Feed pieces as a connection does, what is not consumed again with the next; return what was consumed, and the trailers."""
    taken, waiting, trailers = b"", b"", b""
    for piece in pieces:
        waiting += piece
        consumed, lines = body.feed(waiting)
        taken += waiting[:consumed]
        waiting = waiting[consumed:]
        trailers += lines
    return taken, trailers


def send(body: BodyKeeper, most: int = 65536) -> bytes:
    """Send all of it."""
    pieces = []
    while piece := body.send(most):
        assert len(piece) == most or body.sent
        pieces.append(piece)
    assert body.sent
    return b"".join(pieces)


def content(body: BodyKeeper, most: int = 65536) -> tuple[bytes, bytes]:
    """Take all of the content, and the trailers."""
    pieces, trailers = [], b""
    while True:
        piece, lines = body.content(most)
        assert len(piece) <= most
        pieces.append(piece)
        trailers += lines
        if not piece:
            assert body.sent
            return b"".join(pieces), trailers


@pytest.mark.parametrize("limit", [ENDLESS, len(CONTENT), len(CONTENT) - 1, 9, 8, 6, 1, 0])
def test_every_split(limit: int) -> None:
    """Whatever the reads and whatever the writes."""
    for pieces in ways(BODY):
        body = keeper(limit)
        assert feed(body, pieces) == (BODY, b"A: 1\r\na:  2 \r\n")
        assert body.done
        assert body.truncated == (limit < len(CONTENT))
        assert body.show() == CONTENT[:limit]
        shown, frame = body.held
        assert (shown, shown + frame) == (min(limit, len(CONTENT)), len(BODY))
        for most in (1, 2, 3, 7, len(BODY), 65536):
            assert send(body, most) == BODY
            body.rewind()
            assert content(body, most) == (CONTENT, b"A: 1\r\na:  2 \r\n")
            body.rewind()


def test_of_a_cut_body_what_came_is_sent() -> None:
    """The decision may be taken on it as it is; where it goes on, the rest is streamed."""
    for end in range(len(BODY)):
        body = keeper()
        taken, _ = feed(body, [BODY[:end]])
        assert BODY.startswith(taken)
        assert not body.done
        assert CONTENT.startswith(body.show())
        assert send(body) == taken


@pytest.mark.parametrize("limit", range(len(CONTENT) + 2))
def test_of_a_cut_body_the_content_that_came_is_sent(limit: int) -> None:
    """In another framing, whatever the limit: what our reader finds in the bytes that were taken."""
    parsed = parse_request(CHUNKED)
    assert parsed is not None
    for end in range(len(BODY) + 1):
        body = keeper(limit)
        taken, _ = feed(body, [BODY[:end]])
        reader, at, expected = BodyReader.of_request(parsed[0]), 0, (b"", b"")
        while step := reader.feed(taken, at):
            if step[0] == 0:
                break
            at, expected = at + step[0], (expected[0] + step[1], expected[1] + step[2])
        for most in (1, 4, 65536):
            assert content(body, most) == expected
            body.rewind()
        assert send(body) == taken


def test_a_body_of_known_length_has_no_frame() -> None:
    for pieces in ways(CONTENT + b"GET"):
        body = of_length(len(CONTENT))
        assert feed(body, pieces) == (CONTENT, b"")
        assert body.held == (len(CONTENT), 0)
        assert body.show() == CONTENT == send(body, 4)
        assert body.done and not body.truncated


def test_a_body_of_known_length_is_taken_up_to_the_limit() -> None:
    for pieces in ways(CONTENT):
        body = of_length(len(CONTENT), 7)
        assert feed(body, pieces) == (CONTENT[:7], b"")
        assert not body.done
        assert body.show() == CONTENT[:7] == send(body)


@pytest.mark.parametrize("limit", [0, 1, 7, len(CONTENT), ENDLESS])
def test_content_of_a_stream(limit: int) -> None:
    for pieces in ways(CONTENT):
        parsed = parse_request(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert parsed is not None
        body = BodyKeeper(parsed[0], limit, stream=True)
        for piece in pieces:
            body.add(piece)
        assert body.show() == CONTENT[:limit]
        assert sum(body.held) == len(CONTENT)
        for most in (1, 3, 65536):
            assert content(body, most) == (CONTENT, b"")
            body.rewind()


def test_what_is_shown_stays_what_is_sent() -> None:
    body = keeper()
    feed(body, [BODY])
    shown = body.show()
    assert body.show() is shown
    assert send(body) == BODY
    body.rewind()
    assert send(body, 5) == BODY
    assert shown == CONTENT


def test_sending_may_begin_again_anywhere() -> None:
    for limit in (ENDLESS, 10):
        body = keeper(limit)
        feed(body, [BODY])
        for sent in range(1, len(BODY)):
            assert body.send(sent) == BODY[:sent]
            assert not body.sent
            body.rewind()
            assert send(body) == BODY
            body.rewind()


@pytest.mark.parametrize("limit", [ENDLESS, 7, 0])
def test_trailers_that_are_dropped(limit: int) -> None:
    """What the handler is shown and the upstream is sent does not have them, in whatever framing."""
    front = BODY[: BODY.index(b"A: 1")]
    wire = front + b"Cookie: a=1\r\nA: 1\r\nRange: x\r\na:  2 \r\nCONTENT-TYPE: x\r\n\r\n"
    passing = b"A: 1\r\na:  2 \r\n"
    for pieces in ways(wire):
        body = keeper(limit)
        assert feed(body, pieces) == (wire, passing)
        for most in (1, 3, 65536):
            assert send(body, most) == BODY
            body.rewind()
            assert content(body, most) == (CONTENT, passing)
            body.rewind()
    body = keeper()
    assert feed(body, [b"0\r\nCookie: a=1\r\n\r\n"])[1] == b""
    assert send(body) == b"0\r\n\r\n"


def test_nothing_came() -> None:
    body = keeper()
    assert feed(body, [b"", b"5", b";a"]) == (b"", b"")
    assert (body.held, body.show(), body.sent, body.send()) == ((0, 0), b"", True, b"")


def test_no_content() -> None:
    body = keeper()
    assert feed(body, [b"0\r\n\r\n"]) == (b"0\r\n\r\n", b"")
    assert (body.done, body.held, body.show()) == (True, (0, 5), b"")
    assert send(body, 2) == b"0\r\n\r\n"


def test_a_fault_is_refused_wherever_the_reads_end() -> None:
    wire = b"5\r\nhello\r\n3\r\nabcX"
    for pieces in ways(wire):
        body = keeper()
        with pytest.raises(WireError, match="a chunk's data is not followed by CRLF"):
            feed(body, pieces)
        assert send(body) == wire[:-1]


@pytest.mark.parametrize("line", [b"1\r\n", b"1;" + b"e" * 14 + b"\r\n"], ids=["shortest", "longest"])
def test_single_bytes_in_chunks_are_kept_once(line: bytes) -> None:
    """What is held is what came: the frame is longer than the content, as far as `body` lets it be, and has no record beside it."""
    wire = (line + b"x\r\n") * 5000 + b"0\r\n\r\n"
    body = keeper()
    assert feed(body, [wire[at : at + 1000] for at in range(0, len(wire), 1000)])[0] == wire
    assert body.held == (5000, (len(line) + 2) * 5000 + 5)
    assert body.show() == b"x" * 5000
    assert send(body) == wire


@pytest.mark.parametrize("size", [65535, 65536, 65537, 3 * 65536, 200_000])
def test_chunks_longer_than_a_write(size: int) -> None:
    half = random.Random(size).randbytes(size)
    wire = b"%X;a\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, half, size, half)
    body = keeper()
    assert feed(body, [wire[at : at + 65536] for at in range(0, len(wire), 65536)])[0] == wire
    assert body.show() == half * 2
    assert send(body) == wire


@dataclass(frozen=True)
class Chunk:
    """One chunk, and how its size is spelt."""

    content: bytes
    zeros: int
    upper: bool
    extension: bytes

    @property
    def wire(self) -> bytes:
        size = (b"%X" if self.upper else b"%x") % len(self.content)
        return b"0" * self.zeros + size + self.extension + b"\r\n" + self.content + b"\r\n"


EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b'; a="b;c"', b";" + b"e" * 300])
CHUNKS = st.builds(
    Chunk, st.binary(min_size=1, max_size=60) | st.integers(61, 3000).map(bytes), st.integers(0, 8), st.booleans(), EXTENSIONS
)
TRAILERS = st.lists(st.sampled_from([b"A: 1\r\n", b"x-sum:  2 \t\r\n", b"Empty:\r\n"]), max_size=3)


@given(
    st.lists(CHUNKS, max_size=8),
    EXTENSIONS,
    TRAILERS,
    st.lists(st.integers(0, 5000), max_size=6),
    st.integers(0, 300),
    st.integers(1, 5000),
)
def test_what_is_sent_is_what_came(
    chunks: list[Chunk], extension: bytes, trailers: list[bytes], cuts: list[int], limit: int, most: int
) -> None:
    wire = b"".join(chunk.wire for chunk in chunks) + b"00" + extension + b"\r\n" + b"".join(trailers) + b"\r\n"
    whole = b"".join(chunk.content for chunk in chunks)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    for kept in (limit, ENDLESS):
        body = keeper(kept)
        assert feed(body, [wire[start:end] for start, end in zip(edges, edges[1:], strict=False)]) == (wire, b"".join(trailers))
        assert (body.done, body.show(), body.truncated) == (True, whole[:kept], kept < len(whole))
        assert sum(body.held) == len(wire)
        assert send(body, most) == wire
        body.rewind()
        assert send(body) == wire
        body.rewind()
        assert content(body, most) == (whole, b"".join(trailers))
