"""Values of credentials in responses: nobody sees one, however an upstream writes it."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import urllib.parse
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.test_credentials import PLACEHOLDER, VALUE, Asking, asking, pairing, serving

from soth_mitm import Credential, Secret
from support.origin import Origin, Request, ScriptedConnection
from support.running import HOST, ProxyFactory, Running

__all__ = ["asking", "pairing", "serving"]

FIELDS = (("Authorization", f"Bearer {PLACEHOLDER}"),)


def credential(value: str = VALUE, **more: Any) -> Credential:
    return Credential(PLACEHOLDER, Secret(value), ["localhost:*"], **more)


@pytest.fixture
def answering(proxy: ProxyFactory, serving: Any, asking: Any) -> Callable[..., tuple[Running, Origin, Asking]]:
    """A proxy in front of an origin of HTTP/1 that sends these bytes, each in a write of its own."""

    def make(*pieces: bytes, value: str = VALUE, h2: bool = False, **keys: Any) -> tuple[Running, Origin, Asking]:
        def script(connection: ScriptedConnection, request: Request) -> None:
            for piece in pieces:
                connection.send(piece)
            if b"Content-Length" not in pieces[0] and b"chunked" not in pieces[0]:
                connection.close()

        origin = serving(HOST)
        origin.script(script)
        running = proxy(credentials=[credential(value)], **keys)
        return running, origin, asking(running, origin.port, h2)

    return make


@pytest.mark.parametrize("value", [VALUE, 'a "quoted\\" /value+%'])
def test_an_echo_in_every_pairing(pairing: tuple[str, str], proxy: ProxyFactory, serving: Any, asking: Any, value: str) -> None:
    client, upstream = pairing
    origin = serving(HOST, alpn=("h2",) if upstream == "h2" else ())
    keys = {"http2.for_http1_clients": True}
    place = ("header:authorization", "body")
    running = proxy(credentials=[credential(value, place=place)], **keys)
    asker = asking(running, origin.port, client == "h2")
    answer = asker.ask("/", FIELDS)
    assert answer.status == 200
    echo = json.loads(answer.text)
    assert f"Bearer {PLACEHOLDER}" in [text for _, text in echo["headers"]]
    assert value not in answer.text and json.dumps(value)[1:-1] not in answer.text
    shown = running.handler.wait("on_response")[0]
    assert PLACEHOLDER in shown.body.decode() and json.dumps(value)[1:-1] not in shown.body.decode()
    assert running.metrics().redacted_value_count == 1


@pytest.mark.parametrize(
    "echo",
    [
        VALUE.encode(),
        urllib.parse.quote(VALUE, safe="").encode(),
        json.dumps(VALUE).encode(),
        b"x" * 2 + base64.b64encode(b"user:" + VALUE.encode()),
        base64.b64encode(b"a" + VALUE.encode()),
        base64.urlsafe_b64encode(b"ab" + VALUE.encode() + b"c"),
    ],
)
def test_spellings(answering: Any, echo: bytes) -> None:
    body = b"error: your key " + echo + b" is wrong"
    _, _, client = answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = client.ask("/", FIELDS)
    assert answer.status == 401
    assert PLACEHOLDER in answer.text and answer.text.startswith("error: your key ") and answer.text.endswith(" is wrong")
    assert answer.get("content-length") is None


def test_the_head_and_trailers(answering: Any) -> None:
    for h2 in (False, True):
        running, _, client = answering(
            b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % VALUE.encode()
            + b'HTTP/1.1 200 %b\r\nX-Echo: a %b b\r\nSet-Cookie: %b\r\nETag: "x"\r\n' % ((VALUE.encode(),) * 3)
            + b"Last-Modified: x\r\nAccept-Ranges: bytes\r\nContent-Digest: x\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"3\r\nabc\r\n0\r\nX-T: %b\r\n\r\n" % VALUE.encode(),
            h2=h2,
        )
        if h2:
            answer = client.ask("/", FIELDS)
            assert answer.get("x-echo") == f"a {PLACEHOLDER} b" and answer.text == "abc"
            assert VALUE not in repr(answer)
            continue
        client.wire.send(f"GET / HTTP/1.1\r\nHost: {client.authority}\r\nAuthorization: {PLACEHOLDER}\r\nTE: trailers\r\n\r\n".encode())
        hints = client.wire.read_head()
        assert (hints.status, hints.get("link")) == (103, f"<{PLACEHOLDER}>")
        answer = client.wire.read_answer()
        assert (answer.reason, answer.get("x-echo"), answer.get("set-cookie")) == (PLACEHOLDER, f"a {PLACEHOLDER} b", PLACEHOLDER)
        assert not any(answer.get(name) for name in ("etag", "last-modified", "accept-ranges", "content-digest", "content-length"))
        assert answer.text == "abc" and answer.trailers == [("X-T", PLACEHOLDER)]
        assert client.ask("/", FIELDS).status == 103, "the connection goes on"
        assert client.wire.read_answer().text == "abc"
        assert running.handler.wait("on_response")[0].trailers["x-t"] == PLACEHOLDER


def test_every_split(answering: Any) -> None:
    body = b"1 " + VALUE.encode() + b" 2"
    for size in (1, 2, 3, 7):
        pieces = [b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]) for at in range(0, len(body), size)]
        _, _, client = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n")
        assert client.ask("/", FIELDS).text == f"1 {PLACEHOLDER} 2"


@pytest.mark.parametrize("coding, encode", [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_coded_body(answering: Any, coding: bytes, encode: Callable[[bytes], bytes]) -> None:
    body = encode(b"x" * 100_000 + VALUE.encode() + b"y" * 100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(body))
    running, _, client = answering(head, body)
    for _ in range(2):
        answer = client.ask("/", FIELDS)
        assert answer.text == "x" * 100_000 + PLACEHOLDER + "y" * 100_000
        assert answer.get("content-encoding") is None
    shown = running.handler.wait("on_response")[0]
    assert PLACEHOLDER.encode() in shown.body and "content-encoding" not in shown.headers


def test_what_cannot_be_decoded(answering: Any) -> None:
    _, _, client = answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: secret-code\r\nContent-Length: 3\r\n\r\nabc")
    answer = client.ask("/", FIELDS)
    assert answer.status == 502 and "credentials.redact" in answer.text
    broken = gzip.compress(b"x" * 1000)[:-12] + b"123456789012"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(broken)
    running, _, client = answering(head + broken)
    with pytest.raises((EOFError, OSError)):
        client.ask("/", FIELDS)
    assert running.metrics().cut_response_count == 1


def test_a_bomb_is_cut(answering: Any) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    _, _, client = answering(head + bomb)
    assert len(client.ask("/", FIELDS).body) == 50_000_000


def test_events_are_not_held_back(answering: Any, proxy: ProxyFactory, serving: Any, asking: Any) -> None:
    may_go_on = threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            event = b'data: {"key": "%b"}\n\n' % VALUE.encode()
            connection.send(b"%x\r\n%b\r\n" % (len(event), event))
            if number == 0:
                connection.wait(may_go_on)
        connection.send(b"0\r\n\r\n")

    origin = serving(HOST)
    origin.script(script)
    running = proxy(credentials=[credential()])
    client = asking(running, origin.port)
    client.wire.send(f"GET / HTTP/1.1\r\nHost: {client.authority}\r\nAuthorization: {PLACEHOLDER}\r\n\r\n".encode())
    client.wire.read_until(b"\r\n\r\n")
    first = client.wire.read_until(b"\n\n")
    assert PLACEHOLDER.encode() in first and VALUE.encode() not in first
    may_go_on.set()
    chunks = running.handler.wait("on_stream_chunk", 3)
    assert [json.loads(chunk.payload) for chunk in chunks] == [{"key": PLACEHOLDER}] * 3


def test_no_part_is_asked_for(answering: Any) -> None:
    _, origin, client = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.ask("/", (*FIELDS, ("Range", "bytes=0-3"), ("If-Range", '"x"'), ("If-None-Match", '"x"')))
    names = [name.lower() for name, _ in origin.requests[-1].headers]
    assert "range" not in names and "if-range" not in names and "if-none-match" in names


def test_heads_without_bodies(answering: Any) -> None:
    _, _, client = answering(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\nETag: "x"\r\nX-Echo: %b\r\n\r\n' % VALUE.encode())
    answer = client.ask("/", FIELDS, method="HEAD")
    assert (answer.get("content-length"), answer.get("etag"), answer.get("x-echo")) == ("500", '"x"', PLACEHOLDER)
    _, _, client = answering(b'HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\nETag: "x"\r\n\r\n')
    assert client.ask("/", FIELDS).get("etag") == '"x"'


def test_a_body_until_close(answering: Any) -> None:
    _, _, client = answering(b"HTTP/1.1 200 OK\r\n\r\n1 " + VALUE.encode()[:5], VALUE.encode()[5:] + b" 2")
    assert client.ask("/", FIELDS).text == f"1 {PLACEHOLDER} 2"


def test_without_redact_nothing_is_touched(proxy: ProxyFactory, serving: Any, asking: Any) -> None:
    origin = serving(HOST)
    running = proxy(credentials=[Credential(PLACEHOLDER, Secret(VALUE), ["localhost:*"], redact=False)])
    answer = asking(running, origin.port).ask("/", FIELDS)
    assert VALUE in answer.text and answer.get("content-length") is not None


def test_an_upload_that_goes_on_behind_the_response(proxy: ProxyFactory, serving: Any, asking: Any) -> None:
    origin = serving(HOST)
    running = proxy(credentials=[credential()], **{"body.buffer_request_bodies": False})
    client = asking(running, origin.port)
    answer = client.ask("/early", FIELDS, b"x" * 500_000)
    assert answer.status == 200
