"""Read one HTTP/1 message as a connection would, from bytes that arrive in any pieces; and see that the pieces change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.errors import WireError


@dataclass(frozen=True)
class Reading:
    """How to read."""

    is_request: bool
    limit: int = 65536
    trailer_limit: int = 65536
    request_method: str = "GET"
    eof: bool = False


@dataclass
class Outcome:
    """What came of it. `left` are the bytes behind a complete message, `relayed` its body as it is sent on."""

    raw: bytes = b""
    framing: str = ""
    content: bytes = b""
    relayed: bytes = b""
    trailers: bytes = b""
    refused: str = ""
    complete: bool = False
    left: bytes = b""


def ways(data: bytes) -> Iterator[list[bytes]]:
    """Yield `data` whole, byte by byte, and cut in two at every place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def read_message(pieces: Iterable[bytes], how: Reading) -> tuple[Outcome, Head | None]:
    """Read the first message in the pieces, the way a connection does: what is not consumed is seen again with the next piece."""
    outcome = Outcome()
    heads = HeadReader(how.is_request, how.limit)
    head: Head | None = None
    body: BodyReader | None = None
    buffer = b""
    try:
        for piece in pieces:
            buffer += piece
            if head is None and (parsed := heads.feed(buffer)) is not None:
                head, consumed = parsed
                buffer = buffer[consumed:]
                outcome.raw = head.raw
                body = begin_body(head, how)
                outcome.framing = body.kind
            if body is not None:
                buffer = buffer[drain(body, buffer, outcome) :]
        if how.eof and body is not None:
            body.eof()
    except WireError as error:
        outcome.refused = f"{error.status} {error}"
        return outcome, head
    outcome.complete = body is not None and body.done
    outcome.left = buffer if outcome.complete else b""
    return outcome, head


def begin_body(head: Head, how: Reading) -> BodyReader:
    """Return the reader of the body that follows this head."""
    if how.is_request:
        return BodyReader.of_request(head, how.trailer_limit)
    return BodyReader.of_response(head, how.request_method.encode(), how.trailer_limit)


def drain(body: BodyReader, data: bytes, outcome: Outcome) -> int:
    """Take from `data` what the body takes, and return how much that is."""
    taken = 0
    while True:
        consumed, content, trailers = body.feed(data, taken)
        outcome.content += content
        outcome.trailers += trailers
        outcome.relayed += sent_on(body, data[taken : taken + consumed], trailers)
        taken += consumed
        if consumed == 0:
            return taken


def sent_on(body: BodyReader, piece: bytes, trailers: bytes) -> bytes:
    """Return what leaves of what the last feed consumed, which ended with these trailers."""
    lines, length = body.lines_replaced
    if length:
        piece = piece[:lines] + trailers + piece[lines + length :]
    gap, length = body.gap
    return piece[:gap] + piece[gap + length :] if length else piece


def read_every_way(data: bytes, how: Reading) -> tuple[Outcome, Head | None]:
    """Read `data` in all `ways`; they must agree."""
    expected, head = read_message([data], how)
    for pieces in ways(data):
        outcome, _ = read_message(pieces, how)
        assert outcome == expected, f"cut as {[len(piece) for piece in pieces][:3]}..."
    return expected, head
