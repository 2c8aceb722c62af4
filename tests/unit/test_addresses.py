"""Hosts and ports as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm.addresses import format_host_port, normalise_host, parse_bind_address, parse_target


@pytest.mark.parametrize(
    ("spelling", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("localhost", "localhost"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1.", "10.0.0.1"),
        ("1.example", "1.example"),
        ("0xcafe.example", "0xcafe.example"),
        ("0xcafé.example", "xn--0xcaf-fsa.example"),
        ("[2001:DB8:0:0::1]", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("::FFFF:a00:1", "10.0.0.1"),
        # The examples of UTS #46; the last three are what IDNA 2003 gets wrong.
        ("Bücher.example", "xn--bcher-kva.example"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("日本語。ＪＰ", "xn--wgv71a119e.jp"),
        ("faß.de", "xn--fa-hia.de"),
        ("ΒΌΛΟΣ.com", "xn--nxasmq6b.com"),
        ("βόλος.com", "xn--nxasmm1c.com"),
    ],
)
def test_one_spelling_for_each_host(spelling: str, host: str) -> None:
    assert normalise_host(spelling) == host
    assert normalise_host(host) == host


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "no host"),
        (".", "no host"),
        ("a..b", "not a name"),
        (".a", "not a name"),
        ("a..", "not a name"),
        ("exa mple.com", "not a name"),
        ("example.com\r\n", "not a name"),
        ("a\x00b", "not a name"),
        ("a/b", "not a name"),
        ("user@host", "not a name"),
        ("*.example.com", "not a name"),
        ("a" * 64 + ".com", "not a name"),
        (".".join(["a" * 60] * 5), "has a host of 304 characters"),
        ("127.1", "neither a name nor an IPv4 address"),
        ("2130706433", "neither a name nor an IPv4 address"),
        ("0x7f000001", "neither a name nor an IPv4 address"),
        ("127.0.0.0x1", "neither a name nor an IPv4 address"),
        ("010.0.0.1", "neither a name nor an IPv4 address"),
        ("10.0.0.256", "neither a name nor an IPv4 address"),
        ("[::1", "where an IPv6 address should be"),
        ("[1.2.3.4]", "where an IPv6 address should be"),
        ("1:2", "where an IPv6 address should be"),
        ("[fe80::1%" + "z" * 246 + "]", "has a host of 254 characters"),
        ("[::ffff:10.0.0.1%" + "z" * 60_000 + "]", "has a host of 60016 characters"),
        ("bü\u200bcher.de", "U+200B"),
        ("bü cher.de", "U+0020"),
        ("bü/cher.de", "`/` in a label"),
        ("℀.de", "not a name"),
        ("\ud800.de", "U+D800"),
        ("ü" * 62 + ".de", "not a name"),
    ],
)
def test_what_is_no_host_is_refused(host: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        normalise_host(host)
    assert reason in str(caught.value)


@given(st.text(max_size=40))
def test_a_normalised_host_is_ascii_and_stays_as_it_is(text: str) -> None:
    try:
        host = normalise_host(text)
    except ValueError:
        return
    assert host.isascii() and host == host.strip() and "*" not in host
    assert normalise_host(host) == host


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Example.com:443", ("example.com", 443)),
        ("[::1]:1", ("::1", 1)),
        ("a.:65535", ("a", 65535)),
        ("a:00080", ("a", 80)),
    ],
)
def test_target(text: str, target: tuple[str, int]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("a", "has no port; write `a:443`"),
        ("a:", "has no port"),
        (":443", "has no host"),
        ("a:0", "has port 0, which is not within 1..65535"),
        ("a:65536", "has port 65536, which is not within 1..65535"),
        ("a:" + "9" * 5000, "which is not within 1..65535"),
        ("a:+443", "has port `+443`, which is not a number"),
        ("a:٤٤٣", "which is not a number"),
        ("a:44 3", "which is not a number"),
        ("a:https", "has port `https`, which is not a number"),
        ("https://a:443", "is a URL"),
        ("::1", "IPv6 address without brackets"),
        ("2001:db8::1:443", "IPv6 address without brackets"),
        ("[::1]", "has no port; write `[::1]:443`"),
        ("[::1]443", "text between `]` and the port"),
        ("[::1:443", "no closing `]`"),
        ("[zz]:443", "`zz` where an IPv6 address should be"),
    ],
)
def test_what_is_no_target_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_target(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::]:8080", ("::", 8080)),
        ("localhost:8080", ("localhost", 8080)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
    ],
)
def test_bind_address(text: str, address: tuple[str, int]) -> None:
    assert parse_bind_address(text) == address


def test_bind_address_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no host; write `127\.0\.0\.1:8080`, or `0\.0\.0\.0:8080` to listen on every interface"):
        parse_bind_address(":8080")


def test_host_and_port_are_joined_as_they_are_read() -> None:
    assert format_host_port("::1", 443) == "[::1]:443"
    assert parse_target(format_host_port("a.example", 1)) == ("a.example", 1)


@pytest.mark.parametrize(("text", "advice"), [("8080", "write `127.0.0.1:8080`"), ("localhost", "write `localhost:8080`")])
def test_half_an_address_to_bind_is_advised(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_bind_address(text)
