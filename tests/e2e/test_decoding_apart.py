"""Bodies that take long to decode are decoded in a thread, before the handler is asked: the loop goes on meanwhile."""

from __future__ import annotations

import gzip
import threading
import zlib

import brotli
import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory
from support.tap import Tap
from support.wire_client import WireClient

MIB = 1 << 20
LITTLE = pattern(1000)
LONG = pattern(3 * MIB)
# the name of the thread, as the proxy gives it
DECODING = "soth-mitm decoding"


def post(client: WireClient, body: bytes, coding: str) -> None:
    client.send(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def is_decoding() -> bool:
    return any(thread.name.startswith(DECODING) for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("coding", "body", "content", "apart"),
    [
        ("gzip", gzip.compress(LITTLE), LITTLE, False),
        ("gzip", gzip.compress(LONG), LONG, True),
        ("br", brotli.compress(bytes(8 * MIB)), bytes(8 * MIB), True),
        ("identity", LONG, LONG, False),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(2 * MIB))), bytes(2 * MIB), True),
    ],
    ids=["little", "long", "bomb", "plain", "stacked"],
)
def test_what_is_long_is_decoded_in_a_thread(
    proxy: ProxyFactory, plain_tap: Tap, coding: str, body: bytes, content: bytes, apart: bool
) -> None:
    running = proxy()
    with running.tunnel(plain_tap.port) as client:
        post(client, body, coding)
        assert client.read_answer().status == 200
    (request,) = running.handler.requests
    assert (request.body == content, request.decode_error, request.raw_body) == (True, None, body)
    assert is_decoding() == apart


def test_a_bomb_beyond_the_limit_is_undecodable(proxy: ProxyFactory, plain_tap: Tap) -> None:
    running = proxy(**{"body.max_size_bytes": MIB})
    body = zlib.compress(bytes(3 * MIB))
    with running.tunnel(plain_tap.port) as client:
        post(client, body, "deflate")
        assert client.read_answer().status == 200
    (request,) = running.handler.requests
    assert (request.body_problem, request.decode_error) == ("undecodable", f"the decoded body is longer than {MIB} bytes")
    assert request.body == body and is_decoding()


def test_it_is_refused_where_incomplete_bodies_are(proxy: ProxyFactory, plain_tap: Tap) -> None:
    running = proxy(**{"body.max_size_bytes": MIB, "body.incomplete": "refuse"})
    with running.tunnel(plain_tap.port) as client:
        post(client, zlib.compress(bytes(3 * MIB)), "deflate")
        assert client.read_answer().status == 415
        post(client, zlib.compress(bytes(MIB)), "deflate")
        assert client.read_answer().status == 200
    assert [request.body == bytes(MIB) for request in running.handler.requests] == [True]


def test_requests_behind_it_wait_for_their_turn(proxy: ProxyFactory, plain_tap: Tap) -> None:
    running = proxy(Recording(lambda request: HandlerDecision.block(403, str(len(request.body)))))
    with running.tunnel(plain_tap.port) as client:
        for body in (gzip.compress(LONG), gzip.compress(LITTLE), gzip.compress(LONG)):
            post(client, body, "gzip")
        assert [client.read_answer().body for _ in range(3)] == [b"%d" % len(LONG), b"1000", b"%d" % len(LONG)]


def test_a_client_that_leaves_meanwhile(proxy: ProxyFactory, plain_tap: Tap) -> None:
    running = proxy()
    for _ in range(20):
        with running.tunnel(plain_tap.port) as client:
            post(client, brotli.compress(bytes(8 * MIB)), "br")
    running.wait_idle()
    assert running.metrics().buffered_bytes == 0


def test_nothing_is_decoded_for_a_handler_that_is_not_asked(proxy: ProxyFactory, plain_tap: Tap) -> None:
    class Watch(InterceptHandler):
        def on_response(self, response: object) -> None: ...

    running = proxy(Watch())
    with running.tunnel(plain_tap.port) as client:
        post(client, gzip.compress(LONG), "gzip")
        assert client.read_answer().status == 200
    assert not is_decoding()


def test_it_is_decoded_on_the_loop_where_nothing_is_long() -> None:
    request = RawRequest.build(headers={"Content-Encoding": "gzip"}, body=gzip.compress(LONG))
    assert request.body == LONG
