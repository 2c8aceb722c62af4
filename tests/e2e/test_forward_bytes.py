"""What arrives of a changed request, byte for byte: the same as of a request that a client sent so.

Each case sends a request that the handler changes, then by hand what should come of it, which the handler allows. An upstream of HTTP/1
must get the same bytes of both, one of HTTP/2 the same fields in the same order, the same content and the same trailers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin, Request
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory
from support.wire_client import WireClient

forward = HandlerDecision.forward
PAIRINGS = [(client, upstream) for client in ("h1", "h2") for upstream in ("h1", "h2")]
Fields = Sequence[tuple[str, str]]


class Message(NamedTuple):
    """A request: `framing` is none, length, chunked or trailers."""

    method: str
    path: str
    fields: Fields
    framing: str
    body: bytes
    trailers: Fields = ()
    framing_last: bool = False
    """The field that frames the body is the last one, where the proxy writes it."""


def pieces_of(body: bytes) -> list[bytes]:
    """Return the chunks, or what is given to frames, of a body."""
    return [body[start : start + 1000] for start in range(0, len(body), 1000)]


def ask_http1(connection: WireClient, authority: str, sent: Message) -> int:
    framing = {"none": [], "length": [("Content-Length", str(len(sent.body)))]}.get(sent.framing, [("Transfer-Encoding", "chunked")])
    fields = [("hOsT", authority), *sent.fields, *framing] if sent.framing_last else [("hOsT", authority), *framing, *sent.fields]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    body = b"" if sent.framing == "none" else sent.body
    if sent.framing in ("chunked", "trailers"):
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.trailers).encode()
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces_of(sent.body)) + b"0\r\n" + lines + b"\r\n"
    connection.send(f"{sent.method} {sent.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return connection.read_answer(sent.method).status


def ask_http2(client: Http2Client, sent: Message) -> int:
    length = [("content-length", str(len(sent.body)))] if sent.framing == "length" else []
    fields = [(name.lower(), value) for name, value in sent.fields]
    fields = [*fields, *length] if sent.framing_last else [*length, *fields]
    number = client.open(sent.path, method=sent.method, fields=fields, end=sent.framing == "none")
    if sent.framing != "none":
        client.send(number, sent.body, end=sent.framing != "trailers")
    if sent.framing == "trailers":
        client.h2.send_headers(number, [(name.lower(), value) for name, value in sent.trailers], end_stream=True)
        client.flush()
    return client.answer(number).status


class Decides(InterceptHandler):
    """Returns `decision` for the first request, and lets the others go."""

    def __init__(self, decision: HandlerDecision) -> None:
        self.decision = decision

    def on_request(self, request: RawRequest) -> HandlerDecision:
        decision, self.decision = self.decision, HandlerDecision.ALLOW
        return decision


@pytest.fixture(params=PAIRINGS, ids="".join)
def arrived(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[Any]:
    """Send a request with a decision, and what should come of it without; return both as they arrived."""
    client_protocol, upstream_protocol = request.param
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin(origin_ca.server_context(HOST, alpn=["h2"] if upstream_protocol == "h2" else []), host=HOST))

        def send(decision: HandlerDecision, sent: Message, should_be: Message, **keys: Any) -> tuple[Any, Any]:
            running = proxy(Decides(decision), **{"http2.for_http1_clients": True, **keys})
            offer = ["h2", "http/1.1"] if client_protocol == "h2" else ["http/1.1"]
            with running.secured(origin.port, HOST, *offer) as connection:
                authority = f"{HOST}:{origin.port}"
                client = Http2Client(connection.socket, authority) if client_protocol == "h2" else None
                for message in (sent, should_be):
                    status = ask_http1(connection, authority, message) if client is None else ask_http2(client, message)
                    assert status == 200
            assert len(origin.requests) == 2
            return as_arrived(origin.requests[0]), as_arrived(origin.requests[1])

        yield send


def as_arrived(request: Request) -> Any:
    if request.version == "HTTP/2":
        # of no content END_STREAM says enough
        fields = [field for field in request.headers if field != ("content-length", "0")]
        return fields, bytes(request.body), request.trailers, request.complete
    # the proxy spells the field that it writes itself as HTTP/1 does
    return bytes(request.raw_head).replace(b"\r\ncontent-length:", b"\r\nContent-Length:"), bytes(request.raw_body)


def dechunked(arrived: tuple[bytes, bytes]) -> tuple[list[bytes], bytes, bytes]:
    """Return the lines of a head but those that frame, the content, and what comes behind the last chunk."""
    head, body = arrived
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"transfer-encoding", b"content-length"))]
    if b"Transfer-Encoding: chunked\r\n" not in head:
        return lines, body, b"\r\n"
    content = b""
    while not body.startswith(b"0\r\n"):
        size, _, rest = body.partition(b"\r\n")
        content, body = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return lines, content, body[3:]


FRAMINGS = {
    "none": Message("POST", "/echo?a", (), "none", b""),
    "length": Message("POST", "/echo?a", (), "length", pattern(2500)),
    "chunked": Message("POST", "/echo?a", (), "chunked", pattern(2500)),
    "trailers": Message("POST", "/echo?a", (), "trailers", pattern(2500), [("X-End", "1"), ("x-END", "2")]),
}


def same(one: Any, other: Any, reframed: bool) -> bool:
    """Compare two as they arrived; chunks that may have been made anew, for the sake of the trailers behind them, by their content."""
    if reframed and len(one) == 2 and b"\r\nTransfer-Encoding: chunked\r\n" in one[0]:
        one, other = dechunked(one), dechunked(other)
    assert one == other
    return True


BEFORE = (("X-One", "1"), ("x-two", "2"), ("X-Gone", "3"), ("X-ONE", "4"), ("Cookie", "a=b"))
AFTER = (("X-One", "new"), ("x-two", "2"), ("Cookie", "a=b"), ("x-three", "5"), ("x-three", "6"))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
class TestHead:
    def test_a_changed_head(self, arrived: Any, framing: str, streamed: bool) -> None:
        message = FRAMINGS[framing]
        decision = forward(set={"x-one": "new"}, add={"x-three": ["5", "6"]}, remove=["x-gone"], method="PUT", path="/echo?b=%20")
        should_be = message._replace(method="PUT", path="/echo?b=%20", fields=AFTER)
        one, other = arrived(decision, message._replace(fields=BEFORE), should_be, **{"body.buffer_request_bodies": not streamed})
        assert same(one, other, streamed)

    def test_a_field_that_has_the_value(self, arrived: Any, framing: str, streamed: bool) -> None:
        message = FRAMINGS[framing]._replace(fields=BEFORE)
        decision = forward(set={"X-Two": "2", "x-one": ["1", "4"]}, remove=["absent"])
        one, other = arrived(decision, message, message, **{"body.buffer_request_bodies": not streamed})
        assert same(one, other, streamed)

    def test_trailers_that_are_named(self, arrived: Any, framing: str, streamed: bool) -> None:
        message = FRAMINGS[framing]._replace(trailers=[("X-End", "1"), ("X-One", "2")] if framing == "trailers" else [])
        without = message._replace(trailers=message.trailers[1:]) if framing == "trailers" else message
        one, other = arrived(forward(remove=["x-end"]), message, without, **{"body.buffer_request_bodies": not streamed})
        assert same(one, other, True)


@pytest.mark.parametrize("framing", FRAMINGS)
class TestBody:
    @pytest.mark.parametrize("size", [0, 5, 300_000])
    def test_bytes(self, arrived: Any, framing: str, size: int) -> None:
        message = FRAMINGS[framing]._replace(fields=BEFORE)
        should_be = message._replace(framing="length", body=pattern(size), trailers=(), framing_last=True)
        one, other = arrived(forward(body=pattern(size)), message, should_be)
        assert one == other

    def test_an_iterable(self, arrived: Any, framing: str) -> None:
        async def items() -> AsyncIterator[bytes]:
            for piece in pieces_of(pattern(2500)):
                await asyncio.sleep(0)
                yield piece

        message = FRAMINGS[framing]._replace(fields=BEFORE)
        should_be = message._replace(framing="chunked", body=pattern(2500), trailers=(), framing_last=True)
        one, other = arrived(forward(body=items()), message, should_be, **{"body.buffer_request_bodies": True})
        # the second request was collected, and has a length; so it is what both are without their framing
        assert without_framing(one) == without_framing(other)


def without_framing(arrived: Any) -> Any:
    """Return what arrived without what says how long the body is."""
    if isinstance(arrived[0], bytes):
        return dechunked(arrived)
    return [field for field in arrived[0] if field[0] != "content-length"], *arrived[1:]
