"""Messages with their bodies: the split changes nothing, and chunked content is what another, simpler reader makes of it. A request's body
that is collected is kept once, and sent on byte for byte as it came.

Input: a byte of options, two bytes that cut the rest, then the bytes of one message and whatever follows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fuzz.cutting import every_way
from soth_mitm._dataplane.kept import BodyKeeper
from soth_mitm.errors import WireError
from support.feed import Outcome, Reading, read_message
from support.samples import read_samples

RESPONSE, END, SMALL_TRAILERS, HTTP_10 = 1, 2, 4, 8
METHODS = ("GET", "HEAD", "head", "CONNECT")
CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 3:
        return
    options, first, second = data[:3]
    text = data[3:]
    how = Reading(
        is_request=not options & RESPONSE,
        trailer_limit=1 + first if options & SMALL_TRAILERS else 65536,
        request_method=METHODS[options >> 6],
        http_10=bool(options & HTTP_10),
        eof=bool(options & END),
    )
    expected, head = read_message([text], how)
    for pieces in every_way(text, first, second):
        outcome, _ = read_message(pieces, how)
        assert outcome == expected, "another split, another message"
    if head is None:
        return
    assert not (expected.complete and expected.refused)
    rest = text[text.index(head.raw) + len(head.raw) :]
    if how.is_request and head.method != "CONNECT":
        for limit in (first, 1 << 40):
            for pieces in every_way(rest, first, second):
                check_collected(BodyKeeper(head, limit, how.trailer_limit), pieces, limit, 1 + second, expected)
    if expected.framing == "chunked":
        check_chunks(rest, expected)
    elif expected.framing == "length":
        assert expected.content == rest[: head.facts["content_length"]]
        assert expected.complete == (len(expected.content) == head.facts["content_length"])
    elif expected.framing == "until_close":
        assert expected.content == rest and not expected.left
        assert expected.complete == how.eof or expected.refused
    elif expected.framing == "none":
        assert not expected.content and expected.complete and expected.left == rest


def check_collected(body: BodyKeeper, pieces: list[bytes], limit: int, most: int, outcome: Outcome) -> None:
    """Feed the pieces as a connection does: what is shown and sent are what came, whatever there was behind it."""
    taken, waiting = b"", b""
    with contextlib.suppress(WireError):
        for piece in pieces:
            waiting += piece
            consumed, _ = body.feed(waiting)
            taken += waiting[:consumed]
            waiting = waiting[consumed:]
    came = taken + waiting
    assert body.show() == outcome.content[:limit], "other content is shown"
    for _ in range(2):
        sent = b"".join(iter(lambda: body.send(most), b""))
        assert came.startswith(sent) and len(sent) == sum(body.held), "what is sent is not what came"
        assert sent == taken or outcome.refused, "not all that was taken is sent"
        assert body.sent
        body.rewind()
    if outcome.complete and (outcome.framing == "chunked" or len(outcome.content) <= limit):
        assert body.done and sent == came[: len(came) - len(outcome.left)]


def check_chunks(data: bytes, outcome: Outcome) -> None:
    """Compare with a reading of `data` that knows where chunks lie and nothing else."""
    content, at = b"", 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        digits = data[at:line_end].partition(b";")[0]
        size = int(digits, 16) if digits.isalnum() and digits.isascii() and b"_" not in digits and is_hexadecimal(digits) else -1
        if size <= 0:
            break
        piece = data[line_end + 2 : line_end + 2 + size]
        content += piece
        at = line_end + 2 + size + 2
        if len(piece) < size or data[at - 2 : at] != b"\r\n":
            break
    else:
        size = -1
    if outcome.complete:
        assert size == 0 and outcome.content == content, "another content"
        end = line_end + 2 if data[line_end + 2 :].startswith(b"\r\n") else data.index(b"\r\n\r\n", line_end) + 2
        assert outcome.left == data[end + 2 :], "another end"
        assert outcome.trailers == data[line_end + 2 : end], "other trailers"
    else:
        # a fault may lie in a line that this reading does not look at
        assert content.startswith(outcome.content), "content that is none"


def is_hexadecimal(digits: bytes) -> bool:
    """Tell whether these are digits of a chunk size and nothing else."""
    return all(byte in b"0123456789abcdefABCDEF" for byte in digits)


def seeds() -> Iterator[bytes]:
    """The corpus of HTTP/1 samples, and every chunked one behind the shortest head there is."""
    for sample in read_samples("http1"):
        for name, option in (("request", 0), ("response", RESPONSE)):
            if name in sample.blocks:
                block = sample.blocks[name]
                option |= METHODS.index(block.options.get("request_method", "GET")) << 6
                option |= END * (block.options.get("eof") == "yes") | HTTP_10 * (block.options.get("http_10") == "yes")
                yield bytes((option, 30, 3)) + block.data
                if b"chunked\r\n\r\n" in block.data:
                    yield bytes((option & ~RESPONSE, 70, 9)) + CHUNKED_REQUEST + block.data.partition(b"\r\n\r\n")[2]
