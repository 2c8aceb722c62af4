"""Bodies: what the samples of tests/corpus/http1 cannot say. Pieces, limits, states, and many small or large chunks."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm.errors import WireError
from support.feed import Reading, read_every_way, read_message
from support.heads import parse_request, parse_response

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = Reading(is_request=True)


def chunked(trailer_limit: int = 65536) -> BodyReader:
    """Return the reader of a chunked body that begins now."""
    parsed = parse_request(CHUNKED)
    assert parsed is not None
    return BodyReader.of_request(parsed[0], trailer_limit)


def of(head: bytes) -> BodyReader:
    """Return the reader of the body behind a request or response head."""
    parsed = parse_response(head) if head.startswith(b"HTTP/") else parse_request(head)
    assert parsed is not None
    return BodyReader.of_response(parsed[0]) if head.startswith(b"HTTP/") else BodyReader.of_request(parsed[0])


def test_one_piece_holds_one_run_of_content() -> None:
    """All framing around it is consumed with it, up to the next run."""
    body = chunked()
    data = b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\nrest"
    assert body.feed(data) == (17, b"hello", b"")
    assert body.feed(data, 17) == (16, b"abc", b"A: b\r\n")
    assert (body.done, body.payload_total, body.kind) == (True, 8, "chunked")
    assert body.feed(b"rest") == (0, b"", b"")


def test_incomplete_framing_is_not_consumed() -> None:
    """What is consumed is relayed, so it must be whole."""
    body = chunked()
    assert body.feed(b"5;a") == (0, b"", b"")
    assert body.feed(b"5;a=b\r") == (0, b"", b"")
    assert body.feed(b"5;a=b\r\nhel") == (10, b"hel", b"")
    assert body.feed(b"lo\r") == (2, b"lo", b"")
    assert body.feed(b"\r") == (0, b"", b"")
    assert body.feed(b"\r\n0\r\nA:") == (5, b"", b"")
    assert body.feed(b"A: b\r\n\r") == (0, b"", b"")
    assert body.feed(b"A: b\r\n\r\n") == (8, b"", b"A: b\r\n")
    assert body.done


@pytest.mark.parametrize("start", [-1, 3])
def test_a_piece_begins_within_the_bytes(start: int) -> None:
    with pytest.raises(ValueError, match=f"start: {start} is not within the 2 bytes given"):
        chunked().feed(b"5;", start)


def test_what_precedes_a_fault_is_reported_first() -> None:
    body = chunked()
    assert body.feed(b"5\r\nhelloX") == (8, b"hello", b"")
    with pytest.raises(WireError, match="a chunk's data is not followed by CRLF") as caught:
        body.feed(b"X")
    assert (caught.value.side, caught.value.status) == ("client", 400)


def test_a_body_that_failed_stays_so() -> None:
    body = chunked()
    for data in (b"x\r\n", b"0\r\n\r\n", b""):
        with pytest.raises(WireError, match="a chunk does not begin with its size"):
            body.feed(data)
    with pytest.raises(WireError, match="a chunk does not begin with its size"):
        body.eof()
    assert not body.done


@pytest.mark.parametrize(
    ("head", "kind", "done"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "none", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "none", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "length", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "length", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", "until_close", False),
        (b"HTTP/1.1 204 \r\n\r\n", "none", True),
    ],
)
def test_kinds(head: bytes, kind: str, done: bool) -> None:
    body = of(head)
    assert (body.kind, body.done) == (kind, done)
    if done:
        body.eof()
        assert body.feed(b"GET") == (0, b"", b"")


def test_every_state_at_the_end_of_the_connection() -> None:
    """Only a body that is done, or that the end completes, may meet it."""
    for fed in (b"", b"5", b"5\r\n", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"0\r\n", b"0\r\nA: b\r\n"):
        body = chunked()
        body.feed(fed)
        with pytest.raises(WireError, match="the connection ended before the message did"):
            body.eof()
        with pytest.raises(WireError):
            body.feed(b"0\r\n\r\n")
    body = chunked()
    body.feed(b"0\r\n\r\n")
    body.eof()
    body = of(b"HTTP/1.1 200 OK\r\n\r\n")
    body.feed(b"x")
    body.eof()
    assert body.done
    assert body.feed(b"y") == (0, b"", b"")


@pytest.mark.parametrize(("length", "good"), [(4096, True), (4097, False)])
def test_size_lines_are_bounded(length: int, good: bool) -> None:
    line = b"5;" + b"x" * (length - 4) + b"\r\n"
    for pieces in ([CHUNKED, line + b"hello\r\n0\r\n\r\n"], [CHUNKED, line[:-2], b"\r\nhello\r\n0\r\n\r\n"]):
        outcome, _ = read_message(pieces, REQUEST)
        assert outcome.complete == good
        assert outcome.refused == ("" if good else "400 a chunk-size line is longer than 4096 bytes")


def test_a_size_line_without_end_is_refused_at_the_limit() -> None:
    body = chunked()
    assert body.feed(b"5;" + b"x" * 4093) == (0, b"", b"")
    with pytest.raises(WireError, match="longer than 4096"):
        body.feed(b"5;" + b"x" * 4094)


@pytest.mark.parametrize(("count", "good"), [(256, True), (257, False)])
def test_trailers_are_counted(count: int, good: bool) -> None:
    outcome, _ = read_message([CHUNKED + b"0\r\n" + b"".join(b"X%d: v\r\n" % n for n in range(count)) + b"\r\n"], REQUEST)
    assert outcome.refused == ("" if good else "400 the trailer section has more fields than a head may have (max_header_fields)")


def test_trailers_that_grow_are_not_read_again_and_again() -> None:
    section = b"X: " + b"y" * (1 << 20) + b"\r\n\r\n"
    pieces = [section[:end] for end in range(0, len(section), 1 << 13)]

    def spent(fresh: bool) -> float:
        body = chunked(1 << 21)
        body.feed(b"0\r\n")
        spent_here = 0.0
        for piece in pieces:
            if fresh:
                body = chunked(1 << 21)
                body.feed(b"0\r\n")
            begin = time.process_time()
            assert body.feed(piece) == (0, b"", b"")
            spent_here += time.process_time() - begin
        assert body.feed(section) == (len(section), b"", section[:-2])
        return spent_here

    assert min(spent(False) for _ in range(3)) * 5 < spent(True)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_content_comes_out_whole(runs: list[bytes], cuts: list[int]) -> None:
    data = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(run), run) for run in runs) + b"0\r\n\r\nrest"
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    outcome, _ = read_message([data[start:end] for start, end in zip(edges, edges[1:], strict=False)], REQUEST)
    assert outcome.complete
    assert (outcome.content, outcome.left, outcome.refused) == (b"".join(runs), b"rest", "")


PIECES = st.sampled_from(
    [b"0", b"5", b"a", b"g", b";", b"x=y", b"\r\n", b"\r", b"\n", b" ", b"hello", b"0\r\n\r\n", b"A: b\r\n", b"5\r\nhello\r\n"]
)


@given(st.lists(PIECES, max_size=16))
def test_the_verdict_does_not_depend_on_the_pieces(parts: list[bytes]) -> None:
    read_every_way(CHUNKED + b"".join(parts), REQUEST)


@given(st.binary(max_size=60))
def test_what_is_consumed_is_what_was_fed(data: bytes) -> None:
    """Nothing is skipped and nothing invented: content lies in the consumed bytes, and the total counts it."""
    for head in (CHUNKED, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
        body = of(head)
        taken, content = 0, b""
        try:
            while (step := body.feed(data[taken:]))[0]:
                assert step[1] in data[taken : taken + step[0]]
                taken += step[0]
                content += step[1]
        except WireError:
            assert head == CHUNKED
        assert taken <= len(data)
        assert body.payload_total == len(content)


def test_chunk_extensions_may_be_long_but_not_all_the_time() -> None:
    """Who sends kilobytes of extensions around each byte of content makes everybody on the way carry many times the content."""
    line = b"1;%b\r\nx\r\n" % (b"e" * 4000)
    outcome, _ = read_message([CHUNKED + line * 4], REQUEST)
    assert (outcome.refused, outcome.content) == ("", b"xxxx")
    outcome, _ = read_message([CHUNKED + line * 5], REQUEST)
    assert (outcome.refused, outcome.content) == ("400 the chunk extensions together are far longer than the content", b"xxxx")


def test_the_excess_of_chunk_extensions_does_not_depend_on_the_reads() -> None:
    line = b"1;%b\r\nx\r\n" % (b"e" * 1000)
    whole, _ = read_message([CHUNKED + line * 20], REQUEST)
    apart, _ = read_message([bytes((byte,)) for byte in CHUNKED + line * 20], REQUEST)
    assert whole == apart
    assert whole.refused


def test_signatures_of_chunks_are_no_excess() -> None:
    """As object stores have them: 85 bytes for a chunk of some kilobytes."""
    line = b"2000;chunk-signature=%b\r\n%b\r\n" % (b"f" * 64, bytes(8192))
    outcome, _ = read_message([CHUNKED + line * 500 + b"0\r\n\r\n"], REQUEST)
    assert outcome.complete


def test_single_bytes_in_chunks_are_no_excess() -> None:
    outcome, _ = read_message([CHUNKED + b"1;a=b\r\nx\r\n" * 10_000 + b"0\r\n\r\n"], REQUEST)
    assert outcome.complete


def on_a_stream(head: bytes, method: bytes = b"GET") -> BodyReader:
    """Return the reader of the body of a message that came on a stream."""
    parsed = parse_response(head) if head.startswith(b"HTTP/") else parse_request(head)
    assert parsed is not None
    return BodyReader.of_stream(parsed[0], method)


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
LONG = "there is more content than Content-Length announces"
SHORT = "there is less content than Content-Length announces"


@pytest.mark.parametrize("pieces", [[], [0], [3], [1, 1], [1 << 40]])
def test_a_stream_without_a_length_says_itself_where_it_ends(pieces: list[int]) -> None:
    body = on_a_stream(POST + b"\r\n")
    for piece in pieces:
        body.add(piece)
    assert (body.kind, body.done, body.payload_total) == ("stream", False, sum(pieces))
    body.end()
    assert body.done
    with pytest.raises(WireError, match=LONG):
        body.add(1)


@pytest.mark.parametrize(
    ("pieces", "refusal"), [([5], ""), ([2, 0, 3], ""), ([6], LONG), ([5, 1], LONG), ([], SHORT), ([4], SHORT), ([1, 3], SHORT)]
)
@pytest.mark.parametrize("head", [POST, b"HTTP/1.1 200 \r\n"])
def test_a_stream_must_keep_the_length_that_it_announces(head: bytes, pieces: list[int], refusal: str) -> None:
    body = on_a_stream(head + b"Content-Length: 5\r\n\r\n")
    try:
        for piece in pieces:
            body.add(piece)
        body.end()
    except WireError as error:
        assert str(error) == refusal
        assert error.side == ("client" if head == POST else "upstream")
        for again in (body.end, body.eof, lambda: body.add(1)):
            with pytest.raises(WireError, match=refusal):
                again()
    else:
        assert refusal == "" and body.done


@pytest.mark.parametrize(("status", "method"), [(b"200", b"HEAD"), (b"204", b"GET"), (b"304", b"GET"), (b"103", b"GET"), (b"404", b"HEAD")])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n"])
def test_what_has_no_content_has_none_on_a_stream(status: bytes, method: bytes, length: bytes) -> None:
    head = b"HTTP/1.1 %b \r\n%b\r\n" % (status, length)
    body = on_a_stream(head, method)
    body.add(0)
    body.end()
    assert body.done
    with pytest.raises(WireError, match=LONG):
        on_a_stream(head, method).add(1)


def test_a_stream_that_is_cut() -> None:
    body = on_a_stream(POST + b"\r\n")
    body.add(3)
    with pytest.raises(WireError, match="the connection ended before the message did"):
        body.eof()


def test_connect_announces_no_content_on_a_stream() -> None:
    on_a_stream(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").add(5)
    with pytest.raises(WireError, match="a CONNECT request has content"):
        on_a_stream(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n")
