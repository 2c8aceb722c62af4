"""Every gate that the documents show is attacked through the body: nothing of a request that it would block reaches the upstream.

A secret is hidden behind padding, behind a coding that we do not know, behind silence, inside a stream of lines or of messages, or where
one server decodes what another one does not. An example either finds it or blocks what it cannot see; with `body.incomplete` the proxy
does.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import brotli
import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.leaks import what_remains
from support.running import ProxyFactory, Running
from support.source import ROOT
from support.tap import Tap
from support.wire_client import Answer, WireClient

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECRET = b"-----BEGIN EC PRIVATE KEY-----\nMIGk\n-----END EC PRIVATE KEY-----\n"
LIMIT = 1 << 20


class Attack(NamedTuple):
    """A request with a body; the client says no more of it than `sent`, and stays."""

    fields: str
    body: bytes
    chunked: bool = False
    sent: int | None = None


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def stored_gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(level=0, wbits=31)
    return packer.compress(data) + packer.flush()


def stacked(times: int) -> bytes:
    body = SECRET
    for _ in range(times):
        body = gzip.compress(body)
    return body


def bomb() -> bytes:
    packer = brotli.Compressor(quality=5)
    return b"".join([packer.process(bytes(LIMIT)) for _ in range(8)]) + bytes(packer.process(SECRET) + packer.finish())


def two_readings() -> bytes:
    """Return a zlib stream without a fault that, read without the wrapper, is a stored block of other content and ends behind it."""
    shown, hidden = 0xFFFF - 94, SECRET.ljust(92)
    prefix = bytes((0x78, 94, 0, 94 ^ 0xFF, 0xFF)) + (shown ^ 0xFFFF).to_bytes(2, "little")
    content = (hidden + b"\1\0\0\xff\xff").ljust(shown)
    return prefix + content + b"\1\0\0\xff\xff" + zlib.adler32(content).to_bytes(4)


def attacks() -> Iterator[tuple[str, Attack]]:
    """Name and request."""
    encoded = "Content-Encoding: {}\r\n".format
    message = b"\0" + len(SECRET).to_bytes(4) + SECRET
    yield "as it is", Attack("", SECRET)
    yield "chunked", Attack("", SECRET, chunked=True)
    for name, coded in (("gzip", gzip.compress(SECRET)), ("br", brotli.compress(SECRET)), ("zstd", zstd.compress(SECRET))):
        yield name, Attack(encoded(name), coded)
    yield "deflate with the wrapper", Attack(encoded("deflate"), zlib.compress(SECRET))
    yield "deflate without it", Attack(encoded("deflate"), raw_deflate(SECRET))
    yield "deflate that is both", Attack(encoded("deflate"), two_readings())
    yield "stacked twice", Attack(encoded("gzip, gzip"), stacked(2))
    yield "stacked in two fields", Attack(encoded("gzip") + encoded("gzip"), stacked(2))
    yield "stacked too often", Attack(encoded(", ".join(["gzip"] * 9)), stacked(9))
    yield "a coding that is not known", Attack(encoded("foo"), bytes(byte ^ 1 for byte in SECRET))
    yield "a coding with a blank that is none", Attack("Content-Encoding: identity\xa0\r\n", bytes(byte ^ 1 for byte in SECRET))
    yield "gzip, damaged", Attack(encoded("gzip"), gzip.compress(SECRET)[:-5] + b"wrong")
    yield "gzip, cut", Attack(encoded("gzip"), gzip.compress(SECRET)[:-9])
    yield "gzip, and more after its end", Attack(encoded("gzip"), gzip.compress(b"harmless") + SECRET)
    yield "a second member", Attack(encoded("gzip"), gzip.compress(b"harmless") + gzip.compress(SECRET))
    yield "a second member after padding", Attack(encoded("gzip"), gzip.compress(b"harmless") + bytes(9) + gzip.compress(SECRET))
    yield "deflate, and more after its end", Attack(encoded("deflate"), zlib.compress(b"harmless") + SECRET)
    yield "raw deflate, and more after its end", Attack(encoded("deflate"), raw_deflate(b"harmless") + SECRET)
    yield "zstd, and more after its frame", Attack(encoded("zstd"), zstd.compress(b"harmless") + SECRET)
    yield "a second frame", Attack(encoded("zstd"), zstd.compress(b"harmless") + zstd.compress(SECRET))
    yield "br, and more after its end", Attack(encoded("br"), brotli.compress(b"harmless") + SECRET)
    yield "a bomb before it", Attack(encoded("br"), bomb())
    yield "padding before it", Attack("", b" " * LIMIT + SECRET)
    yield "padding before it, chunked", Attack("", b" " * LIMIT + SECRET, chunked=True)
    yield "padding before it, gzip", Attack(encoded("gzip"), gzip.compress(b" " * LIMIT + SECRET))
    yield "padding before it, stored", Attack(encoded("gzip"), stored_gzip(b" " * (LIMIT + 1000) + SECRET))
    yield "a pause before it", Attack("", b" " * 100 + SECRET, sent=100)
    yield "a pause before it, chunked", Attack("", b" " * 100 + SECRET, chunked=True, sent=20)
    yield "a pause at once", Attack("", SECRET, sent=0)
    yield "a pause within gzip", Attack(encoded("gzip"), stored_gzip(b" " * 100 + SECRET), sent=60)
    for kind in ("application/x-ndjson", "application/jsonl", "application/stream+json", "application/json-seq", "text/event-stream"):
        yield kind, Attack(f"Content-Type: {kind}\r\n", b'{"a": 1}\n{"key": "%b"}\n' % SECRET.replace(b"\n", b"\\n"))
    for kind in ("application/grpc", "application/grpc+proto", "Application/GRPC;x=y", "application/grpcfoo", "application/grpc-web+proto"):
        yield kind, Attack(f"Content-Type: {kind}\r\n", message)
        yield f"{kind}, chunked", Attack(f"Content-Type: {kind}\r\n", message, chunked=True)
    yield (
        "multipart",
        Attack(
            "Content-Type: multipart/form-data; boundary=x\r\n",
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="k"\r\n\r\n' + SECRET + b"\r\n--x--\r\n",
        ),
    )
    yield "a form", Attack("Content-Type: application/x-www-form-urlencoded\r\n", b"k=" + SECRET.replace(b" ", b"+"))
    yield "UTF-16", Attack("Content-Type: text/plain; charset=utf-16\r\n", SECRET.decode().encode("utf-16"))
    yield "behind Expect", Attack("Expect: 100-continue\r\n", SECRET)
    yield "behind an upgrade", Attack("Connection: upgrade\r\nUpgrade: tcp\r\n", SECRET)


ATTACKS = dict(attacks())


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs/examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PlainGate(InterceptHandler):
    """What somebody writes who trusts `body.incomplete`; `asked` has the bodies that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[RawRequest] = []

    def on_request(self, request: RawRequest) -> HandlerDecision:
        self.asked.append(request)
        return HandlerDecision.block(403) if SECRET[:10] in request.body.replace(b"\0", b"") else HandlerDecision.ALLOW


def wire(attack: Attack, path: str) -> tuple[bytes, bytes]:
    """Return head and body."""
    framing = "Transfer-Encoding: chunked" if attack.chunked else f"Content-Length: {len(attack.body)}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{attack.fields}{framing}\r\n\r\n".encode("latin-1")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(attack.body), attack.body) if attack.chunked else attack.body
    return head, body[: attack.sent]


def attempt(client: WireClient, attack: Attack, path: str = "/up") -> Answer:
    head, body = wire(attack, path)
    client.send(head + body)
    answer = client.read_answer()
    return client.read_answer() if answer.status == 100 else answer


def assert_blocked(running: Running, tap: Tap, attack: Attack, path: str = "/up") -> Answer:
    mark = tap.journal.mark()
    with running.tunnel(tap.port) as client:
        answer = attempt(client, attack, path)
    assert 400 <= answer.status < 500, (answer.status, answer.text)
    assert not what_remains(lambda: {"flows": running.metrics().active_flows} if running.metrics().active_flows else {})
    assert tap.journal.plain_since(mark) == b""
    return answer


KEYS = {"body.max_size_bytes": LIMIT, "body.buffer_timeout_ms": 50}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_gate_of_the_readme(proxy: ProxyFactory, plain_tap: Tap, attack: Attack) -> None:
    assert_blocked(proxy(example("gate").Gate(), **KEYS), plain_tap, attack)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_gate_of_the_quick_start(proxy: ProxyFactory, plain_tap: Tap, attack: Attack) -> None:
    answer = assert_blocked(proxy(example("quick_start").Gate(), **KEYS), plain_tap, attack, "/blocked/up")
    assert answer.status == 403


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_gate_that_looks_at_nothing_but_the_body(proxy: ProxyFactory, plain_tap: Tap, attack: Attack) -> None:
    gate = PlainGate()
    answer = assert_blocked(proxy(gate, **KEYS, **{"body.incomplete": "refuse"}), plain_tap, attack)
    assert all(request.body_problem is None for request in gate.asked)
    # the proxy says why it does not ask
    assert gate.asked or "body.incomplete" in answer.text or "body.max_size_bytes" in answer.text


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("padding before it", 413),
        ("padding before it, chunked", 413),
        ("a pause before it", 408),
        ("a pause within gzip", 408),
        ("a coding that is not known", 415),
        ("gzip, and more after its end", 415),
        ("a bomb before it", 415),
        ("application/grpc", 415),
        ("behind an upgrade", 415),
    ],
)
def test_each_refusal_has_its_status_and_is_counted(proxy: ProxyFactory, plain_tap: Tap, name: str, status: int) -> None:
    running = proxy(PlainGate(), **KEYS, **{"body.incomplete": "refuse"})
    assert assert_blocked(running, plain_tap, ATTACKS[name]).status == status
    assert running.metrics().refused_request_count == 1


PROBLEMS = {
    "padding before it": "too_long",
    "padding before it, chunked": "too_long",
    "a pause before it": "late",
    "a pause within gzip": "late",
    "a coding that is not known": "undecodable",
    "a second member": "undecodable",
    "a bomb before it": "undecodable",
    "application/grpc": "conversation",
    "application/grpc+proto, chunked": "conversation",
    "behind an upgrade": "conversation",
    "application/grpcfoo": None,
    "application/x-ndjson": None,
    "deflate without it": None,
    "as it is": None,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_handler_is_told_why_it_does_not_see_all(proxy: ProxyFactory, plain_tap: Tap, name: str) -> None:
    told: list[RawRequest] = []

    class Note(InterceptHandler):
        def on_request(self, request: RawRequest) -> HandlerDecision:
            told.append(request)
            return HandlerDecision.block(403)

    running = proxy(Note(), **KEYS)
    assert_blocked(running, plain_tap, ATTACKS[name])
    assert [request.body_problem for request in told] == [PROBLEMS[name]]


def test_a_body_that_nobody_collects_is_a_conversation(proxy: ProxyFactory, plain_tap: Tap) -> None:
    gate = PlainGate()
    running = proxy(gate, **{"body.buffer_request_bodies": False})
    with running.tunnel(plain_tap.port) as client:
        assert attempt(client, Attack("", b"x")).status == 200
        assert attempt(client, Attack("", b"")).status == 200
    assert [request.body_problem for request in gate.asked] == ["conversation", None]


GOOD = {
    "nothing": Attack("", b""),
    "text": Attack("", b"harmless"),
    "chunked": Attack("", b"harmless", chunked=True),
    "as long as may be": Attack("", b" " * LIMIT, chunked=True),
    "gzip": Attack("Content-Encoding: gzip\r\n", gzip.compress(b"harmless")),
    "gzip, nothing": Attack("Content-Encoding: gzip\r\n", b""),
    "deflate": Attack("Content-Encoding: deflate\r\n", zlib.compress(b"harmless")),
    "raw deflate": Attack("Content-Encoding: deflate\r\n", raw_deflate(b"harmless")),
    "raw deflate, nothing": Attack("Content-Encoding: deflate\r\n", raw_deflate(b"")),
    "br": Attack("Content-Encoding: br\r\n", brotli.compress(b"harmless")),
    "zstd": Attack("Content-Encoding: zstd\r\n", zstd.compress(b"harmless")),
    "stacked": Attack("Content-Encoding: gzip, br\r\n", brotli.compress(gzip.compress(b"harmless"))),
    "lines": Attack("Content-Type: application/x-ndjson\r\n", b"{}\n{}\n"),
    "gRPC-Web": Attack("Content-Type: application/grpc-web\r\n", b"\0\0\0\0\1x"),
}


@pytest.mark.parametrize("attack", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("incomplete", ["show", "refuse"])
def test_what_can_be_seen_passes(proxy: ProxyFactory, plain_tap: Tap, attack: Attack, incomplete: str) -> None:
    running = proxy(example("gate").Gate(), **KEYS, **{"body.incomplete": incomplete})
    mark = plain_tap.journal.mark()
    head, body = wire(attack, "/up")
    with running.tunnel(plain_tap.port) as client:
        client.send(head + body)
        assert client.read_answer().status == 200
    plain_tap.journal.wait_plain(mark, head + body)


def test_monitor_refuses_nothing(proxy: ProxyFactory, plain_tap: Tap) -> None:
    gate = PlainGate()
    running = proxy(gate, intercept_mode="monitor", **KEYS, **{"body.incomplete": "refuse"})
    with running.tunnel(plain_tap.port) as client:
        assert attempt(client, ATTACKS["a coding that is not known"]).status == 200
    running.wait_idle()
    assert [request.body_problem for request in gate.asked] == ["undecodable"]


def test_who_asks_no_handler_is_refused_nothing(proxy: ProxyFactory, plain_tap: Tap) -> None:
    class Watch(InterceptHandler):
        def on_response(self, response: object) -> None: ...

    running = proxy(Watch(), **KEYS, **{"body.incomplete": "refuse"})
    with running.tunnel(plain_tap.port) as client:
        assert attempt(client, ATTACKS["a coding that is not known"]).status == 200
