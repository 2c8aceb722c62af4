"""The first bytes of a TLS client: a verdict once given stays, whatever follows; what is parsed can be fingerprinted.

Input: two bytes that cut the rest, then the client's bytes.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from soth_mitm.tls.client_hello import MAX_HELLO_BYTES, NEED_MORE, ClientHello, MalformedHello, parse_client_hello, sniff
from soth_mitm.tls.fingerprint import ja3, ja4
from soth_mitm.tls.names import parse_name
from support import hellos
from support.handshakes import client_hello_bytes

JA4 = re.compile(r"t(?:s2|s3|10|11|12|13|00)[di]\d{4}[0-9a-zA-Z]{2}_[0-9a-f]{12}_[0-9a-f]{12}")
JA3 = re.compile(r"\d+,[\d-]*,[\d-]*,[\d-]*,[\d-]*")


def parsed(data: bytes) -> object:
    """Return what is made of the client's bytes so far, comparable."""
    try:
        return parse_client_hello(data)
    except MalformedHello as error:
        assert 0 < error.alert < 256
        return f"malformed: {error.alert} {error}"


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 2:
        return
    first, second = data[:2]
    text = data[2:]
    verdict, kind = parsed(text), sniff(text)
    assert sniff(text + b"more") == kind or kind is NEED_MORE
    assert parsed(text + b"\x16\x03\x01\0\x01x") == verdict or verdict is NEED_MORE
    for end in sorted({first % (len(text) + 1), (first + 7 * second) % (len(text) + 1), max(0, len(text) - 1)}):
        earlier = parsed(text[:end])
        assert earlier is NEED_MORE or earlier == verdict or same_fault(earlier, verdict), "a verdict that did not stay"
        earlier_kind = sniff(text[:end])
        assert earlier_kind is NEED_MORE or earlier_kind == kind, "a protocol that did not stay"
    if isinstance(verdict, ClientHello):
        assert kind == "tls"
        check(verdict, text)
    elif verdict is NEED_MORE:
        # bounded: what has not ended by then never will
        assert len(text) < 2 * MAX_HELLO_BYTES


def same_fault(earlier: object, later: object) -> bool:
    """Tell whether a fault is still one when more has come; its words may name more of what came."""
    return isinstance(earlier, str) and isinstance(later, str)


def check(hello: ClientHello, text: bytes) -> None:
    """What is said of a hello holds."""
    assert 0 < hello.raw_length <= len(text)
    assert parsed(text[: hello.raw_length]) == hello
    assert parsed(text[: hello.raw_length - 1]) is NEED_MORE
    said, digest = ja3(hello)
    assert JA3.fullmatch(said) and re.fullmatch("[0-9a-f]{32}", digest)
    assert JA4.fullmatch(ja4(hello)), ja4(hello)
    if hello.sni is not None:
        assert hello.sni == hello.sni.lower() and hello.sni.isascii() and hello.sni.isprintable() and " " not in hello.sni
        try:
            parse_name(hello.sni)
        except ValueError as error:
            assert str(error)


def seeds() -> Iterator[bytes]:
    """Hellos of this Python's OpenSSL, hellos made by hand, and the beginnings of other protocols."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    body = hellos.hello_body(
        session_id=bytes(32),
        ciphers=(0x0A0A, 0x1301, 0xC02F),
        extensions=[
            (0x1A1A, b""),
            hellos.server_name(b"www.example.com"),
            hellos.alpn(b"\xba\xba", b"h2"),
            hellos.groups(0x2A2A, 29),
            hellos.point_formats(0),
            hellos.signature_algorithms(0x0403, 0x0804),
            hellos.supported_versions(0x3A3A, 0x0304),
            (0xFE0D, b"\0"),
        ],
    )
    texts = [
        client_hello_bytes(context, "example.org"),
        hellos.records(hellos.handshake(body)),
        hellos.records(hellos.handshake(body), 7),
        hellos.records(hellos.handshake(hellos.hello_body(extensions=None))),
        hellos.records(hellos.handshake(body, kind=2)),
        b"GET / HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"PUT https://a/ HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ]
    for text in texts:
        yield bytes((40, 7)) + text
