"""The ClientHello parser: real hellos, every split, every lie about a length, any bytes."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm.tls.client_hello import (
    MAX_HELLO_BYTES,
    NEED_MORE,
    ClientHello,
    MalformedHello,
    may_become,
    parse_client_hello,
    parse_tunnelled_hello,
    sniff,
)
from support.handshakes import client_hello_bytes
from support.hellos import (
    alpn,
    groups,
    handshake,
    hello_body,
    point_formats,
    records,
    server_name,
    signature_algorithms,
    supported_versions,
    uint16s,
    vector,
)


def real_hello(name="a.example", protocols=("h2", "http/1.1"), highest=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = highest
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return client_hello_bytes(context, name)


REAL = real_hello()


def parse(*extensions, **fields):
    return parse_client_hello(records(handshake(hello_body(extensions=extensions, **fields))))


def test_hello_of_openssl():
    hello = parse_client_hello(REAL)
    assert hello.sni == "a.example" and hello.alpn == ("h2", "http/1.1")
    assert hello.legacy_version == 0x0303 and hello.versions == (0x0304, 0x0303)
    assert 0x1302 in hello.ciphers and 0x001D in hello.groups and 0x0403 in hello.signature_algorithms
    assert hello.point_formats == (0, 1, 2) and hello.session_id_length == 32 and not hello.has_ech
    assert {0, 10, 11, 13, 16, 43, 51} <= set(hello.extensions) and hello.raw_length == len(REAL)


def test_hello_of_a_tls12_client_without_name_and_alpn():
    hello = parse_client_hello(real_hello("127.0.0.1", (), ssl.TLSVersion.TLSv1_2))
    assert hello.sni is None and hello.alpn == () and hello.versions == ()


def test_every_split_needs_more_until_whole():
    for length in range(len(REAL)):
        assert parse_client_hello(REAL[:length]) is NEED_MORE, length
    assert isinstance(parse_client_hello(REAL), ClientHello)


@pytest.mark.parametrize("size", [1, 5, 6, 40, 100])
def test_hello_over_many_records_is_the_same_hello(size):
    message = REAL[5:]
    split = records(message, size)
    for length in range(0, len(split), 7):
        assert parse_client_hello(split[:length]) is NEED_MORE, length
    assert parse_client_hello(split[:-1]) is NEED_MORE
    whole, parts = parse_client_hello(REAL), parse_client_hello(split)
    assert parts.raw_length == len(split)
    assert parts.extensions == whole.extensions and parts.ciphers == whole.ciphers and parts.sni == whole.sni


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_follows_the_hello_is_left_alone(kind):
    hello = parse_client_hello(kind(REAL + b"\x14\x03\x03\x00\x01\x01junk"))
    assert hello.raw_length == len(REAL)


def test_hello_without_extensions_is_old_and_valid():
    hello = parse_client_hello(records(handshake(hello_body(version=0x0301, ciphers=[47], extensions=None))))
    assert (hello.legacy_version, hello.ciphers, hello.extensions, hello.sni) == (0x0301, (47,), (), None)


def test_grease_and_unknown_extensions_are_kept_in_order():
    hello = parse(
        (0x0A0A, b""),
        server_name(b"A.Example"),
        groups(0x1A1A, 0x11EC, 29),
        supported_versions(0x2A2A, 0x0304),
        alpn(b"\xfa\xfa", b"h2"),
        (0xFE0D, b"\x00outer"),
        (0x4469, b"whatever"),
        (0xFAFA, b"\x00"),
        ciphers=[0x3A3A, 0x1301],
        session_id=b"s" * 32,
    )
    assert hello.extensions == (0x0A0A, 0, 10, 43, 16, 0xFE0D, 0x4469, 0xFAFA)
    assert hello.groups == (0x1A1A, 0x11EC, 29) and hello.versions == (0x2A2A, 0x0304) and hello.ciphers == (0x3A3A, 0x1301)
    assert hello.alpn == ("\xfa\xfa", "h2") and hello.has_ech and hello.sni == "a.example" and hello.session_id_length == 32


def test_lists_are_read_whole():
    hello = parse(point_formats(0, 1), signature_algorithms(0x0403, 0x0804))
    assert hello.point_formats == (0, 1) and hello.signature_algorithms == (0x0403, 0x0804)


@pytest.mark.parametrize(
    ("name", "sni"), [(b"a.example.", "a.example"), (b"10.0.0.1", "10.0.0.1"), (b"::1", "::1"), (b"a_b.c", "a_b.c"), (b".", None)]
)
def test_names_that_clients_send(name, sni):
    assert parse(server_name(name)).sni == sni


@pytest.mark.parametrize(
    "extension",
    [
        server_name(b"a b"),
        server_name(b"a\x00.example"),
        server_name("bücher".encode()),
        server_name(b"a" * 256),
        (0, vector((b"\x00" + vector(b"a", 2)) * 2, 2)),
        # Go passes over the first of these and takes the second, OpenSSL takes neither
        (0, vector(b"\x07" + vector(b"a.example", 2) + b"\x00" + vector(b"a", 2), 2)),
        (0, vector(b"\x07" + vector(b"a.example", 2), 2)),
    ],
)
def test_names_that_are_none_are_refused(extension):
    with pytest.raises(MalformedHello, match="server_name") as caught:
        parse(extension)
    assert caught.value.alert == 47


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        ((0, b""), "points past"),
        ((0, b"\x00\x00"), "vector of 0"),
        ((0, vector(b"\x00\x00\x00", 2)), "vector of 0"),
        ((0, server_name(b"a")[1] + b"!"), "too many in server_name"),
        ((16, b"\x00\x00"), "vector of 0"),
        ((16, vector(b"\x00\x00", 2)), "vector of 0"),
        ((16, vector(b"\x05h2", 2)), "points past"),
        ((16, alpn(b"h2")[1] + b"!"), "too many in ALPN"),
        ((10, vector(b"\x00\x1d\x00", 2)), "multiple of 2"),
        ((10, b"\x00\x00"), "vector of 0"),
        ((43, b"\x03\x03\x04\x03\x03"), "multiple of 2"),
        ((43, b"\x02\x03\x04\x00"), "too many"),
        ((11, b"\x00"), "vector of 0"),
    ],
)
def test_extensions_that_lie_about_lengths_are_refused(extension, words):
    with pytest.raises(MalformedHello, match=words) as caught:
        parse(extension)
    assert caught.value.alert == 50


BODY = hello_body()


@pytest.mark.parametrize(
    ("stream", "alert"),
    [
        (b"\x17", 10),
        (b"\x15\x03\x01\x00\x02\x02\x28", 10),
        (b"\x16\x02", 70),
        (b"\x16\x03\x01\x40\x01", 22),
        (b"\x16\x03\x01\x00\x00", 10),
        (b"\x16\x03\x01\x00\x01\x02", 10),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x01", 50),
        (records(handshake(BODY)[:10]) + b"\x14", 10),
        (records(handshake(BODY + b"!")), 50),
        (records(handshake(BODY[:-1])), 50),
        (records(handshake(b"")), 50),
        (records(handshake(hello_body(session_id=b"s" * 33))), 50),
        (records(handshake(hello_body(ciphers=[]))), 50),
        (records(handshake(b"\x03\x03" + bytes(32) + b"\x00" + vector(b"\x13\x01\x13", 2) + b"\x01\x00")), 50),
        (records(handshake(b"\x03\x03" + bytes(32) + b"\x00" + vector(uint16s([1]), 2) + b"\x00")), 50),
        (records(handshake(hello_body(extensions=[(5, b""), (5, b"")]))), 47),
    ],
)
def test_malformed_streams_say_which_alert_to_send(stream, alert):
    with pytest.raises(MalformedHello) as caught:
        parse_client_hello(stream)
    assert caught.value.alert == alert


def test_largest_hello_is_read_and_a_larger_one_refused_as_soon_as_it_is_known():
    def stream(padding, size=16384):
        return records(handshake(hello_body(extensions=[(21, bytes(padding))])), size)

    padding = MAX_HELLO_BYTES - len(stream(MAX_HELLO_BYTES - 1000)) + MAX_HELLO_BYTES - 1000
    largest = stream(padding)
    assert len(largest) == MAX_HELLO_BYTES and len(stream(padding + 1)) == MAX_HELLO_BYTES + 1
    assert parse_client_hello(largest).extensions == (21,)
    with pytest.raises(MalformedHello, match="more than 65536"):
        parse_client_hello(stream(padding + 1)[:65000])
    with pytest.raises(MalformedHello, match="at most"):
        parse_client_hello(records(b"\x01" + (MAX_HELLO_BYTES - 8).to_bytes(3)))


def test_the_bytes_of_many_records_are_bounded_and_not_the_number():
    message = handshake(hello_body(extensions=[(21, bytes(MAX_HELLO_BYTES // 6))]))
    several = records(message, 2)
    assert isinstance(parse_client_hello(several), ClientHello)
    single = records(message, 1)
    for end in (MAX_HELLO_BYTES, len(single)):
        with pytest.raises(MalformedHello, match="more than 65536"):
            parse_client_hello(single[:end])
    assert parse_client_hello(single[: MAX_HELLO_BYTES - 6]) is NEED_MORE


WARNING = b"\x15\x03\x01\x00\x02\x01\x5a"


@pytest.mark.parametrize(
    "stream",
    [
        REAL,
        WARNING + REAL,
        WARNING * 3 + REAL,
        b"\x16\x02\x01" + REAL[3:],
        b"\x16\x00\x01" + REAL[3:],
        b"\x16\x0f\x03" + REAL[3:],
        b"\x16\x03\x01\x00\x00" + REAL,
        b"\x16\x03\x01\x00\x00" + WARNING + records(REAL[5:], 3),
    ],
    ids=["usual", "a warning", "warnings", "2.1", "0.1", "15.3", "an empty record", "all"],
)
def test_what_some_server_takes_for_a_hello_is_one_in_a_tunnel(stream):
    assert parse_tunnelled_hello(stream).sni == "a.example"
    for length in range(0, len(stream), 5):
        assert parse_tunnelled_hello(stream[:length]) is NEED_MORE, length


@pytest.mark.parametrize(
    "stream",
    [
        b"\x14\x03\x01\x00\x01\x01" + REAL,
        b"\x17\x03\x01\x00\x01\x01" + REAL,
        b"\x15\x03\x01\x00\x02\x02\x28" + REAL,
        b"\x15\x03\x01\x00\x03\x01\x28\x00" + REAL,
        b"\x16\x10\x01" + REAL[3:],
        b"\x16\x03\x01\x40\x01",
        # a game's handshake: a length, and then what is not a ClientHello
        b"\x16\x00\xf6\x05\x09localhost\x63\xdd\x01",
        b"GET / HTTP/1.1",
        b"\x00",
    ],
)
def test_what_no_server_takes_for_a_hello_is_none_in_a_tunnel(stream):
    assert parse_tunnelled_hello(stream) is None


@pytest.mark.parametrize(
    "stream",
    [
        records(handshake(hello_body() + b"!")),
        records(handshake(hello_body(extensions=[server_name(b"a"), server_name(b"b")]))),
        records(REAL[5:], 40)[:45] + WARNING + records(REAL[5:], 40)[45:],
        b"\x16\x03\x01\x00\x04\x01\x01\x00\x01",
    ],
    ids=["lies about a length", "two names", "a warning within", "too long"],
)
def test_a_hello_that_servers_may_read_in_two_ways_is_refused_in_a_tunnel(stream):
    with pytest.raises(MalformedHello) as caught:
        parse_tunnelled_hello(stream)
    assert caught.value.is_hello


@pytest.mark.parametrize(
    ("begun", "kind"),
    [(b"\x16\x03", "tls"), (b"\x15", "tls"), (b"\x80\x2e", "sslv2"), (b"G", "http"), (b"\r\n", "http"), (b"SSH-", "http")],
)
def test_what_has_only_begun_is_refused_as_what_it_may_become(begun, kind):
    assert may_become(begun) == kind


def parse_or_refuse(data):
    try:
        return parse_client_hello(data)
    except MalformedHello as error:
        assert 0 < error.alert < 256
        return None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_hello_malformed_or_unfinished(data):
    for stream in (data, records(data), records(handshake(data)), records(handshake(BODY[:-2] + vector(data, 2)))):
        answer = parse_or_refuse(stream)
        assert answer is None or answer is NEED_MORE or answer.raw_length <= len(stream)


@settings(deadline=None)
@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_any_flipped_byte_of_a_real_hello_is_survived(at, value):
    parse_or_refuse(REAL[:at] + bytes([value]) + REAL[at + 1 :])


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_verdicts_are_final(data):
    """What is refused or parsed stays so when more bytes come; what has been sniffed does not change."""
    early = parse_or_refuse(data)
    if early is not NEED_MORE:
        assert parse_or_refuse(data + b"more") == early
    sniffed = sniff(data)
    if sniffed is not NEED_MORE:
        assert sniff(data + b"more") == sniffed


@pytest.mark.parametrize(
    ("first_bytes", "verdict"),
    [
        (REAL, "tls"),
        (b"\x16\x03\x00\x00\x10", "tls"),
        *((bytes((kind, major, minor)), "tls") for kind in range(0x14, 0x18) for major, minor in ((3, 1), (2, 1), (0, 1), (15, 3))),
        (b"\x80\x2e\x01\x03\x01\x00\x15", "sslv2"),
        (b"\x80\x2e\x01\x00\x02\x00\x15", "sslv2"),
        (b"\x80\x2e\x01\x00\x09", "other"),
        (b"\x80\x2e\x04\x00\x02", "other"),
        (b"\x80\x2e\x01\x07\x02", "other"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "other"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", "other"),
        (b"SSH-1.99-OpenSSH_3.9\n", "other"),
        (b"SSH-2.0-x / HTTP/1.1\r\n", "http"),
        (b"SSH-2.0-x secret HTTP/1.1\r\n", "http"),
        (b"SSH-2.0-x /secret\r\n", "http"),
        (b"SSH-2.0-x http://a/\r\n", "http"),
        (b"SSH-x secret\r\n", "http"),
        (b"SSH-2.0-" + b"x" * 248, "http"),
        (b"GET / HTTP/1.1\r\n", "http"),
        (b"OPTIONS * HTTP/1.1\r\n", "http"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "http2"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\0", "http"),
        (b"PRI * HTTP/2.0\r\nHost: a\r\n", "http"),
        (b"PRI * HTTP/1.1\r\n", "http"),
        (b"PRI x", "http"),
        (b" PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
        (b"M-SEARCH /x HTTP/1.1\r\n", "http"),
        (b"GET HTTP://a.example/ HTTP/1.1\r\n", "http"),
        (b"GET ws://a.example/ HTTP/1.1\r\n", "http"),
        (b"GET http:/x HTTP/1.1\r\n", "http"),
        (b"GET */x HTTP/1.1\r\n", "http"),
        (b"GET x HTTP/1.1\r\n", "http"),
        (b"GET x\r\n", "http"),
        (b"GET \r\n", "http"),
        (b"GET \x02/ HTTP/1.1", "http"),
        (b"G@T /x HTTP/1.1", "http"),
        (b"\xc3\x84 /x HTTP/1.1", "http"),
        (b"CONNECT a.example:443 HTTP/1.1\r\n", "http"),
        # SMTP, which servers begin; some server may take it for HTTP all the same
        (b"EHLO mail.example\r\n", "http"),
        (b"PING\r\n", "other"),
        (b"PING\n", "other"),
        (b"AMQP\x00\x00\x09\x01", "other"),
        (b"*1\r\n$4\r\nPING\r\n", "other"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "other"),
        (b"\x05\x01\x00", "other"),
        # LDAP: a bind, whose length is a form feed
        (b"0\x0c\x02\x01\x01", "other"),
        (b" GET / HTTP/1.1\r\n", "http"),
        (b"\t\v\f GET / HTTP/1.1\r\n", "http"),
        (b"\r\nGET / HTTP/1.1\r\n", "http"),
        (b"\n\r\n\nGET / HTTP/1.1\r\n", "http"),
        (b"\r\n" * 128, "http"),
        (b"\r\n" * 120 + b"\nGET / HTTP/1.1\r\n", "http"),
        (b"\r\n\x16\x03\x01", "other"),
        (b"GET  / HTTP/1.1\r\n", "http"),
        (b"GET\t/ HTTP/1.1\r\n", "http"),
        (b"GET\v/ HTTP/1.1\r\n", "http"),
        (b"GET\f \r/ HTTP/1.1\r\n", "http"),
        (b"GET\r/ HTTP/1.1\r\n", "http"),
        (b"GET\r" + b" " * 252, "http"),
        (b"A" * 256, "http"),
        (b"A" * 33 + b" / HTTP/1.1", "http"),
    ],
)
def test_sniffing_tells_protocols_apart_and_waits_while_it_cannot(first_bytes, verdict):
    assert sniff(first_bytes) == sniff(memoryview(first_bytes)) == verdict
    seen = [sniff(first_bytes[:length]) for length in range(len(first_bytes) + 1)]
    assert seen[0] is NEED_MORE and set(seen) == {NEED_MORE, verdict}
    assert seen == sorted(seen, key=lambda each: each is not NEED_MORE)
