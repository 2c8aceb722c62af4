"""Every response of tests/corpus/http1 from an origin to a client, through a running proxy: inside TLS and forwarded.

A head that the corpus refuses is answered 502, and nothing of it reaches the client, whose connection goes on. A fault in a body comes too
late for that: the client reads what was good and then a connection that is cut, never an end. The chunked bodies of the requests are sent
as responses too. Whole, and byte by byte.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import MitmProxyBuilder
from soth_mitm._dataplane.http1.encoder import rewrite_response
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.errors import WireError
from support.certs import TestCA
from support.feed import Reading, read_message
from support.heads import parse_request, parse_response
from support.judge import Judge
from support.running import Running, configure
from support.samples import Sample, read_samples
from support.tap import Journal, Tap, TapConnection, answer_ok
from support.wire_client import WireClient

pytestmark = pytest.mark.shares_resources

SAMPLES = read_samples("http1")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def head_of(data: bytes) -> Head | None:
    try:
        parsed = parse_response(data)
    except WireError:
        return None
    return parsed[0] if parsed else None


def body_of_request(sample: Sample) -> bytes | None:
    """Return the chunked body of a request whose head is good (and may have one)."""
    data = sample.blocks["request"].data
    try:
        parsed = parse_request(data)
    except WireError:
        return None
    return data[parsed[1] :] if parsed is not None and parsed[0].facts["chunked"] and parsed[0].method != "CONNECT" else None


RESPONSES = [sample for sample in SAMPLES if "response" in sample.blocks and "limit" not in sample.blocks["response"].options]
BAD_HEADS = [sample for sample in RESPONSES if "refused" in sample.verdict and head_of(sample.blocks["response"].data) is None]
# an interim response is not the end of anything; it has tests of its own
GOOD = [sample for sample in RESPONSES if sample.verdict.get("complete") == "yes" and "interim" not in sample.name]
BAD_BODIES = [
    pytest.param(sample.blocks["response"].data, True, id=sample.name)
    for sample in RESPONSES
    if "refused" in sample.verdict and sample not in BAD_HEADS
] + [
    pytest.param(CHUNKED + body, False, id=sample.name)
    for sample in SAMPLES
    if "request" in sample.blocks and "refused" in sample.verdict and not sample.blocks["request"].options
    for body in [body_of_request(sample)]
    # in a response some of it is read as servers write it
    if body is not None and read_message([CHUNKED + body], Reading(False))[0].refused
]


class Stage:
    """A proxy, its two origins, and what they answer."""

    def __init__(self, running: Running, secure: Tap, plain: Tap) -> None:
        self.running = running
        self._taps = {"intercepted": secure, "forwarded": plain}

    def client(self, way: str) -> WireClient:
        return self.running.secured(self._taps[way].port) if way == "intercepted" else self.running.client()

    def ask(self, client: WireClient, way: str, method: str = "GET", version: str = "1.1") -> None:
        """Send a request."""
        authority = f"localhost:{self._taps[way].port}"
        target = "/" if way == "intercepted" else f"http://{authority}/"
        client.send(f"{method} {target} HTTP/{version}\r\nHost: {authority}\r\n\r\n".encode())

    def answer(self, way: str, pieces: list[bytes], end: bool) -> None:
        """Let the next request be answered with these bytes, and the one after it 200."""
        tap = self._taps[way]

        def respond(connection: TapConnection, request: bytes) -> None:
            tap.respond = answer_ok
            for piece in pieces:
                connection.send(piece)
            if end:
                connection.close()

        tap.respond = respond


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, origin_ca: TestCA) -> Iterator[Stage]:
    journal = Journal()
    with Tap(journal, origin_ca.server_context("localhost")) as secure, Tap(journal) as plain:
        judge = Judge(journal)
        config = configure(tmp_path_factory.mktemp("stage"), origin_ca)
        running = Running(MitmProxyBuilder(config, judge).build().start_in_thread(), judge)
        yield Stage(running, secure, plain)
        running.handle.shutdown(10)


def whole(data: bytes) -> list[bytes]:
    return [data]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


Feed = Callable[[bytes], list[bytes]]
every_way = pytest.mark.parametrize("way", ["intercepted", "forwarded"])
every_feed = pytest.mark.parametrize("feed", [whole, single_bytes])


@every_feed
@every_way
@pytest.mark.parametrize("sample", BAD_HEADS, ids=lambda sample: sample.name)
def test_a_bad_head_is_answered_502(stage: Stage, sample: Sample, way: str, feed: Feed) -> None:
    block = sample.blocks["response"]
    version = "1.0" if "http_10" in block.options else "1.1"
    stage.answer(way, feed(block.data), False)
    with stage.client(way) as client:
        stage.ask(client, way, version=version)
        answer = client.read_answer()
        assert answer.status == 502
        assert answer.text == "the upstream's response is malformed: " + sample.verdict["refused"].removeprefix("502 ") + "\n"
        assert {name for name, _ in answer.headers} <= {"Content-Type", "Content-Length", "Connection"}
        if version == "1.0":
            assert client.read_to_end() == b""
            return
        stage.ask(client, way)
        assert client.read_answer().status == 200


@every_feed
@every_way
@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.name)
def test_a_good_response_is_relayed_as_it_is(stage: Stage, sample: Sample, way: str, feed: Feed) -> None:
    block = sample.blocks["response"]
    parsed = parse_response(block.data)
    assert parsed is not None
    head, used = parsed
    left = len(sample.verdict.get("left", "").encode().decode("unicode_escape"))
    reading = Reading(False, request_method=block.options.get("request_method", "GET"), eof=block.options.get("eof") == "yes")
    body = read_message([block.data], reading)[0].relayed
    assert left or len(body) <= len(block.data) - used
    ends = sample.verdict.get("framing") == "until close" or block.options.get("eof") == "yes"
    stage.answer(way, feed(block.data), ends)
    with stage.client(way) as client:
        stage.ask(client, way, block.options.get("request_method", "GET"))
        expected = rewrite_response(head, close=ends) + body
        assert client.read_exactly(len(expected)) == expected
        if ends:
            assert client.read_to_end() == b""
            return
        if left:
            # bytes that nobody asked for end the origin's connection, whatever it is used for when they come
            return
        stage.ask(client, way)
        assert client.read_answer().status == 200


@every_feed
@every_way
@pytest.mark.parametrize(("data", "leaves"), BAD_BODIES)
def test_a_bad_body_is_cut(stage: Stage, data: bytes, leaves: bool, way: str, feed: Feed) -> None:
    """What the client reads is what the origin sent before the fault; and it can tell that this is not all.

    The fault may be that the origin `leaves` in the middle.
    """
    stage.answer(way, feed(data), leaves)
    seen = b""
    with stage.client(way) as client:
        stage.ask(client, way)
        try:
            while piece := client.socket.recv(1 << 16):
                seen += piece
                if seen.startswith(b"HTTP/1.1 502 ") and b"\r\n\r\nthe upstream's response is malformed: " in seen:
                    # the fault came with the head, of which nothing had been sent
                    return
            clean = True
        except (ssl.SSLError, ConnectionResetError):
            clean = False
    assert data.startswith(seen) and (leaves or seen != data)
    assert not seen.endswith(b"0\r\n\r\n")
    assert not (clean and way == "intercepted"), "the client was told that this is the end"
