"""The first bytes of a TLS client: a verdict once given stays, whatever follows; it is that of a plain reader, and so is what is read.

Input: two bytes that cut the rest, then the client's bytes.
"""

from __future__ import annotations

import array
import re
import ssl
from collections.abc import Iterator

from fuzz.hello_mutations import mutate_hello
from fuzz.plain_hello import ECH, PlainHello, Refused, first_word_ends_in_a_blank, ja3_of, ja4_of, read_hello
from fuzz.plain_http import Refused as HttpRefused
from fuzz.plain_http import read_head
from soth_mitm.tls.client_hello import NEED_MORE, ClientHello, MalformedHello, parse_client_hello, parse_tunnelled_hello, sniff
from soth_mitm.tls.fingerprint import ja3, ja4
from soth_mitm.tls.names import parse_name
from support import hellos
from support.handshakes import client_hello_bytes
from support.samples import CORPUS

# Codes of extensions, and what stands before and in them
WORDS = (
    *(code.to_bytes(2) for code in (0, 10, 11, 13, 16, 43, 0xFE0D, 0x0A0A)),
    *(b"\x16\x03\x01", b"\x16\x03\x01\0\x01", b"\x01\0\0", b"\0\x02", b"\0\x05\0\x03\x02h2", b"\0\x04\0\0\x01a"),
)


mutate = mutate_hello
# As far as first bytes are looked at
SNIFFED = 256


def parsed(data: bytes) -> object:
    """Return what is made of the client's bytes so far, comparable."""
    try:
        # bytes objects have a byte too many, in which a read beyond the end would not be seen
        return parse_client_hello(memoryview(array.array("B", data)))
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
    check_tunnelled(text)
    assert parsed(text + b"\x16\x03\x01\0\x01x") == verdict or verdict is NEED_MORE
    for end in sorted({first % (len(text) + 1), (first + 7 * second) % (len(text) + 1), max(0, len(text) - 1)}):
        earlier = parsed(text[:end])
        assert earlier is NEED_MORE or earlier == verdict or same_fault(earlier, verdict), "a verdict that did not stay"
        earlier_kind = sniff(text[:end])
        assert earlier_kind is NEED_MORE or earlier_kind == kind, "a protocol that did not stay"
    check_request(text, kind)
    try:
        plain = read_hello(text)
    except Refused as refusal:
        assert isinstance(verdict, str), f"read, though there is {refusal}"
        return
    if plain is None:
        assert verdict is NEED_MORE, "judged before it is whole"
    else:
        assert isinstance(verdict, ClientHello), f"refused without a reason: {verdict}"
        assert kind == "tls"
        check(verdict, plain, text)


def check_request(text: bytes, kind: object) -> None:
    """No request passes for something else, and be it behind empty lines."""
    try:
        request = read_head(text.lstrip(b"\r\n"), True, len(text) + 1)
    except HttpRefused:
        request = None
    assert request is None or kind == "http", f"a request is taken for {kind}"
    if first_word_ends_in_a_blank(text[:SNIFFED]):
        assert kind in ("http", "tls", "sslv2") or text.startswith(b"SSH-"), f"what some server may take for a request is taken for {kind}"
    if text[:1] and 0x14 <= text[0] <= 0x17:
        assert kind == "tls"


def check_tunnelled(text: bytes) -> None:
    """A hello that is read is read in a tunnel as well, and what a warning stands before."""
    verdict = parsed(text)
    if isinstance(verdict, ClientHello):
        assert parse_tunnelled_hello(text) == verdict
        warned = parse_tunnelled_hello(b"\x15\x03\x01\0\2\1\0" + text) if len(text) < 65000 else verdict
        assert isinstance(warned, ClientHello) and warned.sni == verdict.sni
        return
    try:
        lenient = parse_tunnelled_hello(text)
    except MalformedHello as error:
        assert error.is_hello
        return
    # a tunnel waits where the strict reading does, or has read a hello that is refused elsewhere
    assert verdict is not NEED_MORE or lenient is NEED_MORE


def same_fault(earlier: object, later: object) -> bool:
    """Tell whether a fault is still one when more has come; its words may name more of what came."""
    return isinstance(earlier, str) and isinstance(later, str)


def check(hello: ClientHello, plain: PlainHello, text: bytes) -> None:
    """What is said of a hello is what it says."""
    assert hello.raw_length == plain.raw_length <= len(text)
    assert (hello.legacy_version, hello.session_id_length) == (plain.version, len(plain.session_id))
    assert (list(hello.ciphers), list(hello.extensions), list(hello.versions)) == (plain.suites, plain.extensions, plain.versions)
    assert (list(hello.groups), list(hello.point_formats), list(hello.signature_algorithms)) == (
        plain.groups,
        plain.formats,
        plain.signatures,
    )
    assert [name.encode("latin-1") for name in hello.alpn] == plain.protocols
    assert hello.has_ech == (ECH in plain.extensions)
    assert hello.sni == (plain.name.decode("ascii").lower().removesuffix(".") or None)
    assert parsed(text[: hello.raw_length]) == hello
    assert parsed(text[: hello.raw_length - 1]) is NEED_MORE
    said, digest = ja3(hello)
    assert said == ja3_of(plain) and re.fullmatch("[0-9a-f]{32}", digest)
    assert ja4(hello) == ja4_of(plain)
    if hello.sni is not None:
        try:
            parse_name(hello.sni)
        except ValueError as error:
            assert str(error)


def seeds() -> Iterator[bytes]:
    """Hellos of real programs, of this Python's OpenSSL and made by hand, and the beginnings of other protocols."""
    for path in sorted((CORPUS / "hellos").glob("*.hex")):
        yield bytes((90, 3)) + bytes.fromhex(path.read_text("ascii"))
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
        # a name as long as may be and a longer one, and two names
        *(hellos.records(hellos.handshake(hellos.hello_body(extensions=[hellos.server_name(b"a" * count)]))) for count in (255, 256)),
        hellos.records(hellos.handshake(hellos.hello_body(extensions=[(0, hellos.vector(b"\0\0\1a" * 2, 2))]))),
        # 300 records, and a message that is too long for any number
        hellos.records(hellos.handshake(hellos.hello_body(ciphers=range(127))), 1),
        hellos.records(b"\x01\x00\xff\xf8"),
        b"\x15\x03\x01\x00\x02\x01\x00" + hellos.records(hellos.handshake(body)),
        b"\x16\x02\x01\x00\x00" + hellos.records(hellos.handshake(body)),
        hellos.records(hellos.handshake(hellos.hello_body(extensions=None))),
        hellos.records(hellos.handshake(body, kind=2)),
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\n\r\nPOST http://a HTTP/1.0\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"PUT https://a/ HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ]
    for text in texts:
        yield bytes((40, 7)) + text
