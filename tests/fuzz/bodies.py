"""Messages with their bodies: the split changes nothing, and it is what another, plainer reader makes of it. A request's body that is
collected is kept once, and sent on byte for byte as it came.

Input: a byte of options, two bytes that cut the rest, then the bytes of one message and whatever follows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fuzz.cutting import every_way
from fuzz.plain_http import PlainChunks, PlainHead, Refused, framing, read_chunks, read_head
from soth_mitm._dataplane.exchange.body_buffer import BodyKeeper
from soth_mitm.errors import WireError
from support.feed import Outcome, Reading, read_message
from support.samples import read_samples

RESPONSE, END, SMALL_TRAILERS, STRETCHED = 1, 2, 4, 16
# What is written shorter, so that an input reaches the limits of lines
STRETCH, STRETCHES_TO = b"\xfe", b"x" * 1000
METHODS = ("GET", "HEAD", "head", "CONNECT")
CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 3:
        return
    options, first, second = data[:3]
    text = data[3:].replace(STRETCH, STRETCHES_TO) if options & STRETCHED else data[3:]
    how = Reading(
        is_request=not options & RESPONSE,
        trailer_limit=1 + first if options & SMALL_TRAILERS else 65536,
        request_method=METHODS[options >> 6],
        eof=bool(options & END),
    )
    expected, head = read_message([text], how)
    # what is made of heads is for `heads`
    plain = read_head(text, how.is_request, how.limit) if head is not None else None
    for pieces in every_way(text, first, second):
        seen = [0]
        outcome, _ = read_message(counted(pieces, seen), how)
        assert outcome == expected, "another split, another message"
        if plain is not None and outcome.refused and not how.eof:
            # it is refused with the byte that is wrong, neither later nor earlier
            for end in (seen[0], seen[0] - 1):
                if end >= text.index(plain.came) + len(plain.came):
                    check(read_message([text[:end]], how)[0], plain, text[:end], how)
    if plain is not None:
        check(expected, plain, text, how)
    if head is not None and how.is_request and head.method != "CONNECT":
        assert not (expected.complete and expected.refused)
        assert plain is not None
        rest = text[text.index(plain.came) + len(plain.came) :]
        for limit in (first, 1 << 40):
            for pieces in every_way(rest, first, second):
                check_collected(BodyKeeper(head, limit, how.trailer_limit), pieces, limit, 1 + second, expected)


def counted(pieces: list[bytes], seen: list[int]) -> Iterator[bytes]:
    """Yield the pieces; `seen` holds how many bytes there were so far."""
    for piece in pieces:
        seen[0] += len(piece)
        yield piece


def check(outcome: Outcome, head: PlainHead, text: bytes, how: Reading) -> None:
    """Compare what was made of a message with what it is."""
    try:
        kind = framing(head, how.request_method.encode())
    except Refused as refusal:
        assert outcome.refused and not outcome.framing, f"accepted, though there is {refusal}"
        return
    assert outcome.framing == kind, "another framing"
    found = read_plainly(head, kind, text.removeprefix(b"\r\n")[len(head.came) :], how)
    assert outcome.content == found.content, "another content"
    assert outcome.complete == found.complete, "another end"
    assert bool(outcome.refused) == (found.refused or (how.eof and not found.complete)), "another verdict"
    if found.complete:
        assert (outcome.trailers, outcome.left) == (found.trailers, found.left), "another end"
    if found.complete and kind == "chunked":
        assert outcome.relayed == found.relayed, "not what is to be sent on"


def read_plainly(head: PlainHead, kind: str, data: bytes, how: Reading) -> PlainChunks:
    """Read the body at the start of `data`, of any framing, as plainly as chunks are read."""
    if kind == "chunked":
        return read_chunks(data, how.trailer_limit, how.is_request)
    if kind == "until_close":
        return PlainChunks(data, complete=how.eof)
    length = head.lengths[0] if kind == "length" else 0
    return PlainChunks(data[:length], left=data[length:], complete=len(data) >= length)


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
    # but for trailers that are not to be sent on
    whole = outcome.relayed if outcome.complete and outcome.framing == "chunked" else came[: len(came) - len(outcome.left)]
    assert body.show() == outcome.content[:limit], "other content is shown"
    for _ in range(2):
        sent = b"".join(iter(lambda: body.send(most), b""))
        assert (came.startswith(sent) or sent == whole) and len(sent) == sum(body.held), "what is sent is not what came"
        assert sent in (taken, whole) or outcome.refused, "not all that was taken is sent"
        assert body.sent
        body.rewind()
        apart = b"".join(iter(lambda: body.content(most)[0], b""))
        assert apart == outcome.content[: len(apart)] and body.sent, "other content is sent in another framing"
        assert not outcome.complete or outcome.framing != "chunked" or apart == outcome.content, "content is left out"
        body.rewind()
    if outcome.complete and (outcome.framing == "chunked" or len(outcome.content) <= limit):
        assert body.done and sent == whole


def seeds() -> Iterator[bytes]:
    """The corpus of HTTP/1 samples, every chunked one behind the shortest head there is, and lines as long as may be."""
    for count in (92, 93):
        yield bytes((STRETCHED, 5, 40)) + CHUNKED_REQUEST + b"1;" + STRETCH * 4 + b"x" * count + b"\r\n.\r\n0\r\n\r\n"
        # what these lines are too long by is 16384, and one more
        lines = [b"1;" + STRETCH * 4 + b"\r\n.\r\n"] * 4 + [b"1;" + b"x" * (362 + count) + b"\r\n.\r\n"]
        yield bytes((STRETCHED, 5, 40)) + CHUNKED_REQUEST + b"".join(lines) + b"0\r\n\r\n"
    for sample in read_samples("http1"):
        for name, option in (("request", 0), ("response", RESPONSE)):
            if name in sample.blocks:
                block = sample.blocks[name]
                option |= METHODS.index(block.options.get("request_method", "GET")) << 6
                option |= END * (block.options.get("eof") == "yes")
                yield bytes((option, 30, 3)) + block.data
                if "trailer_limit" in block.options:
                    yield bytes((option | SMALL_TRAILERS, int(block.options["trailer_limit"]) - 1, 3)) + block.data
                if b"chunked\r\n\r\n" in block.data:
                    yield bytes((option & ~RESPONSE, 70, 9)) + CHUNKED_REQUEST + block.data.partition(b"\r\n\r\n")[2]
