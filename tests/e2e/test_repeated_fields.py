"""Fields that a message may have several of (RFC 9110 section 5.3): what is done about one is done about all."""

from __future__ import annotations

import zlib

import pytest

from support.origin import Origin, Request, ScriptedConnection
from support.running import ProxyFactory

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
HINTS = b'HTTP/1.1 103 Early Hints\r\nAlt-Svc: h3=":1"\r\nLink: </a>; rel=preload\r\nALT-SVC: h2=":1"\r\n\r\n'
ANSWER = b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":1"\r\nContent-Length: 0\r\nalt-svc: h2=":1"\r\n\r\n'


@pytest.fixture
def hinting(origin: Origin) -> Origin:
    def answer(connection: ScriptedConnection, request: Request) -> None:
        connection.send(HINTS + ANSWER)

    origin.script(answer, "/x")
    return origin


class TestAltSvc:
    def test_is_relayed_as_it_came(self, proxy: ProxyFactory, hinting: Origin) -> None:
        with proxy().secured(hinting.port) as client:
            client.send(GET)
            assert client.read_exactly(len(HINTS + ANSWER)) == HINTS + ANSWER

    def test_every_one_of_them_stops_here_where_it_is_to_be_stripped(self, proxy: ProxyFactory, hinting: Origin) -> None:
        with proxy(**{"interception.strip_alt_svc": True}).secured(hinting.port) as client:
            client.send(GET)
            hints, answer = client.read_head(), client.read_answer()
        assert (hints.status, hints.get("link"), hints.get("alt-svc")) == (103, "</a>; rel=preload", None)
        assert (answer.status, answer.get("content-length"), answer.get("alt-svc")) == (200, "0", None)

    def test_the_handler_is_shown_them_all_the_same(self, proxy: ProxyFactory, hinting: Origin) -> None:
        running = proxy(**{"interception.strip_alt_svc": True})
        with running.secured(hinting.port) as client:
            client.send(GET)
            assert client.read_head().status == 103 and client.read_answer().status == 200
        (response,) = running.handler.wait("on_response")
        assert response.headers.get_all("alt-svc") == ['h3=":1"', 'h2=":1"']


class TestContentEncoding:
    def test_a_stream_is_decoded_by_all_that_are_named(self, proxy: ProxyFactory, origin: Origin) -> None:
        lines = zlib.compress(b'{"a":1}\n{"b":2}\n')

        def answer(connection: ScriptedConnection, request: Request) -> None:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nContent-Encoding: identity\r\nContent-Encoding: deflate\r\n"
            connection.send(head + b"Content-Length: %d\r\n\r\n" % len(lines) + lines)

        origin.script(answer, "/x")
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(GET)
            assert client.read_answer().body == lines
        running.handler.wait("on_stream_end")
        assert [chunk.payload for chunk in running.handler.of("on_stream_chunk")] == [b'{"a":1}', b'{"b":2}']
