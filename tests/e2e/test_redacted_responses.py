"""Values of credentials in responses: nobody sees one, however an upstream writes it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import threading
import urllib.parse
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from h2.exceptions import ProtocolError
from tests.e2e.test_credentials import PLACEHOLDER, VALUE, Asking, asking, pairing, serving

from soth_mitm import Credential, RawResponse, ResponseDecision, Secret
from support.leaks import what_remains
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
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


class Holds(Recording):
    """Waits for each body, and lets it pass."""

    def on_response_head(self, response: RawResponse) -> ResponseDecision:
        return ResponseDecision.HOLD

    def on_response_body(self, response: RawResponse) -> ResponseDecision:
        return ResponseDecision.PASS


class TestHeld:
    """A response that was held is no body of a request: nothing is put in there, or looked for."""

    @pytest.mark.parametrize("buffers", [True, False])
    def test_values_stay_out(self, pairing: tuple[str, str], proxy: ProxyFactory, serving: Any, asking: Any, buffers: bool) -> None:
        client, upstream = pairing
        origin = serving(HOST, alpn=("h2",) if upstream == "h2" else ())
        running = proxy(
            Holds(),
            credentials=[credential(place=("header:authorization", "body"))],
            **{"http2.for_http1_clients": True, "body.buffer_request_bodies": buffers},
        )
        answer = asking(running, origin.port, client == "h2").ask("/", FIELDS, f"and {PLACEHOLDER}".encode())
        assert origin.requests[-1].length == len(f"and {VALUE}")
        assert f"Bearer {PLACEHOLDER}" in [text for _, text in json.loads(answer.text)["headers"]]
        assert VALUE not in answer.text

    def test_a_placeholder_of_another_destination(self, proxy: ProxyFactory, serving: Any, asking: Any) -> None:
        other = "other-placeholder-1"
        body = f"ask for {other}".encode()

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.read_body()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        origin = serving(HOST)
        origin.script(script)
        running = proxy(
            Holds(),
            credentials=[credential(), Credential(other, Secret("sk-other-0123456789"), ["other.example:*"])],
            **{"body.buffer_request_bodies": False, "interception.destinations": ["localhost:*", "other.example:*"]},
        )
        assert asking(running, origin.port).ask("/", FIELDS, b"a body").body == body


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


def message(payload: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(payload).to_bytes(4, "big") + payload


def grpc(*pieces: bytes, encoding: str = "gzip", media_type: str = "application/grpc") -> Callable[[ScriptedConnection, Request], None]:
    def script(connection: ScriptedConnection, request: Request) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\ngrpc-encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n"
        with contextlib.suppress(ProtocolError):
            connection.send(head.encode())
            for piece in pieces:
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.send(b"0\r\ngrpc-status: 0\r\n\r\n")

    return script


@pytest.fixture
def calling(pairing: tuple[str, str], proxy: ProxyFactory, serving: Any, asking: Any) -> Callable[..., tuple[Running, Origin, Asking]]:
    def make(**keys: Any) -> tuple[Running, Origin, Asking]:
        client, upstream = pairing
        origin = serving(HOST, alpn=("h2",) if upstream == "h2" else ())
        running = proxy(**{"credentials": [credential()], "http2.for_http1_clients": True, **keys})
        return running, origin, asking(running, origin.port, client == "h2")

    return make


STARS = b"*" * len(VALUE)


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("media_type", ["application/grpc", "application/grpc-web+proto"])
def test_messages_of_grpc(calling: Any, size: int, media_type: str) -> None:
    """A value becomes as many asterisks, and a compressed message that had one leaves without compression."""
    running, origin, client = calling()
    plain, packed = b"\x0a\x12" + VALUE.encode(), gzip.compress(b"nothing in it")
    sent = [message(plain), message(packed, 1), message(gzip.compress(b"a " + VALUE.encode()), 1), message(b""), message(plain)]
    whole = b"".join(sent)
    origin.script(grpc(*(whole[at : at + size] for at in range(0, len(whole), size)), media_type=media_type), "/x")
    answer = client.ask("/x", FIELDS)
    left = [message(b"\x0a\x12" + STARS), message(packed, 1), message(b"a " + STARS), message(b""), message(b"\x0a\x12" + STARS)]
    assert answer.body == b"".join(left)
    shown = [chunk.payload for chunk in running.handler.wait("on_stream_chunk", 5)]
    assert shown == [b"\x0a\x12" + STARS, b"nothing in it", b"a " + STARS, b"", b"\x0a\x12" + STARS]
    running.wait_idle("active_flows", "buffered_bytes")
    assert running.metrics().redacted_value_count == 3


def test_compressed_messages_of_an_unknown_coding(calling: Any) -> None:
    running, origin, client = calling()
    origin.script(grpc(message(b"x", 1), encoding="snappy"), "/x")
    answer = client.ask("/x", FIELDS)
    assert answer.status == 502 and "credentials.redact" in answer.text


@pytest.mark.parametrize(
    "last", [message(b"none", 1), message(gzip.compress(b"x" * 5000), 1)[:-3], message(gzip.compress(bytes(100_000)), 1)]
)
def test_a_compressed_message_that_cannot_be_looked_into_cuts_the_call(calling: Any, last: bytes) -> None:
    running, origin, client = calling(**{"body.max_size_bytes": 65536})
    origin.script(grpc(message(b"good") + last), "/x")
    try:
        body = client.ask("/x", FIELDS).body
    except (EOFError, OSError):
        body = b""
    assert last[5:] not in body
    running.wait_idle("active_flows", "buffered_bytes")
    assert running.metrics().cut_response_count == 1


def test_what_is_held_of_a_message_is_charged(calling: Any) -> None:
    running, origin, client = calling()
    packed = message(gzip.compress(os.urandom(50_000)), 1)
    go = threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(b"%x\r\n%b\r\n" % (40_000, packed[:40_000]))
        connection.wait(go)
        connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed) - 40_000, packed[40_000:]))

    origin.script(script, "/x")
    answers: list[Any] = []
    asker = threading.Thread(target=lambda: answers.append(client.ask("/x", FIELDS)))
    asker.start()
    try:
        assert not what_remains(lambda: {} if running.metrics().buffered_bytes >= 40_000 else {"missing": 1})
    finally:
        go.set()
        asker.join()
    assert answers[0].body == packed
    running.wait_idle("active_flows", "buffered_bytes")


def test_misdirected_in_messages_of_grpc(calling: Any) -> None:
    keys = {"credentials": [Credential(PLACEHOLDER, Secret(VALUE), ["localhost:1"])]}
    running, origin, client = calling(**keys)
    fields = (("content-type", "application/grpc"), ("grpc-encoding", "gzip"))
    good = message(gzip.compress(b"good"), 1) + message(b"ends in " + VALUE[:9].encode())
    assert client.ask("/", fields, good).status == 200
    assert bytes(origin.requests[-1].body) == good
    for count, bad in enumerate((message(b"a " + VALUE.encode()), message(gzip.compress(b"a " + VALUE.encode()), 1)), 1):
        refused = client.ask("/", fields, good + bad)
        # to a client of gRPC without content
        assert refused.status == 403 or refused.get("grpc-status") == "7"
        assert running.metrics().blocked_placeholder_count == count
    running.wait_idle("active_flows")
    assert not any(request.complete for request in origin.requests[1:])


def test_no_value_is_put_into_messages_of_grpc(calling: Any) -> None:
    """They say how long they are."""
    keys = {"credentials": [credential(place=("body",))], "streams.types": ["application/x-calls=grpc"]}
    running, origin, client = calling(**keys)
    sent = message(b"a " + PLACEHOLDER.encode())
    for media_type in ("application/grpc", "application/grpc-web", "application/x-calls"):
        assert client.ask("/", (("content-type", media_type),), sent).status == 200
        assert bytes(origin.requests[-1].body) == sent


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
